"""A blind probability sample of a map for its accuracy assessment."""

from __future__ import annotations

from ...tasks import jobs
from .. import compat, styling
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class AssessmentSample(JobAlgorithm):
    """assessmentsample."""

    INPUT = "INPUT"
    TOTAL = "TOTAL"
    TARGET_SE = "TARGET_SE"
    EXPECTED_ACCURACY = "EXPECTED_ACCURACY"
    CLASS_ACCURACIES = "CLASS_ACCURACIES"
    ALLOCATION = "ALLOCATION"
    MINIMUM = "MINIMUM"
    SEED = "SEED"
    OUTPUT = "OUTPUT"
    KEY = "KEY"
    SAMPLE_COUNT = "SAMPLE_COUNT"
    STANDARD_ERROR = "STANDARD_ERROR"
    COUNTS = "COUNTS"
    STRATA = "STRATA"

    STEP = "sampling"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Draws points at random in every class of a map, to be labelled by eye or in the field: a stratified "
        "probability sample, the only kind from which accuracy and areas can be estimated without bias (Olofsson et "
        "al. 2014). The points do not show the map's class, so that it cannot sway whoever labels them."
    )

    def name(self):
        return "assessmentsample"

    def displayName(self):
        return tr("Sample a map for its assessment")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster(self.INPUT, tr("Class map"), tr("The map to be assessed; each of its classes is a stratum.")),
            p.integer(
                self.TOTAL,
                tr("Number of points"),
                tr(
                    "Points in all. Unset: as many as the standard error wanted and the expected accuracy ask for: "
                    "accuracy times (1 - accuracy), divided by the squared error, which is 1600 for 0.8 and 0.01, and "
                    "fewer on a map of few pixels (Olofsson et al. 2014, equation 13)."
                ),
                minimum=1,
            ),
            p.real(
                self.TARGET_SE,
                tr("Standard error wanted"),
                tr(
                    "Standard error of the overall accuracy, where the number of points is not given: 0.01 means that "
                    "the true accuracy lies within 2 percentage points in 95 of 100 cases. Twice as large an error "
                    "needs a quarter of the points."
                ),
                default=0.01,
                minimum=0.0001,
                maximum=0.5,
            ),
            p.real(
                self.EXPECTED_ACCURACY,
                tr("Expected accuracy"),
                tr(
                    "Share of the pixels of each class on the map that you expect to be right (user's accuracy), from "
                    "0 to 1; nearer to 0.5 needs more points."
                ),
                default=0.8,
                minimum=0,
                maximum=1,
            ),
            p.text_value(
                self.CLASS_ACCURACIES,
                tr("Expected accuracy of single classes"),
                tr("Where it differs from the rest, as class:accuracy, e.g. 3:0.6, 5:0.95."),
                advanced=True,
            ),
            p.choice(
                self.ALLOCATION,
                tr("Allocation"),
                tr(
                    "proportional: points by the area of each class. neyman: more in classes of which less accuracy is "
                    "expected, so that the error is smallest. equal: the same number in each class."
                ),
                jobs.ALLOCATIONS,
            ),
            p.integer(
                self.MINIMUM,
                tr("Fewest points per class"),
                tr("Rare classes get at least so many; the rest is shared among the others."),
                default=50,
                minimum=2,
            ),
            p.seed(),
            p.sink(
                self.OUTPUT,
                tr("Points to label"),
                tr(
                    "Points in random order with stratum (a shuffled code, not the class), weight (pixels per point) "
                    "and an empty reference, to be filled with the class that you see. In the form stratum and weight "
                    "are hidden: points of one stratum share their class on the map. Assessment needs no key: the map "
                    "itself tells the class at each point."
                ),
                compat.SOURCE_POINT,
            ),
            p.file_output(
                self.KEY,
                tr("Key of the strata"),
                tr("Table of stratum, class, pixels, points and weight. Keep it from whoever labels the points."),
                "CSV (*.csv)",
                optional=True,
            ),
        )
        self.add_number(self.SAMPLE_COUNT, tr("Number of points written"), tr("Points that were drawn."))
        self.add_number(
            self.STANDARD_ERROR,
            tr("Expected standard error"),
            tr("Standard error of the overall accuracy with these points, if the expected accuracies hold."),
        )
        self.add_string(self.COUNTS, tr("Points per class"), tr("JSON: class value -> points."))
        self.add_string(
            self.STRATA, tr("Strata"), tr("JSON: class value -> stratum, name, pixels, share, samples and weight.")
        )

    def job(self, values):
        return jobs.AssessmentSample(
            map=values.raster(self.INPUT),
            output=values.output(self.OUTPUT),
            key=values.output(self.KEY),
            total=values.optional_integer(self.TOTAL),
            target_se=values.real(self.TARGET_SE),
            expected_accuracy=values.real(self.EXPECTED_ACCURACY),
            class_accuracies=values.numbers_by_class(self.CLASS_ACCURACIES),
            allocation=values.choice(self.ALLOCATION),
            minimum=values.integer(self.MINIMUM),
            seed=values.integer(self.SEED),
            legend=values.legend(self.INPUT, files=False),
        )

    def painters(self, values, result):
        return {self.OUTPUT: styling.blind(result.classes)}
