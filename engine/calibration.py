"""Whether probabilities say how often a map is right, and what another threshold would change.

Reliability, expected calibration error (C. Guo et al., On calibration of modern neural networks, ICML 2017), Brier
score (of two classes that of the second, of more the sum over the classes: as scikit-learn has them), and, of two
classes, the precision and recall of the second by threshold.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry
from ..tasks.errors import BadInput
from .rasters import RasterReader

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

BINS = 10
# Steps of the threshold: a multiple of the 250 of probabilities in one byte, so that those are exact.
_STEPS = 10_000
# Share of the pixels up to which a map is taken for one that was made by a threshold: edges may have been cleaned.
_OTHERWISE_MAPPED = 0.01
# Rounding of float32 must not put 0.3 below 0.3.
_ROUNDING = 1e-6


class Calibration:
    """Sums over probabilities, mapped classes and reference classes, from which all figures follow.

    What is right is told by the map: a threshold or a later step may have chosen another class than the most probable.

    Attributes:
        classes: class value of each band.
    """

    def __init__(self, reader: RasterReader, classes: Sequence[int], threshold: Optional[float] = None) -> None:
        """Count nothing yet.

        Args:
            reader: of the probabilities.
            classes: class value of each of its bands.
            threshold: of two classes: what the map says of the threshold that it was made by; None = nothing.
        """
        self.classes, self._threshold = tuple(classes), threshold
        self._reader = reader
        self._values = np.array(self.classes, np.int64)
        self._order = np.argsort(self._values)
        self._pixels = np.zeros(BINS, np.int64)
        self._confidence = np.zeros(BINS)
        self._right = np.zeros(BINS, np.int64)
        self._brier = 0.0
        self._missing = 0
        # Of two classes: by whether the reference, or the map, has the second one.
        self._by_step = np.zeros((2, _STEPS + 1), np.int64)
        self._mapped_by_step = np.zeros((2, _STEPS + 1), np.int64)
        self._pairs = np.zeros((2, 2), np.int64)

    @property
    def bands(self) -> int:
        """Return the number of classes."""
        return len(self.classes)

    def add(
        self, window: Tuple[int, int, int, int], rows: Indices, cols: Indices, reference: Indices, mapped: Indices
    ) -> None:
        """Count pixels of a window (row, col, height, width) by their place in it, their reference and map class."""
        raw, valid = self._reader.read(*window)
        # A class without a band, of a map that was changed later, has no probability either.
        known = valid[:, rows, cols].all(axis=0) & np.isin(mapped, self._values)
        self._missing += int(np.count_nonzero(~known))
        picked = self._reader.physical(raw[:, rows, cols][:, None, :])[:, 0, known]
        self.add_probabilities(picked.astype(np.float64), reference[known], mapped[known])

    def add_probabilities(self, probabilities: Floats, reference: Indices, mapped: Indices) -> None:
        """Count pixels.

        Args:
            probabilities: ``(K, N)``.
            reference: class values ``(N,)``.
            mapped: class values ``(N,)``, each of a band.

        Raises:
            BadInput: a value is no probability.
        """
        if not reference.size:
            return
        low, high = float(probabilities.min()), float(probabilities.max())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise BadInput(
                f"'{self._reader.name}' holds {low if low < 0 else high:g}, which is no probability.",
                "Give the PROBABILITIES that 'Classify an image' wrote with the map.",
            )
        target = reference[None, :] == self._values[:, None]
        chosen = (mapped[None, :] == self._values[:, None]).argmax(axis=0)
        confidence = np.take_along_axis(probabilities, chosen[None], axis=0)[0]
        bins = np.clip(np.ceil(confidence * BINS - _ROUNDING).astype(np.int64) - 1, 0, BINS - 1)
        self._pixels += np.bincount(bins, minlength=BINS)
        self._confidence += np.bincount(bins, confidence, BINS)
        self._right += np.bincount(bins[mapped == reference], minlength=BINS)
        if self.bands == 2:
            second = int(self._order[1])
            chance, holds, called = probabilities[second], target[second], chosen == second
            self._brier += float(((chance - holds) ** 2).sum())
            steps = np.clip(np.floor(chance * _STEPS + _STEPS * _ROUNDING).astype(np.int64), 0, _STEPS)
            for which in (0, 1):
                self._by_step[which] += np.bincount(steps[holds == bool(which)], minlength=_STEPS + 1)
                self._mapped_by_step[which] += np.bincount(steps[called == bool(which)], minlength=_STEPS + 1)
            np.add.at(self._pairs, (holds.astype(np.intp), called.astype(np.intp)), 1)
        else:
            # A reference class without a band is one that the model gives no probability.
            self._brier += float(((probabilities - target) ** 2).sum()) + float(np.count_nonzero(~target.any(axis=0)))

    def figures(self, table: Sequence[ClassEntry]) -> Dict[str, Any]:
        """Return the figures as plain values; empty where no pixel had probabilities.

        Keys: pixels, missing, brier, expected_calibration_error, bins (low, high, pixels, confidence, accuracy), and
        of two classes threshold: value and name of the second class, average_precision, curve (threshold, precision,
        recall, f1, iou), best (the row of the largest F1, which is that of the largest IoU), half (that of 0.5) and
        map (that of the map as it is, with the threshold that it was made by; None where it was made by none).
        """
        pixels = int(self._pixels.sum())
        if not pixels:
            return {}
        filled = np.maximum(self._pixels, 1)
        confidence, accuracy = self._confidence / filled, self._right / filled
        gaps = np.abs(confidence - accuracy) * self._pixels
        rows = [
            {
                "low": number / BINS, "high": (number + 1) / BINS, "pixels": int(self._pixels[number]),
                "confidence": float(confidence[number]) if self._pixels[number] else None,
                "accuracy": float(accuracy[number]) if self._pixels[number] else None,
            }
            for number in range(BINS)
        ]  # fmt: skip
        result: Dict[str, Any] = {
            "pixels": pixels, "missing": self._missing, "brier": self._brier / pixels,
            "expected_calibration_error": float(gaps.sum() / pixels), "bins": rows,
        }  # fmt: skip
        if self.bands == 2 and self._by_step[1].any():
            value = int(self._values[self._order[1]])
            name = next((entry.name for entry in table if entry.value == value), str(value))
            result["threshold"] = {
                "value": value, "name": name, **threshold_figures(*self._by_step), "map": self._row_of_map(),
            }  # fmt: skip
        return result

    def _row_of_map(self) -> Dict[str, Optional[float]]:
        threshold = threshold_of(*self._mapped_by_step) if self._threshold is None else self._threshold
        (_, alarms), (missed, hits) = self._pairs.tolist()
        return {
            "threshold": threshold,
            "precision": hits / (hits + alarms) if hits + alarms else None,
            "recall": hits / (hits + missed),
            "f1": 2 * hits / (2 * hits + alarms + missed),
            "iou": hits / (hits + alarms + missed),
        }


def threshold_figures(others: Indices, own: Indices) -> Dict[str, Any]:
    """Return what each threshold gives, from the pixels of both classes by step of their probability ``(S + 1,)``."""
    steps = len(own) - 1
    hits, alarms = own[::-1].cumsum()[::-1], others[::-1].cumsum()[::-1]
    total = int(own.sum())
    called = hits + alarms
    precision = np.divide(hits, called, out=np.full(steps + 1, np.nan), where=called > 0)
    recall = hits / total
    f1 = 2 * hits / (called + total)
    iou = hits / (alarms + total)
    # Steps that no pixel is at add no recall.
    gained = -np.diff(recall, append=0.0)
    average = float((gained * np.nan_to_num(precision)).sum())

    def row(place: int) -> Dict[str, Optional[float]]:
        figures = {"precision": precision, "recall": recall, "f1": f1, "iou": iou}
        found = {name: float(values[place]) for name, values in figures.items()}
        return {"threshold": place / steps, **{name: None if v != v else v for name, v in found.items()}}

    best = _middle_of_best(f1)
    # A page needs a hundred points of the curve.
    return {
        "average_precision": average,
        "curve": [row(place) for place in range(0, steps + 1, steps // 100)],
        "best": row(best),
        "half": row(steps // 2),
    }


def threshold_of(first: Indices, second: Indices) -> Optional[float]:
    """Return the threshold that a map shows, from the pixels of its classes by step of their probability ``(S + 1,)``.

    0.5 where that does; else the middle of those that agree with the map best; None where none is right for 99 %.
    """
    steps = len(first) - 1
    # From a step on: what the map has as the first class, and up to it what it has as the second.
    wrong = first[::-1].cumsum()[::-1] + second.cumsum() - second
    if wrong.min() > _OTHERWISE_MAPPED * (first.sum() + second.sum()):
        return None
    half = steps // 2
    return (half if wrong[half] == wrong.min() else _middle_of_best(-wrong)) / steps


def _middle_of_best(values: Array) -> int:
    """Return the middle of the first run of places that share the largest value: the threshold farthest from change."""
    best = values >= values.max()
    first = int(best.argmax())
    length = int((~best[first:]).argmax()) if not best[first:].all() else len(best) - first
    return first + (length - 1) // 2


def band_classes(reader: RasterReader, classes: Sequence[ClassEntry], map_name: str) -> List[int]:
    """Return the class value of each band, by the bands' names.

    Args:
        reader: of the probabilities.
        classes: of the map.
        map_name: of the map, for messages.

    Raises:
        BadInput: there is one band alone, or a band's name is no class of the map.
    """
    names = [band.name.strip() for band in reader.bands]
    if len(names) < 2:
        raise BadInput(
            f"'{reader.name}' has one band; probabilities have one for each class.",
            "Give the PROBABILITIES that 'Classify an image' wrote with the map.",
        )
    entries = sorted(classes, key=lambda entry: entry.value)
    if [entry.name for entry in entries] == names:
        return [entry.value for entry in entries]
    by_name = {entry.name: entry.value for entry in entries}
    found: List[int] = []
    for name in names:
        number = re.fullmatch(r"(?:Class )?([+-]?\d+)", name)
        if name not in by_name and not number:
            known = ", ".join(repr(entry.name) for entry in entries[:20])
            if not known:
                raise BadInput(
                    f"Band '{name}' of '{reader.name}' cannot be matched with a class: the map '{map_name}' carries no "
                    "class names.",
                    "Give the map with the style file (.qml) that was written beside it, or name the bands by class.",
                )
            raise BadInput(
                f"Band '{name}' of '{reader.name}' is no class of the map '{map_name}', whose classes are {known}.",
                "Give the PROBABILITIES that 'Classify an image' wrote with the map.",
            )
        found.append(by_name[name] if name in by_name else int(number.group(1)) if number else 0)
    if len(set(found)) < len(found):
        raise BadInput(
            f"Two bands of '{reader.name}' are of one class.", "Name each band like the class whose probability it is."
        )
    return found
