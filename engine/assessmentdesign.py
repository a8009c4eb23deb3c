"""What the design of a reference allows to say beyond its own pixels: estimates and intervals.

stratified: points drawn at random in every class of the map (`assessmentsampling`) estimate accuracy and area of the
whole map (Olofsson et al. 2014). clusters: polygons, or blocks of a reference raster, are drawn again with replacement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import pandas
import shapely

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput
from .assessmenttally import Indices, Tally, distinct, matrix_of
from .bootstrap import block_bootstrap
from .estimation import StratifiedEstimate, stratified_estimate
from .maps import row_hectares
from .rasterlabels import whole_numbers
from .rasters import Grid, RasterReader
from .textfiles import csv_text, write_text
from .trainingfield import TrainingField
from .vectors import Layer
from .wording import decimals_of

Floats = npt.NDArray[np.float64]

STRATUM, WEIGHT = "stratum", "weight"
_SEED = 0
_MOST_UNITS = 200_000
# Percentile intervals of a bootstrap are clearly too narrow below some thirty units.
_FEW_UNITS = 30
# Widths of intervals below this are rounding.
_ROUNDING = 1e-9
# What the table of areas calls the numbers of a class.
_ACCURACIES = {"users_accuracy": "precision", "producers_accuracy": "recall", "f1": "f1", "iou": "iou"}
# Pixels of the map that are held at once while they are counted.
_WINDOW_PIXELS = 4_000_000
# Pixels that tell the shares of the classes of a large map to a percent.
_LOOKED_AT = 200_000_000


# --- clusters --------------------------------------------------------------------------------------------------------


def cluster_codes(layer: Layer, field: str) -> Indices:
    """Return a number for each feature's cluster ``(F,)``: those of one value of the field have the same.

    Raises:
        BadInput: there is no such field, or a feature has no value in it.
    """
    if field not in layer.fields:
        raise BadInput(
            f"'{layer.name}' has no field '{field}'.", f"CLUSTER_FIELD may be: {', '.join(layer.fields) or 'none'}."
        )
    codes, _ = pandas.factorize(layer.frame[field])
    empty = int(np.count_nonzero(codes < 0))
    if empty:
        raise BadInput(
            f"{empty} features of '{layer.name}' have no value in CLUSTER_FIELD '{field}'.",
            "Fill them in, or leave those features out with a filter.",
        )
    return codes.astype(np.int64)


def check_blocks(grid: Grid, size: int) -> None:
    """Refuse blocks of which there are too many to draw.

    Raises:
        BadInput: there are.
    """
    count = -(-grid.height // size) * -(-grid.width // size)
    if count > _MOST_UNITS:
        raise BadInput(
            f"BLOCK_SIZE {size} makes {count} blocks of the map, more than {_MOST_UNITS}.",
            f"Give {math.ceil(math.sqrt(grid.height * grid.width / _MOST_UNITS)) + 1} or more.",
        )


def blocks_of(rows: Indices, cols: Indices, width: int, size: int) -> Indices:
    """Return the block of each pixel ``(N,)``, of a grid ``width`` pixels wide that is cut into squares of ``size``."""
    return np.asarray(rows // size * -(-width // size) + cols // size)


def bootstrapped(
    tally: Tally, values: Sequence[int], block_size: Optional[int], context: Context
) -> Optional[Dict[str, Any]]:
    """Return the 95 % intervals that drawing the clusters again gives; None where they cannot be drawn.

    There are none of a single cluster, nor where a reference pixel belongs to none: the numbers are told without them.
    Blocks that are too large are another matter, for a smaller BLOCK_SIZE mends them: see `block_bootstrap`.

    Keys: design, what, units, overall_accuracy, kappa, macro_f1, mean_iou ([low, high] or None), and classes: value,
    precision, recall, f1, iou likewise.
    """
    what = f"blocks of {block_size} x {block_size} pixels" if block_size else "clusters"
    units = [pairs for _, pairs in sorted(tally.by_unit.items()) if sum(pairs.values())]
    if sum(sum(pairs.values()) for pairs in units) < sum(tally.pairs.values()):
        return None
    if len(units) < 2 and not block_size:
        context.warn("All reference pixels lie in one cluster, which tells no variation: no interval is given.")
        return None
    matrices = np.stack([matrix_of(pairs, values) for pairs in units])
    found = block_bootstrap(matrices, _SEED)
    if found.units < _FEW_UNITS:
        context.warn(
            f"{found.units} {what} are few: the bootstrap knows no errors but theirs, so that its intervals are too "
            f"narrow. From {_FEW_UNITS} on they can be relied upon."
        )
    return {
        "design": "clusters",
        "what": what,
        "units": found.units,
        "overall_accuracy": _plain(found.overall),
        "kappa": _plain(found.kappa),
        "macro_f1": _plain(found.macro_f1),
        "mean_iou": _plain(found.mean_iou),
        "classes": [
            {"value": value, **{name: _plain(getattr(found, name)[k]) for name in ("precision", "recall", "f1", "iou")}}
            for k, value in enumerate(values)
        ],
    }


def _plain(interval: Any) -> Optional[List[float]]:
    """Return the interval; None where it is not defined, or has no width because no unit shows an error."""
    low, high = (float(value) for value in interval)
    return [low, high] if high - low > _ROUNDING else None


def without_means(design: Dict[str, Any]) -> None:
    """Take away the intervals of the numbers that a reference of one class only does not tell (`metrics.scores`).

    A stratified sample was drawn in every class of the map, so that its user's accuracies are known all the same.
    """
    design.update(kappa=None, macro_f1=None, mean_iou=None)
    lost = ("f1", "iou") if design["design"] == "stratified" else ("precision", "f1", "iou")
    for row in design["classes"]:
        row.update(dict.fromkeys(lost))


# --- a stratified sample ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Strata:
    """The strata of a sample: code -> pixels of the map that one point stands for, and code -> points of the layer."""

    weights: Mapping[int, float]
    points: Mapping[int, int]


def read_strata(layer: Layer) -> Tuple[Indices, Strata]:
    """Return the stratum of each feature ``(F,)`` and what the sample says of the strata.

    Raises:
        BadInput: the layer is no sample of 'Sample a map for its assessment'.
    """
    missing = [name for name in (STRATUM, WEIGHT) if name not in layer.fields]
    if missing:
        raise BadInput(
            f"DESIGN stratified needs the fields '{STRATUM}' and '{WEIGHT}', but '{layer.name}' has no '{missing[0]}'.",
            "Give the points of 'Sample a map for its assessment', or choose another DESIGN.",
        )
    columns = [pandas.to_numeric(layer.frame[name], errors="coerce").to_numpy(float) for name in (STRATUM, WEIGHT)]
    codes, weights = columns
    if not (np.isfinite(codes).all() and (codes >= 0).all() and np.isfinite(weights).all() and (weights > 0).all()):
        raise BadInput(
            f"A point of '{layer.name}' has no valid '{STRATUM}' or '{WEIGHT}'.",
            "Give the points as 'Sample a map for its assessment' wrote them, with the reference filled in.",
        )
    strata = codes.astype(np.int64)
    present, first = np.unique(strata, return_index=True)
    # A point that was copied is none that was drawn.
    points = np.asarray(layer.frame.geometry.values, dtype=object)
    places = np.unique(np.stack([strata, shapely.get_x(points), shapely.get_y(points)], axis=1), axis=0)[:, 0]
    counts = [int(np.count_nonzero(places == code)) for code in present]
    return strata, Strata(dict(zip(present.tolist(), weights[first].tolist())), dict(zip(present.tolist(), counts)))


def stratified(
    tally: Tally,
    strata: Strata,
    table: Sequence[ClassEntry],
    name: str,
    context: Context,
    legend: Sequence[ClassEntry] = (),
) -> Tuple[StratifiedEstimate, Dict[str, Any]]:
    """Estimate accuracy and area of the map from the labelled points of its classes.

    Args:
        tally: the points, counted by stratum.
        strata: of the sample.
        table: the classes that occur.
        name: of the sample.
        context: takes the warnings.
        legend: of the map; names its classes that do not occur.

    Returns:
        The estimate, in the order of the table, and its plain form. Keys: design, units, overall_accuracy, kappa,
        macro_f1, mean_iou ([low, high] or None), area_unit, and classes: value, points, precision, recall, f1, iou
        likewise, mapped_area, area, area_interval (half of its width).

    Raises:
        BadInput: the sample was drawn from another map, or a class has less than two labelled points.
    """
    names = {entry.value: f"'{entry.name}'" for entry in (*legend, *table)}
    by_class = _classes_of_strata(tally, name, names)
    counted = class_areas(tally.mapped, context, tally.field if tally.leaves_out else None)
    values = [entry.value for entry in table]
    lacking = [value for value in counted.pixels if value not in by_class]
    if lacking:
        missing = names.get(lacking[0], f"Class {lacking[0]}")
        raise BadInput(
            f"{missing} of the map '{tally.mapped.name}' has no labelled point in '{name}'{_outside(tally)}: the "
            "accuracy of the map cannot be estimated.",
            "Set LEAVE_OUT_TRAINING to false: the sample stands for the whole map then, its training area included."
            if tally.leaves_out
            else "Label points of every class, of a sample that was drawn from this map.",
        )
    _check_weights(by_class, strata, counted.whole, tally, name, context, names)
    counts = matrix_of(tally.pairs, values).T
    mapped = np.array([counted.areas.get(value, 0.0) for value in values])
    pixels = np.array([counted.pixels.get(value, 0) for value in values])
    complete = (pixels > 0) & (counts.sum(axis=1) == pixels)
    short = [k for k in range(len(values)) if pixels[k] and not complete[k] and counts[k].sum() < 2]
    if short:
        raise BadInput(
            f"The class '{table[short[0]].name}' of the map has {int(counts[short[0]].sum())} labelled point in "
            f"'{name}'{_outside(tally)}; an interval needs 2.",
            "Label more of its points.",
        )
    found = stratified_estimate(counts, mapped, complete)
    return found, {
        "design": "stratified",
        "units": int(counts.sum()),
        "overall_accuracy": _around(found.overall, found.overall_interval),
        "kappa": _plain(found.kappa_bounds),
        "macro_f1": _plain(found.macro_f1_bounds),
        "mean_iou": _plain(found.mean_iou_bounds),
        "area_unit": counted.unit,
        "classes": [
            {
                "value": value,
                "points": int(counts[k].sum()),
                "precision": _around(found.users[k], found.users_interval[k], bool(complete[k])),
                "recall": _around(found.producers[k], found.producers_interval[k]),
                "f1": _plain(found.f1_bounds[k]),
                "iou": _plain(found.iou_bounds[k]),
                "mapped_area": float(mapped[k]),
                "area": float(found.areas[k]),
                "area_interval": float(found.areas_interval[k]),
            }
            for k, value in enumerate(values)
        ],
    }


def _around(value: float, half: float, known: bool = False) -> Optional[List[float]]:
    """Return the interval of a share, which does not leave 0 to 1.

    None where it is not defined, or has no width because no point shows an error though not all pixels are ``known``.
    """
    if math.isnan(value) or math.isnan(half) or (half == 0 and not known):
        return None
    return [max(0.0, float(value - half)), min(1.0, float(value + half))]


def _outside(tally: Tally) -> str:
    return " outside the training area" if tally.leaves_out else ""


def _classes_of_strata(tally: Tally, name: str, names: Mapping[int, str]) -> Dict[int, int]:
    """Return the map's class -> the stratum: each stratum's points lie on one class, and each class has one.

    Messages tell strata by the names of their classes: the codes are blind, and say nothing to people.
    """
    found: Dict[int, int] = {}
    for stratum, pairs in sorted(tally.by_unit.items()):
        classes = sorted({mapped for _, mapped in pairs})
        if len(classes) > 1 or classes[0] in found:
            what = (
                f"points of one stratum lie on its classes {', '.join(names[value] for value in classes[:5])}"
                if len(classes) > 1
                else f"points of two strata lie on its class {names[classes[0]]}"
            )
            raise BadInput(
                f"'{name}' was not drawn from the map '{tally.mapped.name}': {what}.",
                "Give the map that was the INPUT of 'Sample a map for its assessment'.",
            )
        found[classes[0]] = stratum
    return found


def _check_weights(
    by_class: Mapping[int, int],
    strata: Strata,
    pixels: Mapping[int, int],
    tally: Tally,
    name: str,
    context: Context,
    names: Mapping[int, str],
) -> None:
    """Warn where the sample's weights do not fit the map, and where points of it are missing or not labelled."""
    drawn = labelled = 0
    for value, stratum in by_class.items():
        planned = pixels.get(value, 0) / strata.weights[stratum]
        if abs(planned - round(planned)) > 1e-4 * max(planned, 1) or round(planned) < strata.points[stratum]:
            context.warn(
                f"The weight of the points of {names[value]} in '{name}' does not fit the {pixels.get(value, 0)} "
                "pixels of the map: it has changed since the sample was drawn from it, or points were added."
            )
            return
        drawn += round(planned)
        labelled += sum(tally.by_unit[stratum].values()) + tally.left_units[stratum]
    if labelled < drawn:
        context.warn(
            f"{drawn - labelled} of the {drawn} points that were drawn have no reference class, are missing, or "
            "contradict others at their place: the estimates hold as far as those are not the difficult ones."
        )


