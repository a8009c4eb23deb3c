"""Reading patches block by block of a source, so that every part of it is read about once, with their dense labels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Type

import numpy as np
import numpy.typing as npt

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import RasterSource
from .bandnames import band_names
from .bandstatistics import scene_statistics
from .datasets import LABELS, DatasetBand, DatasetScene
from .denselabels import DenseLabels
from .lengths import pixel_metres
from .oddvalues import ValueWatch, undeclared, warn_of_undeclared
from .patchplaces import Placement
from .patchwriting import StackWriter
from .products import output_type
from .rasters import Array, Grid, RasterReader

Numbers = npt.NDArray[np.int64]

# Values held at once while reading: about 40 MB of 4-byte bands with their masks, and as much again as patches.
_BLOCK_VALUES = 8_000_000
# Class values that a table of codes spans, and one more than the classes that there may be.
_TABLE = 1 << 16


@dataclass(frozen=True)
class SourcePlan:
    """How one source is read.

    Attributes:
        number: of the source, from 1.
        reader: the source.
        rule: any or all, see `RasterReader.read`.
        numbers: no-data number of every band that marks all that is missing in the stack; None where nothing is.
    """

    number: int
    reader: RasterReader
    rule: str
    numbers: Tuple[Optional[float], ...]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Return the data type of the stack."""
        return np.dtype(self.reader.dtype)

    @property
    def file(self) -> str:
        """Return the name of the stack."""
        return f"source{self.number}.tif"


def warn_of_alpha(reader: RasterReader, context: Context) -> None:
    """Warn where a fourth band may be near infrared: many files call it alpha, and so it is taken for a mask."""
    if reader.alpha_remedy:
        context.warn(reader.alpha_remedy)


def plan_source(number: int, reader: RasterReader, nodata_rule: str, max_nodata: float) -> SourcePlan:
    """Return how a source is read; decides NODATA_RULE auto."""
    rule = nodata_rule
    if rule == "auto":
        # In byte images 0 and 255 also occur as measurements; only pixels that hold them in all bands are no-data.
        rule = "all" if all(band.dtype == "uint8" for band in reader.bands if not band.expression) else "any"
    return SourcePlan(number, reader, rule, _missing_numbers(reader, max_nodata))


def _missing_numbers(reader: RasterReader, max_nodata: float) -> Tuple[Optional[float], ...]:
    """Return the no-data number of every band.

    Where patches may hold some no-data (MAX_NODATA) and a whole-number band knows it by a mask only, the stack needs a
    number for it: the lowest of the type for signed ones, the highest for unsigned ones (0 is a common dark value).
    """
    numbers: List[Optional[float]] = []
    for band in reader.bands:
        number = band.nodata
        if number is None and max_nodata > 0 and (reader.masked or np.dtype(reader.dtype).kind == "f"):
            kind = np.dtype(reader.dtype).kind
            limits = None if kind == "f" else np.iinfo(reader.dtype)
            number = float("nan") if limits is None else float(limits.max if kind == "u" else limits.min)
        numbers.append(number)
    return tuple(numbers)


