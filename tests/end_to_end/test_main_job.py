"""The main job through qgis_process with the real engine: from polygons to a map with legend and accuracy."""

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest
from deepscape.tasks.environment import find_engine

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.real_worker, pytest.mark.slow]

NAMES = {1: "village", 2: "forest", 3: "water", 4: "dryout"}


def test_samples(chain):
    outputs = chain["samples"].outputs
    counts = json.loads(outputs["COUNTS"])
    assert counts == {"1": 120, "2": 120, "3": 120, "4": 108}
    assert int(outputs["SAMPLE_COUNT"]) == 468
    with sqlite3.connect(chain["folder"] / "samples.gpkg") as database:
        rows = database.execute("SELECT DISTINCT class_id, class_name FROM samples ORDER BY 1").fetchall()
    assert dict(rows) == NAMES


def test_patches(chain):
    outputs = chain["patches"].outputs
    assert (int(outputs["ACCEPTED"]), int(outputs["REJECTED"])) == (468, 0)
    described = json.loads((chain["folder"] / "patches" / "dataset.json").read_text(encoding="utf-8"))
    assert {entry["value"]: entry["name"] for entry in described["classes"]} == NAMES


def test_colours_travel_from_the_legend_to_the_map(chain, data):
    wanted = {
        entry["value"]: entry["colour"].lower()
        for entry in json.loads((data / "legend.json").read_text(encoding="utf-8"))["classes"]
    }
    described = json.loads((chain["folder"] / "patches" / "dataset.json").read_text(encoding="utf-8"))
    assert {entry["value"]: entry["colour"] for entry in described["classes"]} == wanted
    style = (chain["folder"] / "map.qml").read_text(encoding="utf-8")
    assert all(f'color="{colour}"' in style for colour in wanted.values())


def test_training(chain):
    outputs = chain["train"].outputs
    assert float(outputs["KAPPA"]) > 0.8
    assert outputs["ACCURACY_SET"] == "validation"
    assert int(outputs["BEST_EPOCH"]) == 8
    assert (chain["folder"] / "report.html").stat().st_size > 2000


def test_map(chain):
    outputs = chain["map"].outputs
    assert int(outputs["PIXELS"]) == 237 * 247
    areas = json.loads(outputs["CLASS_AREAS"])
    assert {value["name"] for value in areas.values()} == set(NAMES.values())
    assert sum(value["pixels"] for value in areas.values()) == 237 * 247
    for name in ("map.qml", "map.tif.aux.xml", "confidence.qml", "map.job.json"):
        assert (chain["folder"] / name).is_file()


def test_assessment(chain):
    outputs = chain["assess"].outputs
    assert float(outputs["KAPPA"]) > 0.8
    assert int(outputs["SAMPLE_COUNT"]) > 500
    assert (chain["folder"] / "matrix.csv").read_text().startswith("#Reference labels (rows):1,2,3,4")


def test_no_worker_stays_behind(chain):
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in listed.splitlines() if "run_worker.py" in line and str(chain["folder"]) in line]


