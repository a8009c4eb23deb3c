"""Extracting patches in QGIS: labels, further sources and computed bands reach the engine."""

import pytest


@pytest.fixture
def extracting(play):
    """The engine's answer: an empty folder."""
    play("extractpatches", {"mkdir": "$output"}, {"result": {"accepted": 2, "shared_patches": 1}})


def test_the_class_field_is_needed_no_longer_where_labels_are_given(
    extracting, run, play, image, polygons_file, tmp_path
):
    outputs = run(
        "extractpatches", INPUT=image, SAMPLES=polygons_file, LABEL_FEATURES=polygons_file, LABEL_FIELD="class_id",
        PATCH_SIZE=4, OUTPUT=str(tmp_path / "patches"),
    )  # fmt: skip
    job = play.jobs()[-1]
    assert job["label_features"]["path"] == polygons_file and job["label_field"] == "class_id"
    assert job["labels"] is None and job["field"] == "class_id" and job["nodata_rule"] == "auto"
    assert job["more_sources"] == [] and job["more_patch_sizes"] == []
    assert outputs["SHARED_PATCHES"] == 1


def test_further_sources_and_a_label_raster_reach_the_engine(extracting, run, play, image, points_file, tmp_path):
    run(
        "extractpatches", INPUT=image, SAMPLES=points_file, LABELS=image, EXPRESSIONS="X = b1 * 2", INPUT2=image,
        STACK2=[image], BANDS2=[1], NODATA2=0, INPUT4=image, PATCH_SIZE4=33, OUTPUT=str(tmp_path / "patches"),
    )  # fmt: skip
    job = play.jobs()[-1]
    assert job["labels"]["path"] == image and job["source"]["expressions"] == "X = b1 * 2"
    first, second = job["more_sources"]
    assert (first["path"], first["stack"], first["bands"], first["nodata"]) == (image, [image], [1], 0)
    assert (second["path"], second["nodata"]) == (image, None)
    assert job["more_patch_sizes"] == [0, 33]
