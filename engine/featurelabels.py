"""Labels burnt from features on the grid of an image.

Polygons give the pixels whose centre is inside, lines those that are crossed, points the one that holds them, as in
sampling. A pixel that two classes claim is ignored.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Iterator, Optional, Tuple

import numpy as np
import numpy.typing as npt
import shapely

from ..tasks.classtable import ClassEntry, Legend
from ..tasks.context import Context
from ..tasks.errors import BadInput
from .classes import feature_classes
from .crosswalks import Crosswalk
from .denselabels import KNOWN, LEFT_OUT, UNCLEAR, DenseLabels, Labels, States, Window
from .featurepixels import burnt_chunks, feature_pixels
from .nodatasamples import tell_of_outside
from .rasters import Grid
from .vectors import Layer, crs_name, on_grid
from .wording import first_of

Array = npt.NDArray[Any]

# Side of the blocks that features are burnt in, and how many pixels of them are kept.
_BLOCK = 1024
_KEPT_PIXELS = 100_000_000
# Pixels of a feature's bounds up to which it is burnt whole.
_WHOLE_FEATURE = 4_000_000
_LISTED = 10
# The field that features without a class field are given, and its value.
_ONE_CLASS = "class"
ONLY_CLASS = 1


class FeatureLabels(DenseLabels):
    """Labels burnt from polygons, lines and points; `open_labels` makes it.

    They are burnt in blocks whose places on the image's grid are fixed; those used last are kept.
    """

    def __init__(
        self, layer: Layer, field: str, grid: Grid, image: str, context: Context, legend: Legend = Legend(),
        classes: Tuple[int, ...] = (), crosswalk: Optional[Crosswalk] = None, *, whole: bool = False,
    ) -> None:  # fmt: skip
        """Take a layer, which is not to be used any more; the other arguments are those of `open_labels`.

        ``whole``: features without a class, or of one that the crosswalk leaves out, are burnt, too: nothing of a
        class, but no background. Those that ``classes`` leaves out are background: they are none of the classes.
        """
        layer = on_grid(layer, grid, image, context, consume=True)
        super().__init__(grid, image, layer.name)
        if not field:
            field = _ONE_CLASS
            layer.frame[_ONE_CLASS] = ONLY_CLASS
        own = feature_classes(layer, field, context, legend, classes, crosswalk)
        self._classes = own.classes
        chosen = np.flatnonzero(own.known)
        # Those of a class come first.
        burnt = np.concatenate([chosen, np.flatnonzero(~(own.known | own.others))]) if whole else chosen
        self._geometries = np.asarray(layer.frame.geometry.values, dtype=object)[burnt]
        self._names = layer.frame.index.to_numpy()[chosen]
        self._ids, codes = np.unique(own.ids[chosen], return_inverse=True)
        # In a block a code is the state of a pixel, and from that of a known class on its class.
        self._dtype = np.min_scalar_type(len(self._ids) + int(KNOWN))
        self._codes = (codes + int(KNOWN)).astype(self._dtype)
        self._windows = _pixel_bounds(self._geometries, grid)
        self._blocks: OrderedDict[Tuple[int, int], Array] = OrderedDict()
        self._looked = np.zeros(len(burnt), bool)
        self._held = np.zeros(len(burnt), bool)
        self._context = context
        self._outside = int(np.count_nonzero(self._windows[2, : len(chosen)] == 0))
        if self._outside == len(chosen):
            raise BadInput(
                f"No feature of '{layer.name}' lies on '{image}' ({crs_name(grid.crs)}).",
                "Check that both cover the same place and that the CRS of each is right.",
            )

    @property
    def classes(self) -> Tuple[ClassEntry, ...]:
        """Return the table of the layer's classes, ascending."""
        return self._classes

    def close(self) -> None:
        """Forget the blocks; the layer's file is closed already."""
        self._blocks.clear()

    def _check(self, context: Context) -> None:
        if self._outside:
            tell_of_outside(
                f"{self._outside} of {len(self._codes)} features of '{self.name}' lie outside '{self.image}'.",
                1 - self._outside / len(self._codes), context,
            )  # fmt: skip
        if self.ignored:
            context.warn(
                f"{self.ignored} pixels are claimed by features of two classes of '{self.name}'; they are ignored. "
                "Correct the overlapping features to use them."
            )
        missed = []
        for position in np.flatnonzero((self._looked & ~self._held)[: len(self._codes)]):
            context.check()
            pixels = feature_pixels(self._geometries[position], self.grid)
            if pixels is not None and len(pixels) == 0:
                missed.append(str(self._names[position]))
        if missed:
            context.warn(
                f"{len(missed)} features of '{self.name}' hold no pixel centre and give no label: id "
                f"{first_of(missed, _LISTED)}."
            )

    def _read_inside(self, window: Window) -> Tuple[Labels, States]:
        row, col, height, width = window
        codes = np.zeros((height, width), self._dtype)
        for down in range(row // _BLOCK, (row + height - 1) // _BLOCK + 1):
            for across in range(col // _BLOCK, (col + width - 1) // _BLOCK + 1):
                block = self._block(down, across)
                top, left = down * _BLOCK, across * _BLOCK
                bottom, right = min(top + _BLOCK, row + height), min(left + _BLOCK, col + width)
                first, begin = max(top, row), max(left, col)
                codes[first - row : bottom - row, begin - col : right - col] = block[
                    first - top : bottom - top, begin - left : right - left
                ]
        ids = np.concatenate([np.zeros(int(KNOWN), np.int64), self._ids])
        return ids[codes], np.minimum(codes, KNOWN).astype(np.uint8)

    def _block(self, down: int, across: int) -> Array:
        """Return the codes of a block, burnt now or kept."""
        key = down, across
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        row, col = down * _BLOCK, across * _BLOCK
        height, width = min(_BLOCK, self.grid.height - row), min(_BLOCK, self.grid.width - col)
        block = np.zeros(height * width, self._dtype)
        top, left, bottom, right = self._windows
        here = (top < row + height) & (bottom > row) & (left < col + width) & (right > col)
        self._looked |= here
        number = len(self._codes)
        for places, positions in self._burnt(np.flatnonzero(here[:number]), (row, col, height, width)):
            _claim(block, places, self._codes[positions])
        # What is of no class takes nothing from a class that is there, too.
        for places, _ in self._burnt(number + np.flatnonzero(here[number:]), (row, col, height, width)):
            block[places[block[places] == 0]] = LEFT_OUT
        self._blocks[key] = block.reshape(height, width)
        if len(self._blocks) > max(4, _KEPT_PIXELS // (_BLOCK * _BLOCK * self._codes.itemsize)):
            self._blocks.popitem(last=False)
        return self._blocks[key]

    def _burnt(self, positions: Labels, window: Window) -> Iterator[Tuple[Labels, Labels]]:
        """Yield the places (row * width + column) in a window that features hold, and the feature of each."""
        row, col, height, width = window
        top, left, bottom, right = self._windows[:, positions]
        small = (bottom - top) * (right - left) <= _WHOLE_FEATURE
        for chunk in burnt_chunks(self._geometries, positions[small], self.grid):
            self._context.check()
            self._held[chunk.positions[chunk.counts > 0]] = True
            rows, cols = np.divmod(chunk.keys, self.grid.width)
            inside = (rows >= row) & (rows < row + height) & (cols >= col) & (cols < col + width)
            owners = np.repeat(chunk.positions, chunk.counts)[inside]
            yield (rows[inside] - row) * width + cols[inside] - col, owners
        for position in positions[~small]:
            self._context.check()
            places = self._pixels_in(int(position), window)
            self._held[position] |= len(places) > 0
            yield places, np.full(len(places), position)

    def _pixels_in(self, position: int, window: Window) -> Labels:
        """Return the places (row * width + column) in a window that a large feature holds, without burning it whole."""
        row, col, height, width = window
        # A line on the edge of a pixel meets the next one, too.
        around = self.grid.crop(row - 1, col - 1, height + 2, width + 2)
        keys = feature_pixels(self._geometries[position], around)
        if keys is None:
            return np.empty(0, np.int64)
        rows, cols = np.divmod(keys, around.width)
        rows, cols = rows - 1, cols - 1
        inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        return np.asarray(rows[inside] * width + cols[inside])


def _claim(block: Array, places: Labels, codes: Array) -> None:
    """Give pixels of a block (flat) to classes, by code; one that several claim, now or before, is `UNCLEAR`."""
    if len(places) == 0:
        return
    order = np.argsort(places, kind="stable")
    places, codes = places[order], codes[order]
    starts = np.flatnonzero(np.diff(places, prepend=places[0] - 1))
    low, high = np.minimum.reduceat(codes, starts), np.maximum.reduceat(codes, starts)
    places = places[starts]
    own, old = np.where(low == high, low, UNCLEAR).astype(block.dtype), block[places]
    block[places] = np.where((old == 0) | (old == own), own, UNCLEAR)


def _pixel_bounds(geometries: Array, grid: Grid) -> Labels:
    """Return first row, first column, and row and column after the last, that features may reach, ``(4, N)``.

    They are cut to the grid; all 0 for a feature outside it, or without a place in its CRS.
    """
    xmin, ymin, xmax, ymax = shapely.bounds(geometries).T
    cols, rows = grid.index_of(np.stack([xmin, xmin, xmax, xmax]), np.stack([ymin, ymax, ymin, ymax]))
    low, high = np.stack([rows.min(axis=0), cols.min(axis=0)]), np.stack([rows.max(axis=0), cols.max(axis=0)])
    size = np.array([[grid.height], [grid.width]])
    with np.errstate(invalid="ignore"):
        inside = (np.isfinite(low) & np.isfinite(high) & (high >= 0) & (low <= size)).all(axis=0)
    bounds = np.zeros((4, len(geometries)), np.int64)
    # One pixel more on each side: a line on the edge of a pixel belongs to both.
    bounds[:2, inside] = np.maximum(np.floor(low[:, inside]) - 1, 0)
    bounds[2:, inside] = np.minimum(np.floor(high[:, inside]) + 2, size)
    return bounds
