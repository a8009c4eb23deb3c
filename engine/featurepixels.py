"""Which pixels of a grid the features of a layer cover: polygons, lines and points, in chunks that bound the memory.

Polygons give the pixels whose centre is inside, lines those that are crossed, points the one that holds them. The parts
of a feature are taken one after the other, as the reference takes them, each in raster order. A pixel that two parts
share counts once, for the first of them; the reference counts it for each.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import Any, Iterator, List, Optional, Tuple

import numpy as np
import numpy.typing as npt
import rasterio.features
import scipy.ndimage
import shapely

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import RasterSource
from .classes import FeatureClasses
from .nodatasamples import counts_of, losses_text, tell_of_outside
from .rasters import Grid, RasterReader, open_mask_on
from .vectors import Layer, crs_name

Keys = npt.NDArray[np.int64]
# Pixels: top, left, bottom, right; the last two are beyond.
Window = Tuple[int, int, int, int]

# Pixels of a polygon or a mask that are looked at together.
_STRIP_PIXELS = 4_000_000
# Polygons whose bounds hold at most so many pixels are burnt many at a time; together so many pixels and features.
_SMALL_PIXELS = 65_536
_CHUNK_PIXELS = 2_000_000
_CHUNK_FEATURES = 20_000
# Feature ids that a warning lists.
_LISTED = 10


@dataclass(frozen=True, eq=False)
class PixelChunk:
    """The pixels of some features, in the layer's order.

    Attributes:
        positions: places of the features in the layer, ``(M,)``.
        outside: True for features that lie outside the grid, ``(M,)``.
        counts: pixels of each feature, ``(M,)``.
        keys: ``row * width + col`` of the pixels of one feature after the other, ascending inside each part of it.
    """

    positions: npt.NDArray[np.int64]
    outside: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int64]
    keys: Keys


def pixel_chunks(
    layer: Layer,
    classes: FeatureClasses,
    grid: Grid,
    mask: Optional[RasterSource],
    context: Context,
    erode: int = 0,
) -> Iterator[PixelChunk]:
    """Yield the pixels of every feature that has a class, in the layer's order.

    Pixels where the mask is not above 0 are left out. Features outside the raster, those that hold no pixel centre, and
    those of which erosion leaves nothing, are told in warnings at the end.

    Args:
        layer: the features, in the CRS of the grid.
        classes: which of them have a class.
        grid: the pixels.
        mask: of the same grid, or None.
        context: takes progress and warnings.
        erode: pixels that are cut from the inner edge of each polygon.

    Raises:
        BadInput: the mask cannot be read, or lies on another grid.
    """
    geometries = np.asarray(layer.frame.geometry.values, dtype=object)
    chosen = np.flatnonzero(classes.known)
    outside = np.zeros(len(classes.ids), dtype=bool)
    missed, eroded = _Listed(layer), _Listed(layer)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(open_mask_on(mask, grid)) if mask else None
        done = 0
        for positions in _groups(geometries, chosen, grid):
            context.check()
            chunk, vanished = _burnt_chunk(geometries, positions, grid, erode)
            outside[positions[chunk.outside]] = True
            eroded.add(positions[vanished])
            missed.add(positions[(chunk.counts == 0) & ~chunk.outside & ~vanished])
            yield _where_valid(chunk, reader, grid) if reader is not None else chunk
            done += len(positions)
            context.progress(done, len(chosen), "Finding pixels", "features")
    if outside.any():
        lost, every = counts_of(classes.ids[outside]), counts_of(classes.ids[chosen])
        tell_of_outside(
            f"{np.count_nonzero(outside)} of {len(chosen)} features of '{layer.name}' lie outside the raster: "
            f"{losses_text(lost, every, classes.classes)}.",
            min(1 - number / every[value] for value, number in lost.items()), context,
        )  # fmt: skip
    if missed.count:
        context.warn(
            f"{missed.count} features of '{layer.name}' hold no pixel centre and give no sample: id {missed.text}."
        )
    if eroded.count:
        context.warn(
            f"ERODE_POLYGONS {erode} leaves nothing of {eroded.count} polygons of '{layer.name}': id {eroded.text}."
        )


class _Listed:
    """Counts features and keeps the first few ids for a message."""

    def __init__(self, layer: Layer) -> None:
        self._index = layer.frame.index
        self._first: List[str] = []
        self.count = 0

    def add(self, positions: npt.NDArray[np.int64]) -> None:
        self.count += len(positions)
        self._first += [str(self._index[place]) for place in positions[: _LISTED - len(self._first)]]

    @property
    def text(self) -> str:
        more = self.count - len(self._first)
        return ", ".join(self._first) + (f" and {more} more" if more else "")


def extent_text(layer: Layer) -> str:
    """Return the extent of a layer and the name of its CRS, for `nothing_labelled`."""
    return ", ".join(f"{value:.9g}" for value in layer.frame.total_bounds) + f", {crs_name(layer.frame.crs)}"


def nothing_labelled(name: str, extent: str, reader: RasterReader, masked: bool) -> BadInput:
    """Return the sentence for features of a layer that label no pixel, with both extents."""
    grid = reader.grid
    raster = ", ".join(f"{value:.9g}" for value in _outline(grid).bounds)
    mask = " and the mask" if masked else ""
    return BadInput(
        f"No feature of '{name}' (extent {extent}) labels a pixel of "
        f"'{reader.name}' (extent {raster}, {crs_name(grid.crs)}).",
        f"Check that both cover the same place{mask}, that the CRS of each is right, and that features reach a pixel "
        "centre.",
    )


def _where_valid(chunk: PixelChunk, mask: RasterReader, grid: Grid) -> PixelChunk:
    """Return the pixels whose mask is above 0."""
    kept = np.zeros(len(chunk.keys), dtype=bool)
    order = np.argsort(chunk.keys, kind="stable")
    rows, cols = np.divmod(chunk.keys[order], grid.width)
    if len(rows):
        left, width = int(cols.min()), int(cols.max() - cols.min()) + 1
        deep = max(1, _STRIP_PIXELS // width)
        row = int(rows[0])
        while True:
            here = slice(*np.searchsorted(rows, [row, row + deep]))
            values, valid = mask.read(row, left, min(deep, grid.height - row), width)
            kept[order[here]] = ((values[0] > 0) & valid[0])[rows[here] - row, cols[here] - left]
            if here.stop >= len(rows):
                break
            row = int(rows[here.stop])
    owners = np.repeat(np.arange(len(chunk.counts)), chunk.counts)
    return replace(chunk, counts=np.bincount(owners[kept], minlength=len(chunk.counts)), keys=chunk.keys[kept])


# --- many features at a time -----------------------------------------------------------------------------------------


def burnt_chunks(geometries: npt.NDArray[Any], chosen: npt.NDArray[np.int64], grid: Grid) -> Iterator[PixelChunk]:
    """Yield the pixels of the features at some places, many small ones together; each is burnt whole."""
    for positions in _groups(geometries, chosen, grid):
        if len(positions):
            yield _burnt_chunk(geometries, positions, grid, 0)[0]


def _groups(geometries: npt.NDArray[Any], chosen: npt.NDArray[np.int64], grid: Grid) -> Iterator[npt.NDArray[np.int64]]:
    """Yield places of features whose bounds hold together not too many pixels; a large one is a group of its own."""
    for start in range(0, len(chosen), _CHUNK_FEATURES):
        places = chosen[start : start + _CHUNK_FEATURES]
        xmin, ymin, xmax, ymax = shapely.bounds(geometries[places]).T
        cols, rows = grid.index_of(np.stack([xmin, xmin, xmax, xmax]), np.stack([ymin, ymax, ymin, ymax]))
        # Cut to the grid: of what lies outside nothing is burnt. A missing bound (NaN) is nothing, too.
        wide = np.nan_to_num(np.minimum(cols.max(axis=0), grid.width) - np.maximum(cols.min(axis=0), 0))
        high = np.nan_to_num(np.minimum(rows.max(axis=0), grid.height) - np.maximum(rows.min(axis=0), 0))
        sizes = (np.maximum(wide, 0) + 1) * (np.maximum(high, 0) + 1)
        group = np.cumsum(np.minimum(sizes, _CHUNK_PIXELS)) // _CHUNK_PIXELS
        large = sizes > _SMALL_PIXELS
        borders = np.flatnonzero((np.diff(group) > 0) | large[1:] | large[:-1]) + 1
        yield from np.split(places, borders)


def _burnt_chunk(
    geometries: npt.NDArray[Any], positions: npt.NDArray[np.int64], grid: Grid, erode: int
) -> Tuple[PixelChunk, npt.NDArray[np.bool_]]:
    """Return the pixels of a group of features, and which polygons vanished by erosion."""
    some = geometries[positions]
    outside = np.zeros(len(positions), dtype=bool)
    vanished = np.zeros(len(positions), dtype=bool)
    found: List[Keys] = [np.empty(0, dtype=np.int64)] * len(positions)
    kinds = np.unique(shapely.get_type_id(some))
    together = len(positions) > 1 and bool(np.isin(kinds, (3, 6)).all()) and erode == 0
    if kinds.tolist() == [0]:
        rows, cols = grid.pixels_of(shapely.get_x(some), shapely.get_y(some))
        outside = (rows < 0) | (rows >= grid.height) | (cols < 0) | (cols >= grid.width)
        keys, counts = (rows * grid.width + cols)[~outside], (~outside).astype(np.int64)
    elif together:
        keys, counts = _filled(some, grid)
    else:
        for place, geometry in enumerate(some):
            pixels = feature_pixels(geometry, grid, erode)
            if pixels is None:
                outside[place] = True
                continue
            found[place] = pixels
            if erode and len(pixels) == 0:
                vanished[place] = len(_of(feature_pixels(geometry, grid))) > 0
        keys, counts = np.concatenate(found), np.array([len(part) for part in found], dtype=np.int64)
    if together:
        for place in np.flatnonzero(counts == 0).tolist():
            outside[place] = feature_pixels(some[place], grid) is None
    return PixelChunk(positions, outside, counts, keys), vanished


def _of(pixels: Optional[Keys]) -> Keys:
    return np.empty(0, dtype=np.int64) if pixels is None else pixels


def _filled(polygons: npt.NDArray[Any], grid: Grid) -> Tuple[Keys, npt.NDArray[np.int64]]:
    """Return the pixels of many polygons, one polygon and part of it after the other, and the number of each polygon.

    The crossings of a part with a row of centres, in ascending order, are the beginnings and ends of its runs.
    """
    parts, owner = shapely.get_parts(polygons, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    edge, row, reached = _crossings(rings, grid)
    line = part[edge] * grid.height + row
    order = np.lexsort((reached, line))
    begin, stop, line = reached[order][::2], reached[order][1::2], line[order][::2]
    some = stop > begin
    begin, stop, line = begin[some], stop[some], line[some]
    lengths = stop - begin
    part, row = np.divmod(line, grid.height)
    first = row * grid.width + begin
    # From one pixel to the next is one, but at the beginning of a run; summed in place, as there may be many millions.
    keys = np.ones(int(lengths.sum()), dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    keys[starts] = np.diff(first, prepend=0) - np.append(0, lengths[:-1] - 1)[: len(first)]
    np.cumsum(keys, out=keys)
    counts = np.bincount(owner[part], weights=lengths, minlength=len(polygons)).astype(np.int64)
    return keys, counts


def _crossings(
    rings: npt.NDArray[Any], window: Grid
) -> Tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where rings cross the rows of centres: ring, row, and how many centres of the row lie left of it.

    A centre on an edge belongs to the polygon on its right or above, as GEOS and GDAL leave open and as the reference
    (OGRLinearRing::isPointInRing) has it: a ray to the right crosses an edge that begins at or below it, ends above it,
    and lies truly right of it; the centre is inside when it crosses an odd number.
    """
    coordinates, ring = shapely.get_coordinates(rings, return_index=True)
    x, y = coordinates[:, 0], coordinates[:, 1]
    cols, rows = np.arange(window.width), np.arange(window.height)
    if window.transform.b == window.transform.d == 0 and window.transform.a > 0 > window.transform.e:
        xs, ys = window.centres_of(0 * cols, cols)[0], window.centres_of(rows, 0 * rows)[1]
    else:
        x, y = window.index_of(x, y)
        y, xs, ys = -y, cols + 0.5, -(rows + 0.5)
    edges = np.flatnonzero(ring[1:] == ring[:-1])
    low, high = np.minimum(y[edges], y[edges + 1]), np.maximum(y[edges], y[edges + 1])
    first, stop = np.searchsorted(-ys, -high, side="right"), np.searchsorted(-ys, -low, side="right")
    lengths = np.maximum(stop - first, 0)
    edge = np.repeat(edges, lengths)
    row = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths - first, lengths)
    below, above = y[edge] - ys[row], y[edge + 1] - ys[row]
    crossing = (x[edge + 1] * below - x[edge] * above) / (below - above)
    # Only of the nearest centre can rounding leave open on which side it lies: there the reference's own formula tells.
    scale = (len(xs) - 1) / (xs[-1] - xs[0]) if len(xs) > 1 else 0.0
    near = np.clip(np.rint((crossing - xs[0]) * scale), 0, len(xs) - 1).astype(np.int64)
    right = ((x[edge + 1] - xs[near]) * below - (x[edge] - xs[near]) * above) / (below - above) > 0
    return ring[edge], row, near + right


