"""Training, validation and test parts that do not touch."""

from __future__ import annotations

from ...tasks import jobs
from .. import compat, styling
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class SplitSamples(JobAlgorithm):
    """splitsamples."""

    INPUT = "INPUT"
    FIELD = "FIELD"
    METHOD = "METHOD"
    RASTER = "RASTER"
    BLOCK_SIZE = "BLOCK_SIZE"
    GUARD = "GUARD"
    TRAIN_SHARE = "TRAIN_SHARE"
    VALIDATION_SHARE = "VALIDATION_SHARE"
    SEED = "SEED"
    OUTPUT = "OUTPUT"

    STEP = "sampling"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Divides samples into training, validation and test parts by whole polygons or blocks, so that no part learns "
        "from its neighbours in another: neighbouring pixels are alike, and a random split flatters every model."
    )

    def name(self):
        return "splitsamples"

    def displayName(self):
        return tr("Split samples into training, validation and test")

    def initAlgorithm(self, configuration=None):
        share = tr("Share of each class, from 0 to 1.")
        self.add_parameters(
            p.vector(self.INPUT, tr("Samples"), tr("Points or polygons with their class in a field.")),
            p.field(
                self.FIELD, tr("Class field"), tr("Field that holds the class; each part gets all classes."), "INPUT"
            ),
            p.choice(
                self.METHOD,
                tr("Method"),
                tr(
                    "polygons: whole polygons, by originfid for points that came from them. blocks: squares of the "
                    "block size. random: single features (neighbours may fall into different parts). auto: polygons "
                    "where there are any, else blocks."
                ),
                jobs.SPLIT_METHODS,
            ),
            p.real(self.TRAIN_SHARE, tr("Training share"), share, default=0.6, minimum=0, maximum=1),
            p.real(
                self.VALIDATION_SHARE,
                tr("Validation share"),
                f"{share} {tr('The rest is for testing.')}",
                default=0.2,
                minimum=0,
                maximum=1,
            ),
            p.raster(
                self.RASTER,
                tr("Image"),
                tr("The image that will be mapped: sets the pixel for blocks and guard."),
                optional=True,
            ),
            p.real(
                self.BLOCK_SIZE,
                tr("Block size in pixels"),
                tr("Side of a block for the method blocks. Unset: computed from the image."),
                minimum=0,
                advanced=True,
            ),
            p.real(
                self.GUARD,
                tr("Guard in pixels"),
                tr("Samples nearer than this to another part are dropped. Unset: none is dropped without need."),
                minimum=0,
                advanced=True,
            ),
            p.seed(),
            p.sink(
                self.OUTPUT,
                tr("Split samples"),
                tr("The samples with a field split: train, validation or test."),
                compat.SOURCE_VECTOR,
            ),
        )

    def job(self, values):
        return jobs.SplitSamples(
            samples=values.vector(self.INPUT),
            field=values.field(self.FIELD),
            output=values.output(self.OUTPUT),
            method=values.choice(self.METHOD),
            raster=values.raster(self.RASTER, required=False),
            block_size=values.optional_real(self.BLOCK_SIZE),
            guard=values.optional_real(self.GUARD),
            train_share=values.real(self.TRAIN_SHARE),
            validation_share=values.real(self.VALIDATION_SHARE),
            seed=values.integer(self.SEED),
        )

    def painters(self, values, result):
        # A class style that came with the samples goes on to the patches; only samples without one show their part.
        field, categories = values.categories(self.INPUT)
        return {self.OUTPUT: styling.by_category(field, categories) if categories else styling.by_split}
