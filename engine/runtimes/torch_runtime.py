"""A network in torch, on a GPU or the CPU: over whole blocks where that proves equal, else patch by patch."""

from __future__ import annotations

import contextlib
import queue
from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple

import numpy as np
import torch
from torch.nn import functional

from ...models.cards import Card
from ...tasks.context import Context
from ...tasks.errors import BadInput
from ..densify import NotDenseError, dense_network
from ..wording import across_by_down
from .base import (
    Array,
    Floats,
    Mask,
    Model,
    Positions,
    Wishes,
    band_statistics,
    geometry_of,
    only_full_precision,
    position_type,
    softmax,
    widest_images,
)
from .comparing import whole_blocks_hold

Network = Callable[[torch.Tensor], torch.Tensor]

# Blocks that are on the GPU at the same time: one is computed while another is copied.
SLOTS = 2


def choose_device(wanted: str, context: Context) -> str:
    """Return cpu or cuda; warns where a GPU was asked for and there is none."""
    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        context.warn("DEVICE is cuda, but no CUDA GPU can be used here: the CPU is used instead.")
    return "cpu"


class TorchRuntime:
    """See `Runtime`; its scores are logits."""

    exact = False

    def __init__(
        self, model: Model, device: str, wishes: Wishes, context: Context, tiles: Iterable[Tuple[Floats, Mask]] = ()
    ) -> None:
        """Prepare.

        Args:
            model: the model.
            device: cpu or cuda.
            wishes: precision and batch count here.
            context: for the log, and asked between calls whether the job was cancelled.
            tiles: of the scene, for the comparison of the two forms.
        """
        module = model.load().module
        if module is None:
            raise ValueError(f"'{model.path}' holds no network")
        self._context = context
        self._device = torch.device(device)
        on_gpu = device == "cuda"
        self.name = f"torch {torch.__version__}"
        self.device = torch.cuda.get_device_name(self._device) if on_gpu else "cpu"
        self._fast_type = _fast_type(wishes, on_gpu, context)
        self.precision = "full" if self._fast_type is None else "fast"
        self.geometry = geometry_of(model.card)
        # One call keeps all cores busy. On a GPU, one thread reads while the others' blocks are copied and computed.
        self.beside = SLOTS + 1 if on_gpu else 1
        # TF32 keeps 10 bits of the mantissa: 4 classes in 10,000 pixels would differ from the CPU's.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        threads = context.threads()
        if threads:
            torch.set_num_threads(threads)
        means, deviations = band_statistics(model.card)
        self._mean = torch.from_numpy(means).to(self._device)[None, :, None, None]
        self._std = torch.from_numpy(deviations).to(self._device)[None, :, None, None]
        self._patch_size = model.card.sources[0].patch_size
        self._classes = len(model.card.classes)
        self._of_pixels = model.card.output == "pixels"
        # What the pixels of a tile are depends on the whole tile: a part of it would be another map.
        self._of_tiles = self._of_pixels and model.card.context == "tile"
        self._batch = wishes.batch * (8 if on_gpu else 1)
        self._rows = 0  # rows of a block in one call; 0 = all, less after the GPU ran out of memory
        # The block, its standardised copy, the logits, and a layer's input, output and work space.
        self.bytes_per_pixel = 4.0 * (3 * len(means) + 2 * self._classes + widest_images(model))
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for _ in range(SLOTS if on_gpu else 1):
            self._slots.put(_Slot(self._device))
        self._dense = self._whole_form(module, model.card)
        if self._dense is not None and not self._of_pixels:
            if not whole_blocks_hold(self._whole_scores, self._patch_scores, self.geometry, tiles, context):
                self._dense = None

    def best(self, values: Floats, wanted: Mask, whole: bool = False) -> Positions:
        """See `Runtime.best`."""
        kind = position_type(self._classes)
        result = np.full((1, *wanted.shape), np.iinfo(kind).max, kind)
        self._run(values, wanted, whole, self._dense is not None, _positions, result)
        return result[0]

    def scores(self, values: Floats, wanted: Mask, whole: bool = False) -> Floats:
        """See `Runtime.scores`."""
        if self._dense is not None:
            return self._whole_scores(values, wanted, whole)
        return self._patch_scores(values, wanted, whole)

    def probabilities(self, scores: Floats) -> Floats:
        """See `Runtime.probabilities`."""
        return softmax(scores)

    def _whole_form(self, module: torch.nn.Module, card: Card) -> Optional[Network]:
        """Return what evaluates whole blocks; None where a patch network has no such form."""
        self._module: Network = module.to(self._device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if self._of_pixels:
            return self._module
        try:
            dense = dense_network(module, len(card.sources[0].bands), self._patch_size)
        except NotDenseError as error:
            self._context.log(f"The network '{card.network}' is run patch by patch: {error}.")
            return None
        return dense.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _whole_scores(self, values: Floats, wanted: Mask, whole: bool = False) -> Floats:
        result = np.empty((self._classes, *wanted.shape), np.float32)
        self._run(values, wanted, whole, True, _as_they_are, result)
        return result

    def _patch_scores(self, values: Floats, wanted: Mask, whole: bool = False) -> Floats:
        result = np.zeros((self._classes, *wanted.shape), np.float32)
        self._run(values, wanted, whole, False, _as_they_are, result)
        return result

    def _run(self, values: Floats, wanted: Mask, whole: bool, dense: bool, reduce: Network, result: Array) -> None:
        """Put what ``reduce`` makes of the logits ``(N, K, H, W)`` into the result ``(R, H, W)``."""
        with self._slot() as slot, torch.inference_mode(), self._precision():
            block = (slot.to_device(values) - self._mean) / self._std
            if not whole:
                # No-data takes the value 0: the training mean.
                block = block.nan_to_num_(nan=0.0, posinf=float("inf"), neginf=float("-inf"))
            if dense:
                self._by_rows(slot, block, reduce, result)
            else:
                self._patch_by_patch(slot, block, wanted, reduce, result)

    def _by_rows(self, slot: _Slot, block: torch.Tensor, reduce: Network, result: Array) -> None:
        """Evaluate strips of whole rows, as many rows as the GPU has memory for.

        Raises:
            BadInput: it has too little for a tile, of which no part can be evaluated alone.
        """
        geometry, (_, height, width) = self.geometry, result.shape
        reach, stride = geometry.before + geometry.after, geometry.stride
        # Behind the block the mean, up to the stride's grid: the margins keep it away from every result.
        block = functional.pad(block, (0, -block.shape[3] % stride, 0, -block.shape[2] % stride))
        block = block.contiguous(memory_format=torch.channels_last)
        rows_there, start = block.shape[2] - reach, 0

        def evaluate(part: torch.Tensor) -> torch.Tensor:
            logits = self._dense(part)  # type: ignore[misc]
            if self._of_pixels:
                # Such a network answers for the margins too.
                first = geometry.before
                logits = logits[:, :, first : first + part.shape[2] - reach, first:]
            return reduce(logits[:, :, :, :width].float())

        while start < height:
            self._context.check()
            rows = min(self._rows or rows_there, rows_there - start)
            found = self._attempt(slot, evaluate, block[:, :, start : start + rows + reach])
            if found is None:
                if self._of_tiles:
                    raise _no_room_for_a_tile(height, width)
                self._rows = self._less(rows, stride, "rows")
                continue
            result[:, start : start + rows] = found[0, :, : height - start]
            start += rows

    def _patch_by_patch(
        self, slot: _Slot, block: torch.Tensor, wanted: Mask, reduce: Network, result: Array
    ) -> None:  # fmt: skip
        rows, cols = np.nonzero(wanted)
        windows = block[0].unfold(1, self._patch_size, 1).unfold(2, self._patch_size, 1)
        start = 0

        def evaluate(places: torch.Tensor) -> torch.Tensor:
            patches = windows[:, places[0], places[1]].transpose(0, 1)
            logits = self._module(patches.contiguous(memory_format=torch.channels_last))
            return reduce(logits.flatten(1)[:, :, None, None].float())

        while start < len(rows):
            self._context.check()
            chosen = slice(start, start + self._batch)
            count = len(rows[chosen])
            places = torch.from_numpy(np.stack([rows[chosen], cols[chosen]])).to(self._device)
            found = self._attempt(slot, evaluate, places)
            if found is None:
                self._batch = self._less(count, 1, "patches")
                continue
            result[:, rows[chosen], cols[chosen]] = found[:, :, 0, 0].T
            start += count

    def _attempt(self, slot: _Slot, evaluate: Network, argument: torch.Tensor) -> Optional[Array]:
        """Return a result as an array, or None where the GPU has no memory for it."""
        try:
            return slot.to_host(evaluate(argument))
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None

    def _less(self, count: int, least: int, unit: str) -> int:
        """Return half the count, in multiples of the least.

        Raises:
            torch.cuda.OutOfMemoryError: there is no less.
        """
        less = count // 2 // least * least
        if less == 0:
            raise torch.cuda.OutOfMemoryError(f"the GPU has too little memory for {count} {unit} at a time")
        self._context.log(f"The GPU has too little memory for {count} {unit} at a time: {less} are tried.")
        return less

    @contextlib.contextmanager
    def _slot(self) -> Iterator[_Slot]:
        """Lend a slot; its stream is the current one meanwhile."""
        slot = self._slots.get()
        try:
            with torch.cuda.stream(slot.stream) if slot.stream is not None else contextlib.nullcontext():
                yield slot
        finally:
            self._slots.put(slot)

    def _precision(self) -> Any:
        if self._fast_type is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._fast_type)


