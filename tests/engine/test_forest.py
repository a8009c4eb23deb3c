"""The Random Forest: node arrays that answer as scikit-learn does, and the job around them."""

import re

import numpy as np
import pytest
from deepscape.engine import modelfiles, reports
from deepscape.engine.forest import PRESETS, train_random_forest
from deepscape.engine.nodearrays import ROWS_AT_ONCE, forest_from_sklearn, forest_from_tensors
from deepscape.models.cards import read_card
from deepscape.tasks import jobs
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, DiskFull, JobCancelled
from deepscape.tests.engine import patchsets
from sklearn.ensemble import RandomForestClassifier


def fitted(rows=600, features=7, trees=15, seed=3, **options):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] ** 2 + rng.normal(0, 0.5, rows) > 0.5).astype(int) + 2 * (x[:, 2] > 1)
    return RandomForestClassifier(trees, random_state=0, **options).fit(x, y), rng


@pytest.mark.parametrize("options", [{}, {"max_depth": 1}, {"max_depth": 5, "min_samples_split": 10}])
def test_node_arrays_answer_as_scikit_learn_does(options):
    model, rng = fitted(**options)
    forest = forest_from_sklearn(model, model.classes_, 4)
    x = rng.normal(size=(ROWS_AT_ONCE + 500, 7)).astype(np.float32)
    ours, theirs = forest.predict_proba(x), model.predict_proba(x)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert np.array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))
    again = forest_from_tensors(forest.tensors(), 7, 4)
    assert np.array_equal(again.predict_proba(x[:100]), ours[:100])


def test_classes_that_the_forest_never_saw_get_nothing():
    model, rng = fitted()
    forest = forest_from_sklearn(model, np.array([0, 2, 3, 5]), 6)
    answer = forest.predict_proba(rng.normal(size=(50, 7)))
    assert answer.shape == (50, 6) and not answer[:, [1, 4]].any()
    np.testing.assert_allclose(answer.sum(axis=1), 1)


def test_no_rows_give_no_rows():
    model, _ = fitted(trees=2)
    assert forest_from_sklearn(model, model.classes_, 4).predict_proba(np.zeros((0, 7))).shape == (0, 4)


def test_a_cancel_is_noticed_while_predicting():
    model, _ = fitted(trees=3)
    context = Context()
    context.cancelled.set()
    with pytest.raises(JobCancelled):
        forest_from_sklearn(model, model.classes_, 4).predict_proba(np.zeros((9, 7)), context.check)


@pytest.mark.parametrize("features", ["pixel", "window"])
def test_the_job_writes_a_forest_that_is_applied_without_scikit_learn(tmp_path, features):
    train = patchsets.dataset(tmp_path, "train", rows=(4, 40))
    test = patchsets.dataset(tmp_path, "test", rows=(60, 90), step=5)
    report = tmp_path / "report"
    job = jobs.TrainRandomForest(
        train, str(tmp_path / "forest"), test=test, validation_share=0, features=features, trees=20, report=str(report)
    )
    result = train_random_forest(job, Context())
    assert result.accuracy_set == "test" and result.kappa > 0.95 and result.best_epoch == 0
    assert result.report == str(report) + ".html"
    assert "Random Forest" in (tmp_path / "report.html").read_text(encoding="utf-8")
    card = read_card(result.output)
    assert (card.kind, card.network) == ("forest", "random_forest")
    assert card.arguments == {"features": features, "trees": 20, "preset": "default"}
    assert card.classes == patchsets.LEGEND
    forest = modelfiles.load_model(result.output).forest
    assert forest.tree_count == 20
    values = np.array([[0, 1, 2], [20, 21, 22]], dtype=np.float32)
    rows = values if features == "pixel" else np.concatenate([values, values, np.ones_like(values)], axis=1)
    assert forest.predict_proba(rows).argmax(axis=1).tolist() == [0, 2]


def test_growing_the_trees_in_steps_changes_nothing(tmp_path):
    train = patchsets.dataset(tmp_path, "train", rows=(4, 40))
    result = train_random_forest(jobs.TrainRandomForest(train, str(tmp_path / "f"), trees=30, seed=4), Context())
    from deepscape.engine import trainingsets
    from deepscape.engine.forest import part_features

    part = trainingsets.open_plan(jobs.TrainRandomForest(train, "model", seed=4), Context()).roles.training
    rows = part_features(part, "pixel", np.zeros(3), Context())
    whole = RandomForestClassifier(30, random_state=4, **PRESETS["default"]).fit(rows, part.labels)
    forest = modelfiles.load_model(result.output).forest
    np.testing.assert_allclose(forest.predict_proba(rows), whole.predict_proba(rows), atol=1e-12)


def test_validation_numbers_of_a_forest_are_not_optimistic(tmp_path):
    train = patchsets.dataset(tmp_path, "train", rows=(4, 90))
    result = train_random_forest(jobs.TrainRandomForest(train, str(tmp_path / "f"), trees=5), Context())
    assert result.accuracy_set == "validation" and not result.metrics["optimistic"]


def test_preset_otb_has_its_depth(tmp_path):
    train = patchsets.dataset(tmp_path, "train", rows=(4, 40))
    job = jobs.TrainRandomForest(train, str(tmp_path / "f"), trees=5, preset="otb", validation_share=0)
    forest = modelfiles.load_model(train_random_forest(job, Context()).output).forest
    assert np.diff(forest.offsets).max() <= 2**6 - 1


def test_a_cancelled_job_leaves_no_file(tmp_path):
    train = patchsets.dataset(tmp_path, "train", rows=(4, 40))
    context = Context()
    context.cancelled.set()
    with pytest.raises(JobCancelled):
        train_random_forest(jobs.TrainRandomForest(train, str(tmp_path / "f")), context)
    assert not (tmp_path / "f.safetensors").exists()


def test_one_class_only_is_named(tmp_path):
    train = patchsets.dataset(tmp_path, "one", classes=(300,))
    with pytest.raises(BadInput, match="Only class 300 'town' is in the training samples"):
        train_random_forest(jobs.TrainRandomForest(train, str(tmp_path / "f")), Context())


def test_a_report_without_room_says_that_the_model_is_there(tmp_path, monkeypatch):
    def full(path, page):
        raise DiskFull("No room is left.", "Free space.")

    monkeypatch.setattr(reports, "write_page", full)
    train = patchsets.dataset(tmp_path, "train", rows=(4, 40))
    model = str(tmp_path / "f.safetensors")
    with pytest.raises(DiskFull, match=re.escape(f"Free space. The model is complete: '{model}'.")):
        train_random_forest(jobs.TrainRandomForest(train, model, report=str(tmp_path / "r.html")), Context())
    assert modelfiles.load_model(model).forest is not None
