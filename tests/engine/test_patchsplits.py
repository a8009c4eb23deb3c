"""Parts of patches: the reference's sequence, tiles that keep parts apart, the balance of classes, the guard."""

from fractions import Fraction

import numpy as np
import pytest
from deepscape.engine import patchsplits
from deepscape.tasks.context import Context
from hypothesis import given, settings
from hypothesis import strategies as st

HALVES = patchsplits.shares_of(0.5, 0.25)


def greedy(count, shares):
    """The reference's loop: the part with the lowest counter, ties to the first."""
    counters, found = [Fraction(0)] * 3, []
    for _ in range(count):
        part = min((p for p in range(3) if shares[p] > 0), key=lambda p: (counters[p], p))
        counters[part] += 1 / shares[part]
        found.append(part)
    return found


def test_shares_are_exact_fractions():
    assert patchsplits.shares_of(0.6, 0.2) == (Fraction(3, 5), Fraction(1, 5), Fraction(1, 5))
    assert patchsplits.shares_of(0.7, 0.3) == (Fraction(7, 10), Fraction(3, 10), 0)


def test_the_sequence_of_the_reference():
    assert patchsplits.sequence(8, HALVES).tolist() == [0, 1, 2, 0, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("shares", "counts"),
    [((0.5, 0.25), [4635, 2318, 2317]), ((0.8, 0.1), [7416, 927, 927]), ((1, 0), [9270]), ((0, 0), [0, 0, 9270])],
)
def test_counts_of_the_reference(shares, counts):
    assert np.bincount(patchsplits.sequence(9270, patchsplits.shares_of(*shares))).tolist() == counts


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(0, 20), st.integers(0, 20))
def test_sorting_gives_the_sequence_of_the_loop(count, train, validation):
    shares = patchsplits.shares_of(train / 20, min(validation, 20 - train) / 20)
    assert patchsplits.sequence(count, shares).tolist() == greedy(count, shares)


def test_every_group_is_dealt_for_itself():
    groups = np.array([7] * 8 + [2] * 4 + [9])
    parts = patchsplits.within_groups(groups, HALVES, seed=3)
    assert np.bincount(parts[:8]).tolist() == [4, 2, 2]
    assert np.bincount(parts[8:12]).tolist() == [2, 1, 1]
    assert parts[12] == 0
    assert parts.tolist() == patchsplits.within_groups(groups, HALVES, seed=3).tolist()
    assert parts.tolist() != patchsplits.within_groups(groups, HALVES, seed=4).tolist()
    assert len(patchsplits.within_groups(groups[:0], HALVES, seed=3)) == 0


# --- tiles -----------------------------------------------------------------------------------------------------------


def painted(shape, rows, cols, parts, size):
    """How many parts claim each pixel."""
    claims = np.zeros((3, *shape), dtype=bool)
    for row, col, part in zip(rows, cols, parts):
        if part >= 0:
            claims[part, row : row + size, col : col + size] = True
    return claims.sum(axis=0)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(12, 80), st.integers(12, 80)),
    size=st.integers(1, 12),
    more=st.integers(0, 15),
    origin=st.integers(0, 9),
    unit=st.integers(1, 8),
    seed=st.integers(0, 50),
    random_tiles=st.booleans(),
)
def test_no_two_parts_of_tiles_share_a_pixel(shape, size, more, origin, unit, seed, random_tiles):
    side = size + more
    tiling = (
        patchsplits.subtiles(shape, origin, (side, side + unit), unit, seed)
        if random_tiles
        else patchsplits.blocks(shape, origin, (side, side + unit))
    )
    generator = np.random.default_rng(seed)
    rows, cols = (generator.integers(0, length - size + 1, 200) for length in shape)
    parts = patchsplits.by_tiles(tiling, rows, cols, size, HALVES, seed, Context())
    assert painted(shape, rows, cols, parts, size).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    side=st.integers(1, 20),
    unit=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_no_tile_is_narrower_than_its_least_side(shape, side, unit, seed):
    for tiling in (
        patchsplits.subtiles(shape, 1, (side, side), unit, seed),
        patchsplits.blocks(shape, 1, (side, side)),
    ):
        rows, cols = np.mgrid[: shape[0], : shape[1]]
        tiles = tiling.tiles_at(rows.ravel(), cols.ravel()).reshape(shape)
        assert set(np.unique(tiles)) == set(range(len(tiling)))
        for tile in range(len(tiling)):
            inside = np.argwhere(tiles == tile)
            sides = np.ptp(inside, axis=0) + 1
            assert np.prod(sides) == len(inside)
            assert all(found >= min(side, length) for found, length in zip(sides, shape))


