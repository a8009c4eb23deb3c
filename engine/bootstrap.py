"""Bootstrap intervals over units (blocks of a reference raster, polygons) whose error matrices are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..tasks.errors import BadInput

Interval = tuple[float, float]

# Times that units are drawn, held at once.
_HELD = 4_000_000


@dataclass(frozen=True)
class BootstrapIntervals:
    """95 % percentile intervals (low, high); NaN where no replicate defines the number.

    Attributes:
        overall, kappa, macro_f1, mean_iou: intervals of the summary numbers.
        precision, recall, f1, iou: (K, 2) intervals per class.
        units: blocks or clusters that hold reference pixels.
    """

    overall: Interval
    kappa: Interval
    macro_f1: Interval
    mean_iou: Interval
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    iou: NDArray[np.float64]
    units: int


def block_bootstrap(matrices: NDArray[np.int64], seed: int, replicates: int = 1000) -> BootstrapIntervals:
    """Draw whole units with replacement and give the 2.5 and 97.5 percentiles of every number.

    They speak of the variation inside this reference; for blocks of a raster they are no design-based intervals.

    Args:
        matrices: (B, K, K) error matrix of every unit, rows the reference, columns the map.
        seed: of the draws.
        replicates: number of draws.

    Raises:
        BadInput: fewer than two units hold reference pixels.
    """
    filled = matrices[matrices.sum(axis=(1, 2)) > 0]
    units, classes = len(filled), matrices.shape[1]
    if units < 2:
        raise BadInput(
            f"The reference has {units} blocks or clusters; a bootstrap needs 2 or more.",
            "Choose smaller blocks, more polygons, or the design 'none'.",
        )
    generator, chances = np.random.default_rng(seed), np.full(units, 1 / units)
    flat = filled.reshape(units, -1).astype(np.float64)
    # In pieces: a thousand draws of all blocks of a large raster would fill the memory.
    piece = max(1, _HELD // units)
    sums = [
        generator.multinomial(units, chances, size=min(piece, replicates - start)) @ flat
        for start in range(0, replicates, piece)
    ]
    drawn = np.concatenate(sums).reshape(replicates, classes, classes)
    total = drawn.sum(axis=(1, 2))
    hits = np.diagonal(drawn, axis1=1, axis2=2)
    reference, mapped = drawn.sum(axis=2), drawn.sum(axis=1)
    overall = hits.sum(axis=1) / total
    chance = (reference * mapped).sum(axis=1) / total**2
    f1 = _share(2 * hits, reference + mapped)
    iou = _share(hits, reference + mapped - hits)
    return BootstrapIntervals(
        overall=_pair(overall),
        kappa=_pair(_share(overall - chance, 1 - chance)),
        macro_f1=_pair(_mean(f1)),
        mean_iou=_pair(_mean(iou)),
        precision=_columns(_share(hits, mapped)),
        recall=_columns(_share(hits, reference)),
        f1=_columns(f1),
        iou=_columns(iou),
        units=units,
    )


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the classes that a replicate holds."""
    present = np.isfinite(values)
    return _share(np.where(present, values, 0.0).sum(axis=1), present.sum(axis=1).astype(np.float64))


def _pair(values: NDArray[np.float64]) -> Interval:
    defined = values[np.isfinite(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def _columns(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([_pair(column) for column in values.T])
