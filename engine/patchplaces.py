"""Where patches lie: from sample points or footprints to the first pixel of every patch in every source.

A patch of p pixels around pixel i covers ``[i - p // 2, i - p // 2 + p - 1]`` on each axis, for odd and even p. In a
further source a patch around a point is the one around that source's pixel that holds the point; the patch of a
footprint begins at the pixel that holds the footprint's upper left corner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import pandas
import pyproj
import pyproj.exceptions
import shapely

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import ExtractPatches
from .betweengrids import way_between
from .classes import FeatureClasses, feature_classes
from .crosswalks import read_crosswalk
from .rasters import Array, Grid, RasterReader
from .vectors import Layer, crs_name, on_grid, read_layer

Numbers = npt.NDArray[np.int64]

SPLITS = ("train", "validation", "test")
# How far, in pixels, a footprint may be off the grid: layers that went through other CRS or files are rounded.
_OFF_GRID = 0.25
# How near a place computed from the grid of the first source must come to a pixel's edge to be on it.
_ON_EDGE = 0.01
_CLASS_REMEDY = "Give labels for every pixel, or the field that holds the class of each sample."
# A pixel far outside every raster, for places that a CRS cannot hold.
_NOWHERE = -(2**40)


@dataclass(frozen=True)
class Samples:
    """The samples of a run, in their order; arrays ``(N,)``.

    Attributes:
        rows: row, in the first source, of the pixel at p // 2 of the patch: the one that holds a point.
        cols: column likewise.
        class_ids: class of the sample's field; -1 with dense targets, which read no field.
        splits: train, validation, test or "".
        groups: polygon that the sample came from, -1 when unknown.
        classes: the table of ``class_ids``; empty with dense targets.
        points: map coordinates (x, y) of the points in the first source's CRS; None for footprints.
        name: what messages call the layer.
    """

    rows: Numbers
    cols: Numbers
    class_ids: Numbers
    splits: npt.NDArray[Any]
    groups: Numbers
    classes: Tuple[ClassEntry, ...]
    points: Optional[Tuple[Array, Array]]
    name: str

    def __len__(self) -> int:
        return len(self.rows)


def read_samples(job: ExtractPatches, reader: RasterReader, context: Context) -> Samples:
    """Read the points or footprints and bring them onto the first source's grid.

    Raises:
        BadInput: they are neither points nor squares of PATCH_SIZE pixels, or have no class where one is needed.
    """
    layer = on_grid(_single(read_layer(job.samples, context)), reader.grid, reader.name, context)
    classes = None if job.dense else _classes(job, layer, context)
    if classes is not None:
        layer = replace(layer, frame=layer.frame[classes.known])
    rows, cols, points = _places(layer, reader, job.patch_size)
    return Samples(
        rows=rows,
        cols=cols,
        class_ids=np.full(len(rows), -1, dtype=np.int64) if classes is None else classes.ids[classes.known],
        splits=_splits(layer, context),
        groups=_groups(layer),
        classes=() if classes is None else classes.classes,
        points=points,
        name=layer.name,
    )


def _single(layer: Layer) -> Layer:
    """Return the layer with single points or polygons (a multipoint gives one sample for each of its points)."""
    kinds = set(layer.frame.geom_type)
    if not (kinds <= {"Point", "MultiPoint"} or kinds <= {"Polygon", "MultiPolygon"}):
        odd = sorted(kinds - {"Point", "MultiPoint"})[0]
        raise BadInput(
            f"The samples '{layer.name}' hold {odd} features, not only points or only footprints.",
            "Run 'Select samples from polygons' (selectvectorsamples) on them first and give its points.",
        )
    multiple = any(kind.startswith("Multi") for kind in kinds)
    return replace(layer, frame=layer.frame.explode(index_parts=False)) if multiple else layer


def _classes(job: ExtractPatches, layer: Layer, context: Context) -> FeatureClasses:
    if not job.field:
        raise BadInput("FIELD is missing, and neither LABELS nor LABEL_FEATURES is given.", _CLASS_REMEDY)
    if job.field not in layer.fields and set(layer.frame.geom_type) == {"Polygon"}:
        raise BadInput(
            f"The footprints '{layer.name}' have no field '{job.field}', and neither LABELS nor LABEL_FEATURES is "
            "given.",
            _CLASS_REMEDY,
        )
    return feature_classes(layer, job.field, context, job.legend, job.classes, read_crosswalk(job.crosswalk))


def _splits(layer: Layer, context: Context) -> npt.NDArray[Any]:
    names = {name.lower(): name for name in layer.fields}
    splits = np.full(len(layer.frame), "", dtype=object)
    if "split" in names:
        texts = layer.frame[names["split"]].astype(object)
        splits = texts.where(texts.notna(), "").astype(str).to_numpy(dtype=object)
        foreign = sorted(set(splits) - {*SPLITS, ""})
        if foreign:
            context.warn(
                f"The field '{names['split']}' of '{layer.name}' holds '{foreign[0]}', which is none of "
                f"{', '.join(SPLITS)}; such samples belong to no part."
            )
            splits[~np.isin(splits, SPLITS)] = ""
    return splits


def _groups(layer: Layer) -> Numbers:
    names = {name.lower(): name for name in layer.fields}
    if "originfid" in names and pandas.api.types.is_numeric_dtype(layer.frame[names["originfid"]]):
        return np.asarray(layer.frame[names["originfid"]].fillna(-1).to_numpy(dtype=np.int64))
    return np.full(len(layer.frame), -1, dtype=np.int64)


def _places(layer: Layer, reader: RasterReader, size: int) -> Tuple[Numbers, Numbers, Optional[Tuple[Array, Array]]]:
    """Return row and column of the pixels at p // 2, and the map coordinates of points."""
    shapes = np.asarray(layer.frame.geometry.values, dtype=object)
    if len(shapes) and shapely.get_type_id(shapes[0]) != shapely.GeometryType.POINT:
        top, left = _first_pixels(shapes, layer.name, reader, size)
        return top + size // 2, left + size // 2, None
    points = shapely.get_x(shapes), shapely.get_y(shapes)
    rows, cols = _pixels_of(reader.grid, *points)
    return rows, cols, points


