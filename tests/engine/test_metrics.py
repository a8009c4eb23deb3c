"""The numbers of a confusion matrix, with the reference's test vector."""

import numpy as np
import pytest
from deepscape.engine import metrics
from deepscape.tasks.classtable import ClassEntry

VECTOR = np.array(
    [
        [4444836, 133148, 145598, 59877, 8599, 12307],
        [251606, 5128036, 28565, 10388, 735, 3617],
        [169340, 58698, 2272628, 393683, 171, 8190],
        [40707, 7712, 327441, 4016691, 209, 0],
        [12351, 2995, 253, 628, 130669, 1781],
        [0, 0, 6216, 0, 0, 0],
    ]
)


def test_the_test_vector_of_the_reference_is_reproduced():
    result = metrics.scores(VECTOR)
    assert 100 * result.overall_accuracy == pytest.approx(90.46925005692208, abs=1e-12)
    assert result.kappa == pytest.approx(0.8717235773, abs=5e-11)
    assert [round(value, 4) for value in result.f1] == [0.9143, 0.9537, 0.7997, 0.9053, 0.9041, 0]


def test_precision_is_by_column_and_recall_by_row():
    result = metrics.scores(np.array([[8, 2], [1, 9]]))
    assert result.precision == pytest.approx([8 / 9, 9 / 11])
    assert result.recall == pytest.approx([0.8, 0.9])
    assert result.iou == pytest.approx([8 / 11, 9 / 12])
    assert result.kappa == pytest.approx((0.85 - 0.5) / 0.5)


def test_a_class_in_neither_reference_nor_map_is_left_out_of_the_means():
    result = metrics.scores(np.array([[5, 0, 0], [0, 0, 0], [0, 0, 5]]))
    assert (result.macro_f1, result.mean_iou) == (1.0, 1.0)
    assert result.present.tolist() == [True, False, True]


def test_a_class_that_only_the_map_holds_counts_as_zero():
    result = metrics.scores(np.array([[4, 1, 0], [0, 0, 0], [0, 0, 5]]))
    assert result.f1[1] == 0 and result.present[1]
    assert result.macro_f1 == pytest.approx((8 / 9 + 0 + 1) / 3)


@pytest.mark.parametrize("row", [[7, 0], [5, 2], [0, 7]])
def test_a_reference_of_one_class_tells_how_much_of_it_is_found_and_nothing_else(row):
    matrix = np.array([row, [0, 0]])
    result = metrics.scores(matrix)
    assert (result.kappa, result.macro_f1, result.mean_iou) == (None, None, None)
    assert result.overall_accuracy == result.recall[0] == row[0] / 7
    for values in (result.precision, result.f1, result.iou, result.recall[1:]):
        assert np.isnan(values).all()
    classes = [ClassEntry(1, "building", "#0000ff"), ClassEntry(2, "other", "#00ff00")]
    building, other = metrics.metrics_dict(result, classes)["classes"]
    assert [building[name] for name in ("precision", "recall", "f1", "iou")] == [None, row[0] / 7, None, None]
    assert [other[name] for name in ("precision", "recall", "f1", "iou")] == [None] * 4
    assert (metrics.only_class(matrix), metrics.only_class(np.eye(2)), metrics.only_class(matrix.T * 0)) == (
        0, None, None,
    )  # fmt: skip


def test_without_samples_nothing_is_claimed():
    result = metrics.scores(np.zeros((2, 2), dtype=int))
    assert (result.overall_accuracy, result.kappa, result.macro_f1, result.mean_iou) == (None, None, None, None)


def test_rows_are_the_reference():
    matrix = metrics.confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_class_values_with_gaps_find_their_positions():
    classes = [ClassEntry(value, str(value), "#000000") for value in (0, 7, 255, 4000)]
    assert metrics.class_positions(np.array([255, 0, 4000, 7, 5, -1, 9999]), classes).tolist() == [
        2,
        0,
        3,
        1,
        -1,
        -1,
        -1,
    ]


def test_the_plain_form_is_ready_for_json():
    import json

    classes = [ClassEntry(3, "water", "#0000ff"), ClassEntry(9, "forest", "#00ff00"), ClassEntry(10, "x", "#ffffff")]
    plain = metrics.metrics_dict(metrics.scores(np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])), classes)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["values"] == [3, 9, 10] and plain["samples"] == 20
    water = plain["classes"][0]
    assert (water["name"], water["support"], water["mapped"]) == ("water", 10, 9)
    assert plain["classes"][2]["f1"] is None
