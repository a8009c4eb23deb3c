"""Splitting samples into training, validation and test parts that lie apart, or into folds, stratified by class.

Pixels of one polygon, of one neighbourhood or of one scene resemble each other: parts that share them make any network
look good. So whole polygons, blocks or scenes are given to a part, and a guard keeps the parts apart.
"""

from __future__ import annotations

import contextlib
from typing import Any, Dict, List, Optional, Tuple

import geopandas
import numpy as np
import numpy.typing as npt
import shapely

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import SplitResult, SplitSamples
from .classes import FeatureClasses, feature_classes
from .dealing import Numbers, Plan, deal_by_class, deal_together
from .lengths import most_pixels
from .places import Mask, Places, grid_of, nearer, places_on, smallest_distance
from .rasters import Grid, RasterReader
from .splitgroups import (
    Grouping,
    block_groups,
    column_groups,
    column_of,
    counts_by_part,
    method_of,
    parts_of,
    polygon_groups,
    single_features,
    texts_of,
    unit_text,
)
from .vectors import Layer, on_grid, read_layer, vector_path, write_layer

PARTS = ("train", "validation", "test")
# Default guard of blocks: the default patch size, so that patches of two parts cannot share a pixel.
_GUARD_PX = 9.0
# Without an image, samples are near up to the default patch of Landsat.
_NEAR_M = 270.0


def split_samples(job: SplitSamples, context: Context) -> SplitResult:
    """Give every feature a field ``split`` (train, validation or test), or with FOLDS a field ``fold`` (1 to FOLDS).

    METHOD polygons keeps each polygon (or the points of one ``originfid``) together, blocks each block of the raster,
    scene each scene, column what a field says; random nothing. Shares are those of the groups of each class, by largest
    remainder, at least one in each part. Features nearer than GUARD to another part are dropped, or marked: ``near`` is
    1 and ``split`` empty. With folds they are marked alone, for each fold trains against the others. The result
    depends on the features and the seed, not on the order of the features.

    Raises:
        BadInput: the layer is empty, there is no such field, a class has fewer groups than there are parts, METHOD
            needs what was not given, or the column holds parts and other values.
        DiskFull: no room left.
    """
    if not job.train_share > 0 and not job.folds:
        raise BadInput("TRAIN_SHARE is 0.", "Give a share above 0.")
    vector_path(job.output)
    layer = read_layer(job.samples, context)
    classes = feature_classes(layer, job.field, context)
    layer, ids = _with_class(layer, classes)
    names = classes.name_of()
    method = method_of(job, layer)
    _tell_unused(job, method, context)
    where = _Where.of(job, layer, method, context)
    shares = _shares(job)
    parts = _parts(job, layer, ids, method, where, shares, names, context)
    order = tuple(shares) if job.folds else PARTS
    context.check()
    near = where.near(parts, order, bool(job.folds), context)
    left_out = near & (not job.folds) | (parts == "")
    _check_left(ids, parts, left_out, where, names, tuple(shares), method, context)
    frame = _output_frame(job, layer, parts, near)
    if job.near == "drop" and not job.folds:
        frame = frame[~left_out]
    path = write_layer(frame, job.output, _geometry_type(frame), layer.frame.crs, context)
    counts = counts_by_part(ids[~left_out], parts[~left_out], order)
    _tell(job, counts, near, parts, where, context)
    where.tell_distance(layer, np.where(left_out, "", parts), order, context)
    written = len(frame)
    marked = int(near.sum()) if written == len(ids) else 0
    return SplitResult(path, counts, len(ids) - written, marked=marked, warnings=tuple(context.warnings))


def _with_class(layer: Layer, classes: FeatureClasses) -> Tuple[Layer, Numbers]:
    return Layer(layer.frame[classes.known], layer.name), classes.ids[classes.known]


def _tell_unused(job: SplitSamples, method: str, context: Context) -> None:
    if job.column and method not in ("scene", "column"):
        context.warn(f"COLUMN '{job.column}' is not used: METHOD {method} does not read it.")
    if job.folds:
        context.log(f"{job.folds} folds of one size: TRAIN_SHARE and VALIDATION_SHARE are not used.")


