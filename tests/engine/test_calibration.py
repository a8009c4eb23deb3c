"""Calibration and thresholds against scikit-learn, accumulated in pieces."""

import numpy as np
import pytest
import sklearn.metrics
from deepscape.engine.calibration import Calibration, band_classes, threshold_figures, threshold_of
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.errors import BadInput

TABLE = (ClassEntry(3, "Other", "#ffffff"), ClassEntry(8, "Building", "#ff0000"))


class Bands:
    """Stands in for a reader of probabilities."""

    name = "p.tif"

    def __init__(self, *names):
        self.bands = tuple(type("Band", (), {"name": name}) for name in names)


def counted(probabilities, reference, classes, mapped=None, threshold=None):
    """Count pixels in seven parts; without a map they are mapped to the most probable class."""
    calibration = Calibration(Bands(), classes, threshold)
    mapped = np.array(classes)[probabilities.argmax(axis=0)] if mapped is None else mapped
    for part in np.array_split(np.arange(len(reference)), 7):
        calibration.add_probabilities(probabilities[:, part], reference[part], mapped[part])
    return calibration.figures(TABLE)


@pytest.mark.parametrize("byte", [False, True])
def test_two_classes_are_those_of_scikit_learn(byte):
    generator = np.random.default_rng(5)
    truth = generator.random(4000) < 0.3
    second = np.clip(0.25 + 0.4 * truth + 0.2 * generator.standard_normal(4000), 0, 1)
    second = np.rint(second * 250) / 250 if byte else np.round(second, 4)
    # The bands may stand in another order than the class values.
    found = counted(np.stack([second, 1 - second]), np.where(truth, 8, 3), (8, 3))
    assert found["brier"] == pytest.approx(sklearn.metrics.brier_score_loss(truth, second))
    threshold = found["threshold"]
    assert (threshold["value"], threshold["name"]) == (8, "Building")
    assert threshold["average_precision"] == pytest.approx(sklearn.metrics.average_precision_score(truth, second))
    half = threshold["half"]
    called = second >= 0.5
    assert half["threshold"] == 0.5
    assert half["precision"] == pytest.approx(sklearn.metrics.precision_score(truth, called))
    assert half["recall"] == pytest.approx(sklearn.metrics.recall_score(truth, called))
    assert half["iou"] == pytest.approx(sklearn.metrics.jaccard_score(truth, called))
    precision, recall, _ = sklearn.metrics.precision_recall_curve(truth, second)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    assert threshold["best"]["f1"] == pytest.approx(f1.max())
    called = second >= threshold["best"]["threshold"] - 1e-9
    assert sklearn.metrics.f1_score(truth, called) == pytest.approx(f1.max())
    assert [row["threshold"] for row in threshold["curve"]] == pytest.approx(np.arange(101) / 100)
    assert threshold["curve"][0]["recall"] == 1


@pytest.mark.parametrize(("told", "shown"), [(0.3, 0.3), (None, 0.3)])
def test_what_is_right_is_told_by_the_map(told, shown):
    """Not by the larger probability: the map was made by a threshold of 0.3."""
    generator = np.random.default_rng(8)
    truth = generator.random(5000) < 0.4
    second = np.clip(0.2 + 0.3 * truth + 0.15 * generator.standard_normal(5000), 0, 1)
    called = second >= 0.3
    found = counted(
        np.stack([1 - second, second]), np.where(truth, 8, 3), (3, 8), np.where(called, 8, 3), told
    )  # fmt: skip
    confidence = np.where(called, second, 1 - second)
    assert sum(row["pixels"] for row in found["bins"][:5]) == (confidence <= 0.5).sum() > 1000
    for row in found["bins"]:
        inside = (confidence > row["low"]) & (confidence <= row["high"])
        assert row["pixels"] == inside.sum()
        if inside.any():
            assert row["confidence"] == pytest.approx(confidence[inside].mean())
            assert row["accuracy"] == pytest.approx((called == truth)[inside].mean())
    own = found["threshold"]["map"]
    assert own["threshold"] == pytest.approx(shown, abs=0 if told else 0.002)
    assert own["precision"] == pytest.approx(sklearn.metrics.precision_score(truth, called))
    assert own["recall"] == pytest.approx(sklearn.metrics.recall_score(truth, called))
    assert own["f1"] == pytest.approx(sklearn.metrics.f1_score(truth, called))
    assert own["iou"] == pytest.approx(sklearn.metrics.jaccard_score(truth, called))
    # Figures of other thresholds do not depend on the map.
    assert found["threshold"]["half"]["recall"] == pytest.approx(sklearn.metrics.recall_score(truth, second >= 0.5))


