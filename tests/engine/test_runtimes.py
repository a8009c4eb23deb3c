"""Runtimes: what each answers for a block, and that all of them, in whichever form, answer the same."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from deepscape.engine.densify import dense_network
from deepscape.engine.modelfiles import LoadedModel
from deepscape.engine.runtimes import Geometry, Model, Wishes, create_runtime, geometry_of, no_class, torch_runtime
from deepscape.engine.runtimes.base import filled, first_largest, on_grid, position_type, softmax
from deepscape.engine.runtimes.torch_runtime import TorchRuntime
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.models.unet import UNet
from deepscape.tasks.classtable import ClassEntry, palette_colour
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, JobCancelled

from .listening import Log

MEANS, DEVIATIONS = (300.0, 900.0, -4.0), (120.0, 400.0, 2.5)
NAN = float("nan")


def card_of(size, classes=5, network="compact_cnn", **fields):
    bands = tuple(CardBand("", m, s, NAN, NAN) for m, s in zip(MEANS, DEVIATIONS))
    table = tuple(ClassEntry(v, f"name {v}", palette_colour(v)) for v in range(classes))
    return Card("network", network, (CardSource(size, bands),), table, **fields)


def network_of(name, size, classes=5, seed=0):
    """A network of the registry whose weights and running statistics are random."""
    torch.manual_seed(seed)
    module = build_network(name, 3, classes, size)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor) * 0.5 + 0.2 if tensor.ndim < 2 else torch.randn_like(tensor) * 0.2
    return module.eval()


def in_memory(module, card):
    return Model(card, loaded=LoadedModel(card, module=module))


def block_of(card, height, width, missing=0.0, seed=0):
    """Values as the model was trained on, with a share of no-data in single bands, and the wanted pixels."""
    rng = np.random.default_rng(seed)
    geometry = geometry_of(card)
    shape = height + geometry.before + geometry.after, width + geometry.before + geometry.after
    values = rng.standard_normal((3, *shape)) * np.array(DEVIATIONS)[:, None, None] + np.array(MEANS)[:, None, None]
    values[rng.random(values.shape) < missing] = NAN
    return values.astype(np.float32), rng.random((height, width)) < 0.8


def expected_of(module, card, values, wanted):
    """The logits of every wanted pixel's patch in float64 ``(K, n)``."""
    size = card.sources[0].patch_size
    means, deviations = (np.array(v)[:, None, None] for v in (MEANS, DEVIATIONS))
    standard = np.nan_to_num((values.astype(float) - means) / deviations, nan=0.0)
    windows = np.lib.stride_tricks.sliding_window_view(standard, (size, size), (1, 2))
    patches = torch.from_numpy(np.ascontiguousarray(windows[:, wanted].swapaxes(0, 1)))
    with torch.inference_mode():
        found = module.double()(patches).numpy().T
    module.float()
    return found


def assert_equal(found, expected):
    assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


# --- what they share -------------------------------------------------------------------------------------------------


def test_margins_are_those_of_the_card():
    assert [geometry_of(card_of(size)) for size in (1, 7, 16)] == [Geometry(0, 0), Geometry(3, 3), Geometry(8, 7)]
    assert geometry_of(card_of(64, output="pixels", margin=96, stride=16)) == Geometry(96, 112, 16)


def test_the_first_of_equal_scores_wins_and_no_finite_score_is_no_class():
    scores = np.array([[1, 2, NAN, -np.inf, np.inf], [1, 3, 0, -np.inf, 0]], np.float32)
    positions = first_largest(scores)
    assert positions.tolist() == [0, 1, 255, 255, 255] and positions.dtype == np.uint8
    assert no_class(positions) == 255
    assert position_type(255) == np.uint8 and position_type(256) == np.uint16
    assert first_largest(np.eye(300, dtype=np.float32)).tolist() == list(range(300))


def test_nodata_becomes_the_mean_and_the_values_stay():
    values = np.array([[[1, NAN]], [[NAN, 4]]], np.float32)
    means = np.array([10, 20], np.float32)
    assert filled(values, means, False).tolist() == [[[1, 10]], [[20, 4]]]
    assert np.isnan(values).sum() == 2
    assert filled(values, means, True) is values


