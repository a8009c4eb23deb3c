"""Assessing a map against a reference raster, or reference points or polygons: one summed confusion matrix.

Rows are the reference, columns the map. Nothing is resampled but the reference, onto the map's grid (`denselabels`); a
pixel that the map leaves as no-data is left out, and counted. ERODE leaves out reference pixels with another class in a
disc of that radius, as the ISPRS benchmark scores on a reference with eroded boundaries.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import pandas
import scipy.ndimage
import shapely
from affine import Affine
from rasterio.crs import CRS

from ..tasks.classtable import ClassEntry, Legend, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import Assess, AssessResult, RasterSource
from . import reports
from .classes import FeatureClasses, feature_classes
from .crosswalks import Crosswalk, read_crosswalk
from .datasets import PatchDataset
from .denselabels import open_labels, way_between, whole_numbers
from .featurepixels import feature_pixels
from .legends import read_map_legend
from .metrics import metrics_dict, scores
from .rasters import Grid, RasterReader, reading
from .reports import Section
from .textfiles import write_text
from .vectors import Layer, crs_name, on_grid, read_layer

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

_TILE = 512
# Field of points that were drawn from polygons: the polygon's id.
ORIGIN = "originfid"
# Pixels of map and reference held at once.
_STRIP_PIXELS = 4_000_000


@dataclass(frozen=True)
class _Pixels:
    """Reference pixels in the map, ``(N,)`` each: row, column, reference class, and polygon (-1: of none)."""

    rows: Indices
    cols: Indices
    classes: Indices
    features: Indices


def assess(job: Assess, context: Context) -> AssessResult:
    """Compare a map with its reference.

    Raises:
        BadInput: an input cannot be used, map and reference do not overlap, or no labelled pixel is mapped.
        DiskFull: no room left.
    """
    crosswalk = read_crosswalk(job.crosswalk, map_legend=True)
    with reading(_one_band(job.map)) as mapped:
        own = read_map_legend(job.map.path)
        layer_values = {entry.value for entry in job.legend.layer_classes}
        further = tuple(entry for entry in own if entry.value not in layer_values)
        legend = replace(job.legend, layer_classes=job.legend.layer_classes + further)
        field = _training_field(job.training, mapped.grid, context) if job.training else None
        tally = _Tally(mapped, field)
        if job.reference is not None:
            names = _compare_raster(job, job.reference, tally, context)
            table = (crosswalk.table if crosswalk else resolve)(tally.values(), legend)
        else:
            names, classes = _compare_samples(job, legend, crosswalk, tally, context)
            known = {entry.value: entry for entry in classes.classes}
            table = tuple(known.get(entry.value, entry) for entry in resolve(tally.values(), legend))
        return _result(job, table, tally, names, [entry.value for entry in legend.layer_classes], context)


def _one_band(source: RasterSource) -> RasterSource:
    return replace(source, bands=source.bands[:1] or (1,), stack=())


# --- counting --------------------------------------------------------------------------------------------------------


class _Tally:
    """Counts pairs of reference and map class, and what was left out.

    Attributes:
        pairs: (reference, map) -> pixels.
        by_feature: polygon -> (reference, map) -> pixels.
        unmapped: reference pixels on which the map is no-data.
        shared: reference pixels in the field of training patches.
        knows_training: whether it is known where these lie.
        eroded: reference pixels near another class (ERODE).
    """

    def __init__(self, mapped: RasterReader, field: Optional[_TrainingField]) -> None:
        self.mapped = mapped
        self.pairs: Counter[Tuple[int, int]] = Counter()
        self.by_feature: Dict[int, Counter[Tuple[int, int]]] = {}
        self.unmapped = 0
        self.shared = 0
        self.eroded = 0
        self.knows_training = field is not None
        self._field = field

    def add(self, pixels: _Pixels, values: Array, valid: Array) -> None:
        """Count pixels whose map values (and validity) are given, ``(N,)``."""
        self.unmapped += int(np.count_nonzero(~valid))
        kept = valid
        reference, found = pixels.classes[kept], whole_numbers(values[kept], self.mapped.name)
        if self._field is not None:
            self.shared += int(np.count_nonzero(self._field.holds(pixels.rows[kept], pixels.cols[kept])))
        for feature, own, other, count in _combinations(pixels.features[kept], reference, found):
            self.pairs[(own, other)] += count
            if feature >= 0:
                self.by_feature.setdefault(feature, Counter())[(own, other)] += count

    def values(self) -> List[int]:
        """Return the classes that occur in the reference or in the map."""
        return sorted({value for pair in self.pairs for value in pair})

    def matrix(self, values: Sequence[int]) -> Indices:
        """Return the confusion matrix ``(K, K)``."""
        position = {value: index for index, value in enumerate(values)}
        matrix = np.zeros((len(values), len(values)), np.int64)
        for (reference, found), count in self.pairs.items():
            matrix[position[reference], position[found]] += count
        return matrix


def _combinations(*arrays: Indices) -> Iterator[Tuple[int, ...]]:
    """Yield the distinct combinations of values in arrays ``(N,)``, each followed by how often it occurs."""
    tables = [np.unique(array, return_inverse=True) for array in arrays]
    codes = np.zeros(len(arrays[0]), np.int64)
    for values, positions in tables:
        codes = codes * len(values) + positions
    for code, count in zip(*(part.tolist() for part in np.unique(codes, return_counts=True))):
        combination = []
        for values, _ in reversed(tables):
            code, position = divmod(code, len(values))
            combination.append(int(values[position]))
        yield (*reversed(combination), count)


def _compare_raster(job: Assess, source: RasterSource, tally: _Tally, context: Context) -> str:
    """Count a reference raster; return its name."""
    grid, margin = tally.mapped.grid, job.erode
    with open_labels(
        source, None, "", grid, tally.mapped.name, context, crosswalk=job.crosswalk, map_legend=True
    ) as reference:
        done = 0
        for top in range(0, grid.height, _TILE):
            for left in range(0, grid.width, _TILE):
                context.check()
                height, width = min(_TILE, grid.height - top), min(_TILE, grid.width - left)
                around, known = reference.read(top - margin, left - margin, height + 2 * margin, width + 2 * margin)
                inner = slice(margin, margin + height), slice(margin, margin + width)
                labels, labelled = around[inner], known[inner]
                done += height * width
                context.progress(done, grid.height * grid.width, "Comparing", "pixels")
                if not labelled.any():
                    continue
                if margin:
                    near = near_another_class(around, known, margin)[inner]
                    tally.eroded += int(np.count_nonzero(near))
                    labelled = labelled & ~near
                values, valid = tally.mapped.read(top, left, height, width)
                rows, cols = np.nonzero(labelled)
                pixels = _Pixels(rows + top, cols + left, labels[labelled], np.full(len(rows), -1))
                tally.add(pixels, values[0][labelled], valid[0][labelled])
        if not tally.pairs:
            raise _nothing(reference.name, tally)
        reference.finish(context)
        return reference.name


def near_another_class(labels: Array, known: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """Return which labelled pixels have a pixel of another class at most ``radius`` pixels away (a disc), ``(H, W)``.

    Pixels without a label are of no class.
    """
    present, codes = np.unique(labels[known], return_inverse=True)
    near = np.zeros(labels.shape, bool)
    if len(present) < 2:
        return near
    # Places in the list of classes: the filters compute in float64, which does not hold every class id.
    places = np.zeros(labels.shape, np.int32)
    places[known] = codes
    for furthest, nothing in ((scipy.ndimage.maximum_filter1d, -1), (scipy.ndimage.minimum_filter1d, len(present))):
        padded = np.pad(np.where(known, places, nothing), ((radius, radius), (0, 0)), constant_values=nothing)
        for down in range(-radius, radius + 1):
            across = math.isqrt(radius * radius - down * down)
            # A disc is a pile of rows, of each of which the filter takes linear time whatever its length.
            rows = padded[radius + down : radius + down + len(labels)]
            found = furthest(rows, 2 * across + 1, axis=1, mode="constant", cval=nothing)
            near |= (found != nothing) & (found != places)
    return near & known


def _compare_samples(
    job: Assess, legend: Legend, crosswalk: Optional[Crosswalk], tally: _Tally, context: Context
) -> Tuple[str, FeatureClasses]:
    """Count reference points or polygons; return the layer's name and its classes."""
    if job.samples is None:
        raise ValueError("a job without a reference raster has reference samples")
    grid = tally.mapped.grid
    given = read_layer(job.samples, context)
    layer = on_grid(given, grid, tally.mapped.name, context)
    if not legend.path and legend.nomenclature == "none" and not legend.layer_classes:
        _refuse_names(layer, job.field, tally.mapped.name, crosswalk)
    classes = feature_classes(layer, job.field, context, legend, crosswalk=crosswalk)
    if job.erode:
        _refuse_points(layer, classes)
    pixels = _pixels_of_layer(layer, classes, grid, context)
    if len(pixels.rows) == 0:
        raise BadInput(
            f"No feature of '{layer.name}' ({crs_name(given.frame.crs)}) lies on the map '{tally.mapped.name}' "
            f"({crs_name(grid.crs)}).",
            "Check that both cover the same place and that the CRS of each is right.",
        )
    left, width = int(pixels.cols.min()), int(pixels.cols.max() - pixels.cols.min()) + 1
    deep = max(1, _STRIP_PIXELS // width)
    for top in range(int(pixels.rows.min()), int(pixels.rows.max()) + 1, deep):
        context.check()
        start, stop = np.searchsorted(pixels.rows, [top, top + deep])
        if start == stop:
            continue
        part = _Pixels(*(array[start:stop] for array in vars(pixels).values()))
        if job.erode:
            near = _near_in_strip(pixels, (top, left, deep, width), job.erode)
            tally.eroded += int(np.count_nonzero(near))
            part = _Pixels(*(array[~near] for array in vars(part).values()))
        values, valid = tally.mapped.read(top, left, min(deep, grid.height - top), width)
        place = part.rows - top, part.cols - left
        tally.add(part, values[0][place], valid[0][place])
        context.progress(int(stop), len(pixels.rows), "Comparing", "pixels")
    if not tally.pairs:
        raise _nothing(layer.name, tally)
    return layer.name, classes


def _near_in_strip(pixels: _Pixels, window: Tuple[int, int, int, int], radius: int) -> npt.NDArray[np.bool_]:
    """Return which pixels in a strip (row, col, height, width) of whole rows lie near another class, ``(N,)``."""
    top, left, deep, width = window
    first, start, stop, last = np.searchsorted(pixels.rows, [top - radius, top, top + deep, top + deep + radius])
    rows, cols = pixels.rows[first:last] - top + radius, pixels.cols[first:last] - left
    labels, known = np.zeros((deep + 2 * radius, width), np.int64), np.zeros((deep + 2 * radius, width), bool)
    labels[rows, cols], known[rows, cols] = pixels.classes[first:last], True
    near = near_another_class(labels, known, radius)
    return np.asarray(near[pixels.rows[start:stop] - top + radius, pixels.cols[start:stop] - left])


def _refuse_points(layer: Layer, classes: FeatureClasses) -> None:
    """Refuse ERODE of points, which have no boundary."""
    chosen = np.asarray(layer.frame.geometry.values, dtype=object)[classes.known]
    if (shapely.get_dimensions(chosen) == 0).any():
        raise BadInput(
            f"ERODE leaves out the boundaries of polygons, but '{layer.name}' holds points.",
            "Set ERODE to 0, or give polygons or a reference raster.",
        )


def _refuse_names(layer: Layer, field: str, map_name: str, crosswalk: Optional[Crosswalk]) -> None:
    """Refuse class names where neither the map nor the crosswalk tells names that they could be matched with."""
    column = layer.frame[field].dropna().astype(str).str.strip() if field in layer.fields else None
    if column is not None and crosswalk is not None:
        column = column[~column.isin(list(crosswalk.targets))]
    if column is not None and not column.str.fullmatch(r"[+-]?\d+(\.0*)?|").all():
        raise BadInput(
            f"The field '{field}' of '{layer.name}' holds class names, but the map '{map_name}' carries none.",
            "Choose a field with class numbers, or turn the names into numbers of the map with CROSSWALK.",
        )


def _pixels_of_layer(layer: Layer, classes: FeatureClasses, grid: Grid, context: Context) -> _Pixels:
    """Return the pixels of all features of known class by ascending row.

    Points count one by one. A pixel that polygons of one class share counts once; one that two classes claim is left
    out.
    """
    geometries = np.asarray(layer.frame.geometry.values, dtype=object)
    chosen = np.flatnonzero(classes.known)
    points_only = bool((shapely.get_type_id(geometries[chosen]) == 0).all())
    if points_only:
        points = geometries[chosen]
        rows, cols = grid.pixels_of(shapely.get_x(points), shapely.get_y(points))
        inside = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
        keys, features = (rows * grid.width + cols)[inside], chosen[inside]
        order = np.argsort(keys, kind="stable")
    else:
        found = []
        for done, position in enumerate(chosen):
            context.check()
            pixels = feature_pixels(geometries[position], grid)
            found.append(np.empty(0, np.int64) if pixels is None else pixels)
            context.progress(done + 1, len(chosen), "Finding pixels", "features")
        keys = np.concatenate(found) if found else np.empty(0, np.int64)
        features = np.repeat(chosen, [len(part) for part in found])
        order = _unclaimed(keys, classes.ids[features], context)
    missing = len(chosen) - len(np.unique(features))
    if missing:
        context.warn(f"{missing} of {len(chosen)} features of '{layer.name}' hold no pixel of the map.")
    keys, features = keys[order], features[order]
    rows, cols = np.divmod(keys, grid.width)
    return _Pixels(rows, cols, classes.ids[features], _groups(layer, features, points_only))


def _groups(layer: Layer, features: Indices, points: bool) -> Indices:
    """Return the polygon of each pixel: of points the one that they were drawn from (`originfid`), else -1."""
    if not points:
        return features
    if ORIGIN in layer.fields:
        column = pandas.to_numeric(layer.frame[ORIGIN], errors="coerce").fillna(-1)
        return column.to_numpy(dtype=np.int64)[features]
    return np.full(len(features), -1)


def _unclaimed(keys: Indices, ids: Indices, context: Context) -> Indices:
    """Return which pixels count, by ascending key: each once, and none that two classes claim."""
    order = np.argsort(keys, kind="stable")
    if len(order) == 0:
        return order
    starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[0]] - 1))
    ordered = ids[order]
    clear = np.minimum.reduceat(ordered, starts) == np.maximum.reduceat(ordered, starts)
    if not clear.all():
        context.warn(f"{np.count_nonzero(~clear)} pixels are claimed by features of two classes; they are left out.")
    return np.asarray(order[starts[clear]])