def _shares(job: SplitSamples) -> Dict[str, float]:
    """Return the share of each part that is wanted at all, or of the folds."""
    if job.folds:
        return {str(fold): 1.0 / job.folds for fold in range(1, job.folds + 1)}
    rest = 1.0 - job.train_share - job.validation_share
    shares = dict(zip(PARTS, (job.train_share, job.validation_share, rest)))
    return {part: share for part, share in shares.items() if share > 1e-9}


# --- where features lie ----------------------------------------------------------------------------------------------


class _Where:
    """Where the features lie, where blocks or a guard ask for it; ``places`` and ``grid`` are None otherwise."""

    def __init__(
        self, job: SplitSamples, guard: float, places: Optional[Places], grid: Optional[Grid], name: str
    ) -> None:
        self.places = places
        self.grid = grid
        self.name = name
        self._job = job
        self._guard = guard
        # A guard that was not given counts in pixels.
        self._unit = job.unit if job.guard is not None else "pixels"

    @classmethod
    def of(cls, job: SplitSamples, layer: Layer, method: str, context: Context) -> _Where:
        """Bring the features onto the raster, or onto a grid of their own CRS without one."""
        default = _GUARD_PX if method == "blocks" and job.raster is not None else 0.0
        guard = job.guard if job.guard is not None else default
        if method != "blocks" and not guard > 0:
            return cls(job, guard, None, None, "")
        if job.raster is not None:
            return cls(job, guard, *_placed(job, layer, context))
        if job.unit == "pixels":
            reason = "METHOD blocks" if method == "blocks" else f"GUARD {guard:g}"
            raise BadInput(
                f"{reason} needs RASTER: it counts in its pixels.", "Give the image that will be classified."
            )
        if method == "blocks" and job.block_size is None:
            raise BadInput("METHOD blocks needs RASTER or BLOCK_SIZE.", "Give one of them.")
        if not guard > 0:
            context.log("Without RASTER and GUARD, blocks may touch: samples on both sides of a border are kept.")
        return cls(job, guard, *_placed(job, layer, context))

    def near(self, parts: npt.NDArray[Any], order: Tuple[str, ...], folds: bool, context: Context) -> Mask:
        """Return which features are too near to another part.

        Training gives way to validation and test, validation to test; of folds, both sides are near.
        """
        near = np.zeros(len(parts), dtype=bool)
        if self.places is None or self.grid is None or not self._guard > 0:
            return near
        # Metres take the most pixels where these are smallest on the ground: the guard holds everywhere.
        guard = most_pixels(self._guard, self._unit, self.grid, self.name, self.places.window())
        for position, part in enumerate(order):
            context.check()
            if folds:
                near |= nearer(self.places, parts == part, (parts != part) & (parts != ""), guard, context)
            elif position:
                giving = np.isin(parts, order[:position]) & ~near
                near |= nearer(self.places, giving, (parts == part) & ~near, guard, context)
        return near

    def tell_distance(self, layer: Layer, parts: npt.NDArray[Any], order: Tuple[str, ...], context: Context) -> None:
        """Tell how near samples of parts that judge each other come, where they are near and there is no guard.

        Args:
            layer: the features.
            parts: of each feature, "" where it is in none ``(N,)``.
            order: all parts or folds.
            context: takes the sentence.
        """
        if self._guard > 0:
            return
        # Where lengths cannot be told, it has been split all the same.
        with contextlib.suppress(BadInput):
            places, grid, name = self.places, self.grid, self.name
            if places is None or grid is None:
                places, grid, name = _placed(self._job, layer, Context())
            if self._job.raster is not None:
                unit, length, reach = f" pixels of '{name}'", _GUARD_PX, (_GUARD_PX, _GUARD_PX)
            else:
                unit, length = " m", _NEAR_M
                reach = most_pixels(_NEAR_M, "metres", grid, name, places.window())
            who, pairs = _judging(parts, order)
            found = [smallest_distance(places, one, other, reach, context) for one, other in pairs]
            least = min((share for share in found if share is not None), default=None)
            if least is not None:
                # How many pixels a patch has is known with the image alone.
                tell = context.log if self._job.raster is None else context.warn
                between = "" if places.points else " (measured between the rectangles that hold them)"
                tell(
                    f"{who} come as near as {least * length:.3g}{unit}{between}: larger patches share pixels, "
                    "which makes accuracies look better than they are; GUARD keeps them apart."
                )

    def guard_text(self) -> str:
        """Return the guard with its unit."""
        return f"{self._guard:g} pixels" if self._unit == "pixels" else f"{self._guard:g}{unit_text(self._unit)}"


