"""QGIS without a window, the plugin's provider, and a worker that plays what a test has written down."""

import json
import sys
import zipfile
from pathlib import Path

import pytest
from deepscape.tasks import client
from deepscape.tests.qgis.layers import Feedback, memory_polygons, save
from qgis.core import (
    Qgis,
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsGeometry,
    QgsProcessingContext,
    QgsProject,
    QgsRasterFileWriter,
    QgsRectangle,
    QgsVectorLayer,
)

FAKE = Path(__file__).with_name("fake_worker.py")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No test touches the user's own engine, models or logs."""
    monkeypatch.setenv("DEEPSCAPE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def plugin(qgis_app, qgis_processing):
    from deepscape.plugin import DeepscapePlugin

    plugin = DeepscapePlugin(None)
    plugin.initProcessing()
    yield plugin
    plugin.unload()


@pytest.fixture
def algorithm(plugin):
    """Returns a function that gives an algorithm by its name."""
    return lambda name: QgsApplication.processingRegistry().createAlgorithmById(f"deepscape:{name}")


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Returns a function that sets what the fake worker does with a kind of job; `play.jobs()` tells what it got."""
    record = tmp_path / "jobs.jsonl"
    script = tmp_path / "play.json"
    monkeypatch.setenv("DEEPSCAPE_FAKE_WORKER", str(script))
    monkeypatch.setenv("DEEPSCAPE_ENGINE_PYTHON", sys.executable)
    monkeypatch.setattr(client.pool(), "script", str(FAKE))
    client.shutdown()
    steps = {"record": str(record)}

    def write(kind, *todo):
        steps[kind] = list(todo)
        script.write_text(json.dumps(steps))

    def jobs():
        return [json.loads(line)["job"] for line in record.read_text().splitlines()] if record.exists() else []

    write.jobs = jobs
    script.write_text(json.dumps(steps))
    yield write
    client.shutdown()


@pytest.fixture
def feedback():
    return Feedback()


@pytest.fixture
def context():
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    yield context
    # Python may keep the context until QGIS has ended, and files cannot be closed after that.
    context.temporaryLayerStore().removeAllMapLayers()
    QgsProject.instance().clear()


@pytest.fixture
def run(algorithm, context, feedback):
    """Returns a function that runs an algorithm through its whole life, on a clone, as QGIS does."""

    def start(name, **parameters):
        outputs, ok = algorithm(name).run(parameters, context, feedback, {}, False)
        assert ok
        return outputs

    return start


@pytest.fixture
def polygons_file(tmp_path, qgis_app):
    return save(memory_polygons(), tmp_path / "labels.gpkg")


@pytest.fixture
def points_file(tmp_path, qgis_app):
    """What the engine writes for sample points."""
    fields = "field=class_id:integer&field=class_name:string&field=split:string"
    layer = QgsVectorLayer(f"Point?crs=EPSG:4326&{fields}", "points", "memory")
    for value, name, split, x in ((1, "Water", "train", 0.2), (7, "Forest", "test", 1.2)):
        feature = QgsFeature(layer.fields())
        feature.setAttributes([value, name, split])
        feature.setGeometry(QgsGeometry.fromWkt(f"POINT({x} 0.5)"))
        layer.dataProvider().addFeature(feature)
    return save(layer, tmp_path / "engine_points.gpkg")


@pytest.fixture
def zipped(image, tmp_path):
    """The name by which GDAL opens a copy of the image in a zip file, which holds a text, too."""
    with zipfile.ZipFile(tmp_path / "scenes.zip", "w") as archive:
        archive.write(image, "scene.tif")
        archive.writestr("notes.txt", "no raster")
    return f"/vsizip/{tmp_path / 'scenes.zip'}/scene.tif"


@pytest.fixture
def image(tmp_path, qgis_app):
    """A raster of 4 x 3 pixels of 1 byte."""
    path = tmp_path / "scène 1.tif"
    writer = QgsRasterFileWriter(str(path))
    provider = writer.createOneBandRaster(
        Qgis.DataType.Byte, 4, 3, QgsRectangle(0, 0, 4, 3), QgsCoordinateReferenceSystem("EPSG:32721")
    )
    assert provider is not None and provider.isValid()
    provider.setEditable(False)
    return str(path)