def _nothing(name: str, tally: _Tally) -> BadInput:
    if tally.eroded and not tally.unmapped:
        return BadInput(
            f"All {tally.eroded} labelled pixels of '{name}' lie nearer to another class than ERODE asks for.",
            "Choose a smaller ERODE.",
        )
    if tally.unmapped:
        return BadInput(
            f"The map '{tally.mapped.name}' is no-data on all {tally.unmapped} labelled pixels of '{name}'.",
            "Choose a reference inside the mapped area.",
        )
    return BadInput(
        f"'{name}' labels no pixel of the map '{tally.mapped.name}'.",
        "Check that both cover the same place, that the CRS of each is right, and the reference's no-data value.",
    )


# --- the field of the training patches -------------------------------------------------------------------------------


def _training_field(folder: str, grid: Grid, context: Context) -> Optional[_TrainingField]:
    """Return where the training patches lie; None, with a warning, for imported ones, of which nobody knows it."""
    if PatchDataset(folder).description.scene.width == 0:
        context.warn(
            f"Where the patches of '{folder}' lie is not known: reference pixels inside them were not looked for."
        )
        return None
    return _TrainingField(folder, grid, context)


class _TrainingField:
    """Where the patches that a model learned from (training and validation, not test) took their pixels."""

    def __init__(self, folder: str, grid: Grid, context: Context) -> None:
        dataset = PatchDataset(folder)
        scene = dataset.description.scene
        self._grid = grid
        self._theirs = Grid(
            scene.width, scene.height, Affine(*scene.transform), CRS.from_wkt(scene.crs) if scene.crs else None
        )
        self._way = way_between(grid.crs, self._theirs.crs, "the map", scene.label, context)
        size = dataset.description.sources[0].patch_size
        used = dataset.splits != "test"
        tops, lefts = dataset.rows[used] - size // 2, dataset.cols[used] - size // 2
        self._boxes = np.stack([tops, lefts, tops + size, lefts + size], axis=1)

    def holds(self, rows: Indices, cols: Indices) -> npt.NDArray[np.bool_]:
        """Tell which pixels of the map have their centre inside a patch, ``(N,)``."""
        held = np.zeros(len(rows), bool)
        if not len(rows) or not len(self._boxes):
            return held
        x, y = self._grid.centres_of(rows, cols)
        if self._way is not None:
            x, y = self._way.transform(x, y)
        finite = np.isfinite(x) & np.isfinite(y)
        theirs_row, theirs_col = self._theirs.pixels_of(np.where(finite, x, -1e9), np.where(finite, y, -1e9))
        low = self._boxes[:, :2].min(axis=0)
        high = self._boxes[:, 2:].max(axis=0)
        near = finite & (theirs_row >= low[0]) & (theirs_row < high[0])
        near &= (theirs_col >= low[1]) & (theirs_col < high[1])
        if not near.any():
            return held
        r, c = theirs_row[near], theirs_col[near]
        deep = max(1, _STRIP_PIXELS // int(high[1] - low[1]))
        inside = np.zeros(len(r), bool)
        for top in range(int(r.min()), int(r.max()) + 1, deep):
            here = (r >= top) & (r < top + deep)
            if here.any():
                covered = self._coverage(top, int(low[1]), deep, int(high[1] - low[1]))
                inside[here] = covered[r[here] - top, c[here] - low[1]]
        held[near] = inside
        return held

    def _coverage(self, top: int, left: int, height: int, width: int) -> npt.NDArray[np.bool_]:
        """Return which pixels of a window patches cover: +1 and -1 at their corners, summed along both axes."""
        boxes = np.clip(self._boxes - [top, left, top, left], 0, [height, width, height, width])
        steps = np.zeros((height + 1, width + 1), np.int32)
        for row, col, sign in ((0, 1, 1), (0, 3, -1), (2, 1, -1), (2, 3, 1)):
            np.add.at(steps, (boxes[:, row], boxes[:, col]), sign)
        return np.asarray(steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0)


# --- the result ------------------------------------------------------------------------------------------------------


def _result(
    job: Assess, table: Tuple[ClassEntry, ...], tally: _Tally, reference: str, legend: List[int], context: Context
) -> AssessResult:
    matrix = tally.matrix([entry.value for entry in table])
    found = scores(matrix)
    samples = int(matrix.sum())
    polygons = _polygons(tally, table)
    metrics: Dict[str, Any] = {**metrics_dict(found, table), "unmapped": tally.unmapped, "eroded": tally.eroded}
    if polygons:
        metrics["polygons"] = polygons
    _warn(tally, table, samples, reference, legend, context)
    if job.erode:
        context.log(f"ERODE {job.erode} leaves out {tally.eroded} reference pixels near another class.")
    sentence = _reach(job, polygons, samples, reference)
    context.log(sentence)
    metrics["reach"] = sentence
    output = matrix_path = ""
    if job.output:
        output = reports.write_page(job.output, _page(job, table, matrix, metrics, tally, reference, context))
    if job.matrix:
        matrix_path = write_matrix(job.matrix, matrix, [entry.value for entry in table])
    return AssessResult(
        output=output, matrix=matrix_path, overall_accuracy=found.overall_accuracy, kappa=found.kappa,
        macro_f1=found.macro_f1, mean_iou=found.mean_iou, sample_count=samples,
        groups=int(polygons.get("count", 0)), shared_pixels=tally.shared, metrics=metrics,
        warnings=tuple(context.warnings),
    )  # fmt: skip


def _polygons(tally: _Tally, table: Tuple[ClassEntry, ...]) -> Dict[str, Any]:
    """Return how many polygons of each class were compared, and how many carry their own class; empty without any."""
    if not tally.by_feature:
        return {}
    per_class: Counter[int] = Counter()
    right = 0
    for inside in tally.by_feature.values():
        reference = next(iter(inside))[0]
        per_class[reference] += 1
        own = inside[(reference, reference)]
        right += all(own > count for pair, count in inside.items() if pair[1] != reference)
    names = {entry.value: entry.name for entry in table}
    return {
        "count": len(tally.by_feature),
        "per_class": {names[value]: count for value, count in sorted(per_class.items())},
        "majority_right": right,
    }


def _reach(job: Assess, polygons: Dict[str, Any], samples: int, reference: str) -> str:
    """Say how far the figures carry."""
    if polygons:
        count = polygons["count"]
        each = ", ".join(f"{name} {number}" for name, number in polygons["per_class"].items())
        return (
            f"{count} polygons are {count} clusters, not {samples} independent pixels: the pixels of one polygon "
            f"tend to be right or wrong together ({polygons['majority_right']} of {count} polygons have most pixels in "
            f"their own class). Polygons per class: {each}. They are no probability sample, so no confidence interval "
            "is given, and the figures hold for these places, not for the whole map."
        )
    if job.samples is not None:
        return (
            f"{samples} reference points. Unless they were drawn at random, the figures hold for these places, not for "
            "the whole map, and no confidence interval is given."
        )
    return (
        f"{samples} pixels of '{reference}': neighbours repeat each other, and errors of the reference count as errors "
        "of the map; no confidence interval is given."
    )


def _warn(
    tally: _Tally, table: Tuple[ClassEntry, ...], samples: int, reference: str, legend: List[int], context: Context
) -> None:
    if tally.unmapped:
        share = tally.unmapped / (samples + tally.unmapped)
        context.warn(
            f"The map is no-data on {tally.unmapped} reference pixels ({100 * share:.1f} %); they are left out."
        )
    if tally.shared:
        context.warn(
            f"{tally.shared} of {samples} reference pixels ({100 * tally.shared / samples:.1f} %) lie inside patches "
            "that the model was trained on: the accuracy is better than elsewhere. Use reference samples apart from "
            "the training samples."
        )
    references = {pair[0] for pair in tally.pairs}
    found = {pair[1] for pair in tally.pairs}
    strange = [entry.name for entry in table if entry.value in references - found and entry.value not in legend]
    if legend and strange:
        context.warn(
            f"The map has no class {', '.join(repr(name) for name in strange)}, which '{reference}' holds: all its "
            "pixels count as errors. Check that both use the same classes."
        )


def _page(
    job: Assess, table: Tuple[ClassEntry, ...], matrix: Indices, metrics: Dict[str, Any], tally: _Tally,
    reference: str, context: Context,
) -> str:  # fmt: skip
    polygons = metrics.get("polygons", {}).get("count", 0)
    counted = f"{reports.grouped(metrics['samples'])} pixels"
    if polygons:
        counted += f" in {polygons} polygons"
    headline = reports.numbers(
        [
            ("Overall accuracy", reports.percent(metrics["overall_accuracy"]), counted),
            ("Kappa", reports.decimal(metrics["kappa"]), "agreement beyond chance"),
            ("Mean F1", reports.decimal(metrics["macro_f1"]), "over the classes"),
            ("Mean IoU", reports.decimal(metrics["mean_iou"]), "over the classes"),
        ]
    )
    rows = [
        ("Map", job.map.label or job.map.path),
        ("Reference", reference),
        ("Compared pixels", reports.grouped(metrics["samples"])),
        ("Reference pixels without a map value", reports.grouped(tally.unmapped)),
    ]
    if job.erode:
        rows.append((f"Reference pixels within {job.erode} pixels of another class", reports.grouped(tally.eroded)))
    if job.crosswalk:
        rows.append(("Classes turned into those of the map by", Path(job.crosswalk).name))
    if job.training:
        known = reports.grouped(tally.shared) if tally.knows_training else "not known"
        rows.append(("Reference pixels inside training patches", known))
    sections = [
        Section("Warnings", reports.warnings_list(context.warnings)),
        Section("Accuracy", headline, metrics["reach"]),
        Section("Confusion matrix", reports.matrix_table(matrix, table), "Rows are the reference, columns the map."),
        Section("Classes", reports.scores_table(metrics)),
        Section("What was compared", reports.facts(rows)),
    ]
    return reports.page("Accuracy of the map", sections, subtitle=tally.mapped.name)


def write_matrix(path: str, matrix: Indices, values: Sequence[int]) -> str:
    """Write a confusion matrix as OTB's ComputeConfusionMatrix does (a missing suffix ``.csv`` is added).

    Raises:
        DiskFull: no room left.
        BadInput: the folder does not exist or cannot be written.
    """
    labels = ",".join(str(value) for value in values)
    lines = [f"#Reference labels (rows):{labels}", f"#Produced labels (columns):{labels}"]
    lines += [",".join(str(int(count)) for count in row) for row in matrix]
    return write_text(path, ".csv", "\n".join(lines) + "\n")
