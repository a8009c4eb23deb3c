"""Statistics of bands, gathered window by window over valid pixels only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .rasters import Array

Vector = npt.NDArray[np.float64]


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
        count = valid.sum(axis=(1, 2)).astype(np.float64)
        mean = np.where(valid, exact, 0.0).sum(axis=(1, 2)) / np.maximum(count, 1)
        squares = (np.where(valid, exact - mean[:, None, None], 0.0) ** 2).sum(axis=(1, 2))
        total = np.maximum(self.count + count, 1)
        delta = mean - self._mean
        self._squares += squares + delta**2 * self.count * count / total
        self._mean += delta * count / total
        self.count += count
        self._minimum = np.minimum(self._minimum, np.where(valid, exact, np.inf).min(axis=(1, 2)))
        self._maximum = np.maximum(self._maximum, np.where(valid, exact, -np.inf).max(axis=(1, 2)))

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