class _Slot:
    """What one block needs on its way to the GPU and back: a stream, and pinned memory, which copies need to overlap.

    On the CPU it is nothing but a pass: the same code runs there.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.stream: Optional[torch.cuda.Stream] = _stream(device)
        self._pinned: List[torch.Tensor] = [torch.empty(0, dtype=torch.uint8)] * 2

    def to_device(self, values: Floats) -> torch.Tensor:
        """Return the values ``(C, H, W)`` on the device, as ``(1, C, H, W)``."""
        block = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None]
        if self.stream is None:
            return block
        return self._staging(0, block).copy_(block).to(self._device, non_blocking=True)

    def to_host(self, found: torch.Tensor) -> Array:
        """Return a result as an array, which holds until the next call; waits for the GPU."""
        if self.stream is None:
            return np.asarray(found.numpy())
        staging = self._staging(1, found)
        staging.copy_(found, non_blocking=True)
        self.stream.synchronize()
        return np.asarray(staging.numpy())

    def _staging(self, number: int, like: torch.Tensor) -> torch.Tensor:
        """Return pinned memory of the shape and type of a tensor."""
        size = like.numel() * like.element_size()
        if len(self._pinned[number]) < size:
            self._pinned[number] = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return self._pinned[number][:size].view(like.dtype).view(like.shape)


def _no_room_for_a_tile(height: int, width: int) -> BadInput:
    return BadInput(
        f"The GPU has too little memory for a tile of {across_by_down(height, width)} pixels, and this network needs "
        "whole tiles.",
        "Close other programs that use the GPU, or choose DEVICE cpu.",
    )


def _positions(logits: torch.Tensor) -> torch.Tensor:
    """Return the position of the first largest logit ``(N, 1, H, W)``: uint8, or int32 for more than 255 classes."""
    kind, none = (torch.uint8, 255) if logits.shape[1] <= 255 else (torch.int32, 65535)
    largest, positions = logits.max(dim=1, keepdim=True)
    return positions.to(kind).masked_fill_(~torch.isfinite(largest), none)


def _as_they_are(logits: torch.Tensor) -> torch.Tensor:
    return logits


def _fast_type(wishes: Wishes, on_gpu: bool, context: Context) -> Optional[torch.dtype]:
    """Return the type of PRECISION fast, None for full precision.

    bfloat16 has float32's range, so that no network overflows; GPUs before Ampere compute in float16 only.
    """
    if wishes.precision != "fast":
        return None
    if not on_gpu:
        only_full_precision(wishes, context)
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _stream(device: torch.device) -> Optional[torch.cuda.Stream]:
    """Return a stream of its own on a GPU, None on the CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
