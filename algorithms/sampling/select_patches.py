"""Footprints of patches on a grid or at random places."""

from __future__ import annotations

from ...tasks import jobs
from .. import compat, styling
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class SelectPatches(JobAlgorithm):
    """selectpatches."""

    INPUT = "INPUT"
    MODE = "MODE"
    COUNT = "COUNT"
    PATCH_SIZE = "PATCH_SIZE"
    # "STEP" as well, but that class attribute is the group.
    GRID_STEP = "STEP"
    OFFSET = "OFFSET"
    LABELS = "LABELS"
    MIN_LABELLED = "MIN_LABELLED"
    SPLIT = "SPLIT"
    STRATA = "STRATA"
    UNIT = "UNIT"
    BLOCK_SIZE = "BLOCK_SIZE"
    GUARD = "GUARD"
    TRAIN_SHARE = "TRAIN_SHARE"
    VALIDATION_SHARE = "VALIDATION_SHARE"
    NODATA = "NODATA"
    SEED = "SEED"
    OUTPUT = "OUTPUT"

    STEP = "sampling"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Places patches on an image, side by side on a grid or at random, and divides them into training, validation "
        "and test parts. The result is one square per patch, to be looked at on the map. Patches that touch no-data, "
        "or hold too few labels, are left out."
    )

    def name(self):
        return "selectpatches"

    def displayName(self):
        return tr("Select patches on a grid or at random")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster(self.INPUT, tr("Image"), tr("The image that patches will be cut from: it sets the grid.")),
            p.choice(
                self.MODE,
                tr("Mode"),
                tr("grid: patches in rows and columns. random: windows at random places, which may overlap."),
                jobs.PATCH_MODES,
            ),
            p.integer(self.PATCH_SIZE, tr("Patch size"), tr("Side of a patch in pixels."), default=256, minimum=1),
            p.integer(
                self.GRID_STEP,
                tr("Step"),
                tr("Pixels from one patch to the next in mode grid; less than the patch size makes them overlap."),
                default=256,
                minimum=1,
            ),
            p.integer(
                self.COUNT, tr("Number of patches"), tr("Patches wanted in mode random."), default=1200, minimum=1
            ),
            p.raster(
                self.LABELS,
                tr("Labels"),
                tr(
                    "Raster of classes; what is no-data there is not labelled. One of another grid or CRS is brought "
                    "onto the image's: by nearest neighbour, or where it is finer by a majority of 0.6 in each pixel."
                ),
                optional=True,
            ),
            p.real(
                self.MIN_LABELLED,
                tr("Least labelled share"),
                tr("Patches with a smaller share of labelled pixels, from 0 to 1, are left out. Needs labels."),
                default=0.1,
                minimum=0,
                maximum=1,
            ),
            p.choice(self.SPLIT, tr("Split"), _split_help(), jobs.PATCH_SPLITS),
            p.real(
                self.TRAIN_SHARE,
                tr("Training share"),
                tr("Share of the patches, from 0 to 1."),
                default=0.6,
                minimum=0,
                maximum=1,
            ),
            p.real(
                self.VALIDATION_SHARE,
                tr("Validation share"),
                tr("Share of the patches, from 0 to 1. The rest is for testing."),
                default=0.2,
                minimum=0,
                maximum=1,
            ),
            p.vector(
                self.STRATA,
                tr("Strata"),
                tr("Polygons for the split strata; patches whose middle lies in none are left out."),
                compat.SOURCE_POLYGON,
                optional=True,
            ),
            *self._advanced_parameters(),
            p.sink(
                self.OUTPUT,
                tr("Patch footprints"),
                tr(
                    "Squares with split (train, validation, test, or empty), row and col of their first pixel and, "
                    "with labels, the labelled share."
                ),
                compat.SOURCE_POLYGON,
            ),
        )

    def _advanced_parameters(self):
        return [
            p.added(
                p.choice(
                    self.UNIT,
                    tr("Unit of block size and guard"),
                    tr(
                        "pixels of the image. metres: on the ground, whatever the CRS (blocks are measured in the "
                        "middle of the image; the guard holds everywhere). map: units of the image's CRS."
                    ),
                    jobs.LENGTH_UNITS,
                    advanced=True,
                )
            ),
            p.real(
                self.BLOCK_SIZE,
                tr("Block size"),
                tr(
                    "Side of the blocks, and least side of the sub-tiles. Pixels are rounded up; a multiple of the "
                    "step cuts no patch of a grid. Metres and map units are rounded to whole steps. Unset: ten "
                    "patches, less on a small image."
                ),
                minimum=0,
                advanced=True,
            ),
            p.real(
                self.GUARD,
                tr("Guard"),
                tr(
                    "Free distance between patches of different parts, rounded up to whole pixels; those nearer are "
                    "left out, training first. 0 leaves out those that share pixels. Unset: none is left out; shared "
                    "pixels are counted."
                ),
                minimum=0,
                advanced=True,
            ),
            p.integer(
                self.OFFSET,
                tr("Offset of the grid"),
                tr(
                    "Pixels that the grid is moved right and down. 0 begins at the second pixel, as the Orfeo ToolBox "
                    "does; -1 at the first."
                ),
                default=0,
                minimum=-1,
                advanced=True,
            ),
            p.nodata(),
            p.seed(),
        ]

    def job(self, values):
        return jobs.SelectPatches(
            source=values.raster(self.INPUT, nodata=self.NODATA),
            output=values.output(self.OUTPUT),
            mode=values.choice(self.MODE),
            count=values.integer(self.COUNT),
            min_labelled=values.real(self.MIN_LABELLED),
            patch_size=values.integer(self.PATCH_SIZE),
            step=values.integer(self.GRID_STEP),
            offset=values.integer(self.OFFSET),
            labels=values.raster(self.LABELS, required=False),
            split=values.choice(self.SPLIT),
            block_size=values.optional_real(self.BLOCK_SIZE),
            guard=values.optional_real(self.GUARD),
            strata=values.vector(self.STRATA, required=False),
            train_share=values.real(self.TRAIN_SHARE),
            validation_share=values.real(self.VALIDATION_SHARE),
            seed=values.integer(self.SEED),
            unit=values.choice(self.UNIT),
        )

    def painters(self, values, result):
        return {self.OUTPUT: styling.by_split}


def _split_help():
    return tr(
        "How patches are divided. none: not at all. chessboard: training and validation in turn, like black and white "
        "squares. proportions: in turn by the shares. blocks: squares of the block size, each in one part. subtiles: "
        "rectangles cut at random, each in one part. strata: by the shares in each polygon of the strata. balanced: a "
        "choice of patches, every fourth for its place and further ones as long as they bring the classes of the "
        "labels nearer to equal numbers, dealt by the shares for each rarest class."
    )
