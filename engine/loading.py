"""Batches on their way to a network: read, standardised and augmented ahead of it, in a thread of their own."""

from __future__ import annotations

import queue
import threading
from typing import Callable, Generator, Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..models.cards import Card
from ..tasks.context import Context
from .denseparts import DensePart

Batch = Tuple[Tensor, Tensor]
Augment = Callable[[Tensor, Tensor, torch.Generator], Batch]
Plan = Sequence[Tuple[int, Sequence[int]]]

AHEAD = 3
_POLL_S = 0.1


def seed_of(*parts: int) -> int:
    """Return one seed for several numbers, of 63 bits."""
    words = np.random.SeedSequence([part & 0xFFFFFFFF for part in parts]).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1


def batches_of(
    part: DensePart, card: Card, plan: Plan, epoch: int, augment: Optional[Augment], seed: int, context: Context
) -> Generator[Batch, None, None]:
    """Yield the batches of a plan, in its order.

    What is random in the batch of a step depends on seed, epoch and step alone, not on when it is made. Closing the
    generator ends the thread.

    Args:
        part: the windows.
        card: with means and deviations.
        plan: the step's number, and its windows.
        epoch: handed to the part; and part of the seed.
        augment: changes values and targets; None = nothing does.
        seed: of the job.
        context: for the cancel.

    Yields:
        Standardised values ``(n, C, p, p)``, 0 where no-data, and targets int64 ``(n, p, p)``.
    """
    scale = _Standardise(card)

    def made(step: int, numbers: Sequence[int]) -> Batch:
        values, targets = part.read(numbers, epoch)
        batch = scale(values), torch.from_numpy(targets)
        if augment is None:
            return batch
        return augment(*batch, torch.Generator().manual_seed(seed_of(seed, epoch, step)))

    ready: queue.Queue[Union[Batch, BaseException, None]] = queue.Queue(AHEAD)
    ended = threading.Event()

    def put(item: Union[Batch, BaseException, None]) -> None:
        while not ended.is_set():
            try:
                ready.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for step, numbers in plan:
                if ended.is_set():
                    return
                put(made(step, numbers))
            put(None)
        except BaseException as error:  # whatever it is, it is raised where the batches are used
            put(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = ready.get(timeout=_POLL_S)
            except queue.Empty:
                context.check()
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        thread.join()


class _Standardise:
    """From physical values ``(n, C, p, p)`` to (value - mean) / deviation, 0 where no-data."""

    def __init__(self, card: Card) -> None:
        bands = card.sources[0].bands
        self._mean = np.array([band.mean for band in bands], np.float32)[:, None, None]
        self._deviation = np.array([band.std for band in bands], np.float32)[:, None, None]

    def __call__(self, values: npt.NDArray[np.float32]) -> Tensor:
        standardised = (values - self._mean) / self._deviation
        return torch.from_numpy(np.ascontiguousarray(np.nan_to_num(standardised, copy=False, nan=0.0)))
