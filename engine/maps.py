"""The rasters of a mapping job: the classes with their legend, probabilities and measures of certainty, and the areas.

Finished windows go to a journal; the rasters are made by replaying it when all are there. They are written block by
block in one order, under temporary names, and get their own together: an interrupted job ends with the same bytes as
one that was not.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Deque, Dict, Generator, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.windows import Window as RasterWindow

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput, DeepscapeError, DiskFull, JobCancelled
from ..tasks.jobfiles import remove_parts_of
from ..tasks.suffixes import kind_suffix
from ..tasks.worker import give_back
from .journal import Journal, OtherJob
from .legends import aux_path, colour_table, qml_path, write_ramp, write_sidecars
from .outputfiles import part_name, writing_error
from .products import CLASSES, PROBABILITIES, Product, stored_positions
from .rasters import Grid
from .rasterwriting import create_raster, tile_windows
from .wording import decimals_of, many

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Window = Tuple[int, int, int, int]

# Rows of a window that are kept together: those of the rasters' blocks.
_STRIP = 256
# Unpacked strips that are kept: what lies across two rows of blocks need not be unpacked twice on most rasters.
_KEPT_BYTES = 64_000_000
# So many values are counted one by one in less time than a histogram takes.
_FEW_VALUES = 12
# Windows that are unpacked while one is written.
_AHEAD = 2
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Totals:
    """What a map holds.

    Attributes:
        counts: pixels per row and class ``(H, K)``.
        undefined: pixels whose scores are not finite, which are no-data in the map.
    """

    counts: Counts
    undefined: int

    def with_rows(self, row: int, found: Counts) -> Totals:
        """Take in rows from ``row`` on: their pixels of each class, and the undefined ones behind these."""
        classes = self.counts.shape[1]
        self.counts[row : row + len(found)] += found[:, :classes]
        return Totals(self.counts, self.undefined + int(found[:, classes].sum()))


def raster_path(path: str) -> str:
    """Return the path with the missing suffix ``.tif``; an empty path stays empty.

    Raises:
        BadInput: the path has the suffix of another kind of file.
    """
    kind = kind_suffix(path)
    if kind in (".tif", ".tiff") or not path:
        return path
    if kind:
        raise BadInput(f"'{path}' ends in {kind}, but rasters are written as .tif.", "Give a path that ends in .tif.")
    return path + ".tif"


class MapWriter:
    """What a mapping job has finished, and the rasters that are made of it; a context manager.

    Attributes:
        products: the rasters, that of the classes first.
        classes: in the order of the positions and scores.
        nodata: of the class raster.
        todo: numbers of the windows that are still to be mapped, in the plan's order.
        wants_probabilities: False where positions are all that is needed.
    """

    def __init__(
        self, products: Sequence[Product], grid: Grid, classes: Sequence[ClassEntry], tags: Mapping[str, str],
        *, windows: Sequence[Window], journal: str, key: Mapping[str, Any], context: Context, cog: bool = False,
        continues: bool = True,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            products: the rasters, that of the classes first.
            grid: of all of them.
            classes: in the order of the positions and scores.
            tags: metadata items of the files.
            windows: the plan: windows (row, col, height, width) of ``grid`` that cover each of its pixels once.
            journal: path of the journal.
            key: what the windows depend on (`journal.job_key`).
            context: for the log, progress and cancel.
            cog: write cloud-optimised GeoTIFFs, with overviews.
            continues: the journal outlives the job, so that the same one continues.
        """
        self.products, self.classes = tuple(products), tuple(classes)
        self.nodata = int(products[0].nodata)
        self.wants_probabilities = len(products) > 1
        self.todo: Tuple[int, ...] = ()
        self._windows = list(windows)
        self._grid, self._tags, self._cog, self._context = grid, dict(tags), cog, context
        self._journal, self._continues = Journal(journal, key, context.check), continues

    def __enter__(self) -> MapWriter:
        """Open the journal, and say what it holds.

        Raises:
            BadInput: it cannot be written, or another job is writing it.
            DiskFull: no room left.
        """
        journal = self._journal.__enter__()
        # The lock is ours: what lies there half-written is of a job that is dead.
        for product in self.products:
            remove_parts_of(product.path)
        self.todo = tuple(number for number in range(len(self._windows)) if number not in journal.windows)
        for other in journal.others:
            self._context.log(_told(other))
        if journal.windows:
            self._context.log(
                f"{len(journal.windows)} of {len(self._windows)} windows were finished before: continuing."
            )
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Close the journal; of a cancelled job, say what is kept.

        Raises:
            JobCancelled: in place of another one, with what continues the job as its remedy.
        """
        if not self._journal.windows:
            self._journal.discard()
            return
        self._journal.close()
        if self._continues and isinstance(error, JobCancelled):
            finished = f"{len(self._journal.windows)} of {many(len(self._windows), 'window')}"
            raise JobCancelled(remedy=f"{finished} are kept: run the same job again to continue.") from error

    # --- windows ---

    def write(
        self, number: int, positions: Optional[Array], valid: Array, probabilities: Optional[Array] = None
    ) -> None:
        """Note a finished window; see `pack` and `add`."""
        self.add(number, self.pack(positions, valid, probabilities))

    def pack(self, positions: Optional[Array], valid: Array, probabilities: Optional[Array] = None) -> bytes:
        """Return what the journal keeps of a window; threads may call this at the same time.

        Args:
            positions: in the class table, of a runtime ``(H, W)``; None where no pixel is valid.
            valid: False where the scene has no data ``(H, W)``.
            probabilities: ``(K, H, W)``, where they are wanted and a pixel is valid.
        """
        if positions is None:
            return b""
        kept = stored_positions(positions, valid, len(self.classes))
        scored = kept < len(self.classes)
        streams: List[bytes] = []
        for product in self.products:
            if product.kind == CLASSES:
                bands = kept[None]
            elif probabilities is None:
                raise ValueError(f"the window has no probabilities for '{product.kind}'")
            else:
                bands = product.values(probabilities, kept, scored)
            streams += [_packed(bands[:, row : row + _STRIP]) for row in range(0, bands.shape[1], _STRIP)]
        return b"".join([_LENGTH.pack(len(stream)) for stream in streams] + streams)

    def add(self, number: int, content: bytes) -> None:
        """Note a finished window by its number in the plan.

        Raises:
            DiskFull: no room left; what is finished is kept.
            BadInput: the journal cannot be written.
        """
        self._journal.append(number, content)

    # --- rasters ---

    def finish(self) -> Totals:
        """Make the rasters and their legends of the windows, and remove the journal, also that of another job.

        Raises:
            DiskFull: no room left; the windows are kept.
            BadInput: a raster cannot be written.
            JobCancelled: the windows are kept.
        """
        missing = [number for number in range(len(self._windows)) if number not in self._journal.windows]
        if missing:
            raise ValueError(f"window {missing[0]} of {len(self._windows)} is not finished")
        totals = Totals(np.zeros((self._grid.height, len(self.classes)), np.int64), 0)
        rasters = RasterFiles(self.products, self._grid, self.classes, self._tags, self._cog)
        total = self._grid.height * self._grid.width * sum(product.bands for product in self.products)
        done = 0
        try:
            # Blocks reach the files as they are written: else their order hangs on what GDAL's cache holds besides.
            with rasterio.Env(GDAL_CACHEMAX=1), rasters:
                # The scene's blocks are dropped by that.
                give_back()
                for index in range(len(self.products)):
                    replayed = self._replayed(index, rasters)
                    with contextlib.closing(replayed), rasters.create(index):
                        for window, (bands, found) in replayed:
                            self._context.check()
                            if found is not None:
                                totals = totals.with_rows(window[0], found)
                            rasters.write(index, window, bands)
                            done += bands.size
                            self._context.progress(done, total, "Writing the map", "values")
                by_class = zip(self.classes, totals.counts.sum(axis=0))
                rasters.finish({entry.value: int(count) for entry, count in by_class}, self._context.check)
        except DiskFull as error:
            remedy = "All windows are finished and kept: free space and run the same job again, it continues."
            raise DiskFull(error.message, remedy, error.details) from error
        self._journal.remove()
        return totals

    def _replayed(
        self, index: int, rasters: RasterFiles
    ) -> Generator[Tuple[Window, Tuple[Array, Optional[Counts]]], None, None]:
        """Yield the windows of a raster, in the order that they are written in, and what `_unpacked` returns of each.

        A thread does that for what comes next while the caller writes.
        """
        replay = Replay(self._journal, self._windows, self.products, index)
        ahead: Deque[Tuple[Window, Future[Tuple[Array, Optional[Counts]]]]] = deque()
        # The thread is waited for, whatever happens: it reads the journal, which is closed then.
        with ThreadPoolExecutor(1, thread_name_prefix="replay") as pool:
            for window in tile_windows(self._grid, self.products[index].bands):
                ahead.append((window, pool.submit(self._unpacked, replay, index, window, rasters)))
                if len(ahead) > _AHEAD:
                    first, found = ahead.popleft()
                    yield first, found.result()
            while ahead:
                first, found = ahead.popleft()
                yield first, found.result()

    def _unpacked(
        self, replay: Replay, index: int, window: Window, rasters: RasterFiles
    ) -> Tuple[Array, Optional[Counts]]:
        """Return a product's bands in a window, and of the first, the map, what `Totals.with_rows` takes."""
        bands = replay.read(window)
        if index:
            return bands, None
        # The type's last two values are "no finite score" and no-data.
        wanted = [*range(len(self.classes)), np.iinfo(bands.dtype).max - 1]
        return rasters.class_values(bands), _counts_per_row(bands[0], wanted)