def _placed(job: SplitSamples, layer: Layer, context: Context) -> Tuple[Places, Grid, str]:
    """Return where the features lie on the raster, or on a grid of their own CRS without one; the grid and its name."""
    if job.raster is None:
        grid = grid_of(layer)
        return places_on(layer, grid, False), grid, layer.name
    with RasterReader(job.raster) as reader:
        grid, name = reader.grid, reader.name
        return places_on(on_grid(layer, grid, name, context), grid, True), grid, name


def _judging(parts: npt.NDArray[Any], order: Tuple[str, ...]) -> Tuple[str, List[Tuple[Mask, Mask]]]:
    """Return what learns and what judges it ``(N,)``, and what a sentence calls them."""
    if order != PARTS:
        return "Samples of two folds", [
            (parts == fold, np.isin(parts, order[number:])) for number, fold in enumerate(order[:-1], start=1)
        ]
    judge = "test" if np.any(parts == "test") else "validation"
    return f"Training and {judge} samples", [(parts == "train", parts == judge)]


# --- the parts -------------------------------------------------------------------------------------------------------


def _parts(
    job: SplitSamples, layer: Layer, ids: Numbers, method: str, where: _Where, shares: Dict[str, float],
    names: Dict[int, str], context: Context,
) -> npt.NDArray[Any]:  # fmt: skip
    """Return the part or fold of each feature as text ``(N,)``; empty where a column of parts is."""
    if method in ("scene", "column"):
        field = column_of(job, layer, method)
        texts = texts_of(layer, field)
        parts = parts_of(texts, field, layer) if method == "column" else None
        if parts is not None:
            _check_no_folds(job, field)
            context.log(f"The field '{field}' holds the parts themselves: the shares and the seed are not used.")
            return parts
        if method == "column":
            context.log(f"The field '{field}' holds groups, each of which goes whole to one part.")
        unit = "scenes" if method == "scene" else f"groups of '{field}'"
        grouping = column_groups(texts, field, unit, context)
    elif where.places is not None and where.grid is not None and method == "blocks":
        grouping = block_groups(job, ids, where.places, where.grid, where.name, len(shares), context)
    elif method == "polygons":
        grouping = polygon_groups(layer, ids)
    else:
        grouping = Grouping(single_features(layer), False, "samples")
    plan = Plan(shares, bool(job.folds), grouping.unit, names, _remedy(job, grouping))
    if grouping.mixed:
        return deal_together(ids, grouping.groups, plan, job.seed, context)
    return deal_by_class(ids, grouping.groups, plan, job.seed)


def _check_no_folds(job: SplitSamples, field: str) -> None:
    if job.folds:
        raise BadInput(
            f"FOLDS {job.folds} cannot be made: the field '{field}' holds the parts themselves.",
            "Choose FOLDS 0, or another COLUMN.",
        )


def _remedy(job: SplitSamples, grouping: Grouping) -> str:
    fewer = (
        "choose fewer FOLDS."
        if job.folds
        else "ask for fewer parts: VALIDATION_SHARE 0, or TRAIN_SHARE + VALIDATION_SHARE 1 (no test part)."
    )
    if grouping.unit == "blocks":
        return f"Choose a smaller BLOCK_SIZE, or {fewer}"
    return f"Add {'groups' if grouping.unit.startswith('groups') else grouping.unit} of this class, or {fewer}"


