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


def test_f1_and_iou_of_the_worked_example() -> None:
    """Against derivatives taken numerically, on the logit scale."""
    result = stratified_estimate(COUNTS, PIXELS)
    weights, sampled = PIXELS / PIXELS.sum(), COUNTS.sum(axis=1)
    rows = COUNTS / sampled[:, None]

    def numbers(shares: np.ndarray) -> np.ndarray:
        p = weights[:, None] * shares
        hits, reference = np.diag(p), p.sum(axis=0)
        f1, iou = 2 * hits / (weights + reference), hits / (weights + reference - hits)
        chance = float(weights @ reference)
        return np.array([*f1, *iou, f1.mean(), iou.mean(), (hits.sum() - chance) / (1 - chance)])

    variance = np.zeros(11)
    for i in range(4):
        step = 1e-7
        slopes = []
        for j in range(4):
            moved = rows.copy()
            moved[i, j] += step
            slopes.append((numbers(moved) - numbers(rows)) / step)
        cover = (np.diag(rows[i]) - np.outer(rows[i], rows[i])) / (sampled[i] - 1)
        slope = np.array(slopes)
        variance += np.einsum("jn,jk,kn->n", slope, cover, slope)
    value, error = numbers(rows), 1.96 * np.sqrt(variance)
    ends = [np.log(value / (1 - value)) + sign * error / (value * (1 - value)) for sign in (-1, 1)]
    expected = np.stack([1 / (1 + np.exp(-end)) for end in ends], axis=1)
    np.testing.assert_allclose(result.f1_bounds, expected[:4], rtol=1e-5)
    np.testing.assert_allclose(result.iou_bounds, expected[4:8], rtol=1e-5)
    np.testing.assert_allclose([result.macro_f1_bounds, result.mean_iou_bounds], expected[8:10], rtol=1e-5)
    np.testing.assert_allclose(result.kappa_bounds, [value[10] - error[10], value[10] + error[10]], rtol=1e-5)
    # The F1 of forest gain, 0.79: its interval is that of the IoU, said as F1.
    assert result.f1_bounds[1] == pytest.approx([0.632, 0.887], abs=0.001)
    np.testing.assert_allclose(result.f1_bounds, 2 * result.iou_bounds / (1 + result.iou_bounds))


@pytest.mark.parametrize(
    ("population", "sizes"),
    [
        ([[300, 30, 20], [40, 250, 20], [30, 20, 290]], (60, 60, 60)),
        ([[300, 30, 20], [40, 250, 20], [30, 20, 290]], (40, 80, 150)),
        ([[500, 60], [40, 400]], (50, 100)),
        ([[60, 20], [10, 910]], (150, 500)),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(population: list, sizes: tuple) -> None:
    """Samples drawn again and again from a population that is known: 95 of 100 intervals hold its F1 and IoU."""
    areas = np.array(population, float)
    shares, mapped = areas / areas.sum(axis=1, keepdims=True), areas.sum(axis=1)
    hits, sums = np.diag(areas), areas.sum(axis=1) + areas.sum(axis=0)
    f1, iou = 2 * hits / sums, hits / (sums - hits)
    generator = np.random.default_rng(5)
    draws, classes = 2000, len(areas)
    held = np.zeros((4, classes))
    for counts in zip(*(generator.multinomial(size, row, size=draws) for size, row in zip(sizes, shares))):
        result = stratified_estimate(np.array(counts), mapped)
        held[0] += (result.f1_bounds[:, 0] <= f1) & (f1 <= result.f1_bounds[:, 1])
        held[1] += (result.iou_bounds[:, 0] <= iou) & (iou <= result.iou_bounds[:, 1])
        held[2] += result.macro_f1_bounds[0] <= f1.mean() <= result.macro_f1_bounds[1]
        held[3] += result.mean_iou_bounds[0] <= iou.mean() <= result.mean_iou_bounds[1]
    coverage = held / draws
    assert (coverage > 0.93).all() and (coverage < 0.97).all(), coverage


def test_without_an_error_there_is_no_interval() -> None:
    result = stratified_estimate(np.array([[9, 0], [0, 9]]), np.array([1.0, 1.0]))
    for bounds in (result.f1_bounds, result.iou_bounds, result.macro_f1_bounds, result.kappa_bounds):
        assert np.isnan(bounds).all()
    # A class of the reference that is not on the map has the F1 0, and no interval.
    result = stratified_estimate(np.array([[8, 1, 1], [1, 9, 0], [0, 0, 0]]), np.array([1.0, 1.0, 0.0]))
    assert np.isnan(result.f1_bounds[2]).all() and np.isfinite(result.f1_bounds[:2]).all()
