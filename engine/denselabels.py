"""Labels on the grid of an image, read by window: from a label raster on any grid, or from features.

What a pixel is labelled depends on the pixel alone, never on the window it is read in. Coordinates are transformed
point by point; labels are never interpolated. By the mission's rules:

- A raster whose pixels are as large as the image's, or larger, gives the label at the pixel's centre. One with finer
  pixels gives the label that at least 0.6 of the label pixels with their centre in the image's pixel have; those that
  are no-data, or lie outside the label raster, are no vote but count. Without such a majority the pixel is ignored.
- Polygons give the pixels whose centre is inside, lines those that are crossed, points the one that holds them, as in
  sampling. A pixel that two classes claim is ignored.
"""

from __future__ import annotations

import contextlib
import math
import threading
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from rasterio.crs import CRS

from ..tasks.classtable import ClassEntry, Legend, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import RasterSource, VectorSource
from .classes import check_keep_list, feature_classes
from .crosswalks import Crosswalk, read_crosswalk
from .featurepixels import burnt_chunks, feature_pixels
from .nodatasamples import tell_of_outside
from .rasters import Grid, RasterReader
from .vectors import Layer, crs_name, on_grid, read_layer

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
# Row, column, height, width.
Window = Tuple[int, int, int, int]

# What has no label, where all of a class is labelled.
BACKGROUND = ClassEntry(0, "background", "#d9d9d9")
# The share of an image's pixel that one label must have where labels are finer, in tenths.
MAJORITY_TENTHS = 6
# A side of a label pixel this much shorter than the image's is finer; less is another projection of the same size.
_FINER = 0.99
# Label pixels looked at together.
_MOST_PIXELS = 4_000_000
# Nodes along a side of the lattice that finds which part of the label raster a window needs.
_LATTICE = 33
# Side of the blocks that features are burnt in, and how many pixels of them are kept.
_BLOCK = 1024
_KEPT_PIXELS = 100_000_000
# Pixels of a feature's bounds up to which it is burnt whole.
_WHOLE_FEATURE = 4_000_000
_LISTED = 10
# The field that features without a class field are given.
_ONE_CLASS = "class"


