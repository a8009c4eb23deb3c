"""How many pixels the classes of a vector layer cover."""

from __future__ import annotations

from ...tasks import jobs
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class PolygonStatistics(JobAlgorithm):
    """polygonstatistics."""

    INPUT = "INPUT"
    FIELD = "FIELD"
    RASTER = "RASTER"
    MASK = "MASK"
    OUTPUT = "OUTPUT"
    COUNTS = "COUNTS"

    STEP = "sampling"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Counts the pixels of an image that each class and each feature of a labelled layer covers, and writes them as "
        "the Orfeo ToolBox does: to see whether a class is rare, and to share one budget of samples among images."
    )

    def name(self):
        return "polygonstatistics"

    def displayName(self):
        return tr("Count the pixels of polygons")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.vector(self.INPUT, tr("Labelled layer"), tr("Polygons, lines or points with their class in a field.")),
            p.added(
                p.field(
                    self.FIELD,
                    tr("Class field"),
                    tr(
                        "Field that holds the class: whole numbers or names. Empty: class_id, or the field by whose "
                        "values the layer is styled (categorised)."
                    ),
                    self.INPUT,
                )
            ),
            p.raster(self.RASTER, tr("Image"), tr("The image whose pixels are counted: it sets the grid.")),
            p.raster(
                self.MASK,
                tr("Mask"),
                tr("Raster of the image's grid: only pixels above 0 are counted."),
                optional=True,
            ),
            p.file_output(
                self.OUTPUT,
                tr("Statistics"),
                tr("XML file with the pixels per class and per feature, as the Orfeo ToolBox writes and reads it."),
                "XML (*.xml)",
            ),
        )
        self.add_string(self.COUNTS, tr("Pixels per class"), tr("JSON: class -> pixels."))

    def job(self, values):
        return jobs.PolygonStatistics(
            vector=values.vector(self.INPUT),
            field=values.field(self.FIELD, self.INPUT),
            raster=values.raster(self.RASTER),
            output=values.output(self.OUTPUT),
            mask=values.raster(self.MASK, required=False),
        )
