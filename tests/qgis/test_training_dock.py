"""A training in the window: messages reach its thread, the dock shows them, its buttons reach the worker."""

import base64
import contextlib
import threading
import time

import pytest
from deepscape.algorithms import live
from deepscape.models.recipes import PRESETS
from deepscape.tasks import jobs
from deepscape.tasks.errors import JobCancelled
from deepscape.tests.qgis.layers import Feedback
from deepscape.tests.qgis.test_plugin import Iface
from deepscape.ui import plots
from deepscape.ui.menu import Menu
from deepscape.ui.training_dock import TrainingDock, time_left
from qgis.core import QgsProcessingException
from qgis.PyQt.QtCore import QBuffer, QCoreApplication, QEvent, QIODevice, QPoint, Qt
from qgis.PyQt.QtGui import QColor, QImage, QPalette
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QDockWidget

NUMBERS = {"overall_accuracy": 0.5, "kappa": None, "metrics": {}, "best_epoch": 1, "accuracy_set": "test"}


def png():
    image = QImage(30, 10, QImage.Format.Format_RGB32)
    image.fill(QColor("#336699"))
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    image.save(buffer, "PNG")
    return bytes(buffer.data())


def metric(name, value, step):
    return {"type": "metric", "name": name, "value": value, "step": step}


EPOCHS = [
    metric(f"{role}/{name}", value, epoch)
    for epoch, loss, kappa in ((1, 1.0, 0.5), (2, 0.5, 0.8), (3, 0.7, 0.7))
    for role in ("train", "validation")
    for name, value in (("loss", loss), ("kappa", kappa), ("macro_f1", kappa / 2))
]


