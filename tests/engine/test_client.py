"""The parent's side with real child processes: results, errors, cancel, crashes, warm workers, nothing left behind."""

import importlib.util
import math
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from deepscape.tasks import client, protocol
from deepscape.tasks.environment import extras
from deepscape.tasks.errors import (
    BadInput,
    DiskFull,
    EngineMissing,
    EngineSetupFailed,
    JobCancelled,
    JobFailed,
    WorkerCrashed,
)

ROOT = Path(__file__).resolve().parents[2]
WORKER_JOBS = Path(__file__).with_name("worker_jobs.py")


def load_worker_jobs():
    name = "deepscape.worker_jobs"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, WORKER_JOBS)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


worker_jobs = load_worker_jobs()
Trick = worker_jobs.Trick


@pytest.fixture
def pool(tmp_path):
    made = client.WorkerPool(script=str(WORKER_JOBS))
    made.messages = []
    made.scratch = tmp_path / "scratch folder ü"

    def run(
        trick, *, cancelled=lambda: False, stopping=lambda: False, on_message=made.messages.append,
        interpreter=sys.executable, **fields,
    ):  # fmt: skip
        job = trick if isinstance(trick, Trick) else Trick(trick, **fields)
        return made.run(
            job,
            interpreter=interpreter,
            on_message=on_message,
            cancelled=cancelled,
            stopping=stopping,
            scratch=str(made.scratch),
        )

    made.do = run
    yield made
    made.shutdown(grace_s=0.2)


class Beside:
    """A call in a thread of its own; `end` returns what it returned or raised."""

    def __init__(self, function, *args, **kwargs):
        self.messages = []
        self.stop = threading.Event()
        self.outcome = None

        def work():
            try:
                self.outcome = function(*args, on_message=self.messages.append, cancelled=self.stop.is_set, **kwargs)
            except Exception as error:
                self.outcome = error

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def said(self, kind):
        return [message for message in self.messages if message["type"] == kind]

    def end(self, seconds=20):
        self.thread.join(seconds)
        assert not self.thread.is_alive()
        return self.outcome


class Later:
    """True some seconds after it was first asked."""

    def __init__(self, seconds):
        self.seconds, self.first = seconds, None

    def __call__(self):
        self.first = self.first or time.monotonic()
        return time.monotonic() - self.first >= self.seconds


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # dead; whoever inherited it has not asked for its exit code yet


def worker_pid(pool):
    (pid,) = pool.pids()
    return pid


# --- results and messages ---


def test_messages_and_result_arrive(pool):
    result = pool.do("say", text="Łódź")
    assert [message["type"] for message in pool.messages] == [
        "started", "log", "warning", "metric", "progress", "progress",
    ]  # fmt: skip
    assert pool.messages[0]["warm"] is False
    assert pool.messages[3]["value"] == 0.25
    assert [message["done"] for message in pool.messages[4:]] == [1, 5]
    assert result.text == "Łódź"
    assert result.value != result.value
    assert result.warnings == ("a warning",)


def test_numpy_values_pass(pool):
    result = pool.do("numpy_values")
    metrics = [message["value"] for message in pool.messages if message["type"] == "metric"]
    assert metrics[0] == 0.5
    assert math.isnan(metrics[1])
    assert result.value == 0.25
    assert result.facts == {"counts": [0, 1, 2], "7": 255, "yes": True}


def test_pictures_arrive_as_bytes(pool):
    pool.do("picture")
    (picture,) = (message for message in pool.messages if message["type"] == "picture")
    assert (picture["name"], picture["step"], picture["caption"]) == ("validation 1", 3, "Épreuve")
    assert picture["png"] == b"\x89PNG not really"


def test_the_callback_runs_in_the_callers_thread(pool):
    threads = set()
    pool.do("say", on_message=lambda message: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}


def test_prints_from_python_c_and_children_do_not_break_the_channel(pool):
    assert pool.do("print_everywhere").text == "from a child\n"
    assert [message["type"] for message in pool.messages] == ["started"]


def test_a_worker_is_warm_at_the_second_job(pool):
    pool.do("say")
    first = worker_pid(pool)
    pool.messages.clear()
    pool.do("say")
    assert worker_pid(pool) == first
    assert pool.messages[0] == {"type": "started", "warm": True, "pid": first}


