"""Selecting sample points: from a label raster, and from polygons, lines or points on a raster's grid.

Follows OTB's LabelImageSampleSelection, PolygonClassStatistics and SampleSelection (Orfeo ToolBox 8 and OTBTF), whose
periodic sampler is kept as it is; the default samplers reach every part of a class.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio.features
import scipy.ndimage
import shapely

from ..tasks.classtable import resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import RasterSource, SamplesResult, SelectSamples, SelectVectorSamples
from .classes import FeatureClasses, check_keep_list, class_texts, feature_classes
from .crosswalks import Crosswalk, read_crosswalk
from .rasters import Array, Grid, RasterReader
from .rates import Rate, class_rates, read_required, write_rates
from .selection import ClassPlan, Ordinals, draw, periodic_by_rate, plan_raster
from .vectors import CHUNK_FEATURES, Layer, LayerWriter, crs_name, on_grid, read_layer, vector_path, write_layer

# Pixels read at once in full-width strips, so that the order is that of the raster and the memory stays flat.
_STRIP_PIXELS = 4_000_000
# More different values than this are a measurement, not classes.
_MOST_CLASSES = 65_536
# Fields of the input that are replaced in the output, whatever their case.
_OWN_FIELDS = ("class_id", "class_name", "originfid")


# --- from a label raster ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Strip:
    """Full-width rows of the sampled window, and how many pixels of each class they hold."""

    row: int
    height: int
    counts: Dict[int, int]


def select_samples(job: SelectSamples, context: Context) -> SamplesResult:
    """Select points at pixel centres of a label raster, in raster order.

    Raises:
        BadInput: no labelled pixel, a label that is no whole number, CLASSES or PAD leave nothing, or a file cannot be
            read or written.
        DiskFull: no room left.
    """
    vector_path(job.output)
    crosswalk = read_crosswalk(job.crosswalk)
    with RasterReader(replace(job.source, bands=(job.band,), stack=())) as reader:
        window = _sampled_window(job, reader)
        strips = count_strips(reader, window, context)
        if crosswalk:
            crosswalk.check({str(value) for strip in strips for value in strip.counts}, reader.name, context)
            strips = [replace(strip, counts=crosswalk.of_counts(strip.counts)) for strip in strips]
        counts = _wanted_counts(job, strips, reader, context)
        table = (crosswalk.table if crosswalk else resolve)(counts, job.legend)
        names = {entry.value: entry.name for entry in table}
        plans = plan_raster(counts, job.strategy, job.count, job.sampler, job.seed, context)
        for value, plan in plans.items():
            context.log(
                f"Class {value} ({names[value]}): {plan.available} pixels, {plan.wanted} samples, step {plan.step}."
            )
        if len(plans) == 1:
            context.warn(f"'{reader.name}' has one class only ({next(iter(plans))}); a classifier needs two or more.")
        total = sum(plan.wanted for plan in plans.values())
        with LayerWriter(job.output, "Point", reader.grid.crs) as writer:
            done = 0
            for rows, cols, values in _in_chunks(kept_pixels(reader, window, strips, plans, context, crosswalk)):
                writer.write(points_at(reader.grid, rows, cols), _raster_fields(values, plans, names))
                done += len(rows)
                context.progress(done, total, "Writing samples", "points")
    kept = {str(value): plan.wanted for value, plan in plans.items() if plan.wanted}
    classes = tuple(entry for entry in table if str(entry.value) in kept)
    return SamplesResult(writer.path, total, kept, classes, warnings=tuple(context.warnings))


def _sampled_window(job: SelectSamples, reader: RasterReader) -> Tuple[int, int, int, int]:
    """Return the window of EXTENT without the PAD pixels along the raster's four sides."""
    grid, pad = reader.grid, job.pad
    row, col, height, width = grid.window_of(job.extent) if job.extent else (0, 0, grid.height, grid.width)
    top, left = max(row, pad), max(col, pad)
    bottom, right = min(row + height, grid.height - pad), min(col + width, grid.width - pad)
    if bottom <= top or right <= left:
        raise BadInput(
            f"PAD {pad} leaves nothing of '{reader.name}' ({grid.width} x {grid.height}).",
            "Choose a smaller PAD or a larger EXTENT.",
        )
    return top, left, bottom - top, right - left


