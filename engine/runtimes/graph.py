"""A network as ONNX graphs: what ONNX Runtime and OpenVINO have in common.

The graphs take physical values and hold scaling, network and argmax; no torch is imported. The dense graph answers for
whole blocks, the patch graph for patches; the first is used where there is one and it proves equal to the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterable, Tuple

import numpy as np

from ...models.cards import Card
from ...tasks.context import Context
from ..wording import across_by_down
from .base import (
    TILE,
    Array,
    Floats,
    Mask,
    Model,
    Positions,
    Wishes,
    band_statistics,
    cores,
    filled,
    geometry_of,
    on_grid,
    position_type,
    softmax,
    widest_images,
)
from .comparing import whole_blocks_hold

if TYPE_CHECKING:
    from ..graphs import Graphs

# The named output of a graph for values (N, C, H, W); may be called from several threads.
Evaluate = Callable[[Floats, str], Array]

CLASSES, LOGITS = "classes", "logits"

# Rows and columns that one call of a patch network's dense graph answers for: what its layers hand on stays in a core's
# cache, which is worth more than the margins cost (tests/benchmarks/dense).
PIECE = (128, 256)

# Of the memory of a job what is not the calls': the engine before the first window, and the scene's decoded blocks.
_BESIDES_BYTES = 300_000_000
# Sides of a tile that the smallest window of a network without a finite margin has, its surroundings included.
_BLENDED_WINDOW = 3.3


class GraphRuntime(ABC):
    """See `Runtime`; its scores are logits. A call for patches or dense pieces computes on one core, for pixels on all.

    No result depends on how the sums of one call were shared among threads: U-Nets give the same bits with any number.

    Attributes:
        threads: of one call.
        kernels: memory of a call for pixels, in that of the values which the graph's operations hold: a runtime keeps
            some of them in an order of its own, too, and needs work space.
        in_blocks: it computes convolutions in blocks of channels; see convolving.py.
        images: memory of a call in that which `widest_images` tells, where the graph does not tell it. Of a patch
            network, as if the window were one piece, which the smallest ones are.
    """

    name = ""
    kernels = 2.0
    in_blocks = False
    images = 1.0
    device = "cpu"
    precision = "full"
    exact = False

    def __init__(
        self, model: Model, graphs: Graphs, wishes: Wishes, context: Context, tiles: Iterable[Tuple[Floats, Mask]] = ()
    ) -> None:
        """Prepare.

        Args:
            model: the model.
            graphs: its graphs.
            wishes: the batch, the memory and the calls count here.
            context: for the log, and asked between calls whether the job was cancelled.
            tiles: of the scene, for the comparison of the two graphs.
        """
        self.geometry = geometry_of(model.card)
        self._of_pixels = model.card.output == "pixels"
        self._context = context
        self._means, _ = band_statistics(model.card)
        self._classes = len(model.card.classes)
        self._patch_size = model.card.sources[0].patch_size
        self._batch = wishes.batch
        self._dense = graphs.dense is not None
        images = self._images(model, graphs)
        self.bytes_per_pixel = 8.0 * (len(self._means) + self._classes) + images
        self.beside = min(self._calls(model.card, wishes.memory), wishes.calls or cores(context))
        self.threads = -(-cores(context) // self.beside)
        if graphs.dense is None:
            context.log(f"The network '{model.card.network}' is run patch by patch: {graphs.reason}.")
            self._evaluate = self.open(graphs.patch)
        else:
            self._evaluate = self.open((graphs.convolved if self.in_blocks else None) or graphs.dense)
            if not self._of_pixels:
                self._use_patches_where_they_differ(graphs.patch, tiles)
        if not self._dense:
            self.bytes_per_pixel -= images

    def _images(self, model: Model, graphs: Graphs) -> float:
        """Return the bytes that a call holds for each pixel of its window, besides those that go in and out."""
        if graphs.dense is None:
            return 0.0
        return 4.0 * (self.kernels * graphs.live if graphs.live is not None else self.images * widest_images(model))

    def _calls(self, card: Card, memory: int) -> int:
        """Return how many calls share the cores.

        Small networks are faster with a call for each core. The margins of a network of one class per pixel cost least
        in few large windows, for which memory decides: all cores share one call. Those without a finite margin have
        tiles of their own size, and more in them that a single thread computes: as many calls as memory holds.
        """
        if not self._of_pixels:
            return cores(self._context)
        if card.context != "tile":
            return 1
        pixels = (card.tile or TILE) ** 2
        # Beside its values and sums, the next one is read.
        window = 4.0 * (4 * len(self._means) + 2 * self._classes) * _BLENDED_WINDOW**2 * pixels
        room = memory * 1_000_000 - _BESIDES_BYTES - window
        return max(1, min(cores(self._context), int(room / (self.bytes_per_pixel * pixels))))

    @abstractmethod
    def open(self, path: Path) -> Evaluate:
        """Open a graph."""

    def best(self, values: Floats, wanted: Mask, whole: bool = False) -> Positions:
        """See `Runtime.best`."""
        block, kind = filled(values, self._means, whole), position_type(self._classes)
        if self._dense:
            return self._whole(block, CLASSES, wanted).astype(kind, copy=False)
        result: Positions = np.full(wanted.shape, np.iinfo(kind).max, kind)
        self._patch_by_patch(self._evaluate, CLASSES, block, wanted, result[None])
        return result

    def scores(self, values: Floats, wanted: Mask, whole: bool = False) -> Floats:
        """See `Runtime.scores`."""
        block = filled(values, self._means, whole)
        if self._dense:
            return self._whole(block, LOGITS, wanted)
        return self._patch_scores(self._evaluate, block, wanted)

    def probabilities(self, scores: Floats) -> Floats:
        """See `Runtime.probabilities`."""
        return softmax(scores)

    def _whole(self, block: Floats, output: str, wanted: Mask) -> Array:
        if not self._of_pixels:
            return self._in_pieces(block, output, wanted)
        before, stride = self.geometry.before, self.geometry.stride
        # Where the window ends on the grid, the cell behind its margin is not needed.
        rows, cols = (-(-length // stride) * stride + 2 * before for length in wanted.shape)
        found = self._evaluate(on_grid(block[:, :rows, :cols], self._means, stride)[None], output)[0]
        if found.shape[-2:] == (rows - 2 * before, cols - 2 * before):
            return found[..., : wanted.shape[0], : wanted.shape[1]]
        if found.shape[-2:] != (rows, cols):
            sizes = across_by_down(*found.shape[-2:]), across_by_down(rows, cols)
            raise ValueError(f"the graph answers {sizes[0]} for a window of {sizes[1]} pixels")
        # Such a network answers for the margins too.
        return found[..., before : before + wanted.shape[0], before : before + wanted.shape[1]]

    def _in_pieces(self, block: Floats, output: str, wanted: Mask) -> Array:
        """Return the dense graph's classes ``(H, W)`` or logits ``(K, H, W)``; zeros where a piece has none wanted."""
        margin, (height, width) = self.geometry.before + self.geometry.after, wanted.shape
        result: Array = (
            np.zeros(wanted.shape, position_type(self._classes))
            if output == CLASSES
            else np.zeros((self._classes, *wanted.shape), np.float32)
        )
        for top in range(0, height, PIECE[0]):
            for left in range(0, width, PIECE[1]):
                rows, cols = slice(top, min(top + PIECE[0], height)), slice(left, min(left + PIECE[1], width))
                if wanted[rows, cols].any():
                    part = block[None, :, top : rows.stop + margin, left : cols.stop + margin]
                    result[..., rows, cols] = self._evaluate(part, output)[0]
        return result

    def _use_patches_where_they_differ(self, path: Path, tiles: Iterable[Tuple[Floats, Mask]]) -> None:
        """Compare the two graphs on windows of the scene; the patch graph is not kept where they agree."""
        patches = self.open(path)

        def expected(values: Floats, wanted: Mask) -> Floats:
            return self._patch_scores(patches, filled(values, self._means, False), wanted)

        if not whole_blocks_hold(self.scores, expected, self.geometry, tiles, self._context):
            self._dense, self._evaluate = False, patches

    def _patch_scores(self, evaluate: Evaluate, block: Floats, wanted: Mask) -> Floats:
        result = np.zeros((self._classes, *wanted.shape), np.float32)
        self._patch_by_patch(evaluate, LOGITS, block, wanted, result)
        return result

    def _patch_by_patch(self, evaluate: Evaluate, output: str, block: Floats, wanted: Mask, result: Array) -> None:
        """Put the graph's answers for the wanted pixels into the result ``(R, H, W)``."""
        size = self._patch_size
        windows = np.lib.stride_tricks.sliding_window_view(block, (size, size), (1, 2))
        rows, cols = np.nonzero(wanted)
        for start in range(0, len(rows), self._batch):
            self._context.check()
            at = rows[start : start + self._batch], cols[start : start + self._batch]
            patches = np.ascontiguousarray(windows[:, at[0], at[1]].swapaxes(0, 1))
            result[:, at[0], at[1]] = evaluate(patches, output).reshape(len(patches), -1).T
