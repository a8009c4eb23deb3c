"""Windowed reading of rasters: every pixel that the engine reads passes through here.

Arrays are ``(C, H, W)``; windows are ``(row, col, height, width)`` in pixels of the source's grid. A window may reach
over the raster's edge: what lies outside is the reflection of what lies inside (numpy's "reflect").
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple, Type

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Interleaving
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window

from ..models.cards import formula_of
from ..tasks.errors import BadInput
from ..tasks.jobs import RasterSource
from .computedbands import compute, parse_computed, used_bands
from .damage import Box, blocks_of, damaged_error, salvage
from .expressions import BandExpression
from .grids import Grid as Grid
from .grids import reflect_indices
from .oddvalues import LARGEST_MEASUREMENT

Array = npt.NDArray[Any]

# GDAL's block cache in bytes (rasterio takes bytes where the environment variable means megabytes): holds a row of
# tiles of wide and line-striped scenes, which would otherwise be decoded once per tile. GDAL's own is 5 % of the RAM.
CACHE_BYTES = 160_000_000

# What bands may show, in the order that images usually have them; and what the fourth band of many files is called.
COLOURS = ("red", "green", "blue", "nir")
ALPHA = "alpha"

# Stacks of patches lie nowhere, and a scene without a georeference is the user's choice: the log need not say so.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


@dataclass(frozen=True)
class BandInfo:
    """What is known of one band: its description, no-data number, and scale and offset to physical units.

    ``colour`` is red, green, blue or nir where the file says that the band shows it; alpha where a band that is called
    so was asked for as a measurement; else empty.
    ``expression`` is the text that a computed band is computed by, empty for a band of a file. A computed band is
    physical already (scale 1, offset 0), and NaN is its no-data.
    """

    name: str
    dtype: str
    nodata: Optional[float]
    scale: float
    offset: float
    expression: str = ""
    colour: str = ""

    @property
    def formula(self) -> str:
        """Return how a computed band is written: ``NDVI = (B8 - B4) / (B8 + B4)``, or without a name."""
        return formula_of(self.name, self.expression)


@dataclass(frozen=True)
class Layout:
    """How a source is stored: what reading a window costs.

    Attributes:
        height: rows.
        width: columns.
        block_height: rows of its blocks; of the largest where files of a stack differ.
        block_width: columns likewise.
        pixel_bytes: of a pixel of all bands that are decoded together.
    """

    height: int
    width: int
    block_height: int
    block_width: int
    pixel_bytes: int

    @property
    def striped(self) -> bool:
        """Tell whether the blocks are whole rows."""
        return self.block_width >= self.width


class RasterReader:
    """Windowed reader of a `RasterSource`; a context manager. Threads may share one: reads are under a lock.

    Attributes:
        grid: grid of the first file; all files of the stack lie on it.
        bands: one `BandInfo` per band, in channel order: the files' bands, then the computed ones.
        dtype: the smallest type that holds all bands.
        block_height: rows of the blocks that the first file is stored in.
        striped: True where the first file's blocks are whole rows.
        masked: True where a mask band or alpha tells no-data, which no number shows.
        alpha: bands (from 1) of the first file that are taken for a mask because it calls them alpha.
        damaged: the blocks (row, col, height, width) that could not be decoded so far, where those are salvaged.
        name: what messages call the source.
    """

    def __init__(
        self,
        source: RasterSource,
        *,
        scale: Optional[float] = None,
        offset: Optional[float] = None,
        salvage: bool = False,
    ) -> None:
        """Open the files.

        Args:
            source: the files, their bands, and expressions of further bands.
            scale: factor to physical units in place of the files' own, for all of their bands.
            offset: summand likewise.
            salvage: blocks that cannot be decoded are no-data, and are kept in ``damaged``, instead of an error.

        Raises:
            BadInput: a file cannot be opened, a band does not exist or holds complex numbers, a stacked raster has
                another grid, a file lies on ground control points only, a VRT lacks one of its files, or an
                expression cannot be understood.
        """
        self.name = source.label or Path(source.path).name
        self.damaged: Dict[Box, None] = {}
        self._salvage = salvage
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._parts: list[tuple[Any, tuple[int, ...]]] = []
        try:
            first = self._open(source.path)
            crs = first.crs or (CRS.from_wkt(source.crs) if source.crs else None)
            self.grid = Grid(first.width, first.height, first.transform, crs)
            self.block_height = int(first.block_shapes[0][0])
            self.striped = bool(first.block_shapes[0][1] >= first.width)
            self._parts.append((first, self._chosen(first, source.bands)))
            self.alpha = tuple(i for i in _alpha_bands(first) if i not in self._parts[0][1])
            for path in source.stack:
                other = self._open(path)
                grid = Grid(other.width, other.height, other.transform, other.crs or crs)
                if not self.grid.same_as(grid):
                    raise BadInput(
                        f"'{Path(path).name}' does not lie on the grid of '{self.name}': "
                        f"{grid.difference_from(self.grid)}.",
                        "Stack rasters of one grid only; align them first, e.g. with 'Align rasters'.",
                    )
                self._parts.append((other, self._chosen(other, ())))
        except BaseException:
            self.close()
            raise
        own = tuple(
            BandInfo(
                name=dataset.descriptions[index - 1] or "",
                dtype=dataset.dtypes[index - 1],
                nodata=source.nodata if source.nodata is not None else dataset.nodatavals[index - 1],
                scale=dataset.scales[index - 1] if scale is None else scale,
                offset=dataset.offsets[index - 1] if offset is None else offset,
                colour=_colour(dataset, index),
            )
            for dataset, indices in self._parts
            for index in indices
        )
        # Asked for once: for a while after a block that cannot be read, rasterio answers such questions with its error.
        self._masks = [_masks_of(dataset, indices) for dataset, indices in self._parts]
        self.masked = any(masks.there for masks in self._masks)
        self._own = own
        self._expressions: Tuple[BandExpression, ...] = ()
        self.dtype = np.result_type(*(np.dtype(band.dtype) for band in own))
        computed: Tuple[BandInfo, ...] = ()
        if source.expressions.strip():
            self._expressions = parse_computed(
                source.expressions, [band.name for band in own], remedy=self.alpha_remedy
            )
            computed = tuple(BandInfo(e.name, "float32", math.nan, 1.0, 0.0, e.text) for e in self._expressions)
            # float32 holds 16-bit numbers exactly; larger ones make it float64.
            self.dtype = np.result_type(self.dtype, np.float32)
        self.bands = own + computed
        self._numbers = [_number_in(band, self.dtype) for band in own]

    def _open(self, path: str) -> Any:
        try:
            dataset = self._stack.enter_context(rasterio.open(path))
        except RasterioIOError as error:
            if not Path(path).exists() and ":" not in path[2:]:
                raise BadInput(f"The raster '{path}' does not exist.", "Check the path.") from error
            raise BadInput(
                f"The raster '{path}' cannot be read: {error}.", "Save it as GeoTIFF in QGIS and use that."
            ) from error
        if dataset.count == 0:
            raise BadInput(
                f"'{Path(path).name}' holds several rasters, none of which is chosen.",
                f"Add it to QGIS and choose one of its layers: {', '.join(dataset.subdatasets[:3]) or 'it has none'}.",
            )
        if dataset.gcps[0] and dataset.transform.is_identity:
            raise BadInput(
                f"'{Path(path).name}' lies on ground control points, not on a grid.",
                "Warp it first with 'Warp (reproject)' and use the result.",
            )
        return dataset

    def _chosen(self, dataset: Any, bands: Sequence[int]) -> tuple[int, ...]:
        # An alpha band is a mask, not a measurement, unless it is asked for; `_file_mask` honours it.
        own = tuple(i for i in dataset.indexes if i not in _alpha_bands(dataset))
        wrong = next((band for band in bands if band not in dataset.indexes), None)
        if wrong is not None:
            raise BadInput(
                f"'{self.name}' has no band {wrong}: it has {dataset.count}.",
                f"Choose bands from 1 to {dataset.count}.",
            )
        chosen = tuple(bands) or own
        odd = next((i for i in chosen if dataset.dtypes[i - 1].startswith("complex")), None)
        if odd is not None:
            raise BadInput(
                f"Band {odd} of '{Path(dataset.name).name}' holds complex numbers ({dataset.dtypes[odd - 1]}).",
                "Compute real bands first (amplitude, phase or intensity) and use those.",
            )
        return chosen

    def __enter__(self) -> RasterReader:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files, after a read that is under way in another thread."""
        with self._lock:
            self._stack.close()

    @property
    def every_band(self) -> Tuple[int, ...]:
        """Return the bands (from 1) of the first file that are read, and those that it calls alpha among them."""
        return tuple(sorted({*self._parts[0][1], *self.alpha}))

    @property
    def alpha_remedy(self) -> str:
        """Return what to do where a fourth band may be near infrared, which many files call alpha; "" where it is not.

        A band that is called alpha is taken for a mask.
        """
        chosen = self._parts[0][1]
        if len(self.alpha) != 1 or self.every_band != (*chosen, self.alpha[0]) or len(chosen) != self.alpha[0] - 1:
            return ""
        every = ", ".join(map(str, self.every_band))
        return (
            f"Band {self.alpha[0]} of '{self.name}' is called alpha and taken for a mask: if it is a measurement, such "
            f"as near infrared, choose the BANDS {every}."
        )

    @property
    def layout(self) -> Layout:
        """Return how the files are stored."""
        blocks, pixel_bytes = [], 0
        for dataset, indices in self._parts:
            blocks.append(_blocks(dataset))
            # The bands of interleaved pixels are decoded together, whichever are wanted; alpha is read with the others.
            together = dataset.interleaving == Interleaving.pixel
            bands = dataset.indexes if together else {*indices, *_alpha_bands(dataset)}
            pixel_bytes += sum(np.dtype(dataset.dtypes[band - 1]).itemsize for band in bands)
        height, width = (max(sides) for sides in zip(*blocks))
        return Layout(self.grid.height, self.grid.width, height, width, pixel_bytes)

    def read_raw(self, row: int, col: int, height: int, width: int) -> Array:
        """Read a window inside the raster, without its mask: the first file's bands as stored, ``(C, H, W)``."""
        dataset, indices = self._parts[0]
        window = Window(col, row, width, height)
        with self._lock:
            try:
                raw: Array = dataset.read(indices, window=window)
            except RasterioError as error:
                raise _reading_error(dataset, indices, window) from error
        return raw

    def read(self, row: int, col: int, height: int, width: int, rule: str = "any") -> Tuple[Array, Array]:
        """Read a window, reflected at the raster's edges.

        Args:
            row: first row; may be negative or reach over the raster's end, as may the window.
            col: first column, likewise.
            height: rows.
            width: columns.
            rule: any = a no-data number counts in each band by itself; all = only where all bands equal theirs.
                Masks, alpha, NaN and numbers beyond `LARGEST_MEASUREMENT` always count per band.

        Returns:
            The raw values ``(C, height, width)`` in the source's data type, and a mask of the same shape that is True
            where a value is valid. Computed bands stand behind the others, NaN where a band that they use has no-data
            and where their result is not finite.
        """
        raw, valid = self.read_known(row, col, height, width, rule)
        return raw, np.ones(raw.shape, bool) if valid is None else valid

    def read_known(
        self, row: int, col: int, height: int, width: int, rule: str = "any"
    ) -> Tuple[Array, Optional[Array]]:
        """Read a window as `read` does, with None for the mask where every value is valid: most windows of most scenes.

        A mask of four bands costs as much time as their values.
        """
        grid = self.grid
        if row >= 0 and col >= 0 and row + height <= grid.height and col + width <= grid.width:
            return self._read_inside(Window(col, row, width, height), rule)
        rows, cols = reflect_indices(row, height, grid.height), reflect_indices(col, width, grid.width)
        window = Window(cols.min(), rows.min(), cols.max() - cols.min() + 1, rows.max() - rows.min() + 1)
        raw, valid = self._read_inside(window, rule)

        def reflected(image: Array) -> Array:
            # Most windows at an edge reach over one, and a part of the time of indexing both axes is enough there.
            for axis, at in ((1, rows - rows.min()), (2, cols - cols.min())):
                if not np.array_equal(at, np.arange(image.shape[axis])):
                    image = image.take(at, axis)
            return image

        return reflected(raw), None if valid is None else reflected(valid)

    def _read_inside(self, window: Window, rule: str) -> Tuple[Array, Optional[Array]]:
        parts = [self._read_part(*part, masks, window) for part, masks in zip(self._parts, self._masks)]
        raws = [raw.astype(self.dtype, copy=False) for raw, _ in parts]
        raw = raws[0] if len(raws) == 1 else np.concatenate(raws)
        valid = None
        if any(mask is not None for _, mask in parts):
            valid = np.concatenate([np.ones(raw.shape, bool) if mask is None else mask for raw, mask in parts])
        usable = _usable(raw) if self.dtype.kind == "f" else None
        if usable is not None:
            valid = usable if valid is None else valid & usable
        missing = self._missing(raw, rule)
        if missing is not None:
            valid = ~missing if valid is None else valid & ~missing
        return self._with_computed(raw, valid) if self._expressions else (raw, valid)

    def _read_part(
        self, dataset: Any, indices: Tuple[int, ...], masks: _Masks, window: Window
    ) -> Tuple[Array, Optional[Array]]:
        """Read one file's bands, and their mask where the file has one."""
        with self._lock:
            try:
                raw = dataset.read(indices, window=window)
                return raw, _file_mask(dataset, indices, masks, window, functools.partial(dataset.read, window=window))
            except RasterioError as error:
                if not self._salvage or _missing_file(dataset):
                    raise _reading_error(dataset, indices, window) from error

            def left_of(bands: Sequence[int]) -> Tuple[Array, Array]:
                values, read, lost = salvage(dataset, bands, window)
                self.damaged.update(dict.fromkeys(lost))
                return values, read

            raw, read = left_of(indices)
            try:
                # Alpha is 0, which is no data, where it cannot be read.
                mask = _file_mask(dataset, indices, masks, window, lambda bands: left_of(bands)[0])
            except RasterioError as error:
                raise damaged_error(dataset, window, ()) from error
        return raw, read if mask is None else read & mask

    def may_lack(self, rule: str = "any") -> bool:
        """Tell, without reading, whether a pixel may be no-data by ``rule``: by a mask, NaN or a no-data number."""
        numbers = [number is not None for number in self._numbers]
        return self.masked or self.dtype.kind == "f" or (all if rule == "all" else any)(numbers)

    def absent(self, window: Box, bands: Sequence[int], rule: str = "any") -> bool:
        """Tell, without reading, whether a window inside the raster is no-data because no block of it is stored.

        Args:
            window: row, col, height and width.
            bands: positions of those that count.
            rule: see `read`.

        Returns:
            True only where it is certain: of GeoTIFFs that were written sparse, whose missing blocks are no-data.
        """
        row, col, height, width = window
        places = [(dataset, index) for dataset, indices in self._parts for index in indices]
        window_of = Window(col, row, width, height)

        def missing(position: int) -> bool:
            dataset, index = places[position]
            number = self._numbers[position]
            if dataset.driver != "GTiff" or number is None or number != (dataset.nodata or 0):
                return False
            high, wide = dataset.block_shapes[index - 1]
            boxes = blocks_of(dataset, index, window_of)
            names = (f"BLOCK_OFFSET_{left // wide}_{top // high}" for top, left, _, _ in boxes)
            return all(dataset.get_tag_item(name, "TIFF", bidx=index) is None for name in names)

        with self._lock:
            found = [missing(position) for position in bands if position < len(places)]
        return all(found) if rule == "all" else any(found)

    def _missing(self, raw: Array, rule: str) -> Optional[Array]:
        """Return where values ``(C, H, W)`` are their band's no-data number; None where none is."""
        if rule == "all":
            if any(number is None for number in self._numbers):
                return None
            everywhere = raw[0] == self._numbers[0]
            for values, number in zip(raw[1:], self._numbers[1:]):
                if not everywhere.any():
                    return None
                everywhere &= values == number
            return np.broadcast_to(everywhere, raw.shape) if everywhere.any() else None
        found = None
        for band, number in enumerate(self._numbers):
            if number is None:
                continue
            equal = raw[band] == number
            if equal.any():
                found = np.zeros(raw.shape, bool) if found is None else found
                found[band] = equal
        return found

    def _with_computed(self, raw: Array, valid: Optional[Array]) -> Tuple[Array, Optional[Array]]:
        """Append the computed bands to raw values and validity ``(C, H, W)`` of the files' bands."""
        valid = np.ones(raw.shape, bool) if valid is None else valid
        used = list(used_bands(self._expressions))
        scales, offsets = (np.array([getattr(self._own[i], key) for i in used]) for key in ("scale", "offset"))
        found = compute(self._expressions, dict(zip(used, self.physical(raw[used], scales, offsets))), valid)
        return np.concatenate([raw, found.astype(self.dtype)]), np.concatenate([valid, ~np.isnan(found)])

    def physical(self, raw: Array, scales: Optional[Array] = None, offsets: Optional[Array] = None) -> Array:
        """Return raw values ``(..., C, H, W)`` in physical units as float32: raw * scale + offset per band."""
        scale = np.array([b.scale for b in self.bands]) if scales is None else scales
        offset = np.array([b.offset for b in self.bands]) if offsets is None else offsets
        if np.all(scale == 1) and np.all(offset == 0):
            return raw.astype(np.float32, copy=False)
        return (raw.astype(np.float64) * scale[:, None, None] + offset[:, None, None]).astype(np.float32)


