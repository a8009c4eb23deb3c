"""The worker's parts: progress, errors as sentences, one final message, the end of its input."""

import errno
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deepscape.tasks import protocol, worker
from deepscape.tasks.errors import BadInput, DiskFull, EngineSetupFailed, JobFailed
from deepscape.tasks.jobs import Normalise, RasterSource

ROOT = Path(__file__).resolve().parents[2]
RUN_WORKER = ROOT / "tasks" / "run_worker.py"
WORKER_JOBS = Path(__file__).with_name("worker_jobs.py")


def load_worker_jobs():
    name = "deepscape.worker_jobs"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, WORKER_JOBS)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


Trick = load_worker_jobs().Trick


# --- progress ---


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def meter():
    clock, sent = Clock(), []
    made = worker.ProgressMeter(sent.append, clock)
    made.clock, made.sent = clock, sent
    return made


def test_progress_is_thinned_to_ten_a_second_but_first_and_last_pass(meter):
    for done in range(1001):
        meter.update(done, 1000, "tiles", "pixels")
        meter.clock.now += 0.001
    done = [message["done"] for message in meter.sent]
    assert done[0] == 0
    assert done[-1] == 1000
    assert 10 <= len(done) <= 12


def test_each_stage_begins_and_ends_with_a_message(meter):
    meter.update(0, 10, "read", "")
    meter.update(7, 10, "read", "")
    meter.update(0, 3, "write", "")
    meter.update(1, 3, "write", "")
    meter.flush()
    meter.flush()
    assert [(m["stage"], m["done"]) for m in meter.sent] == [("read", 0), ("read", 7), ("write", 0), ("write", 1)]


def test_a_finished_stage_does_not_repeat_itself(meter):
    for _ in range(50):
        meter.update(5, 5, "read", "")
    assert len(meter.sent) == 1


def test_rate_and_remaining_time(meter):
    meter.update(40, 100, "tiles", "pixels")  # continued: the first 40 were there before
    assert meter.sent[-1]["rate"] is None
    assert meter.sent[-1]["remaining"] is None
    meter.clock.now += 2.0
    meter.update(60, 100, "tiles", "pixels")
    assert meter.sent[-1]["rate"] == 10.0
    assert meter.sent[-1]["remaining"] == 4.0
    assert meter.sent[-1]["unit"] == "pixels"


def test_a_stage_that_starts_again_counts_anew(meter):
    meter.update(10, 10, "epoch", "")
    meter.clock.now += 1.0
    meter.update(0, 10, "epoch", "")
    meter.clock.now += 1.0
    meter.update(5, 10, "epoch", "")
    assert meter.sent[-1]["rate"] == 5.0


# --- errors ---

JOB = Normalise(RasterSource("/data/in put.tif"), "/out/map.tif")


def caused(text):
    error = ValueError("write failed")
    error.__cause__ = RuntimeError(text)
    return error


