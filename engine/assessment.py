"""Assessing a map against a reference raster, or reference points or polygons: one summed confusion matrix.

Rows are the reference, columns the map. Nothing is resampled but the reference, onto the map's grid (`denselabels`); a
pixel that the map leaves as no-data is left out, and counted. ERODE leaves out reference pixels with another class in a
disc of that radius, as the ISPRS benchmark scores on a reference with eroded boundaries; the numbers with them stand
beside it. Intervals come from the design of the reference (`assessmentdesign`), or there are none.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
import numpy.typing as npt
import pandas
import scipy.ndimage
import shapely

from ..tasks.classtable import ClassEntry, Legend, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import Assess, AssessResult, RasterSource
from . import assessmentdesign as design
from . import reports
from .assessmentbackground import PolygonsOnBackground
from .assessmentreport import Findings, reach, report_page, write_matrix
from .assessmenttally import Array, Indices, Pixels, Tally, matrix_of
from .calibration import Calibration, band_classes
from .classes import FeatureClasses, feature_classes
from .crosswalks import Crosswalk, read_crosswalk
from .denselabels import BACKGROUND, DenseLabels, open_labels
from .featurepixels import feature_pixels
from .legends import read_map_legend
from .metrics import metrics_dict, only_class, scores
from .rasters import Grid, RasterReader, reading
from .trainingfield import TrainingField, training_field
from .vectors import Layer, crs_name, on_grid, read_layer

_TILE = 512
# Field of points that were drawn from polygons: the polygon's id.
ORIGIN = "originfid"
# Pixels of map and reference held at once.
_STRIP_PIXELS = 4_000_000


def assess(job: Assess, context: Context) -> AssessResult:
    """Compare a map with its reference.

    Raises:
        BadInput: an input cannot be used, map and reference do not overlap, no labelled pixel is mapped, or the
            reference does not have the DESIGN.
        DiskFull: no room left.
    """
    crosswalk = read_crosswalk(job.crosswalk, map_legend=True)
    with reading(_one_band(job.map)) as mapped:
        own = read_map_legend(job.map.path)
        layer_values = {entry.value for entry in job.legend.layer_classes}
        further = tuple(entry for entry in own if entry.value not in layer_values)
        legend = replace(job.legend, layer_classes=job.legend.layer_classes + further)
        field = _field(job, mapped, context)
        with _calibration(job, legend, mapped) as calibration:
            rest = BACKGROUND.value if job.background else None
            tally = Tally(mapped, field, calibration, job.leave_out_training, rest)
            strata = None
            if job.reference is not None:
                names = _compare_raster(job, job.reference, tally, context)
                table = (crosswalk.table if crosswalk else resolve)(tally.values(), legend)
            else:
                if job.background:
                    names, found = _compare_on_background(job, legend, crosswalk, tally, context)
                else:
                    names, found, strata = _compare_samples(job, legend, crosswalk, tally, context)
                known = {entry.value: entry for entry in found}
                table = tuple(known.get(entry.value, entry) for entry in resolve(tally.values(), legend))
        return _result(job, table, tally, (names, strata), legend.layer_classes, context)


def _field(job: Assess, mapped: RasterReader, context: Context) -> TrainingField:
    """Return where the map's model learned.

    Raises:
        BadInput: what lies there is to be left out, and nobody knows where it is.
    """
    field = training_field(job, mapped.grid, context)
    if job.leave_out_training and not field.known:
        raise BadInput(
            f"LEAVE_OUT_TRAINING cannot leave anything out of '{mapped.name}': {'; '.join(field.unknown)}.",
            "Give the patch dataset of its model as TRAINING, or set LEAVE_OUT_TRAINING to false.",
        )
    return field


def _one_band(source: RasterSource) -> RasterSource:
    return replace(source, bands=source.bands[:1] or (1,), stack=())


@contextlib.contextmanager
def _calibration(job: Assess, legend: Legend, mapped: RasterReader) -> Iterator[Optional[Calibration]]:
    """Open the probabilities, where there are any.

    Raises:
        BadInput: they are not those of the map.
    """
    if job.probabilities is None:
        yield None
        return
    with reading(job.probabilities) as reader:
        if not reader.grid.same_as(mapped.grid):
            raise BadInput(
                f"'{reader.name}' ({reader.grid.width} x {reader.grid.height}) does not lie on the grid of the map "
                f"'{mapped.name}' ({mapped.grid.width} x {mapped.grid.height}).",
                "Give the PROBABILITIES that 'Classify an image' wrote with the map.",
            )
        yield Calibration(reader, band_classes(reader, legend.layer_classes, mapped.name))


# --- comparing -------------------------------------------------------------------------------------------------------


def _compare_raster(job: Assess, source: RasterSource, tally: Tally, context: Context) -> str:
    """Count a reference raster; return its name."""
    with open_labels(
        source, None, "", tally.mapped.grid, tally.mapped.name, context, crosswalk=job.crosswalk, map_legend=True
    ) as reference:
        _compare_windows(job, reference, tally, context)
        return reference.name


def _compare_on_background(
    job: Assess, legend: Legend, crosswalk: Optional[Crosswalk], tally: Tally, context: Context
) -> Tuple[str, Tuple[ClassEntry, ...]]:
    """Count reference polygons and the background around them; return the layer's name and its classes."""
    if job.samples is None:
        raise ValueError("a job with a background has reference samples")
    layer = read_layer(job.samples, context)
    if job.field and _nameless(legend):
        _refuse_names(layer, job.field, tally.mapped.name, crosswalk)
    grid, name = tally.mapped.grid, tally.mapped.name
    with PolygonsOnBackground(layer, job.field, grid, name, context, legend, crosswalk) as reference:
        _compare_windows(job, reference, tally, context)
        return reference.name, reference.classes


