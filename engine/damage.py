"""Blocks of a raster that cannot be decoded: which they are, what is left around them, and how many pixels they hold.

A file breaks block by block: a bad sector or a transfer that stopped leaves the others whole. Each band is read by its
own blocks, so that what counts as damaged depends on the file alone and not on the window that was asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Sequence, Tuple

import numpy as np
import numpy.typing as npt
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ..tasks.errors import BadInput

Array = npt.NDArray[Any]
Box = Tuple[int, int, int, int]


def salvage(dataset: Any, indices: Sequence[int], window: Window) -> Tuple[Array, Array, List[Box]]:
    """Read what can be read of a window.

    Args:
        dataset: the rasterio dataset.
        indices: its bands (1-based).
        window: inside the raster.

    Returns:
        The values ``(C, H, W)``, 0 where they cannot be read; a mask of the same shape, False there; and the blocks
        (row, col, height, width) that are damaged, each once.
    """
    top, left = int(window.row_off), int(window.col_off)
    bottom, right = top + int(window.height), left + int(window.width)
    dtype = np.result_type(*(dataset.dtypes[index - 1] for index in indices))
    raw = np.zeros((len(indices), bottom - top, right - left), dtype)
    read = np.ones(raw.shape, bool)
    lost: Dict[Box, None] = {}
    for position, index in enumerate(indices):
        for row, col, height, width in blocks_of(dataset, index, window):
            part = Window(col, row, width, height)
            # The whole block, not the window's part of it: a decoder may stop before it meets the damage.
            first, last = max(row, top), min(row + height, bottom)
            begin, end = max(col, left), min(col + width, right)
            target = np.s_[position, first - top : last - top, begin - left : end - left]
            try:
                raw[target] = dataset.read(index, window=part)[first - row : last - row, begin - col : end - col]
            except RasterioError:
                read[target] = False
                lost[row, col, height, width] = None
    return raw, read, list(lost)


def blocks_of(dataset: Any, index: int, window: Window) -> Iterator[Box]:
    """Yield the blocks (row, col, height, width), cut to the raster, that a window of a band (1-based) touches."""
    high, wide = dataset.block_shapes[index - 1]
    bottom, right = window.row_off + window.height, window.col_off + window.width
    for row in range(int(window.row_off) // high * high, int(bottom), high):
        for col in range(int(window.col_off) // wide * wide, int(right), wide):
            yield row, col, min(high, dataset.height - row), min(wide, dataset.width - col)


def damaged_error(dataset: Any, window: Window, lost: Sequence[Box]) -> BadInput:
    """Return the sentence for damage: the first block, or the window where every block can be read by itself."""
    own = (int(window.row_off), int(window.col_off), int(window.height), int(window.width))
    return BadInput(
        f"'{Path(dataset.name).name}' is damaged {place_of(lost[0] if lost else own)}.",
        "Copy the file again from its source; mapping can leave out what is damaged (DAMAGED nodata).",
    )


def place_of(box: Box) -> str:
    """Return where a block (row, col, height, width) lies, in words; rows and columns count from 0."""
    row, col, height, width = box
    return f"in rows {row} to {row + height - 1}, columns {col} to {col + width - 1}"


def pixels_in(boxes: Iterable[Box], window: Box) -> int:
    """Return the pixels of a window that boxes (row, col, height, width) cover; what two of them share counts once."""
    row, col, height, width = window
    limits = (row, col, row + height, col + width)
    parts = np.array([(r, c, r + h, c + w) for r, c, h, w in boxes], np.int64).reshape(-1, 4)
    parts = np.clip(parts, [limits[0], limits[1]] * 2, [limits[2], limits[3]] * 2)
    rows, cols = np.unique(parts[:, 0::2]), np.unique(parts[:, 1::2])
    if len(rows) < 2 or len(cols) < 2:
        return 0
    covered = np.zeros((len(rows) - 1, len(cols) - 1), bool)
    for top, left, bottom, right in parts:
        here = np.searchsorted(rows, (top, bottom)), np.searchsorted(cols, (left, right))
        covered[here[0][0] : here[0][1], here[1][0] : here[1][1]] = True
    return int(np.diff(rows) @ covered @ np.diff(cols))
