"""The forest's features: patches and images give the same bits, no-data is left out."""

import numpy as np
import pytest
from deepscape.engine import features

FILL = np.array([10.0, -3.0])


def image(height, width, missing=0.0):
    rng = np.random.default_rng(1)
    values = rng.normal(1000, 5, (2, height, width)).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    return values


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["pixel", "window"])
def test_patches_and_images_give_the_same_bits(kind, size, missing):
    scene = image(size + 6, size + 9, missing)
    dense = features.forest_features(kind, scene, size, FILL)
    windows = np.lib.stride_tricks.sliding_window_view(scene, (size, size), axis=(1, 2))
    patches = windows.transpose(1, 2, 0, 3, 4).reshape(-1, 2, size, size)
    single = features.forest_features(kind, patches, size, FILL)
    assert dense.dtype == np.float32 and not np.isnan(dense).any()
    rows, shape = features.as_rows(dense)
    assert shape == (7, 10)
    np.testing.assert_array_equal(rows, features.as_rows(single)[0])


def test_mean_and_deviation_are_those_of_the_valid_pixels():
    patch = image(7, 7, 0.4)
    values = features.window_features(patch, 7, FILL)[:, 0, 0]
    np.testing.assert_allclose(values[2:4], np.nanmean(patch.astype(float), axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(values[4:], np.nanstd(patch.astype(float), axis=(1, 2)), rtol=1e-5)


def test_the_centre_of_an_even_patch_is_right_of_and_below_the_middle():
    patch = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    assert features.pixel_features(patch, 4, np.zeros(1)).item() == 10


def test_a_patch_without_valid_pixels_becomes_the_fill():
    patch = np.full((2, 3, 3), np.nan, dtype=np.float32)
    assert features.window_features(patch, 3, FILL).reshape(-1).tolist() == [10, -3, 10, -3, 0, 0]
