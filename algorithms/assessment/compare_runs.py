"""Comparison of trained models."""

from __future__ import annotations

from ...tasks import jobs
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class CompareRuns(JobAlgorithm):
    """compareruns."""

    INPUTS = "INPUTS"
    BASELINE = "BASELINE"
    METRIC = "METRIC"
    OUTPUT = "OUTPUT"
    CSV = "CSV"
    DIFFERENCE = "DIFFERENCE"
    STANDARD_ERROR = "STANDARD_ERROR"
    VERDICT = "VERDICT"

    STEP = "assessment"
    SUMMARY = (
        "Shows what a band, a network or a setting adds: compares models that were trained with and without it on the "
        "same samples, several seeds each, by the differences of the runs of one seed. That something adds nothing is "
        "a result too."
    )

    def name(self):
        return "compareruns"

    def displayName(self):
        return tr("Compare runs")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.files(
                self.INPUTS,
                tr("Models"),
                tr(
                    "Model files (.safetensors) of all runs. Those that differ in nothing but the seed are a group; "
                    "train each with the same seeds, three or more."
                ),
            ),
            p.model(
                self.BASELINE,
                tr("Baseline"),
                tr("A model of the group that the others are compared with. Empty: the first of the models."),
                optional=True,
            ),
            p.choice(
                self.METRIC,
                tr("Number"),
                tr("The number that decides and is an output; the report shows all of them."),
                jobs.COMPARED,
            ),
            p.file_output(
                self.OUTPUT,
                tr("Report"),
                tr("A page with mean and deviation of each group, the differences and what they are worth."),
                "HTML (*.html)",
            ),
            p.file_output(
                self.CSV,
                tr("Table"),
                tr("The same as a table: one line for each group and number, also for each class."),
                "CSV (*.csv)",
                optional=True,
            ),
        )
        self.add_number(
            self.DIFFERENCE,
            tr("Difference"),
            tr("Mean difference of the number between the second group and the baseline, over the seeds."),
        )
        self.add_number(
            self.STANDARD_ERROR, tr("Standard error"), tr("Of the mean difference; empty with less than two seeds.")
        )
        self.add_string(
            self.VERDICT,
            tr("Verdict"),
            tr(
                "adds, harms, no improvement (within two standard errors) or unknown (less than three seeds, or the "
                "same difference in all)."
            ),
        )

    def job(self, values):
        return jobs.CompareRuns(
            models=values.files(self.INPUTS),
            output=values.output(self.OUTPUT),
            csv=values.output(self.CSV),
            baseline=values.path(self.BASELINE),
            metric=values.choice(self.METRIC),
        )