def _first_pixels(shapes: npt.NDArray[Any], name: str, reader: RasterReader, size: int) -> Tuple[Numbers, Numbers]:
    """Return the first row and column of footprints, after a check that they are squares of ``size`` pixels."""
    corners, owner = shapely.get_coordinates(shapes, return_index=True)
    cols, rows = reader.grid.index_of(corners[:, 0], corners[:, 1])
    begin = np.searchsorted(owner, np.arange(len(shapes)))
    top, bottom = np.minimum.reduceat(rows, begin), np.maximum.reduceat(rows, begin)
    left, right = np.minimum.reduceat(cols, begin), np.maximum.reduceat(cols, begin)
    height, width = bottom - top, right - left
    area = shapely.area(shapes) / abs(reader.grid.transform.determinant)
    # The tolerance along every side is the area that such a square may lack.
    missing = height * width - area
    square = np.isfinite(area) & (missing <= np.minimum(4 * _OFF_GRID * (size + 1), height * width / 4))
    wrong = np.flatnonzero(~square | (np.abs(height - size) > _OFF_GRID) | (np.abs(width - size) > _OFF_GRID))
    if len(wrong):
        first = wrong[0]
        if square[first]:
            found = f"{width[first]:.4g} x {height[first]:.4g} pixels of '{reader.name}'"
        else:
            found = f"no square of {width[first]:.4g} x {height[first]:.4g} pixels of '{reader.name}'"
        raise BadInput(
            f"A polygon of '{name}' ({len(wrong)} of {len(shapes)} are so) covers {found}, while PATCH_SIZE is {size}.",
            "Give footprints of 'Select patches on a grid or at random' and their PATCH_SIZE; for patches around "
            "pixels inside polygons give the points of 'Select samples from polygons' (selectvectorsamples).",
        )
    rows, cols = np.floor(top + _OFF_GRID), np.floor(left + _OFF_GRID)
    return rows.astype(np.int64), cols.astype(np.int64)


def _pixels_of(grid: Grid, x: Array, y: Array) -> Tuple[Numbers, Numbers]:
    """Return rows and columns of the pixels that hold points; far outside where a point has no place."""
    finite = np.isfinite(x) & np.isfinite(y)
    rows, cols = grid.pixels_of(np.where(finite, x, 0.0), np.where(finite, y, 0.0))
    return np.where(finite, rows, _NOWHERE), np.where(finite, cols, _NOWHERE)


