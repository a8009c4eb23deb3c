"""What a split keeps together: polygons, blocks, scenes, or what a column says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import numpy.typing as npt
import pandas

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import SplitSamples
from .dealing import Numbers, fewest_groups
from .lengths import in_pixels
from .places import Places, is_points
from .rasters import Grid, reading
from .variograms import measure_variogram
from .vectors import Layer
from .wording import first_of

# Fields that name the scene, in the order in which they are tried; 'Merge vector layers' writes `layer`.
SCENE_FIELDS = ("scene", "layer", "image", "tile")
# Words for the parts, in lower case.
SYNONYMS = {
    "train": "train", "training": "train", "trn": "train",
    "validation": "validation", "validate": "validation", "valid": "validation", "val": "validation",
    "dev": "validation",
    "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip
# Default side of blocks: ten patches of the default size.
BLOCK_PX = 90
# What is left of that where classes need more blocks: one patch.
_SMALLEST_PX = 9
_BLOCKS_PER_SIDE = 5
# Values that a message lists.
_MOST_LISTED = 12


@dataclass(frozen=True)
class Grouping:
    """Groups of features.

    Attributes:
        groups: group of each feature ``(N,)``, from 0; it does not depend on the order of the features.
        mixed: True where a group may hold several classes.
        unit: what a message calls the groups.
    """

    groups: Numbers
    mixed: bool
    unit: str


def method_of(job: SplitSamples, layer: Layer) -> str:
    """Return METHOD, with auto decided.

    Raises:
        BadInput: there is nothing that tells polygons.
    """
    by_polygon = not is_points(layer) or _origin_field(layer) is not None
    if job.method == "auto":
        return "polygons" if by_polygon else "blocks"
    if job.method == "polygons" and not by_polygon:
        raise BadInput(
            f"METHOD polygons cannot be used: the points of '{layer.name}' have no field 'originfid'.",
            "Split the polygons themselves, or choose METHOD blocks.",
        )
    return job.method


# --- a column --------------------------------------------------------------------------------------------------------


def column_of(job: SplitSamples, layer: Layer, method: str) -> str:
    """Return the field that METHOD scene or column reads.

    Raises:
        BadInput: it is not given, or there is none.
    """
    if job.column:
        if job.column not in layer.fields:
            raise BadInput(
                f"'{layer.name}' has no field '{job.column}'.", f"Its fields are: {', '.join(layer.fields) or 'none'}."
            )
        return job.column
    if method == "column":
        raise BadInput("METHOD column needs COLUMN.", "Choose the field that holds the part, or the group.")
    by_name = {field.lower(): field for field in reversed(layer.fields)}
    found = next((by_name[name] for name in SCENE_FIELDS if name in by_name), None)
    if found is None:
        raise BadInput(
            f"METHOD scene finds no field {', '.join(SCENE_FIELDS[:-1])} or {SCENE_FIELDS[-1]} in '{layer.name}'.",
            f"Choose COLUMN among its fields: {', '.join(layer.fields) or 'none'}.",
        )
    return found


def texts_of(layer: Layer, field: str) -> npt.NDArray[Any]:
    """Return the values of a field as text ``(N,)``, empty for NULL; 3 and 3.0 are one value."""
    column = layer.frame[field]
    if pandas.api.types.is_float_dtype(column):
        whole = column.dropna()
        if (whole == np.floor(whole)).all():
            column = column.astype("Int64")
    known = column.notna().to_numpy(dtype=bool)
    texts = column.astype(object).astype(str).str.strip().to_numpy(dtype=object)
    return np.where(known, texts, "")


def parts_of(texts: npt.NDArray[Any], field: str, layer: Layer) -> Optional[npt.NDArray[Any]]:
    """Return the parts ``(N,)`` that a column names, empty where it is; None for a column of groups.

    Raises:
        BadInput: it holds names of parts and other values.
    """
    values = sorted(set(texts) - {""})
    if not values:
        raise BadInput(f"The field '{field}' of '{layer.name}' is empty in every feature.", "Choose another COLUMN.")
    named = [value for value in values if value.lower() in SYNONYMS]
    if not named:
        return None
    if len(named) < len(values):
        raise BadInput(
            f"The field '{field}' of '{layer.name}' holds parts and other values: {_listed(values)}.",
            "Write train, validation or test in all features, or choose a COLUMN of groups.",
        )
    table = {value: SYNONYMS[value.lower()] for value in named}
    return np.array([table.get(text, "") for text in texts], dtype=object)


def column_groups(texts: npt.NDArray[Any], field: str, unit: str, context: Context) -> Grouping:
    """Return the groups of equal values of a field; features without one are a group of their own."""
    values, groups = np.unique(texts.astype(str), return_inverse=True)
    missing = int(np.count_nonzero(texts == ""))
    if missing:
        context.warn(f"{missing} features have no value in the field '{field}'; they are kept together.")
    context.log(
        f"{len(values)} {unit.split()[0]} by the field '{field}': {_listed([value or 'NULL' for value in values])}."
    )
    return Grouping(np.asarray(groups.reshape(-1), dtype=np.int64), True, unit)


def _listed(values: List[str]) -> str:
    return first_of([f"'{value}'" for value in values], _MOST_LISTED)


# --- polygons, and single features -----------------------------------------------------------------------------------


def polygon_groups(layer: Layer, ids: Numbers) -> Grouping:
    """Return the polygon of each feature; layers that were merged may repeat an id across classes."""
    if not is_points(layer):
        return Grouping(single_features(layer), False, "polygons")
    origin = layer.frame[_origin_field(layer)].astype(object).where(lambda column: column.notna(), "NULL").astype(str)
    pairs = pandas.MultiIndex.from_arrays([ids, origin])
    return Grouping(np.asarray(pandas.factorize(pairs, sort=True)[0], dtype=np.int64), False, "polygons")


def single_features(layer: Layer) -> Numbers:
    """Return the rank of each feature by its place: the file's order says nothing, and must not decide."""
    bounds = layer.frame.geometry.bounds.to_numpy()
    ranks = np.empty(len(bounds), dtype=np.int64)
    ranks[np.lexsort(bounds.T[::-1])] = np.arange(len(bounds))
    return ranks


