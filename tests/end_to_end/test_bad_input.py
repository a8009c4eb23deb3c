"""Bad input: qgis_process ends with 1 and one clear sentence, and leaves nothing half-written.

Beside it, odd input that must work.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time

import numpy as np
import pytest
from deepscape.tests.end_to_end.conftest import PROGRAM

pytestmark = [pytest.mark.real_worker, pytest.mark.slow]


def check(done, sentence, folder=None):
    assert done.code == 1, done.text
    assert " ".join(done.text.split()).count(sentence) == 1, done.text
    if folder is not None:
        assert [path.name for path in folder.iterdir()] == []


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def sampling(qgis_process, data, out):
    """Returns a function that samples the training polygons, with some parameters changed."""

    def start(**changes):
        good = {
            "INPUT": data / "train_polygons.gpkg",
            "FIELD": "class_id",
            "RASTER": data / "sen2.tif",
            "OUTPUT": out / "samples.gpkg",
        }
        return qgis_process("selectvectorsamples", **{**good, **changes})

    return start


def test_wrong_enum_value(sampling, out):
    check(sampling(STRATEGY="most"), "STRATEGY 'most' is not a valid choice. Valid choices: upto, smallest", out)


def test_wrong_field(sampling, out):
    check(sampling(FIELD="klass"), "has no field 'klass'. Its fields are: ", out)


def test_missing_file(sampling, out):
    check(sampling(INPUT="/no/polygons.gpkg"), "INPUT '/no/polygons.gpkg' does not exist.", out)


def test_missing_folder(sampling, out, tmp_path):
    check(sampling(OUTPUT=tmp_path / "no" / "samples.gpkg"), "of OUTPUT does not exist. Create it", out)


def test_wrong_class_list(sampling, out):
    check(sampling(CLASSES="1,two"), "CLASSES holds 'two', which is no whole number.", out)


def test_empty_layer(sampling, out, data, tmp_path):
    empty = tmp_path / "empty.gpkg"
    shutil.copy(data / "train_polygons.gpkg", empty)
    with sqlite3.connect(empty) as database:
        (table,) = database.execute("SELECT table_name FROM gpkg_contents").fetchone()
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{trigger}"')
        database.execute(f'DELETE FROM "{table}"')
        database.execute("UPDATE gpkg_ogr_contents SET feature_count = 0")
    check(sampling(INPUT=empty), "is empty.", out)


def test_engine_not_set_up(sampling, out, qgis_process, data, tmp_path):
    done = qgis_process(
        "selectvectorsamples", INPUT=data / "train_polygons.gpkg", FIELD="class_id", RASTER=data / "sen2.tif",
        OUTPUT=out / "samples.gpkg",
        extra_environ={"DEEPSCAPE_ENGINE_PYTHON": "", "DEEPSCAPE_HOME": str(tmp_path / "empty")},
    )  # fmt: skip
    check(done, "The engine is not set up. Run 'Set up the engine'", out)


def test_corrupt_model(qgis_process, data, tmp_path, out):
    model = tmp_path / "broken.safetensors"
    model.write_bytes(b"\x00" * 100)
    done = qgis_process("classify", INPUT=data / "sen2.tif", MODEL=model, OUTPUT=out / "map.tif")
    check(done, "is not a model file, or it is damaged.", out)


def test_model_cut_short(chain, qgis_process, data, tmp_path, out):
    model = tmp_path / "short.safetensors"
    model.write_bytes((chain["folder"] / "model.safetensors").read_bytes()[:-1000])
    done = qgis_process("classify", INPUT=data / "sen2.tif", MODEL=model, OUTPUT=out / "map.tif")
    check(done, "is damaged:", out)


def test_too_few_bands(chain, qgis_process, data, out):
    done = qgis_process(
        "classify", INPUT=data / "sen2.tif", BANDS="1;2", MODEL=chain["folder"] / "model.safetensors",
        OUTPUT=out / "map.tif",
    )  # fmt: skip
    check(done, "'sen2' has 2 bands (B1, B2), the model needs 12 (B1, B2, B3,", out)


def test_one_class_only(chain, qgis_process, data, out, tmp_path):
    patches = tmp_path / "one"
    done = qgis_process(
        "extractpatches", INPUT=data / "sen2.tif", SAMPLES=chain["folder"] / "samples.gpkg", FIELD="class_id",
        CLASSES="3", PATCH_SIZE=5, OUTPUT=patches,
    )  # fmt: skip
    assert done.code == 0, done.text
    done = qgis_process("trainclassifier", TRAINING=patches, EPOCHS=1, OUTPUT=out / "m.safetensors")
    check(done, "Only class 3 'water' is in the training samples.", out)


def test_patch_larger_than_the_raster(chain, qgis_process, data, out):
    done = qgis_process(
        "extractpatches", INPUT=data / "sen2.tif", SAMPLES=chain["folder"] / "samples.gpkg", FIELD="class_id",
        PATCH_SIZE=999, OUTPUT=out / "patches",
    )  # fmt: skip
    check(done, "A patch of 999 x 999 pixels is larger than 'sen2' (247 x 237).", out)


def test_a_folder_that_is_no_dataset(qgis_process, tmp_path, out):
    done = qgis_process("trainclassifier", TRAINING=tmp_path, EPOCHS=1, OUTPUT=out / "m.safetensors")
    check(done, "is not a patch dataset: it has no dataset.json. Give a folder made by 'Extract patches'.", out)


def test_neither_reference(chain, qgis_process, out):
    done = qgis_process("assess", INPUT=chain["folder"] / "map.tif", OUTPUT=out / "a.html")
    check(done, "Give exactly one of REFERENCE and REFERENCE_SAMPLES.", out)


def test_a_shifted_scene_is_refused_and_mapped_with_continue(chain, qgis_process, data, out, tmp_path):
    from osgeo import gdal

    gdal.UseExceptions()
    shifted = tmp_path / "shifted.tif"
    source = gdal.Open(str(data / "sen2.tif"))
    copy = gdal.GetDriverByName("GTiff").CreateCopy(str(shifted), source)
    for number in range(1, source.RasterCount + 1):
        copy.GetRasterBand(number).WriteArray(source.GetRasterBand(number).ReadAsArray() - 0.1)
    del copy
    model = chain["folder"] / "model.safetensors"
    done = qgis_process("classify", INPUT=shifted, MODEL=model, OUTPUT=out / "map.tif")
    check(done, "CONTINUE", out)
    done = qgis_process("classify", INPUT=shifted, MODEL=model, CONTINUE="true", OUTPUT=out / "map.tif")
    assert done.code == 0, done.text


def worker_pids(marker):
    """Return the process ids of workers that were started with the environment variable ``marker``."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = open(f"/proc/{pid}/cmdline", "rb").read()
            environ = open(f"/proc/{pid}/environ", "rb").read()
        except OSError:
            continue
        if b"run_worker.py" in command and marker.encode() in environ:
            found.append(int(pid))
    return found


