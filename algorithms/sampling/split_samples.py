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
    COLUMN = "COLUMN"
    UNIT = "UNIT"
    FOLDS = "FOLDS"
    NEAR = "NEAR"
    SEED = "SEED"
    OUTPUT = "OUTPUT"

    STEP = "sampling"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Divides samples into training, validation and test parts, or into folds, by whole polygons, blocks or scenes, "
        "so that no part learns from its neighbours in another: neighbouring pixels are alike, and a random split "
        "flatters every model."
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
                _method_help(),
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
            *self._advanced_parameters(),
            p.sink(
                self.OUTPUT,
                tr("Split samples"),
                tr(
                    "The samples with a field split (train, validation or test), or with folds a field fold (from 1). "
                    "Where samples are marked, near is 1 for those too near to another part."
                ),
                compat.SOURCE_VECTOR,
            ),
        )

    def _advanced_parameters(self):
        return [
            p.added(p.field(self.COLUMN, tr("Column"), _column_help(), "INPUT", optional=True)),
            p.added(
                p.choice(
                    self.UNIT,
                    tr("Unit of block size and guard"),
                    tr(
                        "pixels of the image. metres: on the ground, whatever the CRS (blocks are measured in the "
                        "middle of the image; the guard holds everywhere). map: units of the image's CRS. Without an "
                        "image, metres and map work in the CRS of the samples."
                    ),
                    jobs.LENGTH_UNITS,
                    advanced=True,
                )
            ),
            p.real(
                self.BLOCK_SIZE,
                tr("Block size"),
                tr(
                    "Side of a block for the method blocks. Unset: 90 pixels, ten patches of the default size, or the "
                    "distance up to which the image's pixels resemble each other (the range of its variogram) where "
                    "that is more; less where too few blocks would remain. The log tells what was measured."
                ),
                minimum=0,
                advanced=True,
            ),
            p.real(
                self.GUARD,
                tr("Guard"),
                tr(
                    "Samples nearer than this to another part are dropped or marked, by the larger of the distances in "
                    "rows and columns. Give the patch size or more. Unset: 9 pixels for blocks on an image, else none."
                ),
                minimum=0,
                advanced=True,
            ),
            p.added(
                p.choice(
                    self.NEAR,
                    tr("Samples within the guard"),
                    tr(
                        "drop: they are left out, of training before validation before test. mark: they stay with an "
                        "empty split and near = 1. Folds always mark, and keep the fold."
                    ),
                    jobs.NEAR_RULES,
                    advanced=True,
                )
            ),
            p.added(
                p.integer(
                    self.FOLDS,
                    tr("Folds"),
                    tr(
                        "2 or more: a field fold (1, 2, ...) for cross-validation in place of split, over the same "
                        "groups; the shares are not used. 0: no folds."
                    ),
                    default=0,
                    minimum=0,
                    advanced=True,
                )
            ),
            p.seed(),
        ]

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
            column=values.field(self.COLUMN),
            unit=values.choice(self.UNIT),
            folds=values.integer(self.FOLDS),
            near=values.choice(self.NEAR),
        )

    def painters(self, values, result):
        # A class style that came with the samples goes on to the patches; only samples without one show their part.
        field, categories = values.categories(self.INPUT)
        by_part = styling.by_fold if values.integer(self.FOLDS) else styling.by_split
        return {self.OUTPUT: styling.by_category(field, categories) if categories else by_part}


def _method_help():
    return tr(
        "polygons: whole polygons, by originfid for points that came from them. blocks: squares of the block size. "
        "random: single features (neighbours may fall into different parts). scene: whole scenes, by the column, else "
        "by the first of the fields scene, layer, image and tile ('Merge vector layers' writes layer). column: as the "
        "column says. auto: polygons where there are any, else blocks."
    )


def _column_help():
    return tr(
        "For the method scene: the field that names the scene. For the method column: a field that holds the part "
        "itself (train, validation or test; training, val, valid and testing are understood), or any other field: its "
        "values are then groups that are kept whole, such as a region, a year or an owner. The log tells which it is."
    )
