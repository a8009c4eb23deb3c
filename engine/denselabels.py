"""Labels on the grid of an image, read by window: what all kinds of them share, and the background of labels.

What a pixel is labelled depends on the pixel alone, never on the window it is read in. Labels are never interpolated.
The kinds are those of a raster (`rasterlabels`) and of features (`featurelabels`); `labelsources` opens either.
"""

from __future__ import annotations

import threading
import zlib
from abc import ABC, abstractmethod
from typing import Any, Dict, Set, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry, Legend, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from .grids import Grid

Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
States = npt.NDArray[np.uint8]
# Row, column, height, width.
Window = Tuple[int, int, int, int]

# What a pixel holds: no label at all; labels of which none is clear; one that is not used, since its class is empty or
# left out; or a class.
NOTHING, UNCLEAR, LEFT_OUT, KNOWN = (np.uint8(state) for state in range(4))
# What has no label, where all of a class is labelled.
BACKGROUND = ClassEntry(0, "background", "#d9d9d9")


class DenseLabels(ABC):
    """Labels on the grid of an image; a context manager. Threads may share one: reads are under a lock.

    Attributes:
        grid: the image's.
        name: what messages call the labels.
        ignored: pixels read so far whose label is not clear, each counted once: of two classes, or without majority.
    """

    def __init__(self, grid: Grid, image: str, name: str) -> None:
        """Keep what both kinds share; ``image`` and ``name`` are what messages call the image and the labels."""
        self.grid = grid
        self.name = name
        self.image = image
        self._unclear = PixelsOnce()
        self._found: Set[int] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> DenseLabels:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the files."""

    @property
    def ignored(self) -> int:
        """Return the pixels read so far that have no clear label, each counted once."""
        return self._unclear.count

    @property
    @abstractmethod
    def classes(self) -> Tuple[ClassEntry, ...]:
        """Return the class table: of a raster the classes read so far, of features all of the layer; ascending."""

    def read(self, row: int, col: int, height: int, width: int) -> Tuple[Labels, Mask]:
        """Read a window of the image's grid; it may reach over the edge, where nothing is labelled.

        Returns:
            Class ids ``(height, width)``, 0 where there is none, and True where a pixel has one.

        Raises:
            BadInput: a label is no whole number, or the file is damaged.
        """
        labels, states = self.look(row, col, height, width)
        return labels, states == KNOWN

    def look(self, row: int, col: int, height: int, width: int) -> Tuple[Labels, States]:
        """Read a window as `read` does, and return the state of each pixel in place of whether it has a class."""
        labels, states = np.zeros((height, width), np.int64), np.full((height, width), NOTHING)
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + height, self.grid.height), min(col + width, self.grid.width)
        if bottom <= top or right <= left:
            return labels, states
        with self._lock:
            own, found = self._read_inside((top, left, bottom - top, right - left))
            self._unclear.add(top, left, found == UNCLEAR)
            known = found == KNOWN
            self._found |= distinct(own[known])
        inside = slice(top - row, bottom - row), slice(left - col, right - col)
        labels[inside], states[inside] = np.where(known, own, 0), found
        return labels, states

    def finish(self, context: Context) -> None:
        """Tell what was ignored where labels were read.

        Raises:
            BadInput: no pixel that was read is labelled, or CLASSES or CROSSWALK fit none of the labels.
        """
        self._check(context)
        if not self._found:
            raise BadInput(
                f"'{self.name}' labels no pixel of '{self.image}' where it was read.",
                "Check that both cover the same place, that the CRS of each is right, and the labels' no-data value.",
            )

    @abstractmethod
    def _read_inside(self, window: Window) -> Tuple[Labels, States]:
        """Return labels and the state of each pixel, ``(H, W)`` each; a label counts where its state is `KNOWN`."""

    @abstractmethod
    def _check(self, context: Context) -> None:
        """Warn about what this kind of labels leaves out."""


def distinct(values: Labels) -> Set[int]:
    """Return the distinct values of labels ``(N,)``; without sorting where they lie close together, as classes do."""
    if len(values) == 0:
        return set()
    low, high = int(values.min()), int(values.max())
    if high - low < 65_536:
        return {low + int(value) for value in np.flatnonzero(np.bincount(values - low))}
    return {int(value) for value in np.unique(values)}


# --- background ------------------------------------------------------------------------------------------------------


def background_of(legend: Legend) -> ClassEntry:
    """Return class 0 as a legend calls it, else `BACKGROUND`."""
    found = resolve([BACKGROUND.value], legend)[0]
    return BACKGROUND if found == resolve([BACKGROUND.value])[0] else found


class OnBackground(DenseLabels):
    """Labels whose rest is background: what holds no label at all.

    A pixel that two classes claim, or whose class is empty or left out by a crosswalk, is of an unknown class, not of
    none. One of a class that CLASSES leaves out is none of those asked for: background.
    """

    def __init__(self, labels: DenseLabels, legend: Legend = Legend()) -> None:
        """Take labels; the legend may call class 0 otherwise."""
        super().__init__(labels.grid, labels.image, labels.name)
        self._labels = labels
        self._background = background_of(legend)
        self._left_out = PixelsOnce()

    def close(self) -> None:
        """Close the labels."""
        self._labels.close()

    @property
    def classes(self) -> Tuple[ClassEntry, ...]:
        """Return the background and the labels' classes, ascending."""
        return tuple(sorted((self._background, *self._labels.classes), key=lambda entry: entry.value))

    def finish(self, context: Context) -> None:
        """See `DenseLabels.finish`; and refuse labels that have class 0 themselves."""
        self._labels.finish(context)
        self._check(context)

    def _read_inside(self, window: Window) -> Tuple[Labels, States]:
        labels, states = self._labels.look(*window)
        self._left_out.add(window[0], window[1], states == LEFT_OUT)
        return on_background(labels, states)

    def _check(self, context: Context) -> None:
        tell_of_left_out(self._left_out.count, self.name, context)
        taken = next((entry for entry in self._labels.classes if entry.value == BACKGROUND.value), None)
        if taken is not None:
            raise BadInput(
                f"BACKGROUND is class 0, which '{self.name}' has as '{taken.name}' already.",
                "Give its features another class value, or leave BACKGROUND out.",
            )


