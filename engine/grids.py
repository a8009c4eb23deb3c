"""The pixel grid of a raster: between pixels and map coordinates, windows of extents, and what lies beyond an edge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional, Tuple

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS

from ..tasks.errors import BadInput
from ..tasks.jobs import Extent

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """The pixel grid of a raster.

    Attributes:
        width: columns.
        height: rows.
        transform: pixel (column, row) of a corner to map coordinates.
        crs: None when unknown.
    """

    width: int
    height: int
    transform: Affine
    crs: Optional[CRS]

    def crop(self, row: int, col: int, height: int, width: int) -> Grid:
        """Return the grid of a window."""
        return Grid(width, height, self.transform @ Affine.translation(col, row), self.crs)

    def pixels_of(self, x: Array, y: Array) -> Tuple[Array, Array]:
        """Return the rows and columns of the pixels that hold map points; may lie outside the grid.

        A point on an edge belongs to the right or lower pixel.
        """
        col, row = self.index_of(x, y)
        return np.floor(row).astype(np.int64), np.floor(col).astype(np.int64)

    def index_of(self, x: Array, y: Array) -> Tuple[Array, Array]:
        """Return the continuous (column, row) of map points; (0, 0) is the raster's upper left corner."""
        return _apply(~self.transform, x, y)

    def centres_of(self, rows: Array, cols: Array) -> Tuple[Array, Array]:
        """Return the map coordinates (x, y) of pixel centres."""
        return _apply(self.transform, np.asarray(cols, float) + 0.5, np.asarray(rows, float) + 0.5)

    def corners_of(self, rows: Array, cols: Array) -> Tuple[Array, Array]:
        """Return the map coordinates (x, y) of the upper left corners of pixels."""
        return _apply(self.transform, cols, rows)

    def same_as(self, other: Grid) -> bool:
        """Tell whether two rasters lie on one grid (the same size; origin and pixel within 1 % of a pixel)."""
        if (self.width, self.height) != (other.width, other.height):
            return False
        corners = np.array([0, self.width], float), np.array([0, self.height], float)
        shift = np.subtract(_apply(self.transform, *corners), _apply(other.transform, *corners))
        pixel = math.sqrt(abs(self.transform.determinant))
        return bool(np.all(np.abs(shift) < 0.01 * pixel))

    def difference_from(self, other: Grid) -> str:
        """Return what tells this grid from one that is not the same: "its size in pixels is 5 x 3, not 4 x 3".

        Less than a thousandth of a pixel, at the far end too, is rounding. The CRS makes no other grid (see same_as),
        but where both have one that is another it is told last, as it explains the numbers.
        """
        found = []
        if (self.width, self.height) != (other.width, other.height):
            found.append(f"its size in pixels is {self.width} x {self.height}, not {other.width} x {other.height}")
        rounding = 1e-3 * math.sqrt(abs(self.transform.determinant))
        (origin, sides, directions), (other_origin, other_sides, other_directions) = self._parts(), other._parts()
        size = np.array([self.width, self.height])
        if not np.all(np.abs(sides - other_sides) * size < rounding):
            found.append(_told_apart("pixel size", "{} x {}", sides, other_sides))
        if not np.all(np.abs(origin - other_origin) < rounding):
            found.append(_told_apart("upper left corner", "x {}, y {}", origin, other_origin))
        if not np.all(np.abs(directions - other_directions) * sides * size < rounding):
            found.append("its rows and columns run in other directions")
        if self.crs is not None and other.crs is not None and self.crs != other.crs:
            names = crs_name(self.crs), crs_name(other.crs)
            if names[0] != names[1]:
                found.append(f"its CRS is {names[0]}, not {names[1]}")
        return "; ".join(found)

    def _parts(self) -> Tuple[Array, Array, Array]:
        """Return the upper left corner (x, y), a pixel's width and height, and the directions of both in columns."""
        matrix = self.transform
        steps = np.array([[matrix.a, matrix.b], [matrix.d, matrix.e]])
        sides = np.hypot(*steps)
        return np.array([matrix.c, matrix.f]), sides, steps / sides

    def window_of(self, extent: Extent) -> Tuple[int, int, int, int]:
        """Return the window (row, col, height, width) that an extent covers, snapped outward and cut to the raster.

        Raises:
            BadInput: the extent lies outside the raster, or nowhere on the globe.
        """
        text = _ranges(extent.xmin, extent.xmax, extent.ymin, extent.ymax)
        xs = np.array([extent.xmin, extent.xmin, extent.xmax, extent.xmax])
        ys = np.array([extent.ymin, extent.ymax, extent.ymin, extent.ymax])
        if extent.crs and self.crs is not None and CRS.from_wkt(extent.crs) != self.crs:
            from rasterio.warp import transform_bounds

            west, south, east, north = transform_bounds(
                CRS.from_wkt(extent.crs), self.crs, extent.xmin, extent.ymin, extent.xmax, extent.ymax
            )
            if not np.all(np.isfinite([west, south, east, north])):
                raise BadInput(
                    f"The extent {text} has no place in the raster's CRS.",
                    "Choose an extent on the globe, or leave it empty.",
                )
            xs, ys = np.array([west, west, east, east]), np.array([south, north, south, north])
        cols, rows = _apply(~self.transform, xs, ys)
        # A thousandth of a pixel is rounding of the corner coordinates, not a wish for one more pixel.
        top, left = max(0, math.floor(rows.min() + 1e-3)), max(0, math.floor(cols.min() + 1e-3))
        bottom, right = min(self.height, math.ceil(rows.max() - 1e-3)), min(self.width, math.ceil(cols.max() - 1e-3))
        if bottom <= top or right <= left:
            x, y = _apply(self.transform, [0, self.width, 0, self.width], [0, 0, self.height, self.height])
            raise BadInput(
                f"The extent {text} lies outside the raster, which is {_ranges(x.min(), x.max(), y.min(), y.max())} in "
                "its CRS.",
                "Choose an extent that overlaps the raster, or leave it empty.",
            )
        return top, left, bottom - top, right - left


