"""Statistics of bands, gathered window by window over valid pixels only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from .oddvalues import Outlier, ValueWatch
from .rasters import Array, Grid, RasterReader

Vector = npt.NDArray[np.float64]
# Reads a sample of a scene: yields values and validity ``(C, H, W)`` of one window after the other.
Windows = Callable[[], Iterator[Tuple[Array, Array]]]

_WINDOW = 256
_MOST_WINDOWS = 36  # 36 windows of 256 x 256 pixels: 2.4 Mpx

# A band's values but for this share at either end tell where it lies ...
_ENDS = 0.01
# ... and what is this many times as far from them as they are apart is a stray. Of 24 scenes (Sentinel-1 and -2,
# Landsat, aerial) and their quarters at most 0.14 % of a band are strays by nature. Of 1,843 of these, in other units,
# with an offset or with their bands in another order, that the preflight refuses, each is refused without its strays
# as well; of 5,221 with garbage in up to 0.3 % of a band, each refused for that, none is; of 2,042 with garbage in
# 0.8 %, 38. With 5 in place of 3 these are 48, with 8 they are 94.
_FAR = 3.0
# Values of a band by which these ends are told, about: half a megabyte.
_LOOKED = 150_000


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
class Strays:
    """The few values of a band that lie far from all of its others.

    Attributes:
        value: the one that lies farthest.
        alike: all are this one.
        count: sampled pixels that hold one of them.
        looked: sampled pixels.
        low: the least of the others.
        high: the largest of the others.
    """

    value: float
    alike: bool
    count: int
    looked: int
    low: float
    high: float


@dataclass(frozen=True)
class SceneStatistics:
    """Mean and deviation per band over valid pixels, in physical units, ``(C,)``; ``count`` valid pixels per band.

    ``windows`` reads these pixels again, in the same units and order of bands; None where that is not possible.
    """

    mean: Vector
    std: Vector
    count: npt.NDArray[np.int64]
    windows: Optional[Windows] = field(default=None, repr=False, compare=False)

    def of(self, bands: Sequence[int]) -> SceneStatistics:
        """Return those of some bands, by their positions."""
        at = list(bands)

        def chosen(values: Array, valid: Array) -> Tuple[Array, Array]:
            return values[at], valid[at]

        return SceneStatistics(self.mean[at], self.std[at], self.count[at], self._changed(chosen))

    def without(self, outliers: Sequence[Optional[Outlier]]) -> SceneStatistics:
        """Return those of the pixels that do not hold their band's outlier; bands behind these are as they were."""
        mean, std, count = self.mean.copy(), self.std.copy(), self.count.copy()
        for band, outlier in enumerate(outliers):
            if outlier is not None:
                mean[band], std[band] = outlier.mean, outlier.std
                count[band] = round(count[band] * (1 - outlier.share))

        def others(values: Array, valid: Array) -> Tuple[Array, Array]:
            kept = valid.copy()
            for band, outlier in enumerate(outliers):
                if outlier is not None:
                    kept[band] &= values[band] != outlier.value
            return values, kept

        return SceneStatistics(mean, std, count, self._changed(others))

    def _changed(self, change: Callable[[Array, Array], Tuple[Array, Array]]) -> Optional[Windows]:
        """Return a reader of the windows as ``change`` gives them."""
        windows = self.windows
        return None if windows is None else lambda: (change(*window) for window in windows())

    def without_strays(self) -> Tuple[SceneStatistics, Tuple[Optional[Strays], ...]]:
        """Look again: return the statistics of the pixels that hold no stray, and the strays of each band ``(C,)``.

        A few pixels, at most a hundredth of a band at either end, may have any mean and deviation. The sample is read
        twice, window by window; a band without strays keeps its numbers, and has None for them.
        """
        if self.windows is None:
            return self, (None,) * len(self.mean)
        # An odd step meets all columns of a window, whose width is even.
        steps = [int(count) // _LOOKED | 1 for count in self.count]
        low, high = _fences(self.windows(), steps)
        near, far = BandStatistics(len(low)), BandStatistics(len(low))
        for values, valid in self.windows():
            inside = (values >= low[:, None, None]) & (values <= high[:, None, None])
            near.add(values, valid & inside)
            # Most windows have no stray.
            if (stray := valid & ~inside).any():
                far.add(values, stray)
        some = far.count > 0
        if not some.any():
            return self, (None,) * len(low)
        mean, std, count = (
            np.where(some, new, old)
            for new, old in zip((near.mean, near.deviation, near.count), (self.mean, self.std, self.count))
        )
        strays = tuple(_strays(near, far, band) if one else None for band, one in enumerate(some))
        return SceneStatistics(mean, std, count.astype(np.int64)), strays


def _fences(windows: Iterator[Tuple[Array, Array]], steps: Sequence[int]) -> Tuple[Vector, Vector]:
    """Return of each band the least and the largest number ``(C,)`` that is no stray, by one value in so many."""
    looked: List[List[Array]] = []
    for values, valid in windows:
        # Copies: a view would keep the window.
        looked.append([band[good][::step].copy() for band, good, step in zip(values, valid, steps)])
    low, high = zip(*(_fence(np.concatenate(parts)) for parts in zip(*looked)))
    return np.array(low), np.array(high)


def _fence(values: Array) -> Tuple[float, float]:
    """Return the least and the largest number that is no stray of a band of which these values ``(N,)`` are known."""
    if not len(values):
        return -math.inf, math.inf
    ordered = np.sort(values).astype(np.float64)
    ends = int(len(ordered) * _ENDS)
    low, high = float(ordered[ends]), float(ordered[-1 - ends])
    return low - _FAR * (high - low), high + _FAR * (high - low)


def _strays(near: BandStatistics, far: BandStatistics, band: int) -> Strays:
    ends = (near.minimum, near.maximum, far.minimum, far.maximum)
    low, high, least, most = (float(end[band]) for end in ends)
    count = int(far.count[band])
    farthest = most if most - high > low - least else least
    return Strays(farthest, least == most, count, count + int(near.count[band]), low, high)


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
    found = sampled_statistics(reader.grid, len(reader.bands), read, check or (lambda: None), watch)
    return SceneStatistics(found.mean * scale + offset, found.std * np.abs(scale), found.count)


def sampled_statistics(
    grid: Grid, bands: int, read: Callable[[int, int, int, int], Tuple[Array, Array]], check: Callable[[], None],
    watch: Optional[ValueWatch] = None,
) -> SceneStatistics:  # fmt: skip
    """Return the statistics of what ``read`` gives, from a regular sample of a grid's windows (all of a small one).

    The sample can be looked at again as long as ``read`` can read.

    Args:
        grid: of the scene.
        bands: their number.
        read: gives values and validity ``(C, H, W)`` of a window (row, col, height, width).
        check: called between windows; raises when the job is cancelled.
        watch: sees the windows, too, when they are first read.
    """

    def windows() -> Iterator[Tuple[Array, Array]]:
        for window in sample_windows(grid.height, grid.width):
            check()
            yield read(*window)

    statistics = BandStatistics(bands)
    for values, valid in windows():
        statistics.add(values, valid)
        if watch is not None:
            watch.see(values, valid)
    return SceneStatistics(statistics.mean, statistics.deviation, statistics.count.astype(np.int64), windows)
