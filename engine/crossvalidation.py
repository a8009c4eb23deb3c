"""Leaving each scene out in turn: how well a model maps a scene that it has never seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

import numpy as np

from ..tasks.context import Context
from .metrics import Scores, scores

NUMBERS = ("overall_accuracy", "kappa", "macro_f1", "mean_iou")
RolesT = TypeVar("RolesT")


@dataclass(frozen=True, eq=False)
class Fold:
    """A scene that was left out, and what a model of all the others makes of it.

    Attributes:
        scene: its name.
        result: scores on all of its patches.
        best_epoch: the epoch whose weights were judged; 0 for a forest.
        shared_pixels: pixels that the scene's patches share with those that the model learned from.
    """

    scene: str
    result: Scores
    best_epoch: int
    shared_pixels: int


class Step(Context):
    """One of several trainings of a job: its progress is a part of the whole, its words name the scene left out."""

    def __init__(self, outer: Context, scene: str = "", before: float = 0, whole: Optional[float] = None) -> None:
        """Wrap a job's context.

        Args:
            outer: of the job.
            scene: the scene that is left out; empty for the model that is written, which alone tells its curves.
            before: units of progress of the trainings before this one.
            whole: units of all trainings; None to tell no progress.
        """
        super().__init__()
        self.warnings, self.cancelled, self.stopping = outer.warnings, outer.cancelled, outer.stopping
        self._outer, self._scene, self._before, self._whole = outer, scene, before, whole

    def progress(self, done: float, total: float, stage: str = "", unit: str = "") -> None:
        """Report progress as part of the job's."""
        if self._whole is not None:
            self._outer.progress(self._before + done, self._whole, stage, unit)

    def log(self, text: str) -> None:
        """Tell a fact, and of which model."""
        self._outer.log(f"Without '{self._scene}': {text}" if self._scene else text)

    def warn(self, text: str) -> None:
        """Tell what should be acted on, and of which model; once what holds for all."""
        if text not in self.warnings:
            self._outer.warn(f"Without '{self._scene}': {text}" if self._scene else text)

    def metric(self, name: str, value: float, step: int) -> None:
        """Report a metric of the model that is written."""
        if not self._scene:
            self._outer.metric(name, value, step)

    def picture(self, name: str, png: bytes, step: int, caption: str = "") -> None:
        """Show a picture of the model that is written."""
        if not self._scene:
            self._outer.picture(name, png, step, caption)

    def check(self) -> None:
        """Raise JobCancelled when the user cancelled the job."""
        self._outer.check()

    def scratch(self, name: str = "") -> str:
        """Return a path for a temporary file of the job."""
        return self._outer.scratch(name)

    def threads(self) -> Optional[int]:
        """Return the number of threads that the job may use."""
        return self._outer.threads()


def cross_validate(
    folds: Sequence[Tuple[str, RolesT]],
    amounts: Sequence[float],
    train: Callable[[RolesT, Context], Tuple[Scores, int, int]],
    context: Context,
) -> Tuple[Tuple[Fold, ...], Context]:
    """Train and judge a model for each scene that is left out.

    Args:
        folds: the scene's name and the roles of its model.
        amounts: units of progress of each fold's training, and of the one of the model that is written.
        train: trains on some roles; returns the scores on their test part, the best epoch and the shared pixels.
        context: of the job.

    Returns:
        What came of the folds, and the context of the training that follows.
    """
    if not folds:
        return (), context
    found: List[Fold] = []
    for number, (scene, roles) in enumerate(folds):
        result, best, shared = train(roles, Step(context, scene, sum(amounts[:number]), sum(amounts)))
        found.append(Fold(scene, result, best, shared))
        context.log(
            f"Scene '{scene}' left out ({number + 1} of {len(folds)}): {_spoken(result)} on {int(result.matrix.sum())} "
            "patches."
        )
    summary = fold_summary(found)
    spoken = ", ".join(
        f"{title} {summary['mean'][name]:.3f} ± {summary['deviation'][name]:.3f}"
        for name, title in (("overall_accuracy", "overall accuracy"), ("kappa", "kappa"), ("macro_f1", "macro F1"))
        if summary["mean"][name] is not None and summary["deviation"][name] is not None
    )
    context.log(f"Mean and deviation over {len(found)} scenes left out: {spoken}.")
    context.log("The model that is written learns from all scenes, by the same rule.")
    return tuple(found), Step(context, "", sum(amounts[:-1]), sum(amounts))


def pooled(folds: Sequence[Fold]) -> Scores:
    """Return the scores of all scenes' patches together, each judged by the model that has not seen its scene."""
    return scores(np.sum([fold.result.matrix for fold in folds], axis=0))


def fold_summary(folds: Sequence[Fold]) -> Dict[str, Any]:
    """Return the plain form of a cross-validation: the numbers of each scene, their mean and sample deviation.

    Keys: scenes (a list with scene, samples, best_epoch, shared_pixels and the numbers), mean and deviation (by number;
    None where no scene, or but one for the deviation, has it).
    """
    rows = [
        {
            "scene": fold.scene,
            "samples": int(fold.result.matrix.sum()),
            "best_epoch": fold.best_epoch,
            "shared_pixels": fold.shared_pixels,
            **{name: getattr(fold.result, name) for name in NUMBERS},
        }
        for fold in folds
    ]
    mean: Dict[str, Optional[float]] = {}
    deviation: Dict[str, Optional[float]] = {}
    for name in NUMBERS:
        values = [row[name] for row in rows if row[name] is not None]
        mean[name] = float(np.mean(values)) if values else None
        deviation[name] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"scenes": rows, "mean": mean, "deviation": deviation}


def _spoken(result: Scores) -> str:
    parts = [("overall accuracy", result.overall_accuracy), ("kappa", result.kappa), ("macro F1", result.macro_f1)]
    return ", ".join(f"{name} {'n/a' if value is None else format(value, '.3f')}" for name, value in parts)
