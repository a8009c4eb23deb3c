"""Selecting the places of patches: a regular grid or random windows, without no-data, with a split.

Follows OTBTF's PatchesSelection: the grid begins at the pixel of index r + 1 (r = PATCH_SIZE // 2), so that the first
footprint begins at the second pixel; the first one stays free. The raster is read once, in windows, and only where it
can hold no-data at all; memory grows with the number of patches alone.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
import numpy.typing as npt
import rasterio
import shapely

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import PatchSelectionResult, RasterSource, SelectPatches
from . import patchsplits
from .lengths import in_pixels, most_pixels
from .patchsplits import Numbers, Parts, Tiling
from .rasters import Array, Grid, RasterReader
from .vectors import CHUNK_FEATURES, LayerWriter, on_grid, read_layer, vector_path

# Values held at once while reading: a few times this in bytes with masks and sums.
_BLOCK_VALUES = 6_000_000
# GDAL would take 5 % of the memory; areas that lie side by side share few blocks.
_CACHE_BYTES = 64 * 2**20
# Random windows that are tried for each one that is wanted, before the run gives up.
_MOST_TRIES = 50
# More patches, or random places to try, than this are not held in memory.
_MOST_PATCHES = 20_000_000
# More classes than this are a measurement; their counts are kept for every patch.
_MOST_CLASSES = 256
# Default side of blocks and sub-tiles: ten patches, or a fifth of the raster's shorter side where that is less.
_BLOCK_PATCHES = 10
_BLOCKS_PER_SIDE = 5


@dataclass(frozen=True)
class _Windows:
    """Places of footprints by their first pixel, arrays ``(N,)``, with what was measured in them.

    Attributes:
        rows: first row.
        cols: first column.
        labelled: share of labelled pixels; None without LABELS.
        counts: pixels per class ``(N, K)``; None unless classes are to be balanced.
    """

    rows: Numbers
    cols: Numbers
    labelled: Optional[npt.NDArray[np.float32]] = None
    counts: Optional[npt.NDArray[np.int32]] = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: npt.NDArray[Any]) -> _Windows:
        """Return some of them, by mask or index."""
        labelled = None if self.labelled is None else self.labelled[which]
        counts = None if self.counts is None else self.counts[which]
        return _Windows(self.rows[which], self.cols[which], labelled, counts)


def select_patches(job: SelectPatches, context: Context) -> PatchSelectionResult:
    """Write the footprints of patches with a field ``split``: train, validation or test, empty where not split.

    Raises:
        BadInput: a patch is larger than the raster, nothing is left, LABELS lies on another grid, the training part
            stays empty, or an input cannot be read.
        DiskFull: no room left.
    """
    vector_path(job.output)
    with contextlib.ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES))
        reader = stack.enter_context(RasterReader(job.source))
        labels = _open_labels(job.labels, reader, stack)
        _check_size(job, reader)
        tiling = _tiling(job, reader, context)
        scan = _Scan(job, reader, labels)
        found = _on_grid(job, scan, context) if job.mode == "grid" else _at_random(job, scan, tiling, context)
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


def _open_labels(
    source: Optional[RasterSource], reader: RasterReader, stack: contextlib.ExitStack
) -> Optional[RasterReader]:
    if source is None:
        return None
    labels = stack.enter_context(RasterReader(source))
    if not reader.grid.same_as(labels.grid):
        raise BadInput(
            f"LABELS '{labels.name}' ({labels.grid.width} x {labels.grid.height}) does not lie on the grid of "
            f"'{reader.name}' ({reader.grid.width} x {reader.grid.height}).",
            "Bring it onto that grid by nearest neighbour first, e.g. with 'Align rasters'.",
        )
    return labels


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
        context.log(f"Blocks of {sides[1]} x {sides[0]} pixels, measured in the middle of '{reader.name}'.")
    if min(down, across) < job.patch_size:
        what = f"{job.block_size:g}" if job.unit == "pixels" else f"{job.block_size:g} ({min(sides)} pixels)"
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


def _on_grid(job: SelectPatches, scan: _Scan, context: Context) -> _Windows:
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
    windows = _Windows(np.repeat(rows, len(cols)), np.tile(cols, len(rows)))
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


def _at_random(job: SelectPatches, scan: _Scan, tiling: Optional[Tiling], context: Context) -> _Windows:
    """Return COUNT windows that fit, the first ones of a random sequence; it depends on nothing but the seed.

    Windows across a border of tiles are left out beforehand, so that the split drops none of them.
    """
    grid, size = scan.grid, job.patch_size
    across, down = grid.width - size + 1, grid.height - size + 1
    tries = min(across * down, _MOST_TRIES * job.count, max(job.count, _MOST_PATCHES))
    generator = np.random.default_rng([job.seed % 2**64, 0])
    keys = generator.choice(across * down, size=tries, replace=False)
    sequence = _Windows(*np.divmod(keys.astype(np.int64), across))
    if tiling is not None:
        tiles = tiling.tiles_of(sequence.rows, sequence.cols, size)
        sequence = sequence.take((tiles == tiles[0]).all(axis=0))
    parts: List[_Windows] = []
    number = start = 0
    while number < job.count and start < len(sequence):
        # As many as are missing, and more of them where few fit; but enough at once to read each place only once.
        many = max(job.count - number, start)
        parts.append(scan.fit(sequence.take(np.arange(start, min(start + many, len(sequence)))), context))
        number, start = number + len(parts[-1]), start + many
    found = _joined(parts).take(np.arange(min(number, job.count)))
    if len(found) < job.count:
        looked = min(start, len(sequence))
        context.warn(
            f"Only {len(found)} of {job.count} patches were found in {looked} random places. Choose a smaller "
            "PATCH_SIZE or MIN_LABELLED to find more."
        )
    return found


def _joined(parts: List[_Windows]) -> _Windows:
    if not parts:
        return _Windows(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    labelled = [part.labelled for part in parts if part.labelled is not None]
    counts = [part.counts for part in parts if part.counts is not None]
    return _Windows(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.cols for part in parts]),
        np.concatenate(labelled) if labelled else None,
        _stacked(counts) if counts else None,
    )


def _stacked(counts: List[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    """Join counts whose later ones have more columns: classes that were met later."""
    width = max(part.shape[1] for part in counts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in counts])


# --- what lies in the windows ----------------------------------------------------------------------------------------


class _Scan:
    """Reads the image and the labels under windows, part by part of the raster, and tells which windows fit.

    A pixel is no-data where all bands equal their no-data number, or one band is NaN or masked.
    """

    def __init__(self, job: SelectPatches, image: RasterReader, labels: Optional[RasterReader]) -> None:
        self.grid: Grid = image.grid
        self.name = image.name
        self._size = job.patch_size
        self._least = job.min_labelled
        self._balance = job.split == "balanced"
        # Where neither a number nor a mask nor NaN can occur, there is nothing to look for.
        holes = image.masked or image.dtype.kind == "f" or all(band.nodata is not None for band in image.bands)
        self._image = image if holes else None
        self._labels = labels
        self._columns: Dict[int, int] = {}

    def fit(self, windows: _Windows, context: Context) -> _Windows:
        """Return the windows without no-data and with enough labels, in their order."""
        if self._image is None and self._labels is None:
            return windows
        fits = np.ones(len(windows), dtype=bool)
        labelled = np.zeros(len(windows), dtype=np.float32)
        counts = np.zeros((len(windows), 0), dtype=np.int32)
        done = 0
        for members, box in self._areas(windows):
            context.check()
            places = windows.rows[members] - box[0], windows.cols[members] - box[1]
            if self._image is not None:
                fits[members] = self._sums(~self._valid(self._image, box), places) == 0
            if self._labels is not None:
                raw, valid = self._labels.read(*box, rule="all")
                labelled[members] = self._sums(valid[0], places) / float(self._size**2)
                if self._balance:
                    counts = self._count(counts, members, raw[0], valid[0], places)
            done += len(members)
            context.progress(done, len(windows), "Looking through the patches", "patches")
        if self._labels is None:
            return windows.take(fits)
        # Rounding of a share must not refuse a patch that has just MIN_LABELLED.
        fits &= labelled >= self._least - 1e-6
        return _Windows(windows.rows, windows.cols, labelled, counts if self._balance else None).take(fits)

    def _areas(self, windows: _Windows) -> Iterator[Tuple[Numbers, Tuple[int, int, int, int]]]:
        """Yield windows that lie together, and the area (row, col, height, width) to read for them."""
        size, reader = self._size, self._image or self._labels
        if reader is None or len(windows) == 0:
            return
        pixels = _BLOCK_VALUES // len(reader.bands)
        # Rows of a striped file are stored whole: reading it in columns would decode each of them several times.
        most = 4 * pixels if reader.striped else pixels // 2
        whole = self.grid.width * size <= most
        across = self.grid.width if whole else max(size, int(pixels**0.5) - size)
        down = max(size, pixels // (min(across, self.grid.width) + size) - size)
        area_of = windows.rows // down * (self.grid.width // across + 1) + windows.cols // across
        order = np.lexsort((windows.cols, windows.rows, area_of))
        for members in np.split(order, np.flatnonzero(np.diff(area_of[order])) + 1):
            yield from self._dense_or_single(members, windows)

    def _dense_or_single(
        self, members: Numbers, windows: _Windows
    ) -> Iterator[Tuple[Numbers, Tuple[int, int, int, int]]]:
        rows, cols, size = windows.rows[members], windows.cols[members], self._size
        box = int(rows.min()), int(cols.min()), int(np.ptp(rows)) + size, int(np.ptp(cols)) + size
        # Few windows in a large area: reading each for itself touches less of the file.
        if len(members) * size * size * 4 >= box[2] * box[3]:
            yield members, box
            return
        for member in members:
            yield np.array([member]), (int(windows.rows[member]), int(windows.cols[member]), size, size)

    @staticmethod
    def _valid(reader: RasterReader, box: Tuple[int, int, int, int]) -> Array:
        return np.asarray(reader.read(*box, rule="all")[1].all(axis=0))

    def _sums(self, mask: Array, places: Tuple[Numbers, Numbers]) -> Numbers:
        """Return the number of true pixels in each window; its first row and column are given within the mask."""
        rows, cols = places
        if not mask.any():
            return np.zeros(len(rows), dtype=np.int64)
        starts, which = np.unique(rows, return_inverse=True)
        if len(starts) * self._size <= 4 * len(mask):
            below = np.stack([mask[row : row + self._size].sum(axis=0, dtype=np.int32) for row in starts])
        else:
            below = self._running(mask, starts)
        along = np.zeros((len(starts), mask.shape[1] + 1), dtype=np.int64)
        np.cumsum(below, axis=1, out=along[:, 1:])
        return np.asarray(along[which, cols + self._size] - along[which, cols])

    def _running(self, mask: Array, starts: Numbers) -> Array:
        """Return the column sums of the rows from each start on ``(R, W)``, for windows that overlap much."""
        sums = np.zeros((mask.shape[0] + 1, mask.shape[1]), dtype=np.int32)
        # Row by row: numpy's own sum along the first axis goes down column by column, and is ten times slower.
        for row, values in enumerate(mask):
            np.add(sums[row], values, out=sums[row + 1])
        return np.asarray(sums[starts + self._size] - sums[starts])

    def _count(
        self, counts: npt.NDArray[np.int32], members: Numbers, raw: Array, valid: Array, places: Tuple[Numbers, Numbers]
    ) -> npt.NDArray[np.int32]:
        """Return the counts with those of an area filled in; a class that is met first gets the next column."""
        for value in np.unique(raw[valid]).tolist():
            if value != int(value):
                raise BadInput(f"LABELS holds the value {value:g}, which is no class.", "Choose whole numbers.")
            column = self._columns.setdefault(int(value), len(self._columns))
            if column >= _MOST_CLASSES:
                raise BadInput(
                    f"LABELS holds more than {_MOST_CLASSES} different values: it is no label raster.",
                    "Choose a raster of classes, or another SPLIT.",
                )
            if column >= counts.shape[1]:
                counts = np.pad(counts, ((0, 0), (0, column + 1 - counts.shape[1])))
            counts[members, column] = self._sums((raw == value) & valid, places)
        return counts


# --- the split -------------------------------------------------------------------------------------------------------


def _split(
    job: SelectPatches, windows: _Windows, tiling: Optional[Tiling], reader: RasterReader, context: Context
) -> Tuple[_Windows, Parts]:
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


def _in_strata(
    job: SelectPatches, windows: _Windows, reader: RasterReader, context: Context
) -> Tuple[_Windows, Numbers]:
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


def _balanced(job: SelectPatches, windows: _Windows, context: Context) -> Tuple[_Windows, Parts]:
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
    job: SelectPatches, windows: _Windows, parts: Parts, reader: RasterReader, context: Context
) -> Tuple[_Windows, Parts]:
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


def _write(job: SelectPatches, windows: _Windows, parts: Parts, grid: Grid, context: Context) -> str:
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
