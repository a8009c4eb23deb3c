"""A run: outputs, files beside them, warnings, errors, cancel, and QGIS's event loop meanwhile."""

import json
import os
import threading
import time
from types import SimpleNamespace

import pytest
from deepscape.algorithms import base
from deepscape.algorithms.base import progress_text
from deepscape.algorithms.tools import setup_engine
from deepscape.tasks import client
from deepscape.tasks.environment import EngineStatus
from deepscape.tests.qgis.layers import Feedback, longest_gap
from qgis.core import QgsApplication, QgsProcessing, QgsProcessingAlgRunnerTask, QgsProcessingException
from qgis.PyQt.QtCore import QObject, QTimer

NUMBERS = {"overall_accuracy": 0.5, "kappa": None, "metrics": {"f1": 1}, "best_epoch": 4, "accuracy_set": "test"}


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "Patches é"
    folder.mkdir()
    return str(folder)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("a model")
    return str(path)


def test_outputs_of_the_result(run, play, dataset, tmp_path):
    target = tmp_path / "new"
    play("trainclassifier", {"write": ["$output", "weights"]}, {"result": NUMBERS})
    outputs = run("trainclassifier", TRAINING=dataset, OUTPUT=str(target))
    assert outputs["OUTPUT"] == f"{target}.safetensors"
    assert outputs["OVERALL_ACCURACY"] == 0.5
    assert not outputs["KAPPA"]
    assert (outputs["METRICS"], outputs["BEST_EPOCH"], outputs["ACCURACY_SET"]) == ('{"f1": 1}', 4, "test")
    assert "REPORT" not in outputs
    job = json.loads((tmp_path / "new.job.json").read_text())
    assert job["kind"] == "trainclassifier" and job["job"]["output"] == "./new.safetensors"
    assert job["job"]["batch_size"] is None and job["job"]["validation_share"] == 0.2


def test_temporary_model_is_kept_in_the_store(run, play, dataset, tmp_path, feedback, monkeypatch):
    play("trainrandomforest", {"write": ["$output", "weights"]}, {"result": NUMBERS})
    outputs = run("trainrandomforest", TRAINING=dataset, OUTPUT=QgsProcessing.TEMPORARY_OUTPUT)
    kept = list((tmp_path / "home" / "models").iterdir())
    assert [path.read_text() for path in kept] == ["weights"]
    assert kept[0].name.startswith("trainrandomforest-") and "OUTPUT" not in kept[0].name
    assert any(str(kept[0]) in text for text in feedback.infos) and not any("folder holds" in t for t in feedback.infos)
    run("trainrandomforest", TRAINING=dataset, OUTPUT=QgsProcessing.TEMPORARY_OUTPUT)
    assert any(text.startswith("That folder holds 2 models (0.0 MB): delete") for text in feedback.infos)
    assert not os.path.exists(outputs["OUTPUT"][: -len("safetensors")] + "job.json")


def test_warnings_once_log_and_progress(run, play, model, image, tmp_path, feedback):
    progress = {"type": "progress", "done": 30, "total": 60, "stage": "mapping", "unit": "pixels", "rate": 1200.0}
    play(
        "classify",
        {"send": {"type": "warning", "text": "Band 3 is odd."}},
        {"send": {"type": "log", "text": "Device: cpu"}},
        {"send": {"type": "metric", "name": "train/loss", "value": 0.5, "step": 1}},
        {"send": {**progress, "remaining": 20}},
        {"write": ["$output", "map"]},
        {"result": {"warnings": ["Band 3 is odd."], "pixels": 12, "class_areas": {"1": {"pixels": 12}}}},
    )
    outputs = run("classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / "map.tif"))
    assert feedback.warnings == ["Band 3 is odd."]
    assert "Device: cpu" in feedback.infos
    assert not any("train/loss" in text for text in (*feedback.infos, *feedback.debug, *feedback.texts))
    assert "Mapping: 30 of 60 pixels, 1,200 pixels/s, 00:20 left" in feedback.texts
    assert feedback.progress() == 50
    assert outputs["PIXELS"] == 12 and json.loads(outputs["CLASS_AREAS"]) == {"1": {"pixels": 12}}
    assert "PROBABILITIES" not in outputs and "CONFIDENCE" not in outputs


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"done": 3, "total": 30, "stage": "Training", "unit": "epochs", "rate": 0.25, "remaining": 4000},
         "Training: 3 of 30 epochs, 0.25 epochs/s, 1:06:40 left"),
        ({"done": 0, "total": 0, "stage": "Loading", "unit": "", "rate": None, "remaining": None}, "Loading"),
    ],
)  # fmt: skip
def test_progress_in_words(message, text):
    assert progress_text(message) == text