def until(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        QCoreApplication.processEvents()
        time.sleep(0.005)


@pytest.fixture
def hub(qgis_app):
    live.close_hub()
    yield live.open_hub()
    live.close_hub()


@pytest.fixture
def dock(hub):
    dock = TrainingDock(hub)
    dock.resize(420, 640)
    dock.show()
    yield dock
    dock.detach()
    dock.deleteLater()


def tell(hub, *messages, title="Train a classifier: m", monitor="loss"):
    """Tell of a run as a job's thread does, and wait until the hub has heard of it."""
    follower = live.follow(title, monitor)
    worker = threading.Thread(target=lambda: [follower.__enter__(), *map(follower.tell, messages)])
    worker.start()
    worker.join()
    before = len(hub.runs)
    until(lambda: len(hub.runs) > before)
    QCoreApplication.processEvents()
    return follower, hub.runs[-1]


# --- the hub ---


def test_messages_reach_the_thread_of_the_window(hub):
    seen = []
    hub.changed.connect(lambda run: seen.append((threading.current_thread(), run.state)))
    follower, run = tell(hub, *EPOCHS, {"type": "log", "text": "Epoch 3"})
    assert {thread for thread, _ in seen} == {threading.main_thread()}
    assert run.metrics["validation/loss"] == [(1, 1.0), (2, 0.5), (3, 0.7)] and list(run.log) == ["Epoch 3"]
    assert run.best() == 2
    follower.__exit__(None, None, None)
    until(lambda: not run.active)
    assert run.state == live.FINISHED


@pytest.mark.parametrize(("monitor", "best"), [("kappa", 2), ("loss", 2), ("", None), ("mean_iou", None)])
def test_the_best_epoch_is_chosen_as_training_does(hub, monitor, best):
    assert tell(hub, *EPOCHS, monitor=monitor)[1].best() == best


def test_of_equals_the_loss_and_then_the_later_decides_and_what_is_no_number_is_left_out(hub):
    values = ((1, 0.9), (2, 0.9), (3, float("nan")))
    messages = [metric("validation/kappa", value, epoch) for epoch, value in values]
    _, run = tell(hub, *messages, monitor="kappa")
    assert run.best() == 2 and run.metrics["validation/kappa"] == [(1, 0.9), (2, 0.9)]
    hub._take(run, metric("validation/loss", 0.3, 1))
    hub._take(run, metric("validation/loss", 0.4, 2))
    assert run.best() == 1


def test_a_resumed_run_replaces_the_epochs_that_it_tells_again(hub):
    _, run = tell(hub, *EPOCHS, metric("train/loss", 0.4, 2))
    assert run.metrics["train/loss"] == [(1, 1.0), (2, 0.4)]


def test_a_stop_is_passed_on_once_and_the_next_training_may_be_stopped_again(hub):
    follower, run = tell(hub, *EPOCHS)
    hub.stop(run)
    assert run.state == live.STOPPING
    assert [follower.stopping(), follower.stopping()] == [True, False]
    follower.tell(metric("train/loss", 1.0, 1))
    until(lambda: run.state == live.RUNNING)


def test_without_a_window_nothing_happens(qgis_app):
    live.close_hub()
    with live.follow("Train a classifier: m") as follower:
        follower.tell({"type": "log", "text": "x"})
    assert not follower.stopping() and not follower.cancelled() and live._HUBS == []


# --- the dock ---


def test_it_is_empty_at_first(dock):
    assert dock._pages.currentIndex() == 0 and dock.run() is None


def test_it_shows_the_numbers_of_a_run(dock, hub):
    progress = {"type": "progress", "done": 3, "total": 12, "stage": "training", "unit": "epochs", "remaining": 700.0}
    picture = {"type": "picture", "name": "1", "png": png(), "step": 3, "caption": "image | reference | prediction"}
    tell(hub, *EPOCHS, progress, picture, {"type": "log", "text": "Epoch 3/12: loss 0.7"})
    assert dock._pages.currentIndex() == 1 and dock.runs.currentText() == "Train a classifier: m"
    assert (dock.bar.value(), dock.remaining.text(), dock.state.text()) == (250, "about 12 min left", "Training")
    assert dock.line.text() == "Epoch 3/12: loss 0.7"
    assert [curve.points for curve in dock.loss._curves] == [((1, 1.0), (2, 0.5), (3, 0.7))] * 2
    assert dock.score._curves[1].points == ((1, 0.5), (2, 0.8), (3, 0.7)) and dock.score._best == 2
    dock.scores.setCurrentIndex(1)
    assert dock.score._curves[1].points[0] == (1, 0.25)
    ((image, text),) = dock.pictures._images
    assert image.width() == 30 and text == "Epoch 3: image | reference | prediction"
    assert dock.pictures.isVisible() and not dock.report.isVisible() and dock.stop.isVisible()


def test_it_says_what_is_kept_of_a_cancelled_run(dock, hub):
    for remedy, said in (("", "Cancelled"), ("2 of 3 epochs are kept.", "Cancelled. 2 of 3 epochs are kept.")):
        with contextlib.suppress(JobCancelled), live.follow("Train a segmenter: m"):
            raise JobCancelled(remedy=remedy)
        until(lambda said=said: dock.state.text() == said)


@pytest.mark.parametrize(("width", "height", "wide"), [(400, 700, False), (900, 380, True), (600, 700, False)])
def test_a_wide_dock_has_its_plots_side_by_side(dock, hub, width, height, wide):
    tell(hub, *EPOCHS)
    dock.resize(width, height)
    until(lambda: (dock.score.mapTo(dock, QPoint()).x() > 100) == wide)


def test_the_mouse_shows_an_epoch_in_both_plots(dock, hub):
    tell(hub, *EPOCHS)
    dock.grab()
    area = dock.loss._area()
    QTest.mouseMove(dock.loss, QPoint(int(area.center().x()), int(area.center().y())))
    until(lambda: dock.loss._hover == 2)
    assert dock.score._hover == 2
    dock.loss.leaveEvent(QEvent(QEvent.Type.Leave))
    assert dock.score._hover is None


@pytest.mark.parametrize("base", ["#ffffff", "#202020"])
@pytest.mark.parametrize(("width", "height"), [(180, 110), (420, 260), (1200, 90)])
def test_plots_are_painted_in_any_size_and_theme(qgis_app, base, width, height):
    plot = plots.CurvePlot(may_be_log=True)
    palette = plot.palette()
    palette.setColor(QPalette.ColorRole.Base, QColor(base))
    palette.setColor(QPalette.ColorRole.Text, QColor("#ffffff" if base == "#202020" else "#000000"))
    plot.setPalette(palette)
    plot.resize(width, height)
    for points in ((), ((1, 0.5),), ((1, 0.0), (2, 0.0)), tuple((n, 10.0 / n**2) for n in range(1, 80))):
        plot.show_curves([plots.Curve("validation", "validation", points)], best=len(points) or None)
        plot.show_epoch(1)
        image = plot.grab().toImage()
        colours = {image.pixelColor(x, y).name() for x in range(0, width, 2) for y in range(0, height, 2)}
        assert len(colours) > 3
    assert plot._log


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        (plots.linear_ticks(0.31, 0.97, 4), [0.2, 0.4, 0.6, 0.8, 1.0]),
        (plots.linear_ticks(0, 1.9, 4), [0, 0.5, 1, 1.5, 2]),
        (plots.log_ticks(0.03, 1.7), [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]),
        (plots.log_ticks(0.0004, 30), [0.0001, 0.001, 0.01, 0.1, 1, 10, 100]),
        (plots.epoch_ticks(1, 50, 5), [1, 10, 20, 30, 40, 50]),
        (plots.epoch_ticks(1, 2, 5), [1, 2]),
    ],
)
def test_ticks_are_round_numbers_around_the_values(ticks, expected):
    assert ticks == pytest.approx(expected)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "less than a minute left"),
        (700, "about 12 min left"),
        (3900, "about 1 h 5 min left"),
        (165_600, "about 46 h left"),
    ],
)
def test_remaining_time_in_words(seconds, words):
    assert time_left(seconds) == words


