"""What an engine function may say while it works: progress, log, metrics; and how it learns of a cancel."""

from __future__ import annotations

import os
import tempfile
import threading
from typing import List, Optional

from .errors import JobCancelled


class Context:
    """The engine's only way to the outside; this base class keeps what it is told (used as it is in tests).

    The worker's subclass sends protocol messages instead. `check` is called between tiles, batches and features, at
    least every 0.2 s of work, so that a cancelled job ends within a second.

    Attributes:
        warnings: what was warned of.
        cancelled: set when the user cancelled the job.
        stopping: set when the user wants a training to end now and to keep the best of what there is.
    """

    def __init__(self, scratch: str = "") -> None:
        self.warnings: List[str] = []
        self.cancelled = threading.Event()
        self.stopping = threading.Event()
        self._scratch = scratch

    def progress(self, done: float, total: float, stage: str = "", unit: str = "") -> None:
        """Report ``done`` of ``total`` units ("pixels", "patches", "epochs") of the named stage."""

    def log(self, text: str) -> None:
        """Tell the user a fact about the run."""

    def warn(self, text: str) -> None:
        """Tell the user something that she should act on; kept, and shown again with the result."""
        self.warnings.append(text)

    def metric(self, name: str, value: float, step: int) -> None:
        """Report the value of a named metric (``train/loss``, ``validation/kappa``) at a step (epoch)."""

    def picture(self, name: str, png: bytes, step: int, caption: str = "") -> None:
        """Show a picture of how a training goes: a PNG file that replaces the one of the same name."""

    def check(self) -> None:
        """Raise JobCancelled when the user cancelled the job."""
        if self.cancelled.is_set():
            raise JobCancelled()

    def scratch(self, name: str = "") -> str:
        """Return a path for a temporary file or folder of this job; all is removed when the job ends."""
        if not self._scratch:
            self._scratch = tempfile.mkdtemp(prefix="deepscape-")
        return os.path.join(self._scratch, name) if name else self._scratch

    def threads(self) -> Optional[int]:
        """Return the number of threads the job may use, or None for the libraries' own choice."""
        return None
