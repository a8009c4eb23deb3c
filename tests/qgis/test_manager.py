"""The background task manager, with real QgsTasks and a worker that plays."""

import json
import sys
import time
from pathlib import Path

import pytest
from deepscape.tasks import client, manager
from deepscape.tasks.errors import BadInput, JobCancelled
from deepscape.tasks.jobs import Normalise, RasterSource
from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, QEventLoop, QThread

FAKE = Path(__file__).with_name("fake_worker.py")


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Returns a function that sets what the fake worker does."""
    # Importing qgis has set sys.executable on some systems to QGIS itself; Debian's is a plain Python.
    monkeypatch.setenv("DEEPSCAPE_FAKE_WORKER", str(tmp_path / "play.json"))
    monkeypatch.setattr(client.pool(), "script", str(FAKE))
    client.shutdown()
    manager.history().clear()

    def write(*steps):
        (tmp_path / "play.json").write_text(json.dumps({"*": list(steps)}))

    yield write
    client.shutdown()


@pytest.fixture
def job(tmp_path):
    return Normalise(RasterSource("in.tif"), str(tmp_path / "out.tif"))


def spin(condition, seconds=20):
    """Run the event loop until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 50)
    assert condition()


def begin(job, on_message=None, on_done=None, scratch=""):
    ends = []
    task = manager.start(
        job,
        "test",
        interpreter=sys.executable,
        on_done=on_done or (lambda result, error: ends.append((result, error, QThread.currentThread()))),
        on_message=on_message,
        scratch=scratch,
    )
    return task, ends


def test_result_and_messages_arrive_in_the_main_thread(qgis_app, play, job, tmp_path):
    play(
        {"send": {"type": "progress", "done": 1, "total": 2, "stage": "bands", "unit": ""}},
        {"result": {"bands": ["B1"]}},
    )
    messages = []
    _, ends = begin(job, lambda m: messages.append((m["type"], QThread.currentThread())), scratch=str(tmp_path))
    spin(lambda: ends)
    result, error, thread = ends[0]
    assert error is None
    assert result.bands == ("B1",)
    assert thread is qgis_app.thread() or thread == qgis_app.thread()
    assert [kind for kind, _ in messages] == ["started", "progress"]
    assert all(thread == qgis_app.thread() for _, thread in messages)
    assert manager._TASKS == []
    assert manager.history().records()[-1].state == "done"


def test_error_is_handed_over(qgis_app, play, job, tmp_path):
    play({"error": {"kind": "input", "message": "Band 9 is missing.", "remedy": "Take band 1."}})
    _, ends = begin(job, scratch=str(tmp_path))
    spin(lambda: ends)
    assert isinstance(ends[0][1], BadInput)
    assert str(ends[0][1]) == "Band 9 is missing. Take band 1."
    record = manager.history().records()[-1]
    assert (record.state, record.message) == ("failed", "Band 9 is missing. Take band 1.")


def test_cancel_ends_a_running_task(qgis_app, play, job, tmp_path):
    play({"send": {"type": "log", "text": "here"}}, {"sleep": 60})
    messages = []
    task, ends = begin(job, messages.append, scratch=str(tmp_path))
    spin(lambda: any(message["type"] == "log" for message in messages))
    begun = time.monotonic()
    task.cancel()
    spin(lambda: ends)
    assert time.monotonic() - begun < 1.0
    assert isinstance(ends[0][1], JobCancelled)
    assert manager.history().records()[-1].state == "cancelled"


def test_cancel_of_a_task_that_is_held_back(qgis_app, play, job, tmp_path):
    play({"sleep": 60})
    task, ends = begin(job, scratch=str(tmp_path))
    task.hold()
    task.cancel()
    spin(lambda: ends)
    assert isinstance(ends[0][1], JobCancelled)


def test_an_exception_in_a_callback_stays_inside(qgis_app, play, job, tmp_path):
    play({"send": {"type": "log", "text": "here"}})
    called, logged = [], []
    QgsApplication.messageLog().messageReceived.connect(lambda text, tag, level: logged.append(text))

    def on_message(message):
        raise ValueError("in on_message")

    def on_done(result, error):
        called.append(result)
        raise ValueError("in on_done")

    begin(job, on_message, on_done, str(tmp_path))
    spin(lambda: called)
    assert "ValueError: in on_message" in logged
    assert "ValueError: in on_done" in logged


def test_listeners_hear_each_state(play, job, tmp_path):
    play({"send": {"type": "progress", "done": 1, "total": 4, "stage": "bands", "unit": ""}})
    heard = []
    unsubscribe = manager.history().subscribe(heard.append)
    manager.run_job(job, interpreter=sys.executable, scratch=str(tmp_path))
    unsubscribe()
    assert [(r.state, r.share) for r in heard] == [("waiting", 0), ("running", 0), ("running", 0.25), ("done", 1)]
    assert {r.number for r in heard} == {heard[0].number}
    assert heard[-1].output == job.output
    assert heard[-1].seconds > 0
