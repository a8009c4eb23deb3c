"""The child's side of the seam: reads jobs, runs engine functions, sends messages. Started by tasks/run_worker.py.

The main thread runs the jobs, one at a time; a second thread watches the input for ``cancel`` and its end. At the end
of the input (QGIS closed it, or is gone) the job is cancelled and has five seconds; then this process ends with all
its children.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import errno
import faulthandler
import gc
import importlib
import os
import platform
import queue
import shutil
import signal
import subprocess  # nosec B404 - ends our own children on Windows, asks for our memory on macOS
import sys
import threading
import time
import traceback
from typing import Any, Callable, List, Optional, Set

from . import protocol
from .context import Context
from .errors import (
    BadInput,
    DeepscapeError,
    DiskFull,
    EngineSetupFailed,
    JobCancelled,
    JobFailed,
    less_memory,
)
from .jobfiles import check_outputs, input_paths, output_paths, remove_parts
from .jobs import Job, job_from_plain
from .protocol import Message

PACKAGE = __package__.rpartition(".")[0] if __package__ else "deepscape"

END_S = 5.0
PROGRESS_S = 0.1

_ROOM = (errno.ENOSPC, errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC)
_ROOM_TEXTS = ("no space left", "disk full", "disk is full", "disk quota exceeded", "not enough space on the disk")
_ROOM_BYTES = 1 << 20
_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc")


def perform(job: Job, context: Context) -> Any:
    """Check the job's outputs, import its engine function and run it; returns its ``result_type``."""
    check_outputs(job)
    module_name, _, function_name = job.runner.partition(":")
    function: Callable[[Job, Context], Any] = getattr(
        importlib.import_module(f"{PACKAGE}.{module_name}"), function_name
    )
    context.check()
    result = function(job, context)
    if not isinstance(result, job.result_type):
        raise TypeError(f"{job.runner} returned {type(result).__name__} instead of {job.result_type.__name__}")
    return result


# --- progress --------------------------------------------------------------------------------------------------------


