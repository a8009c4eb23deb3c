"""Small jobs that do what a job may do to a worker; run as a script, a worker that knows them.

The tests load this file as ``deepscape.worker_jobs``; so does the script, in the worker, before it serves.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Dict, Tuple, Type


def _load_package():
    import importlib.util

    script = Path(__file__).resolve().parents[2] / "tasks" / "run_worker.py"
    spec = importlib.util.spec_from_file_location("run_worker", script)
    run_worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run_worker)
    channel = run_worker.take_channel()
    run_worker.load_package()
    return channel


if __name__ == "__main__":
    CHANNEL = _load_package()
    sys.modules["deepscape.worker_jobs"] = sys.modules["__main__"]

from deepscape.tasks import jobs  # noqa: E402 - the script has to load the package first
from deepscape.tasks.errors import BadInput, JobCancelled  # noqa: E402


@dataclass(frozen=True)
class TrickResult:
    output: str = ""
    value: float = 0.0
    text: str = ""
    facts: Dict[str, Any] = field(default_factory=dict)
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Trick(jobs.Job):
    kind: ClassVar[str] = "trick"
    runner: ClassVar[str] = "worker_jobs:do_trick"
    result_type: ClassVar[Type[Any]] = TrickResult
    inputs: ClassVar[Tuple[str, ...]] = ("source",)
    device_field: ClassVar[str] = "device_choice"

    trick: str
    output: str = ""
    source: str = ""
    seconds: float = 0.0
    text: str = ""
    device_choice: str = "cpu"


@dataclass(frozen=True)
class BadRunner(Trick):
    kind: ClassVar[str] = "badrunner"
    runner: ClassVar[str] = "no_such_module:run"


jobs.JOBS_BY_KIND[Trick.kind] = Trick
jobs.JOBS_BY_KIND[BadRunner.kind] = BadRunner

KEPT = []


def do_trick(job, context):
    return TRICKS[job.trick](job, context) or TrickResult()


def keep_some(job, context):
    raise JobCancelled(remedy=job.text)


def say(job, context):
    context.log("a log line")
    context.warn("a warning")
    context.metric("train/loss", 0.25, 3)
    for done in range(5):
        context.progress(done + 1, 5, "tiles", "pixels")
    return TrickResult(text=job.text, value=float("nan"), warnings=tuple(context.warnings))


def picture(job, context):
    context.picture("validation 1", b"\x89PNG not really", 3, "Épreuve")


def until_stopped(job, context):
    # Twice where asked: a training in a job of several takes the request, and the next may get its own.
    for number in range(int(job.seconds)):
        context.progress(number, job.seconds, "training", "epochs")
        while not context.stopping.wait(0.05):
            context.check()
        context.stopping.clear()
    return TrickResult(text="the best of it")


def numpy_values(job, context):
    import numpy as np

    context.progress(np.int64(1), np.float32(2), "tiles", "pixels")
    context.metric("kappa", np.float64(0.5), np.int32(1))
    context.metric("kappa", np.float32("nan"), 2)
    return TrickResult(value=np.float64(0.25), facts={"counts": np.arange(3), 7: np.uint8(255), "yes": np.bool_(True)})


def steps(job, context):
    for done in range(10_000):
        context.progress(done, 10_000, "steps")
        context.check()
        time.sleep(0.05)


def hang(job, context):
    context.progress(0, 1, "hanging")
    Path(job.text).write_text(str(os.getpid())) if job.text else None
    time.sleep(job.seconds or 60)


def part(job, context):
    target = Path(job.output)
    target.with_name(f".{target.stem}.0123abcd.part{target.suffix}").write_text("half")
    context.progress(0, 1, "writing")
    time.sleep(60)


def write(job, context):
    Path(job.output).write_text("whole")
    return TrickResult(output=job.output)


def exit_at_once(job, context):
    sys.stderr.write("last words\n")
    os._exit(int(job.seconds))


def kill_self(job, context):
    sys.stderr.write("last words\n")
    os.kill(os.getpid(), getattr(signal, job.text))


def segfault(job, context):
    ctypes.string_at(1)


def print_everywhere(job, context):
    print("printed to stdout")
    os.write(1, b"{not a message}\nwritten to descriptor 1\n")
    ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).fflush(None)
    child = subprocess.run(["sh", "-c", "echo from a child; cat"], capture_output=True, text=True)
    return TrickResult(text=child.stdout)


def environment(job, context):
    return TrickResult(
        facts={
            "environ": dict(os.environ),
            "cwd": os.getcwd(),
            "path": sys.path,
            "nice": os.nice(0),
            "threads": context.threads(),
            "pid": os.getpid(),
            "group": os.getpgrp(),
            "names": sorted(sys.modules),
            "descriptors": sorted(os.listdir("/proc/self/fd")),
        }
    )


def scratch(job, context):
    path = context.scratch("file.txt")
    Path(path).write_text("x")
    if job.text == "fail":
        raise ValueError("on purpose")
    return TrickResult(text=path)


def fail(job, context):
    errors = {
        "input": BadInput("Class 7 is unknown.", "Take class 1."),
        "value": ValueError("no good"),
        "memory": MemoryError(),
        "room": OSError(28, "No space left on device"),
        "room_in_text": RuntimeError("write failed: No space left on device"),
        "permission": PermissionError(13, "Permission denied", "/somewhere/file.tif"),
        "readonly": OSError(30, "Read-only file system"),
        "missing": FileNotFoundError(2, "No such file", "/no/file.tif"),
        "exit": SystemExit(3),
        "package": ModuleNotFoundError("No module named 'rasterio'", name="rasterio"),
    }
    raise errors[job.text]


def dev_full(job, context):
    with open("/dev/full", "wb") as file:
        file.write(b"x" * 100_000)


def limited_file(job, context):
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    Path(job.output).write_bytes(b"x" * 100_000)


def unserialisable(job, context):
    return TrickResult(facts={"object": object()})


def wrong_result(job, context):
    return {"not": "a result"}


def leak(job, context):
    KEPT.append(bytearray(os.urandom(1) * int(job.seconds * 1e6)))


def with_child(job, context):
    child = subprocess.Popen(["sleep", "300"])
    Path(job.text).write_text(f"{os.getpid()} {child.pid}")
    context.progress(0, 1, "hanging")
    time.sleep(300)


def rendezvous(job, context):
    """Say that we are here and wait until everyone who should be is."""
    Path(job.text, str(os.getpid())).write_text(str(context.threads()))
    while len(os.listdir(job.text)) < job.seconds:
        context.check()
        time.sleep(0.01)
    context.progress(1, 1, "together")
    while not Path(job.text, "go").exists():
        context.check()
        time.sleep(0.01)


TRICKS = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", None) == __name__ and not name.startswith("_")
}

if __name__ == "__main__":
    import deepscape.tasks.worker

    sys.exit(deepscape.tasks.worker.main(*CHANNEL))