def test_the_job_file_repeats_the_map(chain):
    folder = chain["folder"]
    before = (folder / "map.tif").read_bytes()
    (folder / "map.tif").unlink()
    command = [find_engine("").python, str(ROOT / "tasks" / "run_worker.py"), "run", str(folder / "map.job.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (folder / "map.tif").read_bytes() == before


def test_random_forest_maps_too(chain, qgis_process, data, tmp_path):
    trained = qgis_process(
        "trainrandomforest", TRAINING=chain["folder"] / "patches", FEATURES="window", OUTPUT=tmp_path / "forest"
    )
    assert trained.code == 0, trained.text
    assert trained.outputs["OUTPUT"] == str(tmp_path / "forest.safetensors")
    mapped = qgis_process(
        "classify", INPUT=data / "sen2.tif", MODEL=tmp_path / "forest.safetensors", BOX="10:20:60:40",
        OUTPUT=tmp_path / "part.tif",
    )  # fmt: skip
    assert mapped.code == 0, mapped.text
    assert int(mapped.outputs["PIXELS"]) == 60 * 40


def test_split_samples(chain, qgis_process, tmp_path):
    done = qgis_process(
        "splitsamples", INPUT=chain["folder"] / "samples.gpkg", FIELD="class_id", OUTPUT=tmp_path / "split.gpkg",
        TRAIN_SHARE=0.5, VALIDATION_SHARE=0.5,
    )  # fmt: skip
    assert done.code == 0, done.text
    with sqlite3.connect(tmp_path / "split.gpkg") as database:
        parts = {row[0] for row in database.execute("SELECT DISTINCT split FROM split")}
        apart = database.execute("SELECT max(n) FROM (SELECT count(DISTINCT split) n FROM split GROUP BY originfid)")
        assert apart.fetchone() == (1,)
    assert parts == {"train", "validation"}


def test_samples_from_the_map(chain, qgis_process, tmp_path):
    done = qgis_process("selectsamples", INPUT=chain["folder"] / "map.tif", COUNT=10, OUTPUT=tmp_path / "points.gpkg")
    assert done.code == 0, done.text
    assert json.loads(done.outputs["COUNTS"]) == {"1": 10, "2": 10, "3": 10, "4": 10}
    # The names came from the map's own style.
    with sqlite3.connect(tmp_path / "points.gpkg") as database:
        assert dict(database.execute("SELECT DISTINCT class_id, class_name FROM points")) == NAMES


def test_normalise(data, qgis_process, tmp_path):
    done = qgis_process("normalise", INPUT=data / "sen2.tif", BANDS="4;3;2", METHOD="max", OUTPUT=tmp_path / "n.tif")
    assert done.code == 0, done.text
    assert (tmp_path / "n.tif").is_file()


def test_model_card_without_the_engine(chain, qgis_process, tmp_path):
    done = qgis_process(
        "modelinfo", MODEL=chain["folder"] / "model.safetensors", OUTPUT=tmp_path / "card.html",
        extra_environ={"DEEPSCAPE_ENGINE_PYTHON": "", "DEEPSCAPE_HOME": str(tmp_path / "empty")},
    )  # fmt: skip
    assert done.code == 0, done.text
    assert done.outputs["NETWORK"] == "compact_cnn"
    assert [entry["name"] for entry in json.loads(done.outputs["CLASSES"])] == list(NAMES.values())
    assert "<h1>model.safetensors</h1>" in (tmp_path / "card.html").read_text(encoding="utf-8")


def test_engine_status(qgis_process):
    done = qgis_process("enginestatus")
    assert done.code == 0, done.text
    assert done.outputs["READY"] == "true"


def test_the_workflow(data, qgis_process, tmp_path):
    done = qgis_process(
        "landcoverfrompolygons",
        IMAGE=data / "sen2.tif",
        POLYGONS=data / "train_polygons.gpkg",
        FIELD="class_name",
        REFERENCE=data / "validation_polygons.gpkg",
        REFERENCE_FIELD="class_name",
        PATCH_SIZE=5,
        EPOCHS=3,
        SAMPLES_PER_CLASS=60,
        **{
            "map:OUTPUT": tmp_path / "map.tif",
            "map:CONFIDENCE": tmp_path / "confidence.tif",
            "train:OUTPUT": tmp_path / "model.safetensors",
            "assess:OUTPUT": tmp_path / "accuracy.html",
        },
    )
    assert done.code == 0, done.text
    assert done.outputs["map:OUTPUT"] == str(tmp_path / "map.tif")
    for name in ("map.tif", "map.qml", "confidence.tif", "model.safetensors", "accuracy.html"):
        assert (tmp_path / name).is_file()
    report = (tmp_path / "accuracy.html").read_text(encoding="utf-8")
    assert "12 clusters, bootstrapped" in report and "95 %:" in report


def test_relative_paths(chain, data, qgis_process):
    done = qgis_process(
        "classify", folder=chain["folder"], INPUT=data / "sen2.tif", MODEL="model.safetensors", OUTPUT="part",
        BOX="0:0:20:10",
    )  # fmt: skip
    assert done.code == 0, done.text
    assert done.outputs["OUTPUT"] == str(chain["folder"] / "part.tif")