@pytest.fixture
def training(chain, environment, out):
    """A training that runs under qgis_process; gives the process and the pid of its worker."""
    marker = f"DEEPSCAPE_TEST={os.getpid()}.{time.monotonic_ns()}"
    name, _, value = marker.partition("=")
    parameters = {
        "TRAINING": chain["folder"] / "patches", "EPOCHS": 5000, "PATIENCE": 0, "OUTPUT": out / "m.safetensors",
    }  # fmt: skip
    process = subprocess.Popen(
        [PROGRAM, "run", "deepscape:trainclassifier", *(f"--{key}={value}" for key, value in parameters.items())],
        env={**environment, name: value}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        if "Epoch 2" in line:
            break
    (worker,) = worker_pids(marker)
    yield process, worker, marker
    if process.poll() is None:
        process.kill()
    process.wait(30)
    process.stdout.close()


def test_worker_killed_in_the_middle(training, out):
    process, worker, marker = training
    os.kill(worker, signal.SIGKILL)
    text = process.stdout.read()
    assert process.wait(60) == 1
    assert "ended in the middle" in text
    assert list(out.iterdir()) == [] and worker_pids(marker) == []


def test_qgis_killed_in_the_middle_leaves_no_worker(training, out):
    process, _, marker = training
    process.kill()
    process.wait(30)
    deadline = time.monotonic() + 15
    while worker_pids(marker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert worker_pids(marker) == []
    assert not (out / "m.safetensors").exists()


# --- input that must work --------------------------------------------------------------------------------------------


def changed_polygons(data, path, classes):
    """Copy the training and validation polygons with other class ids."""
    from osgeo import ogr

    ogr.UseExceptions()
    for name in ("train_polygons", "validation_polygons"):
        target = path / f"{name}.gpkg"
        shutil.copy(data / f"{name}.gpkg", target)
        source = ogr.Open(str(target), 1)
        layer = source.GetLayer(0)
        for feature in list(layer):
            feature.SetField("class_id", classes[feature.GetField("class_id")])
            layer.SetFeature(feature)
        del layer, source
    return path


def read_band(path):
    """Return the values of a raster's band, its type and its no-data value; the file is closed again."""
    from osgeo import gdal

    gdal.UseExceptions()
    dataset = gdal.Open(str(path))
    band = dataset.GetRasterBand(1)
    found = band.ReadAsArray(), gdal.GetDataTypeName(band.DataType), band.GetNoDataValue()
    del band, dataset
    return found


@pytest.mark.parametrize(
    ("classes", "kind", "nodata"),
    [((0, 7, 255, 300), "UInt16", 65535), ((-3, 0, 5, 70000), "Int32", -(2**31))],
)
def test_class_ids_through_the_whole_chain(qgis_process, data, out, tmp_path, classes, kind, nodata):
    polygons = changed_polygons(data, tmp_path, dict(zip((1, 2, 3, 4), classes)))
    image = data / "sen2.tif"

    def step(name, **parameters):
        done = qgis_process(name, **parameters)
        assert done.code == 0, done.text
        return done

    samples, patches, model = out / "samples.gpkg", out / "patches", out / "forest.safetensors"
    step(
        "selectvectorsamples", INPUT=polygons / "train_polygons.gpkg", FIELD="class_id", RASTER=image, COUNT=60,
        OUTPUT=samples,
    )  # fmt: skip
    step("extractpatches", INPUT=image, SAMPLES=samples, FIELD="class_id", PATCH_SIZE=3, EDGE="reflect", OUTPUT=patches)
    step("trainrandomforest", TRAINING=patches, OUTPUT=model)
    mapped = step("classify", INPUT=image, MODEL=model, OUTPUT=out / "map.tif")
    assert set(json.loads(mapped.outputs["CLASS_AREAS"])) == set(map(str, classes))
    values, found, number = read_band(out / "map.tif")
    assert set(values.ravel().tolist()) == set(classes) and (found, number) == (kind, nodata)
    style = (out / "map.qml").read_text(encoding="utf-8")
    names = ("village", "forest", "water", "dryout")  # of the field beside the class field
    assert all(f'value="{value}"' in style and f'label="{name}"' in style for value, name in zip(classes, names))
    done = step(
        "assess", INPUT=out / "map.tif", REFERENCE_SAMPLES=polygons / "validation_polygons.gpkg", FIELD="class_id",
        OUTPUT=out / "a.html", MATRIX=out / "a.csv",
    )  # fmt: skip
    assert float(done.outputs["KAPPA"]) > 0.8
    assert f"(rows):{','.join(map(str, classes))}" in (out / "a.csv").read_text()


def test_a_filtered_layer_fills_a_geopackage(sampling, out, data):
    done = sampling(INPUT=f"{data / 'train_polygons.gpkg'}|subset=class_id < 3", COUNT=50)
    assert done.code == 0, done.text
    assert json.loads(done.outputs["COUNTS"]) == {"1": 50, "2": 50}
    with sqlite3.connect(out / "samples.gpkg") as database:
        assert database.execute("SELECT count(*), count(DISTINCT class_id) FROM samples").fetchone() == (100, 2)


def test_no_labelled_pixel(sampling, out, data, tmp_path):
    from osgeo import gdal

    gdal.UseExceptions()
    far = tmp_path / "far.tif"
    copy = gdal.GetDriverByName("GTiff").CreateCopy(str(far), gdal.Open(str(data / "sen2.tif")))
    origin = copy.GetGeoTransform()
    copy.SetGeoTransform((origin[0] + 1, *origin[1:]))
    del copy
    check(sampling(RASTER=far), "No feature of 'train_polygons' (extent ", out)


def test_polygons_of_another_crs_and_of_none(sampling, out, data, tmp_path):
    from osgeo import gdal

    gdal.UseExceptions()
    source = str(data / "train_polygons.gpkg")
    counts = json.loads(sampling(COUNT=100).outputs["COUNTS"])
    metres = tmp_path / "utm.gpkg"
    gdal.VectorTranslate(str(metres), source, dstSRS="EPSG:32721", reproject=True)
    done = sampling(INPUT=metres, COUNT=100)
    assert json.loads(done.outputs["COUNTS"]) == counts
    assert "'utm' was reprojected from EPSG:32721 to EPSG:4326." in done.text
    bare = tmp_path / "bare.shp"
    gdal.VectorTranslate(str(bare), source, format="ESRI Shapefile")
    bare.with_suffix(".prj").unlink()
    done = sampling(INPUT=bare, COUNT=100)
    assert json.loads(done.outputs["COUNTS"]) == counts
    assert "'bare' has no CRS; it is assumed to be that of 'sen2', EPSG:4326." in done.text


def test_a_text_field_and_an_invalid_geometry(sampling, out, data, tmp_path):
    from osgeo import ogr

    ogr.UseExceptions()
    broken = tmp_path / "broken.gpkg"
    shutil.copy(data / "train_polygons.gpkg", broken)
    source = ogr.Open(str(broken), 1)
    layer = source.GetLayer(0)
    feature = layer.GetNextFeature()
    west, east, south, north = feature.GetGeometryRef().GetEnvelope()
    corners = ((west, south), (east, north), (east, south), (west, north), (west, south))
    bow = ",".join(f"{x} {y}" for x, y in corners)
    feature.SetGeometry(ogr.CreateGeometryFromWkt(f"POLYGON(({bow}))"))
    layer.SetFeature(feature)
    del feature, layer, source
    done = sampling(INPUT=broken, FIELD="class_name", COUNT=20)
    assert done.code == 0, done.text
    assert set(json.loads(done.outputs["COUNTS"]).values()) == {20}
    assert "1 feature of 'broken' has an invalid geometry; it was repaired for this run" in done.text
    with sqlite3.connect(out / "samples.gpkg") as database:
        names = {name for (name,) in database.execute("SELECT DISTINCT class_name FROM samples")}
    assert names == {"village", "forest", "water", "dryout"}


def test_nan_and_declared_nodata_stay_nodata(chain, qgis_process, data, out, tmp_path):
    from osgeo import gdal

    gdal.UseExceptions()
    for name, number in (("nan", float("nan")), ("declared", -9999.0)):
        scene = tmp_path / f"{name}.tif"
        copy = gdal.GetDriverByName("GTiff").CreateCopy(str(scene), gdal.Open(str(data / "sen2.tif")))
        for band in map(copy.GetRasterBand, range(1, copy.RasterCount + 1)):
            values = band.ReadAsArray()
            values[100:140, 100:140] = number
            band.WriteArray(values)
            if name == "declared":
                band.SetNoDataValue(number)
        del band, copy  # the file is written when nobody holds it
        done = qgis_process(
            "classify", INPUT=scene, MODEL=chain["folder"] / "model.safetensors", OUTPUT=out / f"{name}.tif"
        )
        assert done.code == 0, done.text
        values, _, _ = read_band(out / f"{name}.tif")
        assert (values[100:140, 100:140] == 255).all() and (values == 255).sum() == 1600


@pytest.fixture
def large_scene(data, tmp_path):
    """The demo's scene, laid beside itself five times each way: a map of many windows where memory is short."""
    from osgeo import gdal

    gdal.UseExceptions()
    source = gdal.Open(str(data / "sen2.tif"))
    width, height, count = source.RasterXSize, source.RasterYSize, 5
    options = ["TILED=YES", "COMPRESS=DEFLATE", "ZLEVEL=1"]
    path = tmp_path / "large.tif"
    copy = gdal.GetDriverByName("GTiff").Create(
        str(path), count * width, count * height, source.RasterCount, source.GetRasterBand(1).DataType, options
    )
    copy.SetGeoTransform(source.GetGeoTransform())
    copy.SetProjection(source.GetProjection())
    for number in range(1, source.RasterCount + 1):
        band = copy.GetRasterBand(number)
        values = np.tile(source.GetRasterBand(number).ReadAsArray(), (count, count))
        band.WriteArray(values)
        band.SetDescription(source.GetRasterBand(number).GetDescription())
    del band, copy
    return path


def test_a_map_continues_after_its_worker_was_killed(chain, qgis_process, environment, large_scene, out):
    parameters = {
        "INPUT": large_scene, "MODEL": chain["folder"] / "model.safetensors", "MEMORY": 200,
        "OUTPUT": out / "map.tif", "CONFIDENCE": out / "confidence.tif",
    }  # fmt: skip
    whole = qgis_process("classify", **parameters)
    assert whole.code == 0, whole.text
    expected = {path.name: path.read_bytes() for path in out.iterdir()}
    for path in out.iterdir():
        path.unlink()

    name, value = "DEEPSCAPE_TEST", f"map.{os.getpid()}.{time.monotonic_ns()}"
    process = subprocess.Popen(
        [PROGRAM, "run", "deepscape:classify", *(f"--{key}={given}" for key, given in parameters.items())],
        env={**environment, name: value}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    log = out / "map.tif.log"
    while process.poll() is None and not (log.exists() and log.stat().st_size > 40_000):
        time.sleep(0.005)
    (worker,) = worker_pids(f"{name}={value}")
    os.kill(worker, signal.SIGKILL)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "ended in the middle of 'classify'" in text, text
    assert list(out.iterdir()) == [log]

    done = qgis_process("classify", **parameters)
    assert done.code == 0 and "windows were finished before: continuing." in done.text, done.text
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(found) == sorted(expected) and log.name not in found
    assert "map.job.json" in found
    # QGIS gives every style ids of its own, and the job file tells how long it took.
    alike = [name for name in found if not name.endswith((".qml", ".json"))]
    assert set(alike) >= {"map.tif", "map.tif.aux.xml", "confidence.tif"}
    assert [name for name in alike if found[name] != expected[name]] == []
