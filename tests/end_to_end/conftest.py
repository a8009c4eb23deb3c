"""qgis_process with a profile of its own, the real engine, and the demo's data copied aside."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "demo" / "data"
PROGRAM = shutil.which("qgis_process.bin") or shutil.which("qgis_process")


class Run:
    """A finished qgis_process: its exit code, all that it printed, and the outputs by name."""

    def __init__(self, done):
        self.code = done.returncode
        self.text = done.stdout
        self.outputs = {}
        if "\nResults\n" in self.text:
            for line in self.text.rsplit("\nResults\n", 1)[1].splitlines():
                name, _, value = line.partition(":\t")
                if value:
                    self.outputs[name] = value


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The plugin from this checkout, enabled in an empty profile."""
    profile = tmp_path_factory.mktemp("profile")
    runtime = tmp_path_factory.mktemp("run")
    runtime.chmod(0o700)
    # PYTHONPATH would reach the Python inside QGIS; the plugin must load without it.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ.update(
        QGIS_PLUGINPATH=str(ROOT / ".build" / "plugins"),
        QGIS_CUSTOM_CONFIG_PATH=str(profile),
        XDG_CONFIG_HOME=str(profile),
        XDG_RUNTIME_DIR=str(runtime),
        QT_QPA_PLATFORM="offscreen",
    )
    done = subprocess.run(
        [PROGRAM, "plugins", "enable", "deepscape"], env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return environ


@pytest.fixture(scope="session")
def qgis_process(environment):
    """Returns a function that runs an algorithm and gives what came of it."""

    def start(name, timeout=300, extra_environ=None, folder=None, **parameters):
        arguments = [f"--{key}={value}" for key, value in parameters.items()]
        done = subprocess.run(
            [PROGRAM, "run", f"deepscape:{name}", *arguments],
            env={**environment, **(extra_environ or {})},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            start_new_session=True,
        )
        return Run(done)

    return start


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The demo's data, in a folder with spaces and other letters in its name; QGIS writes statistics beside images."""
    folder = tmp_path_factory.mktemp("données du test")
    for path in DATA.iterdir():
        if path.suffix in (".tif", ".gpkg", ".json"):
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def chain(qgis_process, data, tmp_path_factory):
    """The main job, once: every step's run by the name of its algorithm, and the folder with the outputs."""
    out = tmp_path_factory.mktemp("résultats")
    image = data / "sen2.tif"
    runs = {"folder": out}

    def step(key, name, **parameters):
        runs[key] = qgis_process(name, **parameters)
        assert runs[key].code == 0, runs[key].text

    step(
        "samples",
        "selectvectorsamples",
        INPUT=data / "train_polygons.gpkg",
        FIELD="class_id",
        RASTER=image,
        STRATEGY="upto",
        COUNT=120,
        LEGEND=data / "legend.json",
        OUTPUT=out / "samples.gpkg",
    )
    step(
        "patches",
        "extractpatches",
        INPUT=image,
        SAMPLES=out / "samples.gpkg",
        FIELD="class_id",
        PATCH_SIZE=5,
        EDGE="reflect",
        OUTPUT=out / "patches",
        FOOTPRINTS=out / "footprints.gpkg",
    )
    step(
        "train",
        "trainclassifier",
        TRAINING=out / "patches",
        EPOCHS=8,
        PATIENCE=0,
        OUTPUT=out / "model.safetensors",
        REPORT=out / "report.html",
    )
    step(
        "map",
        "classify",
        INPUT=image,
        MODEL=out / "model.safetensors",
        OUTPUT=out / "map.tif",
        CONFIDENCE=out / "confidence.tif",
    )
    step(
        "assess",
        "assess",
        INPUT=out / "map.tif",
        REFERENCE_SAMPLES=data / "validation_polygons.gpkg",
        FIELD="class_id",
        OUTPUT=out / "accuracy.html",
        MATRIX=out / "matrix.csv",
    )
    return runs
