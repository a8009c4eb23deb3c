"""Workflows that answer a question in one job: what they ask of the engine, and what they give back."""

import pytest
from deepscape.algorithms import compat
from qgis.core import QgsProcessingException


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "Patches é"
    folder.mkdir()
    return str(folder)


def test_is_my_accuracy_real(run, play, dataset, tmp_path):
    kappas = {"random_kappa": 0.98, "polygon_kappa": 0.9, "block_kappa": None}
    play("ismyaccuracyreal", {"write": ["$report", "<html>"]}, {"result": kappas})
    report = str(tmp_path / "real.html")
    outputs = run("ismyaccuracyreal", TRAINING=dataset, NETWORK="random_forest", REPORT=report)
    assert outputs == {"REPORT": report, "RANDOM_KAPPA": 0.98, "POLYGON_KAPPA": 0.9, "BLOCK_KAPPA": None}
    job = play.jobs()[-1]
    assert (job["training"], job["network"], job["epochs"]) == (dataset, "random_forest", 30)
    assert (job["seeds"], job["test_share"], job["device_choice"]) == (3, 0.3, "auto")
    with pytest.raises(QgsProcessingException, match="TEST_SHARE is 0, which leaves one part empty"):
        run("ismyaccuracyreal", TRAINING=dataset, TEST_SHARE=0, REPORT=report)


def test_only_layers_of_points_are_offered_where_patches_of_several_sizes_lie_around_points(algorithm):
    assert algorithm("doescontexthelp").parameterDefinition("SAMPLES").dataTypes() == [compat.SOURCE_POINT]


def test_does_context_help(run, play, image, points_file, tmp_path):
    play("doescontexthelp", {"mkdir": "$output_folder"}, {"write": ["$report", "<html>"]}, {"result": {}})
    target, report = str(tmp_path / "maps é"), str(tmp_path / "context.html")
    values = {"INPUT": image, "SAMPLES": points_file, "OUTPUT_FOLDER": target, "REPORT": report}
    assert run("doescontexthelp", **values) == {"OUTPUT_FOLDER": target, "REPORT": report}
    job = play.jobs()[-1]
    assert (job["source"]["path"], job["samples"]["path"], job["field"]) == (image, points_file, "class_id")
    assert (job["sizes"], job["seeds"], job["extent"]) == ([1, 5, 9, 16], 3, None)
    run("doescontexthelp", **values, SIZES="9; 5", EXPRESSIONS="B1 / 2", EXTENT="0,2,0,3 [EPSG:32721]")
    job = play.jobs()[-1]
    assert job["sizes"] == [9, 5] and job["source"]["expressions"] == "B1 / 2" and job["extent"]["xmax"] == 2
    for sizes, message in (("1, x", "SIZES holds 'x', which is no whole number"), ("1, 2", "SIZES holds 2, which no")):
        with pytest.raises(QgsProcessingException, match=message):
            run("doescontexthelp", **values, SIZES=sizes)
