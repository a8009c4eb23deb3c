"""Lengths in pixels, metres on the ground, or map units, as numbers of rows and columns of a grid.

Metres are geodesic: what a surveyor would measure on the ellipsoid, not what the coordinates say. A pixel of 10 map
units in Web Mercator is 5 m wide at 60 degrees north, and a degree of longitude shrinks towards the poles; so the same
length is another number of pixels elsewhere on the raster. `in_pixels` answers for one place, `most_pixels` for the
place where the length takes the most pixels, which keeps a distance everywhere.
"""

from __future__ import annotations

import math
from typing import Any, Optional, Tuple

import numpy as np
import numpy.typing as npt
import pyproj
import pyproj.exceptions

from ..tasks.errors import BadInput
from .grids import Array, Grid

# Places per axis at which `most_pixels` looks: the ground size of pixels changes slowly and smoothly.
_PLACES = 17
# Share by which lengths on a map may miss those on the ground and still count as true.
_TRUE = 0.01
# Degrees by which a coordinate may miss the pole by rounding.
_POLE_ROUNDING = 1e-9


def in_pixels(
    length: float, unit: str, grid: Grid, name: str, place: Optional[Tuple[float, float]] = None
) -> Tuple[float, float]:
    """Return a length as (rows, columns) of a grid.

    Args:
        length: 0 or more.
        unit: pixels, metres or map.
        grid: the raster's.
        name: what messages call it.
        place: continuous (row, column) where metres are measured; None = the middle of the grid.

    Raises:
        BadInput: metres are asked for and the grid has no CRS, or none that tells lengths there.
    """
    if unit == "pixels":
        return length, length
    if unit == "map":
        down, across = _map_sizes(grid)
        return length / down, length / across
    row, col = place if place is not None else (grid.height / 2, grid.width / 2)
    return _pixels(length, *ground_sizes(grid, np.array([row]), np.array([col]), name), name)


def most_pixels(
    length: float, unit: str, grid: Grid, name: str, window: Optional[Tuple[float, float, float, float]] = None
) -> Tuple[float, float]:
    """Return a length as the most (rows, columns) that it takes anywhere in a window of a grid.

    Args:
        length: as for `in_pixels`.
        unit: likewise.
        grid: likewise.
        name: likewise.
        window: first row, first column, last row, last column; None = the whole grid.

    Returns:
        Rows and columns; the columns are infinite where a geographic grid reaches a pole.

    Raises:
        BadInput: as for `in_pixels`.
    """
    if unit != "metres":
        return in_pixels(length, unit, grid, name)
    top, left, bottom, right = window if window is not None else (0, 0, grid.height, grid.width)
    rows, cols = np.meshgrid(np.linspace(top, bottom, _PLACES), np.linspace(left, right, _PLACES), indexing="ij")
    return _pixels(length, *ground_sizes(grid, rows.ravel(), cols.ravel(), name), name)


def ground_sizes(grid: Grid, rows: Array, cols: Array, name: str) -> Tuple[Array, Array]:
    """Return the height and width of pixels on the ground in metres, at continuous rows and columns ``(N,)``.

    NaN where the CRS does not reach.

    Raises:
        BadInput: the grid has no CRS.
    """
    if grid.crs is None:
        raise BadInput(
            f"UNIT metres cannot be used: '{name}' has no CRS.", "Set its CRS in the layer's properties, or use pixels."
        )
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    geod, geodetic = crs.get_geod(), crs.geodetic_crs
    if geod is None or geodetic is None:
        # A site's own system lies on a plane: its coordinates are its lengths.
        factor = float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0
        down, across = _map_sizes(grid)
        return np.full(len(rows), down * factor), np.full(len(rows), across * factor)
    transformer = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
    degrees = math.degrees(geodetic.axis_info[0].unit_conversion_factor)

    def ends(down: float, across: float) -> Tuple[Array, Array]:
        try:
            x, y = transformer.transform(*grid.corners_of(rows + down, cols + across))
        except pyproj.exceptions.ProjError as error:
            raise BadInput(
                f"UNIT metres cannot be used: the CRS of '{name}' does not lead to places on the earth.", "Use pixels."
            ) from error
        return np.asarray(x, float) * degrees, np.asarray(y, float) * degrees

    def length(start: Tuple[Array, Array], end: Tuple[Array, Array]) -> Array:
        return _geodesic(geod, start, end)

    return length(ends(-0.5, 0), ends(0.5, 0)), length(ends(0, -0.5), ends(0, 0.5))


def pixel_metres(grid: Grid) -> Optional[float]:
    """Return the side of a pixel in metres on the ground, at the raster's centre; None without CRS.

    Where the map is true to a hundredth, as UTM is, it is the map's own number, which is what users know.
    """
    if grid.crs is None:
        return None
    on_map = None
    if not grid.crs.is_geographic:
        on_map = math.sqrt(abs(grid.transform.determinant)) * float(grid.crs.linear_units_factor[1])
    try:
        down, across = ground_sizes(grid, np.array([grid.height / 2]), np.array([grid.width / 2]), "the raster")
    except BadInput:
        # Its CRS leads to no place on the earth.
        return on_map
    on_ground = math.sqrt(float(down[0] * across[0]))
    if not math.isfinite(on_ground) or (on_map is not None and abs(on_ground - on_map) <= _TRUE * on_map):
        return on_map
    return on_ground


def full_turn(grid: Grid) -> Optional[float]:
    """Return the columns that lead once around the earth; None unless the grid lies in longitude and latitude."""
    turn = map_turn(grid.crs)
    if turn is None or grid.transform.b or grid.transform.d:
        return None
    return turn / abs(float(grid.transform.a))


def map_turn(crs: Any) -> Optional[float]:
    """Return the map units once around the earth, 360 in degrees; None unless a CRS (of rasterio) is geographic."""
    if crs is None or not crs.is_geographic:
        return None
    return 2 * math.pi / float(pyproj.CRS.from_wkt(crs.to_wkt()).axis_info[0].unit_conversion_factor)


def _geodesic(geod: pyproj.Geod, start: Tuple[Array, Array], end: Tuple[Array, Array]) -> Array:
    places: npt.NDArray[np.float64] = np.stack([*start, *end])
    # Half a pixel beyond a pole is no place; the pole itself is, and its pixels have no width.
    places[1::2] = np.where(np.abs(places[1::2]) <= 90 + _POLE_ROUNDING, np.clip(places[1::2], -90, 90), np.nan)
    known = np.isfinite(places).all(axis=0)
    lengths = np.full(places.shape[1], np.nan)
    lengths[known] = geod.inv(*places[:, known])[2]
    return lengths


def _map_sizes(grid: Grid) -> Tuple[float, float]:
    """Return the height and width of a pixel in map units."""
    transform = grid.transform
    return math.hypot(transform.b, transform.e), math.hypot(transform.a, transform.d)


def _pixels(length: float, down: Array, across: Array, name: str) -> Tuple[float, float]:
    heights, widths = down[np.isfinite(down) & (down > 0)], across[np.isfinite(across)]
    if len(heights) == 0 or len(widths) == 0:
        raise BadInput(
            f"UNIT metres cannot be used: '{name}' lies outside the area of its CRS.", "Check its CRS, or use pixels."
        )
    lowest, narrowest = float(heights.min()), float(widths.min())
    # At a pole the width is that of rounding.
    columns = length / narrowest if narrowest > 1e-6 * lowest else (math.inf if length else 0.0)
    return length / lowest, columns
