"""Points from a label raster."""

from __future__ import annotations

from ...tasks import jobs
from .. import compat, styling
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class SelectSamples(JobAlgorithm):
    """selectsamples."""

    INPUT = "INPUT"
    BAND = "BAND"
    NODATA = "NODATA"
    STRATEGY = "STRATEGY"
    COUNT = "COUNT"
    PAD = "PAD"
    SAMPLER = "SAMPLER"
    SEED = "SEED"
    EXTENT = "EXTENT"
    CLASSES = "CLASSES"
    CROSSWALK = "CROSSWALK"
    LEGEND = "LEGEND"
    NOMENCLATURE = "NOMENCLATURE"
    MIN_DISTANCE = "MIN_DISTANCE"
    OUTPUT = "OUTPUT"
    REPORT = "REPORT"
    SAMPLE_COUNT = "SAMPLE_COUNT"
    COUNTS = "COUNTS"

    STEP = "sampling"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Chooses labelled pixels of a raster of classes as sample points, so many per class. The points are the pixel "
        "centres; use them with 'Extract patches'."
    )

    def name(self):
        return "selectsamples"

    def displayName(self):
        return tr("Select samples from a label raster")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster(self.INPUT, tr("Label raster"), tr("Raster whose pixel values are class numbers.")),
            p.band(self.BAND, tr("Band"), tr("The band that holds the classes."), self.INPUT),
            p.choice(
                self.STRATEGY,
                tr("Strategy"),
                tr(
                    "How many points per class. upto: the number, or all where a class has fewer. constant: the "
                    "number, reduced for all classes to the rarest. total: the number in all, in proportion. smallest: "
                    "as many as the rarest class has. all: every labelled pixel."
                ),
                jobs.RASTER_STRATEGIES,
            ),
            p.integer(
                self.COUNT,
                tr("Number of samples"),
                tr("Points per class, or in all for the strategy total."),
                default=1000,
                minimum=1,
            ),
            p.sampler(),
            p.extent(),
            p.nodata(),
            p.integer(
                self.PAD,
                tr("Margin in pixels"),
                tr("Pixels cut off on all four sides of the raster, so that patches around the points fit in."),
                default=0,
                minimum=0,
                advanced=True,
            ),
            p.min_distance(),
            p.seed(),
            p.keep_list(),
            p.crosswalk(),
            p.legend(),
            p.sink(
                self.OUTPUT,
                tr("Samples"),
                tr("Points with class_id, class_name and weight (pixels of the class per point)."),
                compat.SOURCE_POINT,
            ),
            p.samples_report(),
        )
        self.add_number(self.SAMPLE_COUNT, tr("Number of samples"), tr("Points that were written."))
        self.add_string(self.COUNTS, tr("Samples per class"), tr("JSON: class value -> points."))

    def job(self, values):
        return jobs.SelectSamples(
            source=values.raster(self.INPUT, nodata=self.NODATA),
            output=values.output(self.OUTPUT),
            band=values.optional_integer(self.BAND) or 1,
            strategy=values.choice(self.STRATEGY),
            count=values.integer(self.COUNT),
            pad=values.integer(self.PAD),
            sampler=values.choice(self.SAMPLER),
            seed=values.integer(self.SEED),
            extent=values.extent(self.EXTENT),
            classes=values.integers(self.CLASSES),
            crosswalk=values.path(self.CROSSWALK),
            legend=values.legend(self.INPUT),
            min_distance=values.optional_integer(self.MIN_DISTANCE),
            report=values.output(self.REPORT),
        )

    def painters(self, values, result):
        return {self.OUTPUT: styling.by_class(result.classes)}
