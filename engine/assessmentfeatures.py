"""Reference points and polygons: the pixels of the map that they label, and what cannot be compared."""

from __future__ import annotations

from typing import Any, Optional, Tuple

import numpy as np
import pandas
import shapely

from ..tasks.classtable import Legend
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import Assess
from . import assessmentdesign as design
from .assessmenttally import Indices, Pixels
from .classes import FeatureClasses
from .crosswalks import Crosswalk
from .featurepixels import feature_pixels
from .rasters import Grid
from .vectors import Layer

# Field of points that were drawn from polygons: the polygon's id.
ORIGIN = "originfid"


def units_of(
    job: Assess, layer: Layer, classes: FeatureClasses, context: Context
) -> Tuple[Optional[Indices], Optional[design.Strata]]:
    """Return the cluster or stratum of each feature ``(F,)`` (None: each polygon is one), and a sample's strata.

    Raises:
        BadInput: the layer does not have the DESIGN.
    """
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


def pixels_of_layer(
    layer: Layer, classes: FeatureClasses, units: Optional[Indices], grid: Grid, context: Context, once: bool = False
) -> Pixels:
    """Return the pixels of all features of known class by ascending row; without ``units`` each polygon is one.

    Points count one by one. A pixel that polygons of one class share counts once; one that two classes claim is left
    out.

    Args:
        layer: the features.
        classes: of each feature.
        units: cluster or stratum of each feature ``(F,)``.
        grid: of the map.
        context: for progress and warnings.
        once: a pixel counts once also where several points lie in it, as in a sample that was drawn without
            replacement; where they have two classes it is left out.
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
        if once:
            order = _drawn_once(keys, classes.ids[features], order, layer, points[inside], context)
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


def _drawn_once(keys: Indices, ids: Indices, order: Indices, layer: Layer, points: Any, context: Context) -> Indices:
    """Return which points of a sample without replacement count, by ascending pixel: one of each, none of two classes.

    More of a pixel would count it more than the rest of its class, and make the intervals too narrow.

    Args:
        keys: pixel of each point ``(N,)``.
        ids: its reference class.
        order: of the points by pixel.
        layer: of the points.
        points: their geometries.
        context: takes the warnings.
    """
    if not len(order):
        return order
    starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[0]] - 1))
    ordered = ids[order]
    clear = np.minimum.reduceat(ordered, starts) == np.maximum.reduceat(ordered, starts)
    more = len(order) - len(starts)
    if more:
        context.warn(
            f"{more} point{'s' if more > 1 else ''} of '{layer.name}' lie{'' if more > 1 else 's'} in the pixel of "
            "another one: the sample was drawn without replacement, so each pixel counts once."
        )
    if not clear.all():
        first = points[order[starts[~clear][0]]]
        context.warn(
            f"In {np.count_nonzero(~clear)} of these pixels the points have different reference classes; they are left "
            f"out. The first lies at {shapely.get_x(first):.10g}, {shapely.get_y(first):.10g}. Keep the right point."
        )
    return np.asarray(order[starts[clear]])


# --- what cannot be compared -----------------------------------------------------------------------------------------


def refuse_points(layer: Layer, classes: FeatureClasses) -> None:
    """Refuse ERODE of points, which have no boundary.

    Raises:
        BadInput: a feature of known class is a point.
    """
    chosen = np.asarray(layer.frame.geometry.values, dtype=object)[classes.known]
    if (shapely.get_dimensions(chosen) == 0).any():
        raise BadInput(
            f"ERODE leaves out the boundaries of polygons, but '{layer.name}' holds points.",
            "Set ERODE to 0, or give polygons or a reference raster.",
        )


def nameless(legend: Legend) -> bool:
    """Tell whether nothing gives the classes names: neither the map nor the job."""
    return not legend.path and legend.nomenclature == "none" and not legend.layer_classes


def refuse_names(layer: Layer, field: str, map_name: str, crosswalk: Optional[Crosswalk]) -> None:
    """Refuse class names where neither the map nor the crosswalk tells names that they could be matched with.

    Raises:
        BadInput: the field holds such names.
    """
    column = layer.frame[field].dropna().astype(str).str.strip() if field in layer.fields else None
    if column is not None and crosswalk is not None:
        column = column[~column.isin(list(crosswalk.targets))]
    if column is not None and not column.str.fullmatch(r"[+-]?\d+(\.0*)?|").all():
        raise BadInput(
            f"The field '{field}' of '{layer.name}' holds class names, but the map '{map_name}' carries none.",
            "Choose a field with class numbers, or turn the names into numbers of the map with CROSSWALK.",
        )