def count_strips(reader: RasterReader, window: Tuple[int, int, int, int], context: Context) -> List[Strip]:
    """Return the first pass: the strips of the window (row, col, height, width) with their pixels per class.

    Raises:
        BadInput: a label is no whole number, or there are too many different ones.
    """
    row, col, height, width = window
    rows = max(1, _STRIP_PIXELS // width)
    if reader.block_height < rows:
        rows -= rows % reader.block_height
    strips: List[Strip] = []
    found: set[int] = set()
    for top in range(row, row + height, rows):
        context.check()
        deep = min(rows, row + height - top)
        raw, valid = reader.read(top, col, deep, width)
        strips.append(Strip(top, deep, _count(_whole(raw[0][valid[0]], reader.name))))
        found |= strips[-1].counts.keys()
        if len(found) > _MOST_CLASSES:
            raise BadInput(
                f"'{reader.name}' holds more than {_MOST_CLASSES} different values: it is no label raster.",
                "Choose a raster of classes.",
            )
        context.progress(top + deep - row, height, "Counting classes", "rows")
    return strips


def _whole(values: Array, name: str) -> Array:
    """Return labels as integers.

    Raises:
        BadInput: a label is no whole number; names it.
    """
    if values.dtype.kind in "iu":
        return values
    wrong = values[values != np.floor(values)]
    if len(wrong):
        raise BadInput(
            f"'{name}' holds the value {wrong[0]:g}, which is no class.", "Choose a raster of whole numbers."
        )
    return values.astype(np.int64)


def _count(values: Array) -> Dict[int, int]:
    if values.dtype.itemsize <= 2:
        lowest = int(np.iinfo(values.dtype).min)
        counts = np.bincount(values.astype(np.int64) - lowest)
        present = np.flatnonzero(counts)
        return {int(value) + lowest: int(counts[value]) for value in present}
    present, number = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(present, number)}


def _wanted_counts(job: SelectSamples, strips: List[Strip], reader: RasterReader, context: Context) -> Dict[int, int]:
    """Return class id -> available pixels, ascending, of the classes to sample."""
    counts: Dict[int, int] = {}
    for strip in strips:
        for value, count in strip.counts.items():
            counts[value] = counts.get(value, 0) + count
    if not counts:
        where = "the chosen part of " if job.extent or job.pad else ""
        raise BadInput(
            f"There is no labelled pixel in {where}'{reader.name}': all are no-data.",
            "Choose another raster, BAND, EXTENT or NODATA.",
        )
    check_keep_list(set(counts), job.classes, reader.name, context)
    return {value: counts[value] for value in sorted(counts) if not job.classes or value in job.classes}


def kept_pixels(
    reader: RasterReader, window: Tuple[int, int, int, int], strips: List[Strip], plans: Dict[int, ClassPlan],
    context: Context, crosswalk: Optional[Crosswalk] = None,
) -> Iterator[Tuple[Array, Array, Array]]:  # fmt: skip
    """Yield rows, columns and labels of the kept pixels strip by strip, in raster order (the second pass)."""
    seen = dict.fromkeys(plans, 0)
    for strip in strips:
        context.check()
        wanted: Dict[int, Ordinals] = {}
        for value in strip.counts.keys() & plans.keys():
            chosen = plans[value].between(seen[value], seen[value] + strip.counts[value]) - seen[value]
            seen[value] += strip.counts[value]
            if len(chosen):
                wanted[value] = chosen
        if not wanted:
            continue
        raw, valid = reader.read(strip.row, window[1], strip.height, window[3])
        classes, inside = crosswalk.of_labels(raw[0], valid[0]) if crosswalk else (raw[0], valid[0])
        places, labels = _places(classes.reshape(-1), inside.reshape(-1), wanted)
        yield strip.row + places // window[3], window[1] + places % window[3], labels


def _places(labels: Array, valid: Array, wanted: Dict[int, Ordinals]) -> Tuple[Array, Array]:
    """Return the flat places of the wanted ordinals of each class, ascending, and their labels."""
    if len(wanted) <= 32:
        found = [np.flatnonzero((labels == value) & valid)[chosen] for value, chosen in wanted.items()]
    else:
        # With many classes one stable sort is cheaper than a comparison per class.
        inside = np.flatnonzero(valid)
        order = np.argsort(labels[inside], kind="stable")
        ordered = labels[inside][order]
        found = [inside[order[np.searchsorted(ordered, value) + chosen]] for value, chosen in wanted.items()]
    places = np.concatenate(found)
    values = np.repeat(np.array(list(wanted), dtype=np.int64), [len(part) for part in found])
    order = np.argsort(places, kind="stable")
    return places[order], values[order]