@pytest.mark.parametrize(
    ("error", "cls", "sentence"),
    [
        (OSError(errno.ENOSPC, "x", "/full/map.tif"), DiskFull, "No room is left in '/full'."),
        (caused("TIFFAppendToStrip: No space left on device"), DiskFull, "No room is left in '"),
        (RuntimeError("sqlite3_step() failed: database or disk is full"), DiskFull, "No room is left in '"),
        (OSError(errno.EFBIG, "x", "/fat/map.tif"), DiskFull, "The file system of '/fat' takes no file this large."),
        (MemoryError(), JobFailed, "There is not enough memory for 'normalise'."),
        (RuntimeError("CUDA out of memory. Tried"), JobFailed, "There is not enough memory for 'normalise'."),
        (PermissionError(13, "x", "/out/map.tif"), BadInput, "The folder '/out' cannot be written."),
        (OSError(errno.EROFS, "x"), BadInput, "The folder '/out' cannot be written."),
        (
            PermissionError(13, "x", "/data/in put.tif"),
            BadInput,
            "'/data/in put.tif' cannot be read: permission denied.",
        ),
        (PermissionError(13, "x", "/etc/a"), BadInput, "'/etc/a' in the folder '/etc' cannot be read or written"),
        (FileNotFoundError(2, "x", "/data/none.tif"), BadInput, "'/data/none.tif' does not exist."),
        (ModuleNotFoundError("x", name="torch"), EngineSetupFailed, "environment lacks the package 'torch'."),
        (ValueError("bad shape.\nmore"), JobFailed, "The job 'normalise' failed: ValueError: bad shape."),
        (KeyError(), JobFailed, "The job 'normalise' failed: KeyError."),
        (BadInput("Class 7.", "Take 1."), BadInput, "Class 7."),
    ],
)
def test_every_error_becomes_a_sentence(error, cls, sentence):
    try:
        raise error
    except Exception as raised:
        known = worker.explain(raised, JOB)
    assert type(known) is cls
    assert sentence in known.message
    assert known.remedy.endswith(".")
    assert "Traceback" in known.details
    assert "\n" not in known.message


def test_a_full_device_names_the_folder(tmp_path):
    job = Normalise(RasterSource("in.tif"), str(tmp_path / "map.tif"))
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError) as raised:
        file.write(b"x" * 10)
    assert worker.explain(raised.value, job).message == f"No room is left in '{tmp_path}'."


def test_any_error_on_a_disk_without_room_is_for_want_of_room(tmp_path, monkeypatch):
    job = Normalise(RasterSource("in.tif"), str(tmp_path / "map.tif"))
    error = RuntimeError("no such table: gpkg_contents")
    assert isinstance(worker.explain(error, job), JobFailed)
    monkeypatch.setattr(worker, "_free_bytes", lambda folder: 4096)
    assert worker.explain(error, job).message == f"No room is left in '{tmp_path}'."


# --- a process of its own, spoken to directly ---


class Child:
    """A worker process without the client."""

    def __init__(self, cwd, script=WORKER_JOBS):
        command = [sys.executable, "-I", "-X", "utf8", "-u", str(script)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, start_new_session=True, bufsize=0
        )
        self.reader = protocol.LineReader(self.process.stdout.fileno())

    def send(self, **message):
        self.process.stdin.write(protocol.encode(message))

    def job(self, number, trick, **fields):
        self.send(type="job", id=number, kind="trick", job={"trick": trick, **fields})

    def receive(self, until=protocol.FINAL):
        messages = []
        while not messages or messages[-1]["type"] not in until:
            messages.append(protocol.decode(self.reader.readline()))
        return messages

    def silent(self, seconds=0.3):
        return not select.select([self.process.stdout], [], [], seconds)[0]


@pytest.fixture
def child(tmp_path):
    made = Child(tmp_path)
    yield made
    if made.process.poll() is None:
        os.killpg(made.process.pid, signal.SIGKILL)
    made.process.stdin.close()
    made.process.wait()
    made.process.stdout.close()
    made.process.stderr.close()


