"""The background task manager: what runs, waits and has run, and work that the dock starts in the background.

What may run beside what is the pool's business (tasks/client.py): two jobs on the processor, one on the GPU. Here every
job is noted, from an algorithm or from the dock, so that the dock can list it; and `start` runs one as a QgsTask.

Only `start` needs QGIS, and imports it when it is called. Nothing waits on a QgsTask: algorithms call `run_job`, which
works in their own thread.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import functools
import itertools
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Deque, List, Optional, Tuple

from . import client
from .errors import DeepscapeError, JobCancelled, JobFailed
from .jobfiles import output_paths
from .jobs import Job
from .protocol import Message

HISTORY = 200
WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"


@dataclass(frozen=True)
class JobRecord:
    """What is known of one job.

    Attributes:
        number: counts from 1 in this session.
        kind: the job's kind.
        state: waiting, running, done, failed or cancelled.
        started: local time, ISO 8601, when it was asked for.
        seconds: how long it took, or has taken at its last message.
        output: its first output; empty without one.
        message: what it waits for, its stage, or the sentence it failed with.
        share: 0 to 1 of the current stage.
    """

    number: int
    kind: str
    state: str
    started: str
    seconds: float = 0.0
    output: str = ""
    message: str = ""
    share: float = 0.0


Listener = Callable[[JobRecord], None]


class JobHistory:
    """The jobs of this session, newest last; the oldest are forgotten beyond ``limit``. Safe to use from any thread."""

    def __init__(self, limit: int = HISTORY) -> None:
        self._lock = threading.Lock()
        self._records: Deque[JobRecord] = collections.deque(maxlen=limit)
        self._listeners: List[Listener] = []
        self._numbers = itertools.count(1)

    def records(self) -> Tuple[JobRecord, ...]:
        """Return all records, oldest first."""
        with self._lock:
            return tuple(self._records)

    def active(self) -> Tuple[JobRecord, ...]:
        """Return the records of jobs that wait or run."""
        return tuple(record for record in self.records() if record.state in (WAITING, RUNNING))

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with each new state of a job, in the job's thread; returns what ends it.

        A widget's listener emits a signal, which reaches its own thread through a queue.
        """
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def clear(self) -> None:
        """Forget the jobs that have ended."""
        with self._lock:
            kept = [record for record in self._records if record.state in (WAITING, RUNNING)]
            self._records.clear()
            self._records.extend(kept)

    def begin(self, job: Job) -> JobRecord:
        """Note a new job."""
        started = datetime.datetime.now().isoformat(timespec="seconds")
        output = next(iter(output_paths(job).values()), "")
        record = JobRecord(next(self._numbers), job.kind, WAITING, started, output=output)
        with self._lock:
            self._records.append(record)
        self._tell(record)
        return record

    def update(self, record: JobRecord, **changes: Any) -> JobRecord:
        """Replace fields of a record; returns the new one."""
        new = dataclasses.replace(record, **changes)
        with self._lock:
            for index, known in enumerate(self._records):
                if known.number == record.number:
                    self._records[index] = new
        self._tell(new)
        return new

    def _tell(self, record: JobRecord) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(record)


_HISTORY = JobHistory()


def history() -> JobHistory:
    """Return the history of this session."""
    return _HISTORY


def run_job(
    job: Job,
    *,
    interpreter: str,
    on_message: Callable[[Message], None] = lambda message: None,
    cancelled: Callable[[], bool] = lambda: False,
    stopping: Callable[[], bool] = lambda: False,
    scratch: str = "",
    auto_device: str = "cpu",
) -> Any:
    """Run a job as `client.run_job` does, and note it in the history."""
    begun = time.monotonic()
    record = _HISTORY.begin(job)

    def note(**changes: Any) -> None:
        nonlocal record
        record = _HISTORY.update(record, seconds=time.monotonic() - begun, **changes)

    def listen(message: Message) -> None:
        kind = message["type"]
        if kind == "waiting":
            note(state=WAITING, message=message["text"])
        elif kind == "started":
            note(state=RUNNING, message="")
        elif kind == "progress":
            total = message.get("total") or 0
            note(message=message.get("stage", ""), share=min(1.0, message["done"] / total) if total else 0.0)
        on_message(message)

    try:
        result = client.run_job(
            job,
            interpreter=interpreter,
            on_message=listen,
            cancelled=cancelled,
            stopping=stopping,
            scratch=scratch,
            auto_device=auto_device,
        )
    except JobCancelled as error:
        note(state=CANCELLED, message=error.message)
        raise
    except Exception as error:
        note(state=FAILED, message=str(error))
        raise
    output = next((getattr(result, name) for name in job.outputs if getattr(result, name, "")), record.output)
    note(state=DONE, message="", share=1.0, output=str(output))
    return result


