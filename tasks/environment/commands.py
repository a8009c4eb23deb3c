"""Run a step's command: its lines to the log, polled for cancel, ended with all its children; failures explained."""

from __future__ import annotations

import errno
import queue
import re
import subprocess  # nosec B404 - uv and the probe are child processes
import threading
import time
from pathlib import Path
from typing import IO, Callable, List, Mapping, Optional, Sequence, Union

from ..errors import DeepscapeError, DiskFull, EngineSetupFailed, JobCancelled
from ..processes import kill_tree, start_process
from .setuplog import scrub

_POLL_S = 0.1
_TAIL_LINES = 60

Argument = Union[str, Path]


class CommandFailed(Exception):  # noqa: N818 - caught and explained within this package
    """A command ended with an error; carries what it printed."""

    def __init__(self, code: int, output: str) -> None:
        super().__init__(f"exit code {code}")
        self.code = code
        self.output = output


class Runner:
    """Runs commands one after the other for one set-up."""

    def __init__(
        self, environ: Mapping[str, str], folder: Path, log: Callable[[str], None], cancelled: Callable[[], bool]
    ) -> None:
        """Prepare.

        Args:
            environ: the cleaned environment of every command.
            folder: their current folder.
            log: gets every line.
            cancelled: polled ten times a second.
        """
        self.environ = dict(environ)
        self.folder = folder
        self.log = log
        self.cancelled = cancelled
        self.started: Callable[[int], None] = lambda pid: None

    def run(
        self,
        arguments: Sequence[Argument],
        timeout_s: Optional[float] = None,
        line: Optional[Callable[[str], None]] = None,
        extra: Optional[Mapping[str, str]] = None,
    ) -> str:
        """Run a command and return what it printed on both streams.

        Args:
            arguments: program and arguments.
            timeout_s: after this many seconds it counts as failed; None = never.
            line: gets every line besides the log.
            extra: further variables for this command.

        Raises:
            CommandFailed: it ended with another code than 0, or took too long.
            JobCancelled: cancelled; the command and its children are gone.
            OSError: it cannot be started.
        """
        self.log("$ " + " ".join(str(argument) for argument in arguments))
        process = start_process(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=str(self.folder),
            env={**self.environ, **(extra or {})},
            encoding="utf-8",
            errors="replace",
        )
        self.started(process.pid)
        try:
            lines = self._follow(process, timeout_s, line)
        finally:
            kill_tree(process)  # also what the command may have left behind
        if process.returncode != 0:
            raise CommandFailed(process.returncode, "\n".join(lines[-_TAIL_LINES:]))
        return "\n".join(lines)

    def _follow(
        self, process: subprocess.Popen[str], timeout_s: Optional[float], line: Optional[Callable[[str], None]]
    ) -> List[str]:
        """Collect the lines until the command ends, within 0.1 s of a cancel even when it prints nothing."""
        inbox: queue.Queue[Optional[str]] = queue.Queue()
        stream = process.stdout
        if stream is None:
            return []
        threading.Thread(target=_read_into, args=(stream, inbox), daemon=True).start()
        lines: List[str] = []
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self.cancelled():
                raise JobCancelled()
            if deadline is not None and time.monotonic() > deadline:
                raise CommandFailed(-1, "\n".join([*lines[-_TAIL_LINES:], f"stopped after {timeout_s:.0f} s"]))
            try:
                text = inbox.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if text is None:
                process.wait()
                return lines
            lines.append(text)
            self.log("  " + text)
            if line is not None:
                line(text)


def _read_into(stream: IO[str], inbox: queue.Queue[Optional[str]]) -> None:
    with stream:
        for text in stream:
            inbox.put(text.rstrip())
    inbox.put(None)


# Most specific first: uv reports a proxy's refusal and a bad certificate as failed requests, too.
_CAUSES = (
    (
        "full",
        r"No space left on device|os error 28\b|os error 112\b|disk quota exceeded|not enough space",
        "The disk is full.",
        "Free some space in '{folder}', or set DEEPSCAPE_HOME to a folder on another disk, and run the set-up again.",
    ),
    (
        "hash",
        r"hash mismatch",
        "A downloaded package is not the one that this release was tested with (its hash differs).",
        "Run the set-up again; if it happens again, a proxy or mirror changes the files: ask its administrator.",
    ),
    (
        "proxy",
        r"\b407\b|proxy authentication|unsuccessful tunnel|tunnel error|proxy.{0,40}(refus|den|fail|error|connect)",
        "The proxy refused the connection.",
        "Check the proxy and its password in QGIS (Settings, Options, Network).",
    ),
    (
        "certificate",
        r"invalid peer certificate|UnknownIssuer|certificate verify failed|self.signed certificate",
        "The certificate of the package index is not trusted.",
        "If your network inspects encrypted traffic, set SSL_CERT_FILE to the file with its certificate.",
    ),
    (
        "forbidden",
        r"\b(401|403)\b.{0,30}(unauthorized|forbidden)",
        "The package index refused access.",
        "Check the user name and password of the index.",
    ),
    (
        "network",
        r"dns error|failed to lookup|could not resolve|name or service not known|network is unreachable|no route"
        r"|connection refused|connection reset|timed out|timeout|error sending request|failed to fetch|connect error"
        r"|network connectivity is disabled|temporary failure in name",
        "The network cannot be reached.",
        "Check the connection (and the proxy in QGIS: Settings, Options, Network), or give WHEELS a folder with the "
        "packages.",
    ),
    (
        "missing",
        r"no solution found|has no wheels|no matching distribution|not found in the (package registry|provided)",
        "The package index has no build for this machine and Python.",
        "Give INTERPRETER a Python that has the packages, or WHEELS a folder with them.",
    ),
    (
        "permission",
        r"permission denied|access is denied|os error 5\b|os error 13\b|os error 32\b|being used by another",
        "A file of the environment cannot be written, or is still in use.",
        "Close other QGIS windows that run Deepscape, check the rights of '{folder}', and run the set-up again.",
    ),
)


def cause_of(output: str) -> str:
    """Return the kind of failure that a command's output tells of (``network``, ``full``, ...); empty when unknown."""
    for kind, pattern, _, _ in _CAUSES:
        if re.search(pattern, output, re.IGNORECASE):
            return kind
    return ""


def explain(what: str, output: str, folder: Path, remedy: str = "") -> DeepscapeError:
    """Turn a failed command's output into one sentence and its remedy.

    Args:
        what: the step, as the beginning of a sentence: ``Installing torch failed``.
        output: what the command printed.
        folder: the folder of the environments.
        remedy: added for this step.
    """
    output = scrub(output)  # it travels into the debug panel, and from there into bug reports
    for kind, pattern, sentence, cure in _CAUSES:
        if re.search(pattern, output, re.IGNORECASE):
            error = DiskFull if kind == "full" else EngineSetupFailed
            return error(f"{what}: {_lower(sentence)}", f"{cure.format(folder=folder)} {remedy}".strip(), output)
    words = [text for text in output.splitlines() if text.strip()]
    said = (words[-1].strip() if words else "it said nothing").rstrip(".")
    return EngineSetupFailed(f"{what}: {said}.", remedy or "The log has the details; run the set-up again.", output)


def explain_os_error(what: str, error: OSError, folder: Path) -> DeepscapeError:
    """Turn a failed file operation of our own into a sentence."""
    words = (
        "No space left on device"
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        else str(error)
    )
    return explain(what, words, folder)


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