class ProgressMeter:
    """Thins progress to ten messages a second and adds the rate and the remaining time.

    The first and the last message of a stage always pass; a message that was held back passes before the next stage.
    """

    def __init__(self, send: Callable[[Message], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._stage: Optional[str] = None
        self._held: Optional[Message] = None
        self._started_s = self._sent_s = 0.0
        self._first = self._last = 0.0
        self._complete = False

    def update(self, done: float, total: float, stage: str, unit: str) -> None:
        """Take ``done`` of ``total`` units of the named stage."""
        done, total, stage, unit = float(done), float(total), str(stage), str(unit)
        with self._lock:
            now = self._clock()
            begins = stage != self._stage or done < self._last
            if begins:
                self._flush()
                self._stage, self._started_s, self._first, self._complete = stage, now, done, False
            self._last = done
            elapsed = now - self._started_s
            rate = (done - self._first) / elapsed if elapsed > 0 and done > self._first else None
            self._held = {
                "type": "progress", "done": done, "total": total, "stage": stage, "unit": unit, "rate": rate,
                "remaining": max(0.0, total - done) / rate if rate else None,
            }  # fmt: skip
            completes = done >= total and not self._complete
            self._complete = self._complete or done >= total
            if begins or completes or now - self._sent_s >= PROGRESS_S:
                self._flush()

    def flush(self) -> None:
        """Send what was held back."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._held is not None:
            message, self._held = self._held, None
            self._sent_s = self._clock()
            self._send(message)


class JobContext(Context):
    """The context of a job in the worker: what the engine says becomes messages."""

    def __init__(self, send: Callable[[Message], None], scratch: str = "", threads: Optional[int] = None) -> None:
        super().__init__(scratch)
        self._send = send
        self._threads = threads
        self._meter = ProgressMeter(send)

    def progress(self, done: float, total: float, stage: str = "", unit: str = "") -> None:
        """Send the progress, thinned."""
        self._meter.update(done, total, stage, unit)

    def log(self, text: str) -> None:
        """Send a fact about the run."""
        self._send({"type": "log", "text": str(text)})

    def warn(self, text: str) -> None:
        """Keep and send a warning."""
        super().warn(text)
        self._send({"type": "warning", "text": str(text)})

    def metric(self, name: str, value: float, step: int) -> None:
        """Send the value of a metric at a step."""
        self._send({"type": "metric", "name": str(name), "value": float(value), "step": int(step)})

    def picture(self, name: str, png: bytes, step: int, caption: str = "") -> None:
        """Send a picture of a step."""
        text = base64.b64encode(png).decode("ascii")
        self._send({"type": "picture", "name": str(name), "png": text, "step": int(step), "caption": str(caption)})

    def threads(self) -> Optional[int]:
        """Return this job's share of the cores."""
        return self._threads

    def scratch(self, name: str = "") -> str:
        """Return a path in this job's temporary folder, which is made when first asked for."""
        if self._scratch:
            os.makedirs(self._scratch, exist_ok=True)
        return super().scratch(name)

    def close(self) -> None:
        """Send what was held back and remove the temporary folder."""
        self._meter.flush()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)


# --- errors ----------------------------------------------------------------------------------------------------------


def explain(error: BaseException, job: Optional[Job]) -> DeepscapeError:
    """Return any error as one with a sentence and a remedy; ``details`` holds the traceback."""
    details = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    known = error if isinstance(error, DeepscapeError) else _sentence(error, job)
    known.details = known.details or details
    return known


def _sentence(error: BaseException, job: Optional[Job]) -> DeepscapeError:
    kind = job.kind if job is not None else "job"
    # rasterio and GDAL wrap the system's error: its text is only in the cause.
    text = " ".join(str(part) for part in (error, error.__cause__, error.__context__) if part is not None).lower()
    number = getattr(error, "errno", None) if isinstance(error, OSError) else None
    if number in _ROOM or any(part in text for part in _ROOM_TEXTS):
        return DiskFull(
            f"No room is left in '{_full_folder(error, job)}'.", "Free space there or choose another folder."
        )
    if number == errno.EFBIG:
        return DiskFull(
            f"The file system of '{_full_folder(error, job)}' takes no file this large.", "Choose another folder."
        )
    if isinstance(error, MemoryError) or any(part in text for part in _MEMORY_TEXTS):
        return JobFailed(
            f"There is not enough memory for '{kind}'.",
            less_memory(kind),
        )
    if isinstance(error, PermissionError) or number in (errno.EROFS, errno.EACCES):
        return _no_permission(error, job)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)) and error.filename is not None:
        return BadInput(f"'{_text(error.filename)}' does not exist.", "Check the path.")
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(PACKAGE):
        return EngineSetupFailed(
            f"The engine's environment lacks the package '{error.name}'.",
            "Run 'Set up the engine' with ACTION repair.",
        )
    full = [folder for folder in _folders(job) if os.path.isdir(folder) and _free_bytes(folder) < _ROOM_BYTES]
    if full:  # GDAL's and SQLite's errors on a full disk speak of tables that are missing and the like
        return DiskFull(f"No room is left in '{full[0]}'.", "Free space there or choose another folder.")
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return JobFailed(
        f"The job '{kind}' failed: {type(error).__name__}{': ' + first if first else ''}.",
        "This is a defect of Deepscape or of a library: report it with the log.",
    )


def _no_permission(error: BaseException, job: Optional[Job]) -> BadInput:
    path = _text(getattr(error, "filename", None) or "")
    if job is not None and path and os.path.realpath(path) in {os.path.realpath(p) for p in input_paths(job)}:
        return BadInput(f"'{path}' cannot be read: permission denied.", "Ask for read permission or copy the file.")
    folders = _folders(job)
    if path and os.path.dirname(os.path.abspath(path)) not in folders:
        return BadInput(
            f"'{path}' in the folder '{os.path.dirname(path)}' cannot be read or written: permission denied.",
            "Give yourself permission there or choose another folder.",
        )
    place = f"The folder '{os.path.dirname(os.path.abspath(path)) if path else folders[0]}'" if folders else "A folder"
    return BadInput(f"{place} cannot be written.", "Choose a folder that you may write to.")