def _in_chunks(pieces: Iterator[Tuple[Array, Array, Array]]) -> Iterator[Tuple[Array, Array, Array]]:
    """Regroup pieces into chunks that are worth an append each."""
    held: List[Tuple[Array, Array, Array]] = []
    for piece in pieces:
        for start in range(0, len(piece[0]), CHUNK_FEATURES):
            held.append(tuple(part[start : start + CHUNK_FEATURES] for part in piece))  # type: ignore[arg-type]
            if sum(len(part[0]) for part in held) >= CHUNK_FEATURES:
                yield _joined(held)
                held = []
    if held:
        yield _joined(held)


def _joined(pieces: List[Tuple[Array, Array, Array]]) -> Tuple[Array, Array, Array]:
    rows, cols, values = (np.concatenate(parts) for parts in zip(*pieces))
    return rows, cols, values


def points_at(grid: Grid, rows: Array, cols: Array) -> npt.NDArray[Any]:
    """Return points at pixel centres."""
    return np.asarray(shapely.points(*grid.centres_of(rows, cols)))


def _raster_fields(values: Array, plans: Dict[int, ClassPlan], names: Dict[int, str]) -> Dict[str, Array]:
    present, inverse = np.unique(values, return_inverse=True)
    weights = np.array([plans[int(value)].available / plans[int(value)].wanted for value in present])
    texts = np.array([names[int(value)] for value in present], dtype=object)
    return {"class_id": values, "class_name": texts[inverse], "weight": weights[inverse]}


# --- from vectors ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FeaturePixels:
    """The pixels of all features in the order of traversal; arrays ``(N,)``.

    Attributes:
        keys: ``row * width + col``.
        features: position of the feature in the layer.
        class_ids: class of the feature.
    """

    keys: npt.NDArray[np.int64]
    features: npt.NDArray[np.int64]
    class_ids: npt.NDArray[np.int64]


def select_vector_samples(job: SelectVectorSamples, context: Context) -> SamplesResult:
    """Select pixel centres inside polygons, on lines and at points, ordered by class.

    A pixel that two features of one class share counts once, for the first; one that two classes claim is ignored.

    Raises:
        BadInput: the layer is empty or has no such field, no pixel is covered, the mask lies on another grid, or a file
            cannot be read or written.
        DiskFull: no room left.
    """
    vector_path(job.output)
    with RasterReader(job.raster) as reader:
        given = read_layer(job.vector, context)
        layer = on_grid(given, reader.grid, reader.name, context)
        classes = feature_classes(layer, job.field, context, job.legend, job.classes, read_crosswalk(job.crosswalk))
        pixels = _pixels_of_features(job, layer, classes, reader.grid, context)
        if len(pixels.keys) == 0:
            raise nothing_labelled(given, reader, masked=job.mask is not None)
        pixels = _without_doubles(pixels, context)
        rates = _rates(job, pixels, classes, class_texts(layer, job.field, classes), context)
        chosen, counts = _choose(job, pixels, classes, rates, context)
        rates_path = write_rates(job.rates, {text: each for text, each in rates.values()}) if job.rates else ""
        frame = _samples_frame(layer, classes, pixels, chosen, reader.grid)
        path = write_layer(frame, job.output, "Point", reader.grid.crs, context)
    table = tuple(entry for entry in classes.classes if str(entry.value) in counts)
    return SamplesResult(path, len(chosen), counts, table, tuple(context.warnings), rates_path)


def nothing_labelled(given: Layer, reader: RasterReader, masked: bool) -> BadInput:
    """Return the sentence for features that label no pixel, with both extents."""
    grid = reader.grid
    raster = ", ".join(f"{value:.9g}" for value in _outline(grid).bounds)
    vector = ", ".join(f"{value:.9g}" for value in given.frame.total_bounds)
    mask = " and the mask" if masked else ""
    return BadInput(
        f"No feature of '{given.name}' (extent {vector}, {crs_name(given.frame.crs)}) labels a pixel of "
        f"'{reader.name}' (extent {raster}, {crs_name(grid.crs)}).",
        f"Check that both cover the same place{mask}, that the CRS of each is right, and that features reach a pixel "
        "centre.",
    )


def _pixels_of_features(
    job: SelectVectorSamples, layer: Layer, classes: FeatureClasses, grid: Grid, context: Context
) -> _FeaturePixels:
    keys: Dict[int, npt.NDArray[np.int64]] = {}
    for position, found in pixels_by_feature(layer, classes, grid, job.mask, context):
        if found is not None:
            keys[position] = found
    features = np.repeat(np.array(list(keys), dtype=np.int64), [len(part) for part in keys.values()])
    joined = np.concatenate(list(keys.values())) if keys else np.empty(0, dtype=np.int64)
    return _FeaturePixels(joined, features, classes.ids[features])


