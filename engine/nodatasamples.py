"""Samples that are lost, as those that lie where an image has no data: which ones, and how they are told of."""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from .rasters import RasterReader

Numbers = npt.NDArray[np.int64]

# Values read at once: 32 MB of 4-byte bands, and a quarter of it as masks.
_MOST_VALUES = 8_000_000
# Pixels on a side of the parts of an image that is stored in tiles: only where samples lie is read.
_SIDE = 512
# From this share of a class on, lost samples are a warning with what to do; below, they are told.
_MUCH = 0.1
_NAMED = 5
# Where less than this share of a layer's features lies on an image, or on it of a class, the place may be wrong.
_HARDLY_ANY = 0.02


def without_data(
    reader: RasterReader, rule: str, rows: Numbers, cols: Numbers, check: Callable[[], None]
) -> npt.NDArray[np.bool_]:
    """Return which pixels have no data in some band, as `extract_patches` takes it, bool ``(N,)``.

    An image in which nothing can be no-data is not read.

    Args:
        reader: the image.
        rule: what its no-data numbers count as, see `RasterReader.read`.
        rows: of the pixels ``(N,)``, inside the image.
        cols: likewise.
        check: called between windows; raises when the job is cancelled.

    Raises:
        BadInput: the image cannot be read.
    """
    found = np.zeros(len(rows), dtype=bool)
    if not reader.may_lack(rule):
        return found
    for members in _together(reader, rows, cols):
        check()
        top, left = int(rows[members].min()), int(cols[members].min())
        size = int(rows[members].max()) + 1 - top, int(cols[members].max()) + 1 - left
        valid = reader.read_known(top, left, *size, rule)[1]
        if valid is not None:
            lacking = np.asarray(~valid.all(axis=0))
            found[members] = lacking[rows[members] - top, cols[members] - left]
    return found


def _together(reader: RasterReader, rows: Numbers, cols: Numbers) -> Iterator[Numbers]:
    """Yield the pixels that are read together, so that each block of the file is decoded about once."""
    width, bands = reader.grid.width, len(reader.bands)
    # Rows of a striped file are stored whole: reading it in columns would decode each of them several times.
    across = width if reader.striped else _SIDE
    down = max(1, min(_SIDE, _MOST_VALUES // (bands * min(across, width))))
    block = rows // down * (width // across + 1) + cols // across
    order = np.argsort(block, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(block[order])) + 1):
        if len(members):
            yield members


def tell_of_losses(
    what: str, lost: Mapping[int, int], totals: Mapping[int, int], classes: Sequence[ClassEntry],
    remedy: str, context: Context,
) -> None:  # fmt: skip
    """Tell how many samples are lost, and of which classes; warn, with the remedy, where a class loses many of its own.

    Args:
        what: becomes of them: "samples lie where 'image.tif' has no data".
        lost: class value -> samples that are lost.
        totals: class value -> all of its samples.
        classes: their table; without one, no class is named.
        remedy: what to do, as a sentence.
        context: takes the log.
    """
    if not any(lost.values()):
        return
    of_classes = f": {losses_text(lost, totals, classes)}" if classes else ""
    text = f"{sum(lost.values())} of {sum(totals.values())} {what}{of_classes}."
    if hard_hit(lost, totals):
        context.warn(f"{text} {remedy}")
    else:
        context.log(text)


def hard_hit(lost: Mapping[int, int], totals: Mapping[int, int]) -> List[int]:
    """Return the classes that lose a tenth or more of their samples."""
    return [value for value, number in lost.items() if number and number >= _MUCH * totals[value]]


def counts_of(ids: Numbers) -> Dict[int, int]:
    """Return class value -> how many of the samples ``(N,)`` are of it."""
    values, numbers = np.unique(ids, return_counts=True)
    return {int(value): int(number) for value, number in zip(values, numbers)}


def tell_of_outside(text: str, inside: float, context: Context) -> None:
    """Tell of features that lie outside an image: of a regional layer most do, and only where hardly any is left, warn.

    Args:
        text: the sentence.
        inside: share of the features that lie inside.
        context: takes the log.
    """
    (context.warn if inside < _HARDLY_ANY else context.log)(text)


def losses_text(lost: Mapping[int, int], totals: Mapping[int, int], classes: Sequence[ClassEntry]) -> str:
    """Return how many each class loses of its own, the hardest hit first: "3 of 8 of class 2 'wood', 1 of 9 of ..."."""
    hit = [entry for entry in classes if lost.get(entry.value)]
    hit.sort(key=lambda entry: -lost[entry.value] / totals[entry.value])
    text = ", ".join(f"{lost[e.value]} of {totals[e.value]} of class {e.value} '{e.name}'" for e in hit[:_NAMED])
    return text + (f", and some of {len(hit) - _NAMED} other classes" if len(hit) > _NAMED else "")
