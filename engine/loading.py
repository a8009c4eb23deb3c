"""Batches on their way to a network: read, standardised and augmented ahead of it, in threads of their own."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from typing import Callable, Deque, Generator, Optional, Sequence, Tuple

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

AHEAD = 4
_POLL_S = 0.1


def seed_of(*parts: int) -> int:
    """Return one seed for several numbers, of 63 bits."""
    words = np.random.SeedSequence([part & 0xFFFFFFFF for part in parts]).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1


def batches_of(
    part: DensePart, card: Card, plan: Plan, epoch: int, augment: Optional[Augment], seed: int, context: Context,
    threads: int = 1, ahead: int = AHEAD,
) -> Generator[Batch, None, None]:  # fmt: skip
    """Yield the batches of a plan, in its order.

    What is random in the batch of a step depends on seed, epoch and step alone, not on when it is made, nor by which
    thread. Closing the generator ends the threads.

    Args:
        part: the windows.
        card: with means and deviations.
        plan: the step's number, and its windows.
        epoch: handed to the part; and part of the seed.
        augment: changes values and targets; None = nothing does.
        seed: of the job.
        context: for the cancel.
        threads: that make batches at the same time.
        ahead: batches that are made before they are asked for.

    Yields:
        Standardised values ``(n, C, p, p)``, 0 where no-data, and targets int64 ``(n, p, p)``.

    Raises:
        Exception: whatever went wrong in a thread, where its batch is asked for.
    """
    scale = _Standardise(card)

    def made(step: int, numbers: Sequence[int]) -> Batch:
        values, targets = part.read(numbers, epoch)
        batch = scale(values), torch.from_numpy(targets)
        if augment is None:
            return batch
        return augment(*batch, torch.Generator().manual_seed(seed_of(seed, epoch, step)))

    todo = iter(plan)
    coming: Deque[concurrent.futures.Future[Batch]] = deque()
    pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="batches")
    try:
        while True:
            while len(coming) < ahead + 1 and (entry := next(todo, None)) is not None:
                coming.append(pool.submit(made, *entry))
            if not coming:
                return
            yield _waited(coming.popleft(), context)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _waited(future: concurrent.futures.Future[Batch], context: Context) -> Batch:
    """Return what a thread makes, as soon as it is there; a cancel does not wait for it."""
    while not concurrent.futures.wait([future], timeout=_POLL_S).done:
        context.check()
    return future.result()


class _Standardise:
    """From physical values ``(n, C, p, p)`` to (value - mean) / deviation, 0 where no-data."""

    def __init__(self, card: Card) -> None:
        bands = card.sources[0].bands
        self._mean = np.array([band.mean for band in bands], np.float32)[:, None, None]
        self._deviation = np.array([band.std for band in bands], np.float32)[:, None, None]

    def __call__(self, values: npt.NDArray[np.float32]) -> Tensor:
        standardised = (values - self._mean) / self._deviation
        return torch.from_numpy(np.ascontiguousarray(np.nan_to_num(standardised, copy=False, nan=0.0)))