def test_blocks_grow_to_the_grid_with_the_mean():
    values = np.ones((2, 3, 4), np.float32)
    grown = on_grid(values, np.array([5, 6], np.float32), 4)
    assert grown.shape == (2, 4, 4) and (grown[:, :3] == 1).all() and grown[:, 3].tolist() == [[5] * 4, [6] * 4]
    assert on_grid(values, np.zeros(2, np.float32), 1) is values


def test_softmax():
    assert softmax(np.array([[0.0], [np.log(3)]])).tolist() == [[pytest.approx(0.25)], [pytest.approx(0.75)]]


# --- torch -----------------------------------------------------------------------------------------------------------


def on_the_cpu(module, card, context=None, **wishes):
    return TorchRuntime(in_memory(module, card), "cpu", Wishes(**wishes), context or Context(), ())


class Opaque(torch.nn.Module):
    """A network that cannot be traced: it looks at its values."""

    def __init__(self, module):
        super().__init__()
        self.inner = module

    def forward(self, x):
        return self.inner(x) if x.sum() < 1e30 else x


NETWORKS = [("simple_cnn", 16), ("compact_cnn", 7), ("compact_cnn", 8), ("pixel_network", 1)]


@pytest.mark.parametrize(("name", "size"), NETWORKS)
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_torch_equals_float64_in_both_forms(name, size, missing):
    module, card = network_of(name, size), card_of(size, network=name)
    values, wanted = block_of(card, 21, 34, missing)
    expected = expected_of(module, card, values, wanted)
    before = values.copy()
    for given, context in ((module, Log()), (Opaque(module), Log())):
        runtime = on_the_cpu(given, card, context, batch=100)
        scores = runtime.scores(values, wanted, whole=missing == 0)
        assert scores.dtype == np.float32 and scores.shape == (5, 21, 34)
        assert_equal(scores[:, wanted], expected)
        best = runtime.best(values, wanted)
        assert best.dtype == np.uint8 and (best == scores.argmax(axis=0))[wanted].all()
        assert runtime.probabilities(scores).sum(axis=0) == pytest.approx(1, abs=1e-5)
        assert any("patch by patch: " in line for line in context.lines) == (given is not module)
    np.testing.assert_array_equal(values, before)


def shifted(module, bands, size):
    """A dense form that looks one pixel aside."""

    class Wrong(torch.nn.Module):
        def forward(self, x):
            return dense(x.roll(1, dims=3))

    dense = dense_network(module, bands, size)
    return Wrong()


def test_the_form_for_whole_blocks_is_used_only_where_it_proves_equal(monkeypatch):
    module, card = network_of("compact_cnn", 7), card_of(7)
    tiles = [block_of(card, 40, 40, seed=seed) for seed in (1, 2)]
    right, wrong = Log(), Log()
    TorchRuntime(in_memory(module, card), "cpu", Wishes(), right, tiles)
    assert any("in large pieces" in line and "on 64 patches" in line for line in right.lines) and not right.warnings
    monkeypatch.setattr(torch_runtime, "dense_network", shifted)
    runtime = TorchRuntime(in_memory(module, card), "cpu", Wishes(), wrong, tiles)
    assert "gets other scores than patch by patch" in wrong.warnings[0]
    values, wanted = tiles[0]
    assert_equal(runtime.scores(values, wanted)[:, wanted], expected_of(module, card, values, wanted))


def test_a_scene_without_a_tile_is_compared_on_values_as_it_was_trained_on(monkeypatch):
    module, card = network_of("compact_cnn", 7), card_of(7)
    nothing = [(np.full((3, 16, 16), NAN, np.float32), np.zeros((10, 10), bool))] * 3
    context = Log()
    create_runtime(in_memory(module, card), Wishes(device="cpu"), context, nothing)
    assert any("on 64 patches" in line for line in context.lines)


