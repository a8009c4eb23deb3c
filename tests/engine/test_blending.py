"""Blended tiles: their definition, and that windows, threads and memory are not in it."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from deepscape.engine import blending
from deepscape.engine.blending import BlendedRuntime, weights, with_overlap
from deepscape.engine.modelfiles import LoadedModel
from deepscape.engine.rasters import reflect_indices
from deepscape.engine.runtimes import Model, Wishes, geometry_of
from deepscape.engine.runtimes.base import no_class, softmax
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from hypothesis import given, settings
from hypothesis import strategies as st

TILE, OVERLAP = 16, 4
STEP = TILE - OVERLAP
CARD = Card(
    "network", "stub", (CardSource(8, tuple(CardBand("", 1.0, 2.0, 1.0, 2.0) for _ in range(2))),),
    tuple(ClassEntry(value, str(value), "#000000") for value in (1, 5, 7)),
    context="tile", output="pixels", stride=2, tile=TILE, overlap=OVERLAP,
)  # fmt: skip


class Excited(torch.nn.Module):
    """Convolutions whose channels are weighed by their mean over the image: no pixel is independent of another."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        return self.last(x * torch.sigmoid(3 * x.mean(dim=(2, 3), keepdim=True))).mul(3)


class Inner:
    """A runtime of tiles that counts its calls."""

    name, device, precision, beside, bytes_per_pixel = "stub 1", "cpu", "full", 2, 100.0
    exact = False
    geometry = geometry_of(CARD)

    def __init__(self):
        self.module, self.calls = Excited().eval(), 0

    def scores(self, values, wanted, whole=False):
        assert values.shape == (2, TILE, TILE) and wanted.all()
        self.calls += 1
        with torch.inference_mode():
            return self.module(torch.from_numpy(np.nan_to_num((values - 1) / 2))[None])[0].numpy()

    def probabilities(self, scores):
        return softmax(scores)


def scene(height, width, seed=0):
    return np.random.default_rng(seed).normal(1, 2, (2, height, width)).astype(np.float32)


def part(image, row, col, height, width):
    """A window of the image, reflected beyond its edges."""
    return image[:, reflect_indices(row, height, image.shape[1])][:, :, reflect_indices(col, width, image.shape[2])]


def by_definition(image):
    """The blended probabilities of a whole image, tile by tile as the module's text says it."""
    inner, (height, width) = Inner(), image.shape[1:]
    total, summed = np.zeros((3, height, width)), np.zeros((height, width))
    along = [math.sin(math.pi / 2 * (min(i, TILE - 1 - i) + 0.5) / OVERLAP) ** 2 for i in range(TILE)]
    along = [1.0 if OVERLAP <= i < TILE - OVERLAP else value for i, value in enumerate(along)]
    for top in range(-STEP, height, STEP):
        for left in range(-STEP, width, STEP):
            found = softmax(inner.scores(part(image, top, left, TILE, TILE), np.ones((TILE, TILE), bool)))
            for i in range(max(0, -top), min(TILE, height - top)):
                for j in range(max(0, -left), min(TILE, width - left)):
                    weight = along[i] * along[j]
                    total[:, top + i, left + j] += weight * found[:, i, j]
                    summed[top + i, left + j] += weight
    return total / summed


def mapped(runtime, image, row, col, height, width, wanted=None):
    before, after, _ = runtime.geometry.before, runtime.geometry.after, runtime.geometry.stride
    values = part(image, row - before, col - before, height + before + after, width + before + after)
    return runtime.scores(np.ascontiguousarray(values), np.ones((height, width), bool) if wanted is None else wanted)


@pytest.mark.parametrize(("tile", "overlap"), [(16, 4), (16, 8), (7, 0), (512, 77)])
def test_the_weights_of_neighbours_add_up_to_one_and_none_is_zero(tile, overlap):
    found = weights(tile, overlap)
    assert found.shape == (tile,) and (found > 0).all() and found.max() <= 1
    assert (found == found[::-1]).all()
    assert found[:overlap] + found[tile - overlap :] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (12, 13), (TILE, TILE + 1), (37, 30)])
