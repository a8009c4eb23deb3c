"""Bootstrap over blocks and clusters."""

import numpy as np
import pytest
from deepscape.engine.bootstrap import block_bootstrap
from deepscape.tasks.errors import BadInput


def test_equal_blocks_have_no_width() -> None:
    result = block_bootstrap(np.tile(np.array([[8, 2], [1, 9]]), (5, 1, 1)), seed=0)
    assert result.overall == pytest.approx((0.85, 0.85))
    assert result.kappa == pytest.approx((0.7, 0.7))
    np.testing.assert_allclose(result.iou, [[8 / 11, 8 / 11], [9 / 12, 9 / 12]])
    assert result.units == 5


def test_seeded_and_around_the_spread_of_the_blocks() -> None:
    right = np.random.default_rng(1).integers(60, 100, 200)
    matrices = np.zeros((200, 2, 2), dtype=np.int64)
    matrices[:, 0, 0], matrices[:, 0, 1] = right, 100 - right
    first, again = block_bootstrap(matrices, seed=3), block_bootstrap(matrices, seed=3)
    assert first.overall == again.overall
    half = 1.96 * (right / 100).std() / np.sqrt(200)
    assert first.overall[1] - first.overall[0] == pytest.approx(2 * half, rel=0.1)


def test_absent_classes_are_left_out_and_one_class_has_no_kappa() -> None:
    result = block_bootstrap(np.tile(np.array([[4, 0], [0, 0]]), (3, 1, 1)), seed=0)
    assert result.macro_f1 == (1.0, 1.0)
    assert np.isnan(result.kappa).all()
    assert np.isnan(result.f1[1]).all()


def test_one_block_is_refused() -> None:
    with pytest.raises(BadInput, match="1 blocks"):
        block_bootstrap(np.ones((1, 2, 2), dtype=np.int64), seed=0)
