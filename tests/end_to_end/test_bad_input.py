"""Bad input: qgis_process ends with 1 and one clear sentence, and leaves nothing half-written."""

import os
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

pytestmark = [pytest.mark.real_worker, pytest.mark.slow]


def check(done, sentence, folder=None):
    assert done.code == 1, done.text
    assert sentence in " ".join(done.text.split()), done.text
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
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    parameters = {
        "TRAINING": chain["folder"] / "patches", "EPOCHS": 5000, "PATIENCE": 0, "OUTPUT": out / "m.safetensors",
    }  # fmt: skip
    process = subprocess.Popen(
        [program, "run", "deepscape:trainclassifier", *(f"--{key}={value}" for key, value in parameters.items())],
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
