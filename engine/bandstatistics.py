"""Statistics of bands, gathered window by window over valid pixels only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Iterator, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from .oddvalues import Outlier, ValueWatch
from .rasters import Array, Grid, RasterReader

Vector = npt.NDArray[np.float64]

_WINDOW = 256
_MOST_WINDOWS = 36  # 36 windows of 256 x 256 pixels: 2.4 Mpx


class BandStatistics:
    """Count, minimum, maximum, mean and deviation of every band ``(C,)``; NaN where no pixel was valid."""

    def __init__(self, bands: int) -> None:
        """Begin with no pixel."""
        self.count: Vector = np.zeros(bands)
        self._mean: Vector = np.zeros(bands)
        self._squares: Vector = np.zeros(bands)
        self._minimum: Vector = np.full(bands, np.inf)
        self._maximum: Vector = np.full(bands, -np.inf)

    def add(self, values: Array, valid: Array) -> None:
        """Take in a window ``(C, H, W)`` and its mask of the same shape.

        Means and sums of squares are merged by Chan, Golub and LeVeque (1979): no large numbers cancel.
        """
        exact = values.astype(np.float64)
        if valid.all():
            # A quarter of the time that masks take, of most windows of most scenes.
            count = np.full(len(exact), float(exact[0].size))
            least, most, mean = exact.min(axis=(1, 2)), exact.max(axis=(1, 2)), exact.mean(axis=(1, 2))
            exact -= mean[:, None, None]
            squares = np.einsum("chw,chw->c", exact, exact)
        else:
            count = valid.sum(axis=(1, 2)).astype(np.float64)
            least, most = (np.where(valid, exact, end) for end in (np.inf, -np.inf))
            least, most = least.min(axis=(1, 2)), most.max(axis=(1, 2))
            mean = np.where(valid, exact, 0.0).sum(axis=(1, 2)) / np.maximum(count, 1)
            squares = (np.where(valid, exact - mean[:, None, None], 0.0) ** 2).sum(axis=(1, 2))
        total = np.maximum(self.count + count, 1)
        delta = mean - self._mean
        self._squares += squares + delta**2 * self.count * count / total
        self._mean += delta * count / total
        self.count += count
        self._minimum, self._maximum = np.minimum(self._minimum, least), np.maximum(self._maximum, most)

    @property
    def mean(self) -> Vector:
        """Return the means."""
        return np.where(self.count > 0, self._mean, np.nan)

    @property
    def deviation(self) -> Vector:
        """Return the deviations (of the population)."""
        return np.where(self.count > 0, np.sqrt(self._squares / np.maximum(self.count, 1)), np.nan)

    @property
    def minimum(self) -> Vector:
        """Return the minima."""
        return np.where(self.count > 0, self._minimum, np.nan)

    @property
    def maximum(self) -> Vector:
        """Return the maxima."""
        return np.where(self.count > 0, self._maximum, np.nan)


@dataclass(frozen=True)
class SceneStatistics:
    """Mean and deviation per band over valid pixels, in physical units, ``(C,)``; ``count`` valid pixels per band."""

    mean: Vector
    std: Vector
    count: npt.NDArray[np.int64]

    def of(self, bands: Sequence[int]) -> SceneStatistics:
        """Return those of some bands, by their positions."""
        at = list(bands)
        return SceneStatistics(self.mean[at], self.std[at], self.count[at])

    def without(self, outliers: Sequence[Optional[Outlier]]) -> SceneStatistics:
        """Return those of the pixels that do not hold their band's outlier; bands behind these are as they were."""
        mean, std, count = self.mean.copy(), self.std.copy(), self.count.copy()
        for band, outlier in enumerate(outliers):
            if outlier is not None:
                mean[band], std[band] = outlier.mean, outlier.std
                count[band] = round(count[band] * (1 - outlier.share))
        return SceneStatistics(mean, std, count)


def sample_windows(height: int, width: int) -> Iterator[Tuple[int, int, int, int]]:
    """Yield windows (row, col, height, width) that cover a small raster, or lie on a regular grid over a large one."""
    rows, cols = math.ceil(height / _WINDOW), math.ceil(width / _WINDOW)
    step = max(1, math.ceil(math.sqrt(rows * cols / _MOST_WINDOWS)))
    for row in range(min(step // 2, rows - 1), rows, step):
        for col in range(min(step // 2, cols - 1), cols, step):
            top, left = row * _WINDOW, col * _WINDOW
            yield top, left, min(_WINDOW, height - top), min(_WINDOW, width - left)


def scene_statistics(
    reader: RasterReader,
    scales: Optional[Sequence[float]] = None,
    offsets: Optional[Sequence[float]] = None,
    rule: str = "any",
    check: Optional[Callable[[], None]] = None,
    watch: Optional[ValueWatch] = None,
) -> SceneStatistics:
    """Return the statistics of all bands of a scene from a regular sample of its windows (all of a small one).

    Args:
        reader: the scene.
        scales: factor per band to physical units; None = the file's own.
        offsets: summand per band, likewise.
        rule: no-data rule, see `RasterReader.read`.
        check: called between windows; raises when the job is cancelled.
        watch: sees the windows, too.
    """

    def read(row: int, col: int, height: int, width: int) -> Tuple[Array, Array]:
        return reader.read(row, col, height, width, rule)

    scale = np.array([b.scale for b in reader.bands] if scales is None else scales, float)
    offset = np.array([b.offset for b in reader.bands] if offsets is None else offsets, float)
    found = sampled_statistics(
        reader.grid,
        len(reader.bands),
        read if watch is None else watch.reading(read),
        check or (lambda: None),
    )
    return SceneStatistics(found.mean * scale + offset, found.std * np.abs(scale), found.count)


def sampled_statistics(
    grid: Grid, bands: int, read: Callable[[int, int, int, int], Tuple[Array, Array]], check: Callable[[], None]
) -> SceneStatistics:
    """Return the statistics of what ``read`` gives, from a regular sample of a grid's windows (all of a small one).

    Args:
        grid: of the scene.
        bands: their number.
        read: gives values and validity ``(C, H, W)`` of a window (row, col, height, width).
        check: called between windows; raises when the job is cancelled.
    """
    statistics = BandStatistics(bands)
    for window in sample_windows(grid.height, grid.width):
        check()
        statistics.add(*read(*window))
    return SceneStatistics(statistics.mean, statistics.deviation, statistics.count.astype(np.int64))
