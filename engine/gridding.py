"""Selecting the places of patches: a regular grid or random windows, without no-data, with a split.

Follows OTBTF's PatchesSelection: the grid begins at the pixel of index r + 1 (r = PATCH_SIZE // 2), so that the first
footprint begins at the second pixel; the first one stays free. The raster is read once, in windows, and only where it
can hold no-data at all; memory grows with the number of patches alone.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import numpy.typing as npt
import shapely

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import PatchSelectionResult, SelectPatches
from . import patchsplits
from .lengths import in_pixels, most_pixels
from .patchscan import Scan, Windows, joined, open_patch_labels
from .patchsplits import Numbers, Parts, Tiling
from .rasters import Grid, RasterReader, reading
from .vectors import CHUNK_FEATURES, LayerWriter, on_grid, read_layer, vector_path

# GDAL would take 5 % of the memory; areas that lie side by side share few blocks.
_CACHE_BYTES = 64 * 2**20
# Random windows that are tried for each one that is wanted, before the run gives up.
_MOST_TRIES = 50
# More patches, or random places to try, than this are not held in memory.
_MOST_PATCHES = 20_000_000
# Default side of blocks and sub-tiles: ten patches, or a fifth of the raster's shorter side where that is less.
_BLOCK_PATCHES = 10
_BLOCKS_PER_SIDE = 5


def select_patches(job: SelectPatches, context: Context) -> PatchSelectionResult:
    """Write the footprints of patches with a field ``split``: train, validation or test, empty where not split.

    Raises:
        BadInput: a patch is larger than the raster, nothing is left, LABELS lies elsewhere, the training part stays
            empty, or an input cannot be read.
        DiskFull: no room left.
    """
    vector_path(job.output)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(reading(job.source, cache=_CACHE_BYTES))
        labels = open_patch_labels(job.labels, reader, stack, context)
        _check_size(job, reader)
        tiling = _tiling(job, reader, context)
        scan = Scan(job, reader, labels)
        found = _on_grid(job, scan, context) if job.mode == "grid" else _at_random(job, scan, tiling, context)
        scan.finish(context)
        if len(found) == 0:
            raise _nothing_found(job, reader)
        windows, parts = _split(job, found, tiling, reader, context)
        grid = reader.grid
    _check_parts(job, parts, context)
    path = _write(job, windows, parts, grid, context)
    counts = patchsplits.counts_of(parts)
    context.log("Patches: " + ", ".join(f"{count} {name or 'not split'}" for name, count in counts.items()) + ".")
    return PatchSelectionResult(path, len(windows), counts, warnings=tuple(context.warnings))


# --- what is asked for -----------------------------------------------------------------------------------------------


def _check_size(job: SelectPatches, reader: RasterReader) -> None:
    grid = reader.grid
    if job.patch_size > min(grid.width, grid.height):
        raise BadInput(
            f"A patch of {job.patch_size} x {job.patch_size} pixels is larger than '{reader.name}' "
            f"({grid.width} x {grid.height}).",
            f"Choose a PATCH_SIZE of {min(grid.width, grid.height)} or less.",
        )


def _tiling(job: SelectPatches, reader: RasterReader, context: Context) -> Optional[Tiling]:
    """Return the tiles of SPLIT blocks or subtiles; their cuts lie between the footprints of a grid where they can."""
    if job.split not in ("blocks", "subtiles"):
        return None
    is_grid = job.mode == "grid"
    unit, origin = (job.step, job.offset + 1) if is_grid else (1, 0)
    sides = _sides(job, reader, unit, context)
    shape = reader.grid.height, reader.grid.width
    if job.split == "blocks":
        return patchsplits.blocks(shape, origin, sides)
    return patchsplits.subtiles(shape, origin, sides, unit, job.seed)


def _sides(job: SelectPatches, reader: RasterReader, unit: int, context: Context) -> Tuple[int, int]:
    """Return rows and columns of a block; metres are those in the middle of the raster."""
    grid = reader.grid
    if job.block_size is None:
        shorter = min(grid.width, grid.height)
        side = max(job.patch_size, min(_BLOCK_PATCHES * job.patch_size, shorter // _BLOCKS_PER_SIDE))
        side = max(side // unit, -(-job.patch_size // unit)) * unit
        context.log(f"Blocks of {side} pixels.")
        return side, side
    down, across = in_pixels(job.block_size, job.unit, grid, reader.name)
    sides = math.ceil(min(down, grid.height)), math.ceil(min(across, grid.width))
    if job.unit != "pixels":
        # A length on the ground is no exact number of pixels: whole steps of the grid cut none of its patches.
        least = -(-job.patch_size // unit)
        rows, cols = (max(least, round(min(d, n) / unit)) for d, n in ((down, grid.height), (across, grid.width)))
        sides = rows * unit, cols * unit
        context.log(f"Blocks of {sides[1]} x {sides[0]} pixels, measured in the middle of '{reader.name}'.")
    if min(down, across) < job.patch_size:
        what = f"{job.block_size:g}" if job.unit == "pixels" else f"{job.block_size:g} ({min(down, across):.1f} pixels)"
        raise BadInput(
            f"BLOCK_SIZE {what} is less than PATCH_SIZE {job.patch_size}: no patch would lie in one block.",
            f"Give {job.patch_size} or more, or leave it unset." if job.unit == "pixels" else "Give a larger one.",
        )
    return sides


def _nothing_found(job: SelectPatches, reader: RasterReader) -> BadInput:
    if job.labels is not None and job.min_labelled > 0:
        return BadInput(
            f"No patch of {job.patch_size} pixels in '{reader.name}' is free of no-data and has "
            f"{job.min_labelled:.0%} of labelled pixels.",
            "Choose a smaller PATCH_SIZE or MIN_LABELLED, and check NODATA and LABELS.",
        )
    return BadInput(
        f"No patch of {job.patch_size} pixels in '{reader.name}' is free of no-data.",
        "Choose a smaller PATCH_SIZE or OFFSET, and check NODATA.",
    )


# --- places ----------------------------------------------------------------------------------------------------------


def grid_starts(length: int, patch_size: int, step: int, offset: int) -> Numbers:
    """Return the first pixels of a grid's footprints on one axis.

    The reference begins at pixel 1 + ``offset``; where the axis is just as long as a patch, that is 0.
    """
    if length == patch_size:
        return np.zeros(1, dtype=np.int64)
    return np.arange(offset + 1, length - patch_size + 1, step, dtype=np.int64)


def _on_grid(job: SelectPatches, scan: Scan, context: Context) -> Windows:
    grid = scan.grid
    rows = grid_starts(grid.height, job.patch_size, job.step, job.offset)
    cols = grid_starts(grid.width, job.patch_size, job.step, job.offset)
    count = len(rows) * len(cols)
    if count > _MOST_PATCHES:
        raise BadInput(
            f"STEP {job.step} gives {count} patches on '{scan.name}', more than {_MOST_PATCHES}.", "Give a larger STEP."
        )
    context.log(f"Grid of {len(cols)} x {len(rows)} = {count} patches.")
    _tell_of_first_pixel(job, grid, count, context)
    windows = Windows(np.repeat(rows, len(cols)), np.tile(cols, len(rows)))
    found = scan.fit(windows, context)
    if len(found) < len(windows):
        context.log(f"{len(windows) - len(found)} patches with no-data or too few labels were left out.")
    return found


def _tell_of_first_pixel(job: SelectPatches, grid: Grid, count: int, context: Context) -> None:
    """Tell how many patches more a grid from the raster's first pixel on would have, as a warning where it is many."""
    down, across = (grid_starts(length, job.patch_size, job.step, -1) for length in (grid.height, grid.width))
    possible = len(down) * len(across)
    if job.offset == 0 and possible > count:
        tell = context.warn if possible > 1.1 * count else context.log
        tell(f"The grid begins at the second pixel, as the reference's; OFFSET -1 would give {possible} patches.")