def _counts_per_row(positions: Array, values: Sequence[int]) -> Counts:
    """Return how often each of these values stands in each row of positions ``(H, W)``: ``(H, V)``."""
    if len(values) <= _FEW_VALUES:
        # Maps are smooth: a histogram, which adds to one number again and again, takes three times as long.
        found = np.zeros((len(positions), len(values)), np.int64)
        for column, value in enumerate(values):
            equal = positions == value
            if equal.any():
                found[:, column] = [np.count_nonzero(line) for line in equal]
        return found
    found = np.stack([np.bincount(line, minlength=np.iinfo(positions.dtype).max + 1) for line in positions])
    return found[:, list(values)]


def _told(other: OtherJob) -> str:
    """Say what becomes of the windows that another job of the same map has finished."""
    windows, changed = many(other.windows, "finished window"), "; ".join(other.changed)
    if other.kept:
        return (
            f"The map is begun anew. Of another job of it, {windows} {'is' if other.windows == 1 else 'are'} kept "
            f"({changed}): run that job again before this map is complete, and it continues."
        )
    if other.usable:
        return f"{windows} of yet another job of this map ({changed}) made room: those of one other job are kept."
    return f"An interrupted job left {windows} of this map, of no use any more ({changed}): the map is begun again."


class Replay:
    """Reads any part of one product from the windows of a journal."""

    def __init__(self, journal: Journal, windows: Sequence[Window], products: Sequence[Product], index: int) -> None:
        """Prepare to read ``products[index]``."""
        self._journal, self._product = journal, products[index]
        self._number, self._index = len(products), index
        self._windows = np.array(windows, np.int64).reshape(-1, 4)
        self._strips: OrderedDict[Tuple[int, int], Array] = OrderedDict()
        self._bytes = 0

    def read(self, window: Window) -> Array:
        """Return the product's bands, as they are stored, in a window of the grid: ``(B, H, W)``."""
        row, col, height, width = window
        self._forget_above(row)
        result = np.empty((self._product.bands, height, width), self._product.stored)
        tops, lefts, heights, widths = self._windows.T
        touched = (tops < row + height) & (tops + heights > row) & (lefts < col + width) & (lefts + widths > col)
        for number in np.flatnonzero(touched):
            top, left, rows, cols = (int(value) for value in self._windows[number])
            first, last = max(row, top), min(row + height, top + rows)
            start, end = max(col, left), min(col + width, left + cols)
            for strip in range((first - top) // _STRIP, (last - 1 - top) // _STRIP + 1):
                begin = top + strip * _STRIP
                a, b = max(first, begin), min(last, begin + _STRIP)
                part = self._strip(int(number), strip, min(_STRIP, rows - strip * _STRIP), cols, -(-rows // _STRIP))
                result[:, a - row : b - row, start - col : end - col] = part[
                    :, a - begin : b - begin, start - left : end - left
                ]
        return result

    def _forget_above(self, row: int) -> None:
        """Drop the strips that end above a row: rasters are made from top to bottom."""
        for (number, strip), bands in list(self._strips.items()):
            if self._windows[number, 0] + strip * _STRIP + bands.shape[1] <= row:
                del self._strips[number, strip]
                self._bytes -= bands.nbytes

    def _strip(self, number: int, strip: int, height: int, width: int, strips: int) -> Array:
        """Return rows of a window ``(B, height, width)``."""
        found = self._strips.get((number, strip))
        if found is not None:
            self._strips.move_to_end((number, strip))
            return found
        shape = (self._product.bands, height, width)
        if self._journal.windows[number][1] == 0:
            nodata = np.iinfo(self._product.stored).max if self._product.kind == CLASSES else self._product.nodata
            return np.broadcast_to(np.array(nodata, self._product.stored), shape)
        position, streams = self._index * strips + strip, self._number * strips
        head = self._journal.content(number, 0, streams * _LENGTH.size)
        lengths = [length for (length,) in _LENGTH.iter_unpack(head)]
        start = len(head) + sum(lengths[:position])
        stream = self._journal.content(number, start, lengths[position])
        unpacked = stream if self._product.stored == "float32" else zlib.decompress(stream)
        found = np.frombuffer(unpacked, self._product.stored).reshape(shape)
        self._strips[number, strip] = found
        self._bytes += found.nbytes
        while self._bytes > _KEPT_BYTES and len(self._strips) > 1:
            self._bytes -= self._strips.popitem(last=False)[1].nbytes
        return found


def _packed(bands: Array) -> bytes:
    """Return an array's bytes; whole numbers deflated at the level above which time is lost, floats as they are."""
    # Deflating probabilities takes twenty times as long as writing them and saves 6 %.
    return bands.tobytes() if bands.dtype.kind == "f" else zlib.compress(bands.tobytes(), 1)


class RasterFiles:
    """Rasters under temporary names; all get their own names together, or none does. A context manager."""

    def __init__(
        self, products: Sequence[Product], grid: Grid, classes: Sequence[ClassEntry], tags: Mapping[str, str],
        cog: bool = False,
    ) -> None:  # fmt: skip
        """Prepare; see `MapWriter`."""
        self._products, self._grid, self._classes = tuple(products), grid, tuple(classes)
        self._tags, self._cog = dict(tags), cog
        self._parts = [part_name(product.path) for product in products]
        self._open: Any = None
        self._written: List[Dict[Window, int]] = [{} for _ in products]
        first = products[0]
        self._values = np.full(np.iinfo(first.stored).max + 1, first.nodata, first.dtype)
        self._values[: len(classes)] = [entry.value for entry in classes]
        self._consecutive = bool(np.all(np.diff(self._values[: len(classes)].astype(np.int64)) == 1))

    def __enter__(self) -> RasterFiles:
        return self

    @contextlib.contextmanager
    def create(self, index: int) -> Iterator[None]:
        """Create the raster of a product, to be written (`write`) inside the block."""
        product = self._products[index]
        with create_raster(
            self._parts[index], self._grid, count=product.bands, dtype=product.dtype, nodata=product.nodata,
            descriptions=product.descriptions, num_threads="all_cpus",
        ) as raster:  # fmt: skip
            raster.update_tags(**self._tags)
            if product.scale != 1:
                raster.scales, raster.offsets = [product.scale] * product.bands, [0.0] * product.bands
            colours = colour_table(self._classes, product.dtype) if product.kind == CLASSES else None
            if colours is not None:
                raster.write_colormap(1, colours)
            self._open = raster
            yield

    def class_values(self, positions: Array) -> Array:
        """Return what the class raster holds for stored positions."""
        if self._consecutive and positions.dtype == self._values.dtype:
            # A sixth of the time of looking each up. Numbers wrap around: what has no class becomes 0, plus no-data.
            first, nodata = self._values[:1], self._values[-1:]
            return (positions + (first - nodata)) * (positions < len(self._classes)) + nodata
        if positions.dtype == self._values.dtype == np.uint8:
            # A quarter of numpy's time.
            return np.frombuffer(positions.tobytes().translate(self._values.tobytes()), np.uint8).reshape(
                positions.shape
            )
        return self._values.take(positions, mode="wrap")  # half the time of indexing

    def write(self, index: int, window: Window, bands: Array) -> None:
        """Write bands ``(B, H, W)`` into a window (row, col, height, width) of the raster that is being created."""
        row, col, height, width = window
        self._open.write(bands, window=RasterWindow(col, row, width, height))
        self._written[index][window] = zlib.crc32(np.ascontiguousarray(bands).data)

    def finish(self, counts: Mapping[int, int], check: Callable[[], None] = lambda: None) -> None:
        """Write the legends beside the rasters, and name all files.

        Args:
            counts: class value -> pixels.
            check: called between the windows that are read back.

        Raises:
            DiskFull: no room left.
            BadInput: a raster is not what was written.
        """
        for product, part, written in zip(self._products, self._parts, self._written):
            try:
                if self._cog:
                    self._optimise(product, part)
                _compare(part, written, check)
                if product.kind == CLASSES:
                    write_sidecars(part, self._classes, counts)
                else:
                    write_ramp(part, product.kind, self._shown(counts) if product.kind == PROBABILITIES else 1)
            except (OSError, RasterioError) as error:
                raise writing_error(product.path, error) from error
        for product, part in zip(self._products, self._parts):
            final = product.path
            try:
                # Overviews and masks of an older file of this name would be shown in place of the new pixels.
                for stale in (final + ".ovr", final + ".msk", aux_path(final)):
                    Path(stale).unlink(missing_ok=True)
                for name in (aux_path, qml_path, str):
                    if os.path.exists(name(part)):
                        os.replace(name(part), name(final))
            except OSError as error:
                raise writing_error(final, error) from error

    def _shown(self, counts: Mapping[int, int]) -> int:
        """Return the band of probabilities that is shown: that of the class with the most pixels."""
        pixels = [counts.get(entry.value, 0) for entry in self._classes]
        return 1 + pixels.index(max(pixels))

    def _optimise(self, product: Product, part: str) -> None:
        """Turn a raster into a cloud-optimised one with overviews."""
        target = part_name(part)
        try:
            rasterio.shutil.copy(
                part, target, driver="COG", COMPRESS="DEFLATE", LEVEL=6, BIGTIFF="IF_SAFER", NUM_THREADS="ALL_CPUS",
                PREDICTOR="YES" if product.dtype == "float32" else "NO",
                OVERVIEW_RESAMPLING="NEAREST" if product.kind == CLASSES else "AVERAGE",
            )  # fmt: skip
            os.replace(target, part)
        finally:
            Path(target).unlink(missing_ok=True)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for part in self._parts:
            for leftover in (part, aux_path(part), qml_path(part)):
                Path(leftover).unlink(missing_ok=True)
        if isinstance(error, DeepscapeError):
            raise self._by_final_name(error) from error

    def _by_final_name(self, error: DeepscapeError) -> DeepscapeError:
        """Return the error with the names that the user gave in place of the temporary ones."""
        message = error.message
        for product, part in zip(self._products, self._parts):
            message = message.replace(Path(part).name, Path(product.path).name)
        return type(error)(message, error.remedy, error.details)


def _compare(path: str, written: Mapping[Window, int], check: Callable[[], None]) -> None:
    """Read a raster back: GDAL does not tell of what a full disk swallowed when a file is closed.

    Args:
        path: of the raster.
        written: the checksum of what was written into each window.
        check: called between the windows.

    Raises:
        DiskFull: something is missing, and no room is left.
        BadInput: something is missing.
    """
    try:
        with rasterio.open(path) as raster:
            for (row, col, height, width), checksum in written.items():
                check()
                if zlib.crc32(raster.read(window=RasterWindow(col, row, width, height))) != checksum:
                    raise RasterioIOError("a window was not written")
    except RasterioError as error:
        known = writing_error(path, error)
        if isinstance(known, DeepscapeError):
            raise known from error
        raise BadInput(
            f"'{path}' does not hold what was written to it.", "Check the disk, or choose another folder."
        ) from error


def class_areas(classes: Sequence[ClassEntry], counts: Array, grid: Grid, context: Context) -> Dict[str, Any]:
    """Return class value (as text) -> name, pixels and hectares, by counting pixels.

    Hectares end where three digits of a pixel's area do: sums of 0.01 would be written as 518.0799999999999.

    Args:
        classes: the class table.
        counts: pixels per row and class ``(H, K)``.
        grid: of the map.
        context: told that such areas are biased.
    """
    hectares = row_hectares(grid)
    digits = 0
    if hectares is not None:
        digits = decimals_of(float(hectares.max()))
        context.log(
            "Areas are pixel counting: biased by the map's errors. An unbiased estimate needs a probability sample."
        )
    return {
        str(entry.value): {
            "name": entry.name,
            "pixels": int(counts[:, index].sum()),
            "hectares": None if hectares is None else round(float(counts[:, index] @ hectares), digits),
        }
        for index, entry in enumerate(classes)
    }


def row_hectares(grid: Grid) -> Optional[npt.NDArray[np.float64]]:
    """Return the area of a pixel of each row in hectares ``(H,)``, at the middle column; None without a usable CRS.

    On the ellipsoid where coordinates are degrees. In a projection the pixel's own area, corrected by the projection's
    areal scale where that is more than 1 % off (Web Mercator is 34 % off at 30 degrees of latitude).
    """
    if grid.crs is None or not (grid.crs.is_geographic or grid.crs.is_projected):
        return None
    import pyproj

    rows = np.arange(grid.height)
    x, y = grid.centres_of(rows, np.full(grid.height, (grid.width - 1) / 2))
    pixel = abs(grid.transform.determinant)
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if grid.crs.is_geographic:
        ellipsoid = crs.get_geod()
        if ellipsoid is None:
            return None
        unit = grid.crs.units_factor[1]
        latitude = y * unit
        # Product of the radii of curvature (J. P. Snyder, Map Projections: A Working Manual, 1987, 4-18 and 4-20).
        root = 1 - ellipsoid.es * np.sin(latitude) ** 2
        return pixel * unit**2 * ellipsoid.a**2 * (1 - ellipsoid.es) * np.cos(latitude) / root**2 / 1e4
    area = np.full(grid.height, pixel * grid.crs.linear_units_factor[1] ** 2 / 1e4)
    longitude, latitude = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
    scale = np.asarray(pyproj.Proj(crs).get_factors(longitude, latitude).areal_scale)
    usable = np.isfinite(scale) & (np.abs(scale - 1) > 0.01) & (scale > 0)
    return np.where(usable, area / np.where(usable, scale, 1.0), area)
