"""The Random Forest's features: the centre pixel, and the mean and deviation of the patch around it.

One function serves patches and whole images, so that what a forest was trained on is what it maps: the same
operations in the same order, hence the same bits, whatever the tile.
"""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def forest_features(kind: str, values: Array, patch_size: int, fill: Array) -> Floats:
    """Return the features of the given kind (see `pixel_features` and `window_features`)."""
    return (window_features if kind == "window" else pixel_features)(values, patch_size, fill)


def pixel_features(values: Array, patch_size: int, fill: Array) -> Floats:
    """Return the centre pixel's values at every position where a whole patch fits.

    Args:
        values: physical values ``(..., C, H, W)``, NaN where no-data: one image, or patches (H = W = patch_size).
        patch_size: pixels on a side; the centre is at local index ``patch_size // 2``.
        fill: what no-data becomes, per band ``(C,)``: the training means.

    Returns:
        float32 ``(..., C, H - p + 1, W - p + 1)``.
    """
    centre = _centre(values, patch_size)
    return np.where(np.isnan(centre), fill[:, None, None], centre).astype(np.float32)


def window_features(values: Array, patch_size: int, fill: Array) -> Floats:
    """Return the centre pixel, and the mean and deviation of the patch, at every position where a whole patch fits.

    No-data pixels are left out of mean and deviation; where a patch has no valid pixel they are the fill and 0. The
    sums run over deviations from the fill in float64, so that nothing is lost to large values; the deviation is that
    of the population.

    Args:
        values: physical values ``(..., C, H, W)``, NaN where no-data: one image, or patches (H = W = patch_size).
        patch_size: pixels on a side; the centre is at local index ``patch_size // 2``.
        fill: what no-data becomes, per band ``(C,)``: the training means.

    Returns:
        float32 ``(..., 3 C, H - p + 1, W - p + 1)``: centre values of all bands, then the means, then the deviations.
    """
    base = np.asarray(fill, dtype=np.float64)[:, None, None]
    missing = np.isnan(values)
    shifted = np.where(missing, 0.0, values - base)
    if missing.any():
        counts = _box_sum((~missing).astype(np.float64), patch_size)
    else:
        counts = np.array(float(patch_size * patch_size))
    divisor = np.maximum(counts, 1.0)
    mean = _box_sum(shifted, patch_size) / divisor
    square = _box_sum(shifted * shifted, patch_size) / divisor
    deviation = np.sqrt(np.maximum(square - mean * mean, 0.0))
    parts = (pixel_features(values, patch_size, fill), (mean + base).astype(np.float32), deviation.astype(np.float32))
    return np.concatenate(parts, axis=-3)


def as_rows(features: Floats) -> Tuple[Floats, Tuple[int, ...]]:
    """Return features ``(..., F, H, W)`` as rows ``(n, F)`` and the shape ``(..., H, W)`` to give results back in."""
    moved = np.moveaxis(features, -3, -1)
    return np.ascontiguousarray(moved.reshape(-1, moved.shape[-1])), moved.shape[:-1]


def _centre(values: Array, patch_size: int) -> Array:
    height, width = values.shape[-2] - patch_size + 1, values.shape[-1] - patch_size + 1
    start = patch_size // 2
    return values[..., start : start + height, start : start + width]


def _box_sum(values: Array, size: int) -> Array:
    """Return the sums over boxes: columns are added left to right, then rows top to bottom, each from zero.

    A running (cumulative) sum would be quicker, but its rounding depends on where the tile begins.
    """
    width, height = values.shape[-1] - size + 1, values.shape[-2] - size + 1
    across = np.zeros((*values.shape[:-1], width))
    for number in range(size):
        across += values[..., number : number + width]
    down = np.zeros((*values.shape[:-2], height, width))
    for number in range(size):
        down += across[..., number : number + height, :]
    return down