def _at_random(job: SelectPatches, scan: Scan, tiling: Optional[Tiling], context: Context) -> Windows:
    """Return COUNT windows that fit, the first ones of a random sequence; it depends on nothing but the seed.

    Windows across a border of tiles are left out beforehand, so that the split drops none of them.
    """
    grid, size = scan.grid, job.patch_size
    across, down = grid.width - size + 1, grid.height - size + 1
    tries = min(across * down, _MOST_TRIES * job.count, max(job.count, _MOST_PATCHES))
    generator = np.random.default_rng([job.seed % 2**64, 0])
    keys = generator.choice(across * down, size=tries, replace=False)
    sequence = Windows(*np.divmod(keys.astype(np.int64), across))
    if tiling is not None:
        tiles = tiling.tiles_of(sequence.rows, sequence.cols, size)
        sequence = sequence.take((tiles == tiles[0]).all(axis=0))
    parts: List[Windows] = []
    number = start = 0
    while number < job.count and start < len(sequence):
        # As many as are missing, and more of them where few fit; but enough at once to read each place only once.
        many = max(job.count - number, start)
        parts.append(scan.fit(sequence.take(np.arange(start, min(start + many, len(sequence)))), context))
        number, start = number + len(parts[-1]), start + many
    found = joined(parts).take(np.arange(min(number, job.count)))
    if len(found) < job.count:
        looked = min(start, len(sequence))
        context.warn(
            f"Only {len(found)} of {job.count} patches were found in {looked} random places. Choose a smaller "
            "PATCH_SIZE or MIN_LABELLED to find more."
        )
    return found


