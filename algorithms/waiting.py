"""Waiting for a job without freezing QGIS.

Dialogs run an algorithm in a thread of its own, but QGIS runs models (and batches, by its version) in the main thread.
"""

from __future__ import annotations

import queue
from concurrent import futures
from typing import Any, Callable, Optional, Set, TypeVar

from qgis.core import Qgis, QgsMessageLog
from qgis.PyQt.QtCore import QCoreApplication, QEventLoop, QObject, Qt, QThread, pyqtSignal

# The main thread is away for this long at most between two looks at its events; QGIS counts as blocked from 50 ms on.
STEP_S = 0.01

# The main thread answers within this time, or it waits for the one that asks it (a script for its task).
ANSWER_S = 3.0

Answer = TypeVar("Answer")


def in_main_thread() -> bool:
    """Tell whether the caller runs in QGIS's main thread."""
    application = QCoreApplication.instance()
    return application is not None and QThread.currentThread() == application.thread()


def do_or_log(work: Callable[[], None]) -> None:
    """Do something that nobody's run depends on; its failure is told in QGIS's log alone."""
    try:
        work()
    except Exception as error:
        QgsMessageLog.logMessage(f"{type(error).__name__}: {error}", "Deepscape", Qgis.MessageLevel.Critical)


class _Errand(QObject):
    """A call that the main thread makes when it comes to it."""

    asked = pyqtSignal()

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._work = work
        # Before the connection, which calls in the thread that the object lives in.
        self.moveToThread(QCoreApplication.instance().thread())
        self.asked.connect(self._do, Qt.ConnectionType.QueuedConnection)

    def _do(self) -> None:
        _ERRANDS.discard(self)
        do_or_log(self._work)  # an exception in a slot may end QGIS


# Until they are done; Qt forgets the calls of an object that is gone.
_ERRANDS: Set[_Errand] = set()


def soon_in_main_thread(work: Callable[[], None]) -> None:
    """Have the main thread do something, without waiting for it; from any other thread."""
    errand = _Errand(work)
    _ERRANDS.add(errand)
    errand.asked.emit()


def ask_main_thread(question: Callable[[], Answer]) -> Optional[Answer]:
    """Return what the main thread answers, or raise what it raises; None where it does not come to it in time."""
    if in_main_thread():
        return question()
    answer: futures.Future[Answer] = futures.Future()

    def find() -> None:
        try:
            answer.set_result(question())
        except Exception as error:
            answer.set_exception(error)

    soon_in_main_thread(find)
    try:
        return answer.result(ANSWER_S)
    except futures.TimeoutError:
        return None


def run_and_listen(work: Callable[[Callable[[Any], None]], Any], listen: Callable[[Any], None]) -> Any:
    """Return ``work(on_message)``; every message reaches ``listen`` in the thread of the caller.

    In the main thread the work is done in another one, while QGIS's events (redrawing, the Cancel button) go on.
    """
    if not in_main_thread():
        return work(listen)
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with futures.ThreadPoolExecutor(1, "deepscape-job") as pool:
        running = pool.submit(work, messages.put)
        while not running.done():
            QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 20)
            _pass_on(messages, listen)
            futures.wait([running], timeout=STEP_S)
    _pass_on(messages, listen)
    return running.result()


def _pass_on(messages: queue.SimpleQueue[Any], listen: Callable[[Any], None]) -> None:
    while not messages.empty():
        listen(messages.get())