def test_few_tiles_are_read_where_all_are_nodata():
    seen = []

    def tiles():
        for number in range(1000):
            seen.append(number)
            yield np.full((3, 16, 16), NAN, np.float32), np.zeros((10, 10), bool)

    module, card = network_of("compact_cnn", 7), card_of(7)
    create_runtime(in_memory(module, card), Wishes(device="cpu"), Context(), tiles())
    assert len(seen) <= 33


def test_undefined_scores_are_no_class_in_every_form():
    class Undefined(torch.nn.Module):
        def forward(self, x):
            return torch.log(x[:, :, 0, 0]) / 0

    card = card_of(1, classes=3)
    values = np.full((3, 2, 2), 1e4, np.float32)
    for given in (Undefined(), Opaque(Undefined())):
        runtime = on_the_cpu(given, card)
        assert runtime.best(values, np.ones((2, 2), bool)).tolist() == [[255, 255], [255, 255]]


def test_more_than_255_classes():
    module, card = network_of("compact_cnn", 5, classes=300), card_of(5, classes=300)
    values, wanted = block_of(card, 9, 9)
    expected = expected_of(module, card, values, wanted)
    for given in (module, Opaque(module)):
        best = on_the_cpu(given, card).best(values, wanted)
        assert best.dtype == np.uint16 and (best[wanted] == expected.argmax(axis=0)).all()
    assert expected.argmax(axis=0).max() > 255


class Hungry(torch.nn.Module):
    """A network whose device has memory for few pixels at a time."""

    def __init__(self, inner, most):
        super().__init__()
        self.inner, self.most = inner, most

    def forward(self, x):
        if x.numel() > self.most:
            raise torch.cuda.OutOfMemoryError("too much")
        return self.inner(x)


def test_too_little_gpu_memory_shrinks_rows_and_batch(monkeypatch):
    module, card = network_of("compact_cnn", 7), card_of(7)
    values, wanted = block_of(card, 40, 30)
    expected = expected_of(module, card, values, wanted)
    monkeypatch.setattr(
        torch_runtime, "dense_network", lambda *given: Hungry(dense_network(*given), 3 * 36 * (9 + 6))
    )  # fmt: skip
    context = Log()
    assert_equal(on_the_cpu(module, card, context).scores(values, wanted)[:, wanted], expected)
    assert "The GPU has too little memory for 40 rows at a time: 20 are tried." in context.lines[0]
    context = Log()
    runtime = on_the_cpu(Opaque(Hungry(module, 3 * 49 * 10)), card, context, batch=64)
    assert_equal(runtime.scores(values, wanted)[:, wanted], expected)
    tried = [line for line in context.lines if "patches at a time" in line]
    assert [line.split(" for ")[1] for line in tried] == [
        f"{count} patches at a time: {count // 2} are tried." for count in (64, 32, 16)
    ]
    with pytest.raises(torch.cuda.OutOfMemoryError, match="1 patches"):
        on_the_cpu(Opaque(Hungry(module, 10)), card).best(values, wanted)


def test_too_little_gpu_memory_divides_no_tile_whose_pixels_depend_on_all_of_it():
    card = card_of(32, network="unet", output="pixels", context="tile", stride=4, tile=32, overlap=8)
    context = Log()
    runtime = on_the_cpu(Hungry(UNet(3, 5, width=4, depth=2).eval(), 3 * 32 * 31), card, context)
    with pytest.raises(BadInput, match=r"a tile of 36 x 32 pixels.*needs whole tiles.*DEVICE cpu"):
        runtime.best(*block_of(card, 32, 36))
    assert context.lines == []
    assert runtime.best(*block_of(card, 28, 32)).shape == (28, 32)


def unet():
    torch.manual_seed(0)
    module = UNet(3, 5, width=4, depth=2).eval()
    return module, card_of(32, network="unet", output="pixels", margin=24, stride=4)


