"""Several scenes in one training: what the parameters say reaches the job."""

import pytest
from qgis.core import QgsProcessingException

TRAINERS = ["trainclassifier", "trainrandomforest"]


@pytest.fixture
def others(tmp_path):
    """Two patch datasets: one named by its folder, one by its description."""
    folders = [tmp_path / "second", tmp_path / "third"]
    for folder in folders:
        folder.mkdir()
        (folder / "dataset.json").write_text("{}")
    return [str(folders[0]), str(folders[1] / "dataset.json")]


def told(run, play, name, tmp_path, **parameters):
    """Run a trainer; returns the job that the worker was given."""
    (tmp_path / "first").mkdir(exist_ok=True)
    play(name, {"write": ["$output", "weights"]}, {"result": {"accuracy_set": "test"}})
    run(name, TRAINING=str(tmp_path / "first"), OUTPUT=str(tmp_path / "model"), **parameters)
    return play.jobs()[-1]


@pytest.mark.parametrize("name", TRAINERS)
def test_scenes_reach_the_job(run, play, tmp_path, others, name):
    job = told(run, play, name, tmp_path, MORE_DATASETS=others, SPLIT_BY="scene", TEST_SCENES=" long beach, ash,")
    assert job["more_datasets"] == others
    assert (job["split_by"], job["test_scenes"], job["cross_validation"]) == ("scene", ["long beach", "ash"], "none")
    job = told(run, play, name, tmp_path, MORE_DATASETS=others, CROSS_VALIDATION="scene")
    assert (job["split_by"], job["test_scenes"], job["cross_validation"]) == ("own", [], "scene")


@pytest.mark.parametrize("name", TRAINERS)
def test_what_was_saved_before_there_were_scenes_runs_as_it_did(run, play, tmp_path, name):
    job = told(run, play, name, tmp_path)
    assert (job["more_datasets"], job["split_by"], job["test_scenes"], job["cross_validation"]) == (
        [], "own", [], "none",
    )  # fmt: skip


def test_what_is_wrong_is_named(algorithm, context, run, play, tmp_path, others):
    missing = str(tmp_path / "none")
    fields = {"TRAINING": str(tmp_path), "OUTPUT": str(tmp_path / "m"), "MORE_DATASETS": [others[0], missing]}
    ok, text = algorithm("trainclassifier").checkParameterValues(fields, context)
    assert not ok and text == f"MORE_DATASETS '{missing}' does not exist. Check the path."
    with pytest.raises(QgsProcessingException, match="leaves every scene out in turn, but TEST_SCENES"):
        told(run, play, "trainclassifier", tmp_path, CROSS_VALIDATION="scene", TEST_SCENES="ash")
