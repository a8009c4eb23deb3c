"""Accuracy from one summed confusion matrix: the numbers of training, of assessment and of their reports.

A matrix is ``(K, K)``: rows = reference, columns = map (or prediction), in the order of the class table. Shares are
from 0 to 1. Formulas and the test vector: reference-systems.md, section 3.
"""

from __future__ import annotations

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
        kappa: Cohen's kappa; None where chance alone would agree everywhere (pe = 1), and without samples.
        macro_f1: mean F1 over the classes that occur; None without samples.
        mean_iou: mean intersection over union, likewise.
        precision: user's accuracy per class ``(K,)``, 0 where undefined.
        recall: producer's accuracy per class, likewise.
        f1: harmonic mean of both, likewise.
        iou: intersection over union per class, likewise.
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


def scores(matrix: Array) -> Scores:
    """Return the scores of a confusion matrix ``(K, K)`` of counts (or of weights)."""
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
        # Exactly one class in the reference and the same in the map; 1 - chance would be rounding noise otherwise.
        kappa = (
            None if np.count_nonzero(rows * columns) == 1 and chance > 1 - 1e-12 else (overall - chance) / (1 - chance)
        )
        macro_f1, mean_iou = float(f1[present].mean()), float(iou[present].mean())
    return Scores(matrix, overall, kappa, macro_f1, mean_iou, precision, recall, f1, iou, present)


def _ratio(top: Array, bottom: Array) -> npt.NDArray[np.float64]:
    return np.divide(top, bottom, out=np.zeros(len(bottom), dtype=np.float64), where=bottom > 0)


def metrics_dict(result: Scores, classes: Sequence[ClassEntry]) -> Dict[str, Any]:
    """Return the plain form of the scores: the ``metrics`` of TrainResult, AssessResult and of the model card.

    Keys: overall_accuracy, kappa, macro_f1, mean_iou, samples, values (class values in the matrix's order), matrix, and
    classes, a list with value, name, colour, precision, recall, f1, iou (None for a class that does not occur),
    support (reference samples) and mapped (samples mapped to the class).
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
                    name: float(getattr(result, name)[number]) if occurs else None
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
