"""What a training tells while it runs, for whoever shows it: runs, their curves, pictures and progress.

Algorithms run in threads of their own. `follow` carries what they hear to the hub by a queued signal. The hub, which
lives in the thread of the window, keeps the runs; nothing else changes them. Without a hub (qgis_process, tests without
a window) all of it does nothing.
"""

from __future__ import annotations

import collections
import itertools
import math
import threading
from dataclasses import dataclass, field
from typing import Any, Deque, Dict, List, Mapping, Optional, Tuple

from qgis.PyQt.QtCore import QObject, Qt, pyqtSignal

from ..tasks.errors import JobCancelled

RUNNING, STOPPING, FINISHED, FAILED, CANCELLED = "running", "stopping", "finished", "failed", "cancelled"
ACTIVE = (RUNNING, STOPPING)
LOG_LINES = 200
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Picture:
    """A picture of a step: the bytes of a PNG file."""

    png: bytes
    step: int
    caption: str


@dataclass(eq=False)
class Run:
    """A training of this session; only the hub changes it, in the thread of the window.

    Attributes:
        title: the algorithm and the name of its output.
        monitor: what chooses the best epoch on the validation part: loss or a score; empty where nothing does.
        metrics: (step, value) pairs in order, by name (``validation/kappa``).
        pictures: the latest of each name.
        remaining: seconds until the current stage is done; None while nothing is known.
        message: the sentence that it failed with.
        report: path of its report, once it is written.
    """

    title: str
    monitor: str = ""
    number: int = field(default_factory=lambda: next(_NUMBERS))
    state: str = RUNNING
    metrics: Dict[str, List[Tuple[int, float]]] = field(default_factory=dict)
    pictures: Dict[str, Picture] = field(default_factory=dict)
    stage: str = ""
    done: float = 0.0
    total: float = 0.0
    remaining: Optional[float] = None
    log: Deque[str] = field(default_factory=lambda: collections.deque(maxlen=LOG_LINES))
    message: str = ""
    report: str = ""
    stop_asked: threading.Event = field(default_factory=threading.Event)
    cancel_asked: threading.Event = field(default_factory=threading.Event)

    @property
    def active(self) -> bool:
        """Tell whether it still runs."""
        return self.state in ACTIVE

    def best(self) -> Optional[int]:
        """Return the best epoch so far, chosen as training does: of equal scores by the loss, then the later."""
        sign = -1 if self.monitor == "loss" else 1
        losses = dict(self.metrics.get("validation/loss", []))
        known = [
            (sign * value, -losses.get(step, math.inf), step)
            for step, value in self.metrics.get(f"validation/{self.monitor}", [])
        ]
        return max(known)[-1] if known else None


class Hub(QObject):
    """The runs of this session, in the thread of the window."""

    began = pyqtSignal(object)
    changed = pyqtSignal(object)
    _said = pyqtSignal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self.runs: List[Run] = []
        self._said.connect(self._take, Qt.ConnectionType.QueuedConnection)

    def tell(self, run: Run, message: Mapping[str, Any]) -> None:
        """Pass a message on to the thread of the window; from any thread."""
        self._said.emit(run, message)

    def stop(self, run: Run) -> None:
        """Ask a run to end its training now and to keep the best."""
        if run.state == RUNNING:
            run.state = STOPPING
            run.stop_asked.set()
            self.changed.emit(run)

    def cancel(self, run: Run) -> None:
        """Cancel a run, as the Cancel button of its dialog does."""
        if run.active:
            run.cancel_asked.set()
            self.changed.emit(run)

    def _take(self, run: Run, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "began":
            self.runs.append(run)
            self.began.emit(run)
        elif kind == "progress":
            run.done, run.total, run.stage = float(message["done"]), float(message["total"]), str(message["stage"])
            run.remaining = message.get("remaining")
        elif kind == "metric":
            self._metric(run, str(message["name"]), int(message["step"]), float(message["value"]))
        elif kind == "picture":
            picture = Picture(bytes(message["png"]), int(message["step"]), str(message["caption"]))
            run.pictures[str(message["name"])] = picture
        elif kind in ("log", "warning", "waiting"):
            run.log.append(str(message["text"]))
        elif kind == "ended":
            run.state, run.message, run.report = message["state"], message["message"], message["report"]
            run.remaining = None
        self.changed.emit(run)

    def _metric(self, run: Run, name: str, step: int, value: float) -> None:
        # The first epoch of another training: an earlier one of the same job has taken the request to stop.
        if run.state == STOPPING and step <= 1 and name == "train/loss":
            run.state = RUNNING
        points = run.metrics.setdefault(name, [])
        # A run that continues an interrupted one tells its last epochs again.
        while points and points[-1][0] >= step:
            points.pop()
        if math.isfinite(value):
            points.append((step, value))


class Follower:
    """Carries the messages of one run to the hub, and its requests back; a context, whose end is the run's."""

    def __init__(self, hub: Optional[Hub], run: Run) -> None:
        self._hub = hub
        self._run = run
        self._report = ""

    def __enter__(self) -> Follower:
        self.tell({"type": "began"})
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        state = FINISHED if error is None else CANCELLED if isinstance(error, JobCancelled) else FAILED
        text = error.remedy if isinstance(error, JobCancelled) else str(error or "")
        self.tell({"type": "ended", "state": state, "message": text, "report": self._report})

    def tell(self, message: Mapping[str, Any]) -> None:
        """Take a message of `manager.run_job`."""
        if self._hub is not None:
            self._hub.tell(self._run, message)

    def result(self, result: Any) -> None:
        """Take the job's result."""
        self._report = str(getattr(result, "report", "") or "")

    def stopping(self) -> bool:
        """Tell once after each request that the training is to stop and keep the best."""
        asked = self._run.stop_asked.is_set()
        self._run.stop_asked.clear()
        return asked

    def cancelled(self) -> bool:
        """Tell whether the run was cancelled from here."""
        return self._run.cancel_asked.is_set()


_HUBS: List[Hub] = []


def open_hub() -> Hub:
    """Return the hub, which is made in the thread of the caller: the window's."""
    if not _HUBS:
        _HUBS.append(Hub())
    return _HUBS[0]


def close_hub() -> None:
    """Forget the hub and its runs; what still runs tells nobody any more."""
    for hub in _HUBS:
        hub.blockSignals(True)
    _HUBS.clear()


def follow(title: str, monitor: str = "", shown: bool = True) -> Follower:
    """Return what carries a run's messages to the hub; where there is none, or ``shown`` is False, it carries none."""
    return Follower(_HUBS[0] if _HUBS and shown else None, Run(title, monitor))
