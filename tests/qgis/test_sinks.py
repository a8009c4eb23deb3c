"""What becomes of the user's file when samples are written to it: all of them, or what was there before."""

import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from deepscape.algorithms import sinks
from deepscape.tasks.errors import BadInput, DiskFull, JobCancelled
from deepscape.tests.qgis.layers import Feedback
from qgis.core import (
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsGeometry,
    QgsProcessingException,
    QgsVectorFileWriter,
    QgsVectorLayer,
)


def engine_layer(path, fields, rows):
    """Write points as the engine does: the key steps aside for a field called fid."""
    layer = QgsVectorLayer(f"Point?crs=EPSG:4326&{fields}", "points", "memory")
    for number, row in enumerate(rows):
        feature = QgsFeature(layer.fields())
        feature.setAttributes(row)
        feature.setGeometry(QgsGeometry.fromWkt(f"POINT({number} 0.5)"))
        layer.dataProvider().addFeature(feature)
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.layerOptions = ["FID=feature_id"]
    error = QgsVectorFileWriter.writeAsVectorFormatV3(layer, str(path), QgsCoordinateTransformContext(), options)
    assert error[0] == QgsVectorFileWriter.WriterError.NoError, error
    return str(path)


@pytest.fixture
def copy(algorithm, context):
    """Returns a function that copies the engine's layer into the sink of an algorithm."""

    def start(source, target, feedback=None):
        parameters = {"OUTPUT": str(target)}
        return sinks.copy_to_sink(
            algorithm("selectsamples"), parameters, "OUTPUT", context, feedback or Feedback(), source
        )

    return start


@pytest.fixture
def many(tmp_path, qgis_app):
    """More points than the room that `little_room` leaves."""
    (tmp_path / "engine").mkdir()
    rows = [[n % 7, f"a name that takes room {n}"] for n in range(3000)]
    return engine_layer(tmp_path / "engine" / "points.gpkg", "field=class_id:integer&field=class_name:string", rows)


@pytest.fixture
def little_room():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def read(path):
    layer = QgsVectorLayer(str(path), "x", "ogr")
    assert layer.isValid()
    return [feature.attributes()[1:] for feature in layer.getFeatures()], layer.fields().names()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_the_key_of_the_polygons_does_not_become_that_of_the_points(copy, tmp_path, qgis_app, suffix):
    rows = [[8, 1, 8], [8, 1, 8], [9, 2, 9]]
    fields = "field=fid:integer&field=class_id:integer&field=originfid:integer"
    source = engine_layer(tmp_path / "engine.gpkg", fields, rows)
    layer = QgsVectorLayer(copy(source, tmp_path / f"out{suffix}"), "x", "ogr")
    assert [(f["class_id"], f["originfid"]) for f in layer.getFeatures()] == [(1, 8), (1, 8), (2, 9)]


@pytest.mark.parametrize("name", ["out.gpkg", "out.shp", "out.geojson"])
def test_no_room_leaves_nothing(copy, many, tmp_path, little_room, name):
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises((DiskFull, BadInput), match=r"cannot be written|No room is left"):
        copy(many, folder / name)
    assert list(folder.iterdir()) == []


def test_no_room_on_a_full_disk_says_so(copy, many, tmp_path, little_room, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=4096))
    target = tmp_path / "out.gpkg"
    with pytest.raises(DiskFull) as caught:
        copy(many, target)
    assert str(caught.value) == f"No room is left to write OUTPUT '{target}'. Free space or choose another folder."


def test_a_failed_run_keeps_the_earlier_file(copy, many, points_file, tmp_path, request):
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "out.gpkg"
    copy(points_file, target)
    before = target.read_bytes()
    request.getfixturevalue("little_room")
    with pytest.raises((DiskFull, BadInput)):
        copy(many, target)
    assert target.read_bytes() == before and [path.name for path in folder.iterdir()] == ["out.gpkg"]


def test_a_cancelled_run_keeps_the_earlier_file(copy, many, points_file, tmp_path):
    target = tmp_path / "out.gpkg"
    copy(points_file, target)
    before = target.read_bytes()
    feedback = Feedback()
    feedback.cancel()
    with pytest.raises(JobCancelled):
        copy(many, target, feedback)
    assert target.read_bytes() == before


def test_a_second_run_replaces_the_first(copy, many, points_file, tmp_path):
    target = tmp_path / "out.gpkg"
    copy(many, target)
    copy(points_file, target)
    rows, names = read(target)
    assert rows == [[1, "Water", "train"], [7, "Forest", "test"]] and names[0] == "fid"
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.gpkg"]


def test_a_file_that_a_virtual_layer_reads_is_not_overwritten(
    algorithm, context, feedback, play, polygons_file, image, tmp_path
):
    before = Path(polygons_file).read_bytes()
    layer = tmp_path / "polygons.vrt"
    layer.write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="{Path(polygons_file).stem}"><SrcDataSource relativeToVRT="1">'
        f"{Path(polygons_file).name}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )
    values = {"INPUT": str(layer), "FIELD": "class_id", "RASTER": image, "OUTPUT": polygons_file}
    with pytest.raises(QgsProcessingException) as caught:
        algorithm("selectvectorsamples").run(values, context, feedback, {}, False)
    assert str(caught.value) == (
        f"OUTPUT '{polygons_file}' is also an input and would be overwritten: the VRT '{layer}' reads it. "
        "Choose another name."
    )
    assert play.jobs() == [] and Path(polygons_file).read_bytes() == before


def test_a_file_that_a_virtual_raster_reads_is_not_overwritten(
    algorithm, context, feedback, play, polygons_file, image, tmp_path
):
    scene = tmp_path / "scene.gpkg"  # of pixels, which GeoPackages hold too
    shutil.copy(image, scene)
    mosaic = tmp_path / "mosaic.vrt"
    mosaic.write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="3"><SRS>EPSG:32721</SRS><GeoTransform>0,1,0,3,0,-1</GeoTransform>'
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename relativeToVRT="1">scene.gpkg'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    values = {"INPUT": polygons_file, "FIELD": "class_id", "RASTER": str(mosaic), "OUTPUT": str(scene)}
    with pytest.raises(QgsProcessingException, match=r"OUTPUT '.*' is also an input .*: the VRT '.*' reads it\."):
        algorithm("selectvectorsamples").run(values, context, feedback, {}, False)
    assert play.jobs() == [] and scene.read_bytes() == Path(image).read_bytes()


def test_a_folder_that_cannot_be_written_is_named_before_the_engine_works(
    algorithm, context, feedback, play, polygons_file, image, tmp_path, monkeypatch
):
    def refuse(dir, prefix):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("deepscape.tasks.jobfiles.tempfile.TemporaryFile", refuse)
    values = {"INPUT": polygons_file, "FIELD": "class_id", "RASTER": image, "OUTPUT": str(tmp_path / "s.gpkg")}
    with pytest.raises(QgsProcessingException) as caught:
        algorithm("selectvectorsamples").run(values, context, feedback, {}, False)
    assert str(caught.value) == (
        f"The folder '{tmp_path}' of OUTPUT cannot be written: Read-only file system. "
        "Choose a folder that you may write to."
    )
    assert play.jobs() == [] and not Path(tmp_path / "s.gpkg").exists()