class DenseLabels(ABC):
    """Labels on the grid of an image; a context manager. Threads may share one: reads are under a lock.

    Attributes:
        grid: the image's.
        name: what messages call the labels.
        ignored: pixels read so far whose label is not clear, each counted once: of two classes, or without majority.
    """

    def __init__(self, grid: Grid, image: str, name: str) -> None:
        """Keep what both kinds share; ``image`` and ``name`` are what messages call the image and the labels."""
        self.grid = grid
        self.name = name
        self.image = image
        self._unclear = _PixelsOnce()
        self._found: Set[int] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> DenseLabels:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the files."""

    @property
    def ignored(self) -> int:
        """Return the pixels read so far that have no clear label, each counted once."""
        return self._unclear.count

    @property
    @abstractmethod
    def classes(self) -> Tuple[ClassEntry, ...]:
        """Return the class table: of a raster the classes read so far, of features all of the layer; ascending."""

    def read(self, row: int, col: int, height: int, width: int) -> Tuple[Labels, Mask]:
        """Read a window of the image's grid; it may reach over the edge, where nothing is labelled.

        Returns:
            Class ids ``(height, width)``, 0 where there is none, and True where a pixel has one.

        Raises:
            BadInput: a label is no whole number, or the file is damaged.
        """
        labels, valid = np.zeros((height, width), np.int64), np.zeros((height, width), bool)
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + height, self.grid.height), min(col + width, self.grid.width)
        if bottom <= top or right <= left:
            return labels, valid
        with self._lock:
            own, known, unclear = self._read_inside((top, left, bottom - top, right - left))
            self._unclear.add(top, left, unclear)
            self._found |= _distinct(own[known])
        inside = slice(top - row, bottom - row), slice(left - col, right - col)
        labels[inside], valid[inside] = np.where(known, own, 0), known
        return labels, valid

    def finish(self, context: Context) -> None:
        """Tell what was ignored where labels were read.

        Raises:
            BadInput: no pixel that was read is labelled, or CLASSES or CROSSWALK fit none of the labels.
        """
        self._check(context)
        if not self._found:
            raise BadInput(
                f"'{self.name}' labels no pixel of '{self.image}' where it was read.",
                "Check that both cover the same place, that the CRS of each is right, and the labels' no-data value.",
            )

    @abstractmethod
    def _read_inside(self, window: Window) -> Tuple[Labels, Mask, Mask]:
        """Return labels, where they are known, and where they are unclear, ``(H, W)`` each."""

    @abstractmethod
    def _check(self, context: Context) -> None:
        """Warn about what this kind of labels leaves out."""


@contextlib.contextmanager
def open_labels(
    raster: Optional[RasterSource],
    features: Optional[VectorSource],
    field: str,
    grid: Grid,
    name: str,
    context: Context,
    *,
    legend: Legend = Legend(),
    classes: Tuple[int, ...] = (),
    crosswalk: str = "",
    map_legend: bool = False,
    background: bool = False,
) -> Iterator[DenseLabels]:
    """Open a label raster, or features with a class field, on the grid of an image.

    Args:
        raster: label raster (its first chosen band); this or ``features``.
        features: polygons, lines or points.
        field: class field of the features; empty = all of them are of class 1, called as the layer is.
        grid: the image's.
        name: what messages call the image.
        context: takes warnings and the cancel.
        legend: names and colours of the classes.
        classes: class ids to keep (CLASSES); empty = all.
        crosswalk: file of the classes that those of the data become (CROSSWALK); it comes before ``classes``.
        map_legend: the style in ``legend`` names the classes that the crosswalk leads to, not those of the data.
        background: what has no label is of class 0, `BACKGROUND`.

    Raises:
        BadInput: the labels cannot be read, or lie outside the image.
    """
    table = read_crosswalk(crosswalk, map_legend)
    labels: DenseLabels
    if raster is not None:
        labels = RasterLabels(raster, grid, name, context, legend, classes, table)
    elif features is not None:
        labels = FeatureLabels(read_layer(features, context), field, grid, name, context, legend, classes, table)
    else:
        raise ValueError("labels come from a raster or from features")
    with labels:
        yield OnBackground(labels, legend) if background else labels


def background_of(legend: Legend) -> ClassEntry:
    """Return class 0 as a legend calls it, else `BACKGROUND`."""
    found = resolve([BACKGROUND.value], legend)[0]
    return BACKGROUND if found == resolve([BACKGROUND.value])[0] else found


class OnBackground(DenseLabels):
    """Labels whose rest is background: every pixel of the image has a class."""

    def __init__(self, labels: DenseLabels, legend: Legend = Legend()) -> None:
        """Take labels; the legend may call class 0 otherwise."""
        super().__init__(labels.grid, labels.image, labels.name)
        self._labels = labels
        self._background = background_of(legend)

    def close(self) -> None:
        """Close the labels."""
        self._labels.close()

    @property
    def ignored(self) -> int:
        """Return 0: what is not clear is background."""
        return 0

    @property
    def classes(self) -> Tuple[ClassEntry, ...]:
        """Return the background and the labels' classes, ascending."""
        return tuple(sorted((self._background, *self._labels.classes), key=lambda entry: entry.value))

    def finish(self, context: Context) -> None:
        """See `DenseLabels.finish`; and refuse labels that have class 0 themselves."""
        self._labels.finish(context)
        self._check(context)

    def _read_inside(self, window: Window) -> Tuple[Labels, Mask, Mask]:
        labels, known = self._labels.read(*window)
        return np.where(known, labels, BACKGROUND.value), np.ones_like(known), np.zeros_like(known)

    def _check(self, context: Context) -> None:
        taken = next((entry for entry in self._labels.classes if entry.value == BACKGROUND.value), None)
        if taken is not None:
            raise BadInput(
                f"BACKGROUND is class 0, which '{self.name}' has as '{taken.name}' already.",
                "Give its features another class value, or leave BACKGROUND out.",
            )