def _origin_field(layer: Layer) -> Optional[str]:
    return next((name for name in layer.fields if name.lower() == "originfid"), None)


# --- blocks ----------------------------------------------------------------------------------------------------------


def block_groups(
    job: SplitSamples, ids: Numbers, places: Places, grid: Grid, name: str, parts: int, context: Context
) -> Grouping:
    """Return the block that holds each feature's middle; the first block begins at the grid's upper left corner.

    Args:
        job: with BLOCK_SIZE, UNIT and RASTER.
        ids: class of each feature ``(N,)``.
        places: where they are.
        grid: on which.
        name: what messages call it.
        parts: groups that each class needs.
        context: of the run.

    Raises:
        BadInput: a block is smaller than a pixel.
    """
    if job.block_size is None:
        side = _computed_side(job, ids, places, grid, parts, context)
        return Grouping(_block_of(places, (side, side)), True, "blocks")
    size = in_pixels(job.block_size, job.unit, grid, name)
    # Without a raster there is no pixel, only a fine grid.
    if not min(size) >= (1 if job.raster is not None else 1e-9):
        raise BadInput(
            f"BLOCK_SIZE is {job.block_size:g}{unit_text(job.unit)}, less than a pixel.",
            "Give 1 or more." if job.unit == "pixels" else "Give a larger one.",
        )
    if job.unit != "pixels" and job.raster is not None:
        context.log(f"Blocks of {size[1]:.1f} x {size[0]:.1f} pixels, measured in the middle of '{name}'.")
    return Grouping(_block_of(places, size), True, "blocks")


def unit_text(unit: str) -> str:
    """Return what follows a number in a message."""
    return {"pixels": "", "metres": " metres", "map": " map units"}[unit]


def _block_of(places: Places, size: Tuple[float, float]) -> Numbers:
    blocks = np.floor(places.middles / np.array(size)).astype(np.int64)
    return np.asarray(np.unique(blocks, axis=0, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def _computed_side(job: SplitSamples, ids: Numbers, places: Places, grid: Grid, parts: int, context: Context) -> int:
    """Return ten patches or the range of the image's variogram, but so that enough blocks remain."""
    if job.raster is None:
        raise BadInput("METHOD blocks needs RASTER or BLOCK_SIZE.", "Give one of them.")
    with reading(job.raster) as reader:
        found = measure_variogram(reader, context)
    reach = 0 if found.range_px is None else int(np.ceil(found.range_px))
    wanted = max(BLOCK_PX, reach)
    side = max(1, min(wanted, min(grid.width, grid.height) // _BLOCKS_PER_SIDE))
    while side // 2 >= _SMALLEST_PX and fewest_groups(ids, _block_of(places, (side, side))) < parts:
        side //= 2
    measured = (
        f"pixels resemble each other up to {reach} pixels (variogram of {found.pixels} pixels)"
        if reach
        else f"no distance of resemblance was found (variogram of {found.pixels} pixels)"
    )
    context.log(f"Blocks of {side} x {side} pixels: ten patches are {BLOCK_PX}; {measured}.")
    if side < wanted:
        context.log(f"{wanted} pixels would leave too few blocks.")
    if side < reach:
        context.warn(
            f"Blocks of {side} pixels are smaller than the {reach} pixels up to which pixels resemble each other: the "
            "accuracy may be flattered. Spread the samples over a larger area, or give BLOCK_SIZE or GUARD."
        )
    return side


def counts_by_part(ids: Numbers, parts: npt.NDArray[Any], order: Tuple[str, ...]) -> Dict[str, Dict[str, int]]:
    """Return part -> class id (as text) -> features, in the given order of parts."""
    counts: Dict[str, Dict[str, int]] = {}
    for part in order:
        values, number = np.unique(ids[parts == part], return_counts=True)
        if len(values):
            counts[part] = {str(value): int(count) for value, count in zip(values, number)}
    return counts
