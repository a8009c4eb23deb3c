"""A second look at a scene: the few values that lie far from all others are found, counted and left out."""

import tracemalloc

import numpy as np
import pytest
from deepscape.engine.bandstatistics import SceneStatistics, sample_windows, sampled_statistics
from deepscape.engine.grids import Grid
from deepscape.engine.oddvalues import Outlier
from hypothesis import given, settings
from hypothesis import strategies as st


def sampled(values, valid=None, reads=None):
    """Return the statistics of a scene ``(C, H, W)``; ``reads`` takes the windows that are read."""
    valid = np.ones(values.shape, bool) if valid is None else valid

    def read(row, col, height, width):
        if reads is not None:
            reads.append((row, col))
        at = slice(None), slice(row, row + height), slice(col, col + width)
        return values[at], valid[at]

    return sampled_statistics(Grid(values.shape[2], values.shape[1], None, None), len(values), read, lambda: None)


def ground(kind="float32", bands=2, height=90, width=110, seed=0):
    return np.random.default_rng(seed).normal(1500, 200, (bands, height, width)).astype(kind)


def test_one_wild_pixel_is_found_counted_and_left_out():
    values = ground("uint16")
    values[1, 40, 50] = 65535
    found, strays = sampled(values).without_strays()
    others = np.delete(values[1].ravel(), 40 * 110 + 50).astype(float)
    assert strays[0] is None and strays[1].value == 65535 and strays[1].alike and strays[1].count == 1
    assert strays[1].looked == 9900 and (strays[1].low, strays[1].high) == (others.min(), others.max())
    assert found.mean[1] == pytest.approx(others.mean()) and found.std[1] == pytest.approx(others.std())
    assert found.count.tolist() == [9900, 9899]


def test_a_scene_without_strays_keeps_its_numbers_to_the_last_bit():
    first = sampled(ground())
    again, strays = first.without_strays()
    assert again is first and strays == (None, None)
    values = ground()
    values[1, 0, 0] = 1e9
    first = sampled(values)
    assert first.without_strays()[0].mean[0] == first.mean[0] and first.without_strays()[0].std[0] == first.std[0]


@given(
    kind=st.sampled_from(["int16", "uint16", "int32", "float32", "float64"]),
    share=st.floats(0, 0.007),
    low=st.booleans(),
    height=st.integers(20, 300),
    width=st.integers(20, 300),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_up_to_a_hundredth_of_any_values_far_off_is_left_out(kind, share, low, height, width, seed):
    rng = np.random.default_rng(seed)
    clean = ground(kind, 1, height, width, seed)
    most = 1e30 if kind.startswith("float") else np.iinfo(kind).max
    start, end = (-most, -8000) if low and kind != "uint16" else (12000, most)
    wild = rng.permutation(height * width)[: max(1, int(share * height * width * (1 - 0.2)))]
    values, valid = clean.copy(), rng.random(clean.shape) < 0.95
    values[0].flat[wild] = rng.uniform(start, end, len(wild)).astype(kind)
    valid[0].flat[wild] = True
    found, [strays] = sampled(values, valid).without_strays()
    valid[0].flat[wild] = False
    assert found.count.tolist() == [valid.sum()] and strays.count == len(wild)
    assert found.mean[0] == pytest.approx(clean[valid].mean(dtype=float))
    assert found.std[0] == pytest.approx(clean[valid].std(dtype=float))
    assert strays.value == values[0].flat[wild][np.argmax(np.abs(values[0].flat[wild].astype(float)))]


def test_what_is_more_than_a_few_or_not_far_is_no_stray():
    values = ground()
    values[:, :3] = 1e6  # 3.3 %: another thing to look at than a handful
    assert sampled(values).without_strays()[1] == (None, None)
    values = ground()
    values[:, 10, :30] = 4000  # clouds, at 12 deviations
    assert sampled(values).without_strays()[1] == (None, None)
    assert sampled(np.full((1, 50, 50), 7.0)).without_strays()[1] == (None,)


def test_a_band_of_one_value_but_for_a_few():
    values = np.full((1, 50, 50), 7, np.int16)
    values[0, 3, 4:9] = 9
    found, [strays] = sampled(values).without_strays()
    assert found.std.tolist() == [0] and (strays.value, strays.count, strays.low, strays.high) == (9, 5, 7, 7)


def test_bands_are_chosen_and_outliers_are_left_out_before_the_second_look():
    values = ground(bands=3)
    values[0, :30] = -9999
    values[0, 50, 60] = values[2, 50, 60] = 1e20
    clean = np.delete(values[0, 30:].ravel(), 20 * 110 + 60)
    outlier = Outlier(-9999.0, 1 / 3, float(clean.mean()), float(clean.std()))
    rest = sampled(values).without([outlier, None, None]).of([2, 0])
    found, strays = rest.without_strays()
    assert [one.count for one in strays] == [1, 1] and strays[1].looked == 60 * 110 and strays[1].low > 500
    assert found.mean[1] == pytest.approx(clean.mean(dtype=float)) and found.count.tolist() == [9899, 60 * 110 - 1]


def test_bands_without_valid_pixels_are_left_alone():
    values, valid = ground(), np.ones((2, 90, 110), bool)
    valid[0] = False
    values[0], values[1, 0, 0] = np.nan, 1e30
    found, strays = sampled(values, valid).without_strays()
    assert strays[0] is None and np.isnan(found.mean[0]) and strays[1].count == 1


def test_statistics_that_cannot_be_read_again_stay():
    first = SceneStatistics(np.array([1.0]), np.array([2.0]), np.array([300]))
    assert first.without_strays() == (first, (None,)) and first.of([0]).windows is None
    assert first.without([None]).windows is None


def test_garbage_in_a_narrow_window_at_the_edge_weighs_no_more_than_its_pixels():
    values = ground(bands=1, height=1030, width=1024)
    values[0, 1024:] = 1e9  # 0.6 % of the scene, all of its lowest windows
    assert sampled(values).without_strays()[1][0].count == 6 * 1024


def test_striped_garbage_is_met_by_every_so_many_values():
    values = ground(bands=1, height=1024, width=1024)
    values[0, :, ::128] = 1e9  # 0.8 %, in step with the windows
    assert sampled(values).without_strays()[1][0].count == 8 * 1024


def test_a_large_scene_is_read_twice_more_in_the_memory_of_a_window():
    height = width = 20_000
    window = ground(bands=4, height=256, width=256)
    window[2, 7, 8] = 1e12
    reads = []

    def read(row, col, rows, cols):
        reads.append((row, col))
        return window[:, :rows, :cols].copy(), np.ones((4, rows, cols), bool)

    first = sampled_statistics(Grid(width, height, None, None), 4, read, lambda: None)
    once = len(reads)
    assert once == len(list(sample_windows(height, width)))
    tracemalloc.start()
    found, strays = first.without_strays()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(reads) == 3 * once and strays[2].count == once and found.std[2] == pytest.approx(200, rel=0.02)
    # The sample has 25 to 38 MB; a window of float64, of which there are some at once, 2 MB.
    assert once * window.nbytes > 25e6 and peak < 18e6