# --- a label raster --------------------------------------------------------------------------------------------------


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
            theirs = self._reader.grid
            self._there = way_between(grid.crs, theirs.crs, image, self.name, context)
            self._back = way_between(theirs.crs, grid.crs, self.name, image, Context())
            self._ratio = self._pixels_in_one()
            self.rule = "majority" if self._ratio * _FINER**2 > 1 else "nearest"
            if self._there is None and grid.same_as(theirs):
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

    def _read_inside(self, window: Window) -> Tuple[Labels, Mask, Mask]:
        if self.rule == "direct":
            labels, valid = self._labels(window)
            return labels, valid, np.zeros(valid.shape, bool)
        if self.rule == "majority":
            return self._majority(window)
        rows, cols = (part.reshape(-1) for part in np.indices(window[2:]))
        labels, valid = self._nearest(rows + window[0], cols + window[1])
        shape = window[2:]
        return labels.reshape(shape), valid.reshape(shape), np.zeros(shape, bool)

    def _labels(self, window: Window) -> Tuple[Labels, Mask]:
        """Return the wanted classes of a window of the label raster; it may reach over its edge: nothing is valid."""
        row, col, height, width = window
        theirs = self._reader.grid
        labels, valid = np.zeros((height, width), np.int64), np.zeros((height, width), bool)
        top, left, bottom, right = (
            max(row, 0),
            max(col, 0),
            min(row + height, theirs.height),
            min(col + width, theirs.width),
        )
        if bottom <= top or right <= left:
            return labels, valid
        raw, known = self._reader.read(top, left, bottom - top, right - left)
        own, known = np.zeros(raw[0].shape, np.int64), known[0]
        own[known] = whole_numbers(raw[0][known], self.name)
        self._present |= _distinct(own[known])
        if self._crosswalk is not None:
            own, known = self._crosswalk.of_labels(own, known)
        if self._keep:
            known = known & np.isin(own, self._keep)
        inside = slice(top - row, bottom - row), slice(left - col, right - col)
        labels[inside], valid[inside] = own, known
        return labels, valid

    def _index_there(self, rows: Array, cols: Array) -> Tuple[Array, Array]:
        """Return the continuous (column, row) in the label raster of image pixels' corners; NaN for none."""
        x, y = self.grid.corners_of(rows, cols)
        return _index(self._reader.grid, *_moved(x, y, self._there))

    def _pixels_in_one(self) -> float:
        """Return how many label pixels an image pixel holds, in the middle of what both cover.

        Raises:
            BadInput: they cover no common place.
        """
        theirs = self._reader.grid
        rows, cols = (
            part.reshape(-1) for part in np.meshgrid(*(_nodes(n) for n in (self.grid.height, self.grid.width)))
        )
        col, row = self._index_there(rows, cols)
        with np.errstate(invalid="ignore"):
            hit = (col >= -1) & (row >= -1) & (col <= theirs.width + 1) & (row <= theirs.height + 1)
        places = np.stack([rows, cols])[:, hit]
        if not hit.any():
            # A label raster smaller than the meshes of the lattice may still lie in the image.
            rows, cols = (p.reshape(-1) for p in np.meshgrid(*(_nodes(n) for n in (theirs.height, theirs.width))))
            x, y = theirs.corners_of(rows, cols)
            c, r = _index(self.grid, *_moved(x, y, self._back))
            with np.errstate(invalid="ignore"):
                inside = (c >= 0) & (r >= 0) & (c <= self.grid.width) & (r <= self.grid.height)
            if not inside.any():
                raise BadInput(
                    f"The labels '{self.name}' ({crs_name(theirs.crs)}) lie outside '{self.image}' "
                    f"({crs_name(self.grid.crs)}).",
                    "Check that both cover the same place and that the CRS of each is right.",
                )
            places = np.stack([r, c])[:, inside]
        areas = self._areas(*places[:, np.linspace(0, places.shape[1] - 1, 9).astype(int)])
        return float(np.nanmedian(areas)) if np.isfinite(areas).any() else 1.0

    def _areas(self, rows: Array, cols: Array) -> Array:
        """Return the area of image pixels in label pixels, from the pixels' own corners."""
        corners = [np.stack(self._index_there(rows + down, cols + across)) for down, across in ((0, 0), (0, 1), (1, 0))]
        (ax, ay), (bx, by) = corners[1] - corners[0], corners[2] - corners[0]
        return np.asarray(np.abs(ax * by - ay * bx))

    def _nearest(self, rows: Labels, cols: Labels) -> Tuple[Labels, Mask]:
        """Return the labels at the centres of image pixels, ``(N,)``."""
        theirs = self._reader.grid
        col, row = self._index_there(rows + 0.5, cols + 0.5)
        with np.errstate(invalid="ignore"):
            inside = (col >= 0) & (row >= 0) & (col < theirs.width) & (row < theirs.height)
        labels, valid = np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
        if inside.any():
            at = np.floor(row[inside]).astype(np.int64), np.floor(col[inside]).astype(np.int64)
            labels[inside], valid[inside] = self._at(*at)
        return labels, valid

    def _at(self, rows: Labels, cols: Labels) -> Tuple[Labels, Mask]:
        """Return labels at pixels of the label raster; pixels far apart (over the antimeridian) are read by parts."""
        top, left = int(rows.min()), int(cols.min())
        height, width = int(rows.max()) - top + 1, int(cols.max()) - left + 1
        if height * width <= max(4 * len(rows), _MOST_PIXELS // 4):
            labels, valid = self._labels((top, left, height, width))
            return labels[rows - top, cols - left], valid[rows - top, cols - left]
        first = rows < top + height // 2 if height > width else cols < left + width // 2
        found, known = np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
        for part in (first, ~first):
            if part.any():
                found[part], known[part] = self._at(rows[part], cols[part])
        return found, known

    def _majority(self, window: Window) -> Tuple[Labels, Mask, Mask]:
        row, col, height, width = window
        if height * width > 1 and height * width * self._ratio > _MOST_PIXELS:
            self._context.check()
            if height >= width:
                half = height // 2
                parts, axis = ((row, col, half, width), (row + half, col, height - half, width)), 0
            else:
                half = width // 2
                parts, axis = ((row, col, height, half), (row, col + half, height, width - half)), 1
            labels, valid, unclear = (np.concatenate(both, axis) for both in zip(*map(self._majority, parts)))
            return labels, valid, unclear
        places, labels, valid = self._label_pixels(window)
        size = height * width
        held = np.bincount(places, minlength=size)
        winner, most, voters = _winners(places[valid], labels[valid], size)
        clear = (10 * most >= MAJORITY_TENTHS * held) & (most > 0)
        unclear = (voters > 0) & ~clear
        empty = np.flatnonzero(held == 0)
        if len(empty):
            # A turned grid may leave a pixel without the centre of one.
            winner[empty], clear[empty] = self._nearest(row + empty // width, col + empty % width)
        shape = height, width
        return winner.reshape(shape), clear.reshape(shape), unclear.reshape(shape)

    def _label_pixels(self, window: Window) -> Tuple[Labels, Labels, Mask]:
        """Return the label pixels whose centre lies in a window of the image.

        Returns:
            The place in the window (row * width + column), the label and whether it is one, ``(N,)`` each.
        """
        places, labels, valid = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, bool)]
        parts = [(part, *self._labels(part)) for part in self._windows_there(window)]
        if not any(known.any() for _, _, known in parts):
            # Pixels without a label are no vote: they matter beside others only.
            parts = []
        for part, own, known in parts:
            self._context.check()
            place, inside = self._places(part, window)
            places.append(place)
            labels.append(own[inside].reshape(-1))
            valid.append(known[inside].reshape(-1))
        return np.concatenate(places), np.concatenate(labels), np.concatenate(valid)

    def _places(self, part: Window, window: Window) -> Tuple[Labels, Any]:
        """Return where pixels of a part of the label raster lie in a window (row * width + column), and which do."""
        row, col, height, width = window
        theirs = self._reader.grid
        rows, cols = part[0] + np.arange(part[2]), part[1] + np.arange(part[3])
        if self._back is None and _plain(theirs) and _plain(self.grid):
            x, y = theirs.centres_of(0 * cols, cols)[0], theirs.centres_of(rows, 0 * rows)[1]
            c = _index(self.grid, x, np.full(len(x), y[0]))[0]
            r = _index(self.grid, np.full(len(y), x[0]), y)[1]
            across, down = (c >= col) & (c < col + width), (r >= row) & (r < row + height)
            at_row, at_col = np.floor(r[down]).astype(np.int64), np.floor(c[across]).astype(np.int64)
            return ((at_row - row)[:, None] * width + at_col - col).reshape(-1), np.ix_(down, across)
        x, y = theirs.centres_of(*np.broadcast_arrays(rows[:, None], cols))
        c, r = _index(self.grid, *_moved(x, y, self._back))
        with np.errstate(invalid="ignore"):
            inside = (r >= row) & (r < row + height) & (c >= col) & (c < col + width)
        at_row, at_col = np.floor(r[inside]).astype(np.int64), np.floor(c[inside]).astype(np.int64)
        return (at_row - row) * width + at_col - col, inside

    def _windows_there(self, window: Window) -> List[Window]:
        """Return the parts of the label raster's grid (also beyond it) that hold all that lies in a window."""
        row, col, height, width = window
        theirs = self._reader.grid
        rows, cols = (p.reshape(-1) for p in np.meshgrid(row + _nodes(height), col + _nodes(width)))
        at_col, at_row = self._index_there(rows, cols)
        finite = np.isfinite(at_col) & np.isfinite(at_row)
        if not finite.any():
            return []
        at_col, at_row = at_col[finite], at_row[finite]
        turn = _turn(theirs)
        poles = self._poles_in(window)
        top, bottom = min([at_row.min(), *poles]), max([at_row.max(), *poles])
        if poles:
            spans = [(0.0, turn)]
        elif turn and np.ptp(at_col) > turn / 2:
            # The window lies across the raster's seam, which is where longitude begins again.
            spans = [(0.0, at_col[at_col < turn / 2].max()), (at_col[at_col >= turn / 2].min(), turn)]
        else:
            spans = [(at_col.min(), at_col.max())]
        deep = 2 + 0.05 * (bottom - top)
        first, last = math.floor(top - deep), math.ceil(bottom + deep)
        parts: List[Window] = []
        for left, right in spans:
            wide = 2 + 0.05 * (right - left)
            begin, end = math.floor(left - wide), math.ceil(right + wide)
            if turn:
                begin, end = max(begin, 0), min(end, round(turn))
            begin = max(begin, parts[-1][1] + parts[-1][3]) if parts else begin
            if end > begin:
                parts.append((first, begin, last - first, end - begin))
        # What lies far beyond the label raster is no-data in any case; keep what shares pixels with it at its edge.
        return [part for part in parts if _meets(part, theirs)]

    def _poles_in(self, window: Window) -> List[float]:
        """Return the rows in the label raster of the poles that lie in a window, where it has longitudes."""
        theirs = self._reader.grid
        if not _turn(theirs):
            return []
        x, y = _moved(np.zeros(2), np.array([-90.0, 90.0]), self._back)
        col, row = _index(self.grid, x, y)
        top, left, height, width = window
        with np.errstate(invalid="ignore"):
            near = (row >= top - 1) & (row <= top + height + 1) & (col >= left - 1) & (col <= left + width + 1)
        rows = theirs.index_of(np.zeros(2), np.array([-90.0, 90.0]))[1]
        return [float(value) for value in rows[near & (self._back is not None)]]