def fails(algorithm, context, feedback, name, **parameters):
    """Return the sentence that a run ends with; what is found wrong in `prepareAlgorithm` QGIS only reports."""
    try:
        ok = algorithm(name).run(parameters, context, feedback, {}, False)[1]
    except QgsProcessingException as error:
        return str(error)
    assert not ok
    return feedback.warnings[-1]


@pytest.mark.parametrize("kind", ["input", "disk_full"])
def test_an_error_is_one_sentence_with_its_remedy(algorithm, context, feedback, play, model, image, tmp_path, kind):
    play(
        "classify",
        {"error": {"kind": kind, "message": "Band 'B9' is missing.", "remedy": "Add it.", "traceback": "Trace 1"}},
    )
    target = tmp_path / "map.tif"
    assert (
        fails(algorithm, context, feedback, "classify", INPUT=image, MODEL=model, OUTPUT=str(target))
        == "Band 'B9' is missing. Add it."
    )
    assert "Trace 1" not in feedback.debug
    assert not target.exists() and not (tmp_path / "map.job.json").exists()


@pytest.mark.parametrize(("platform", "silent"), [("desktop", False), ("qgis_process", True)])
def test_qgis_process_says_an_error_once(
    algorithm, context, feedback, play, model, image, tmp_path, monkeypatch, platform, silent
):
    """It prints QGIS's log, too, to which QGIS writes the sentence that it reports anyway."""
    log = QObject()
    program = SimpleNamespace(platform=lambda: platform, messageLog=lambda: log)
    monkeypatch.setattr(base, "QgsApplication", program)
    play("classify", {"error": {"kind": "input", "message": "Band 'B9' is missing.", "remedy": "Add it."}})
    text = fails(algorithm, context, feedback, "classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / "map.tif"))
    assert text == "Band 'B9' is missing. Add it." and log.signalsBlocked() == silent


def test_a_crash_of_the_worker_says_so(algorithm, context, feedback, play, model, image, tmp_path):
    play("classify", {"log": "something broke"}, {"signal": 11})
    text = fails(algorithm, context, feedback, "classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / "map.tif"))
    assert "ended in the middle" in text and "SIGSEGV" in text
    assert any("something broke" in line for line in feedback.debug)


def test_engine_not_set_up(algorithm, context, feedback, model, image, tmp_path, monkeypatch):
    monkeypatch.delenv("DEEPSCAPE_ENGINE_PYTHON", raising=False)
    classify = algorithm("classify")
    assert classify.canExecute() == (False, "engine not set up: run 'Set up the engine'")
    text = fails(algorithm, context, feedback, "classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / "map.tif"))
    assert text.startswith("The engine is not set up. Run 'Set up the engine'")
    assert algorithm("modelinfo").canExecute()[0] and algorithm("setupengine").canExecute()[0]


def test_engine_status_without_an_engine(run, tmp_path, monkeypatch):
    monkeypatch.delenv("DEEPSCAPE_ENGINE_PYTHON", raising=False)
    outputs = run("enginestatus", OUTPUT=str(tmp_path / "status"))
    assert outputs["READY"] is False
    assert "not set up" in outputs["REPORT"]
    assert "not set up" in (tmp_path / "status.html").read_text()


def test_setup_with_an_own_interpreter_that_is_none(algorithm, context, feedback, tmp_path):
    text = fails(algorithm, context, feedback, "setupengine", ACTION="install", BUILD="cpu", INTERPRETER="/no/python")
    assert text == "INTERPRETER '/no/python' does not exist. Check the path."


@pytest.mark.parametrize("given", [None, "openvino", ["openvino"]])
def test_setup_with_extras(run, monkeypatch, given):
    seen = []

    def install(options, **others):
        seen.append((options.extras, others["before_replacing"]))
        return EngineStatus(ready=True, extras={"openvino": "2026.4.1"})

    monkeypatch.setattr(setup_engine, "install", install)
    outputs = run("setupengine", EXTRAS=given)
    assert seen == [(("openvino",) if given else (), client.shutdown)]
    assert outputs["INSTALLED_EXTRAS"] == "openvino"


class CancelSoon(Feedback):
    """Is cancelled a moment after the worker has said something, or after its start."""

    def __init__(self, after):
        super().__init__()
        threading.Timer(after, self.cancel).start()


def test_cancel_with_a_silent_worker(algorithm, context, play, model, image, tmp_path):
    play("classify", {"sleep": 60})
    begun = time.monotonic()
    feedback = CancelSoon(0.5)
    text = fails(algorithm, context, feedback, "classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / "map.tif"))
    assert text == "Cancelled."
    assert time.monotonic() - begun < 0.5 + 1.5
    assert not list(tmp_path.glob("map*")) and not list(tmp_path.glob(".map*"))


def test_a_cancelled_job_says_what_is_kept(algorithm, context, play, model, image, tmp_path, feedback):
    play("classify", {"cancelled": "2 of 3 epochs are kept."})
    text = fails(algorithm, context, feedback, "classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / "map.tif"))
    assert text == "Cancelled. 2 of 3 epochs are kept."


def test_cancel_with_a_deaf_worker_kills_it(algorithm, context, play, model, image, tmp_path, monkeypatch):
    monkeypatch.setattr(client.pool(), "cancel_s", 0.3)
    play("classify", {"hang": 60})
    feedback = CancelSoon(0.5)
    text = fails(algorithm, context, feedback, "classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / "map.tif"))
    assert text == "Cancelled."
    assert client.pool().pids() == []


def test_batch_uses_one_warm_worker(run, play, model, image, tmp_path):
    play("classify", {"write": ["$output", "map"]}, {"result": {}})
    for number in range(3):
        run("classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / f"map {number}.tif"))
    assert len(client.pool().pids()) == 1
    assert sorted(path.name for path in tmp_path.glob("*.job.json")) == [f"map {n}.job.json" for n in range(3)]


def test_worker_does_not_inherit_qgis_variables(run, play, model, image, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME_LIKE", "1")
    monkeypatch.setenv("PROJ_LIB", "/wrong")
    play("classify", {"write": ["$output", "map"]}, {"result": {}})
    run("classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / "map.tif"))
    (pid,) = client.pool().pids()
    names = {entry.split("=")[0] for entry in open(f"/proc/{pid}/environ").read().split("\0") if entry}
    assert not {"PROJ_LIB", "PYTHONHOME_LIKE", "PYTHONPATH", "QGIS_PLUGINPATH"} & names
    assert "DEEPSCAPE_FAKE_WORKER" in names


def test_the_event_loop_is_never_blocked_while_a_job_runs(algorithm, context, play, dataset, tmp_path):
    progress = [
        step
        for n in range(200)
        for step in (
            {"send": {"type": "progress", "done": n, "total": 200, "stage": "training", "unit": "patches"}},
            {"sleep": 0.01},
        )
    ]
    play("trainclassifier", *progress, {"write": ["$output", "weights"]}, {"result": NUMBERS})
    feedback, done = Feedback(), []
    train = algorithm("trainclassifier")
    values = {"TRAINING": dataset, "OUTPUT": str(tmp_path / "m.safetensors")}
    task = QgsProcessingAlgRunnerTask(train, values, context, feedback)
    task.executed.connect(lambda ok, results: done.append((ok, results)))
    QgsApplication.taskManager().addTask(task)
    assert longest_gap(lambda: bool(done)) < 0.05
    ((ok, results),) = done
    assert ok and results["BEST_EPOCH"] == 4


def test_the_main_thread_serves_its_events_while_it_waits(run, play, model, image, tmp_path):
    """QGIS runs models in the main thread."""
    play("classify", {"sleep": 1.0}, {"write": ["$output", "map"]}, {"result": {}})
    ticks = []
    timer = QTimer()
    timer.setInterval(5)
    timer.timeout.connect(lambda: ticks.append(threading.current_thread()))
    timer.start()
    run("classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / "map.tif"))
    timer.stop()
    assert len(ticks) > 20 and set(ticks) == {threading.main_thread()}


def test_the_cancel_button_works_in_the_main_thread(algorithm, context, feedback, play, model, image, tmp_path):
    play("classify", {"sleep": 60})
    QTimer.singleShot(300, feedback.cancel)
    target = tmp_path / "map.tif"
    assert fails(algorithm, context, feedback, "classify", INPUT=image, MODEL=model, OUTPUT=str(target)) == "Cancelled."
    assert not target.exists()