def test_environment_is_clean(pool, monkeypatch):
    for name in ("PYTHONPATH", "PROJ_LIB", "GDAL_DATA", "QGIS_PREFIX_PATH", "QT_PLUGIN_PATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    facts = pool.do("environment").facts
    assert not [name for name in facts["environ"] if name.startswith(("PYTHON", "PROJ_", "GDAL_", "QGIS_", "QT_"))]
    assert "LD_LIBRARY_PATH" not in facts["environ"]
    assert facts["environ"]["HTTPS_PROXY"] == "http://proxy:1"
    assert facts["cwd"] == str(pool.scratch)
    assert not [path for path in facts["path"] if Path(path) in (ROOT, ROOT / "tasks", Path(""))]
    assert not {"jobs", "models", "tests", "tasks", "engine", "torch", "numpy"} & set(facts["names"])
    assert facts["nice"] >= 10 or os.nice(0) > 10
    assert facts["group"] == facts["pid"] != os.getpgrp()
    assert facts["threads"] == pool.cores


# --- errors ---


@pytest.mark.parametrize(
    ("text", "cls", "sentence", "stays"),
    [
        ("input", BadInput, "Class 7 is unknown. Take class 1.", True),
        ("missing", BadInput, "'/no/file.tif' does not exist. Check the path.", True),
        ("room", DiskFull, "No room is left in '", False),
        ("room_in_text", DiskFull, "No room is left in '", False),
        ("memory", JobFailed, "There is not enough memory for 'trick'.", False),
        ("value", JobFailed, "The job 'trick' failed: ValueError: no good.", False),
        ("exit", JobFailed, "The job 'trick' failed: SystemExit: 3.", False),
        ("package", EngineSetupFailed, "The engine's environment lacks the package 'rasterio'.", False),
    ],
)
def test_errors_come_with_sentence_and_traceback_and_only_bad_input_keeps_the_worker(pool, text, cls, sentence, stays):
    with pytest.raises(cls) as raised:
        pool.do("fail", text=text)
    assert type(raised.value) is cls
    assert str(raised.value).startswith(sentence)
    assert "Traceback" in raised.value.details
    assert len(pool.pids()) == stays


def test_disk_full_names_the_folder(pool, tmp_path):
    with pytest.raises(DiskFull) as raised:
        pool.do("dev_full", output=str(tmp_path / "map.tif"))
    # The system's error has no file name: of the folders that the job writes to, the one with the least room is named.
    assert raised.value.message == f"No room is left in '{tmp_path}'."


def test_a_file_too_large_for_its_file_system(pool, tmp_path):
    with pytest.raises(DiskFull) as raised:
        pool.do("limited_file", output=str(tmp_path / "map.tif"))
    assert raised.value.message == f"The file system of '{tmp_path}' takes no file this large."


def test_a_missing_runner_is_our_defect(pool):
    with pytest.raises(JobFailed, match=r"No module named 'deepscape\.no_such_module'"):
        pool.do(worker_jobs.BadRunner("say"))


@pytest.mark.parametrize("trick", ["unserialisable", "wrong_result"])
def test_a_result_that_cannot_be_sent(pool, trick):
    with pytest.raises(JobFailed, match="TypeError"):
        pool.do(trick)


def test_an_output_that_cannot_be_written_is_found_before_the_work(pool, tmp_path):
    with pytest.raises(BadInput) as raised:
        pool.do("write", output=str(tmp_path / "none" / "map.tif"))
    assert raised.value.message == f"The folder '{tmp_path / 'none'}' of OUTPUT does not exist."
    assert not (tmp_path / "none").exists()


def test_unicode_and_spaces_in_paths(pool, tmp_path):
    folder = tmp_path / "Ümlaut 日本 'quoted'"
    folder.mkdir()
    pool.do("write", output=str(folder / "ma p.tif"))
    assert (folder / "ma p.tif").read_text() == "whole"


@pytest.mark.parametrize("text", ["", "fail"])
def test_the_scratch_folder_is_removed(pool, text):
    if text:
        with pytest.raises(JobFailed):
            pool.do("scratch", text=text)
    else:
        path = Path(pool.do("scratch").text)
        assert path.parent.parent == pool.scratch
    assert list(pool.scratch.iterdir()) == []


def test_an_exception_in_the_callback_leaves_no_worker_at_work(pool):
    def on_message(message):
        if message["type"] == "progress":
            raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        pool.do("steps", on_message=on_message)
    assert pool.pids() == []


# --- stop and keep the best ---


def test_a_job_that_is_asked_to_stop_ends_with_its_result(pool):
    asked = iter([False, True])
    result = pool.do("until_stopped", seconds=1, stopping=lambda: next(asked, False))
    assert result.text == "the best of it"


def test_every_request_to_stop_is_sent_once(pool):
    stops = threading.Event()

    def take():
        asked = stops.is_set()
        stops.clear()
        return asked

    def on_message(message):
        if message["type"] == "progress":  # of each of the two trainings
            stops.set()

    assert pool.do("until_stopped", seconds=2, stopping=take, on_message=on_message).text == "the best of it"


def test_a_job_that_is_stopping_can_be_cancelled(pool):
    with pytest.raises(JobCancelled):
        asked = iter([True])
        pool.do("until_stopped", seconds=2, stopping=lambda: next(asked, False), cancelled=Later(0.5))


# --- cancel ---


def test_what_is_kept_of_a_cancelled_job_is_said(pool):
    with pytest.raises(JobCancelled, match=r"^Cancelled\. 2 of 3 epochs are kept\.$"):
        pool.do("keep_some", text="2 of 3 epochs are kept.")


def test_cancel_between_steps_takes_less_than_a_second_and_keeps_the_worker(pool):
    running = Beside(pool.do, "steps")
    until(lambda: running.said("progress"))
    pid = worker_pid(pool)
    begun = time.monotonic()
    running.stop.set()
    assert isinstance(running.end(), JobCancelled)
    assert time.monotonic() - begun < 1.0
    assert pool.pids() == [pid]
    pool.do("say")
    assert pool.pids() == [pid]


def test_a_silent_worker_is_killed_after_the_time_for_cancelling(pool, tmp_path):
    pool.cancel_s = 0.5
    running = Beside(pool.do, "hang", text=str(tmp_path / "pid"))
    until(lambda: running.said("progress"))
    pid = worker_pid(pool)
    begun = time.monotonic()
    running.stop.set()
    assert isinstance(running.end(), JobCancelled)
    assert 0.5 <= time.monotonic() - begun < 2.0
    assert gone(pid)
    assert pool.pids() == []


@pytest.mark.slow
def test_a_silent_worker_is_killed_after_five_seconds(pool):
    running = Beside(pool.do, "hang")
    until(lambda: running.said("progress"))
    begun = time.monotonic()
    running.stop.set()
    assert isinstance(running.end(), JobCancelled)
    assert 5.0 <= time.monotonic() - begun < 6.5


def test_a_kill_takes_the_workers_children_along(pool, tmp_path):
    pool.cancel_s = 0.2
    running = Beside(pool.do, "with_child", text=str(tmp_path / "pids"))
    until(lambda: running.said("progress"))
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    running.stop.set()
    assert isinstance(running.end(), JobCancelled)
    # The worker is waited for; its child is killed with it, and buried by the system a moment later.
    assert len(pids) == 2
    until(lambda: all(gone(pid) for pid in pids))


def test_a_killed_job_leaves_no_half_written_file(pool, tmp_path):
    pool.cancel_s = 0.2
    (tmp_path / ".other.0123abcd.part.tif").write_text("another program's")
    running = Beside(pool.do, "part", output=str(tmp_path / "map.tif"))
    until(lambda: running.said("progress"))
    assert (tmp_path / ".map.0123abcd.part.tif").exists()
    running.stop.set()
    running.end()
    assert not (tmp_path / ".map.0123abcd.part.tif").exists()
    assert (tmp_path / ".other.0123abcd.part.tif").exists()


def test_a_job_that_is_cancelled_before_it_begins(pool):
    with pytest.raises(JobCancelled):
        pool.do("say", cancelled=lambda: True)


# --- crashes ---


@pytest.mark.parametrize(
    ("trick", "fields", "what"),
    [
        ("exit_at_once", {"seconds": 9.0}, "(exit code 9)."),
        ("kill_self", {"text": "SIGKILL"}, "(signal 9, SIGKILL): probably out of memory."),
        ("kill_self", {"text": "SIGTERM"}, "(signal 15, SIGTERM)."),
        ("segfault", {}, "(signal 11, SIGSEGV)."),
    ],
)
def test_a_crash_is_a_sentence_with_the_logs_tail(pool, tmp_path, trick, fields, what):
    with pytest.raises(WorkerCrashed) as raised:
        pool.do(trick, output=str(tmp_path / "map.tif"), **fields)
    assert raised.value.message == f"The engine ended in the middle of 'trick' {what}"
    assert ("Segmentation fault" if trick == "segfault" else "last words") in raised.value.details
    assert pool.pids() == []
    assert list(tmp_path.glob("*map*")) == []
    pool.do("say")


def test_a_worker_that_is_killed_from_outside(pool):
    running = Beside(pool.do, "hang")
    until(lambda: running.said("progress"))
    os.kill(worker_pid(pool), signal.SIGKILL)
    error = running.end()
    assert isinstance(error, WorkerCrashed)
    assert "probably out of memory" in error.message


def test_a_worker_that_died_while_idle_is_replaced(pool):
    pool.do("say")
    pid = worker_pid(pool)
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid))
    pool.do("say")
    assert worker_pid(pool) != pid


