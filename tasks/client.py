"""The parent's side of the seam: `run_job` gives a job to a worker process and returns its result.

Plain threads and queues, no Qt: it is called from whatever thread an algorithm runs in. Workers stay warm between jobs
(`WorkerPool`), so that a batch of 100 rasters loads the libraries once.
"""

from __future__ import annotations

import atexit
import base64
import collections
import contextlib
import itertools
import os
import queue
import re
import shutil
import signal
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Deque, Iterator, List, Optional, Set, Tuple

from . import protocol
from .environment.extras import extras_of
from .environment.places import made, scratch_dir
from .errors import (
    BadInput,
    DeepscapeError,
    EngineMissing,
    EngineSetupFailed,
    JobCancelled,
    JobFailed,
    WorkerCrashed,
    error_from_message,
    less_memory,
)
from .jobfiles import remove_parts
from .jobs import Job, job_to_plain
from .processes import clean_environment, kill_tree, start_process
from .protocol import Message
from .serial import from_plain

RUN_WORKER = str(Path(__file__).resolve().with_name("run_worker.py"))

POLL_S = 0.1
CANCEL_S = 5.0
TERMINATE_S = 0.5
START_S = 120.0  # a virus scanner may read the whole environment at its first start
IDLE_S = 300.0
MEMORY_FACTOR = 1.5
CPU_WORKERS = 2
LOG_LINES = 200
_NOISE_LIMIT = 1 << 17

_OUT_OF_MEMORY_CODES = frozenset({-9, 137, 0xC0000005, 0xC0000017, 0xC000012D, 0xC0000409})
_OUT_OF_MEMORY_TEXTS = ("bad_alloc", "out of memory", "cannot allocate memory", "can't allocate memory")


def _ignore(message: Message) -> None:
    """Take a message and do nothing with it."""


def _never() -> bool:
    """Tell that nobody cancelled."""
    return False


def run_job(
    job: Job,
    *,
    interpreter: str,
    on_message: Callable[[Message], None] = _ignore,
    cancelled: Callable[[], bool] = _never,
    stopping: Callable[[], bool] = _never,
    scratch: str = "",
    auto_device: str = "cpu",
) -> Any:
    """Run a job in a worker process and return its result; the caller's thread waits, and alone calls the callbacks.

    Args:
        job: what to do.
        interpreter: the Python of the engine's environment.
        on_message: receives the messages as dictionaries, by their ``type``: ``waiting`` (text: what it waits for),
            ``started`` (warm: bool, pid), ``progress`` (done, total, stage, unit, rate in units per second or None,
            remaining in seconds or None), ``log`` (text), ``warning`` (text), ``metric`` (name, value, step),
            ``picture`` (name, png: the bytes of the file, step, caption).
        cancelled: asked every 0.1 s, whether or not the worker says anything.
        stopping: asked as often; each True asks the worker once to end the training early and to keep the best.
        scratch: folder for the worker and for the job's temporary files; empty = the environment's own.
        auto_device: what the device "auto" means in this environment: cpu or cuda (GPU jobs run one at a time).

    Returns:
        The job's ``result_type``.

    Raises:
        BadInput: what the user gave cannot be used.
        DiskFull: no room for an output.
        JobFailed: an unforeseen error in the engine; ``details`` holds the traceback and the log's tail.
        JobCancelled: the user cancelled, or the workers were shut down.
        WorkerCrashed: the worker ended without an answer; ``details`` holds the log's tail.
        EngineMissing, EngineSetupFailed: the interpreter is not there, or no worker starts with it.
    """
    return _POOL.run(
        job,
        interpreter=interpreter,
        on_message=on_message,
        cancelled=cancelled,
        stopping=stopping,
        scratch=scratch,
        auto_device=auto_device,
    )


def shutdown(grace_s: float = 1.0) -> None:
    """End all workers, on unload and before the environment is changed; later jobs start new ones.

    Running jobs are cancelled and have ``grace_s`` seconds to end before their processes are killed.
    """
    _POOL.shutdown(grace_s)


