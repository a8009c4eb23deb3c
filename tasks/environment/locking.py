"""One set-up at a time on this machine, and a mark of the one that never came to its end."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, Type

from ..errors import EngineSetupFailed, JobCancelled
from .files import read_json
from .places import made

_POLL_S = 0.2


class SetupLock:
    """Holds ``setup.lock`` in the environments' folder; a second set-up waits and says for whom.

    The lock is the operating system's, which frees it when its process ends, however it ends: it cannot go stale. The
    file's text, the holder's process id, is only there to be read by those who wait.
    """

    def __init__(self, folder: Path, waiting: Callable[[str], None], cancelled: Callable[[], bool]) -> None:
        """Prepare the lock.

        Args:
            folder: where the lock file lies.
            waiting: gets the sentence that names the holder, once.
            cancelled: polled while waiting.
        """
        self._path = folder / "setup.lock"
        self._holder_path = folder / "setup.holder.json"
        self._waiting = waiting
        self._cancelled = cancelled
        self._descriptor = -1

    def __enter__(self) -> SetupLock:
        """Wait for the lock and take it.

        Raises:
            JobCancelled: cancelled while waiting.
        """
        made(self._path.parent)
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise EngineSetupFailed(
                f"'{self._path}' cannot be opened: {error.strerror}.",
                "Make its folder writable, or set DEEPSCAPE_HOME.",
            ) from error
        told = False
        while not _try_lock(self._descriptor):
            if not told:
                holder = read_json(self._holder_path)
                who = f"Process {holder['pid']}" if "pid" in holder else "Another process"
                since = f" since {holder['since']}" if "since" in holder else ""
                self._waiting(f"{who} has been setting up the engine{since}; waiting for it.")
                told = True
            if self._cancelled():
                os.close(self._descriptor)
                raise JobCancelled()
            time.sleep(_POLL_S)
        self._holder_path.write_text(
            f'{{"pid": {os.getpid()}, "since": "{time.strftime("%H:%M:%S")}"}}', encoding="utf-8"
        )
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        """Free the lock."""
        os.close(self._descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock the open file without waiting; tell whether that worked."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network drives know no locks at all: there, one set-up at a time is the user's own care.
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True
