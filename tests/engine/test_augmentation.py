"""Augmentation: image and mask move identically, and something changes."""

import pytest
import torch
from deepscape.engine.augmentation import Augmentation, augmentation_of, augmented
from hypothesis import given
from hypothesis import strategies as st

sizes = st.integers(2, 24)
seeds = st.integers(0, 2**31)


def windows(count, size, seed=0):
    """Return windows whose first band holds each pixel's target, -1 where ignored."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(-1, 6, (count, size, size), generator=generator)
    values = torch.randn(count, 3, size, size, generator=generator)
    values[:, 0] = targets.float()
    return values, targets


def generator_of(seed):
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 12), sizes, seeds)
def test_symmetries_move_image_and_mask_identically(count, size, seed):
    values, targets = windows(count, size, seed)
    kept = values.clone(), targets.clone()
    moved, mask = augmented(values, targets, Augmentation(symmetries=True), generator_of(seed))
    assert torch.equal(moved[:, 0].long(), mask)
    assert torch.equal(values, kept[0])
    assert torch.equal(targets, kept[1])
    for before, after in zip(values, moved):
        # The bands stay together, and every pixel is still there.
        assert torch.equal(*(part.flatten(1).T.unique(dim=0) for part in (before, after)))


def test_all_eight_symmetries_are_drawn_for_each_window_by_itself():
    image = torch.arange(9.0).reshape(1, 1, 3, 3).expand(400, 1, 3, 3)
    moved, _ = augmented(image, image[:, 0].long(), Augmentation(symmetries=True), generator_of(0))
    kinds, counts = moved.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 8
    assert int(counts.min()) > 25
    turned = [torch.rot90(image[0, 0], turns) for turns in range(4)]
    wanted = torch.stack([*turned, *(part.flip(1) for part in turned)]).flatten(1)
    assert torch.equal(kinds, wanted.unique(dim=0))


@given(st.integers(1, 6), sizes, st.floats(1.01, 4.0), seeds)
def test_zoom_moves_image_and_mask_to_the_nearest_pixel(count, size, zoom, seed):
    rows, cols = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    values = torch.stack([rows, cols]).float().expand(count, 2, size, size)
    targets = (rows * size + cols).expand(count, size, size)
    moved, mask = augmented(values, targets, Augmentation(zoom=zoom), generator_of(seed))
    # Each pixel's label is that of the pixel whose centre the interpolated place is nearest to.
    for band, places in ((0, mask // size), (1, mask % size)):
        assert float((moved[:, band] - places).abs().max()) <= 0.5 + 1e-4
    assert moved.shape == values.shape
    # Nothing from beyond the window: every value lies between values of the part that is shown.
    for image, labels in zip(moved, mask):
        assert float(image[0].min()) >= int((labels // size).min()) - 1e-4
        assert float(image[0].max()) <= int((labels // size).max()) + 1e-4


@given(sizes, seeds)
def test_zoom_makes_up_no_label(size, seed):
    values, targets = windows(3, size, seed)
    _, mask = augmented(values, targets, Augmentation(zoom=2.0), generator_of(seed))
    for before, after in zip(targets, mask):
        assert set(after.unique().tolist()) <= set(before.unique().tolist())
    assert mask.dtype == torch.int64


def test_zoom_enlarges_by_no_more_than_its_factor():
    places = torch.arange(64.0).expand(300, 1, 64, 64)
    moved, _ = augmented(places, places[:, 0].long(), Augmentation(zoom=2.0), generator_of(1))
    shown = moved.amax((1, 2, 3)) - moved.amin((1, 2, 3)) + 1
    assert 32 <= float(shown.min()) < 34
    assert 62 < float(shown.max()) <= 64


@pytest.mark.parametrize("part", ["contrast", "brightness", "jitter", "noise"])
def test_colours_change_and_the_mask_does_not(part):
    values, targets = windows(5, 8)
    kept = values.clone()
    changed, mask = augmented(values, targets, Augmentation(**{part: 0.3}), generator_of(2))
    assert torch.equal(mask, targets)
    assert torch.equal(values, kept)
    assert (changed != values).flatten(1).any(1).all()
    difference = changed - values
    if part == "brightness":
        assert torch.allclose(difference, difference[:, :1, :1, :1].expand_as(difference), atol=1e-6)
    if part == "jitter":
        assert torch.allclose(difference, difference[:, :, :1, :1].expand_as(difference), atol=1e-6)
        assert float(difference[:, :, 0, 0].std(1).min()) > 0
    if part == "contrast":
        factor = changed[:, 1] / values[:, 1]
        assert torch.allclose(factor, factor[:, :1, :1].expand_as(factor), rtol=1e-3)
        assert float(factor.min()) > 0


@pytest.mark.parametrize(("part", "strength"), [("brightness", 0.3), ("jitter", 0.3), ("noise", 0.3 / 3**0.5)])
def test_colours_change_as_much_as_told(part, strength):
    values = torch.zeros(4000, 2, 4, 4)
    changed, _ = augmented(values, values[:, 0].long(), Augmentation(**{part: 0.3}), generator_of(3))
    assert float(changed.std()) == pytest.approx(strength, rel=0.05)
    assert float(changed.mean()) == pytest.approx(0, abs=0.02)


def test_none_is_the_identity_and_the_choices_are_more_and_more():
    values, targets = windows(4, 9)
    same = augmented(values, targets, augmentation_of("none"), generator_of(4))
    assert torch.equal(same[0], values)
    assert torch.equal(same[1], targets)
    assert augmentation_of("flips") == Augmentation(symmetries=True)
    full = augmentation_of("full")
    assert full.symmetries
    assert full.zoom > 1
    assert min(full.contrast, full.brightness, full.jitter, full.noise) > 0


@given(seeds)
def test_the_generator_alone_decides(seed):
    values, targets = windows(6, 12)
    first, second, other = (
        augmented(values, targets, augmentation_of("full"), generator_of(number)) for number in (seed, seed, seed + 1)
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])