def pool() -> WorkerPool:
    """Return the pool that `run_job` uses."""
    return _POOL


# --- one worker ------------------------------------------------------------------------------------------------------


class WorkerProcess:
    """A worker process, the threads that read its messages and its log, and what the pool knows about it."""

    def __init__(self, interpreter: str, lane: str, script: str, scratch: str) -> None:
        """Start the process.

        Raises:
            EngineMissing, EngineSetupFailed: the interpreter cannot be started.
        """
        self.interpreter = interpreter
        self.extras = extras_of(interpreter)
        self.lane = lane
        self.version = ""
        self.messages: queue.Queue[Optional[Message]] = queue.Queue()
        self.log: Deque[str] = collections.deque(maxlen=LOG_LINES)
        self.jobs_done = 0
        self.accepted = 0  # number of the last job that it began
        self.idle_timer: Optional[threading.Timer] = None
        self.ending = False
        self._kinds: Set[str] = set()
        self._first_idle_bytes = 0
        self._write_lock = threading.Lock()
        try:
            self.process = start_process(
                [interpreter, "-I", "-X", "utf8", "-u", script],
                stdin=-1,
                stdout=-1,
                stderr=-1,
                bufsize=0,
                cwd=scratch,
                env=clean_environment(),
            )
        except FileNotFoundError as error:
            raise EngineMissing(
                f"The engine's Python '{interpreter}' does not exist.", "Run 'Set up the engine'."
            ) from error
        except OSError as error:
            raise EngineSetupFailed(
                f"The engine's Python '{interpreter}' cannot be started: {error.strerror}.", _REPAIR
            ) from error
        # Detached from their file objects: see protocol.LineReader.
        self._stdin = self._descriptor_of(self.process.stdin)
        self._stdout = self._descriptor_of(self.process.stdout)
        self._stderr = self._descriptor_of(self.process.stderr)
        self.process.stdin = self.process.stdout = self.process.stderr = None
        self._log_thread = threading.Thread(target=self._read_log, name="deepscape-log", daemon=True)
        self._log_thread.start()
        threading.Thread(target=self._read_messages, name="deepscape-messages", daemon=True).start()

    @staticmethod
    def _descriptor_of(stream: Any) -> int:
        descriptor = os.dup(stream.fileno())
        stream.close()
        return descriptor

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Tell whether the process still runs."""
        return self.process.poll() is None

    def wait_ready(self, cancelled: Callable[[], bool]) -> None:
        """Wait for the worker's ``hello``.

        Raises:
            EngineSetupFailed: it ended, says nothing, or is no worker of this version.
            JobCancelled: ``cancelled`` said so meanwhile.
        """
        deadline = time.monotonic() + START_S
        while True:
            if cancelled() or self.ending:
                raise JobCancelled()
            if time.monotonic() > deadline:
                raise self._start_error(f"said nothing within {START_S:.0f} seconds")
            try:
                hello = self.messages.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if hello is None:
                code = self.wait_exit()
                raise self._start_error("is no worker" if code == 0 else f"ended at its start ({describe_exit(code)})")
            if hello.get("type") == "hello":
                break
        if hello.get("protocol") != protocol.PROTOCOL:
            raise self._start_error(f"speaks protocol {hello.get('protocol')} instead of {protocol.PROTOCOL}")
        self.version = str(hello.get("version", ""))

    def _start_error(self, what: str) -> EngineSetupFailed:
        tail = self.log_tail()
        last = tail.strip().splitlines()[-1:] or ["it printed nothing"]
        return EngineSetupFailed(
            f"The engine's Python '{self.interpreter}' {what}: {last[0].strip().rstrip('.')}.", _REPAIR, tail
        )

    def send(self, message: Message) -> bool:
        """Send a message; returns False when the worker is gone."""
        data = protocol.encode(message)
        with self._write_lock:
            if self._stdin < 0:
                return False
            try:
                protocol.write_all(self._stdin, data)
            except OSError:
                return False
        return True

    def close_input(self) -> None:
        """Close the worker's input: it cancels its job, if any, and ends."""
        self.ending = True
        with self._write_lock:
            if self._stdin >= 0:
                os.close(self._stdin)
                self._stdin = -1

    def end(self, grace_s: float) -> None:
        """End the worker in good order; kill it and its children after ``grace_s`` seconds."""
        self.close_input()
        deadline = time.monotonic() + grace_s
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.005)
        self.kill()

    def kill(self, grace_s: float = 0.0) -> None:
        """Kill the worker and its children now, or ``grace_s`` seconds after asking it to end."""
        self.ending = True
        kill_tree(self.process, grace_s)
        self.close_input()

    def wait_exit(self) -> int:
        """Wait for a worker whose channel has ended; returns its exit code."""
        deadline = time.monotonic() + CANCEL_S
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.005)
        code = self.process.poll()
        self.kill()
        # The log's last lines may still be in the pipe; a grandchild that holds it open must not hold us.
        self._log_thread.join(timeout=0.5)
        return -9 if code is None else code

    def log_tail(self) -> str:
        """Return the last lines of what the worker printed during this job."""
        return "\n".join(list(self.log))

    def grew(self, kind: str, idle_bytes: Optional[int]) -> bool:
        """Note the memory after a job; tell whether it is above 1.5 times the first idle memory.

        The first idle memory is taken again after the first job of each kind: what its libraries need is no growth.
        """
        if not idle_bytes:
            return False
        if kind not in self._kinds:
            self._kinds.add(kind)
            self._first_idle_bytes = max(self._first_idle_bytes, idle_bytes)
        return idle_bytes > MEMORY_FACTOR * self._first_idle_bytes

    def _read_messages(self) -> None:
        reader, noise, greeted = protocol.LineReader(self._stdout), 0, False
        while noise < _NOISE_LIMIT:
            try:
                line = reader.readline()
            except EOFError:
                break
            message = protocol.decode(line)
            if message is not None:
                greeted = True
                self.messages.put(message)
                continue
            # A site hook that prints at the start is harmless; a program that only prints is no worker.
            noise += 0 if greeted else len(line) + 1
            self.log.append(line[:1000].decode("utf-8", "replace"))
        os.close(self._stdout)
        self.messages.put(None)

    def _read_log(self) -> None:
        reader = protocol.LineReader(self._stderr)
        with contextlib.suppress(EOFError):
            while True:
                line = reader.readline()[:4000].decode("utf-8", "replace")
                self.log.append(_TERMINAL.sub("", line))
        os.close(self._stderr)