def _folders(job: Optional[Job]) -> List[str]:
    paths = output_paths(job).values() if job is not None else ()
    return [os.path.dirname(os.path.abspath(path)) for path in paths]


def _full_folder(error: BaseException, job: Optional[Job]) -> str:
    """Return the folder that is meant: the file's own when the error names it, else the one with the least room."""
    named = _text(getattr(error, "filename", None) or "")
    if named:
        return os.path.dirname(os.path.abspath(named))
    folders = [folder for folder in [*_folders(job), os.getcwd()] if os.path.isdir(folder)]
    return min(folders, key=_free_bytes)


def _free_bytes(folder: str) -> int:
    return shutil.disk_usage(folder).free


def _text(path: Any) -> str:
    return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else str(path)


# --- the process -----------------------------------------------------------------------------------------------------


class Worker:
    """The loop of a worker process.

    Args:
        protocol_in: descriptor that jobs come from.
        protocol_out: descriptor that messages go to.
    """

    def __init__(self, protocol_in: int, protocol_out: int) -> None:
        self._in = protocol_in
        self._out = protocol_out
        self._jobs: queue.Queue[Optional[Message]] = queue.Queue()
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._cancelled: Set[Any] = set()
        self._stopped: Set[Any] = set()
        self._current: Optional[JobContext] = None
        self._current_id: Any = None
        self._ended = False
        self._finished = threading.Event()

    def serve(self) -> None:
        """Run jobs until the input ends."""
        self.send(
            {
                "type": "hello",
                "protocol": protocol.PROTOCOL,
                "version": protocol.plugin_version(),
                "python": platform.python_version(),
                "pid": os.getpid(),
            }
        )
        threading.Thread(target=self._watch, name="deepscape-watch", daemon=True).start()
        while True:
            envelope = self._jobs.get()
            if envelope is None:
                break
            self._run(envelope)
        self._finished.set()

    def send(self, message: Message) -> None:
        """Send a message; when nobody reads any more, that is a cancel."""
        data = protocol.encode(message)
        with self._write_lock:
            try:
                protocol.write_all(self._out, data)
            except OSError:
                self._cancel_current()

    def _watch(self) -> None:
        reader = protocol.LineReader(self._in)
        with contextlib.suppress(EOFError):
            while True:
                self._receive(reader.readline())
        with self._lock:
            self._ended = True
        self._cancel_current()
        self._jobs.put(None)
        # Also when the loop is done: a library's thread or exit handler may hang.
        self._finished.wait(END_S)
        time.sleep(1.0 if self._finished.is_set() else 0.0)
        end_group()

    def _receive(self, line: bytes) -> None:
        message = protocol.decode(line)
        kind = message.get("type") if message is not None else None
        if message is not None and kind == "job":
            self._jobs.put(message)
        elif message is not None and kind in ("cancel", "stop"):
            number = message.get("id")
            with self._lock:
                (self._cancelled if kind == "cancel" else self._stopped).add(number)
                if self._current is not None and self._current_id == number:
                    (self._current.cancelled if kind == "cancel" else self._current.stopping).set()
        else:
            sys.stderr.write(f"The worker does not understand {line[:200]!r}\n")

    def _cancel_current(self) -> None:
        current = self._current
        if current is not None:
            current.cancelled.set()

    def _run(self, envelope: Message) -> None:
        """Do one job: any number of messages, then exactly one final one."""
        number = envelope.get("id")

        def send(message: Message) -> None:
            self.send({**message, "id": number})

        send({"type": "accepted"})
        context = JobContext(send, str(envelope.get("scratch") or ""), envelope.get("threads"))
        with self._lock:
            self._current, self._current_id = context, number
            if self._ended or number in self._cancelled:
                context.cancelled.set()
            if number in self._stopped:
                context.stopping.set()
        try:
            final = final_message(envelope, context)
        finally:
            context.close()
            with self._lock:
                self._current = self._current_id = None
                self._cancelled.discard(number)
                self._stopped.discard(number)
        final["device"] = "cuda" if _cuda_in_use() else "cpu"
        tidy()
        final["memory"] = resident_bytes()
        send(final)


