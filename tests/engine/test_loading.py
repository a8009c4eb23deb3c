"""Batches in the order of their plan, the same whatever the threads do, and no thread left behind."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from deepscape.engine.loading import batches_of, seed_of
from deepscape.models.cards import CardBand, CardSource
from deepscape.tasks.context import Context
from deepscape.tasks.errors import JobCancelled

BANDS = (CardBand("a", 3.0, 2.0, 3.0, 2.0), CardBand("b", -1.0, 4.0, -1.0, 4.0))
CARD = SimpleNamespace(sources=(CardSource(4, BANDS),))
PLAN = [(step, list(range(step * 3, step * 3 + 3))) for step in range(9)]


class Part:
    """Thirty windows that tell their number and epoch."""

    pixels = np.array([1, 1])

    def __init__(self, fails=None):
        self.fails, self.read_numbers = fails, []

    def __len__(self):
        return 30

    def read(self, numbers, epoch=0):
        if self.fails in numbers:
            raise ValueError(f"window {self.fails}")
        self.read_numbers += numbers
        values = np.stack([np.random.default_rng([epoch, n]).normal(size=(2, 4, 4)) for n in numbers])
        values[:, 1, 0, 0] = np.nan
        return values.astype(np.float32), np.full((len(numbers), 4, 4), numbers[0], np.int64)

    def facts(self):
        return {}


def augment(values, targets, generator):
    return values + torch.rand(values.shape, generator=generator), targets


def names():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_are_those_of_a_plain_loop(threads):
    found = list(batches_of(Part(), CARD, PLAN, 2, augment, 7, Context(), threads=threads))
    assert len(found) == len(PLAN)
    mean, deviation = np.array([3, -1])[:, None, None], np.array([2, 4])[:, None, None]
    for (values, targets), (step, numbers) in zip(found, PLAN):
        raw, expected = Part().read(numbers, 2)
        plain = torch.from_numpy(np.nan_to_num((raw - mean) / deviation, nan=0.0).astype(np.float32))
        plain, _ = augment(plain, None, torch.Generator().manual_seed(seed_of(7, 2, step)))
        torch.testing.assert_close(values, plain, rtol=1e-6, atol=1e-6)
        assert (targets.numpy() == expected).all() and targets.dtype == torch.int64
    assert names() == []


def test_a_window_does_not_depend_on_where_the_plan_begins():
    whole = list(batches_of(Part(), CARD, PLAN, 1, augment, 0, Context()))
    rest = list(batches_of(Part(), CARD, PLAN[4:], 1, augment, 0, Context()))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[4:], rest))


def test_errors_are_raised_where_their_batch_is_asked_for():
    coming = batches_of(Part(fails=7), CARD, PLAN, 0, None, 0, Context())
    next(coming), next(coming)
    with pytest.raises(ValueError, match="window 7"):
        next(coming)
    assert names() == []


def test_no_more_is_read_ahead_than_allowed_and_closing_ends_the_threads():
    part = Part()
    coming = batches_of(part, CARD, PLAN, 0, None, 0, Context(), ahead=2)
    next(coming)
    coming.close()
    assert names() == []
    assert len(part.read_numbers) <= 3 * 3


def test_a_cancel_does_not_wait_for_a_batch():
    go, context = threading.Event(), Context()

    class Slow(Part):
        def read(self, numbers, epoch=0):
            context.cancel.set()
            go.wait(10)
            return super().read(numbers, epoch)

    def check():
        go.set()
        raise JobCancelled

    context.check = check
    context.cancel = threading.Event()
    with pytest.raises(JobCancelled):
        next(batches_of(Slow(), CARD, PLAN, 0, None, 0, context))
    assert names() == []
