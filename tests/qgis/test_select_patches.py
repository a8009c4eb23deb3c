"""Selecting patches in QGIS: what the engine is asked for, and the split on the canvas."""

import pytest
from deepscape.tests.qgis.layers import memory_polygons
from qgis.core import QgsProcessingException, QgsProject


@pytest.fixture
def selecting(play, polygons_file):
    """The engine's answer: polygons, as footprints are."""
    play("selectpatches", {"copy": [polygons_file, "$output"]})


def test_defaults_are_the_published_ones(selecting, run, play, image):
    run("selectpatches", INPUT=image, OUTPUT="memory:")
    job = play.jobs()[-1]
    assert job["source"]["path"] == image and job["source"]["nodata"] is None
    wanted = {
        "mode": "grid", "count": 1200, "min_labelled": 0.1, "patch_size": 256, "step": 256, "offset": 0,
        "labels": None, "split": "none", "block_size": None, "guard": None, "strata": None, "train_share": 0.6,
        "validation_share": 0.2, "seed": 0, "unit": "pixels",
    }  # fmt: skip
    assert {name: job[name] for name in wanted} == wanted


def test_what_is_set_reaches_the_engine(selecting, run, play, image):
    strata = memory_polygons()
    QgsProject.instance().addMapLayer(strata)
    run(
        "selectpatches", INPUT=image, MODE="random", COUNT=7, PATCH_SIZE=3, STEP=2, OFFSET=-1, LABELS=image,
        MIN_LABELLED=0.5, SPLIT="strata", STRATA=strata.id(), UNIT="map", BLOCK_SIZE=4.5, GUARD=0, TRAIN_SHARE=0.5,
        VALIDATION_SHARE=0.5, NODATA=0, SEED=9, OUTPUT="memory:",
    )  # fmt: skip
    job = play.jobs()[-1]
    assert (job["mode"], job["count"], job["patch_size"], job["step"], job["offset"]) == ("random", 7, 3, 2, -1)
    assert (job["split"], job["block_size"], job["guard"], job["seed"]) == ("strata", 4.5, 0, 9)
    assert (
        job["unit"] == "map"
        and job["source"]["nodata"] == 0
        and job["labels"]["path"] == image
        and job["min_labelled"] == 0.5
    )
    assert job["strata"]["path"].endswith("inputs.gpkg") and job["strata"]["layer"] == "strata"


def test_footprints_show_their_part(selecting, run, image, context):
    outputs = run("selectpatches", INPUT=image, SPLIT="blocks", OUTPUT="memory:")
    renderer = context.temporaryLayerStore().mapLayer(outputs["OUTPUT"]).renderer()
    assert renderer.classAttribute() == "split"
    assert [category.value() for category in renderer.categories()] == ["train", "validation", "test", ""]


def test_a_split_that_lacks_its_layer(selecting, algorithm, image, context, feedback):
    with pytest.raises(QgsProcessingException, match=r"SPLIT balanced needs LABELS\. Give a raster of classes"):
        algorithm("selectpatches").run(
            {"INPUT": image, "SPLIT": "balanced", "OUTPUT": "memory:"}, context, feedback, {}, False
        )
