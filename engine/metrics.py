"""Accuracy from one summed confusion matrix: the numbers of training, of assessment and of their reports.

A matrix is ``(K, K)``: rows = reference, columns = map (or prediction), in the order of the class table. Shares are
from 0 to 1. Formulas and the test vector: reference-systems.md, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Scores:
    """What a confusion matrix says.

    Attributes:
        matrix: ``(K, K)``, rows = reference, columns = map.
        overall_accuracy: share of the samples on the diagonal; None without samples.
        kappa: Cohen's kappa; None without samples, and where the reference holds one class only.
        macro_f1: mean F1 over the classes that occur; None likewise.
        mean_iou: mean intersection over union, likewise.
        precision: user's accuracy per class ``(K,)``, 0 where undefined; NaN where the reference holds one class only.
        recall: producer's accuracy per class, 0 where undefined; where the reference holds one class only, NaN of the
            others.
        f1: harmonic mean of both, as precision.
        iou: intersection over union per class, as precision.
        present: which classes occur in the reference or in the map ``(K,)``; the others are left out of the means.
    """

    matrix: Array
    overall_accuracy: Optional[float]
    kappa: Optional[float]
    macro_f1: Optional[float]
    mean_iou: Optional[float]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    iou: npt.NDArray[np.float64]
    present: npt.NDArray[np.bool_]


def confusion_matrix(reference: Array, mapped: Array, count: int) -> npt.NDArray[np.int64]:
    """Count pairs of class positions ``0 ... count - 1``; rows = reference, columns = map.

    Args:
        reference: class positions, any shape.
        mapped: class positions, the same shape.
        count: number of classes.
    """
    pairs = reference.reshape(-1).astype(np.int64) * count + mapped.reshape(-1).astype(np.int64)
    return np.bincount(pairs, minlength=count * count).reshape(count, count).astype(np.int64)


def class_positions(values: Array, classes: Sequence[ClassEntry]) -> npt.NDArray[np.int64]:
    """Return the position in the (ascending) class table of each class value; -1 where the table lacks it."""
    table = np.array([entry.value for entry in classes], dtype=np.int64)
    place = np.searchsorted(table, values).clip(max=len(table) - 1)
    return np.where(table[place] == values, place, -1).astype(np.int64)


def only_class(matrix: Array) -> Optional[int]:
    """Return the position of the class that alone occurs in the reference of a matrix ``(K, K)``; None for others."""
    occurring = np.flatnonzero(np.asarray(matrix).sum(axis=1) > 0)
    return int(occurring[0]) if len(occurring) == 1 else None


def scores(matrix: Array) -> Scores:
    """Return the scores of a confusion matrix ``(K, K)`` of counts (or of weights).

    A reference of one class only shows how much of it was found. Nothing of it can be wrong in the map, nor anything
    else right, so that user's accuracies, F1, IoU, their means and kappa would tell what was collected, not the map.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    total, hits = float(counts.sum()), np.diag(counts)
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    precision, recall = _ratio(hits, columns), _ratio(hits, rows)
    f1 = _ratio(2 * precision * recall, precision + recall)
    iou = _ratio(hits, rows + columns - hits)
    present = (rows + columns) > 0
    overall = kappa = macro_f1 = mean_iou = None
    if total > 0:
        overall = float(hits.sum() / total)
        chance = float((rows / total * (columns / total)).sum())
        only = only_class(counts)
        if only is None:
            kappa = (overall - chance) / (1 - chance)
            macro_f1, mean_iou = float(f1[present].mean()), float(iou[present].mean())
        else:
            precision, f1, iou = (np.full(len(counts), np.nan) for _ in range(3))
            recall = np.where(np.arange(len(counts)) == only, recall, np.nan)
    return Scores(matrix, overall, kappa, macro_f1, mean_iou, precision, recall, f1, iou, present)


def _ratio(top: Array, bottom: Array) -> npt.NDArray[np.float64]:
    return np.divide(top, bottom, out=np.zeros(len(bottom), dtype=np.float64), where=bottom > 0)


def _plain(value: float) -> Optional[float]:
    return None if math.isnan(value) else float(value)


def metrics_dict(result: Scores, classes: Sequence[ClassEntry]) -> Dict[str, Any]:
    """Return the plain form of the scores: the ``metrics`` of TrainResult, AssessResult and of the model card.

    Keys: overall_accuracy, kappa, macro_f1, mean_iou, samples, values (class values in the matrix's order), matrix, and
    classes, a list with value, name, colour, precision, recall, f1, iou (None for a class that does not occur, and
    where they are NaN), support (reference samples) and mapped (samples mapped to the class).
    """
    rows: List[Dict[str, Any]] = []
    for number, entry in enumerate(classes):
        occurs = bool(result.present[number])
        rows.append(
            {
                "value": entry.value,
                "name": entry.name,
                "colour": entry.colour,
                **{
                    name: _plain(getattr(result, name)[number]) if occurs else None
                    for name in ("precision", "recall", "f1", "iou")
                },
                "support": result.matrix[number].sum().item(),
                "mapped": result.matrix[:, number].sum().item(),
            }
        )
    return {
        "overall_accuracy": result.overall_accuracy,
        "kappa": result.kappa,
        "macro_f1": result.macro_f1,
        "mean_iou": result.mean_iou,
        "samples": result.matrix.sum().item(),
        "values": [entry.value for entry in classes],
        "matrix": result.matrix.tolist(),
        "classes": rows,
    }
