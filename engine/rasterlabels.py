"""Labels of a raster on any grid and CRS, on the grid of an image: as they are, by nearest neighbour or by majority.

A raster whose pixels are as large as the image's, or larger, gives the label at the pixel's centre. One with finer
pixels gives the label that at least 0.6 of the label pixels with their centre in the image's pixel have; those that are
no-data, or lie outside the label raster, are no vote but count. Without such a majority the pixel is ignored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional, Set, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry, Legend, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import RasterSource
from .betweengrids import GridPair
from .classes import check_keep_list
from .crosswalks import Crosswalk
from .denselabels import KNOWN, LEFT_OUT, NOTHING, UNCLEAR, DenseLabels, Labels, States, Window, distinct
from .rasters import Grid, RasterReader
from .vectors import crs_name

Array = npt.NDArray[Any]

# The share of an image's pixel that one label must have where labels are finer, in tenths.
MAJORITY_TENTHS = 6
# A side of a label pixel this much shorter than the image's is finer; less is another projection of the same size.
_FINER = 0.99
# Label pixels looked at together.
_MOST_PIXELS = 4_000_000


class RasterLabels(DenseLabels):
    """Labels of a raster on any grid and CRS; `open_labels` makes it.

    Attributes:
        rule: how they come onto the image's grid: direct, nearest or majority.
    """

    def __init__(
        self, source: RasterSource, grid: Grid, image: str, context: Context, legend: Legend = Legend(),
        classes: Tuple[int, ...] = (), crosswalk: Optional[Crosswalk] = None,
    ) -> None:  # fmt: skip
        """Open the raster; the arguments are those of `open_labels`."""
        self._reader = RasterReader(replace(source, bands=source.bands[:1] or (1,), stack=()))
        try:
            super().__init__(grid, image, self._reader.name)
            self._legend, self._keep, self._crosswalk = legend, classes, crosswalk
            self._present: Set[int] = set()
            self._context = context
            self._grids = GridPair(grid, self._reader.grid, image, self.name, context)
            self._ratio = self._pixels_in_one()
            self.rule = "majority" if self._ratio * _FINER**2 > 1 else "nearest"
            if self._grids.same:
                self.rule = "direct"
            else:
                how = "nearest neighbour" if self.rule == "nearest" else f"a majority of {MAJORITY_TENTHS / 10}"
                context.log(f"'{self.name}' is brought onto the grid of '{image}' by {how}.")
        except BaseException:
            self._reader.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    @property
    def classes(self) -> Tuple[ClassEntry, ...]:
        """Return the table of the classes read so far, ascending."""
        table = self._crosswalk.table if self._crosswalk else resolve
        return table(sorted(self._found), self._legend)

    def _check(self, context: Context) -> None:
        if self._present:
            if self._crosswalk is not None:
                self._crosswalk.check({str(value) for value in self._present}, self.name, context)
            wanted = (
                set(self._crosswalk.of_counts(dict.fromkeys(self._present, 1))) if self._crosswalk else self._present
            )
            check_keep_list(wanted, self._keep, self.name, context)
        if self.ignored:
            context.warn(
                f"{self.ignored} pixels of '{self.image}' hold several labels of the finer '{self.name}', none of them "
                f"on {MAJORITY_TENTHS / 10:g} of the pixel; they are ignored."
            )

    def _read_inside(self, window: Window) -> Tuple[Labels, States]:
        if self.rule == "direct":
            return self._labels(window)
        if self.rule == "majority":
            return self._majority(window)
        rows, cols = (part.reshape(-1) for part in np.indices(window[2:]))
        labels, states = self._nearest(rows + window[0], cols + window[1])
        shape = window[2:]
        return labels.reshape(shape), states.reshape(shape)

    def _labels(self, window: Window) -> Tuple[Labels, States]:
        """Return the wanted classes of a window of the label raster; it may reach over its edge: there is nothing."""
        row, col, height, width = window
        theirs = self._reader.grid
        labels, states = np.zeros((height, width), np.int64), np.full((height, width), NOTHING)
        top, left, bottom, right = (
            max(row, 0),
            max(col, 0),
            min(row + height, theirs.height),
            min(col + width, theirs.width),
        )
        if bottom <= top or right <= left:
            return labels, states
        raw, valid = self._reader.read(top, left, bottom - top, right - left)
        own, known = np.zeros(raw[0].shape, np.int64), valid[0]
        own[known] = whole_numbers(raw[0][known], self.name)
        self._present |= distinct(own[known])
        if self._crosswalk is not None:
            own, known = self._crosswalk.of_labels(own, known)
        found = np.where(known, KNOWN, np.where(valid[0], LEFT_OUT, NOTHING))
        if self._keep:
            # What is known to be of another class than those asked for is none of them.
            found[known & ~np.isin(own, self._keep)] = NOTHING
        inside = slice(top - row, bottom - row), slice(left - col, right - col)
        labels[inside], states[inside] = own, found
        return labels, states

    def _pixels_in_one(self) -> float:
        """Return how many label pixels an image pixel holds.

        Raises:
            BadInput: they cover no common place.
        """
        ratio = self._grids.pixels_in_one()
        if ratio is None:
            raise BadInput(
                f"The labels '{self.name}' ({crs_name(self._reader.grid.crs)}) lie outside '{self.image}' "
                f"({crs_name(self.grid.crs)}).",
                "Check that both cover the same place and that the CRS of each is right.",
            )
        return ratio

    def _nearest(self, rows: Labels, cols: Labels) -> Tuple[Labels, States]:
        """Return the labels at the centres of image pixels, ``(N,)``."""
        theirs = self._reader.grid
        col, row = self._grids.index_there(rows + 0.5, cols + 0.5)
        with np.errstate(invalid="ignore"):
            inside = (col >= 0) & (row >= 0) & (col < theirs.width) & (row < theirs.height)
        labels, states = np.zeros(len(rows), np.int64), np.full(len(rows), NOTHING)
        if inside.any():
            at = np.floor(row[inside]).astype(np.int64), np.floor(col[inside]).astype(np.int64)
            labels[inside], states[inside] = self._at(*at)
        return labels, states

    def _at(self, rows: Labels, cols: Labels) -> Tuple[Labels, States]:
        """Return labels at pixels of the label raster; pixels far apart (over the antimeridian) are read by parts."""
        top, left = int(rows.min()), int(cols.min())
        height, width = int(rows.max()) - top + 1, int(cols.max()) - left + 1
        if height * width <= max(4 * len(rows), _MOST_PIXELS // 4):
            labels, states = self._labels((top, left, height, width))
            return labels[rows - top, cols - left], states[rows - top, cols - left]
        first = rows < top + height // 2 if height > width else cols < left + width // 2
        found, states = np.zeros(len(rows), np.int64), np.full(len(rows), NOTHING)
        for part in (first, ~first):
            if part.any():
                found[part], states[part] = self._at(rows[part], cols[part])
        return found, states

    def _majority(self, window: Window) -> Tuple[Labels, States]:
        row, col, height, width = window
        if height * width > 1 and height * width * self._ratio > _MOST_PIXELS:
            self._context.check()
            if height >= width:
                half = height // 2
                parts, axis = ((row, col, half, width), (row + half, col, height - half, width)), 0
            else:
                half = width // 2
                parts, axis = ((row, col, height, half), (row, col + half, height, width - half)), 1
            (first, above), (second, below) = map(self._majority, parts)
            return np.concatenate([first, second], axis), np.concatenate([above, below], axis)
        places, labels, held = self._label_pixels(window)
        size = height * width
        pixels = np.bincount(places, minlength=size)
        nothing = np.bincount(places[held == NOTHING], minlength=size)
        known = held == KNOWN
        winner, most, voters = _winners(places[known], labels[known], size)
        states = np.where(voters > 0, UNCLEAR, np.where(nothing < pixels, LEFT_OUT, NOTHING))
        # A pixel that is mostly without a label is not labelled, whatever the rest of it holds.
        states[10 * nothing >= MAJORITY_TENTHS * pixels] = NOTHING
        states[(10 * most >= MAJORITY_TENTHS * pixels) & (most > 0)] = KNOWN
        empty = np.flatnonzero(pixels == 0)
        if len(empty):
            # A turned grid may leave a pixel without the centre of one.
            winner[empty], states[empty] = self._nearest(row + empty // width, col + empty % width)
        shape = height, width
        return winner.reshape(shape), states.reshape(shape)

    def _label_pixels(self, window: Window) -> Tuple[Labels, Labels, States]:
        """Return the label pixels whose centre lies in a window of the image.

        Returns:
            The place in the window (row * width + column), the label and its state, ``(N,)`` each.
        """
        places, labels, states = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
        parts = [(part, *self._labels(part)) for part in self._grids.parts_there(window)]
        if not any((held != NOTHING).any() for _, _, held in parts):
            # Pixels without a label are no vote: they matter beside others only.
            parts = []
        for part, own, held in parts:
            self._context.check()
            place, inside = self._grids.places(part, window)
            places.append(place)
            labels.append(own[inside].reshape(-1))
            states.append(held[inside].reshape(-1))
        return np.concatenate(places), np.concatenate(labels), np.concatenate(states)


def whole_numbers(values: Array, name: str) -> Labels:
    """Return class values as integers.

    Raises:
        BadInput: one is no whole number; names it.
    """
    if values.dtype.kind == "f":
        wrong = values[values != np.floor(values)]
        if len(wrong):
            raise BadInput(
                f"'{name}' holds the value {wrong[0]:g}, which is no class.", "Choose a raster of whole numbers."
            )
    return values.astype(np.int64)


def _winners(places: Labels, labels: Labels, size: int) -> Tuple[Labels, Labels, Labels]:
    """Return the most frequent label of each place (the lowest of several), how often it is there, and all votes."""
    winner, most = np.zeros(size, np.int64), np.zeros(size, np.int64)
    voters = np.bincount(places, minlength=size)
    present = np.array(sorted(distinct(labels)), np.int64)
    codes = np.searchsorted(present, labels)
    step = max(1, _MOST_PIXELS // max(size, 1))
    for start in range(0, len(present), step):
        number = min(step, len(present) - start)
        here = (codes >= start) & (codes < start + number)
        keys = places[here] * number + codes[here] - start
        votes = np.bincount(keys, minlength=size * number).reshape(size, number)
        best = votes.argmax(axis=1)
        count = votes.max(axis=1)
        better = count > most
        winner[better], most[better] = present[start + best[better]], count[better]
    return winner, most, voters