# --- in further sources ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """The patches in one source: their side, and their first row and column ``(N,)``."""

    size: int
    rows: Numbers
    cols: Numbers

    def kept(self, index: Numbers) -> Placement:
        """Return the placement of some patches."""
        return Placement(self.size, self.rows[index], self.cols[index])


def placements(
    job: ExtractPatches, samples: Samples, readers: Sequence[RasterReader], context: Context
) -> Tuple[Placement, ...]:
    """Return the place of the patches in every source.

    Raises:
        BadInput: a source's patch size is not given and does not follow from the first one's, or there is no way from
            the first source's CRS to its CRS.
    """
    first, half = readers[0].grid, job.patch_size // 2
    found = [Placement(job.patch_size, samples.rows - half, samples.cols - half)]
    for number, reader in enumerate(readers[1:], start=2):
        given = job.more_patch_sizes[number - 2] if number - 2 < len(job.more_patch_sizes) else 0
        way = _way(readers[0], reader, context)
        side = _side_in(samples, found[0], first, reader.grid, way)
        size = given or _whole(side, number, reader, readers[0], job.patch_size)
        if samples.points is not None:
            rows, cols = _pixels_of(reader.grid, *_moved(way, *samples.points))
            found.append(Placement(size, rows - size // 2, cols - size // 2))
        else:
            cols_at, rows_at = reader.grid.index_of(*_moved(way, *first.corners_of(found[0].rows, found[0].cols)))
            # What is larger than the footprint has it in its middle.
            before = (size - round(side)) // 2
            rows, cols = (_floor(at + _ON_EDGE) - before for at in (rows_at, cols_at))
            found.append(Placement(size, rows, cols))
    return tuple(found)


def _floor(index: Array) -> Numbers:
    finite = np.isfinite(index)
    return np.where(finite, np.floor(np.where(finite, index, 0.0)), _NOWHERE).astype(np.int64)


def _way(first: RasterReader, other: RasterReader, context: Context) -> Optional[pyproj.Transformer]:
    """Return the transformation between the CRS of two sources; None where they are the same."""
    try:
        return way_between(first.grid.crs, other.grid.crs, first.name, other.name, context)
    except pyproj.exceptions.ProjError as error:
        raise BadInput(
            f"There is no way from the CRS of '{first.name}' ({crs_name(first.grid.crs)}) to that of '{other.name}' "
            f"({crs_name(other.grid.crs)}).",
            "Check the CRS of both images.",
        ) from error


def _moved(way: Optional[pyproj.Transformer], x: Array, y: Array) -> Tuple[Array, Array]:
    if way is None:
        return x, y
    moved = way.transform(x, y)
    return np.asarray(moved[0]), np.asarray(moved[1])


def _side_in(
    samples: Samples, placement: Placement, first: Grid, other: Grid, way: Optional[pyproj.Transformer]
) -> float:
    """Return the side of a patch of the first source in pixels of another one, at the middle of the samples."""
    row, col = float(np.median(placement.rows)), float(np.median(placement.cols))
    row, col = min(max(row, 0.0), float(first.height)), min(max(col, 0.0), float(first.width))
    size = placement.size
    x, y = first.corners_of(np.array([row, row, row + size]), np.array([col, col + size, col]))
    across, down = other.index_of(*_moved(way, x, y))
    if not (np.isfinite(across).all() and np.isfinite(down).all()):
        return float(size)
    sides = np.hypot(np.diff(across)[0], np.diff(down)[0]), np.hypot(across[2] - across[0], down[2] - down[0])
    return float(np.sqrt(sides[0] * sides[1]))


def _whole(side: float, number: int, reader: RasterReader, first: RasterReader, patch_size: int) -> int:
    """Return the side as a whole number of pixels."""
    size = round(side)
    if size < 1 or abs(side - size) > 0.01 * side:
        raise BadInput(
            f"A patch of {patch_size} x {patch_size} pixels of '{first.name}' covers {side:.4g} pixels of "
            f"'{reader.name}' on a side, which is no whole number.",
            f"Give PATCH_SIZE{number}, or choose a PATCH_SIZE that covers whole pixels of both.",
        )
    return size
