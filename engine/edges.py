"""How maps do at the borders of classes: the error of samples near a border, and elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine

from ..tasks.context import Context
from .assessment import near_another_class

EDGE_PX = 2  # a sample nearer than this to another class of the maps lies at a border
_STRIP_ROWS = 512

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class EdgeErrors:
    """The errors of one map on test samples.

    Attributes:
        near: share of wrong ones among those near a border; None where there is none.
        elsewhere: share of wrong ones among the others.
        near_count: samples near a border.
        elsewhere_count: the others.
    """

    near: Optional[float]
    elsewhere: Optional[float]
    near_count: int
    elsewhere_count: int


def edge_errors(
    maps: Sequence[str], transform: Sequence[float], rows: Numbers, cols: Numbers, labels: Numbers, context: Context
) -> List[EdgeErrors]:
    """Return the errors of maps of one grid on samples, near borders and elsewhere.

    A border is one of the class that most maps give a pixel (of ties, the lowest value): the same places for all maps,
    so that a map with many single pixels does not make more of its samples lie at borders.

    Args:
        maps: class rasters of one grid.
        transform: of the scene that rows and columns count on, a to f.
        rows: of the samples ``(N,)``.
        cols: likewise.
        labels: class value of each sample ``(N,)``.
        context: to be asked for a cancel.
    """
    near = np.zeros(len(rows), dtype=bool)
    found = np.full((len(maps), len(rows)), -1, dtype=np.int64)
    datasets = [rasterio.open(path) for path in maps]
    try:
        first = datasets[0]
        down, across = _shift(transform, first.transform)
        rows, cols = rows - down, cols - across
        inside = (rows >= 0) & (rows < first.height) & (cols >= 0) & (cols < first.width)
        for start in range(0, first.height, _STRIP_ROWS):
            context.check()
            here = np.flatnonzero(inside & (rows >= start) & (rows < start + _STRIP_ROWS))
            if not len(here):
                continue
            top, bottom = max(0, start - EDGE_PX), min(first.height, start + _STRIP_ROWS + EDGE_PX)
            window = rasterio.windows.Window(0, top, first.width, bottom - top)
            stack = [dataset.read(1, window=window, masked=True) for dataset in datasets]
            places = rows[here] - top, cols[here]
            for number, values in enumerate(stack):
                known = ~np.ma.getmaskarray(values)[places]
                found[number, here[known]] = values.data[places][known]
            near[here] = near_another_class(*_majority(stack), EDGE_PX)[places]
    finally:
        for dataset in datasets:
            dataset.close()
    return [_errors(mapped, labels, near) for mapped in found]


def _shift(scene: Sequence[float], other: Affine) -> Tuple[int, int]:
    """Return row and column of the other grid's first pixel in the scene."""
    col, row = ~Affine(*scene[:6]) * (other.c, other.f)
    return round(row), round(col)


def _majority(stack: Sequence[np.ma.MaskedArray]) -> Tuple[npt.NDArray[np.int64], Mask]:
    """Return the class that most maps give each pixel, and which pixels have one."""
    values = np.unique(np.concatenate([np.unique(each.compressed()) for each in stack])).astype(np.int64)
    most = np.zeros(stack[0].shape, dtype=np.int64)
    votes = np.zeros(stack[0].shape, dtype=np.int16)
    for value in values:
        own = np.sum([np.ma.filled(each == value, False) for each in stack], axis=0, dtype=np.int16)
        most[own > votes] = value
        votes = np.maximum(votes, own)
    return most, votes > 0


def _errors(mapped: Numbers, labels: Numbers, near: Mask) -> EdgeErrors:
    known = mapped >= 0
    shares: Dict[bool, Optional[float]] = {}
    counts: Dict[bool, int] = {}
    for side in (True, False):
        chosen = known & (near == side)
        counts[side] = int(chosen.sum())
        shares[side] = float(np.mean(mapped[chosen] != labels[chosen])) if counts[side] else None
    return EdgeErrors(shares[True], shares[False], counts[True], counts[False])