# --- one feature -----------------------------------------------------------------------------------------------------


def feature_pixels(geometry: Any, grid: Grid, erode: int = 0) -> Optional[Keys]:
    """Return the pixels of a feature as ``row * width + col``, or None when it lies outside the grid.

    Polygons give the pixels whose centre is inside, lines those that are crossed, points the one that holds them. With
    ``erode``, a pixel of polygons remains where all pixels within ``max(|dx|, |dy|) <= erode`` are theirs, too. Pixels
    ascend inside each part; one that several parts share is the first one's.
    """
    parts = _parts_of(geometry)
    dimensions = shapely.get_dimensions(parts)
    window = _window_of(parts, grid)
    if window is None:
        return None
    found = []
    # Parts of one kind that follow each other are taken together.
    for some in np.split(parts, np.flatnonzero(np.diff(dimensions)) + 1):
        found += _pixels_of_parts(some, grid, window)
    if not found:
        return None
    pixels = np.concatenate(found) if len(found) > 1 else found[0]
    if len(parts) > 1 and geometry.geom_type != "MultiPolygon":
        # The parts of a valid multipolygon share no pixel.
        _, first = np.unique(pixels, return_index=True)
        pixels = pixels[np.sort(first)]
    if len(pixels) == 0 and not shapely.intersects(geometry, _outline(grid)):
        return None
    polygons = parts[dimensions == 2]
    if erode == 0 or len(polygons) == 0:
        return pixels
    return _eroded_pixels(polygons, grid, erode) if len(parts) == 1 else _without_edge(pixels, polygons, grid, erode)


