"""Splitting samples in QGIS: what the engine is asked for, and folds on the canvas."""

import pytest
from deepscape.algorithms import styling
from qgis.core import QgsFeature, QgsVectorLayer


@pytest.fixture
def splitting(play, points_file):
    """The engine's answer: the samples as they were."""
    play("splitsamples", {"copy": [points_file, "$output"]})


def test_defaults_are_the_published_ones(splitting, run, play, points_file):
    run("splitsamples", INPUT=points_file, FIELD="class_id", OUTPUT="memory:")
    job = play.jobs()[-1]
    wanted = {
        "method": "auto", "raster": None, "block_size": None, "guard": None, "train_share": 0.6,
        "validation_share": 0.2, "seed": 0, "column": "", "unit": "pixels", "folds": 0, "near": "drop",
    }  # fmt: skip
    assert {name: job[name] for name in wanted} == wanted


def test_what_is_set_reaches_the_engine(splitting, run, play, points_file, image):
    run(
        "splitsamples", INPUT=points_file, FIELD="class_id", METHOD="column", COLUMN="class_id", UNIT="metres",
        BLOCK_SIZE=250.5, GUARD=30, NEAR="mark", FOLDS=4, RASTER=image, SEED=7, OUTPUT="memory:",
    )  # fmt: skip
    job = play.jobs()[-1]
    assert (job["method"], job["column"], job["unit"], job["near"]) == ("column", "class_id", "metres", "mark")
    assert (job["block_size"], job["guard"], job["folds"], job["seed"]) == (250.5, 30, 4, 7)
    assert job["raster"]["path"] == image


def test_folds_are_painted_one_by_one(qgis_app):
    layer = QgsVectorLayer("Point?field=fold:integer", "folds", "memory")
    for fold in (3, 1, 2, 1):
        feature = QgsFeature(layer.fields())
        feature.setAttribute("fold", fold)
        layer.dataProvider().addFeature(feature)
    styling.by_fold(layer)
    shown = [(c.value(), c.label(), c.symbol().color().name()) for c in layer.renderer().categories()]
    assert layer.renderer().classAttribute() == "fold"
    assert [entry[:2] for entry in shown] == [(1, "Fold 1"), (2, "Fold 2"), (3, "Fold 3")]
    assert len({colour for _, _, colour in shown}) == 3
