"""The log of the set-up: a rotating file that holds no credentials."""

from __future__ import annotations

import logging
import logging.handlers
import re
from collections import Counter
from pathlib import Path
from typing import Callable, List

from .places import log_dir

_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")
_SECRETS = re.compile(r"(?i)\b((?:access_|auth_|api_?)?(?:token|key|password|passwd|secret|signature|sig))=[^&\s'\"]+")
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization:?\s+(?:basic|bearer)?)\s*\S+")

_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")


def scrub(text: str) -> str:
    """Return the text without user names, passwords and tokens in the addresses of indexes and proxies."""
    text = _USER_INFO.sub("***@", text)
    text = _SECRETS.sub(r"\1=***", text)
    return _HEADER.sub(r"\1 ***", text)


def end_of(path: Path, lines: int) -> List[str]:
    """Return the last lines of a log, each text where it stands last: set-ups repeat most of what those before did.

    Args:
        path: of the log.
        lines: how many are returned at most.
    """
    written = path.read_text(encoding="utf-8", errors="replace").splitlines()
    times = Counter(_TIME.sub("", line) for line in written)
    found: List[str] = []
    for line in reversed(written):
        count = times.pop(_TIME.sub("", line), 0)
        if count:
            found.append(line if count == 1 else f"{line} (the last of {count})")
        if len(found) == lines:
            break
    return found[::-1]


class SetupLog:
    """Writes every line to ``setup.log`` (three older files are kept) and passes it on to the caller."""

    def __init__(self, listener: Callable[[str], None]) -> None:
        """Open the log; ``listener`` gets every line, scrubbed."""
        self.path = log_dir() / "setup.log"
        self._listener = listener
        self._handler = logging.handlers.RotatingFileHandler(
            self.path, maxBytes=500_000, backupCount=3, encoding="utf-8", delay=True
        )
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        # A full disk must end in our own sentence, not in logging's traceback on standard error.
        self._handler.handleError = lambda record: None  # type: ignore[method-assign]

    def __call__(self, line: str) -> None:
        """Write one line."""
        line = scrub(line.rstrip())
        self._handler.emit(logging.LogRecord("deepscape", logging.INFO, "", 0, line, None, None))
        self._listener(line)

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