def final_message(envelope: Message, context: Context) -> Message:
    """Run the job of a ``job`` message and return its ``result``, ``error`` or ``cancelled``."""
    job = None
    try:
        job = job_from_plain(envelope)
        return {"type": "result", "result": protocol.jsonable(perform(job, context))}
    except JobCancelled as error:
        return {"type": "cancelled", "remedy": error.remedy}
    except (Exception, SystemExit) as error:  # a library's sys.exit must not end the worker without an answer
        known = explain(error, job)
        return {
            "type": "error",
            "kind": known.kind,
            "message": known.message,
            "remedy": known.remedy,
            "traceback": known.details,
        }
    finally:
        if job is not None and context.cancelled.is_set():
            remove_parts(job)


def _cuda_in_use() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def tidy() -> None:
    """Give back what a job has left: cycles, GPU memory, free pages of the C allocator."""
    gc.collect()
    if _cuda_in_use():
        sys.modules["torch"].cuda.empty_cache()
    give_back()


def give_back() -> None:
    """Give the system the pages that the C allocator has free, of all threads' arenas."""
    if sys.platform == "linux":
        import ctypes

        # glibc keeps what was freed; without this the memory of a warm worker only grows. musl has no such function.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def resident_bytes() -> int:
    """Return this process's resident memory in bytes; 0 where it cannot be told."""
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        return _resident_bytes_windows()
    # getrusage only knows the peak, by which every worker would seem to grow.
    answer = subprocess.run(  # nosec B603 - fixed arguments
        ["/bin/ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return int(answer.stdout) * 1024 if answer.stdout.strip().isdigit() else 0


def _resident_bytes_windows() -> int:
    import ctypes

    class Counters(ctypes.Structure):
        _fields_ = [("cb", ctypes.c_uint32), ("PageFaultCount", ctypes.c_uint32)] + [
            (name, ctypes.c_size_t)
            for name in ("PeakWorkingSetSize", "WorkingSetSize", "a", "b", "c", "d", "PagefileUsage", "e")
        ]

    windll: Any = getattr(ctypes, "windll")  # noqa: B009 - exists on Windows alone
    windll.kernel32.GetCurrentProcess.restype = ctypes.c_void_p
    counters = Counters(cb=ctypes.sizeof(Counters))
    process = ctypes.c_void_p(windll.kernel32.GetCurrentProcess())
    known = windll.psapi.GetProcessMemoryInfo(process, ctypes.byref(counters), counters.cb)
    return int(counters.WorkingSetSize) if known else 0


def end_group() -> None:
    """End this process and its children now, whatever they do."""
    if os.name == "nt":
        subprocess.run(  # nosec B603, B607 - fixed arguments, a tool of Windows itself
            ["taskkill", "/F", "/T", "/PID", str(os.getpid())], capture_output=True, check=False
        )
    elif os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(0)


def main(protocol_in: int, protocol_out: int) -> int:
    """Serve jobs on two descriptors until the input ends; returns the exit code."""
    # A crash in C code leaves the Python lines that led to it in the log.
    faulthandler.enable()
    # The first handler to be registered is the last to run: after the libraries' own, what they left behind is ended.
    atexit.register(end_group)
    Worker(protocol_in, protocol_out).serve()
    return 0
