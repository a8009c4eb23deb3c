"""From the pixels of one grid to those of another: in any two CRS, over the antimeridian and around the poles.

Coordinates are transformed point by point; rows and columns are continuous, (0, 0) is a grid's upper left corner.
"""

from __future__ import annotations

import math
from typing import Any, List, Optional, Tuple

import numpy as np
import numpy.typing as npt
import pyproj
from rasterio.crs import CRS

from ..tasks.context import Context
from .grids import Grid
from .vectors import crs_name

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
# Row, column, height, width.
Window = Tuple[int, int, int, int]

# Nodes along a side of the lattice that finds which part of the other grid a window needs.
_LATTICE = 33


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


class GridPair:
    """Where the pixels of one grid lie in another one, and the other way round.

    Attributes:
        own: the grid that windows are asked of.
        other: the grid that they are looked up in.
    """

    def __init__(self, own: Grid, other: Grid, own_name: str, other_name: str, context: Context) -> None:
        """Find the ways between the CRS of both; the names are for the warning where one is unknown.

        Raises:
            pyproj.exceptions.ProjError: there is no way between them.
        """
        self.own, self.other = own, other
        self._there = way_between(own.crs, other.crs, own_name, other_name, context)
        self._back = way_between(other.crs, own.crs, other_name, own_name, Context())

    @property
    def same(self) -> bool:
        """Tell whether both are one grid."""
        return self._there is None and self.own.same_as(self.other)

    def index_there(self, rows: Array, cols: Array) -> Tuple[Array, Array]:
        """Return the continuous (column, row) in the other grid of the corners of own pixels; NaN for none."""
        x, y = self.own.corners_of(rows, cols)
        return _index(self.other, *_moved(x, y, self._there))

    def pixels_in_one(self) -> Optional[float]:
        """Return how many of the other's pixels one of own holds, in the middle of what both cover.

        1 where no pixel has a size in the other grid; None where they cover no common place.
        """
        rows, cols = (part.reshape(-1) for part in np.meshgrid(*(_nodes(n) for n in (self.own.height, self.own.width))))
        col, row = self.index_there(rows, cols)
        with np.errstate(invalid="ignore"):
            hit = (col >= -1) & (row >= -1) & (col <= self.other.width + 1) & (row <= self.other.height + 1)
        places = np.stack([rows, cols])[:, hit]
        if not hit.any():
            # Another grid that is smaller than the meshes of the lattice may still lie in this one.
            sides = self.other.height, self.other.width
            rows, cols = (part.reshape(-1) for part in np.meshgrid(*(_nodes(n) for n in sides)))
            x, y = self.other.corners_of(rows, cols)
            c, r = _index(self.own, *_moved(x, y, self._back))
            with np.errstate(invalid="ignore"):
                inside = (c >= 0) & (r >= 0) & (c <= self.own.width) & (r <= self.own.height)
            if not inside.any():
                return None
            places = np.stack([r, c])[:, inside]
        areas = self._areas(*places[:, np.linspace(0, places.shape[1] - 1, 9).astype(int)])
        return float(np.nanmedian(areas)) if np.isfinite(areas).any() else 1.0

    def _areas(self, rows: Array, cols: Array) -> Array:
        """Return the area of own pixels in the other's, from the pixels' own corners."""
        corners = [np.stack(self.index_there(rows + down, cols + across)) for down, across in ((0, 0), (0, 1), (1, 0))]
        (ax, ay), (bx, by) = corners[1] - corners[0], corners[2] - corners[0]
        return np.asarray(np.abs(ax * by - ay * bx))

    def places(self, part: Window, window: Window) -> Tuple[Indices, Any]:
        """Return where pixels of a part of the other grid lie in a window of own (row * width + column), and which do.

        Returns:
            The places of those whose centre lies in the window ``(N,)``, and what chooses them from an array of the
            part, in the order of its pixels.
        """
        row, col, height, width = window
        rows, cols = part[0] + np.arange(part[2]), part[1] + np.arange(part[3])
        if self._back is None and _plain(self.other) and _plain(self.own):
            x, y = self.other.centres_of(0 * cols, cols)[0], self.other.centres_of(rows, 0 * rows)[1]
            c = _index(self.own, x, np.full(len(x), y[0]))[0]
            r = _index(self.own, np.full(len(y), x[0]), y)[1]
            across, down = (c >= col) & (c < col + width), (r >= row) & (r < row + height)
            at_row, at_col = np.floor(r[down]).astype(np.int64), np.floor(c[across]).astype(np.int64)
            return ((at_row - row)[:, None] * width + at_col - col).reshape(-1), np.ix_(down, across)
        x, y = self.other.centres_of(*np.broadcast_arrays(rows[:, None], cols))
        c, r = _index(self.own, *_moved(x, y, self._back))
        with np.errstate(invalid="ignore"):
            inside = (r >= row) & (r < row + height) & (c >= col) & (c < col + width)
        at_row, at_col = np.floor(r[inside]).astype(np.int64), np.floor(c[inside]).astype(np.int64)
        return (at_row - row) * width + at_col - col, inside

    def parts_there(self, window: Window) -> List[Window]:
        """Return the parts of the other grid (also beyond it) that hold all that lies in a window of own."""
        row, col, height, width = window
        rows, cols = (p.reshape(-1) for p in np.meshgrid(row + _nodes(height), col + _nodes(width)))
        at_col, at_row = self.index_there(rows, cols)
        finite = np.isfinite(at_col) & np.isfinite(at_row)
        if not finite.any():
            return []
        at_col, at_row = at_col[finite], at_row[finite]
        turn = _turn(self.other)
        poles = self._poles_in(window)
        top, bottom = min([at_row.min(), *poles]), max([at_row.max(), *poles])
        if poles:
            spans = [(0.0, turn)]
        elif turn and np.ptp(at_col) > turn / 2:
            # The window lies across the other grid's seam, which is where longitude begins again.
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
        # Far beyond the other grid there is nothing in any case; keep what shares pixels with it at its edge.
        return [part for part in parts if _meets(part, self.other)]

    def _poles_in(self, window: Window) -> List[float]:
        """Return the rows in the other grid of the poles that lie in a window of own, where it has longitudes."""
        if not _turn(self.other):
            return []
        x, y = _moved(np.zeros(2), np.array([-90.0, 90.0]), self._back)
        col, row = _index(self.own, x, y)
        top, left, height, width = window
        with np.errstate(invalid="ignore"):
            near = (row >= top - 1) & (row <= top + height + 1) & (col >= left - 1) & (col <= left + width + 1)
        rows = self.other.index_of(np.zeros(2), np.array([-90.0, 90.0]))[1]
        return [float(value) for value in rows[near & (self._back is not None)]]


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