def test_a_warm_worker_that_dies_before_it_begins_the_job_is_replaced(pool):
    pool.do("say")
    pid = worker_pid(pool)
    os.kill(pid, signal.SIGSTOP)  # it takes the job from the pipe no more
    killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    killer.start()
    pool.do("say")
    killer.join()
    assert worker_pid(pool) != pid


@pytest.mark.parametrize(
    ("code", "text", "memory"),
    [
        (-9, "signal 9, SIGKILL", True),
        (137, "signal 9, SIGKILL", True),
        (0xC0000005, "exit code 0xC0000005", True),
        (0xC0000017, "exit code 0xC0000017", True),
        (-11, "signal 11, SIGSEGV", False),
        (1, "exit code 1", False),
        (0, "exit code 0", False),
    ],
)
def test_exit_codes_in_words(code, text, memory):
    error = client.crash_error("classify", code, "tail")
    assert text in error.message
    assert ("probably out of memory" in error.message) is memory


def test_an_abort_for_lack_of_memory_is_recognised_by_its_last_words():
    error = client.crash_error("classify", -6, "what():  std::bad_alloc")
    assert "probably out of memory" in error.message and "give a smaller MEMORY" in error.remedy
    assert "smaller batch size" in client.crash_error("train", -6, "what():  std::bad_alloc").remedy