def pixels_by_feature(
    layer: Layer, classes: FeatureClasses, grid: Grid, mask: Optional[RasterSource], context: Context
) -> Iterator[Tuple[int, Optional[npt.NDArray[np.int64]]]]:
    """Yield the position of every feature that has a class, in the layer's order, and its pixels (`feature_pixels`).

    Pixels where the mask is not above 0 are left out. Features outside the raster (None), and those that hold no pixel
    centre, are told in warnings at the end.

    Raises:
        BadInput: the mask cannot be read, or lies on another grid.
    """
    geometries = np.asarray(layer.frame.geometry.values, dtype=object)
    chosen = np.flatnonzero(classes.known)
    outside, missed = 0, []
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(_open_mask(mask, grid)) if mask else None
        for done, position in enumerate(chosen):
            context.check()
            found = feature_pixels(geometries[position], grid)
            if found is None:
                outside += 1
            elif len(found) == 0:
                missed.append(str(layer.frame.index[position]))
            yield int(position), None if found is None else _where_valid(found, reader, grid)
            context.progress(done + 1, len(chosen), "Finding pixels", "features")
    if outside:
        context.warn(f"{outside} of {len(chosen)} features of '{layer.name}' lie outside the raster.")
    if missed:
        more = f" and {len(missed) - 10} more" if len(missed) > 10 else ""
        context.warn(
            f"{len(missed)} features of '{layer.name}' hold no pixel centre and give no sample: id "
            f"{', '.join(missed[:10])}{more}."
        )


def _open_mask(source: RasterSource, grid: Grid) -> RasterReader:
    mask = RasterReader(replace(source, bands=source.bands or (1,)))
    if mask.grid.same_as(grid):
        return mask
    mask.close()
    raise BadInput(
        f"The mask '{mask.name}' ({mask.grid.width} x {mask.grid.height}) does not lie on the grid of the raster "
        f"({grid.width} x {grid.height}).",
        "Give a mask of the same grid.",
    )


def feature_pixels(geometry: Any, grid: Grid) -> Optional[npt.NDArray[np.int64]]:
    """Return the pixels of a feature as ascending ``row * width + col``, or None when it lies outside the grid.

    Polygons give the pixels whose centre is inside, lines those that are crossed, points the one that holds them.
    """
    parts = shapely.get_parts(geometry)
    dimensions = shapely.get_dimensions(parts)
    if geometry.geom_type == "GeometryCollection" and np.count_nonzero(dimensions == 2) > 1:
        # Only there may valid polygons overlap.
        parts = np.append(parts[dimensions != 2], shapely.get_parts(shapely.union_all(parts[dimensions == 2])))
        dimensions = shapely.get_dimensions(parts)
    found = []
    for dimension in np.unique(dimensions):
        some = parts[dimensions == dimension]
        if dimension == 0:
            rows, cols = grid.pixels_of(shapely.get_x(some), shapely.get_y(some))
            inside = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
            if inside.any():
                found.append(np.unique(rows[inside] * grid.width + cols[inside]))
        else:
            burnt = _burnt_pixels(some, grid, lines=bool(dimension == 1))
            if burnt is not None:
                found.append(burnt)
    # Each kind of part comes in ascending order; sorting millions of pixels again takes longer than burning them.
    pixels = np.unique(np.concatenate(found)) if len(found) > 1 else found[0] if found else None
    if pixels is not None and len(pixels) == 0 and not shapely.intersects(geometry, _outline(grid)):
        return None
    return pixels


def _outline(grid: Grid) -> Any:
    corners = grid.corners_of(np.array([0, 0, grid.height, grid.height]), np.array([0, grid.width, grid.width, 0]))
    return shapely.Polygon(np.stack(corners, axis=-1))


