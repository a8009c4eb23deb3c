"""Polygons from a class map."""

from __future__ import annotations

from ...tasks import jobs
from .. import compat, styling
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class Vectorise(JobAlgorithm):
    """vectorise."""

    INPUT = "INPUT"
    CLASSES = "CLASSES"
    MIN_AREA = "MIN_AREA"
    SIMPLIFY = "SIMPLIFY"
    OUTPUT = "OUTPUT"
    POLYGON_COUNT = "POLYGON_COUNT"
    AREA = "AREA"

    STEP = "mapping"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Turns the classes of a map into polygons, with their class, area and perimeter on the ground. Small ones can "
        "be left out, and the steps of the pixels smoothed; borders that two classes share stay common. All polygons "
        "are held in memory: a million take 5 to 8 gigabytes, half of that where nothing is smoothed."
    )

    def name(self):
        return "vectorise"

    def displayName(self):
        return tr("Polygons from a class map")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster(self.INPUT, tr("Class map"), tr("Raster of classes, for example a map; its band 1 is read.")),
            p.keep_list(),
            p.real(
                self.MIN_AREA,
                tr("Least area in square metres"),
                tr("Polygons and holes with less area are left out. 0: none are."),
                default=0.0,
                minimum=0,
            ),
            p.real(
                self.SIMPLIFY,
                tr("Simplify, in pixels"),
                tr("Side of the steps that are smoothed. 0: polygons follow the pixels' edges."),
                default=1.0,
                minimum=0,
            ),
            p.legend(),
            p.sink(
                self.OUTPUT,
                tr("Polygons"),
                tr("Polygons with class_id, class_name, area_m2 and perimeter_m, measured on the ground."),
                compat.SOURCE_POLYGON,
            ),
        )
        self.add_number(self.POLYGON_COUNT, tr("Polygons"), tr("Polygons in the layer."))
        self.add_number(self.AREA, tr("Area"), tr("Area of all polygons in square metres."))

    def job(self, values):
        return jobs.Vectorise(
            source=values.raster(self.INPUT),
            output=values.output(self.OUTPUT),
            classes=values.integers(self.CLASSES),
            min_area=values.real(self.MIN_AREA),
            simplify=values.real(self.SIMPLIFY),
            legend=values.legend(self.INPUT),
        )

    def painters(self, values, result):
        return {self.OUTPUT: styling.by_class(result.classes)}
