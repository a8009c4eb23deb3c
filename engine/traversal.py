"""Work in threads, results in order: what keeps all cores in the network while one thread reads and one writes."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Callable, Deque, Generator, Iterable, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# How often the caller looks whether the job was cancelled while it waits.
_WAIT_S = 0.1


class _Stopped(Exception):  # noqa: N818 - never leaves this file
    """The caller has gone: the work is of no use any more."""


def in_order(
    items: Iterable[Item], work: Callable[[Item], Result], beside: int, check: Callable[[], None]
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` of each item, in their order; ``beside`` calls run at the same time, each in a thread.

    At most twice as many items and one are under way or wait to be taken, so that memory does not grow when the caller
    is the slower one.

    Args:
        items: taken in the caller's thread.
        work: must bear to be called from several threads.
        beside: threads.
        check: called in the caller's thread while it waits; raises when the job is cancelled. Calls that are under way
            then end by themselves, nothing waits for them.

    Raises:
        Exception: what ``work`` raised, as it is.
    """
    stopped = threading.Event()

    def unless_stopped(item: Item) -> Result:
        if stopped.is_set():
            raise _Stopped
        return work(item)

    pool = ThreadPoolExecutor(beside, thread_name_prefix="map")
    waiting: Deque[Future[Result]] = deque()
    complete = False
    try:
        for item in items:
            check()
            waiting.append(pool.submit(unless_stopped, item))
            if len(waiting) > 2 * beside:
                yield _awaited(waiting.popleft(), check)
        while waiting:
            yield _awaited(waiting.popleft(), check)
        complete = True
    finally:
        stopped.set()
        pool.shutdown(wait=complete, cancel_futures=True)


def _awaited(future: Future[Result], check: Callable[[], None]) -> Result:
    while True:
        check()
        try:
            return future.result(timeout=_WAIT_S)
        except NotYet:
            if future.done():
                return future.result()
