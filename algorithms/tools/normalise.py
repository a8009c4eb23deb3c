"""Stack and normalise bands."""

from __future__ import annotations

from ...tasks import jobs
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class Normalise(JobAlgorithm):
    """normalise."""

    INPUT = "INPUT"
    STACK = "STACK"
    BANDS = "BANDS"
    METHOD = "METHOD"
    EXPRESSION = "EXPRESSION"
    NODATA = "NODATA"
    OUTPUT = "OUTPUT"

    STEP = "tools"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Stacks bands and brings them to one scale, as the tutorial does. Deepscape's own training needs no such step: "
        "it learns the scale of each band from the patches."
    )

    def name(self):
        return "normalise"

    def displayName(self):
        return tr("Stack and normalise bands")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster_source(tr("The image; its bands come first.")),
            p.choice(
                self.METHOD,
                tr("Method"),
                tr(
                    "max: divide each band by its maximum. minmax: from 0 to 1. zscore: mean 0 and deviation 1. "
                    "expression: as written below. No-data is left out of the statistics."
                ),
                jobs.NORMALISE_METHODS,
            ),
            p.text_value(
                self.EXPRESSION,
                tr("Expression"),
                tr("For the method expression: the bands are B1, B2, ..., e.g. (B4 - B3) / (B4 + B3)."),
            ),
            p.nodata(),
            p.raster_output(self.OUTPUT, tr("Normalised image"), tr("Raster of 32-bit floating-point numbers.")),
        )

    def job(self, values):
        return jobs.Normalise(
            source=values.raster(self.INPUT, self.STACK, self.BANDS, self.NODATA),
            output=values.output(self.OUTPUT),
            method=values.choice(self.METHOD),
            expression=values.text(self.EXPRESSION),
        )