# --- a worker that does not start ---


def program(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    ("text", "cls", "sentence"),
    [
        ("echo 'ImportError: no libpython' >&2; exit 3", EngineSetupFailed, "ended at its start (exit code 3): Imp"),
        ("echo hello", EngineSetupFailed, "is no worker: hello."),
        ("exit 0", EngineSetupFailed, "is no worker: it printed nothing."),
        ("exec yes", EngineSetupFailed, "'"),
        ('echo \'{"type": "hello", "protocol": 99}\'; sleep 60', EngineSetupFailed, "speaks protocol 99 instead of 1"),
        ("kill -9 $$", EngineSetupFailed, "ended at its start (signal 9, SIGKILL)"),
    ],
)
def test_a_broken_interpreter_gives_one_sentence(pool, tmp_path, text, cls, sentence):
    broken = program(tmp_path / "bro ken", text)
    with pytest.raises(cls) as raised:
        pool.do("say", interpreter=broken)
    assert raised.value.message.startswith(f"The engine's Python '{broken}' ")
    assert sentence in raised.value.message
    assert "\n" not in raised.value.message
    assert "repair" in raised.value.remedy
    assert pool.pids() == []


def test_an_interpreter_that_does_not_exist(pool, tmp_path):
    with pytest.raises(EngineMissing, match="does not exist"):
        pool.do("say", interpreter=str(tmp_path / "none"))


def test_an_interpreter_that_may_not_be_run(pool, tmp_path):
    (tmp_path / "data").write_text("no program")
    with pytest.raises(EngineSetupFailed, match="cannot be started: Permission denied"):
        pool.do("say", interpreter=str(tmp_path / "data"))