def _usable(raw: Array) -> Optional[Array]:
    """Return where floating-point numbers may be measurements, of the same shape; None where all may."""
    limit = raw.dtype.type(min(LARGEST_MEASUREMENT, float(np.finfo(raw.dtype).max)))
    # Of a window without any other the mask is not made, which takes longer than this; NaN is in no range.
    if raw.size and -limit <= raw.min() and raw.max() <= limit:
        return None
    return np.asarray(np.abs(raw) <= limit)


def _blocks(dataset: Any) -> Tuple[int, int]:
    """Return the rows and columns of a file's blocks; of its first file where it is a VRT, whose own are not stored."""
    if dataset.driver == "VRT" and len(dataset.files) > 1 and Path(dataset.files[1]).is_file():
        with contextlib.suppress(RasterioError), rasterio.open(dataset.files[1]) as first:
            high, wide = first.block_shapes[0]
            return high, dataset.width if wide >= first.width and first.width * 2 > dataset.width else wide
    high, wide = dataset.block_shapes[0]
    return high, wide


def _number_in(band: BandInfo, dtype: np.dtype[Any]) -> Any:
    """Return a band's no-data number as values of ``dtype`` can equal it; None where they cannot.

    0.1 is another number in a float32 band of a stack of float64.
    """
    number = band.nodata
    if number is None or math.isnan(number):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            own = np.float32(number) if band.dtype == "float32" else number
            held = dtype.type(own)
        return held if held == own else None
    if dtype.itemsize == 8:
        return np.float64(number)  # as GDAL hands it over: a double
    limits = np.iinfo(dtype)
    return dtype.type(int(number)) if number == int(number) and limits.min <= number <= limits.max else None