def _parts_of(geometry: Any) -> npt.NDArray[Any]:
    """Return the points, lines and polygons of a geometry that lie somewhere, in their order.

    Collections may hold further ones.
    """
    parts = shapely.get_parts(geometry)
    while (shapely.get_type_id(parts) > 3).any():
        parts = shapely.get_parts(parts)
    return parts[np.isfinite(shapely.bounds(parts)).all(axis=1)]


def _pixels_of_parts(parts: npt.NDArray[Any], grid: Grid, window: Window) -> List[Keys]:
    """Return the pixels of parts of one kind, part by part; an empty list when all of them lie outside the grid.

    Args:
        parts: points, lines or polygons.
        grid: the pixels.
        window: of the whole feature: the reference asks no other pixels whether a line meets them.
    """
    dimension = shapely.get_dimensions(parts[0])
    if dimension == 0:
        rows, cols = grid.pixels_of(shapely.get_x(parts), shapely.get_y(parts))
        inside = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
        return [rows[inside] * grid.width + cols[inside]] if inside.any() else []
    if dimension == 1:
        crossed = [_crossed_pixels(part, grid, window) for part in parts]
        return [keys for keys in crossed if keys is not None]
    return [] if _window_of(parts, grid) is None else [_filled(parts, grid)[0]]


