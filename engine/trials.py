"""Trainings that answer a question in place of making a model: several of them, one after the other, in one job."""

from __future__ import annotations

from typing import Optional

from ..models.registry import PATCH_NETWORKS
from ..tasks.context import Context
from ..tasks.jobs import RANDOM_FOREST, TrainClassifier, TrainRandomForest, TrainResult
from .crossvalidation import Step
from .forest import train_random_forest
from .training import train_classifier

_NETWORKS = {entry.id: entry.title for entry in PATCH_NETWORKS}


class Trial(Step):
    """One step of such a job: its progress is a share of the whole, and of what it tells only warnings are kept."""

    def __init__(self, outer: Context, name: str, before: float, weight: float, whole: float) -> None:
        """Wrap a job's context.

        Args:
            outer: of the job.
            name: what the step is called.
            before: weights of the steps before this one.
            weight: of this step.
            whole: weights of all steps.
        """
        super().__init__(outer)
        self.warnings = []
        self._job, self._name = outer, name
        self._from, self._weight, self._all = before, weight, whole

    def progress(self, done: float, total: float, stage: str = "", unit: str = "") -> None:
        """Report progress as a part of the job's."""
        share = done / total if total > 0 else 0.0
        self._job.progress(self._from + self._weight * share, self._all, f"{self._name}, {stage}" if stage else "")

    def log(self, text: str) -> None:
        """Keep to oneself what a single training would tell."""

    def warn(self, text: str) -> None:
        """Log a warning of this step: the report says what matters of all of them."""
        if text not in self.warnings:
            self.warnings.append(text)
            self._job.log(f"{self._name}: {text}")

    def metric(self, name: str, value: float, step: int) -> None:
        """Show no curve: there are many."""

    def picture(self, name: str, png: bytes, step: int, caption: str = "") -> None:
        """Show no picture."""


def title_of(network: str) -> str:
    """Return what reports call a network, or the Random Forest."""
    return _NETWORKS.get(network, "Random Forest")


def train_once(
    network: str, dataset: str, output: str, seed: int, context: Context,
    *, epochs: int, device: str = "auto", features: Optional[str] = None,
) -> TrainResult:  # fmt: skip
    """Train on the training patches of a dataset and judge on its test patches, which choose nothing.

    All epochs are run and the last one is kept: without validation patches, all others learn.

    Args:
        network: of patches, or `RANDOM_FOREST`.
        dataset: folder with patches whose splits are train and test.
        output: model file.
        seed: of the training.
        context: of the step.
        epochs: of a network.
        device: auto, cpu or cuda, of a network.
        features: of a forest: pixel or window; None = window.
    """
    if network == RANDOM_FOREST:
        forest = TrainRandomForest(dataset, output, validation_share=0, features=features or "window", seed=seed)
        return train_random_forest(forest, context)
    job = TrainClassifier(
        dataset, output, validation_share=0, network=network, epochs=epochs, patience=0, seed=seed, device_choice=device
    )
    return train_classifier(job, context)