def _alpha_bands(dataset: Any) -> Tuple[int, ...]:
    return tuple(index for index in dataset.indexes if dataset.colorinterp[index - 1].name == "alpha")


def _colour(dataset: Any, index: int) -> str:
    """Return what a band shows by its file: one of the colours that images have, or alpha; else empty."""
    name = dataset.colorinterp[index - 1].name
    return name if name in (*COLOURS, ALPHA) else ""


@dataclass(frozen=True)
class _Masks:
    """What tells of a file's bands where they have no data, besides a number.

    Attributes:
        alpha: bands (from 1) that mask all others.
        of_file: of each band, whether a mask of the whole file counts.
        of_band: whether it has a mask of its own.
    """

    alpha: Tuple[int, ...]
    of_file: Tuple[bool, ...]
    of_band: Tuple[bool, ...]

    @property
    def there(self) -> bool:
        """Tell whether anything masks any band."""
        return bool(self.alpha) or any(self.of_file) or any(self.of_band)


def _masks_of(dataset: Any, indices: Sequence[int]) -> _Masks:
    """Return the masks of bands.

    GDAL knows an alpha band for a mask in images of two and of four bands of 8 or 16 bits alone; drones' images have
    more. One that is itself among the bands masks nothing: near infrared as a fourth band is often called alpha.
    """
    alpha = _alpha_bands(dataset)
    told = [{flag.name for flag in dataset.mask_flag_enums[index - 1]} for index in indices]
    return _Masks(
        alpha=() if set(alpha) & set(indices) else alpha,
        of_file=tuple("per_dataset" in names and "alpha" not in names for names in told),
        of_band=tuple(not names for names in told),
    )