def _without_edge(pixels: Keys, polygons: npt.NDArray[Any], grid: Grid, erode: int) -> Keys:
    """Return the pixels without those that erosion takes from polygons; what lines and points give besides stays."""
    if len(polygons) > 1 and not shapely.is_valid(shapely.multipolygons(polygons)):
        polygons = shapely.get_parts(shapely.union_all(polygons))
    covered, kept = _eroded_pixels(polygons, grid, 0), _eroded_pixels(polygons, grid, erode)
    return pixels[~np.isin(pixels, np.setdiff1d(covered, kept, assume_unique=True))]


def _outline(grid: Grid) -> Any:
    corners = grid.corners_of(np.array([0, 0, grid.height, grid.height]), np.array([0, grid.width, grid.width, 0]))
    return shapely.Polygon(np.stack(corners, axis=-1))


def _window_of(parts: npt.NDArray[Any], grid: Grid) -> Optional[Window]:
    """Return the window of geometries, the pixels that hold their bounds; None when it lies outside the grid."""
    xmin, ymin, xmax, ymax = shapely.total_bounds(parts)
    if not np.isfinite([xmin, ymin, xmax, ymax]).all():
        return None
    cols, rows = grid.index_of(np.array([xmin, xmin, xmax, xmax]), np.array([ymin, ymax, ymin, ymax]))
    top, left = max(0, math.floor(rows.min())), max(0, math.floor(cols.min()))
    bottom, right = min(grid.height, math.floor(rows.max()) + 1), min(grid.width, math.floor(cols.max()) + 1)
    return None if bottom <= top or right <= left else (top, left, bottom, right)