# How libraries colour what they print: nothing for QGIS's log.
_TERMINAL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_REPAIR = "Run 'Set up the engine' with ACTION repair."


def describe_exit(code: int) -> str:
    """Return an exit code in words: "exit code 3", "signal 11, SIGSEGV", "exit code 0xC0000005"."""
    number = -code if code < 0 else code - 128 if 128 < code < 160 else 0
    if number:
        with contextlib.suppress(ValueError):
            return f"signal {number}, {signal.Signals(number).name}"
        return f"signal {number}"
    return f"exit code 0x{code:08X}" if code > 0xFFFF else f"exit code {code}"


def crash_error(kind: str, code: int, tail: str) -> WorkerCrashed:
    """Return the sentence for a worker that ended in the middle of a job."""
    memory = code in _OUT_OF_MEMORY_CODES or any(text in tail.lower() for text in _OUT_OF_MEMORY_TEXTS)
    if memory:
        return WorkerCrashed(
            f"The engine ended in the middle of '{kind}' ({describe_exit(code)}): probably out of memory.",
            less_memory(kind),
            tail,
        )
    return WorkerCrashed(
        f"The engine ended in the middle of '{kind}' ({describe_exit(code)}).",
        "Run it again; if it ends again, report it with the log.",
        tail,
    )