def _burnt_pixels(parts: npt.NDArray[Any], grid: Grid, lines: bool) -> Optional[npt.NDArray[np.int64]]:
    """Rasterise polygons or lines on their own window, in strips that bound the memory."""
    xmin, ymin, xmax, ymax = shapely.total_bounds(parts)
    if not np.isfinite([xmin, ymin, xmax, ymax]).all():
        return None
    cols, rows = grid.index_of(np.array([xmin, xmin, xmax, xmax]), np.array([ymin, ymax, ymin, ymax]))
    top, left = max(0, math.floor(rows.min())), max(0, math.floor(cols.min()))
    bottom, right = min(grid.height, math.floor(rows.max()) + 1), min(grid.width, math.floor(cols.max()) + 1)
    if bottom <= top or right <= left:
        return None
    deep = max(1, _STRIP_PIXELS // (right - left))
    found = []
    for row in range(top, bottom, deep):
        window = grid.crop(row, left, min(deep, bottom - row), right - left)
        inside = np.flatnonzero(_crossed(parts, window) if lines else _within(parts, window))
        found.append((row + inside // window.width) * grid.width + left + inside % window.width)
    return np.concatenate(found).astype(np.int64)


def _within(polygons: npt.NDArray[Any], window: Grid) -> npt.NDArray[np.bool_]:
    """Return whose centres lie inside polygons, ``(H, W)``; polygons do not overlap.

    A centre on an edge belongs to the polygon on its right or above, as GEOS and GDAL leave open and as the reference
    (OGRLinearRing::isPointInRing) has it: a ray to the right crosses an edge that begins at or below it, ends above it,
    and lies truly right of it; the centre is inside when it crosses an odd number.
    """
    coordinates, ring = shapely.get_coordinates(shapely.get_rings(polygons), return_index=True)
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
    reached = near + right
    counts = np.bincount(row * (len(xs) + 1) + reached, minlength=len(ys) * (len(xs) + 1)).reshape(len(ys), -1)
    odd: npt.NDArray[np.bool_] = (counts.sum(axis=1, keepdims=True) - np.cumsum(counts, axis=1))[:, :-1] % 2 == 1
    return odd


def _crossed(lines: npt.NDArray[Any], window: Grid) -> npt.NDArray[np.bool_]:
    """Return which pixels lines cross, ``(H, W)``, as the reference tells it: the closed square of the pixel meets one.

    GDAL's own answer leaves out pixels that are met at an edge or corner only; so its neighbours are asked too.
    """
    met = np.zeros((window.height, window.width), dtype=bool)
    burnt = rasterio.features.rasterize(
        list(lines), out_shape=met.shape, transform=window.transform, all_touched=True, dtype="uint8"
    )
    rows, cols = np.nonzero(scipy.ndimage.binary_dilation(burnt, structure=np.ones((3, 3), dtype=bool)))
    corners = [window.corners_of(rows + down, cols + across) for down, across in ((0, 0), (0, 1), (1, 1), (1, 0))]
    squares = shapely.polygons(np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1))
    shapely.prepare(lines)
    for line in lines:
        met[rows, cols] |= shapely.intersects(line, squares)
    return met


def _where_valid(keys: npt.NDArray[np.int64], mask: Optional[RasterReader], grid: Grid) -> npt.NDArray[np.int64]:
    """Return the pixels whose mask is above 0."""
    if mask is None or len(keys) == 0:
        return keys
    rows, cols = np.divmod(keys, grid.width)
    left, width = int(cols.min()), int(cols.max() - cols.min()) + 1
    deep = max(1, _STRIP_PIXELS // width)
    kept = np.zeros(len(keys), dtype=bool)
    for row in range(int(rows.min()), int(rows.max()) + 1, deep):
        here = slice(*np.searchsorted(rows, [row, row + deep]))
        values, valid = mask.read(row, left, min(deep, grid.height - row), width)
        kept[here] = ((values[0] > 0) & valid[0])[rows[here] - row, cols[here] - left]
    return keys[kept]


def _without_doubles(pixels: _FeaturePixels, context: Context) -> _FeaturePixels:
    """Leave out pixels that two classes claim, and the repetitions of those that one class claims twice."""
    order = np.argsort(pixels.keys, kind="stable")
    keys, ids = pixels.keys[order], pixels.class_ids[order]
    starts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
    clear = np.minimum.reduceat(ids, starts) == np.maximum.reduceat(ids, starts)
    if not clear.all():
        context.warn(
            f"{np.count_nonzero(~clear)} pixels are claimed by features of two classes; they are ignored. Correct the "
            "overlapping features to use them."
        )
    kept = np.sort(order[starts[clear]])
    if len(kept) == 0:
        raise BadInput("Every labelled pixel is claimed by features of two classes.", "Check the class field.")
    return _FeaturePixels(pixels.keys[kept], pixels.features[kept], pixels.class_ids[kept])


def _rates(
    job: SelectVectorSamples, pixels: _FeaturePixels, classes: FeatureClasses, texts: Dict[int, str], context: Context
) -> Dict[int, Tuple[str, Rate]]:
    """Return class id -> the text of its field and its rate, of every class of the layer; ascending."""
    values, number = np.unique(pixels.class_ids, return_counts=True)
    available = {text: 0 for _, text in sorted(texts.items())}
    available.update({texts[int(value)]: int(count) for value, count in zip(values, number)})
    listed = _listed(job.rates_file, classes, texts, context) if job.rates_file and job.strategy == "byclass" else {}
    # The share is a 32-bit number in the reference, which tells where 0.7 of 375 is rounded to.
    rates = class_rates(job.strategy, available, job.count, float(np.float32(job.percent)), listed)
    if not any(each.taken for each in rates.values()):
        raise BadInput(
            f"STRATEGY {job.strategy} gives no sample of any class of '{Path(job.vector.path).name}'.",
            "Ask for more with COUNT, PERCENT or RATES_FILE.",
        )
    return {value: (text, rates[text]) for value, text in sorted(texts.items())}


def _listed(path: str, classes: FeatureClasses, texts: Dict[int, str], context: Context) -> Dict[str, int]:
    """Return the text of a class -> samples of a file of rates, which calls classes by text, name or number."""
    text_of = {str(value): text for value, text in texts.items()}
    text_of.update({name: texts[value] for value, name in classes.name_of().items()})
    text_of.update({text: text for text in texts.values()})
    listed = read_required(path)
    unknown = [name for name in listed if name not in text_of]
    if unknown:
        context.warn(f"'{Path(path).name}' lists {', '.join(unknown[:10])}, which is no class of the layer.")
    return {text_of[name]: count for name, count in listed.items() if name in text_of}


def _choose(
    job: SelectVectorSamples,
    pixels: _FeaturePixels,
    classes: FeatureClasses,
    rates: Dict[int, Tuple[str, Rate]],
    context: Context,
) -> Tuple[npt.NDArray[np.int64], Dict[str, int]]:
    """Return the places of the chosen pixels, ordered by class and then by traversal, and the number per class."""
    names = classes.name_of()
    chosen: Dict[str, npt.NDArray[np.int64]] = {}
    for value, (_, each) in rates.items():
        asked = job.count if job.strategy == "upto" else each.required
        if each.available == 0:
            context.warn(f"No pixel is left of class {value}.")
        elif each.taken == 0:
            context.warn(f"Class {value} ({names[value]}) gets no sample.")
        elif asked > each.available:
            context.warn(f"Class {value} has {each.available} pixels, fewer than the {asked} asked for: all are taken.")
        if each.taken:
            ordinals = _ordinals(job, each.available, each.taken, value)
            chosen[str(value)] = np.flatnonzero(pixels.class_ids == value)[ordinals]
            context.log(f"Class {value} ({names[value]}): {each.available} pixels, {len(ordinals)} samples.")
    if len(chosen) == 1:
        context.warn(f"The samples have one class only ({next(iter(chosen))}); a classifier needs two or more.")
    return np.concatenate(list(chosen.values())), {text: len(part) for text, part in chosen.items()}


def _ordinals(job: SelectVectorSamples, available: int, wanted: int, value: int) -> Ordinals:
    if wanted < available and job.sampler == "periodic":
        return periodic_by_rate(available, wanted)
    drawn = draw(available, wanted, job.seed, value) if job.sampler == "random" else None
    return ClassPlan(available, wanted, 1, "spread", drawn).between(0, available)


def _samples_frame(
    layer: Layer, classes: FeatureClasses, pixels: _FeaturePixels, chosen: npt.NDArray[np.int64], grid: Grid
) -> geopandas.GeoDataFrame:
    features = pixels.features[chosen]
    fields = [name for name in layer.fields if name.lower() not in _OWN_FIELDS]
    values: Dict[str, Any] = {name: layer.frame[name].iloc[features].reset_index(drop=True) for name in fields}
    names = classes.name_of()
    ids = pixels.class_ids[chosen]
    present, inverse = np.unique(ids, return_inverse=True)
    values["class_id"] = ids
    values["class_name"] = np.array([names[int(value)] for value in present], dtype=object)[inverse]
    values["originfid"] = layer.frame.index.to_numpy(dtype=np.int64)[features]
    rows, cols = np.divmod(pixels.keys[chosen], grid.width)
    return geopandas.GeoDataFrame(values, geometry=points_at(grid, rows, cols))
