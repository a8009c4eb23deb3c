"""Lists of files as inputs: samplingrates."""

import pytest
from qgis.core import QgsProcessingException


@pytest.fixture
def statistics(tmp_path):
    paths = [tmp_path / "s 1.xml", tmp_path / "a.xml"]
    for path in paths:
        path.write_text("<GeneralStatistics/>")
    return [str(path) for path in paths]


def test_the_job_keeps_the_order_of_the_files(run, play, statistics, tmp_path):
    play("samplingrates", {"mkdir": "$output_folder"}, {"result": {}})
    outputs = run(
        "samplingrates", INPUTS=statistics, STRATEGY="constant", MODE="custom", COUNTS="700; 20",
        OUTPUT_FOLDER=str(tmp_path / "rates"),
    )  # fmt: skip
    assert outputs == {"OUTPUT_FOLDER": str(tmp_path / "rates")}
    job = play.jobs()[-1]
    assert job["statistics"] == statistics and job["rates_files"] == []
    assert (job["strategy"], job["mode"], job["count"], job["counts"]) == ("constant", "custom", 1000, [700, 20])


def test_what_is_wrong_is_named(algorithm, context, run, play, statistics, tmp_path):
    play("samplingrates", {"mkdir": "$output_folder"}, {"result": {}})
    fields = {"INPUTS": statistics, "OUTPUT_FOLDER": str(tmp_path / "rates")}
    missing = str(tmp_path / "none.xml")
    for changes in ({"INPUTS": [statistics[0], missing]}, {"RATES_FILES": [missing]}):
        ok, text = algorithm("samplingrates").checkParameterValues({**fields, **changes}, context)
        assert not ok and text == f"{next(iter(changes))} '{missing}' does not exist. Check the path."
    for changes, message in (
        ({"MODE": "custom", "COUNTS": "700, x"}, "COUNTS '700, x' is no list of numbers"),
        ({"MODE": "custom", "COUNTS": "700"}, "MODE custom needs 2 COUNTS"),
        ({"STRATEGY": "byclass"}, "needs 1 RATES_FILES; 0 are given"),
    ):
        with pytest.raises(QgsProcessingException, match=message):
            run("samplingrates", **{**fields, **changes})
    assert not play.jobs()


def test_byclass_needs_its_file(run, play, polygons_file, image, tmp_path):
    play("selectvectorsamples", {"result": {}})
    with pytest.raises(QgsProcessingException, match="STRATEGY byclass needs RATES_FILE"):
        run(
            "selectvectorsamples", INPUT=polygons_file, FIELD="class_id", RASTER=image, STRATEGY="byclass",
            OUTPUT=str(tmp_path / "p.gpkg"),
        )  # fmt: skip