def on_background(labels: Labels, states: States) -> Tuple[Labels, States]:
    """Return labels and states ``(H, W)`` with `BACKGROUND` where there is nothing."""
    rest = states == NOTHING
    return np.where(rest, BACKGROUND.value, labels), np.where(rest, KNOWN, states)


def tell_of_left_out(pixels: int, name: str, context: Context) -> None:
    """Warn about pixels that hold a label without being of a class, where the rest is background."""
    if pixels:
        context.warn(
            f"{pixels} pixels of '{name}' have no class, or one that is left out; they are ignored, and not taken as "
            "background."
        )


# --- counting pixels once --------------------------------------------------------------------------------------------


class PixelsOnce:
    """Counts pixels that windows mark, each once however many windows hold it; a bit per pixel, compressed."""

    _SIDE = 256

    def __init__(self) -> None:
        self.count = 0
        self._marks: Dict[Tuple[int, int], bytes] = {}

    def add(self, row: int, col: int, marked: Mask) -> None:
        """Mark the pixels of a window that begins at (row, col), ``(H, W)``."""
        if not marked.any():
            return
        side, (height, width) = self._SIDE, marked.shape
        for down in range(row // side, (row + height - 1) // side + 1):
            for across in range(col // side, (col + width - 1) // side + 1):
                top, left = down * side - row, across * side - col
                part = marked[max(top, 0) : top + side, max(left, 0) : left + side]
                if part.any():
                    self._mark((down, across), max(-top, 0), max(-left, 0), part)

    def _mark(self, key: Tuple[int, int], row: int, col: int, marked: Mask) -> None:
        """Mark pixels of a block, from its own (row, col) on."""
        side, old = self._SIDE, self._marks.get(key)
        bits = np.frombuffer(zlib.decompress(old), np.uint8) if old else np.zeros(side * side // 8, np.uint8)
        marks = np.unpackbits(bits).reshape(side, side)
        inside = marks[row : row + marked.shape[0], col : col + marked.shape[1]]
        new = int(np.count_nonzero(marked & (inside == 0)))
        if new:
            self.count += new
            inside |= marked
            self._marks[key] = zlib.compress(np.packbits(marks).tobytes(), 1)