# --- the areas of the map --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MapAreas:
    """What the map gives each class.

    Attributes:
        pixels: value -> pixels that count.
        areas: value -> their area.
        unit: of the areas: hectares or pixels.
        whole: value -> pixels of the map, also those that do not count.
    """

    pixels: Mapping[int, int]
    areas: Mapping[int, float]
    unit: str
    whole: Mapping[int, int]


def class_areas(reader: RasterReader, context: Context, without: Optional[TrainingField] = None) -> MapAreas:
    """Count the map's pixels of each class, and their area in hectares on the ellipsoid (in pixels without a CRS).

    Args:
        reader: of the map.
        context: for progress and cancel.
        without: what of the map does not count; None = all counts.
    """
    grid = reader.grid
    hectares = row_hectares(grid)
    by_row = np.ones(grid.height) if hectares is None else hectares
    pixels: Dict[int, int] = {}
    areas: Dict[int, float] = {}
    whole: Dict[int, int] = {}
    for top, valid, found in _strips(reader, context):
        if not len(found):
            continue
        rows, cols = np.nonzero(valid)
        rows += top
        values, positions = distinct(found)
        chosen = slice(None) if without is None else ~without.holds(rows, cols)
        counts = np.bincount(positions[chosen], minlength=len(values))
        sums = np.bincount(positions[chosen], by_row[rows[chosen]], minlength=len(values))
        for value, count, area, every in zip(values.tolist(), counts.tolist(), sums.tolist(), np.bincount(positions)):
            whole[value] = whole.get(value, 0) + int(every)
            if count:
                pixels[value] = pixels.get(value, 0) + count
                areas[value] = areas.get(value, 0.0) + area
    return MapAreas(pixels, areas, "pixels" if hectares is None else "hectares", whole)