def test_hello_comes_first(child):
    (hello,) = child.receive({"hello"})
    assert hello["protocol"] == protocol.PROTOCOL
    assert hello["version"] == protocol.plugin_version()
    assert hello["pid"] == child.process.pid
    assert hello["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_job_ends_with_exactly_one_final_message(child):
    child.receive({"hello"})
    for number, trick in enumerate(["say", "unserialisable", "wrong_result", "say"]):
        child.job(number, trick)
        messages = child.receive()
        assert all(message["id"] == number for message in messages)
        assert [message["type"] in protocol.FINAL for message in messages].count(True) == 1
        assert messages[-1]["type"] == ("result" if trick == "say" else "error")
        assert messages[-1]["memory"] > 5e6
        assert messages[-1]["device"] == "cpu"
    assert child.silent()


def test_unknown_and_broken_messages_do_no_harm(child):
    child.receive({"hello"})
    child.process.stdin.write(b"noise\n{}\n[1, 2]\n\xff\xff\n")
    child.send(type="dance")
    child.send(type="cancel", id=99)
    child.send(type="job", id=1, kind="nonsense", job={})
    final = child.receive()[-1]
    assert (final["type"], final["kind"]) == ("error", "input")
    assert "There is no job 'nonsense'." in final["message"]
    child.job(2, "say")
    assert child.receive()[-1]["type"] == "result"


def test_a_cancel_for_an_earlier_job_spares_the_next(child):
    child.receive({"hello"})
    child.job(1, "say")
    child.receive()
    child.send(type="cancel", id=1)
    child.job(2, "say")
    assert child.receive()[-1]["type"] == "result"


def test_a_cancel_that_comes_before_its_job_is_kept(child):
    child.receive({"hello"})
    child.send(type="cancel", id=5)
    child.job(5, "steps")
    assert child.receive()[-1]["type"] == "cancelled"


def test_a_stop_that_comes_before_its_job_is_kept_and_spares_the_next(child):
    child.receive({"hello"})
    child.send(type="stop", id=5)
    child.job(5, "until_stopped", seconds=1)
    assert child.receive()[-1]["result"]["text"] == "the best of it"
    child.job(6, "until_stopped", seconds=1)
    child.receive({"progress"})
    child.send(type="stop", id=5)
    child.send(type="cancel", id=6)
    assert child.receive()[-1]["type"] == "cancelled"


def test_end_of_input_ends_an_idle_worker_at_once(child):
    child.receive({"hello"})
    begun = time.monotonic()
    child.process.stdin.close()
    child.process.wait(timeout=5)
    assert time.monotonic() - begun < 1.0


def test_end_of_input_cancels_a_job(child):
    child.receive({"hello"})
    child.job(1, "steps")
    child.receive({"progress"})
    begun = time.monotonic()
    child.process.stdin.close()
    assert child.receive()[-1]["type"] == "cancelled"
    child.process.wait(timeout=5)
    assert time.monotonic() - begun < 1.5


def test_the_shipped_worker_starts_quickly_and_without_heavy_imports(tmp_path):
    begun = time.monotonic()
    child = Child(tmp_path, RUN_WORKER)
    child.receive({"hello"})
    seconds = time.monotonic() - begun
    child.process.stdin.close()
    child.process.wait(timeout=5)
    child.process.stdout.close()
    child.process.stderr.close()
    assert seconds < 2.0  # 0.1 s on an idle machine; tests/benchmarks/warm_worker measures it


def test_the_package_loads_whatever_the_folder_is_called(tmp_path):
    root = tmp_path / "Łódź my plugin-1.2"
    root.mkdir()
    for name in ("tasks", "styles", "__init__.py"):
        (root / name).symlink_to(ROOT / name)
    # Resolved through the link, __file__ would be the checkout's again: copy what is started.
    (root / "tasks").unlink()
    (root / "tasks").mkdir()
    for file in (ROOT / "tasks").glob("*.py"):
        (root / "tasks" / file.name).write_bytes(file.read_bytes())
    (root / "metadata.txt").write_text("version=9.8.7\n")
    child = Child(tmp_path, root / "tasks" / "run_worker.py")
    (hello,) = child.receive({"hello"})
    assert hello["version"] == "9.8.7"
    child.send(type="job", id=1, kind="nonsense", job={})
    assert "There is no job" in child.receive()[-1]["message"]
    child.process.stdin.close()
    child.process.wait(timeout=5)
    child.process.stdout.close()
    child.process.stderr.close()


def test_usage(tmp_path):
    answer = subprocess.run([sys.executable, str(RUN_WORKER), "dance"], capture_output=True, text=True)
    assert answer.returncode == 2
    assert json.dumps("usage")[1:-1] in answer.stderr