def test_the_result_is_that_of_the_definition(height, width):
    image = scene(height, width)
    found = mapped(BlendedRuntime(Inner(), CARD), image, 0, 0, height, width)
    assert found == pytest.approx(by_definition(image), abs=1e-5)
    assert found.sum(axis=0) == pytest.approx(1, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 60), width=st.integers(1, 60), rows=st.integers(1, 3), cols=st.integers(1, 3),
    room=st.sampled_from([0, 5_000, 10**9]), threads=st.sampled_from([1, 3]),
)  # fmt: skip
def test_windows_threads_and_memory_do_not_change_a_bit(height, width, rows, cols, room, threads):
    image = scene(height, width, seed=height + 100 * width)
    whole = mapped(BlendedRuntime(Inner(), CARD), image, 0, 0, height, width)
    runtime = BlendedRuntime(Inner(), CARD, room)
    places = [(r, c) for r in range(0, height, rows * STEP) for c in range(0, width, cols * STEP)]

    def window(place):
        return mapped(runtime, image, *place, min(rows * STEP, height - place[0]), min(cols * STEP, width - place[1]))

    with ThreadPoolExecutor(threads) as pool:
        for (row, col), found in zip(places, pool.map(window, places)):
            assert (found == whole[:, row : row + rows * STEP, col : col + cols * STEP]).all()


def test_a_part_is_the_crop_of_the_whole_map_and_a_wanted_pixel_is_complete():
    image = scene(50, 50)
    whole = mapped(BlendedRuntime(Inner(), CARD), image, 0, 0, 50, 50)
    wanted = np.zeros((20, 20), bool)
    wanted[3, 17] = wanted[12, 0] = True
    found = mapped(BlendedRuntime(Inner(), CARD), image, STEP, 2 * STEP, 20, 20, wanted)
    assert (found[:, wanted] == whole[:, STEP : STEP + 20, 2 * STEP : 2 * STEP + 20][:, wanted]).all()
    assert np.isfinite(found).all()


def test_tiles_differ_where_they_overlap_so_that_the_tests_can_fail():
    image = scene(50, 50)
    whole = mapped(BlendedRuntime(Inner(), CARD), image, 0, 0, 50, 50)
    shifted = mapped(BlendedRuntime(Inner(), CARD), image[:, 2:, :], 0, 0, 48, 50)
    assert np.abs(whole[:, 2:] - shifted).max() > 1e-3


def test_a_tile_is_evaluated_once_while_there_is_room():
    image, inner = scene(4 * STEP, 4 * STEP), Inner()
    runtime = BlendedRuntime(inner, CARD)
    for row in range(0, 4 * STEP, STEP):
        for col in range(0, 4 * STEP, STEP):
            mapped(runtime, image, row, col, STEP, STEP)
    assert inner.calls == 25
    assert sum(future.result().nbytes for future in runtime._recent._results.values()) == 25 * 3 * TILE * TILE * 4

    inner = Inner()
    inner.beside = 1  # one after the other, so that which are the most recent is known
    runtime = BlendedRuntime(inner, CARD, cache_bytes=2 * 3 * TILE * TILE * 4)
    for col in range(0, 4 * STEP, STEP):
        mapped(runtime, image, 0, col, STEP, STEP)
    assert len(runtime._recent._results) == 2 and inner.calls == 16


@pytest.mark.parametrize("beside", [1, 2, 5])
def test_tiles_of_a_window_are_evaluated_beside_each_other_and_summed_in_one_order(beside):
    class Met(Inner):
        def __init__(self):
            super().__init__()
            self.beside, self.most, self.now, self.lock = beside, 0, 0, threading.Lock()
            self.all_there = threading.Barrier(beside)

        def scores(self, values, wanted, whole=False):
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            self.all_there.wait(timeout=60)
            found = super().scores(values, wanted, whole)
            with self.lock:
                self.now -= 1
            return found

    image, inner = scene(4 * STEP, 4 * STEP), Met()
    runtime = BlendedRuntime(inner, CARD)
    found = mapped(runtime, image, 0, 0, 4 * STEP, 3 * STEP)  # 20 tiles
    assert inner.most == beside and runtime.beside == 1
    assert np.array_equal(found, mapped(BlendedRuntime(Inner(), CARD), image, 0, 0, 4 * STEP, 3 * STEP))


def test_an_error_is_told_and_not_kept():
    class Failing(Inner):
        def scores(self, values, wanted, whole=False):
            if self.calls == 0:
                self.calls += 1
                raise MemoryError("no room")
            return super().scores(values, wanted, whole)

    image, runtime = scene(8, 8), BlendedRuntime(Failing(), CARD)
    with pytest.raises(MemoryError):
        mapped(runtime, image, 0, 0, 8, 8)
    assert np.isfinite(mapped(runtime, image, 0, 0, 8, 8)).all()