class LabelStack:
    """The dense labels of the patches: a stack of codes while reading, of classes at the end; a context manager.

    Which classes there are is known only when all is read; until then a pixel holds the place of its class in the order
    in which they were met, counted from 1, and 0 where it is ignored.
    """

    def __init__(self, labels: DenseLabels, folder: Path, count: int, size: int) -> None:
        """Prepare for ``count`` patches of ``size`` pixels; files are written into ``folder``."""
        self._labels = labels
        self._folder = folder
        self._size = size
        self._code_of: Dict[int, int] = {}
        self._codes = StackWriter(folder / "codes.tif", count, size, 1, np.dtype(np.uint16), (None,))

    def __enter__(self) -> LabelStack:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._codes.close()
        self._codes.path.unlink(missing_ok=True)

    def read(self, window: Tuple[int, int, int, int]) -> Array:
        """Return the codes of a window of the first source ``(H, W)``."""
        labels, valid = self._labels.read(*window)
        codes = np.zeros(labels.shape, dtype=np.uint16)
        known = labels[valid]
        if len(known) == 0:
            return codes
        low = int(known.min())
        if int(known.max()) - low < _TABLE:
            present = np.flatnonzero(np.bincount(known - low))
            table = np.zeros(int(known.max()) - low + 1, dtype=np.uint16)
            table[present] = self._coded(present + low)
            codes[valid] = table[known - low]
        else:
            values, places = np.unique(known, return_inverse=True)
            codes[valid] = self._coded(values)[places]
        return codes

    def _coded(self, values: Numbers) -> npt.NDArray[np.uint16]:
        for value in values.tolist():
            self._code_of.setdefault(value, len(self._code_of) + 1)
        if len(self._code_of) >= _TABLE:
            raise BadInput(
                f"'{self._labels.name}' holds more than {_TABLE - 1} values, so they are no classes.",
                "Choose a raster, or a field, of classes.",
            )
        return np.array([self._code_of[value] for value in values.tolist()], dtype=np.uint16)

    def write(self, slots: Numbers, codes: Array) -> None:
        """Write the codes of patches ``(n, p, p, 1)``."""
        self._codes.write(slots, codes)

    def finish(self, kept: Numbers, context: Context) -> Tuple[Numbers, Dict[int, int], int]:
        """Write the labels of the patches that are kept, in the smallest type.

        Returns:
            The class of most labelled pixels of each patch ``(n,)``, ties to the lower one, -1 without any; class value
            -> labelled pixels; and the value of ignored pixels, which is no class.
        """
        values = np.array(sorted(self._code_of), dtype=np.int64)
        dtype, nodata = output_type(values.tolist() or [0])
        # From the code to the place of the class among all, ascending; ignored pixels last.
        ranks = np.full(len(values) + 1, len(values))
        for place, value in enumerate(values.tolist()):
            ranks[self._code_of[value]] = place
        stored = np.append(values, nodata).astype(dtype)
        totals = np.zeros(len(values) + 1, dtype=np.int64)
        most = np.full(len(kept), -1, dtype=np.int64)
        with StackWriter(self._folder / LABELS, len(kept), self._size, 1, np.dtype(dtype), (nodata,)) as writer:
            for places, codes in self._codes.pieces(kept):
                context.check()
                ranked = ranks[codes]
                writer.write(places, stored[ranked])
                totals += np.bincount(ranked.reshape(-1), minlength=len(totals))
                most[places] = _majority(ranked.reshape(len(ranked), -1), values)
        counts = {int(value): int(total) for value, total in zip(values, totals) if total > 0}
        return most, counts, nodata


def _majority(ranked: Numbers, values: Numbers) -> Numbers:
    """Return the most frequent class of each row ``(n, pixels)`` of places in ``values``; -1 where there is none."""
    best, most = np.full(len(ranked), -1, dtype=np.int64), np.zeros(len(ranked), dtype=np.int64)
    for place in np.unique(ranked[ranked < len(values)]):
        count = np.count_nonzero(ranked == place, axis=1)
        better = count > most
        best[better], most[better] = values[place], count[better]
    return best


