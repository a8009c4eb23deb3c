"""Features on the globe: over the antimeridian, around a pole, or larger than a projection can show.

PROJ transforms vertices, one by one. What lies between them, and which way round the globe, is told here, so that a
feature in degrees covers on a raster what it covers on the ground. Features of ordinary size away from there are left
as they are.
"""

from __future__ import annotations

import math
from typing import Any, List, Optional, Tuple

import geopandas
import numpy as np
import numpy.typing as npt
import pyproj
import shapely
import shapely.affinity

from ..tasks.context import Context
from .rasters import Grid

Array = npt.NDArray[Any]

# Edges longer than this many degrees are bent by a projection; they get vertices at the second distance.
_LONG_EDGE = 1.0
_STEP = 0.01
# Degrees around a raster to which features that reach far beyond it are cut.
_MARGIN = 1.0
# Vertices are brought onto multiples of this share of a pixel where edges on both sides of a seam must become one.
_GRAIN = 1e-6
_LATTICE = 33
# Features that are transformed together.
_CHUNK = 50_000


def to_grid(
    frame: geopandas.GeoDataFrame, target: pyproj.CRS, grid: Grid, context: Context, consume: bool = False
) -> geopandas.GeoDataFrame:
    """Return a layer in the CRS of a grid.

    Args:
        frame: the layer.
        target: pyproj's form of the grid's CRS.
        grid: the grid.
        context: asked whether to go on.
        consume: give up the geometries of `frame` as they are transformed: a million take half of a gigabyte.

    Raises:
        pyproj.exceptions.ProjError: there is no way from one CRS to the other.
    """
    old = np.asarray(frame.geometry.values, dtype=object)
    new = np.empty(len(old), dtype=object)
    for start in range(0, len(old), _CHUNK):
        context.check()
        part = slice(start, start + _CHUNK)
        moved = _to_grid(geopandas.GeoDataFrame(geometry=old[part], crs=frame.crs), target, grid)
        new[part] = np.asarray(moved.geometry.values, dtype=object)
        if consume:
            old[part] = None
    return frame.set_geometry(geopandas.GeoSeries(new, index=frame.index, crs=target))


def _to_grid(frame: geopandas.GeoDataFrame, target: pyproj.CRS, grid: Grid) -> geopandas.GeoDataFrame:
    moved = frame.to_crs(target)
    if frame.crs.is_geographic and not target.is_geographic:
        return _projected(frame, moved, grid)
    if target.is_geographic:
        geometries = np.asarray(moved.geometry.values, dtype=object)
        return on_longitudes(_set(moved, _unwrapped(geometries)), grid)
    return moved


def on_longitudes(frame: geopandas.GeoDataFrame, grid: Grid) -> geopandas.GeoDataFrame:
    """Return a layer in degrees with those parts moved by a whole turn that then lie on the grid (of degrees, too)."""
    if grid.crs is None or not grid.crs.is_geographic:
        return frame
    x, _ = grid.corners_of(np.array([0, 0, grid.height, grid.height]), np.array([0, grid.width, grid.width, 0]))
    west, east = float(x.min()), float(x.max())
    geometries = np.asarray(frame.geometry.values, dtype=object)
    left, _, right, _ = shapely.bounds(geometries).T
    with np.errstate(invalid="ignore"):
        elsewhere = ((left + 360 < east) & (right + 360 > west)) | ((left - 360 < east) & (right - 360 > west))
    if not elsewhere.any():
        return frame
    geometries = geometries.copy()
    for place in np.flatnonzero(elsewhere):
        geometries[place] = _turned(geometries[place], west, east)
    return _set(frame, geometries)


def _set(frame: geopandas.GeoDataFrame, geometries: Array) -> geopandas.GeoDataFrame:
    return frame.set_geometry(geopandas.GeoSeries(geometries, index=frame.index, crs=frame.crs))


def _turned(geometry: Any, west: float, east: float) -> Any:
    found = []
    for part in shapely.get_parts(geometry):
        left, _, right, _ = shapely.bounds(part)
        turns = [turn for turn in (-360.0, 0.0, 360.0) if left + turn < east and right + turn > west] or [0.0]
        found += [shapely.affinity.translate(part, turn) if turn else part for turn in turns]
    return found[0] if len(found) == 1 else _collected(found)


def _collected(parts: List[Any]) -> Any:
    kinds = {part.geom_type for part in parts}
    multi = {"Polygon": shapely.MultiPolygon, "LineString": shapely.MultiLineString, "Point": shapely.MultiPoint}
    return multi[kinds.pop()](parts) if len(kinds) == 1 else shapely.GeometryCollection(parts)


def _unwrapped(geometries: Array) -> Array:
    """Return features in one piece to whose vertices PROJ gave longitudes on both sides of the antimeridian."""
    left, _, right, _ = shapely.bounds(geometries).T
    with np.errstate(invalid="ignore"):
        torn = np.flatnonzero(right - left > 180)
    if len(torn):
        geometries = geometries.copy()
    for place in torn:
        first = shapely.get_coordinates(geometries[place])[0, 0]
        geometries[place] = shapely.transform(
            geometries[place],
            lambda x, y, first=first: (first + (x - first + 180) % 360 - 180, y),
            interleaved=False,
        )
    return geometries


