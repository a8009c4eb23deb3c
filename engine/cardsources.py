"""What a model card says of the images that were learned from: bands, their scaling, and the scenes' own statistics."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..models.cards import CardBand, CardSource
from ..tasks.context import Context
from .datasets import DatasetBand, DatasetSource
from .patchpools import Array, Part, PatchPool


def band_statistics(part: Part, context: Context) -> Tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and deviation of each band ``(C,)`` over the part's patches, in physical units, without no-data.

    Read in chunks; the sums run over deviations from the first chunk's mean, so that large values lose nothing. A
    constant band (or one without data) gets the deviation 1, with a warning.
    """
    bands = part.pool.source.bands
    count, first, second = (np.zeros(len(bands)) for _ in range(3))
    shift: Optional[Array] = None
    for number in part.chunks():
        context.check()
        values = part.physical(number).transpose(1, 0, 2, 3).reshape(len(bands), -1).astype(np.float64)
        valid = ~np.isnan(values)
        values[~valid] = 0.0
        if shift is None:
            shift = values.sum(axis=1) / np.maximum(valid.sum(axis=1), 1)
        values = np.where(valid, values - shift[:, None], 0.0)
        count += valid.sum(axis=1)
        first += values.sum(axis=1)
        second += (values * values).sum(axis=1)
    offset = np.zeros(len(bands)) if shift is None else shift
    divisor = np.maximum(count, 1)
    mean = first / divisor
    std = np.sqrt(np.maximum(second / divisor - mean * mean, 0.0))
    mean = mean + offset
    return mean, usable_deviation(mean, std, count, bands, "patches", context)


def usable_deviation(
    mean: Array, std: Array, count: Array, bands: Sequence[DatasetBand], where: str, context: Context
) -> npt.NDArray[np.float64]:
    """Return the deviations ``(C,)`` that values are divided by: 1 for a constant band, or one without data.

    Args:
        mean: of each band ``(C,)``.
        std: its deviation.
        count: its valid values.
        bands: their names.
        where: what they were taken from, for the warning.
        context: takes the warnings.
    """
    # What float32 cannot tell from a constant is one.
    flat = std <= 1e-7 * np.maximum(np.abs(mean), 1e-30)
    for position in np.flatnonzero(flat).tolist():
        name = bands[position].name or f"band {position + 1}"
        what = "is constant" if count[position] else "holds no data"
        context.warn(f"'{name}' {what} in the training {where}: the model learns nothing from it.")
    return np.where(flat, 1.0, std)


def card_source(part: Part, mean: Array, std: Array) -> CardSource:
    """Return what the card says of the source: the first dataset's bands, with the statistics of all of them."""
    return source_of(part.pool.source, mean, std, *_scene_statistics(part.pool))


def source_of(source: DatasetSource, mean: Array, std: Array, scene_mean: Array, scene_std: Array) -> CardSource:
    """Return what the card says of a source, with the statistics of each band ``(C,)``."""
    bands = tuple(
        CardBand(
            name=band.name,
            mean=float(mean[number]),
            std=float(std[number]),
            scene_mean=float(scene_mean[number]),
            scene_std=float(scene_std[number]),
            scale=band.scale if band.explicit else None,
            offset=band.offset if band.explicit else None,
            nodata=band.nodata,
            expression=band.expression,
        )
        for number, band in enumerate(source.bands)
    )
    return CardSource(source.patch_size, bands, source.dtype, source.nodata_rule)


def _scene_statistics(pool: PatchPool) -> Tuple[Array, Array]:
    """Return mean and deviation of each band ``(C,)`` over the scenes' pixels, every dataset's scene counting alike."""
    bands = [dataset.description.sources[0].bands for dataset in pool.datasets]
    means = np.array([[band.scene_mean for band in some] for some in bands])
    stds = np.array([[band.scene_std for band in some] for some in bands])
    if len(bands) == 1:
        return means[0], stds[0]
    mean: Array = means.mean(axis=0)
    return mean, np.sqrt((stds**2 + (means - mean) ** 2).mean(axis=0))