def test_blocks_begin_with_the_grid_and_keep_all_of_its_patches():
    rows, cols = (places.ravel() for places in np.mgrid[1:993:8, 1:993:8])
    tiling = patchsplits.blocks((1000, 1000), 1, (40, 40))
    parts = patchsplits.by_tiles(tiling, rows, cols, 8, HALVES, 0, Context())
    shares = np.bincount(parts, minlength=3) / len(rows)
    assert parts.min() == 0
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.01)


def test_subtiles_are_of_different_sizes_and_depend_on_the_seed():
    tiling = patchsplits.subtiles((1000, 1000), 0, (100, 100), 1, 5)
    heights = np.diff(tiling.row_cuts)
    assert (heights.min(), heights.max()) >= (100, 110)
    assert heights.max() < 300 and len(set(heights)) > 1
    again, other = (patchsplits.subtiles((1000, 1000), 0, (100, 100), 1, seed) for seed in (5, 6))
    assert again.tile_keys.tolist() == tiling.tile_keys.tolist() != other.tile_keys.tolist()


# --- balance ---------------------------------------------------------------------------------------------------------


def test_balance_takes_every_fourth_and_the_rare_class():
    # 40 patches of class 0, of which two hold class 1 as well.
    counts = np.tile([100, 0], (40, 1))
    counts[[0, 13]] = [0, 100]
    chosen = patchsplits.balanced(counts)
    assert chosen[3::4].all()
    assert np.flatnonzero(chosen[np.arange(40) % 4 != 3]).tolist() == [0, 10]
    assert counts[chosen].sum(axis=0).tolist() == [1000, 200]


def test_balance_stops_when_the_classes_are_equal():
    counts = np.zeros((80, 2), dtype=int)
    counts[3::4, 0] = 10
    counts[np.arange(80) % 4 != 3, 1] = 10
    assert counts[patchsplits.balanced(counts)].sum(axis=0).tolist() == [200, 200]


def test_the_rarest_class_of_each_patch():
    counts = np.array([[5, 0, 1], [9, 2, 0], [9, 0, 0], [0, 0, 4]])
    assert patchsplits.rarest_class(counts).tolist() == [2, 1, 0, 2]


# --- the guard -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 200), reach=st.integers(1, 30), wider=st.sampled_from([0, 0, 1, 7]))
def test_what_is_left_lies_apart(seed, reach, wider):
    generator = np.random.default_rng(seed)
    rows, cols = generator.integers(0, 100, 60), generator.integers(0, 100, 60)
    parts = generator.integers(0, 3, 60).astype(np.int8)
    left = ~patchsplits.too_near(rows, cols, parts, (reach, reach + wider), Context())
    other = parts[:, None] != parts
    near = (np.abs(rows[:, None] - rows) < reach) & (np.abs(cols[:, None] - cols) < reach + wider) & other
    assert not np.any(near & left[:, None] & left)
    # Nothing is dropped without need, and the test part never.
    assert np.all(near.any(axis=1)[~left])
    assert left[parts == 2].all()
    near = ((np.maximum(np.abs(rows[:, None] - rows), np.abs(cols[:, None] - cols)) < reach) & other).any(axis=1)
    assert patchsplits.sharing(rows, cols, parts, reach, Context()) == np.count_nonzero(near)


def test_names_and_counts():
    parts = np.array([0, 2, -1, 0], dtype=np.int8)
    assert patchsplits.names_of(parts).tolist() == ["train", "test", "", "train"]
    assert patchsplits.counts_of(parts) == {"train": 2, "test": 1, "": 1}
