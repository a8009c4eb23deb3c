"""Class tables on their way to the engine: coloured label images, and crosswalks."""

import pytest
from deepscape.tests.qgis.layers import CLASSES
from qgis.core import QgsPalettedRasterRenderer, QgsRasterLayer


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "walk.csv"
    path.write_text("from,to\n1,2\n")
    return str(path)


def test_labels_from_colours(run, play, image, tmp_path):
    target = tmp_path / "labels.tif"
    play("labelsfromcolours", {"copy": [image, "$output"]}, {"result": {"classes": CLASSES, "unknown_pixels": 3}})
    outputs = run("labelsfromcolours", INPUT=image, NOMENCLATURE="isprs", TOLERANCE=5, OUTPUT=str(target))
    job = play.jobs()[-1]
    assert (job["tolerance"], job["unknown"], job["legend"]["nomenclature"]) == (5, "ignore", "isprs")
    assert outputs == {"OUTPUT": str(target), "UNKNOWN_PIXELS": 3}
    assert isinstance(QgsRasterLayer(str(target), "labels").renderer(), QgsPalettedRasterRenderer)


def test_a_crosswalk_reaches_every_job_that_reads_classes(
    run, play, image, points_file, polygons_file, table, tmp_path
):
    play("selectsamples", {"copy": [points_file, "$output"]})
    run("selectsamples", INPUT=image, CROSSWALK=table, OUTPUT="memory:")
    play("selectvectorsamples", {"copy": [points_file, "$output"]})
    run("selectvectorsamples", INPUT=polygons_file, RASTER=image, CROSSWALK=table, OUTPUT="memory:")
    play("extractpatches", {"mkdir": "$output"})
    run("extractpatches", INPUT=image, SAMPLES=points_file, CROSSWALK=table, OUTPUT=str(tmp_path / "patches"))
    play("assess", {"write": ["$output", "<html>"]})
    run("assess", INPUT=image, REFERENCE=image, CROSSWALK=table, ERODE=2, OUTPUT=str(tmp_path / "a.html"))
    assert [job["crosswalk"] for job in play.jobs()] == [table] * 4
    assert play.jobs()[-1]["erode"] == 2


def test_the_design_of_a_reference_reaches_the_assessment(run, play, image, polygons_file, points_file, tmp_path):
    play("assess", {"write": ["$output", "<html>"]})
    run(
        "assess", INPUT=image, REFERENCE=image, DESIGN="clusters", BLOCK_SIZE=40, PROBABILITIES=image,
        OUTPUT=str(tmp_path / "a.html"),
    )  # fmt: skip
    run(
        "assess", INPUT=image, REFERENCE_SAMPLES=points_file, FIELD="class_id", DESIGN="clusters",
        CLUSTER_FIELD="class_id", OUTPUT=str(tmp_path / "b.html"),
    )  # fmt: skip
    blocks, clusters = play.jobs()
    assert (blocks["design"], blocks["block_size"], blocks["probabilities"]["path"]) == ("clusters", 40, str(image))
    assert (clusters["cluster_field"], clusters["block_size"], clusters["probabilities"]) == ("class_id", None, None)
    assert (blocks["cluster_field"], blocks["areas"]) == ("", "")


def test_the_rest_of_the_map_is_background(run, play, image, polygons_file, tmp_path):
    play("assess", {"write": ["$output", "<html>"]})
    run("assess", INPUT=image, REFERENCE_SAMPLES=polygons_file, BACKGROUND=True, OUTPUT=str(tmp_path / "a.html"))
    run("assess", INPUT=image, REFERENCE=image, OUTPUT=str(tmp_path / "b.html"))
    with_it, without = play.jobs()
    assert (with_it["background"], with_it["field"], without["background"]) == (True, "", False)


def test_a_design_that_does_not_fit_is_refused(run, play, image, tmp_path):
    play("assess", {"write": ["$output", "<html>"]})
    with pytest.raises(Exception, match="needs BLOCK_SIZE"):
        run("assess", INPUT=image, REFERENCE=image, DESIGN="clusters", OUTPUT=str(tmp_path / "a.html"))