def _file_mask(
    dataset: Any, indices: Sequence[int], masks: _Masks, window: Window, read: Callable[[Sequence[int]], Array]
) -> Optional[Array]:
    """Return the mask ``(C, H, W)`` of a file's bands, True where they have data; None where nothing masks them.

    Args:
        dataset: the file.
        indices: its bands.
        masks: theirs. A no-data number is not among them.
        window: inside the file.
        read: gives the values ``(A, H, W)`` of bands in the window.
    """
    if not masks.there:
        return None
    found = np.ones((len(indices), int(window.height), int(window.width)), dtype=bool)
    if masks.alpha:
        found &= (read(masks.alpha) > 0).all(axis=0)
    if any(masks.of_file):
        found[list(masks.of_file)] &= dataset.dataset_mask(window=window) > 0
    for position, (index, own) in enumerate(zip(indices, masks.of_band)):
        if own:
            found[position] &= dataset.read_masks(index, window=window) > 0
    return found


def _missing_file(dataset: Any) -> str:
    """Return the first file of a VRT that does not exist; empty when there is none."""
    if dataset.driver != "VRT":
        return ""
    return next((path for path in dataset.files[1:] if not path.startswith("/vsi") and not Path(path).exists()), "")


def _reading_error(dataset: Any, indices: Sequence[int], window: Window) -> BadInput:
    """Return the sentence for a failed read: a file of a VRT that is missing, or damage."""
    missing = _missing_file(dataset)
    if missing:
        return BadInput(
            f"'{Path(dataset.name).name}' refers to '{missing}', which does not exist.",
            "Bring that file back, or build the VRT again.",
        )
    return damaged_error(dataset, window, salvage(dataset, indices, window)[2])