def way_between(
    own: Optional[CRS], other: Optional[CRS], own_name: str, other_name: str, context: Context
) -> Optional[pyproj.Transformer]:
    """Return the way from one CRS to another; None where they are the same, or one is unknown (taken as the same)."""
    if own is None or other is None:
        if (own is None) != (other is None):
            nameless = own_name if own is None else other_name
            context.warn(f"'{nameless}' has no CRS; it is assumed to be {crs_name(own or other)}.")
        return None
    if own == other:
        return None
    a, b = pyproj.CRS.from_wkt(own.to_wkt()), pyproj.CRS.from_wkt(other.to_wkt())
    return None if a.equals(b, ignore_axis_order=True) else pyproj.Transformer.from_crs(a, b, always_xy=True)


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


def _moved(x: Array, y: Array, way: Optional[pyproj.Transformer]) -> Tuple[Array, Array]:
    return (x, y) if way is None else way.transform(x, y)


def _index(grid: Grid, x: Array, y: Array) -> Tuple[Array, Array]:
    """Return the continuous (column, row) of points, longitudes of whole turns brought onto the grid; NaN for none."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(finite, x, np.nan), np.where(finite, y, np.nan)
    if _turn(grid):
        west = grid.transform.c
        with np.errstate(invalid="ignore"):
            x = np.where(x < west, x + 360.0, np.where(x >= west + 360.0, x - 360.0, x))
    return grid.index_of(x, y)


def _turn(grid: Grid) -> float:
    """Return the columns of the whole circle of longitude, 0 for a grid of other coordinates, or a turned one."""
    geographic = grid.crs is not None and grid.crs.is_geographic
    return 360.0 / float(grid.transform.a) if geographic and _plain(grid) and grid.transform.a > 0 else 0.0


def _plain(grid: Grid) -> bool:
    return bool(grid.transform.b == grid.transform.d == 0)


def _nodes(count: int) -> npt.NDArray[np.float64]:
    return np.linspace(0, count, min(count, _LATTICE - 1) + 1)


def _meets(part: Window, grid: Grid) -> bool:
    row, col, height, width = part
    return row < grid.height and col < grid.width and row + height > 0 and col + width > 0


def _winners(places: Labels, labels: Labels, size: int) -> Tuple[Labels, Labels, Labels]:
    """Return the most frequent label of each place (the lowest of several), how often it is there, and all votes."""
    winner, most = np.zeros(size, np.int64), np.zeros(size, np.int64)
    voters = np.bincount(places, minlength=size)
    present = np.array(sorted(_distinct(labels)), np.int64)
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


def _distinct(values: Labels) -> Set[int]:
    if len(values) == 0:
        return set()
    low, high = int(values.min()), int(values.max())
    if high - low < 65_536:
        return {low + int(value) for value in np.flatnonzero(np.bincount(values - low))}
    return {int(value) for value in np.unique(values)}


# --- features --------------------------------------------------------------------------------------------------------


class FeatureLabels(DenseLabels):
    """Labels burnt from polygons, lines and points; `open_labels` makes it.

    They are burnt in blocks whose places on the image's grid are fixed; those used last are kept.
    """

    def __init__(
        self, layer: Layer, field: str, grid: Grid, image: str, context: Context, legend: Legend = Legend(),
        classes: Tuple[int, ...] = (), crosswalk: Optional[Crosswalk] = None,
    ) -> None:  # fmt: skip
        """Take a layer, which is not to be used any more; the other arguments are those of `open_labels`."""
        layer = on_grid(layer, grid, image, context, consume=True)
        super().__init__(grid, image, layer.name)
        if not field:
            # All features are of one class, called as the layer is.
            field, legend = _ONE_CLASS, replace(legend, layer_classes=legend.layer_classes or _one_class(layer.name))
            layer.frame[_ONE_CLASS] = 1
        own = feature_classes(layer, field, context, legend, classes, crosswalk)
        self._classes = own.classes
        chosen = np.flatnonzero(own.known)
        self._geometries = np.asarray(layer.frame.geometry.values, dtype=object)[chosen]
        self._names = layer.frame.index.to_numpy()[chosen]
        self._ids, codes = np.unique(own.ids[chosen], return_inverse=True)
        # In a block 0 is no label, 1 that of two classes.
        self._dtype = np.min_scalar_type(len(self._ids) + 2)
        self._codes = (codes + 2).astype(self._dtype)
        self._windows = _pixel_bounds(self._geometries, grid)
        self._blocks: OrderedDict[Tuple[int, int], Array] = OrderedDict()
        self._looked = np.zeros(len(chosen), bool)
        self._held = np.zeros(len(chosen), bool)
        self._context = context
        self._outside = int(np.count_nonzero(self._windows[2] == 0))
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
        for position in np.flatnonzero(self._looked & ~self._held):
            context.check()
            pixels = feature_pixels(self._geometries[position], self.grid)
            if pixels is not None and len(pixels) == 0:
                missed.append(str(self._names[position]))
        if missed:
            more = f" and {len(missed) - _LISTED} more" if len(missed) > _LISTED else ""
            context.warn(
                f"{len(missed)} features of '{self.name}' hold no pixel centre and give no label: id "
                f"{', '.join(missed[:_LISTED])}{more}."
            )

    def _read_inside(self, window: Window) -> Tuple[Labels, Mask, Mask]:
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
        ids = np.concatenate([np.zeros(2, np.int64), self._ids])
        return ids[codes], codes > 1, codes == 1

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
        whole = here & ((bottom - top) * (right - left) <= _WHOLE_FEATURE)
        self._looked |= here
        for chunk in burnt_chunks(self._geometries, np.flatnonzero(whole), self.grid):
            self._context.check()
            self._held[chunk.positions[chunk.counts > 0]] = True
            rows, cols = np.divmod(chunk.keys, self.grid.width)
            inside = (rows >= row) & (rows < row + height) & (cols >= col) & (cols < col + width)
            codes = np.repeat(self._codes[chunk.positions], chunk.counts)[inside]
            _claim(block, (rows[inside] - row) * width + cols[inside] - col, codes)
        for position in np.flatnonzero(here & ~whole):
            self._context.check()
            places = self._pixels_in(int(position), (row, col, height, width))
            self._held[position] |= len(places) > 0
            _claim(block, places, np.full(len(places), self._codes[position]))
        self._blocks[key] = block.reshape(height, width)
        if len(self._blocks) > max(4, _KEPT_PIXELS // (_BLOCK * _BLOCK * self._codes.itemsize)):
            self._blocks.popitem(last=False)
        return self._blocks[key]

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


def _one_class(name: str) -> Tuple[ClassEntry, ...]:
    return (replace(resolve([1])[0], name=name.rpartition(".")[0] or name),)


def _claim(block: Array, places: Labels, codes: Array) -> None:
    """Give pixels of a block (flat) to classes, by code; one that several claim, now or before, gets 1."""
    if len(places) == 0:
        return
    order = np.argsort(places, kind="stable")
    places, codes = places[order], codes[order]
    starts = np.flatnonzero(np.diff(places, prepend=places[0] - 1))
    low, high = np.minimum.reduceat(codes, starts), np.maximum.reduceat(codes, starts)
    places = places[starts]
    own, old = np.where(low == high, low, 1).astype(block.dtype), block[places]
    block[places] = np.where((old == 0) | (old == own), own, 1)


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


# --- counting pixels once --------------------------------------------------------------------------------------------


class _PixelsOnce:
    """Counts pixels that windows mark, each once however many windows hold it; a bit per pixel, compressed."""

    _SIDE = 256

    def __init__(self) -> None:
        self.count = 0
        self._marks: Dict[Tuple[int, int], bytes] = {}

    def add(self, row: int, col: int, marked: Mask) -> None:
        """Mark the pixels of a window that begins at (row, col), ``(H, W)``."""
        side = self._SIDE
        rows, cols = np.nonzero(marked)
        if len(rows) == 0:
            return
        rows, cols = rows + row, cols + col
        blocks = np.stack([rows // side, cols // side])
        for key in {(int(a), int(b)) for a, b in np.unique(blocks, axis=1).T}:
            here = (blocks[0] == key[0]) & (blocks[1] == key[1])
            old = self._marks.get(key)
            bits = np.frombuffer(zlib.decompress(old), np.uint8) if old else np.zeros(side * side // 8, np.uint8)
            marks = np.unpackbits(bits)
            before = int(marks.sum())
            marks[(rows[here] % side) * side + cols[here] % side] = 1
            self.count += int(marks.sum()) - before
            self._marks[key] = zlib.compress(np.packbits(marks).tobytes(), 1)