def _check_left(
    ids: Numbers, parts: npt.NDArray[Any], left_out: Mask, where: _Where, names: Dict[int, str],
    wanted: Tuple[str, ...], method: str, context: Context,
) -> None:  # fmt: skip
    """Warn of a class that a part lacks; in training it must not be lacking, unless the user's own column says so."""
    if not np.any(~left_out):
        raise BadInput("No feature is left in any part.", "Choose a smaller GUARD, or another COLUMN.")
    own = method == "column"
    if own:
        wanted = tuple(part for part in wanted if np.any(parts == part))
    for value in np.unique(ids):
        for part in wanted:
            if np.any((ids == value) & (parts == part) & ~left_out):
                continue
            fold = "fold" if part.isdigit() else "part"
            said = f"Class {value} ({names[int(value)]}) has no feature left in the {fold} '{part}'"
            cause = f" at GUARD {where.guard_text()}" if np.any((ids == value) & (parts == part)) else ""
            if part == "train" and not own:
                raise BadInput(f"{said}{cause}.", "Choose a smaller GUARD or BLOCK_SIZE, or another SEED.")
            context.warn(f"{said}{cause}; a smaller GUARD or BLOCK_SIZE, or another SEED, may help.")


# --- output ----------------------------------------------------------------------------------------------------------


def _output_frame(job: SplitSamples, layer: Layer, parts: npt.NDArray[Any], near: Mask) -> geopandas.GeoDataFrame:
    """Return the features with ``split`` or ``fold``, and ``near`` where they are marked."""
    name = "fold" if job.folds else "split"
    marking = bool(job.folds) or job.near == "mark"
    made = {name, "near"} if marking else {name}
    frame = layer.frame.drop(columns=[field for field in layer.fields if field.lower() in made])
    frame[name] = parts.astype(np.int32) if job.folds else np.where(near, "", parts)
    if marking:
        frame["near"] = near.astype(np.int32)
    kinds = set(frame.geom_type)
    multi = {kind for kind in kinds if kind.startswith("Multi")}
    if multi and len(kinds) > len(multi):
        # A GeoPackage layer has one type: where single and multiple shapes mix, all are multiple.
        geometries = np.asarray(frame.geometry.values, dtype=object)
        frame = frame.set_geometry(
            geopandas.GeoSeries([_as_multi(part) for part in geometries], index=frame.index, crs=frame.crs)
        )
    return frame


def _tell(
    job: SplitSamples, counts: Dict[str, Dict[str, int]], near: Mask, parts: npt.NDArray[Any], where: _Where,
    context: Context,
) -> None:  # fmt: skip
    for part, per_class in counts.items():
        called = f"fold {part}" if job.folds else part
        context.log(f"{called}: {sum(per_class.values())} features, per class {per_class}.")
    done = "dropped" if job.near == "drop" and not job.folds else "marked"
    if near.any():
        other = "fold" if job.folds else "part"
        context.warn(
            f"{np.count_nonzero(near)} features nearer than {where.guard_text()} to another {other} were {done}."
        )
        if job.folds:
            context.log("Train on features with near = 0 only; each fold can be tested as a whole.")
    missing = int(np.count_nonzero(parts == ""))
    if missing:
        fate = "were dropped" if done == "dropped" else "stay without one"
        context.warn(f"{missing} features without a part in the column {fate}.")


def _as_multi(geometry: Any) -> Any:
    makers = {
        "Point": shapely.MultiPoint,
        "LineString": shapely.MultiLineString,
        "Polygon": shapely.MultiPolygon,
    }
    maker = makers.get(geometry.geom_type)
    return geometry if maker is None else maker([geometry])


def _geometry_type(frame: geopandas.GeoDataFrame) -> str:
    kinds = set(frame.geom_type)
    return str(next(iter(kinds))) if len(kinds) == 1 else "Unknown"
