"""Pictures of what a network makes of some patches: image, reference and prediction."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np
import numpy.typing as npt
from rasterio.io import MemoryFile

from ..tasks.classtable import ClassEntry
from .denseparts import DensePart

Array = npt.NDArray[Any]
Picture = npt.NDArray[np.uint8]

# What the pictures of a patch show, in their order.
TITLES = ("Image", "Reference", "Prediction")
_GAP = 4  # pixels between pictures side by side
_UNLABELLED = 0x26  # grey of pixels without a class
_DARKEST, _BRIGHTEST = 2, 98  # percentiles that become black and white
_LOOKED_AT = 16  # windows for each one that is shown; to read all of a large part would take minutes
_TOGETHER = 8


def telling_windows(part: DensePart, count: int, check: Callable[[], None] = lambda: None) -> List[int]:
    """Return the numbers of windows to show, one of each of ``count`` stretches of a part, the most telling first.

    A window tells the more, the larger the sum of the square roots of its classes' pixels is: many labelled pixels
    count, and several classes. Windows at regular places would often be hardly labelled where labels are sparse.

    Args:
        part: the windows; the same ones give the same choice.
        count: windows to show; all are returned of a part that has no more.
        check: called between reads.
    """
    places = np.unique(np.linspace(0, len(part) - 1, min(len(part), count * _LOOKED_AT)).round().astype(int)).tolist()
    told: Dict[int, float] = {}
    for start in range(0, len(places), _TOGETHER):
        check()
        some = places[start : start + _TOGETHER]
        for number, targets in zip(some, part.read(some)[1]):
            told[number] = float(np.sqrt(np.bincount(targets[targets >= 0])).sum())
    stretches = [stretch.tolist() for stretch in np.array_split(places, count)]
    chosen = [max(stretch, key=lambda number: told[number]) for stretch in stretches if stretch]
    return sorted(chosen, key=lambda number: -told[number])


def pictures_of(
    values: Array, targets: Array, predicted: Array, classes: Sequence[ClassEntry]
) -> Tuple[Picture, Picture, Picture]:
    """Return image, reference and prediction, each ``(3, H, W)``.

    Args:
        values: of the bands ``(C, H, W)``, in any unit, NaN where no-data; three bands make a colour picture.
        targets: class positions ``(H, W)``, negative where unlabelled.
        predicted: class positions ``(H, W)``.
        classes: the class table.
    """
    return image_picture(values), class_picture(targets, classes), class_picture(predicted, classes)


def strip(pictures: Sequence[Picture]) -> bytes:
    """Return pictures ``(3, H, W)`` of one height side by side, as PNG."""
    gap = np.full((3, pictures[0].shape[1], _GAP), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)][:-1]
    return png(np.concatenate(parts, axis=2))


def image_picture(values: Array) -> Picture:
    """Return the first three bands, or the first one in grey, stretched to their contrast ``(3, H, W)``."""
    bands = values[[0, 1, 2]] if len(values) >= 3 else values[[0, 0, 0]]
    picture = np.zeros(bands.shape, np.float32)
    for number, band in enumerate(bands):
        known = band[np.isfinite(band)]
        if not len(known):
            continue
        low, high = np.percentile(known, [_DARKEST, _BRIGHTEST])
        picture[number] = np.clip((np.nan_to_num(band, nan=low) - low) / max(high - low, 1e-9), 0, 1)
    return (picture * 255).round().astype(np.uint8)


def class_picture(positions: Array, classes: Sequence[ClassEntry]) -> Picture:
    """Return the colours of class positions ``(3, H, W)``; those that are negative are dark grey."""
    table = np.full((len(classes) + 1, 3), _UNLABELLED, np.uint8)
    for number, entry in enumerate(classes):
        table[number] = [int(entry.colour[start : start + 2], 16) for start in (1, 3, 5)]
    return np.moveaxis(table[np.where(positions < 0, len(classes), positions)], -1, 0)


def png(picture: Picture) -> bytes:
    """Return a picture ``(3, H, W)`` as a PNG file."""
    bands, height, width = picture.shape
    with MemoryFile() as file:
        with file.open(driver="PNG", width=width, height=height, count=bands, dtype="uint8") as dataset:
            dataset.write(picture)
        return bytes(file.read())