def test_noise_before_the_greeting_is_harmless(pool, tmp_path):
    noisy = program(tmp_path / "noisy", f'echo "a site hook prints"\nexec {sys.executable} "$@"')
    assert pool.do("say", interpreter=noisy, text="fine").text == "fine"


def test_a_slow_start_can_be_cancelled(pool, tmp_path):
    slow = program(tmp_path / "slow", "exec sleep 60")
    begun = time.monotonic()
    running = Beside(pool.do, "say", interpreter=slow)
    until(lambda: pool.pids())
    running.stop.set()
    assert isinstance(running.end(), JobCancelled)
    assert time.monotonic() - begun < 5
    assert pool.pids() == []


# --- beside each other ---


def test_two_cpu_jobs_run_beside_each_other_and_the_third_waits_and_says_so(pool, tmp_path):
    pool.cores = 8
    together = tmp_path / "together"
    together.mkdir()
    first = Beside(pool.do, "rendezvous", text=str(together), seconds=2)
    until(lambda: list(together.iterdir()))
    second = Beside(pool.do, "rendezvous", text=str(together), seconds=2)
    until(lambda: first.said("progress") and second.said("progress"))
    assert sorted(file.read_text() for file in together.iterdir()) == ["4", "8"]  # the cores are shared
    third = Beside(pool.do, "say", text="third")
    until(lambda: third.said("waiting"))
    assert third.messages == [
        {"type": "waiting", "text": "Waiting for the processor to be free: 'trick', 'trick' run on it."}
    ]
    fourth = Beside(pool.do, "say")
    until(lambda: fourth.said("waiting"))
    fourth.stop.set()
    assert isinstance(fourth.end(), JobCancelled)
    assert len(pool.pids()) == 2
    (together / "go").touch()
    assert third.end().text == "third"
    first.end()
    second.end()
    assert len(pool.pids()) == 2