def _compare_windows(job: Assess, reference: DenseLabels, tally: Tally, context: Context) -> None:
    """Count a reference that may cover the whole map, by window."""
    grid, margin = tally.mapped.grid, job.erode
    if job.block_size:
        design.check_blocks(grid, job.block_size)
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
            near = near_another_class(around, known, margin)[inner][labelled] if margin else None
            rows, cols = np.nonzero(labelled)
            rows, cols, nothing = rows + top, cols + left, np.full(len(rows), -1)
            blocks = design.blocks_of(rows, cols, grid.width, job.block_size) if job.block_size else nothing
            tally.add(Pixels(rows, cols, labels[labelled], nothing, blocks), (top, left, height, width), near)
    if not tally.pairs:
        raise _nothing(reference.name, tally)
    reference.finish(context)


def near_another_class(labels: Array, known: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """Return which labelled pixels have a pixel of another class at most ``radius`` pixels away (a disc), ``(H, W)``.

    Pixels without a label are of no class: the ISPRS benchmark erodes the boundaries between classes of a reference
    that covers all ground. Beyond the edge of a single polygon may lie more of its class, which nobody labelled.
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
    job: Assess, legend: Legend, crosswalk: Optional[Crosswalk], tally: Tally, context: Context
) -> Tuple[str, Tuple[ClassEntry, ...], Optional[design.Strata]]:
    """Count reference points or polygons; return the layer's name, its classes, and the strata of a sample."""
    if job.samples is None:
        raise ValueError("a job without a reference raster has reference samples")
    grid = tally.mapped.grid
    given = read_layer(job.samples, context)
    layer = on_grid(given, grid, tally.mapped.name, context)
    if _nameless(legend):
        _refuse_names(layer, job.field, tally.mapped.name, crosswalk)
    classes = feature_classes(layer, job.field, context, legend, crosswalk=crosswalk)
    if job.erode:
        _refuse_points(layer, classes)
    units, strata = _units(job, layer, classes, context)
    pixels = _pixels_of_layer(layer, classes, units, grid, context)
    if len(pixels.rows) == 0:
        raise BadInput(
            f"No feature of '{layer.name}' ({crs_name(given.frame.crs)}) lies on the map '{tally.mapped.name}' "
            f"({crs_name(grid.crs)}).",
            "Check that both cover the same place and that the CRS of each is right.",
        )
    left, width = int(pixels.cols.min()), int(pixels.cols.max() - pixels.cols.min()) + 1
    deep = max(1, _STRIP_PIXELS // (width * (tally.calibration.bands if tally.calibration else 1)))
    for top in range(int(pixels.rows.min()), int(pixels.rows.max()) + 1, deep):
        context.check()
        start, stop = np.searchsorted(pixels.rows, [top, top + deep])
        if start == stop:
            continue
        near = _near_in_strip(pixels, (top, left, deep, width), job.erode) if job.erode else None
        window = (top, left, min(deep, grid.height - top), width)
        tally.add(pixels.part(slice(start, stop)), window, near)
        context.progress(int(stop), len(pixels.rows), "Comparing", "pixels")
    if not tally.pairs:
        raise _nothing(layer.name, tally)
    return layer.name, classes.classes, strata


def _units(
    job: Assess, layer: Layer, classes: FeatureClasses, context: Context
) -> Tuple[Optional[Indices], Optional[design.Strata]]:
    """Return the cluster or stratum of each feature ``(F,)`` (None: each polygon is one), and a sample's strata."""
    shapes = np.asarray(layer.frame.geometry.values, dtype=object)[classes.known]
    points = bool((shapely.get_dimensions(shapes) == 0).any())
    if job.design == "stratified":
        if not (shapely.get_type_id(shapes) == 0).all():
            raise BadInput(
                f"DESIGN stratified is for points, but '{layer.name}' holds other features.",
                "Give the points of 'Sample a map for its assessment'; polygons are DESIGN clusters.",
            )
        return design.read_strata(layer)
    if job.design == "clusters":
        if job.cluster_field:
            return design.cluster_codes(layer, job.cluster_field), None
        if points and ORIGIN not in layer.fields:
            context.warn(
                f"'{layer.name}' holds points, which are no clusters: no interval is given. Name the field that tells "
                "which points belong together in CLUSTER_FIELD."
            )
    elif {design.STRATUM, design.WEIGHT} <= set(layer.fields):
        context.warn(
            f"'{layer.name}' looks like a stratified sample: with DESIGN stratified it estimates accuracy and area of "
            "the whole map. Without it, classes with many points for their area count too much."
        )
    return None, None


def _near_in_strip(pixels: Pixels, window: Tuple[int, int, int, int], radius: int) -> npt.NDArray[np.bool_]:
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


def _nameless(legend: Legend) -> bool:
    return not legend.path and legend.nomenclature == "none" and not legend.layer_classes


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


def _pixels_of_layer(
    layer: Layer, classes: FeatureClasses, units: Optional[Indices], grid: Grid, context: Context
) -> Pixels:
    """Return the pixels of all features of known class by ascending row; without ``units`` each polygon is one.

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
    groups = _groups(layer, features, points_only)
    return Pixels(rows, cols, classes.ids[features], groups, groups if units is None else units[features])


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


def _nothing(name: str, tally: Tally) -> BadInput:
    if tally.left_out:
        others = ((tally.unmapped, "where the map is no-data"), (tally.eroded, "near another class (ERODE)"))
        rest = "".join(f", {count} {what}" for count, what in others if count)
        return BadInput(
            f"Nothing of '{name}' is left to compare: {tally.left_out} of its labelled pixels lie in the training "
            f"area{rest}.",
            "Give a reference from elsewhere, or set LEAVE_OUT_TRAINING to false.",
        )
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


# --- the result ------------------------------------------------------------------------------------------------------


def _result(
    job: Assess, table: Tuple[ClassEntry, ...], tally: Tally, reference: Tuple[str, Optional[design.Strata]],
    legend: Tuple[ClassEntry, ...], context: Context,
) -> AssessResult:  # fmt: skip
    name, strata = reference
    values = [entry.value for entry in table]
    matrix = matrix_of(tally.pairs, values)
    found = scores(matrix)
    metrics: Dict[str, Any] = {**metrics_dict(found, table), "unmapped": tally.unmapped, "eroded": tally.eroded}
    if job.leave_out_training:
        metrics["left_out"] = tally.left_out
        context.log(f"{tally.left_out} reference pixels lie in the training area: they are left out.")
    polygons = _polygons(tally, table)
    if polygons:
        metrics["polygons"] = polygons
    _warn(tally, table, int(matrix.sum()), name, [entry.value for entry in legend], context)
    proportions = None
    if strata is not None:
        estimate, metrics["design"] = design.stratified(tally, strata, table, name, context, legend)
        proportions = estimate.proportions.T
        found = scores(proportions)
        _estimated(metrics, metrics_dict(found, table), estimate.users)
    elif job.design == "clusters":
        intervals = design.bootstrapped(tally, values, job.block_size, context)
        if intervals is not None:
            metrics["design"] = intervals
    _only_one(job, matrix, table, name, metrics, context)
    if job.erode:
        context.log(f"ERODE {job.erode} leaves out {tally.eroded} reference pixels near another class.")
        if not tally.eroded:
            context.warn(
                f"ERODE {job.erode} leaves nothing out: no labelled pixel of '{name}' lies within {job.erode} px of "
                "another class. An edge towards ground without a label is no boundary of two classes; to leave that "
                "out, shrink the polygons with QGIS's 'Buffer' and a negative distance."
            )
        metrics["whole"] = metrics_dict(scores(matrix_of(tally.whole, values)), table)
    if tally.calibration is not None:
        metrics["calibration"] = tally.calibration.figures(table)
        if only_class(matrix) is not None:
            # Every threshold looks better the more it calls the one class.
            metrics["calibration"].pop("threshold", None)
    metrics["reach"] = reach(job, metrics, name)
    context.log(metrics["reach"])
    findings = Findings(table, matrix, proportions, metrics, tally, name)
    return AssessResult(
        output=reports.write_page(job.output, report_page(job, findings, context)) if job.output else "",
        matrix=write_matrix(job.matrix, matrix, values) if job.matrix else "",
        areas=design.write_areas(job.areas, metrics, table) if job.areas else "",
        overall_accuracy=found.overall_accuracy, kappa=found.kappa, macro_f1=found.macro_f1, mean_iou=found.mean_iou,
        sample_count=int(matrix.sum()), groups=int(polygons.get("count", 0)),
        shared_pixels=tally.shared + tally.left_out, metrics=metrics, warnings=tuple(context.warnings),
    )  # fmt: skip


def _estimated(metrics: Dict[str, Any], estimates: Dict[str, Any], users: npt.NDArray[np.float64]) -> None:
    """Put the numbers of the estimated area shares in the place of those of the points, whose number is a choice.

    ``users``, the user's accuracies ``(K,)``, are known of each class of the map, whatever the points turned out to be.
    """
    for name in ("overall_accuracy", "kappa", "macro_f1", "mean_iou"):
        metrics[name] = estimates[name]
    for row, estimate in zip(metrics["classes"], estimates["classes"]):
        row.update({name: estimate[name] for name in ("precision", "recall", "f1", "iou")})
    for row, accuracy in zip(metrics["classes"], users.tolist()):
        if row["precision"] is None and not math.isnan(accuracy):
            row["precision"] = accuracy


def _only_one(
    job: Assess, matrix: Indices, table: Tuple[ClassEntry, ...], reference: str, metrics: Dict[str, Any],
    context: Context,
) -> None:  # fmt: skip
    """Warn where the reference holds one class only, and take away the intervals of what it does not tell."""
    only = only_class(matrix)
    if only is None:
        return
    name = table[only].name
    if "design" in metrics:
        design.without_means(metrics["design"])
    if job.design == "stratified":
        context.warn(f"All labelled points of '{reference}' are of the class '{name}': kappa and the means are n/a.")
        return
    remedy = "Give a reference that holds the other classes, too"
    if job.samples is not None and not job.background:
        remedy += f", or, where polygons show all of '{name}' in the map, set BACKGROUND to true"
    context.warn(
        f"'{reference}' holds one class only, '{name}': it tells how much of that class the map finds (producer's "
        "accuracy, here the overall accuracy as well), but not what the map takes for it wrongly: user's accuracies, "
        f"F1, IoU, their means and kappa are n/a. {remedy}."
    )


def _polygons(tally: Tally, table: Tuple[ClassEntry, ...]) -> Dict[str, Any]:
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


def _warn(
    tally: Tally, table: Tuple[ClassEntry, ...], samples: int, reference: str, legend: List[int], context: Context
) -> None:
    if tally.unmapped:
        share = tally.unmapped / (samples + tally.unmapped)
        context.warn(
            f"The map is no-data on {tally.unmapped} reference pixels ({100 * share:.1f} %); they are left out."
        )
    if tally.shared:
        context.warn(
            f"{tally.shared} of {samples} reference pixels ({100 * tally.shared / samples:.1f} %) lie in the training "
            "area, where the map's model has learned: the accuracy is better than elsewhere. Use reference samples "
            "apart from it, or set LEAVE_OUT_TRAINING to true."
        )
    references = {pair[0] for pair in tally.pairs}
    found = {pair[1] for pair in tally.pairs}
    strange = [entry.name for entry in table if entry.value in references - found and entry.value not in legend]
    if legend and strange:
        context.warn(
            f"The map has no class {', '.join(repr(name) for name in strange)}, which '{reference}' holds: all its "
            "pixels count as errors. Check that both use the same classes."
        )