# --- work that the dock starts ---------------------------------------------------------------------------------------

# A QgsTask without a Python reference is collected and never runs.
_TASKS: List[Any] = []


def start(
    job: Job,
    description: str,
    *,
    interpreter: str,
    on_done: Callable[[Any, Optional[DeepscapeError]], None],
    on_message: Optional[Callable[[Message], None]] = None,
    scratch: str = "",
    auto_device: str = "cpu",
) -> Any:
    """Run a job in the background as a QgsTask, with a bar in QGIS's status bar; returns the task at once.

    Args:
        job: what to do.
        description: the task's title.
        interpreter: the Python of the engine's environment.
        on_done: called in the main thread with (result, None) or (None, error); a cancel is JobCancelled.
        on_message: called in the main thread with each message of `client.run_job`.
        scratch: as in `client.run_job`.
        auto_device: as in `client.run_job`.
    """
    from qgis.core import QgsApplication

    def work(listen: Callable[[Message], None], cancelled: Callable[[], bool]) -> Any:
        return run_job(
            job,
            interpreter=interpreter,
            on_message=listen,
            cancelled=cancelled,
            scratch=scratch,
            auto_device=auto_device,
        )

    task = _task_class()(description, work, on_done, on_message)
    _TASKS.append(task)
    QgsApplication.taskManager().addTask(task)
    return task


@functools.cache
def _task_class() -> Any:
    """Return the QgsTask subclass; it is made when it is first needed, so that this file imports without QGIS."""
    from qgis.core import Qgis, QgsMessageLog, QgsTask
    from qgis.PyQt.QtCore import QObject, Qt, pyqtSignal

    class Messenger(QObject):  # type: ignore[misc]
        """Carries messages to the main thread, where it lives."""

        message = pyqtSignal(object)

    class JobTask(QgsTask):  # type: ignore[misc]
        """Work in the background; exceptions in its methods would abort QGIS, so none leaves them."""

        def __init__(
            self,
            description: str,
            work: Callable[[Callable[[Message], None], Callable[[], bool]], Any],
            on_done: Callable[[Any, Optional[DeepscapeError]], None],
            on_message: Optional[Callable[[Message], None]],
        ) -> None:
            super().__init__(description, QgsTask.Flag.CanCancel)
            self._work = work
            self._on_done = on_done
            self._on_message = on_message
            self._result: Any = None
            self._error: Optional[DeepscapeError] = None
            self._messenger = Messenger()
            self._messenger.message.connect(self._show, Qt.ConnectionType.QueuedConnection)

        def run(self) -> bool:
            try:
                self._result = self._work(self._listen, self.isCanceled)
            except DeepscapeError as error:
                self._error = error
            except Exception as error:  # anything that left here would abort QGIS; on_done is given it
                self._error = JobFailed(f"{type(error).__name__}: {error}.", "Report it with the log.")
            return self._error is None

        def finished(self, result: bool) -> None:
            if self in _TASKS:
                _TASKS.remove(self)
            error = self._error
            if error is None and self._result is None:  # cancelled while it still stood in QGIS's queue
                error = JobCancelled()
            self._guarded(self._on_done, self._result, error)

        def _listen(self, message: Message) -> None:
            if message["type"] == "progress" and message.get("total"):
                self.setProgress(100.0 * message["done"] / message["total"])
            if self._on_message is not None:
                self._messenger.message.emit(message)

        def _show(self, message: Message) -> None:
            if self._on_message is not None:
                self._guarded(self._on_message, message)

        @staticmethod
        def _guarded(function: Callable[..., None], *arguments: Any) -> None:
            try:
                function(*arguments)
            except Exception as error:
                QgsMessageLog.logMessage(f"{type(error).__name__}: {error}", "Deepscape", Qgis.MessageLevel.Critical)

    return JobTask