def class_shares(reader: RasterReader, context: Context) -> Tuple[Dict[int, float], int]:
    """Return value -> share of the map's pixels, of a large map from some of its strips of rows, and all of its pixels.

    Args:
        reader: of the map.
        context: for progress and cancel.
    """
    counts: Dict[int, int] = {}
    looked = 0
    for _, valid, found in _strips(reader, context, _LOOKED_AT):
        looked += len(valid)
        if len(found):
            values, positions = distinct(found)
            for value, count in zip(values.tolist(), np.bincount(positions).tolist()):
                counts[value] = counts.get(value, 0) + count
    total = sum(counts.values())
    return {value: count / total for value, count in counts.items()}, total * reader.grid.height // max(looked, 1)


def _strips(
    reader: RasterReader, context: Context, most: Optional[int] = None
) -> Iterator[Tuple[int, npt.NDArray[np.bool_], Indices]]:
    """Yield strips of rows of a map: the first row, where it has a class ``(H, W)``, and the classes there ``(N,)``.

    ``most`` is about how many pixels are read, of a larger map in strips at regular distances; None = all.
    """
    grid = reader.grid
    deep = max(1, _WINDOW_PIXELS // grid.width)
    tops = range(0, grid.height, deep)
    every = 1 if most is None else -(-len(tops) * _WINDOW_PIXELS // most)
    for top in tops[every // 2 :: every]:
        context.check()
        height = min(deep, grid.height - top)
        raw, valid = reader.read(top, 0, height, grid.width)
        context.progress(top + height, grid.height, "Counting the map's pixels", "rows")
        yield top, valid[0], whole_numbers(raw[0][valid[0]], reader.name)


def write_areas(path: str, metrics: Mapping[str, Any], table: Sequence[ClassEntry]) -> str:
    """Write mapped and estimated areas, and the accuracy of each class, as CSV; return the real path.

    Args:
        path: of the table.
        metrics: of a stratified assessment.
        table: the classes that occur.

    Raises:
        DiskFull: no room left.
        BadInput: the folder does not exist or cannot be written.
    """
    unit = metrics["design"]["area_unit"]
    columns = ["class_id", "name", f"mapped_{unit}", f"estimated_{unit}", "half_width_95", "low_95", "high_95"]
    columns += [name + end for name in _ACCURACIES for end in ("", "_low_95", "_high_95")]
    rows = []
    for entry, found, estimate in zip(table, metrics["design"]["classes"], metrics["classes"]):
        area, half = found["area"], found["area_interval"]
        areas = (found["mapped_area"], area, half, max(0.0, area - half), area + half)
        # Four decimals of a hectare are a square metre, which may be all there is on a map of a drone.
        texts = [f"{value:.{max(4, decimals_of(value, 6))}f}" for value in areas]
        for name in _ACCURACIES.values():
            figures = (estimate[name], *(found[name] or (None, None)))
            texts += ["" if figure is None else f"{figure:.4f}" for figure in figures]
        rows.append({"class_id": entry.value, "name": entry.name, **dict(zip(columns[2:], texts))})
    return write_text(path, ".csv", csv_text(columns, rows))
