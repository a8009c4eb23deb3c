"""Where features lie on a grid, and which of them lie nearer to others than a guard.

Distances are max(|rows|, |columns|): between pixels for points, between bounding boxes of single parts otherwise. On a
grid in longitude and latitude, what lies on both sides of the antimeridian is near.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.crs import CRS

from ..tasks.context import Context
from ..tasks.errors import BadInput
from .lengths import full_turn, map_turn
from .rasters import Grid
from .vectors import Layer

Boxes = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Pixel of the grid that a layer gets without a raster: fine enough for every length.
_DEGREE_PIXEL = 1e-5
# Parts that are compared with others between two looks for a cancel.
_CHUNK = 50_000
_FEW = 1000  # whose neighbours are held, all of them


@dataclass(frozen=True)
class Places:
    """Features on a grid.

    Attributes:
        boxes: bounds of every single part in pixels, ``(M, 4)`` as row, col, row, col; the pixel itself for points.
        features: the feature of every part ``(M,)``.
        middles: row and column of the middle of every feature ``(N, 2)``.
        points: True where distances are those between pixels.
        turn: columns once around the earth; None on a plane.
    """

    boxes: Boxes
    features: npt.NDArray[np.int64]
    middles: npt.NDArray[np.float64]
    points: bool
    turn: Optional[float] = None

    def window(self) -> Tuple[float, float, float, float]:
        """Return first row, first column, last row, last column of all parts."""
        top, left = self.boxes[:, :2].min(axis=0)
        bottom, right = self.boxes[:, 2:].max(axis=0)
        return float(top), float(left), float(bottom), float(right)


def is_points(layer: Layer) -> bool:
    """Tell whether a layer holds points alone."""
    return set(layer.frame.geom_type) <= {"Point", "MultiPoint"}


def places_on(layer: Layer, grid: Grid, whole_pixels: bool) -> Places:
    """Return where the features of a layer, already in the CRS of ``grid``, lie on it.

    Args:
        layer: the features.
        grid: a raster's, or that of `grid_of`.
        whole_pixels: a point is the pixel that holds it, as in its patch.

    Raises:
        BadInput: a feature lies where the grid's CRS does not reach.
    """
    parts, features = shapely.get_parts(np.asarray(layer.frame.geometry.values, dtype=object), return_index=True)
    bounds = _bounds(parts, map_turn(grid.crs))
    if not np.isfinite(bounds).all():
        lost = len(np.unique(features[~np.isfinite(bounds).all(axis=1)]))
        raise BadInput(
            f"{lost} features of '{layer.name}' lie where the CRS of the image does not reach.",
            "Remove them, or choose an image in another CRS.",
        )
    boxes = _on_pixels(bounds, grid)
    turn = full_turn(grid)
    if turn is not None:
        boxes = _around(boxes, features, grid.width / 2, turn)
    points = is_points(layer)
    if points and whole_pixels:
        boxes = np.floor(boxes)
    return Places(boxes, features.astype(np.int64), _middles(boxes, features), points, turn)


def grid_of(layer: Layer) -> Grid:
    """Return a fine grid over a layer in its own CRS, for lengths in metres or map units without a raster.

    It begins at the upper left corner of the features; on the globe, at the end of the widest gap between them.
    """
    crs = None if layer.frame.crs is None else CRS.from_wkt(layer.frame.crs.to_wkt())
    turn = map_turn(crs)
    bounds = _bounds(shapely.get_parts(np.asarray(layer.frame.geometry.values, dtype=object)), turn)
    west, south = bounds[:, :2].min(axis=0).tolist()
    east, north = bounds[:, 2:].max(axis=0).tolist()
    pixel = 1.0
    if turn is not None:
        pixel = _DEGREE_PIXEL * turn / 360
        middles = np.sort((bounds[:, 0] + bounds[:, 2]) / 2 % turn)
        west = float(middles[(np.argmax(np.diff(middles, append=middles[0] + turn)) + 1) % len(middles)])
        east = west + float(((middles - west) % turn).max())
    width, height = (max(1, int(np.ceil(length / pixel))) for length in (east - west, north - south))
    return Grid(width, height, Affine(pixel, 0.0, west, 0.0, -pixel, north), crs)


def nearer(places: Places, own: Mask, others: Mask, guard: Tuple[float, float], context: Context) -> Mask:
    """Return which features of ``own`` lie nearer than ``guard`` to one of ``others``, all masks ``(N,)``.

    ``guard`` is given in rows and columns; the distance itself is not near.
    """
    near = np.zeros(len(own), dtype=bool)
    mine, theirs = np.flatnonzero(own[places.features]), np.flatnonzero(others[places.features])
    if len(mine) == 0 or len(theirs) == 0 or not guard[0] > 0:
        return near
    boxes, look = _compared(places, mine, theirs, guard)
    for start in range(0, len(mine), _CHUNK):
        context.check()
        some = mine[start : start + _CHUNK]
        near[places.features[some[look.near(boxes[some], guard[0])]]] = True
    return near


def smallest_distance(
    places: Places, own: Mask, others: Mask, reach: Tuple[float, float], context: Context
) -> Optional[float]:
    """Return how near a feature of ``own`` comes to one of ``others``, masks ``(N,)``, as a share of ``reach``.

    ``reach`` is given in rows and columns; None where none is nearer than that.
    """
    mine, theirs = np.flatnonzero(own[places.features]), np.flatnonzero(others[places.features])
    if len(mine) == 0 or len(theirs) == 0:
        return None
    boxes, look = _compared(places, mine, theirs, reach)
    least = reach[0]
    for start in range(0, len(mine), _FEW):
        context.check()
        # No more than what is known already is looked for: the first find most, and are few.
        least = min(least, look.smallest(boxes[mine[start : start + _FEW]], least))
        if least == 0:
            break
    return None if least == reach[0] else least / reach[0]


def _compared(
    places: Places, mine: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64], guard: Tuple[float, float]
) -> Tuple[Boxes, Union[_Points, _Boxes]]:
    """Return all boxes, stretched so that the guard is the same number both ways, and what finds some near to them."""
    # Where the guard is the whole circle, columns count for nothing.
    stretch = np.array([1.0, guard[0] / guard[1]] * 2)
    boxes = places.boxes * stretch
    targets = boxes[theirs]
    if places.turn is not None:
        targets = _with_turns(targets, boxes[mine], places.turn * stretch[1], guard[0])
    return boxes, _Points(targets) if places.points else _Boxes(targets)


# --- on the grid -----------------------------------------------------------------------------------------------------


def _bounds(parts: npt.NDArray[Any], turn: Optional[float]) -> Boxes:
    """Return the bounds ``(M, 4)`` as xmin, ymin, xmax, ymax; a part across the antimeridian stays narrow."""
    bounds = shapely.bounds(parts)
    if turn is None:
        return np.asarray(bounds, dtype=np.float64)
    # Reprojected vertices jump from one end of the world to the other: each is brought near to the first.
    for part in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > turn / 2):
        x = shapely.get_coordinates(parts[part])[:, 0]
        x = x - turn * np.round((x - x[0]) / turn)
        bounds[part, [0, 2]] = x.min(), x.max()
    return np.asarray(bounds, dtype=np.float64)


def _on_pixels(bounds: Boxes, grid: Grid) -> Boxes:
    xmin, ymin, xmax, ymax = bounds.T
    corners = [grid.index_of(x, y) for x in (xmin, xmax) for y in (ymin, ymax)]
    cols, rows = np.stack([corner[0] for corner in corners]), np.stack([corner[1] for corner in corners])
    return np.stack([rows.min(axis=0), cols.min(axis=0), rows.max(axis=0), cols.max(axis=0)], axis=1)


def _around(boxes: Boxes, features: npt.NDArray[Any], centre: float, turn: float) -> Boxes:
    """Turn every feature by whole circles to the side of the world where the raster is, its parts together."""
    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    first = middle[np.searchsorted(features, features)]
    first = first - turn * np.floor((first - centre) / turn + 0.5)
    shift = turn * np.round((first - middle) / turn)
    return boxes + np.stack([np.zeros_like(shift), shift] * 2, axis=1)


def _middles(boxes: Boxes, features: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    starts = np.flatnonzero(np.diff(features, prepend=-1))
    low, high = np.minimum.reduceat(boxes[:, :2], starts), np.maximum.reduceat(boxes[:, 2:], starts)
    return np.asarray((low + high) / 2)


# --- nearness --------------------------------------------------------------------------------------------------------


def _with_turns(targets: Boxes, own: Boxes, turn: float, guard: float) -> Boxes:
    """Return the targets, and those of them that come near to ``own`` once around the earth."""
    low, high = own[:, 1].min() - guard, own[:, 3].max() + guard
    copies = [targets]
    for shift in (-turn, turn):
        moved = targets + np.array([0.0, shift, 0.0, shift])
        copies.append(moved[(moved[:, 3] >= low) & (moved[:, 1] <= high)])
    return np.concatenate(copies)


class _Points:
    def __init__(self, targets: Boxes) -> None:
        from scipy.spatial import cKDTree

        self._tree = cKDTree(targets[:, :2])

    def near(self, boxes: Boxes, guard: float) -> Mask:
        # The bound is exclusive.
        distance, _ = self._tree.query(boxes[:, :2], k=1, p=np.inf, distance_upper_bound=guard)
        return np.asarray(distance < guard)

    def smallest(self, boxes: Boxes, reach: float) -> float:
        """Return the smallest distance, or ``reach`` where none is less."""
        distance, _ = self._tree.query(boxes[:, :2], k=1, p=np.inf, distance_upper_bound=reach)
        return min(reach, float(distance.min()))


class _Boxes:
    def __init__(self, targets: Boxes) -> None:
        self._targets = targets
        self._tree = shapely.STRtree(shapely.box(*targets.T))

    def smallest(self, boxes: Boxes, reach: float) -> float:
        """Return the smallest distance, or ``reach`` where none is less."""
        grown = shapely.box(*(boxes + np.array([-reach, -reach, reach, reach])).T)
        own, other = (side[place] for side, place in zip((boxes, self._targets), self._tree.query(grown)))
        if len(own) == 0:
            return reach
        gaps = np.maximum(other[:, :2] - own[:, 2:], own[:, :2] - other[:, 2:]).max(axis=1)
        return min(reach, max(0.0, float(gaps.min())))

    def near(self, boxes: Boxes, guard: float) -> Mask:
        # "Nearer than" leaves out the distance itself, and the tree counts a touch as an intersection.
        reach = guard * (1 - 1e-9)
        found = self._tree.query(shapely.box(*(boxes + np.array([-reach, -reach, reach, reach])).T))[0]
        return np.isin(np.arange(len(boxes)), found)
