"""Mapping with networks that have no finite margin: overlapping tiles, faded into each other.

With squeeze-excitation, attention, global pooling or ``align_corners`` every pixel of an image depends on every other:
there is no "image in one piece" that windows could equal. The result is defined by the model card instead (context
"tile"): tiles of ``tile`` pixels begin at the multiples of ``tile - overlap``, counted from the raster's pixel (0, 0)
and also before it; what of a tile lies beyond the raster is reflected. A pixel's probabilities are the mean of those
of the tiles that hold it, weighted by where it lies in each (`weights`), summed from the first row of tiles to the
last and from the first column to the last. Probabilities, not logits: where tiles disagree, one that is far too sure
would outvote the others.

Neither windows, threads, memory nor interruptions are in this definition, so that the map depends on none of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import replace
from typing import Callable, Optional, Tuple

import numpy as np
import numpy.typing as npt

from ..models.cards import Card
from ..tasks.context import Context
from ..tasks.errors import BadInput
from .runtimes import Geometry, Runtime
from .runtimes.base import TILE, Floats, Mask, Positions, first_largest
from .tiling import BLOCK
from .traversal import in_order

# Of the tiles' probabilities that are kept for the windows beside and below.
CACHE_BYTES = 256_000_000
# Where the card says nothing.
OVERLAP = 128


def weights(tile: int, overlap: int) -> npt.NDArray[np.float32]:
    """Return the weights of a tile's rows, or columns, ``(tile,)``.

    1 in the middle and a squared sine over the overlaps at both ends: those of neighbouring tiles add up to 1. None
    is 0.
    """
    rising = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    return np.concatenate([rising, np.ones(tile - 2 * overlap), rising[::-1]]).astype(np.float32)


def with_overlap(card: Card, overlap: Optional[int], context: Context) -> Card:
    """Return the card of a model as a job's OVERLAP asks for it; the same where it asks for nothing.

    Args:
        card: of the model.
        overlap: pixels beyond each window (local context), or that neighbouring tiles share (tile context); rounded up
            to the network's stride. None = as the card says.
        context: warned where the map then depends on windows, or shows where tiles meet.

    Raises:
        BadInput: the model gives one class per patch, or tiles cannot overlap so much.
    """
    if overlap is None:
        return card
    if card.output != "pixels":
        raise BadInput(
            f"OVERLAP is {overlap}, but the model gives one class per patch and its margins follow from the patch.",
            "Leave OVERLAP empty.",
        )
    rounded = -(-overlap // card.stride) * card.stride
    if card.context == "tile":
        tile = card.tile or TILE
        if 2 * rounded > tile:
            raise BadInput(
                f"Tiles of {tile} pixels cannot overlap by {overlap}.",
                f"Give an OVERLAP of at most {tile // 2 // card.stride * card.stride}.",
            )
        if rounded == 0:
            context.warn(
                "OVERLAP is 0: the map shows where tiles meet, for a network knows least of their edges. Leave it "
                "empty to have neighbouring tiles blended."
            )
        return replace(card, tile=tile, overlap=rounded)
    if rounded < (card.margin or 0):
        context.warn(
            f"OVERLAP is {overlap}, but the network looks {card.margin} pixels beyond a window: the map depends on how "
            "the scene is cut into windows."
        )
    return replace(card, margin=rounded)


def blended(runtime: Runtime, card: Card) -> Runtime:
    """Return the runtime that maps with a model, given that of its network: another where tiles are to be blended."""
    return BlendedRuntime(runtime, card) if card.output == "pixels" and card.context == "tile" else runtime


class BlendedRuntime:
    """A runtime for windows of any size, by another that maps tiles; see `engine.runtimes.Runtime`.

    Windows begin at multiples of ``tile - overlap``. Neighbouring windows share the tiles at their rim: the most
    recent ones are kept, known by their values, so that a tile is evaluated once as long as they have room.
    """

    exact = False

    def __init__(self, inner: Runtime, card: Card, cache_bytes: int = CACHE_BYTES) -> None:
        """Build the runtime.

        Args:
            inner: maps tiles; needs no margin.
            card: of the model. Its tile and overlap are multiples of its stride, the overlap is at most half a tile.
            cache_bytes: of the tiles that are kept.

        Raises:
            BadInput: tile and overlap do not fit each other, or the stride.
        """
        tile = card.tile or TILE
        overlap = min(OVERLAP, tile // 2 // card.stride * card.stride) if card.overlap is None else card.overlap
        if not 0 <= 2 * overlap <= tile or tile % card.stride or overlap % card.stride:
            raise BadInput(
                f"The model's card asks for tiles of {tile} pixels that overlap by {overlap}, on a grid of "
                f"{card.stride}, which is not possible.",
                "Train the model again, or copy the file again from its source.",
            )
        self.name, self.device, self.precision = inner.name, inner.device, inner.precision
        # Of a single window, tiles are evaluated beside each other: an image may have no other.
        self.beside = 1
        self._inner, self._classes = inner, len(card.classes)
        self._tile, self._step = tile, tile - overlap
        # A window may end anywhere in the last tile that touches it.
        self.geometry = Geometry(self._step, tile - 1, self._step)
        # However large a window is, so many tiles are evaluated at a time; the smallest one, of whole blocks of the
        # raster, has most of them for each of its pixels.
        smallest = (math.lcm(BLOCK, self._step) + self._step + tile - 1) ** 2
        window = 4.0 * (len(card.sources[0].bands) + 2 * self._classes + 1)
        self.bytes_per_pixel = window + inner.beside * inner.bytes_per_pixel * tile**2 / smallest
        along = weights(tile, overlap)
        self._weights = along[:, None] * along
        self._recent = _Recent(cache_bytes)

    def best(self, values: Floats, wanted: Mask, whole: bool = False) -> Positions:
        """See `Runtime.best`."""
        return first_largest(self.scores(values, wanted, whole))

    def scores(self, values: Floats, wanted: Mask, whole: bool = False) -> Floats:
        """See `Runtime.scores`; the scores are probabilities."""
        height, width = wanted.shape
        total = np.zeros((self._classes, height, width), np.float32)
        summed = np.zeros((height, width), np.float32)
        # The values begin one step before the window, where the first tile begins that touches it.
        starts = [
            (top, left)
            for top in range(0, height + self._step, self._step)
            for left in range(0, width + self._step, self._step)
            if wanted[self._shared(top, height)[0], self._shared(left, width)[0]].any()
        ]

        def evaluated(start: Tuple[int, int]) -> Floats:
            top, left = start
            return self._of_tile(values[:, top : top + self._tile, left : left + self._tile], whole)

        # Whatever tile is done first, they are summed in one order.
        with contextlib.closing(in_order(starts, evaluated, self._inner.beside, lambda: None)) as results:
            for (top, left), found in zip(starts, results):
                rows, tile_rows = self._shared(top, height)
                cols, tile_cols = self._shared(left, width)
                weight = self._weights[tile_rows, tile_cols]
                total[:, rows, cols] += found[:, tile_rows, tile_cols] * weight
                summed[rows, cols] += weight
        summed[summed == 0] = 1.0  # pixels that nobody wants
        total /= summed
        return total

    def probabilities(self, scores: Floats) -> Floats:
        """See `Runtime.probabilities`."""
        return scores

    def _shared(self, start: int, length: int) -> Tuple[slice, slice]:
        """Return what a window of this length and the tile that begins here share, as pixels of each."""
        first = start - self._step
        low, high = max(first, 0), min(first + self._tile, length)
        return slice(low, high), slice(low - first, high - first)

    def _of_tile(self, block: Floats, whole: bool) -> Floats:
        block = np.ascontiguousarray(block)

        def evaluate() -> Floats:
            scores = self._inner.scores(block, np.ones(block.shape[1:], bool), whole)
            return self._inner.probabilities(scores).astype(np.float32, copy=False)

        return self._recent.get(hashlib.blake2b(block.data, digest_size=16).digest(), evaluate)


class _Recent:
    """Results by key, the most recent ones; threads that ask for the same wait for one evaluation."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._results: OrderedDict[bytes, Future[Floats]] = OrderedDict()

    def get(self, key: bytes, evaluate: Callable[[], Floats]) -> Floats:
        """Return the result of a key, evaluated where it is not kept."""
        with self._lock:
            future = self._results.get(key)
            known = future is not None
            if future is None:
                future = self._results[key] = Future()
            self._results.move_to_end(key)
        if known:
            return future.result()
        try:
            result = evaluate()
        except BaseException as error:
            with self._lock:
                self._results.pop(key, None)
            future.set_exception(error)
            raise
        future.set_result(result)
        with self._lock:
            self._drop()
        return result

    def _drop(self) -> None:
        done = [(key, future.result().nbytes) for key, future in self._results.items() if future.done()]
        used = sum(size for _, size in done)
        for key, size in done:
            if used <= self._room:
                break
            del self._results[key]
            used -= size