def _projected(frame: geopandas.GeoDataFrame, moved: geopandas.GeoDataFrame, grid: Grid) -> geopandas.GeoDataFrame:
    """Correct the features of a layer in degrees that the projection of a raster tears or bends."""
    region = _region(frame.crs, grid)
    if region is None:
        return moved
    old = np.asarray(frame.geometry.values, dtype=object)
    left, bottom, right, top = shapely.bounds(old).T
    extended = shapely.get_dimensions(old) > 0
    boxes = np.array([shapely.bounds(box) for box in shapely.get_parts(region)])
    with np.errstate(invalid="ignore"):
        held = np.zeros(len(old), bool)
        for west, south, east, north in boxes:
            held |= (left >= west) & (right <= east) & (bottom >= south) & (top <= north)
        large = np.maximum(right - left, top - bottom) > _LONG_EDGE
    suspects = np.flatnonzero(extended & (~held | large))
    chosen = [place for place in suspects if not held[place] or _has_long_edge(old[place])]
    if not chosen:
        return moved
    way = pyproj.Transformer.from_crs(frame.crs, moved.crs, always_xy=True)
    new = np.asarray(moved.geometry.values, dtype=object).copy()
    outline = shapely.box(*_bounds(grid))
    shapely.prepare(region)
    for place in chosen:
        if shapely.intersects(region, old[place]):
            new[place] = _cut_and_bent(old[place], region, way, grid)
        elif not np.isfinite(shapely.bounds(new[place])).all() or outline.intersects(shapely.box(*new[place].bounds)):
            # Far from the raster, but torn over the whole of it.
            new[place] = shapely.Polygon()
    return _set(moved, new)


def _has_long_edge(geometry: Any) -> bool:
    return bool(
        shapely.get_num_coordinates(shapely.segmentize(geometry, _LONG_EDGE)) > shapely.get_num_coordinates(geometry)
    )


def _cut_and_bent(geometry: Any, region: Any, way: pyproj.Transformer, grid: Grid) -> Any:
    """Return a feature, cut to the region, in the raster's CRS, with edges that follow those in degrees."""
    dimension = shapely.get_dimensions(geometry)
    cut = shapely.intersection(geometry, region)
    if _has_long_edge(cut):
        cut = shapely.segmentize(cut, _STEP)
    grain = _GRAIN * math.sqrt(abs(grid.transform.determinant))

    def moved(coordinates: Array) -> Array:
        places = np.stack(way.transform(coordinates[:, 0], coordinates[:, 1]), axis=-1)
        return np.asarray(np.round(places / grain) * grain)

    parts = [shapely.make_valid(shapely.transform(part, moved)) for part in shapely.get_parts(cut)]
    flat = [piece for part in parts for piece in shapely.get_parts(part)]
    if geometry.geom_type != "GeometryCollection":
        flat = [piece for piece in flat if shapely.get_dimensions(piece) == dimension]
    polygons = shapely.union_all([piece for piece in flat if shapely.get_dimensions(piece) == 2])
    others = [piece for piece in flat if shapely.get_dimensions(piece) < 2]
    return _collected([*shapely.get_parts(polygons), *others]) if flat else shapely.Polygon()


def _region(crs: pyproj.CRS, grid: Grid) -> Optional[Any]:
    """Return the part of the globe around a raster, in degrees of a CRS; the same place may be in it several times.

    None where PROJ tells the raster no place.
    """
    if grid.crs is None:
        return None
    way = pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(grid.crs.to_wkt()), crs, always_xy=True)
    rows, cols = np.meshgrid(np.linspace(0, grid.height, _LATTICE), np.linspace(0, grid.width, _LATTICE))
    x, y = grid.corners_of(rows.reshape(-1), cols.reshape(-1))
    lon, lat = way.transform(x, y)
    finite = np.isfinite(lon) & np.isfinite(lat)
    if not finite.any():
        return None
    lon, lat = np.sort(lon[finite] % 360), lat[finite]
    south, north, poles = float(lat.min()), float(lat.max()), _poles_in(grid, way)
    margin = _MARGIN + 0.05 * (north - south)
    south, north = max(-90.0, south - margin), min(90.0, north + margin)
    if -90.0 in poles:
        south = -90.0
    if 90.0 in poles:
        north = 90.0
    gaps = np.diff(lon, append=lon[0] + 360)
    widest = int(gaps.argmax())
    arc = 360 - float(gaps[widest])
    around = (_MARGIN + 0.05 * arc) / max(0.01, math.cos(math.radians(min(89.9, max(abs(south), abs(north))))))
    if poles or arc + 2 * around > 350:
        return shapely.MultiPolygon([shapely.box(-540, south, 540, north)])
    west = float(lon[(widest + 1) % len(lon)]) - around
    east = west + arc + 2 * around
    return shapely.MultiPolygon([shapely.box(west + turn, south, east + turn, north) for turn in (-720, -360, 0, 360)])


def _poles_in(grid: Grid, way: pyproj.Transformer) -> List[float]:
    """Return the latitudes of the poles that lie in a raster, or within a tenth of its size of it."""
    found = []
    for pole in (-90.0, 90.0):
        x, y = way.transform(0.0, pole, direction=pyproj.enums.TransformDirection.INVERSE)
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        col, row = grid.index_of(np.array([x]), np.array([y]))
        wide, high = 0.1 * grid.width + 1, 0.1 * grid.height + 1
        if -wide <= col[0] <= grid.width + wide and -high <= row[0] <= grid.height + high:
            found.append(pole)
    return found


def _bounds(grid: Grid) -> Tuple[float, float, float, float]:
    x, y = grid.corners_of(np.array([0, 0, grid.height, grid.height]), np.array([0, grid.width, grid.width, 0]))
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())
