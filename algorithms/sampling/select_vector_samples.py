"""Points from polygons, lines or points."""

from __future__ import annotations

from ...tasks import jobs
from .. import compat, styling
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class SelectVectorSamples(JobAlgorithm):
    """selectvectorsamples."""

    INPUT = "INPUT"
    FIELD = "FIELD"
    RASTER = "RASTER"
    MASK = "MASK"
    STRATEGY = "STRATEGY"
    COUNT = "COUNT"
    PERCENT = "PERCENT"
    RATES_FILE = "RATES_FILE"
    SAMPLER = "SAMPLER"
    SEED = "SEED"
    CLASSES = "CLASSES"
    CROSSWALK = "CROSSWALK"
    LEGEND = "LEGEND"
    NOMENCLATURE = "NOMENCLATURE"
    ERODE_POLYGONS = "ERODE_POLYGONS"
    MIN_DISTANCE = "MIN_DISTANCE"
    OUTPUT = "OUTPUT"
    RATES = "RATES"
    REPORT = "REPORT"
    SAMPLE_COUNT = "SAMPLE_COUNT"
    COUNTS = "COUNTS"

    STEP = "sampling"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Chooses the pixels of an image that lie in labelled polygons (or under lines and points) as sample points. "
        "The layer may be in another CRS, in memory or being edited; a selection is respected."
    )

    def name(self):
        return "selectvectorsamples"

    def displayName(self):
        return tr("Select samples from polygons")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.vector(self.INPUT, tr("Labelled layer"), tr("Polygons, lines or points with their class in a field.")),
            p.added(
                p.field(
                    self.FIELD,
                    tr("Class field"),
                    tr(
                        "Field that holds the class: whole numbers, or names, which get numbers. Empty: class_id, or "
                        "the field by whose values the layer is styled (categorised)."
                    ),
                    self.INPUT,
                )
            ),
            p.raster(self.RASTER, tr("Image"), tr("The image whose pixels are sampled: it sets the grid.")),
            p.choice(
                self.STRATEGY,
                tr("Strategy"),
                tr(
                    "How many points per class. upto: the number, or all where a class has fewer. smallest: as many as "
                    "the rarest class has. constant: the number, with a warning where a class has fewer. percent: a "
                    "share of its pixels. total: the number in all, shared by the pixels of the classes. byclass: as "
                    "the file of rates says. all: every labelled pixel."
                ),
                jobs.VECTOR_STRATEGIES,
            ),
            p.integer(
                self.COUNT,
                tr("Number of samples"),
                tr("Points per class; for the strategy total, in all."),
                default=1000,
                minimum=1,
            ),
            p.added(
                p.real(
                    self.PERCENT,
                    tr("Share"),
                    tr("For the strategy percent: the share of the pixels of each class, from 0 to 1."),
                    default=0.5,
                    minimum=0,
                    maximum=1,
                    advanced=True,
                )
            ),
            p.file(
                self.RATES_FILE,
                tr("File of rates"),
                tr(
                    "For the strategy byclass: a CSV file with a class and the number of its samples on each line, "
                    "e.g. water;500, or a file of 'Share samples among images'. A class that is not listed gives none."
                ),
                advanced=True,
            ),
            p.sampler(),
            p.raster(
                self.MASK,
                tr("Mask"),
                tr("Raster of the image's grid: only pixels above 0 are sampled."),
                optional=True,
            ),
            p.added(
                p.integer(
                    self.ERODE_POLYGONS,
                    tr("Pixels cut from polygons"),
                    tr(
                        "Pixels that are cut from the inner edge of each polygon, where borders are drawn inexactly "
                        "and pixels are mixed. Lines and points stay as they are."
                    ),
                    default=0,
                    minimum=0,
                    advanced=True,
                )
            ),
            p.min_distance(),
            p.seed(),
            p.keep_list(),
            p.crosswalk(),
            p.legend(),
            p.sink(
                self.OUTPUT,
                tr("Samples"),
                tr("Points with the fields of the layer, class_id, class_name and originfid, the feature's id."),
                compat.SOURCE_POINT,
            ),
            p.file_output(
                self.RATES,
                tr("Rates"),
                tr("CSV file with the samples asked for, the pixels and the share of each class."),
                "CSV (*.csv)",
                optional=True,
            ),
            p.samples_report(),
        )
        self.add_number(self.SAMPLE_COUNT, tr("Number of samples"), tr("Points that were written."))
        self.add_string(self.COUNTS, tr("Samples per class"), tr("JSON: class value -> points."))

    def job(self, values):
        return jobs.SelectVectorSamples(
            vector=values.vector(self.INPUT),
            field=values.field(self.FIELD, self.INPUT),
            raster=values.raster(self.RASTER),
            output=values.output(self.OUTPUT),
            mask=values.raster(self.MASK, required=False),
            strategy=values.choice(self.STRATEGY),
            count=values.integer(self.COUNT),
            percent=values.real(self.PERCENT),
            rates_file=values.path(self.RATES_FILE),
            sampler=values.choice(self.SAMPLER),
            seed=values.integer(self.SEED),
            classes=values.integers(self.CLASSES),
            crosswalk=values.path(self.CROSSWALK),
            legend=values.legend(self.INPUT, self.FIELD),
            rates=values.output(self.RATES),
            erode_polygons=values.integer(self.ERODE_POLYGONS),
            min_distance=values.optional_integer(self.MIN_DISTANCE),
            report=values.output(self.REPORT),
        )

    def painters(self, values, result):
        return {self.OUTPUT: styling.by_class(result.classes)}