def read_patches(
    plan: SourcePlan, place: Placement, writer: StackWriter, *, max_nodata: float, centre: bool,
    labels: Optional[LabelStack], done: Callable[[int], None], context: Context,
    members: Numbers,
) -> npt.NDArray[np.bool_]:  # fmt: skip
    """Read patches of a source into its stack.

    Args:
        plan: the source.
        place: the patches, by slot of the stack ``(N,)``.
        writer: the stack.
        max_nodata: largest share of no-data.
        centre: the pixel at p // 2 must be valid: it is the one that the class belongs to.
        labels: dense labels, whose stack is filled along with the patches.
        done: called with the patches that are done.
        context: of the run.
        members: slots to read, ascending.

    Returns:
        Which slots have too much no-data; nothing is written there.
    """
    size = place.size
    refused = np.zeros(len(place.rows), dtype=bool)
    most = max(1, _BLOCK_VALUES // (len(plan.reader.bands) * size * size))
    for tile, window in _windows(plan.reader, place, members):
        context.check()
        raw, valid = plan.reader.read(*window, plan.rule)
        truth = labels.read(window) if labels else None
        image = np.ascontiguousarray(raw.transpose(1, 2, 0))
        whole: Array = np.asarray(valid.all(axis=0))
        clean = bool(whole.all())
        for start in range(0, len(tile), most):
            context.check()
            slots = tile[start : start + most]
            rows, cols = place.rows[slots] - window[0], place.cols[slots] - window[1]
            keep, touched = np.ones(len(slots), dtype=bool), np.zeros(len(slots), dtype=bool)
            if not clean:
                parts = _cut(whole[..., None], rows, cols, size)[..., 0]
                share = 1.0 - parts.mean(axis=(1, 2))
                # Rounding of the share must not refuse a patch that has just MAX_NODATA.
                keep = share <= max_nodata + 1e-9
                if centre:
                    keep &= parts[:, size // 2, size // 2]
                refused[slots[~keep]] = True
                slots, rows, cols, touched = slots[keep], rows[keep], cols[keep], share[keep] > 0
            patches = _cut(image, rows, cols, size)
            if touched.any():
                valids = _cut(valid.transpose(1, 2, 0), rows[touched], cols[touched], size)
                patches[touched] = _marked(patches[touched], valids, plan.numbers, plan.rule)
            writer.write(slots, patches)
            if labels is not None and truth is not None:
                targets = _cut(truth[..., None], rows, cols, size)
                if touched.any():
                    targets[touched] *= parts[keep][touched][..., None]
                labels.write(slots, targets)
            done(len(keep))
    return refused


def _marked(patches: Array, valid: Array, numbers: Sequence[Optional[float]], rule: str) -> Array:
    """Return patches ``(n, p, p, C)`` whose missing values all hold their band's no-data number."""
    missing = ~valid
    if patches.dtype.kind == "f":
        # NaN is understood whatever the number is; it stays as it was read.
        missing = missing & ~np.isnan(patches)
    if rule == "all":
        missing = np.broadcast_to(missing.any(axis=-1, keepdims=True), missing.shape)
    fill = np.array([0 if number is None else number for number in numbers]).astype(patches.dtype)
    return np.where(missing, fill, patches)


def _windows(
    reader: RasterReader, place: Placement, members: Numbers
) -> Iterator[Tuple[Numbers, Tuple[int, int, int, int]]]:
    """Yield slots and the window (row, col, height, width) that holds their patches, block by block of the source."""
    size, grid, bands = place.size, reader.grid, len(reader.bands)
    rows, cols = place.rows, place.cols
    side = max(size, int((_BLOCK_VALUES / bands) ** 0.5) - size)
    # Rows of a striped file are stored whole: reading it in columns would decode each of them several times.
    across = grid.width + 2 * size if reader.striped and grid.width + size <= _BLOCK_VALUES // (bands * size) else side
    down = max(size, _BLOCK_VALUES // (bands * (min(across, grid.width) + size)) - size)
    block = (rows[members] + size) // down * (grid.width // across + 3) + (cols[members] + size) // across
    order = np.argsort(block, kind="stable")
    for tile in np.split(members[order], np.flatnonzero(np.diff(block[order])) + 1):
        if len(tile) == 0:
            continue
        top, left = int(rows[tile].min()), int(cols[tile].min())
        height, width = int(rows[tile].max()) + size - top, int(cols[tile].max()) + size - left
        # Few samples in a large block: reading each for itself touches less of the file.
        if len(tile) * size * size * 64 >= height * width:
            yield tile, (top, left, height, width)
        else:
            ordered = tile[np.lexsort((cols[tile], rows[tile]))]
            for slot in ordered:
                yield np.array([slot]), (int(rows[slot]), int(cols[slot]), size, size)


def _cut(image: Array, rows: Numbers, cols: Numbers, size: int) -> Array:
    """Return the patches that begin at these places of an image ``(H, W, C)`` as ``(n, p, p, C)``."""
    view = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))
    return np.ascontiguousarray(view.transpose(0, 1, 3, 4, 2)[rows, cols])


# --- what datasets and cards say of a source -------------------------------------------------------------------------


def dataset_bands(plan: SourcePlan, explicit: bool, context: Context) -> Tuple[DatasetBand, ...]:
    """Return what a dataset or a card says of the bands of a source; warn where their values look odd.

    Args:
        plan: how the source is read.
        explicit: the user gave scale or offset in place of the file's own.
        context: for warnings; looked at between windows.

    Raises:
        BadInput: a computed band has no value anywhere.
    """
    reader = plan.reader
    names = band_names(reader.bands)
    watch = ValueWatch([band.formula for band in reader.bands if band.expression])
    scene = scene_statistics(reader, rule=plan.rule, check=context.check, watch=watch)
    watch.tell_of_holes(reader.name, context)
    warn_of_undeclared(*undeclared(watch.outliers(), reader.name), context)
    return tuple(
        DatasetBand(
            name=names[index],
            nodata=plan.numbers[index],
            scale=float(band.scale),
            offset=float(band.offset),
            explicit=explicit and not band.expression,
            scene_mean=float(scene.mean[index]),
            scene_std=float(scene.std[index]),
            expression=band.expression,
        )
        for index, band in enumerate(reader.bands)
    )


def dataset_scene(reader: RasterReader, source: RasterSource) -> DatasetScene:
    """Return what a dataset or a card says of the image that patches are cut from."""
    grid: Grid = reader.grid
    # A GDAL data source name ("NETCDF:file:band") is no path.
    path = os.path.abspath(source.path) if Path(source.path).exists() else source.path
    return DatasetScene(
        label=reader.name,
        path=path,
        crs="" if grid.crs is None else grid.crs.to_wkt(),
        transform=tuple(float(value) for value in grid.transform[:6]),
        width=grid.width,
        height=grid.height,
        res_m=pixel_metres(grid),
    )