def test_a_pixel_network_equals_the_whole_image_in_windows_and_strips():
    module, card = unet()
    image, _ = block_of(replace(card, margin=0), 96, 80)
    standard = (image - np.array(MEANS, np.float32)[:, None, None]) / np.array(DEVIATIONS, np.float32)[:, None, None]
    with torch.inference_mode():
        expected = module(torch.from_numpy(standard)[None])[0].numpy()
    runtime = on_the_cpu(module, card)
    runtime._rows = 8
    # 20 rows from 32 on, and 17 columns, which are no multiple of the stride.
    window = np.s_[32 - 24 : 32 + 20 + 28, 28 - 24 : 28 + 17 + 28]
    wanted = np.ones((20, 17), bool)
    found = runtime.scores(image[:, window[0], window[1]], wanted)
    assert_equal(found, expected[:, 32:52, 28:45])
    assert (runtime.best(image[:, window[0], window[1]], wanted) == found.argmax(axis=0)).all()


def test_a_cancelled_job_ends_between_two_batches():
    module, card = network_of("compact_cnn", 7), card_of(7)
    values, wanted = block_of(card, 40, 30)
    context = Context()
    for given in (module, Opaque(module)):
        runtime = on_the_cpu(given, card, context, batch=8)
        context.cancelled.set()
        with pytest.raises(JobCancelled):
            runtime.best(values, wanted)
        context.cancelled.clear()


def test_fast_says_that_the_cpu_computes_in_full_precision():
    module, card = network_of("compact_cnn", 7), card_of(7)
    context = Log()
    runtime = on_the_cpu(module, card, context, precision="fast")
    assert runtime.precision == "full" and any("PRECISION fast changes nothing" in line for line in context.lines)


# --- on a GPU --------------------------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def on_the_gpu(module, card, context=None, **wishes):
    return TorchRuntime(in_memory(module, card), "cuda", Wishes(**wishes), context or Context(), ())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_gpu_and_float64_give_the_same_logits_also_beside_each_other(name, size):
    module, card = network_of(name, size), card_of(size, network=name)
    blocks = [block_of(card, 60 + 7 * number, 75, 0.05, seed=number) for number in range(6)]
    expected = [expected_of(module, card, *block) for block in blocks]
    for given in (module, Opaque(module)):
        runtime = on_the_gpu(given, card)
        assert runtime.device == torch.cuda.get_device_name(0) and runtime.beside > 1
        # More calls than staging buffers: none may meet another's values.
        with ThreadPoolExecutor(runtime.beside) as pool:
            scores = list(pool.map(lambda block: runtime.scores(*block), blocks))  # noqa: B023
            best = list(pool.map(lambda block: runtime.best(*block), blocks))  # noqa: B023
        for (_, wanted), found, positions, logits in zip(blocks, scores, best, expected):
            assert_equal(found[:, wanted], logits)
            top = np.sort(logits, axis=0)[-2:]
            clear = top[1] - top[0] > 1e-4 * max(1, np.abs(logits).max())
            assert (positions[wanted] == logits.argmax(axis=0))[clear].all()
        given.to("cpu")


@pytest.mark.gpu
@needs_gpu
def test_fast_on_a_gpu_is_close():
    module, card = network_of("compact_cnn", 7), card_of(7)
    values, wanted = block_of(card, 60, 75)
    expected = expected_of(module, card, values, wanted)
    runtime = on_the_gpu(module, card, precision="fast")
    assert runtime.precision == "fast"
    difference = np.abs(runtime.scores(values, wanted)[:, wanted] - expected).max() / np.abs(expected).max()
    assert 0 < difference < 0.05


@pytest.mark.gpu
@needs_gpu
def test_a_block_that_the_gpu_has_no_memory_for_is_evaluated_in_strips():
    module, card = network_of("compact_cnn", 7), card_of(7)
    values, wanted = block_of(card, 1500, 1500)
    context = Log()
    runtime = on_the_gpu(module, card, context)
    whole = runtime.best(values, wanted)
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(0.3e9 / torch.cuda.get_device_properties(0).total_memory)
        assert (runtime.best(values, wanted) == whole).mean() > 0.9999
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("too little memory for 1500 rows" in line for line in context.lines)
