"""Counting pairs of reference and map class, window by window, and what is left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from .calibration import Calibration
from .rasterlabels import whole_numbers
from .rasters import RasterReader
from .trainingfield import TrainingField

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Window = Tuple[int, int, int, int]
Pairs = Mapping[Tuple[int, int], int]

# Values that differ by less are counted in a table.
_CLOSE = 1 << 16


@dataclass(frozen=True)
class Pixels:
    """Reference pixels in the map, ``(N,)`` each.

    Attributes:
        rows: of the map.
        cols: of the map.
        classes: of the reference.
        features: polygon that they lie in; -1: none.
        units: what was drawn at random, or is drawn again by the bootstrap (cluster, block, stratum); -1: nothing.
    """

    rows: Indices
    cols: Indices
    classes: Indices
    features: Indices
    units: Indices

    def part(self, chosen: Any) -> Pixels:
        """Return some of the pixels: a slice, or a mask ``(N,)``."""
        return Pixels(*(array[chosen] for array in vars(self).values()))


class Tally:
    """Counts pairs of reference and map class, and what was left out.

    Attributes:
        pairs: (reference, map) -> pixels.
        whole: the same with the pixels near another class (ERODE), which ``pairs`` lacks; empty without ERODE.
        by_feature: polygon -> (reference, map) -> pixels.
        by_unit: cluster, block or stratum -> (reference, map) -> pixels.
        unmapped: reference pixels on which the map is no-data.
        shared_classes: reference class -> pixels in the training area.
        left_out: the same, where they are left out of everything else (LEAVE_OUT_TRAINING).
        left_units: cluster, block or stratum -> pixels of it that are left out so.
        leaves_out: whether they are.
        field: where the training samples lie.
        eroded: reference pixels near another class (ERODE).
        rest: reference class of what nobody labelled; None: there is none. Where the map is no-data, it is not missed.
    """

    def __init__(
        self,
        mapped: RasterReader,
        field: TrainingField,
        calibration: Optional[Calibration] = None,
        leave_out: bool = False,
        rest: Optional[int] = None,
    ) -> None:
        """Count nothing yet."""
        self.mapped = mapped
        self.pairs: Counter[Tuple[int, int]] = Counter()
        self.whole: Counter[Tuple[int, int]] = Counter()
        self.by_feature: Dict[int, Counter[Tuple[int, int]]] = {}
        self.by_unit: Dict[int, Counter[Tuple[int, int]]] = {}
        self.unmapped = 0
        self.shared_classes: Counter[int] = Counter()
        self.left_out = 0
        self.left_units: Counter[int] = Counter()
        self.eroded = 0
        self.calibration = calibration
        self.field = field
        self.leaves_out = leave_out
        self.rest = rest

    @property
    def shared(self) -> int:
        """Return the reference pixels in the training area, without those that are left out."""
        return sum(self.shared_classes.values())

    def add(self, pixels: Pixels, window: Window, near: Optional[Mask] = None) -> None:
        """Count pixels of a window (row, col, height, width); those ``near`` another class ``(N,)`` apart."""
        values, valid = self.mapped.read(*window)
        place = pixels.rows - window[0], pixels.cols - window[1]
        found, known = values[0][place], valid[0][place]
        if self.leaves_out:
            kept = ~(known & self.field.holds(pixels.rows, pixels.cols))
            self.left_out += int(np.count_nonzero(~kept))
            self.left_units.update(pixels.units[~kept].tolist())
            pixels, found, known = pixels.part(kept), found[kept], known[kept]
            near = None if near is None else near[kept]
        if near is not None:
            self.eroded += int(np.count_nonzero(near))
            reference, mapped = pixels.classes[known], whole_numbers(found[known], self.mapped.name)
            for own, other, count in combinations(reference, mapped):
                self.whole[(own, other)] += count
            pixels, found, known = pixels.part(~near), found[~near], known[~near]
        missed = ~known if self.rest is None else ~known & (pixels.classes != self.rest)
        self.unmapped += int(np.count_nonzero(missed))
        pixels, mapped = pixels.part(known), whole_numbers(found[known], self.mapped.name)
        if not self.leaves_out:
            held = self.field.holds(pixels.rows, pixels.cols)
            for own, count in combinations(pixels.classes[held]):
                self.shared_classes[own] += count
        for feature, unit, own, other, count in combinations(pixels.features, pixels.units, pixels.classes, mapped):
            self.pairs[(own, other)] += count
            if feature >= 0:
                self.by_feature.setdefault(feature, Counter())[(own, other)] += count
            if unit >= 0:
                self.by_unit.setdefault(unit, Counter())[(own, other)] += count
        if self.calibration is not None and len(pixels.rows):
            place = pixels.rows - window[0], pixels.cols - window[1]
            self.calibration.add(window, *place, pixels.classes, mapped)

    def values(self) -> List[int]:
        """Return the classes that occur in the reference or in the map."""
        return sorted({value for pairs in (self.pairs, self.whole) for pair in pairs for value in pair})


def matrix_of(pairs: Pairs, values: Sequence[int]) -> Indices:
    """Return the confusion matrix ``(K, K)`` of pairs (reference, map) of these classes."""
    position = {value: index for index, value in enumerate(values)}
    matrix = np.zeros((len(values), len(values)), np.int64)
    for (reference, found), count in pairs.items():
        matrix[position[reference], position[found]] += count
    return matrix


def combinations(*arrays: Indices) -> Iterator[Tuple[int, ...]]:
    """Yield the distinct combinations of values in arrays ``(N,)``, each followed by how often it occurs."""
    if not len(arrays[0]):
        return
    tables = [distinct(array) for array in arrays]
    codes = np.zeros(len(arrays[0]), np.int64)
    for values, positions in tables:
        codes = codes * len(values) + positions
    found, positions = distinct(codes)
    for code, count in zip(found.tolist(), np.bincount(positions).tolist()):
        combination = []
        for values, _ in reversed(tables):
            code, position = divmod(code, len(values))
            combination.append(int(values[position]))
        yield (*reversed(combination), count)


def distinct(array: Indices) -> Tuple[Indices, Indices]:
    """Return the distinct values of an array ``(N,)``, ascending, and the place of each element among them.

    As `numpy.unique`, without sorting where the values lie close together, as classes do.
    """
    low, high = int(array.min()), int(array.max())
    if high - low >= _CLOSE:
        values, positions = np.unique(array, return_inverse=True)
        return values, positions.reshape(-1)
    shifted = array - low
    present = np.flatnonzero(np.bincount(shifted))
    places = np.zeros(high - low + 1, np.int64)
    places[present] = np.arange(len(present))
    return present + low, places[shifted]