def open_mask_on(source: RasterSource, grid: Grid, instead: str = "") -> RasterReader:
    """Open a mask, the first band of a raster where none is chosen, which is above 0 where something counts.

    Args:
        source: the mask.
        grid: that it has to lie on.
        instead: what else the user may give, for the message.

    Raises:
        BadInput: it cannot be read, or lies on another grid.
    """
    mask = RasterReader(replace(source, bands=source.bands or (1,)))
    if mask.grid.same_as(grid):
        return mask
    mask.close()
    raise BadInput(
        f"The mask '{mask.name}' does not lie on the grid of the raster: {mask.grid.difference_from(grid)}.",
        f"Give a mask of the same grid{instead}.",
    )


@contextlib.contextmanager
def reading(
    source: RasterSource,
    *,
    scale: Optional[float] = None,
    offset: Optional[float] = None,
    cache: int = CACHE_BYTES,
    salvage: bool = False,
) -> Iterator[RasterReader]:
    """Open a source for reading, with GDAL's block cache bounded as long as it is open.

    Args:
        source: see `RasterReader`, as for ``scale``, ``offset`` and ``salvage``.
        scale: factor to physical units in place of the files' own.
        offset: summand likewise.
        cache: bytes of the block cache, which all rasters share that are open at a time.
        salvage: take blocks that cannot be decoded as no-data.
    """
    with (
        rasterio.Env(GDAL_CACHEMAX=cache),
        RasterReader(source, scale=scale, offset=offset, salvage=salvage) as reader,
    ):
        yield reader
