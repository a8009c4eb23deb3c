"""The distance up to which an image's pixels resemble each other: the range of its variogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from scipy.spatial.distance import pdist

from ..tasks.context import Context
from .rasters import RasterReader

# The same pixels for every run: the blocks must not change with the seed of a split.
_SEED = 20240229
# Clusters of pixels give near and far pairs, and few blocks of the file to read.
_CLUSTERS = 96
_CLUSTER_PIXELS = 24
_CLUSTER_SIDE = 64
# Bands that are looked at, evenly chosen; neighbours in a spectrum resemble each other.
_MOST_BANDS = 16
_LAGS = 24
_LEAST_PAIRS = 30
_RANGES = 80
# A model whose distance explains less of the variance than this has no range.
_LEAST_STRUCTURE = 0.1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Variogram:
    """A spherical model of the bands' mean variogram, each band with variance 1.

    Attributes:
        range_px: distance at which pixels no longer resemble each other; None where none do, or too few are valid.
        nugget: variance at distance 0.
        sill: variance beyond the range.
        reach_px: the largest distance that was looked at; a range of that may well be longer.
        pixels: pixels that were looked at.
    """

    range_px: Optional[float]
    nugget: float
    sill: float
    reach_px: float
    pixels: int


def measure_variogram(reader: RasterReader, context: Context) -> Variogram:
    """Measure the variogram on a fixed sample of valid pixels and fit a spherical model (Cressie 1993, 2.3 and 2.6)."""
    places, values = _sample(reader, context)
    reach = min(reader.grid.width, reader.grid.height) / 2
    nothing = Variogram(None, 0.0, 0.0, reach, len(places))
    if len(places) < 2 or reach < 2:
        return nothing
    # A few clouds or roofs would make most of the variance: the outer 2 % are brought in.
    values = np.clip(values, *np.percentile(values, (2, 98), axis=0))
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    if values.shape[1] == 0:
        return nothing
    distance = pdist(places)
    edges = np.geomspace(1.0, reach, _LAGS + 1)
    bins = np.digitize(distance, edges) - 1
    near = (bins >= 0) & (bins < _LAGS)
    counts = np.bincount(bins[near], minlength=_LAGS)
    sums = np.zeros(_LAGS)
    for band in values.T:
        context.check()
        sums += np.bincount(bins[near], weights=pdist(band[:, None], "sqeuclidean")[near], minlength=_LAGS)
    full = counts >= _LEAST_PAIRS
    if np.count_nonzero(full) < 3:
        return nothing
    lags = np.bincount(bins[near], weights=distance[near], minlength=_LAGS)[full] / counts[full]
    return _fitted(lags, sums[full] / (2 * counts[full] * values.shape[1]), nothing)


def spherical(distance: Floats, range_px: float) -> Floats:
    """Return the spherical model: 0 at distance 0, 1 from the range on."""
    share = np.minimum(distance / range_px, 1.0)
    return np.asarray(1.5 * share - 0.5 * share**3)


def _sample(reader: RasterReader, context: Context) -> Tuple[Floats, Floats]:
    """Return places (row, col) ``(N, 2)`` and values ``(N, C)`` of pixels that are valid in all bands."""
    generator = np.random.default_rng(_SEED)
    grid = reader.grid
    height, width = min(_CLUSTER_SIDE, grid.height), min(_CLUSTER_SIDE, grid.width)
    bands = np.unique(np.linspace(0, len(reader.bands) - 1, _MOST_BANDS).round().astype(int))
    places, values = [], []
    for _ in range(_CLUSTERS):
        context.check()
        row = int(generator.integers(0, grid.height - height + 1))
        col = int(generator.integers(0, grid.width - width + 1))
        chosen = generator.choice(height * width, size=min(_CLUSTER_PIXELS, height * width), replace=False)
        raw, valid = reader.read(row, col, height, width)
        down, across = np.divmod(chosen, width)
        known = valid[:, down, across].all(axis=0)
        places.append(np.stack([row + down[known], col + across[known]], axis=1))
        values.append(raw[bands][:, down[known], across[known]].T)
    return np.concatenate(places).astype(np.float64), np.concatenate(values).astype(np.float64)


def _fitted(lags: Floats, variances: Floats, nothing: Variogram) -> Variogram:
    """Return the best of the models of many ranges, each with the nugget and sill of least squares, none negative."""
    best = nothing
    least = np.inf
    for candidate in np.geomspace(2.0, nothing.reach_px, _RANGES):
        model = np.stack([np.ones_like(lags), spherical(lags, float(candidate))], axis=1)
        (nugget, partial), error = nnls(model, variances)
        if error < least - 1e-12:
            least = error
            enough = partial >= _LEAST_STRUCTURE * (nugget + partial) and partial > 0
            best = Variogram(
                float(candidate) if enough else None, float(nugget), float(nugget + partial), nothing.reach_px,
                nothing.pixels,
            )  # fmt: skip
    return best
