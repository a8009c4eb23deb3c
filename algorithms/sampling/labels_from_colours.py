"""A class raster from a coloured label image."""

from __future__ import annotations

from ...tasks import jobs
from .. import parameters as p
from .. import styling
from ..base import JobAlgorithm
from ..translate import tr


class LabelsFromColours(JobAlgorithm):
    """labelsfromcolours."""

    INPUT = "INPUT"
    LEGEND = "LEGEND"
    NOMENCLATURE = "NOMENCLATURE"
    TOLERANCE = "TOLERANCE"
    UNKNOWN = "UNKNOWN"
    OUTPUT = "OUTPUT"
    UNKNOWN_PIXELS = "UNKNOWN_PIXELS"

    STEP = "sampling"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Turns a label image that shows its classes by colour (as the ISPRS Vaihingen reference does) into a raster of "
        "class numbers with a legend, for sampling, dense patches and assessment."
    )

    def name(self):
        return "labelsfromcolours"

    def displayName(self):
        return tr("Class raster from colours")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster(
                self.INPUT,
                tr("Coloured label image"),
                tr("Image with red, green and blue bands from 0 to 255, or one band with a colour table."),
            ),
            p.legend(),
            p.integer(
                self.TOLERANCE,
                tr("Tolerance"),
                tr(
                    "Largest difference per band from the colour of the nearest class; 0: exact colours only. A pixel "
                    "that is equally near to two classes gets none."
                ),
                default=0,
                minimum=0,
            ),
            p.choice(
                self.UNKNOWN,
                tr("Unknown colours"),
                tr(
                    "ignore: pixels with a colour of no class become no-data and are counted. error: stop at the first."
                ),
                jobs.UNKNOWN_COLOURS,
            ),
            p.raster_output(self.OUTPUT, tr("Class raster"), tr("Class values, with legend.")),
        )
        self.add_number(self.UNKNOWN_PIXELS, tr("Unknown pixels"), tr("Pixels with a colour of no class."))

    def job(self, values):
        return jobs.LabelsFromColours(
            source=values.raster(self.INPUT),
            output=values.output(self.OUTPUT),
            legend=values.legend(),
            tolerance=values.integer(self.TOLERANCE),
            unknown=values.choice(self.UNKNOWN),
        )

    def painters(self, values, result):
        return {self.OUTPUT: styling.by_class(result.classes)}