# --- with a worker ---


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "patches"
    folder.mkdir()
    return str(folder)


def in_a_thread(algorithm, context, feedback, **parameters):
    """Run a trainer as its dialog does, in a thread of its own; returns the thread and what it leaves."""
    outcome = []
    train = algorithm("trainclassifier")

    def work():
        try:
            outcome.append(train.run(parameters, context, feedback, {}, False))
        except QgsProcessingException as error:
            outcome.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    return thread, outcome


def test_the_button_stops_the_worker_which_ends_with_a_result(
    algorithm, context, feedback, play, dataset, tmp_path, dock, hub
):
    report = tmp_path / "report.html"
    play(
        "trainclassifier",
        *({"send": message} for message in EPOCHS),
        {"send": {"type": "picture", "name": "1", "png": base64.b64encode(png()).decode(), "step": 1, "caption": ""}},
        {"until_stopped": 30},
        {"write": ["$output", "weights"]},
        {"write": ["$report", "<html>"]},
        {"result": NUMBERS},
    )
    wanted = {"TRAINING": dataset, "OUTPUT": str(tmp_path / "m.safetensors"), "REPORT": str(report)}
    thread, outcome = in_a_thread(algorithm, context, feedback, **wanted)
    until(lambda: dock.run() is not None and dock.run().pictures)
    assert dock.runs.currentText() == "Train a classifier: m" and dock.run().best() == 2
    QTest.mouseClick(dock.stop, Qt.MouseButton.LeftButton)
    assert not dock.stop.isEnabled() and dock.state.text() == "Stopping; the best epoch is kept"
    until(lambda: not dock.run().active)
    thread.join(10)
    ((outputs, ok),) = outcome
    assert ok and outputs["BEST_EPOCH"] == 1
    assert dock.state.text() == "Finished" and dock.run().report == str(report)
    assert dock.report.isVisible() and not dock.stop.isVisible() and not dock.cancel.isVisible()


def test_cancel_is_the_cancel_of_its_feedback(algorithm, context, play, dataset, tmp_path, dock, hub):
    play("trainclassifier", {"send": EPOCHS[0]}, {"sleep": 30})
    feedback = Feedback()
    wanted = {"TRAINING": dataset, "OUTPUT": str(tmp_path / "m.safetensors")}
    thread, outcome = in_a_thread(algorithm, context, feedback, **wanted)
    until(lambda: dock.run() is not None and dock.run().metrics)
    QTest.mouseClick(dock.cancel, Qt.MouseButton.LeftButton)
    until(lambda: not dock.run().active)
    thread.join(10)
    assert outcome == ["Cancelled."] and feedback.isCanceled()
    assert dock.state.text() == "Cancelled"


def test_a_failure_is_told(algorithm, context, feedback, play, dataset, tmp_path, dock, hub):
    play("trainclassifier", {"error": {"kind": "input", "message": "Band 'B9' is missing.", "remedy": "Add it."}})
    wanted = {"TRAINING": dataset, "OUTPUT": str(tmp_path / "m.safetensors")}
    thread, _ = in_a_thread(algorithm, context, feedback, **wanted)
    until(lambda: dock.run() is not None and not dock.run().active)
    thread.join(10)
    assert dock.state.text() == "Failed: Band 'B9' is missing. Add it."


def test_a_segmenter_is_watched_as_its_recipe_says(algorithm):
    train = algorithm("trainsegmenter")

    def monitored(**fields):
        return train.monitored(jobs.TrainSegmenter(training="patches", output="m.safetensors", **fields))

    assert train.CURVES and monitored() == PRESETS["default"].monitor
    assert (monitored(patience=0), monitored(monitor="kappa")) == ("", "kappa")


# --- the menu ---


def test_the_dock_comes_with_a_training_and_goes_with_the_plugin(plugin, monkeypatch):
    live.close_hub()
    iface = Iface()
    menu = Menu(iface)
    menu.add()
    assert iface.window.findChildren(QDockWidget) == []
    tell(live.open_hub(), *EPOCHS)
    (dock,) = iface.window.findChildren(QDockWidget)
    assert dock.windowTitle() == "Deepscape training" and not dock.isHidden()
    menu.remove()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert iface.window.findChildren(QDockWidget) == [] and iface.entries == [] and live._HUBS == []