def test_gpu_jobs_run_one_at_a_time_beside_a_cpu_job(pool, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    first = Beside(pool.do, "rendezvous", text=str(alone), seconds=1, device_choice="cuda")
    until(lambda: first.said("progress"))
    second = Beside(pool.do, "say", text="second", device_choice="cuda")
    until(lambda: second.said("waiting"))
    assert second.messages[0]["text"] == "Waiting for the GPU to be free: 'trick' runs on it."
    assert pool.do("say", text="beside").text == "beside"
    (alone / "go").touch()
    assert second.end().text == "second"
    assert second.said("started")[0]["warm"] is True
    first.end()


def test_auto_is_the_gpu_where_there_is_one(pool, tmp_path):
    def lane(auto_device):
        return pool._lane(Trick("say", device_choice="auto"), sys.executable, auto_device).name

    assert lane("cpu") == "processor"
    assert lane("cuda") == "GPU"
    pool._with_gpu.add(sys.executable)  # a job reported that it has used it
    assert lane("cpu") == "GPU"


# --- how long a worker lives ---


def test_an_idle_worker_ends(pool):
    pool.idle_s = 0.2
    pool.do("say")
    pid = worker_pid(pool)
    until(lambda: gone(pid), seconds=5)
    until(lambda: pool.pids() == [])
    pool.do("say")


def test_a_busy_worker_outlives_the_idle_time(pool, tmp_path):
    pool.idle_s = 0.1
    pool.do("hang", seconds=0.05)
    pool.do("hang", seconds=0.5)


def test_a_worker_that_has_grown_is_replaced(pool):
    pool.do("say")
    first = worker_pid(pool)
    pool.do("leak", seconds=1)
    assert pool.pids() == [first]
    pool.do("leak", seconds=100)
    assert pool.pids() == []
    assert gone(first)


def test_the_first_idle_memory_is_taken_anew_for_each_kind():
    worker = object.__new__(client.WorkerProcess)
    worker._kinds, worker._first_idle_bytes = set(), 0
    assert not worker.grew("selectsamples", 100)
    assert not worker.grew("selectsamples", 150)
    assert not worker.grew("trainclassifier", 400)  # it has loaded torch
    assert not worker.grew("selectsamples", 600)
    assert worker.grew("trainclassifier", 601)
    assert not worker.grew("classify", 0)  # the system does not tell


def test_a_new_version_of_the_plugin_gets_a_new_worker(pool, monkeypatch):
    pool.do("say")
    first = worker_pid(pool)
    monkeypatch.setattr(protocol, "plugin_version", lambda: "99.0.0")
    pool.do("say")
    assert gone(first)


def test_another_interpreter_gets_another_worker(pool, tmp_path):
    pool.do("say")
    first = worker_pid(pool)
    other = program(tmp_path / "python", f'exec {sys.executable} "$@"')
    pool.do("say", interpreter=other)
    assert gone(first)
    assert worker_pid(pool) != first


def test_an_extra_that_comes_leaves_the_busy_worker_and_is_found_by_the_next(pool, tmp_path):
    environment = tmp_path / "engine"
    packages = environment / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (environment / "bin").mkdir()
    python = program(environment / "bin" / "python", f'exec {sys.executable} "$@"')
    pool.do("say", interpreter=python)
    first = worker_pid(pool)
    busy = Beside(pool.do, "steps", interpreter=python)
    until(lambda: busy.said("progress"))
    extras.extra_folder(environment, "openvino").mkdir(parents=True)
    extras.switch_on(environment, "openvino")
    extras.complete(extras.extra_folder(environment, "openvino"), {"version": "2026.4.1"})
    assert worker_pid(pool) == first
    busy.stop.set()
    assert isinstance(busy.end(), JobCancelled) and worker_pid(pool) == first
    pool.do("say", interpreter=python)
    assert gone(first) and worker_pid(pool) != first


def test_shutdown_ends_idle_and_busy_workers_and_those_who_wait(pool):
    busy = [Beside(pool.do, "hang"), Beside(pool.do, "steps")]
    until(lambda: all(each.said("progress") for each in busy))
    waiting = Beside(pool.do, "say")
    until(lambda: waiting.said("waiting"))
    pids = pool.pids()
    begun = time.monotonic()
    pool.shutdown(grace_s=0.3)
    assert time.monotonic() - begun < 2.0
    assert all(gone(pid) for pid in pids)
    assert all(isinstance(each.end(), JobCancelled) for each in [*busy, waiting])
    assert pool.pids() == []
    assert pool.do("say", text="again").text == "again"


# --- nothing is left behind ---

PARENT = """
import sys, time
sys.path.insert(0, {plugins!r})
import importlib.util
from deepscape.tasks import client
spec = importlib.util.spec_from_file_location("deepscape.worker_jobs", {jobs!r})
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
client.pool().script = {jobs!r}
def run(*args, **kwargs):
    return client.run_job(module.Trick(*args, **kwargs), interpreter=sys.executable, scratch={scratch!r})
{body}
"""


def start_parent(tmp_path, body):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "deepscape").symlink_to(ROOT)
    text = PARENT.format(
        plugins=str(tmp_path / "plugins"), jobs=str(WORKER_JOBS), scratch=str(tmp_path / "scratch"), body=body
    )
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(text))
    return subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)


def test_a_program_that_ends_leaves_no_worker(tmp_path):
    parent = start_parent(tmp_path, "run('say')\nprint(client.pool().pids()[0])")
    pid = int(parent.communicate(timeout=30)[0])
    assert parent.returncode == 0
    assert gone(pid)


@pytest.mark.parametrize("trick", ["steps", "with_child"])
def test_a_program_that_is_killed_leaves_no_worker_and_no_grandchild(tmp_path, trick):
    pids = tmp_path / "pids"
    body = f"""
import threading
threading.Thread(target=lambda: run({trick!r}, text={str(pids)!r}), daemon=True).start()
while not client.pool().pids(): time.sleep(0.01)
print(client.pool().pids()[0], flush=True)
time.sleep(300)
"""
    parent = start_parent(tmp_path, body)
    worker = int(parent.stdout.readline())
    everyone = [worker]
    if trick == "with_child":
        until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        everyone = [int(pid) for pid in pids.read_text().split()]
    else:
        time.sleep(0.5)
    assert not any(gone(pid) for pid in everyone)
    parent.kill()
    parent.wait()
    begun = time.monotonic()
    until(lambda: all(gone(pid) for pid in everyone), seconds=8)
    assert time.monotonic() - begun < (5.8 if trick == "with_child" else 1.5)
    parent.stdout.close()
