"""Splitting samples into training, validation and test parts that lie apart, stratified by class.

Pixels of one polygon, or of one neighbourhood, resemble each other: parts that share them make any network look good.
So whole polygons or whole blocks of the raster are given to a part, and a guard keeps the parts apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import geopandas
import numpy as np
import numpy.typing as npt
import pandas
import shapely

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import SplitResult, SplitSamples
from .classes import FeatureClasses, feature_classes
from .rasters import Grid, RasterReader
from .vectors import Layer, on_grid, read_layer, vector_path, write_layer

PARTS = ("train", "validation", "test")
# Default block: ten patches of the default size, or a fifth of the raster's shorter side where that is less.
_BLOCK_PX = 90
_BLOCKS_PER_SIDE = 5
# Default guard of blocks: the default patch size, so that patches of two parts cannot share a pixel.
_GUARD_PX = 9.0

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Places:
    """Where the features lie, in pixels of the raster: their bounds ``(N, 4)`` as row, col, row, col."""

    bounds: npt.NDArray[np.float64]
    points: bool


def split_samples(job: SplitSamples, context: Context) -> SplitResult:
    """Give every feature a field ``split``: train, validation or test; those within GUARD of another part are dropped.

    METHOD polygons keeps each polygon (or the points of one ``originfid``) together, blocks each block of the raster,
    random nothing. Shares are those of the groups of each class, by largest remainder, at least one in each part.

    Raises:
        BadInput: the layer is empty, there is no such field, a class has fewer groups than there are parts, or METHOD
            needs what was not given.
        DiskFull: no room left.
    """
    if not job.train_share > 0:
        raise BadInput("TRAIN_SHARE is 0.", "Give a share above 0.")
    vector_path(job.output)
    layer = read_layer(job.samples, context)
    classes = feature_classes(layer, job.field, context)
    layer, ids = _with_class(layer, classes)
    method = _method(job, layer)
    guard = job.guard if job.guard is not None else (_GUARD_PX if method == "blocks" else 0.0)
    places, grid = _places(job, layer, method, guard, context)
    shares = _shares(job)
    names = classes.name_of()
    if method == "blocks" and places is not None and grid is not None:
        parts = _split_blocks(job, ids, _blocks(job, places, grid, context), shares, names, context)
    else:
        groups = _groups(layer, ids) if method == "polygons" else np.arange(len(ids), dtype=np.int64)
        parts = _split_groups(ids, groups, shares, job.seed, method, names)
    context.check()
    dropped = _too_near(places, parts, guard) if places is not None and guard > 0 else np.zeros(len(ids), dtype=bool)
    _check_left(ids, parts, dropped, guard, names, shares, context)
    frame = _output_frame(layer, parts)[~dropped]
    path = write_layer(frame, job.output, _geometry_type(frame), layer.frame.crs, context)
    counts = _counts(ids[~dropped], parts[~dropped])
    for part, per_class in counts.items():
        context.log(f"{part}: {sum(per_class.values())} features, per class {per_class}.")
    if dropped.any():
        context.warn(f"{np.count_nonzero(dropped)} features nearer than {guard:g} pixels to another part were dropped.")
    return SplitResult(path, counts, int(dropped.sum()), warnings=tuple(context.warnings))


# --- what is split by what -------------------------------------------------------------------------------------------


def _with_class(layer: Layer, classes: FeatureClasses) -> Tuple[Layer, Numbers]:
    return Layer(layer.frame[classes.known], layer.name), classes.ids[classes.known]


def _is_points(layer: Layer) -> bool:
    return set(layer.frame.geom_type) <= {"Point", "MultiPoint"}


def _origin_field(layer: Layer) -> Optional[str]:
    return next((name for name in layer.fields if name.lower() == "originfid"), None)


def _method(job: SplitSamples, layer: Layer) -> str:
    by_polygon = not _is_points(layer) or _origin_field(layer) is not None
    if job.method == "auto":
        return "polygons" if by_polygon else "blocks"
    if job.method == "polygons" and not by_polygon:
        raise BadInput(
            f"METHOD polygons cannot be used: the points of '{layer.name}' have no field 'originfid'.",
            "Split the polygons themselves, or choose METHOD blocks.",
        )
    return job.method


def _places(
    job: SplitSamples, layer: Layer, method: str, guard: float, context: Context
) -> Tuple[Optional[_Places], Optional[Grid]]:
    """Return where the features lie on the raster, or None where neither blocks nor a guard ask for it."""
    if method != "blocks" and not guard > 0:
        return None, None
    if job.raster is None:
        reason = "METHOD blocks" if method == "blocks" else f"GUARD {guard:g}"
        raise BadInput(f"{reason} needs RASTER: it counts in its pixels.", "Give the image that will be classified.")
    with RasterReader(job.raster) as reader:
        grid = reader.grid
        frame = on_grid(layer, grid, reader.name, context).frame
    xmin, ymin, xmax, ymax = frame.bounds.to_numpy().T
    corners = [grid.index_of(x, y) for x in (xmin, xmax) for y in (ymin, ymax)]
    cols, rows = np.stack([corner[0] for corner in corners]), np.stack([corner[1] for corner in corners])
    bounds = np.stack([rows.min(axis=0), cols.min(axis=0), rows.max(axis=0), cols.max(axis=0)], axis=1)
    points = _is_points(layer)
    if points:
        # A sample is the pixel that holds it, as in its patch.
        bounds = np.floor(bounds)
    return _Places(bounds, points), grid


def _shares(job: SplitSamples) -> Dict[str, float]:
    """Return the share of each part that is wanted at all."""
    rest = 1.0 - job.train_share - job.validation_share
    shares = dict(zip(PARTS, (job.train_share, job.validation_share, rest)))
    return {part: share for part, share in shares.items() if share > 1e-9}


def _groups(layer: Layer, ids: Numbers) -> Numbers:
    """Return the polygon of each feature, numbered from 0; layers that were merged may repeat an id across classes."""
    if not _is_points(layer):
        return np.arange(len(ids), dtype=np.int64)
    origin = layer.frame[_origin_field(layer)].astype(object).where(lambda column: column.notna(), "NULL").astype(str)
    pairs = pandas.MultiIndex.from_arrays([ids, origin])
    return np.asarray(pandas.factorize(pairs)[0], dtype=np.int64)


def _blocks(job: SplitSamples, places: _Places, grid: Grid, context: Context) -> Numbers:
    """Return the block of the raster that holds each feature's middle."""
    size = job.block_size
    if size is None:
        size = max(1, min(_BLOCK_PX, min(grid.width, grid.height) // _BLOCKS_PER_SIDE))
        context.log(f"Blocks of {size:g} x {size:g} pixels.")
    if not size >= 1:
        raise BadInput(f"BLOCK_SIZE is {size:g}, less than a pixel.", "Give 1 or more.")
    middle = (places.bounds[:, :2] + places.bounds[:, 2:]) / 2
    blocks = np.floor(middle / size).astype(np.int64)
    return np.asarray(np.unique(blocks, axis=0, return_inverse=True)[1].reshape(-1), dtype=np.int64)


# --- dealing out -----------------------------------------------------------------------------------------------------


def portions(count: int, shares: Dict[str, float]) -> Dict[str, int]:
    """Return how many of ``count`` groups each part gets: largest remainder, ties to the first part, none empty."""
    whole = sum(shares.values())
    exact = {part: count * share / whole for part, share in shares.items()}
    given = {part: int(number + 1e-9) for part, number in exact.items()}
    order = sorted(shares, key=lambda part: -round(exact[part] - given[part], 9))
    for part in order[: count - sum(given.values())]:
        given[part] += 1
    for part in shares:
        if given[part] == 0 and count >= len(shares):
            given[max(shares, key=lambda other: given[other])] -= 1
            given[part] = 1
    return given


def _split_groups(
    ids: Numbers, groups: Numbers, shares: Dict[str, float], seed: int, method: str, names: Dict[int, str]
) -> npt.NDArray[Any]:
    """Return the part of each feature ``(N,)``; each class deals its own groups."""
    part_of_group = np.empty(int(groups.max()) + 1, dtype=object)
    for value in np.unique(ids):
        own = np.unique(groups[ids == value])
        _check_enough(value, len(own), shares, "polygons" if method == "polygons" else "samples", names)
        shuffled = np.random.default_rng([seed % 2**64, int(value) % 2**64]).permutation(own)
        dealt = np.repeat(list(shares), list(portions(len(own), shares).values()))
        part_of_group[shuffled] = dealt
    return np.asarray(part_of_group[groups])


def _split_blocks(
    job: SplitSamples, ids: Numbers, blocks: Numbers, shares: Dict[str, float], names: Dict[int, str], context: Context
) -> npt.NDArray[Any]:
    """Return the part of each feature ``(N,)``; a block goes to one part with all its classes.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): the class with the fewest undealt blocks deals
    first, each block to the part that lacks most blocks of it.
    """
    values, columns = np.unique(ids, return_inverse=True)
    holds = np.zeros((int(blocks.max()) + 1, len(values)), dtype=bool)
    holds[blocks, columns] = True
    parts = list(shares)
    for column, value in enumerate(values):
        _check_enough(int(value), int(holds[:, column].sum()), shares, "blocks", names)
    lacking = np.array([list(portions(int(count), shares).values()) for count in holds.sum(axis=0)], dtype=np.int64)
    order = np.random.default_rng(job.seed % 2**64).permutation(len(holds))
    part_of_block = np.full(len(holds), -1, dtype=np.int64)
    while np.any(part_of_block < 0):
        context.check()
        left = holds[part_of_block < 0].sum(axis=0)
        rarest = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        for block in order[(part_of_block[order] < 0) & holds[order, rarest]]:
            # Ties go to the part that lacks most over all classes of the block, then to the first.
            need = [(int(lacking[rarest, p]), int(lacking[holds[block], p].sum()), -p) for p in range(len(parts))]
            chosen = max(range(len(parts)), key=lambda p: need[p])
            part_of_block[block] = chosen
            lacking[holds[block], chosen] -= 1
    return np.array(parts, dtype=object)[part_of_block[blocks]]


def _check_enough(value: int, count: int, shares: Dict[str, float], unit: str, names: Dict[int, str]) -> None:
    if count >= len(shares):
        return
    fewer = "ask for fewer parts: VALIDATION_SHARE 0, or TRAIN_SHARE + VALIDATION_SHARE 1 (no test part)."
    raise BadInput(
        f"Class {value} ({names[int(value)]}) has {count} {unit}, fewer than the {len(shares)} parts "
        f"({', '.join(shares)}).",
        f"Choose a smaller BLOCK_SIZE, or {fewer}" if unit == "blocks" else f"Add {unit} of this class, or {fewer}",
    )


# --- guard -----------------------------------------------------------------------------------------------------------


def _too_near(places: _Places, parts: npt.NDArray[Any], guard: float) -> npt.NDArray[np.bool_]:
    """Return which features to drop: training gives way to validation and test, validation to test.

    The distance is max(|rows|, |columns|): between pixels for points, between bounding boxes otherwise.
    """
    dropped = np.zeros(len(parts), dtype=bool)
    for place in (1, 2):
        kept = np.flatnonzero((parts == PARTS[place]) & ~dropped)
        giving = np.flatnonzero(np.isin(parts, PARTS[:place]) & ~dropped)
        if len(kept) and len(giving):
            near = _near_points if places.points else _near_boxes
            dropped[giving[near(places.bounds[giving], places.bounds[kept], guard)]] = True
    return dropped


def _near_points(own: npt.NDArray[np.float64], others: npt.NDArray[np.float64], guard: float) -> npt.NDArray[np.bool_]:
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(others[:, :2]).query(own[:, :2], k=1, p=np.inf, distance_upper_bound=guard)
    return np.asarray(distance < guard)


def _near_boxes(own: npt.NDArray[np.float64], others: npt.NDArray[np.float64], guard: float) -> npt.NDArray[np.bool_]:
    tree = shapely.STRtree(shapely.box(*others.T))
    # "Nearer than" leaves out the distance itself, and the tree counts a touch as an intersection.
    reach = guard * (1 - 1e-9)
    found = tree.query(shapely.box(*(own + np.array([-reach, -reach, reach, reach])).T))[0]
    return np.isin(np.arange(len(own)), found)


def _check_left(
    ids: Numbers, parts: npt.NDArray[Any], dropped: npt.NDArray[np.bool_], guard: float, names: Dict[int, str],
    shares: Dict[str, float], context: Context,
) -> None:  # fmt: skip
    for value in np.unique(ids):
        for part in shares:
            if np.any((ids == value) & (parts == part) & ~dropped):
                continue
            said = f"Class {value} ({names[int(value)]}) has no feature left in the part '{part}'"
            cause = f" at GUARD {guard:g}" if np.any((ids == value) & (parts == part)) else ""
            if part == "train":
                raise BadInput(f"{said}{cause}.", "Choose a smaller GUARD or BLOCK_SIZE, or another SEED.")
            context.warn(f"{said}{cause}; a smaller GUARD or BLOCK_SIZE, or another SEED, may help.")


# --- output ----------------------------------------------------------------------------------------------------------


def _output_frame(layer: Layer, parts: npt.NDArray[Any]) -> geopandas.GeoDataFrame:
    frame = layer.frame.drop(columns=[name for name in layer.fields if name.lower() == "split"])
    frame["split"] = parts
    kinds = set(frame.geom_type)
    multi = {kind for kind in kinds if kind.startswith("Multi")}
    if multi and len(kinds) > len(multi):
        # A GeoPackage layer has one type: where single and multiple shapes mix, all are multiple.
        geometries = np.asarray(frame.geometry.values, dtype=object)
        frame = frame.set_geometry(
            geopandas.GeoSeries([_as_multi(part) for part in geometries], index=frame.index, crs=frame.crs)
        )
    return frame


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


def _counts(ids: Numbers, parts: npt.NDArray[Any]) -> Dict[str, Dict[str, int]]:
    counts: Dict[str, Dict[str, int]] = {}
    present: List[str] = [part for part in PARTS if np.any(parts == part)]
    for part in present:
        values, number = np.unique(ids[parts == part], return_counts=True)
        counts[part] = {str(value): int(count) for value, count in zip(values, number)}
    return counts