def crs_name(crs: Any) -> str:
    """Return "EPSG:32654" where the CRS (of rasterio or pyproj) has such a code, else its name; "no CRS" for None."""
    if crs is None:
        return "no CRS"
    import pyproj

    parsed = pyproj.CRS.from_wkt(crs.to_wkt())
    code = parsed.to_authority()
    return ":".join(code) if code else str(parsed.name)


def _ranges(left: float, right: float, low: float, high: float) -> str:
    """Return what coordinates span, with the digits that map coordinates have."""
    return f"x {left:.10g} to {right:.10g}, y {low:.10g} to {high:.10g}"


def _told_apart(what: str, form: str, own: Array, theirs: Array) -> str:
    """Return two pairs of numbers with the digits that map coordinates have, or more where these are the same."""
    for digits in (10, 15):
        one, two = (form.format(*(f"{number:.{digits}g}" for number in pair)) for pair in (own, theirs))
        if one != two:
            break
    return f"its {what} is {one}, not {two}"


def _apply(transform: Affine, x: npt.ArrayLike, y: npt.ArrayLike) -> Tuple[Array, Array]:
    """Return an affine's image of the points (x, y); written out, as affine's own ``*`` takes no arrays of points."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    return (
        transform.a * x + transform.b * y + transform.c,
        transform.d * x + transform.e * y + transform.f,
    )


def reflect_indices(start: int, count: int, size: int) -> npt.NDArray[np.int64]:
    """Return ``count`` indices from ``start`` on, those outside ``[0, size)`` reflected as numpy's "reflect" does."""
    index = np.arange(start, start + count, dtype=np.int64)
    if size == 1:
        return np.zeros(count, dtype=np.int64)
    period = 2 * (size - 1)
    index = np.abs(index) % period if start < 0 else index % period
    return np.where(index < size, index, period - index)