def _strips(window: Window) -> Iterator[Tuple[int, int, int, int]]:
    """Yield (row, col, height, width) of parts of a window, which bound the memory."""
    top, left, bottom, right = window
    deep = max(1, _STRIP_PIXELS // (right - left))
    for row in range(top, bottom, deep):
        yield row, left, min(deep, bottom - row), right - left


def _places(hit: npt.NDArray[np.bool_], row: int, left: int, grid: Grid) -> Keys:
    """Return the pixels of a part of the grid that are True."""
    inside = np.flatnonzero(hit)
    wide = hit.shape[1]
    return ((row + inside // wide) * grid.width + left + inside % wide).astype(np.int64)


def _crossed_pixels(line: Any, grid: Grid, window: Window) -> Optional[Keys]:
    """Return the pixels of a window that a line crosses, ascending; None when its bounds lie outside the grid."""
    own = _window_of(np.array([line]), grid)
    if own is None:
        return None
    # A line on the edge of a pixel meets the next one, too.
    top, left = max(window[0], own[0] - 1), max(window[1], own[1] - 1)
    bottom, right = min(window[2], own[2] + 1), min(window[3], own[3] + 1)
    strips = _strips((top, left, bottom, right))
    return np.concatenate([_places(_crossed(line, grid.crop(*strip)), strip[0], strip[1], grid) for strip in strips])


def _eroded_pixels(polygons: npt.NDArray[Any], grid: Grid, erode: int) -> Keys:
    """Return the pixels inside polygons that do not overlap, without those near their edge, ascending."""
    window = _window_of(polygons, grid)
    found = [np.empty(0, dtype=np.int64)]
    for row, left, high, wide in _strips(window) if window else ():
        # Around the window as well, also beyond the raster: its edge is none of the polygon's.
        around = grid.crop(row - erode, left - erode, high + 2 * erode, wide + 2 * erode)
        found.append(_places(_eroded(_within(polygons, around), erode), row, left, grid))
    return np.concatenate(found)


def _eroded(inside: npt.NDArray[np.bool_], erode: int) -> npt.NDArray[np.bool_]:
    """Return which pixels have nothing but True within so many pixels; without the outer ``erode`` rows and columns."""
    if erode == 0:
        return inside
    least = inside.view(np.uint8)
    for axis in (0, 1):
        least = scipy.ndimage.minimum_filter1d(least, 2 * erode + 1, axis=axis, mode="constant")
    kept: npt.NDArray[np.bool_] = least[erode:-erode, erode:-erode].astype(bool)
    return kept


def _within(polygons: npt.NDArray[Any], window: Grid) -> npt.NDArray[np.bool_]:
    """Return whose centres lie inside polygons, ``(H, W)``; polygons do not overlap."""
    _, row, reached = _crossings(shapely.get_rings(polygons), window)
    across = window.width + 1
    counts = np.bincount(row * across + reached, minlength=window.height * across).reshape(window.height, across)
    odd: npt.NDArray[np.bool_] = (counts.sum(axis=1, keepdims=True) - np.cumsum(counts, axis=1))[:, :-1] % 2 == 1
    return odd


def _crossed(line: Any, window: Grid) -> npt.NDArray[np.bool_]:
    """Return which pixels a line crosses, ``(H, W)``, as the reference tells it: the closed square of the pixel does.

    GDAL's own answer leaves out pixels that are met at an edge or corner only; so its neighbours are asked too.
    """
    met = np.zeros((window.height, window.width), dtype=bool)
    burnt = rasterio.features.rasterize(
        [line], out_shape=met.shape, transform=window.transform, all_touched=True, dtype="uint8"
    )
    rows, cols = np.nonzero(scipy.ndimage.binary_dilation(burnt, structure=np.ones((3, 3), dtype=bool)))
    corners = [window.corners_of(rows + down, cols + across) for down, across in ((0, 0), (0, 1), (1, 1), (1, 0))]
    squares = shapely.polygons(np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1))
    shapely.prepare(line)
    met[rows, cols] = shapely.intersects(line, squares)
    return met