# --- all workers -----------------------------------------------------------------------------------------------------


class _Lane:
    """A device's queue: how many jobs may run on it at once, which run, and who waits, first come first served."""

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self.capacity = capacity
        self.running: List[str] = []
        self.waiting: Deque[object] = collections.deque()

    def sentence(self) -> str:
        """Return what a job waits for."""
        kinds = ", ".join(f"'{kind}'" for kind in self.running) or "an earlier job"
        return f"Waiting for the {self.name} to be free: {kinds} {'run' if len(self.running) > 1 else 'runs'} on it."


class WorkerPool:
    """Warm workers: one job at a time each, one worker for the GPU and at most two for the CPU.

    A worker ends after ``idle_s`` seconds without a job, in `shutdown`, when the interpreter, its extras or the
    plugin's version has changed, after any error that is not bad input, after a kill, and when it has grown
    (`WorkerProcess.grew`).

    Attributes:
        script: what the interpreter runs; tests give one that speaks the same protocol.
        idle_s: seconds without a job after which a worker ends.
        cancel_s: seconds that a cancelled job has before it is killed.
        cores: processor cores, shared by the jobs that run.
    """

    def __init__(self, script: str = RUN_WORKER, idle_s: float = IDLE_S, cancel_s: float = CANCEL_S) -> None:
        self.script = script
        self.idle_s = idle_s
        self.cancel_s = cancel_s
        self.cores = _cores()
        self._changed = threading.Condition()
        self._lanes = {"cpu": _Lane("processor", CPU_WORKERS), "cuda": _Lane("GPU", 1)}
        self._workers: Set[WorkerProcess] = set()
        self._idle: List[WorkerProcess] = []
        self._interpreter = ""
        self._with_gpu: Set[str] = set()
        self._generation = 0
        self._ids = itertools.count(1)

    def run(
        self,
        job: Job,
        *,
        interpreter: str,
        on_message: Callable[[Message], None] = _ignore,
        cancelled: Callable[[], bool] = _never,
        stopping: Callable[[], bool] = _never,
        scratch: str = "",
        auto_device: str = "cpu",
    ) -> Any:
        """Run a job; see `run_job`."""
        plain = job_to_plain(job)
        generation = self._generation
        scratch = _scratch_folder(scratch)
        own_scratch = os.path.join(scratch, f"job-{uuid.uuid4().hex[:12]}")

        def stopped() -> bool:
            return self._generation != generation or cancelled()

        with self._slot(self._lane(job, interpreter, auto_device), job.kind, on_message, stopped) as (lane, threads):
            envelope = {"type": "job", **plain, "threads": threads, "scratch": own_scratch}
            final: Optional[Message] = None
            while final is None:
                worker, number = self._begin(interpreter, lane, scratch, envelope, generation, stopped)
                try:
                    on_message({"type": "started", "warm": worker.jobs_done > 0, "pid": worker.pid})
                    final = self._converse(worker, number, job, on_message, stopped, stopping)
                except WorkerCrashed:
                    # A warm worker that was dying when it was given the job has not touched it: take the next.
                    if worker.jobs_done == 0 or worker.accepted == number:
                        raise
                finally:
                    self._give_back(worker, job.kind, final)
                    if final is None:
                        remove_parts(job)
                    shutil.rmtree(own_scratch, ignore_errors=True)
        return _outcome(job, final, worker.log_tail())

    def shutdown(self, grace_s: float = 1.0) -> None:
        """End all workers; see the function of the same name."""
        with self._changed:
            self._generation += 1
            workers = list(self._workers)
            self._workers.clear()
            self._idle.clear()
            self._changed.notify_all()
        for worker in workers:
            _stop_timer(worker)
            worker.close_input()
        deadline = time.monotonic() + grace_s
        for worker in workers:
            worker.end(max(0.0, deadline - time.monotonic()))

    def pids(self) -> List[int]:
        """Return the process ids of the workers that are alive."""
        with self._changed:
            return sorted(worker.pid for worker in self._workers if worker.alive)

    # --- waiting for a turn ---

    def _lane(self, job: Job, interpreter: str, auto_device: str) -> _Lane:
        device = job.device
        if device == "auto":
            device = "cuda" if interpreter in self._with_gpu else auto_device
        return self._lanes["cuda" if device.startswith("cuda") else "cpu"]

    @contextlib.contextmanager
    def _slot(
        self, lane: _Lane, kind: str, on_message: Callable[[Message], None], stopped: Callable[[], bool]
    ) -> Iterator[Tuple[str, int]]:
        """Hold a place on a device; yields the lane's key and the job's number of threads."""
        ticket = object()
        told = ""
        with self._changed:
            lane.waiting.append(ticket)
        try:
            while True:
                with self._changed:
                    if lane.waiting[0] is ticket and len(lane.running) < lane.capacity:
                        lane.running.append(kind)
                        break
                    sentence = lane.sentence()
                # Neither the caller's code nor a message may run under the lock.
                if stopped():
                    raise JobCancelled()
                if sentence != told:
                    told = sentence
                    on_message({"type": "waiting", "text": sentence})
                with self._changed:
                    self._changed.wait(POLL_S)
        finally:
            with self._changed:
                lane.waiting.remove(ticket)
                self._changed.notify_all()
        try:
            running = sum(len(each.running) for each in self._lanes.values())
            key = next(name for name, each in self._lanes.items() if each is lane)
            yield key, max(1, self.cores // running)
        finally:
            with self._changed:
                lane.running.remove(kind)
                self._changed.notify_all()

    # --- workers ---

    def _begin(
        self,
        interpreter: str,
        lane: str,
        scratch: str,
        envelope: Message,
        generation: int,
        stopped: Callable[[], bool],
    ) -> Tuple[WorkerProcess, int]:
        """Give the job to a warm worker, or to a new one; returns it with the job's number."""
        while True:
            worker = self._take_warm(interpreter, lane)
            if worker is None:
                worker = self._start(interpreter, lane, scratch, generation, stopped)
            worker.log.clear()
            number = next(self._ids)
            if worker.send({**envelope, "id": number}):
                return worker, number
            # It ended while it was idle (another program may have killed it): nothing is lost, take the next.
            first = worker.jobs_done == 0
            self._remove(worker)
            if first:
                raise crash_error(envelope["kind"], worker.wait_exit(), worker.log_tail())

    def _take_warm(self, interpreter: str, lane: str) -> Optional[WorkerProcess]:
        wanted = (interpreter, extras_of(interpreter), protocol.plugin_version())
        with self._changed:
            old = [w for w in self._idle if (w.interpreter, w.extras, w.version) != wanted or not w.alive]
            self._interpreter = interpreter
            fit = [worker for worker in self._idle if worker not in old and worker.lane == lane]
            chosen = fit[-1] if fit else None
            for worker in [*old, *fit[-1:]]:
                self._idle.remove(worker)
                _stop_timer(worker)
        for worker in old:
            self._remove(worker)
        return chosen

    def _start(
        self, interpreter: str, lane: str, scratch: str, generation: int, stopped: Callable[[], bool]
    ) -> WorkerProcess:
        worker = WorkerProcess(interpreter, lane, self.script, scratch)
        with self._changed:
            self._workers.add(worker)
        try:
            worker.wait_ready(stopped)
            if self._generation != generation:
                raise JobCancelled()
        except BaseException:
            with self._changed:
                self._workers.discard(worker)
            worker.kill()
            raise
        return worker

    def _remove(self, worker: WorkerProcess) -> None:
        """End a worker that does nothing."""
        with self._changed:
            self._workers.discard(worker)
        worker.end(TERMINATE_S)

    def _give_back(self, worker: WorkerProcess, kind: str, final: Optional[Message]) -> None:
        """Keep the worker warm, or end it; ``final`` None means that it still works or is gone."""
        worker.jobs_done += 1
        if final is None:
            with self._changed:
                self._workers.discard(worker)
            worker.kill()
            return
        if final.get("device") == "cuda":
            self._with_gpu.add(worker.interpreter)
        bad = final["type"] == "error" and final.get("kind") != BadInput.kind
        grown = worker.grew(kind, final.get("memory"))
        with self._changed:
            keep = not (bad or grown or worker.ending) and worker.interpreter == self._interpreter
            if keep:
                self._idle.append(worker)
                timer = threading.Timer(self.idle_s, self._end_idle, (worker,))
                timer.daemon = True
                worker.idle_timer = timer
                timer.start()
        if not keep:
            self._remove(worker)

    def _end_idle(self, worker: WorkerProcess) -> None:
        with self._changed:
            # A job may have taken it while this timer was on its way.
            if worker.idle_timer is not threading.current_thread() or worker not in self._idle:
                return
            self._idle.remove(worker)
        self._remove(worker)

    # --- a job ---

    def _converse(
        self,
        worker: WorkerProcess,
        number: int,
        job: Job,
        on_message: Callable[[Message], None],
        stopped: Callable[[], bool],
        stopping: Callable[[], bool],
    ) -> Message:
        """Pass messages on until the final one, which is returned; cancel or stop is asked for every 0.1 s."""
        next_poll, kill_at = 0.0, 0.0
        while True:
            now = time.monotonic()
            if not kill_at and now >= next_poll:
                next_poll = now + POLL_S
                if stopped():
                    worker.send({"type": "cancel", "id": number})
                    kill_at = now + self.cancel_s
                elif stopping():
                    worker.send({"type": "stop", "id": number})
            if kill_at and now >= kill_at:
                worker.kill(TERMINATE_S)
                raise JobCancelled()
            try:
                message = worker.messages.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if message is None:
                code = worker.wait_exit()
                if kill_at or stopped():
                    raise JobCancelled()
                raise crash_error(job.kind, code, worker.log_tail())
            if message.get("id") != number:
                continue
            worker.accepted = number
            if message["type"] == "accepted":
                continue
            if message["type"] in protocol.FINAL:
                return message
            if message["type"] == "metric":  # JSON knows no NaN: it travels as text
                message["value"] = float(message["value"])
            elif message["type"] == "picture":
                message["png"] = base64.b64decode(message["png"])
            on_message(message)


def _outcome(job: Job, final: Message, tail: str) -> Any:
    """Return the result of a final message, or raise its error."""
    if final["type"] == "cancelled":
        raise JobCancelled(remedy=str(final.get("remedy") or ""))
    if final["type"] == "error":
        details = str(final.get("traceback", ""))
        if final.get("kind") != BadInput.kind and tail:
            details = f"{details}\nThe engine's log:\n{tail}"
        raise _error_of(final, details)
    try:
        return from_plain(job.result_type, final.get("result"), "result")
    except BadInput as error:
        raise JobFailed(
            f"The job '{job.kind}' gave a result of another form: {error.message}",
            "This is a defect of Deepscape: report it with the log.",
            tail,
        ) from error


def _error_of(final: Message, details: str) -> DeepscapeError:
    return error_from_message(
        str(final.get("kind")), str(final.get("message")), str(final.get("remedy") or ""), details.strip()
    )


def _stop_timer(worker: WorkerProcess) -> None:
    if worker.idle_timer is not None:
        worker.idle_timer.cancel()
        worker.idle_timer = None


def _scratch_folder(folder: str) -> str:
    """Return the folder for workers and their temporary files; it is created."""
    return str(made(Path(folder)) if folder else scratch_dir())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_POOL = WorkerPool()

# qgis_process ends without unloading plugins; nothing of ours stays behind.
atexit.register(shutdown, 0.5)
