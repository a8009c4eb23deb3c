"""Samples that keep a distance: none nearer, none that could have been added, rare classes first."""

import numpy as np
from deepscape.engine.thinning import Spacing, shuffled, thin
from deepscape.tasks.context import Context
from hypothesis import given, settings
from hypothesis import strategies as st

WIDTH = 37


def nearest(keys):
    """Return the least max(|dx|, |dy|) between two pixels."""
    rows, cols = np.divmod(np.asarray(keys), WIDTH)
    apart = np.maximum(np.abs(rows[:, None] - rows), np.abs(cols[:, None] - cols))
    np.fill_diagonal(apart, 10**6)
    return apart.min(initial=10**6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 900))
def test_admitted_pixels_keep_the_distance_and_no_other_fits_between(seed, distance, count):
    keys = np.random.default_rng(seed).choice(WIDTH * 30, count, replace=False)
    spacing = Spacing(distance, WIDTH)
    parts = np.array_split(keys, 3)
    kept = np.concatenate([part[spacing.admit(part)] for part in parts])
    assert nearest(kept) >= distance
    assert kept[0] == keys[0]
    assert not spacing.free(keys).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 60))
def test_a_class_takes_others_in_place_of_those_too_near(seed, distance, wanted):
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, WIDTH * 30, p=[0.1, 0.3, 0.6])
    candidates = {value: generator.permutation(np.flatnonzero(labels == value)) for value in range(3)}
    spacing = Spacing(distance, WIDTH)
    places = thin(spacing, candidates, dict.fromkeys(candidates, wanted), Context())
    kept = {value: candidates[value][part] for value, part in places.items()}
    assert nearest(np.concatenate(list(kept.values()))) >= distance
    for value, keys in kept.items():
        assert len(keys) == len(set(keys)) <= wanted
        # Fewer only where no pixel of the class is left that would do.
        assert len(keys) == wanted or not spacing.free(candidates[value]).any()


def test_the_order_of_a_class_is_its_own_and_depends_on_the_seed():
    first, again = shuffled(50, 1, -4), shuffled(50, 1, -4)
    assert first.tolist() == again.tolist() and sorted(first) == list(range(50))
    assert first.tolist() not in (shuffled(50, 2, -4).tolist(), shuffled(50, 1, 5).tolist())


def test_a_distance_of_one_admits_every_pixel_once():
    keys = np.array([5, 6, 5, 7 + WIDTH])
    assert Spacing(1, WIDTH).admit(keys).tolist() == [True, True, False, True]