def test_the_class_is_that_of_the_largest_mean_probability_and_none_where_it_is_not_finite():
    image, inner = scene(20, 20), Inner()
    runtime = BlendedRuntime(inner, CARD)
    values = part(image, -STEP, -STEP, 20 + STEP + TILE - 1, 20 + STEP + TILE - 1)
    wanted = np.ones((20, 20), bool)
    assert (runtime.best(values, wanted) == runtime.scores(values, wanted).argmax(axis=0)).all()
    inner.probabilities = lambda scores: np.full_like(scores, np.nan)
    runtime = BlendedRuntime(inner, CARD)
    found = runtime.best(values, wanted)
    assert (found == no_class(found)).all()


def test_it_runs_on_torch():
    from deepscape.engine.runtimes.torch_runtime import TorchRuntime

    image, model = scene(30, 21), Model.of(LoadedModel(CARD, module=Excited().eval()))
    inner = TorchRuntime(model, "cpu", Wishes(), Context(), ())
    found = mapped(BlendedRuntime(inner, CARD), image, 0, 0, 30, 21)
    assert found == pytest.approx(by_definition(image), abs=1e-5)


def test_no_data_takes_the_training_mean_as_in_any_runtime():
    image = scene(12, 12)
    image[:, 3, 4] = np.nan
    filled = np.nan_to_num(image, nan=1.0)
    runtime = BlendedRuntime(Inner(), CARD)
    assert mapped(runtime, image, 0, 0, 12, 12) == pytest.approx(mapped(runtime, filled, 0, 0, 12, 12), abs=1e-6)


@pytest.mark.parametrize(("tile", "overlap"), [(16, 10), (15, 4), (16, 3), (16, -2)])
def test_tiles_that_do_not_fit_are_refused(tile, overlap):
    with pytest.raises(BadInput, match=f"tiles of {tile} pixels that overlap by {overlap}"):
        BlendedRuntime(Inner(), replace(CARD, tile=tile, overlap=overlap))


def test_a_card_that_says_nothing_has_defaults():
    runtime = BlendedRuntime(Inner(), replace(CARD, tile=None, overlap=None))
    assert runtime.geometry.stride == blending.TILE - blending.OVERLAP
    assert runtime.geometry.before == 384 and runtime.geometry.after == 511


# --- OVERLAP ---------------------------------------------------------------------------------------------------------


LOCAL = replace(CARD, context="local", stride=16, margin=96, tile=None, overlap=None)


def test_no_overlap_leaves_the_card_as_it_is():
    assert with_overlap(LOCAL, None, Context()) is LOCAL


@pytest.mark.parametrize(("overlap", "margin"), [(96, 96), (97, 112), (200, 208)])
def test_a_larger_overlap_is_rounded_up_to_the_grid(overlap, margin):
    context = Context()
    assert with_overlap(LOCAL, overlap, context).margin == margin
    assert context.warnings == []


def test_an_overlap_below_the_margin_warns_that_the_map_depends_on_windows():
    context = Context()
    assert with_overlap(LOCAL, 30, context).margin == 32
    assert "OVERLAP is 30" in context.warnings[0] and "96 pixels" in context.warnings[0]


def test_tiles_overlap_as_they_are_asked_to():
    assert with_overlap(CARD, 5, Context()).overlap == 6
    assert with_overlap(replace(CARD, tile=None), 100, Context()).tile == blending.TILE
    with pytest.raises(BadInput, match="Tiles of 16 pixels cannot overlap by 9") as caught:
        with_overlap(CARD, 9, Context())
    assert "at most 8" in caught.value.remedy


def test_tiles_that_meet_unblended_are_warned_of():
    context = Context()
    assert with_overlap(CARD, 2, context).overlap == 2 and context.warnings == []
    assert with_overlap(CARD, 0, context).overlap == 0
    assert "OVERLAP is 0: the map shows where tiles meet" in context.warnings[0]


def test_a_patch_network_takes_no_overlap():
    with pytest.raises(BadInput, match="OVERLAP is 8"):
        with_overlap(replace(CARD, output="patch"), 8, Context())
