"""Tiles: they cover what is asked for once, on one grid whatever is asked for, and within memory and block cache."""

import itertools

import numpy as np
import pytest
from deepscape.engine.rasters import CACHE_BYTES, Layout
from deepscape.engine.runtimes import Geometry
from deepscape.engine.tiling import MEMORY_MB, Tiling, plan, with_tiles
from hypothesis import given, settings
from hypothesis import strategies as st

PATCH = Geometry(8, 7)
UNET = Geometry(112, 112, 16)
SCENE = Layout(10980, 10980, 512, 512, 8)

lengths = st.sampled_from([1, 7, 8, 9, 16, 17, 40])


@settings(max_examples=200, deadline=None)
@given(lengths, lengths, st.sampled_from([4, 8]), st.sampled_from([8, 16]), st.integers(1, 4), st.data())
def test_tiles_cover_every_pixel_of_a_window_once(height, width, tall, wide, tiles, data):
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, cols = data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col))
    layout = Layout(height, width, 1, width, 1)
    tiling = Tiling(tall, wide, tiles * wide, 0, 0)
    seen = np.zeros((height, width), int)
    for r, c, h, w in tiling.windows((row, col, rows, cols), layout):
        assert r % tall == c % wide == 0 and r + h <= height and c + w <= width
        assert r < row + rows and r + h > row and c < col + cols and c + w > col
        seen[r : r + h, c : c + w] += 1
    assert (seen[row : row + rows, col : col + cols] == 1).all() and seen.max() == 1


def test_tiles_of_a_part_are_those_of_the_whole_in_its_order():
    layout, tiling = Layout(50, 100, 8, 8, 1), Tiling(8, 16, 32, 0, 0)
    whole = list(tiling.windows((0, 0, 50, 100), layout))
    assert [w[:2] for w in whole[:4]] == [(0, 0), (0, 16), (8, 0), (8, 16)] and whole[14][:2] == (0, 32)
    part = list(tiling.windows((10, 20, 20, 50), layout))
    assert part == [w for w in whole if 8 <= w[0] < 30 and 16 <= w[1] < 70]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (SCENE, (512, 512, 11 * 512)),  # two column bands of 82 MB
        (Layout(30000, 30000, 512, 512, 8), (512, 512, 12 * 512)),  # five
        (Layout(60000, 60000, 1, 60000, 8), (256, 512, 118 * 512)),  # strips: flat tiles
        (Layout(60000, 60000, 1, 60000, 26), (64, 512, 118 * 512)),
        (Layout(10980, 10980, 1024, 1024, 26), (512, 512, 4096)),  # large blocks of many bands: a larger cache
        (Layout(237, 247, 8, 247, 48), (256, 128, 256)),  # each of two calls has its half
        (Layout(1, 1, 1, 1, 4), (32, 32, 32)),
        (Layout(1, 60000, 1, 60000, 8), (32, 512, 118 * 512)),
    ],
)
def test_a_small_network_takes_tiles_that_read_each_block_once(layout, expected):
    tiling = plan(layout, PATCH, 300, 2)
    assert (tiling.height, tiling.width, tiling.band) == expected
    assert tiling.memory < 550e6 or layout.block_height == 1024


def test_a_large_receptive_field_takes_the_fewest_tiles_that_memory_allows():
    plans = [plan(SCENE, UNET, 1600, 1, memory) for memory in (300, 1500, 3000, 40000)]
    # Higher than wide where no square fits: margins cost less than with the next smaller square.
    assert [(found.height, found.width) for found in plans] == [(256, 256), (768, 512), (1024, 1024), (3840, 3840)]


@pytest.mark.parametrize("beside", [1, 2, 8, 64])
@pytest.mark.parametrize("margin", [0, 1, 15])
def test_tiles_of_a_large_scene_are_large_where_margins_cost_little_or_nothing(beside, margin):
    found = plan(SCENE, Geometry(margin // 2, margin - margin // 2), 100, beside)
    assert found.height * found.width >= 512 * 256


@pytest.mark.parametrize(("beside", "expected"), [(1, (1024, 1024)), (2, (1024, 512))])
def test_two_calls_at_a_time_get_even_shares_of_a_raster(beside, expected):
    # Two tiles of 768 x 768 would fit, too, and cost margins less, but nine of them leave one call without work.
    found = plan(Layout(2048, 2048, 512, 512, 8), Geometry(96, 112, 16), 600, beside)
    assert (found.height, found.width) == expected


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 70000), width=st.integers(1, 70000), pixel=st.sampled_from([1, 8, 26]),
    block=st.sampled_from([(1, 0), (16, 0), (256, 256), (512, 512)]),
    margin=st.sampled_from([0, 15, 112, 400]), stride=st.sampled_from([1, 2, 16, 32]),
    per_pixel=st.sampled_from([100, 2000]), beside=st.integers(1, 16), memory=st.sampled_from([500, 1500, 8000]),
)  # fmt: skip
def test_plans_keep_the_grid_and_the_limits(height, width, block, pixel, margin, stride, per_pixel, beside, memory):
    layout = Layout(height, width, block[0], block[1] or width, pixel)
    tiling = plan(layout, Geometry(margin, margin, stride), per_pixel, beside, memory)
    assert tiling.height % stride == tiling.width % stride == 0 == tiling.band % tiling.width
    assert tiling.cache <= max(CACHE_BYTES, memory * 500_000)
    smallest = tiling.height <= max(64, 4 * margin, 2 * stride)
    assert tiling.memory <= memory * 1_000_000 or smallest
    assert tiling.band < width + tiling.width


def test_less_memory_never_gives_larger_tiles():
    areas = [
        (lambda t: t.height * t.width)(plan(SCENE, UNET, 1600, 2, memory)) for memory in (200, 700, MEMORY_MB, 6000)
    ]
    assert all(a <= b for a, b in itertools.pairwise(areas)) and areas[0] < areas[-1]


@given(st.sampled_from([200, 600, 1500, 4000]), st.sampled_from([SCENE, Layout(30000, 30000, 1, 30000, 8)]))
def test_tiles_that_were_planned_before_cost_what_they_cost_then(memory, layout):
    planned = plan(layout, PATCH, 600, 2, memory)
    again = with_tiles((planned.height, planned.width, planned.band), layout, PATCH, 600, 2, memory)
    assert (again.height, again.width, again.band) == (planned.height, planned.width, planned.band)
    assert again.cache <= max(memory * 1_000_000 // 4, 5_000_000) and again.memory >= planned.memory - planned.cache
