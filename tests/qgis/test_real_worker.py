"""A few runs with the real engine inside QGIS: layers that only QGIS has, and a window that stays fluid."""

import json
import shutil
import statistics
import time
from pathlib import Path

import pytest
from deepscape.tasks import client
from deepscape.tasks.environment import find_engine
from deepscape.tests.qgis.layers import Feedback, longest_gap
from qgis.core import (
    QgsApplication,
    QgsCategorizedSymbolRenderer,
    QgsFeatureRequest,
    QgsFillSymbol,
    QgsProcessingAlgRunnerTask,
    QgsProject,
    QgsRendererCategory,
    QgsVectorLayer,
)

pytestmark = [pytest.mark.real_worker, pytest.mark.slow]

DATA = Path(__file__).resolve().parents[2] / "demo" / "data"


@pytest.fixture(scope="module")
def engine_python():
    """Found before a test hides the user's folders."""
    return find_engine("").python


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    for name in ("sen2.tif", "train_polygons.gpkg"):
        shutil.copy(DATA / name, folder)
    return folder


@pytest.fixture(autouse=True)
def engine(engine_python, home, monkeypatch):
    monkeypatch.setenv("DEEPSCAPE_ENGINE_PYTHON", engine_python)
    yield
    client.shutdown()


@pytest.fixture
def polygons(scene, context):
    """The training polygons in memory, with a style and an edit that is not saved: the forest is called 40."""
    source = QgsVectorLayer(str(scene / "train_polygons.gpkg"), "x", "ogr")
    layer = source.materialize(QgsFeatureRequest())
    layer.setName("My polygons")
    symbols = {3: "#0000ff", 40: "#00ff00"}
    layer.setRenderer(
        QgsCategorizedSymbolRenderer(
            "class_id",
            [
                QgsRendererCategory(value, QgsFillSymbol.createSimple({"color": colour}), f"Kind {value}")
                for value, colour in symbols.items()
            ],
        )
    )
    QgsProject.instance().addMapLayer(layer)
    layer.startEditing()
    field = layer.fields().indexOf("class_id")
    for feature in list(layer.getFeatures('"class_id" = 2')):
        layer.changeAttributeValue(feature.id(), field, 40)
    yield layer
    layer.rollBack()


def test_memory_layer_with_unsaved_edits(run, polygons, scene, context, tmp_path):
    outputs = run(
        "selectvectorsamples", INPUT=polygons.id(), FIELD="class_id", RASTER=str(scene / "sen2.tif"), COUNT=50,
        OUTPUT="memory:",
    )  # fmt: skip
    assert json.loads(outputs["COUNTS"]) == {"1": 50, "3": 50, "4": 50, "40": 50}
    samples = context.temporaryLayerStore().mapLayer(outputs["OUTPUT"])
    shown = {c.value(): (c.label(), c.symbol().color().name()) for c in samples.renderer().categories()}
    assert shown[40] == ("Kind 40", "#00ff00") and shown[3] == ("Kind 3", "#0000ff")
    ids = {feature["originfid"] for feature in samples.getFeatures()}
    assert ids <= {feature.id() for feature in polygons.getFeatures()} and len(ids) > 4
    patches = run(
        "extractpatches", INPUT=str(scene / "sen2.tif"), SAMPLES=outputs["OUTPUT"], FIELD="class_id", PATCH_SIZE=5,
        EDGE="reflect", OUTPUT=str(tmp_path / "patches"),
    )  # fmt: skip
    assert patches["ACCEPTED"] == 200
    described = json.loads((tmp_path / "patches" / "dataset.json").read_text(encoding="utf-8"))
    table = {entry["value"]: (entry["name"], entry["colour"]) for entry in described["classes"]}
    assert table[40] == ("Kind 40", "#00ff00")


def test_the_event_loop_is_never_blocked_while_a_training_runs(run, algorithm, scene, context, tmp_path):
    image = str(scene / "sen2.tif")
    run(
        "selectvectorsamples", INPUT=str(scene / "train_polygons.gpkg"), FIELD="class_id", RASTER=image, COUNT=60,
        OUTPUT=str(tmp_path / "samples.gpkg"),
    )  # fmt: skip
    run(
        "extractpatches", INPUT=image, SAMPLES=str(tmp_path / "samples.gpkg"), FIELD="class_id", PATCH_SIZE=5,
        OUTPUT=str(tmp_path / "patches"),
    )  # fmt: skip
    train, feedback, done = algorithm("trainclassifier"), Feedback(), []
    values = {"TRAINING": str(tmp_path / "patches"), "EPOCHS": 10, "OUTPUT": str(tmp_path / "m.safetensors")}
    task = QgsProcessingAlgRunnerTask(train, values, context, feedback)
    task.executed.connect(lambda ok, results: done.append((ok, results)))
    QgsApplication.taskManager().addTask(task)
    assert longest_gap(lambda: bool(done), seconds=120) < 0.05
    ((ok, results),) = done
    assert ok and results["OVERALL_ACCURACY"] > 0.5


class FirstWord(Feedback):
    """Notes when it is first told of progress."""

    def __init__(self):
        super().__init__()
        self.at = 0.0

    def setProgressText(self, text):
        super().setProgressText(text)
        self.at = self.at or time.perf_counter()


def test_a_warm_job_speaks_within_half_a_second(run, algorithm, scene, context, tmp_path):
    """From the start of the algorithm to its first progress message: the median of ten maps of the demo scene."""
    image, samples, model = str(scene / "sen2.tif"), str(tmp_path / "samples.gpkg"), str(tmp_path / "m.safetensors")
    polygons = str(scene / "train_polygons.gpkg")
    run("selectvectorsamples", INPUT=polygons, RASTER=image, COUNT=30, OUTPUT=samples)
    run("extractpatches", INPUT=image, SAMPLES=samples, PATCH_SIZE=7, EDGE="reflect", OUTPUT=str(tmp_path / "patches"))
    run("trainclassifier", TRAINING=str(tmp_path / "patches"), EPOCHS=1, OUTPUT=model)
    waits = []
    for number in range(11):
        values = {"INPUT": image, "MODEL": model, "CONTINUE": True, "OUTPUT": str(tmp_path / f"map{number}.tif")}
        feedback, begun = FirstWord(), time.perf_counter()
        _outputs, ok = algorithm("classify").run(values, context, feedback, {}, False)
        assert ok and feedback.at
        waits.append(feedback.at - begun)
    print("seconds to the first message:", " ".join(f"{wait:.3f}" for wait in waits))
    # The first one meets a worker that has not loaded what mapping needs.
    assert statistics.median(waits[1:]) < 0.5