# --- the split -------------------------------------------------------------------------------------------------------


def _split(
    job: SelectPatches, windows: Windows, tiling: Optional[Tiling], reader: RasterReader, context: Context
) -> Tuple[Windows, Parts]:
    """Return the windows that are kept, and the part of each; those in no part are dropped and counted."""
    context.check()
    shares = patchsplits.shares_of(job.train_share, job.validation_share)
    if job.split == "none":
        return windows, np.full(len(windows), patchsplits.NONE, dtype=np.int8)
    if job.split == "chessboard":
        first = job.offset + 1
        squares = (windows.rows - first) // job.step + (windows.cols - first) // job.step
        parts = (squares % 2).astype(np.int8)
    elif job.split == "proportions":
        parts = patchsplits.sequence(len(windows), shares)
    elif job.split == "strata":
        windows, strata = _in_strata(job, windows, reader, context)
        parts = patchsplits.within_groups(strata, shares, job.seed)
    elif tiling is not None:
        parts = patchsplits.by_tiles(tiling, windows.rows, windows.cols, job.patch_size, shares, job.seed, context)
    else:
        windows, parts = _balanced(job, windows, context)
    return _kept(job, windows, parts, reader, context)


def _in_strata(job: SelectPatches, windows: Windows, reader: RasterReader, context: Context) -> Tuple[Windows, Numbers]:
    """Return the windows whose middle lies in a polygon of STRATA, and the polygon of each: the first of several."""
    if job.strata is None:
        raise BadInput("SPLIT strata needs STRATA.", "Give a layer of polygons.")
    layer = on_grid(read_layer(job.strata, context), reader.grid, reader.name, context)
    tree = shapely.STRtree(np.asarray(layer.frame.geometry.values, dtype=object))
    strata = np.full(len(windows), len(layer.frame), dtype=np.int64)
    half = job.patch_size / 2
    for start in range(0, len(windows), CHUNK_FEATURES):
        context.check()
        some = slice(start, start + CHUNK_FEATURES)
        middles = shapely.points(*reader.grid.corners_of(windows.rows[some] + half, windows.cols[some] + half))
        members, polygons = tree.query(middles, predicate="intersects")
        np.minimum.at(strata, start + members, polygons)
    inside = np.asarray(strata < len(layer.frame))
    if not inside.any():
        raise BadInput(
            f"No patch lies in a polygon of '{layer.name}'.", "Check that it covers the image, and the CRS of both."
        )
    if not inside.all():
        context.warn(f"{np.count_nonzero(~inside)} patches outside the polygons of '{layer.name}' were left out.")
    return windows.take(inside), strata[inside]


def _balanced(job: SelectPatches, windows: Windows, context: Context) -> Tuple[Windows, Parts]:
    """Choose by place and by class; the parts are dealt by the rarest class in each patch, so that each gets all."""
    labels = windows.counts
    if labels is None:
        raise BadInput("SPLIT balanced needs LABELS.", "Give a raster of classes on the image's grid.")
    some = windows.take(np.flatnonzero(labels.any(axis=1)))
    if some.counts is None or len(some) == 0:
        raise BadInput("No patch holds a labelled pixel.", "Check LABELS, or choose another SPLIT.")
    if np.count_nonzero(some.counts.any(axis=0)) == 1:
        context.warn("LABELS has one class only in these patches; there is nothing to balance.")
    chosen = patchsplits.balanced(some.counts)
    context.log(f"{np.count_nonzero(chosen)} of {len(windows)} patches were chosen for the balance of classes.")
    shares = patchsplits.shares_of(job.train_share, job.validation_share)
    parts = patchsplits.within_groups(patchsplits.rarest_class(some.counts[chosen]), shares, job.seed)
    return some.take(chosen), parts


