"""Estimates from stratified samples: the worked example of Olofsson et al. 2014."""

import numpy as np
import pytest
from deepscape.engine.estimation import stratified_estimate
from deepscape.tasks.errors import BadInput

COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = np.array([200_000.0, 150_000.0, 3_200_000.0, 6_450_000.0])
HECTARES = PIXELS * 0.09  # pixels of 30 m


def test_worked_example() -> None:
    result = stratified_estimate(COUNTS, HECTARES)
    assert result.overall == pytest.approx(0.95, abs=0.005)
    assert result.overall_interval == pytest.approx(0.02, abs=0.005)
    np.testing.assert_allclose(result.users, [0.88, 0.73, 0.93, 0.96], atol=0.005)
    np.testing.assert_allclose(result.users_interval, [0.07, 0.10, 0.04, 0.02], atol=0.005)
    np.testing.assert_allclose(result.producers, [0.75, 0.85, 0.93, 0.96], atol=0.005)
    # Formula 7 for forest gain, whose only omission is one unit of stable non-forest.
    gain, missed = 0.015 * 55 / 75, 0.645 / 325
    producers = gain / (gain + missed)
    own = (0.015 * (1 - producers)) ** 2 * (55 / 75) * (20 / 75) / 74
    others = producers**2 * 0.645**2 * (1 / 325) * (324 / 325) / 324
    assert result.producers_interval[1] == pytest.approx(1.96 * (own + others) ** 0.5 / (gain + missed))
    assert result.producers_interval[0] == pytest.approx(0.21, abs=0.005)
    assert result.areas[0] == pytest.approx(21_158, abs=1)
    assert result.areas_interval[0] == pytest.approx(6_158, abs=1)
    assert result.areas[0] / 0.09 == pytest.approx(235_086, abs=1)  # pixels
    assert result.areas_interval[0] / 0.09 == pytest.approx(68_418, abs=1)
    assert result.areas.sum() == pytest.approx(HECTARES.sum())


def test_a_stratum_with_one_unit_is_refused() -> None:
    with pytest.raises(BadInput, match="Stratum 2"):
        stratified_estimate(np.array([[5, 0], [0, 1]]), np.array([1.0, 1.0]))
