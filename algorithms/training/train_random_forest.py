"""Train a Random Forest."""

from __future__ import annotations

from ...tasks import jobs
from .. import parameters as p
from ..translate import tr
from .base import Trainer


class TrainRandomForest(Trainer):
    """trainrandomforest."""

    FEATURES = "FEATURES"
    TREES = "TREES"
    PRESET = "PRESET"

    SUMMARY = (
        "Trains a Random Forest on a patch dataset: the classical method to compare a network with. It learns from the "
        "pixel in the centre, or from it with the mean and deviation of the patch."
    )

    def name(self):
        return "trainrandomforest"

    def displayName(self):
        return tr("Train a Random Forest")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            self.datasets(),
            self.scenes(),
            p.choice(
                self.FEATURES,
                tr("Features"),
                tr("pixel: the values of the centre pixel. window: with the mean and deviation of the patch."),
                jobs.FOREST_FEATURES,
            ),
            p.integer(self.TREES, tr("Trees"), tr("Number of decision trees."), default=100, minimum=1),
            p.choice(
                self.PRESET,
                tr("Preset"),
                tr("default: trees grow to the end. otb: depth 5 and at least 10 samples, as the Orfeo ToolBox."),
                jobs.FOREST_PRESETS,
                advanced=True,
            ),
            p.seed(),
            self.results(),
        )
        self.add_numbers()

    def job(self, values):
        return jobs.TrainRandomForest(
            training=values.path(self.TRAINING),
            output=values.output(self.OUTPUT),
            validation=values.path(self.VALIDATION),
            test=values.path(self.TEST),
            validation_share=values.real(self.VALIDATION_SHARE),
            features=values.choice(self.FEATURES),
            trees=values.integer(self.TREES),
            preset=values.choice(self.PRESET),
            seed=values.integer(self.SEED),
            report=values.output(self.REPORT),
            **self.scene_values(values),
        )