def _kept(
    job: SelectPatches, windows: Windows, parts: Parts, reader: RasterReader, context: Context
) -> Tuple[Windows, Parts]:
    """Drop what lies across a border of tiles or within GUARD, and warn of pixels that parts share."""
    crossing = parts == patchsplits.NONE
    if crossing.any():
        context.warn(f"{np.count_nonzero(crossing)} patches across the border of two parts were left out.")
    windows, parts = windows.take(~crossing), parts[~crossing]
    if job.guard is not None:
        near = patchsplits.too_near(windows.rows, windows.cols, parts, _reach(job, reader), context)
        if near.any():
            unit = "map units" if job.unit == "map" else job.unit
            how = f"less than {job.guard:g} {unit} from" if job.guard else "that share pixels with"
            context.warn(f"{np.count_nonzero(near)} patches {how} a patch of another part were left out.")
        return windows.take(~near), parts[~near]
    apart = job.mode == "grid" and job.step >= job.patch_size
    if not apart and job.split not in ("blocks", "subtiles"):
        shared = patchsplits.sharing(windows.rows, windows.cols, parts, job.patch_size, context)
        if shared:
            context.warn(
                f"{shared} of {len(parts)} patches share pixels with a patch of another part, which flatters every "
                "accuracy. Give GUARD (0 leaves them out), or choose SPLIT blocks."
            )
    return windows, parts


def _reach(job: SelectPatches, reader: RasterReader) -> Tuple[int, int]:
    """Return the rows and columns from one patch to another beyond GUARD, at the place where it takes the most."""
    grid = reader.grid
    down, across = most_pixels(job.guard or 0.0, job.unit, grid, reader.name)
    # Rounding must not make one more pixel of a whole number of them.
    rows, cols = (math.ceil(min(pixels, most) - 1e-6) for pixels, most in ((down, grid.height), (across, grid.width)))
    return job.patch_size + rows, job.patch_size + cols


def _check_parts(job: SelectPatches, parts: Parts, context: Context) -> None:
    """Warn of an empty part that was asked for; training must not be empty."""
    shares: Tuple[float, ...] = (job.train_share, job.validation_share, 1 - job.train_share - job.validation_share)
    if job.split == "none":
        return
    if job.split == "chessboard":
        shares = (0.5, 0.5, 0.0)
    for place, name in enumerate(patchsplits.PARTS):
        if shares[place] > 1e-9 and not np.any(parts == place):
            said = f"No patch is left in the part '{name}' of SPLIT {job.split}"
            remedy = "Choose a smaller GUARD, BLOCK_SIZE or PATCH_SIZE, or another SEED"
            if place == 0:
                raise BadInput(f"{said}.", f"{remedy}.")
            context.warn(f"{said}. {remedy}.")


# --- output ----------------------------------------------------------------------------------------------------------


def _write(job: SelectPatches, windows: Windows, parts: Parts, grid: Grid, context: Context) -> str:
    """Write the footprints: squares of whole pixels with ``split``, first ``row`` and ``col``, and ``labelled``."""
    with LayerWriter(job.output, "Polygon", grid.crs) as writer:
        for start in range(0, len(windows), CHUNK_FEATURES):
            context.check()
            some = windows.take(np.arange(start, min(start + CHUNK_FEATURES, len(windows))))
            fields: Dict[str, npt.NDArray[Any]] = {
                "split": patchsplits.names_of(parts[start : start + CHUNK_FEATURES]),
                "row": some.rows,
                "col": some.cols,
            }
            if some.labelled is not None:
                fields["labelled"] = some.labelled.astype(np.float64)
            writer.write(footprints(grid, some.rows, some.cols, job.patch_size), fields)
            context.progress(start + len(some), len(windows), "Writing footprints", "patches")
        return writer.path


def footprints(grid: Grid, rows: Numbers, cols: Numbers, size: int) -> npt.NDArray[Any]:
    """Return the squares of ``size`` pixels whose first pixels these are, as polygons ``(N,)``."""
    around = [(0, 0), (0, size), (size, size), (size, 0), (0, 0)]
    corners = [np.stack(grid.corners_of(rows + down, cols + across), axis=1) for down, across in around]
    return np.asarray(shapely.polygons(np.stack(corners, axis=1)))
