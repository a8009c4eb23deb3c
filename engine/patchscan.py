"""What lies in the windows of patches: no-data of the image, and labels on its grid or brought onto it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import RasterSource, SelectPatches
from .denselabels import DenseLabels
from .labelsources import open_labels
from .patchsplits import Numbers
from .rasters import Array, Grid, RasterReader

# Values held at once while reading: a few times this in bytes with masks and sums.
_BLOCK_VALUES = 6_000_000
# More classes than this are a measurement; their counts are kept for every patch.
_MOST_CLASSES = 256

# Labels on the image's own grid are read as they are, which is faster.
PatchLabels = Union[RasterReader, DenseLabels]


@dataclass(frozen=True)
class Windows:
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

    def take(self, which: npt.NDArray[Any]) -> Windows:
        """Return some of them, by mask or index."""
        labelled = None if self.labelled is None else self.labelled[which]
        counts = None if self.counts is None else self.counts[which]
        return Windows(self.rows[which], self.cols[which], labelled, counts)


def joined(parts: List[Windows]) -> Windows:
    """Join windows of several readings; classes that were met later have more columns of counts."""
    if not parts:
        return Windows(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    labelled = [part.labelled for part in parts if part.labelled is not None]
    counts = [part.counts for part in parts if part.counts is not None]
    return Windows(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.cols for part in parts]),
        np.concatenate(labelled) if labelled else None,
        _stacked(counts) if counts else None,
    )


def _stacked(counts: List[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    """Join counts whose later ones have more columns: classes that were met later."""
    width = max(part.shape[1] for part in counts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in counts])


def open_patch_labels(
    source: Optional[RasterSource], reader: RasterReader, stack: contextlib.ExitStack, context: Context
) -> Optional[PatchLabels]:
    """Open LABELS on the grid of an image; those of another one are brought onto it, by nearest or by majority.

    Raises:
        BadInput: the labels cannot be read, or lie outside the image.
    """
    if source is None:
        return None
    labels = stack.enter_context(RasterReader(source))
    own, other = reader.grid, labels.grid
    if own.same_as(other) and (own.crs is None or other.crs is None or own.crs == other.crs):
        return labels
    return stack.enter_context(open_labels(source, None, "", own, reader.name, context))


class Scan:
    """Reads the image and the labels under windows, part by part of the raster, and tells which windows fit.

    A pixel is no-data where all bands equal their no-data number, or one band is NaN or masked.

    Attributes:
        grid: the image's.
        name: what messages call the image.
    """

    def __init__(self, job: SelectPatches, image: RasterReader, labels: Optional[PatchLabels]) -> None:
        """Prepare; ``labels`` are those of `open_patch_labels`."""
        self.grid: Grid = image.grid
        self.name = image.name
        self._size = job.patch_size
        self._least = job.min_labelled
        self._balance = job.split == "balanced"
        # Where neither a number nor a mask nor NaN can occur, there is nothing to look for.
        self._image = image if image.may_lack("all") else None
        self._labels = labels
        # Areas are those of the file that is read, or of the larger one of two.
        first = self._image or (labels if isinstance(labels, RasterReader) else None)
        self._bands = 1 if first is None else len(first.bands)
        self._striped = first is not None and first.striped
        self._columns: Dict[int, int] = {}

    def fit(self, windows: Windows, context: Context) -> Windows:
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
                values, known = self._labels_in(box)
                labelled[members] = self._sums(known, places) / float(self._size**2)
                if self._balance:
                    counts = self._count(counts, members, values, known, places)
            done += len(members)
            context.progress(done, len(windows), "Looking through the patches", "patches")
        if self._labels is None:
            return windows.take(fits)
        # Rounding of a share must not refuse a patch that has just MIN_LABELLED.
        fits &= labelled >= self._least - 1e-6
        return Windows(windows.rows, windows.cols, labelled, counts if self._balance else None).take(fits)

    def finish(self, context: Context) -> None:
        """Tell what was ignored where labels were brought onto the image's grid.

        Raises:
            BadInput: they label no pixel that was read.
        """
        if isinstance(self._labels, DenseLabels):
            self._labels.finish(context)

    def _labels_in(self, box: Tuple[int, int, int, int]) -> Tuple[Array, Array]:
        """Return the labels of an area, and where there are any, ``(H, W)`` each."""
        if isinstance(self._labels, DenseLabels):
            return self._labels.read(*box)
        if self._labels is None:
            raise ValueError("there are no labels")
        raw, valid = self._labels.read(*box, rule="all")
        return raw[0], valid[0]

    def _areas(self, windows: Windows) -> Iterator[Tuple[Numbers, Tuple[int, int, int, int]]]:
        """Yield windows that lie together, and the area (row, col, height, width) to read for them."""
        size = self._size
        if len(windows) == 0:
            return
        pixels = _BLOCK_VALUES // self._bands
        # Rows of a striped file are stored whole: reading it in columns would decode each of them several times.
        most = 4 * pixels if self._striped else pixels // 2
        whole = self.grid.width * size <= most
        across = self.grid.width if whole else max(size, int(pixels**0.5) - size)
        down = max(size, pixels // (min(across, self.grid.width) + size) - size)
        area_of = windows.rows // down * (self.grid.width // across + 1) + windows.cols // across
        order = np.lexsort((windows.cols, windows.rows, area_of))
        for members in np.split(order, np.flatnonzero(np.diff(area_of[order])) + 1):
            yield from self._dense_or_single(members, windows)

    def _dense_or_single(
        self, members: Numbers, windows: Windows
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