def test_the_threshold_that_a_map_shows():
    first, second = np.zeros(1001, np.int64), np.zeros(1001, np.int64)
    first[[100, 600]], second[700] = 500, 500
    assert threshold_of(first, second) == pytest.approx(0.65)
    # 0.5 where the map shows no other.
    first[600] = 0
    assert threshold_of(first, second) == 0.5
    # Some cleaned pixels do not matter; a map of something else was made by no threshold.
    second[50] = 8
    assert threshold_of(first, second) == 0.5
    second[50] = 20
    assert threshold_of(first, second) is None


def test_three_classes_have_bins_and_a_brier_score():
    generator = np.random.default_rng(2)
    probabilities = generator.dirichlet([1, 1, 1], 3000).T
    reference = generator.choice([1, 2, 5], 3000)
    found = counted(probabilities, reference, (1, 2, 5))
    target = (reference[:, None] == [1, 2, 5]).astype(float)
    assert found["brier"] == pytest.approx(((probabilities.T - target) ** 2).sum(axis=1).mean())
    top, right = probabilities.max(axis=0), np.array([1, 2, 5])[probabilities.argmax(axis=0)] == reference
    error = 0.0
    for row in found["bins"]:
        inside = (top > row["low"]) & (top <= row["high"])
        assert row["pixels"] == inside.sum()
        if inside.any():
            assert row["confidence"] == pytest.approx(top[inside].mean())
            assert row["accuracy"] == pytest.approx(right[inside].mean())
            error += inside.mean() * abs(top[inside].mean() - right[inside].mean())
    assert found["expected_calibration_error"] == pytest.approx(error)
    assert "threshold" not in found


def test_a_class_that_the_model_does_not_know_is_wrong():
    found = counted(np.array([[0.5], [0.3], [0.2]]), np.array([9]), (1, 2, 5))
    assert found["brier"] == pytest.approx(0.25 + 0.09 + 0.04 + 1)
    assert found["bins"][4]["accuracy"] == 0.0


def test_the_best_threshold_is_in_the_middle_of_a_run():
    others, own = np.zeros(1001, np.int64), np.zeros(1001, np.int64)
    others[200], own[800] = 5, 5
    best = threshold_figures(others, own)["best"]
    assert best["f1"] == 1 and best["threshold"] == pytest.approx(0.5)


def test_bands_are_matched_by_name():
    assert band_classes(Bands("Building", "Other"), TABLE, "m.tif") == [8, 3]
    assert band_classes(Bands("Class 3", "8"), (), "m.tif") == [3, 8]
    with pytest.raises(BadInput, match=r"Band 'Tree' of 'p\.tif' is no class of the map 'm\.tif'"):
        band_classes(Bands("Building", "Tree"), TABLE, "m.tif")
    with pytest.raises(BadInput, match=r"the map 'm\.tif' carries no class names"):
        band_classes(Bands("Building", "Tree"), (), "m.tif")
    with pytest.raises(BadInput, match="one band"):
        band_classes(Bands("Building"), TABLE, "m.tif")
    with pytest.raises(BadInput, match="of one class"):
        band_classes(Bands("Building", "Class 8"), TABLE, "m.tif")


def test_what_is_no_probability_is_refused():
    with pytest.raises(BadInput, match="holds 200, which is no probability"):
        counted(np.array([[200.0] * 7, [55.0] * 7]), np.full(7, 3), (3, 8))


def test_without_pixels_there_are_no_figures():
    assert Calibration(Bands(), (3, 8)).figures(TABLE) == {}
