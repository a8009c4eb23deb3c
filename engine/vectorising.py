"""Polygons from a class map: what GIS users draw, count and hand on.

The map is cut into tiles, whose polygons are joined across the seams; what comes out does not depend on the tiles.
Polygons are simplified as a coverage: a border that two classes share is simplified once, for both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio.features
import shapely
from rasterio.transform import Affine

from ..tasks.classtable import ClassEntry, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import Vectorise, VectoriseResult
from .grids import Grid
from .legends import read_map_legend
from .rasterlabels import whole_numbers
from .rasters import RasterReader, reading
from .vectors import LayerWriter
from .wording import decimals_of, many

Shapes = npt.NDArray[np.object_]
Values = npt.NDArray[np.int64]

_TILE = 1024
_CHUNK = 50_000
_LIMIT = np.iinfo(np.int32)


def vectorise(job: Vectorise, context: Context) -> VectoriseResult:
    """Turn the classes of a raster into polygons.

    Raises:
        BadInput: the raster holds no whole numbers, or nothing of the wanted classes.
        DiskFull: no room for the polygons.
    """
    # Of a raster of several bands the first one is the map.
    with reading(replace(job.source, bands=job.source.bands[:1] or (1,), stack=())) as reader:
        shapes, values = _shapes(reader, job.classes, context)
        name, grid = reader.name, reader.grid
    if not len(shapes):
        wanted = ", ".join(map(str, job.classes))
        raise BadInput(
            f"'{name}' holds no pixel of class {wanted}." if job.classes else f"'{name}' holds no class.",
            "Choose classes that the map has." if job.classes else "Choose a class map.",
        )
    shapes, values = _joined(shapes, values, context)
    # In pixels: a tolerance is the side of the steps that are smoothed, whatever the map's units are.
    if job.simplify > 0:
        context.progress(0, 1, f"Simplifying {many(len(shapes), 'polygon')}", "")
        # Neighbours must have the same points on a common border: there is one at the corner of every pixel then.
        shapes = shapely.coverage_simplify(shapely.segmentize(shapes, 1.0), job.simplify)
    measure = Measure(grid)
    shapes, values = _cleaned(shapes, values, measure, job.min_area, context)
    classes = _classes(job, sorted({int(value) for value in values}))
    order = np.argsort(values, kind="stable")
    total = _write(job.output, shapes[order], values[order], classes, measure, context)
    counts = {str(entry.value): int((values == entry.value).sum()) for entry in classes}
    return VectoriseResult(job.output, len(shapes), counts, total, classes, tuple(context.warnings))


class Measure:
    """Areas and lengths on the ground of shapes in pixels of a grid.

    They are geodesic where the grid has a CRS; in map units otherwise.

    Attributes:
        grid: the pixels'.
    """

    def __init__(self, grid: Grid) -> None:
        """Prepare for a grid."""
        self.grid = grid
        self._way = self._geod = None
        if grid.crs is not None:
            crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
            self._geod = crs.get_geod()
            self._way = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)

    def on_map(self, shapes: Shapes) -> Shapes:
        """Return shapes in map coordinates."""
        return np.asarray(shapely.transform(shapes, _mapping(self.grid.transform)))

    def of(self, shapes: Shapes) -> npt.NDArray[np.float64]:
        """Return area and perimeter of shapes in pixels ``(N, 2)``."""
        there = self.on_map(shapes)
        if self._geod is None or self._way is None:
            return np.stack([shapely.area(there), shapely.length(there)], axis=1)
        way, geod = self._way, self._geod
        lonlat = shapely.transform(there, lambda points: np.stack(way.transform(*points.T), axis=1))
        found = [geod.geometry_area_perimeter(shape) for shape in lonlat]
        return np.abs(np.array(found, np.float64).reshape(-1, 2))


def _mapping(transform: Affine) -> Callable[[Any], Any]:
    a, b, c, d, e, f = transform[:6]

    def move(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, y = points.T
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    return move


# --- from pixels to polygons -----------------------------------------------------------------------------------------


def _shapes(reader: RasterReader, wanted: Sequence[int], context: Context) -> Tuple[Shapes, Values]:
    """Return the polygons of all tiles, in pixels, and their classes; borders lie on whole numbers."""
    shapes: List[Any] = []
    values: List[int] = []
    grid, done = reader.grid, 0
    for row, col, height, width in _tiles(grid):
        context.check()
        raw, valid = reader.read(row, col, height, width)
        known = valid[0]
        classes = np.zeros((height, width), np.int64)
        classes[known] = whole_numbers(raw[0][known], reader.name)
        if wanted:
            known = known & np.isin(classes, wanted)
        # The library takes 32 bits: a number for each class stands for it.
        present, codes = np.unique(classes, return_inverse=True)
        if len(present) > _LIMIT.max:
            raise BadInput(f"'{reader.name}' holds too many values to be classes.", "Choose a class map.")
        found = rasterio.features.shapes(
            codes.reshape(height, width).astype(np.int32), known, 4, Affine.translation(col, row)
        )
        for shape, code in found:
            shapes.append(shapely.Polygon(shape["coordinates"][0], shape["coordinates"][1:]))
            values.append(int(present[int(code)]))
        done += height * width
        context.progress(done, grid.height * grid.width, "Drawing polygons", "pixels")
    return np.array(shapes, object), np.array(values, np.int64)


def _tiles(grid: Grid) -> Iterator[Tuple[int, int, int, int]]:
    for row in range(0, grid.height, _TILE):
        for col in range(0, grid.width, _TILE):
            yield row, col, min(_TILE, grid.height - row), min(_TILE, grid.width - col)


def _joined(shapes: Shapes, values: Values, context: Context) -> Tuple[Shapes, Values]:
    """Return the polygons, those of one class joined that share an edge on a seam of the tiles."""
    bounds = shapely.bounds(shapes)
    at_seam = np.flatnonzero((bounds % _TILE == 0).any(axis=1))
    tree = shapely.STRtree(shapes[at_seam])
    one, other = tree.query(shapes[at_seam], predicate="touches")
    one, other = at_seam[one], at_seam[other]
    pairs = (one < other) & (values[one] == values[other])
    one, other = one[pairs], other[pairs]
    # Along an edge, not in a corner alone: as the polygons of one tile are told apart.
    along = shapely.relate_pattern(shapes[one], shapes[other], "FF*F1****")
    owner = np.arange(len(shapes))
    for a, b in zip(one[along].tolist(), other[along].tolist()):
        first, second = _root(owner, a), _root(owner, b)
        owner[max(first, second)] = min(first, second)
    roots = np.array([_root(owner, place) for place in at_seam.tolist()], np.int64)
    merged: Dict[int, List[int]] = {}
    for place, root in zip(at_seam.tolist(), roots.tolist()):
        merged.setdefault(root, []).append(place)
    result, keep = shapes.copy(), np.ones(len(shapes), bool)
    for root, places in merged.items():
        context.check()
        if len(places) > 1:
            keep[places] = False
            keep[root] = True
            result[root] = shapely.union_all(shapes[places])
    shapes, values = _normal(result[keep]), values[keep]
    order = np.lexsort(shapely.bounds(shapes).T[::-1])
    return shapes[order], values[order]


def _root(owner: npt.NDArray[np.int64], place: int) -> int:
    while owner[place] != place:
        owner[place] = owner[owner[place]]
        place = int(owner[place])
    return place


def _normal(shapes: Shapes) -> Shapes:
    """Return shapes without the points on straight edges, in an order of their own: the same whatever the tiles."""
    return np.asarray(shapely.normalize(shapely.simplify(shapes, 0)))


def _cleaned(shapes: Shapes, values: Values, measure: Measure, least: float, context: Context) -> Tuple[Shapes, Values]:
    """Return the polygons that are large enough, without holes that are not."""
    gone = shapely.is_empty(shapes)
    if gone.any():
        context.log(f"{int(gone.sum())} polygons are smaller than what SIMPLIFY smooths; they are left out.")
    shapes, values = shapes[~gone], values[~gone]
    broken = ~shapely.is_valid(shapes)
    if broken.any():
        # A simplified ring may touch itself: its parts follow each other.
        mended, owners = shapely.get_parts(shapely.make_valid(shapes[broken]), return_index=True)
        areal = shapely.get_type_id(mended) == shapely.GeometryType.POLYGON
        shapes = np.concatenate([shapes[~broken], mended[areal]])
        values = np.concatenate([values[~broken], values[broken][owners[areal]]])
    if least <= 0:
        return shapes, values
    large = measure.of(shapes)[:, 0] >= least
    if not large.any():
        context.warn(f"No polygon has {least:g} square metres or more: the layer is empty.")
    shapes, values = shapes[large], values[large]
    for place in np.flatnonzero(shapely.get_num_interior_rings(shapes) > 0):
        holes = [shapely.Polygon(ring) for ring in shapes[place].interiors]
        sizes = measure.of(np.array(holes, object))[:, 0]
        rings = [hole.exterior for hole, size in zip(holes, sizes) if size >= least]
        shapes[place] = shapely.Polygon(shapes[place].exterior, rings)
    return shapes, values


# --- classes and the layer -------------------------------------------------------------------------------------------


def _classes(job: Vectorise, values: Sequence[int]) -> Tuple[ClassEntry, ...]:
    """Return names and colours: those of the layer or of a legend, else those that the raster brings."""
    own = {entry.value: entry for entry in read_map_legend(job.source.path)}
    if job.legend.path or job.legend.nomenclature != "none" or job.legend.layer_classes:
        return resolve(values, job.legend)
    return tuple(own.get(entry.value, entry) for entry in resolve(values))


def _write(
    path: str, shapes: Shapes, values: Values, classes: Sequence[ClassEntry], measure: Measure, context: Context
) -> float:
    """Write the layer; returns the area of all polygons in square metres."""
    names = {entry.value: entry.name for entry in classes}
    total = 0.0
    with LayerWriter(path, "Polygon", measure.grid.crs) as writer:
        for start in range(0, max(len(shapes), 1), _CHUNK):
            context.check()
            some, own = shapes[start : start + _CHUNK], values[start : start + _CHUNK]
            sizes = measure.of(some)
            total += float(sizes[:, 0].sum())
            writer.write(
                measure.on_map(some),
                {
                    "class_id": own,
                    "class_name": np.array([names[int(value)] for value in own], object),
                    "area_m2": _rounded(sizes[:, 0]),
                    "perimeter_m": _rounded(sizes[:, 1]),
                },
            )
    return total


def _rounded(sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return sizes ``(N,)`` rounded to a hundredth, the small ones to three significant digits."""
    return np.array([round(size, max(2, decimals_of(size))) for size in sizes.tolist()])
