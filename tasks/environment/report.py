"""The engine's state, and the diagnostics report for a bug tracker: no credentials, no contents of the user's data."""

from __future__ import annotations

import html
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, List, Mapping, Optional, Tuple

from ..errors import EngineMissing
from .extras import in_words
from .lookup import NOT_SET_UP, SET_UP, EngineInterpreter, find_engine
from .places import engines_dir, home
from .release import TORCH, release_digest
from .setuplog import end_of, scrub

_TELLING = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "UV_DEFAULT_INDEX",
            "UV_INDEX_URL", "UV_INDEX", "UV_FIND_LINKS", "PIP_INDEX_URL", "PIP_FIND_LINKS", "CUDA_VISIBLE_DEVICES",
            "DEEPSCAPE_HOME", "DEEPSCAPE_ENGINE_PYTHON", "DEEPSCAPE_UV")  # fmt: skip
_LOG_LINES = 40


@dataclass(frozen=True)
class EngineStatus:
    """What is known of the engine.

    Attributes:
        ready: there is an interpreter that was verified, or one of the user's own that exists.
        reason: why it is not ready, with the remedy; empty when it is.
        python: its path.
        device: ``cuda`` or ``cpu``; empty when unknown (the user's own interpreter, not verified yet).
        device_name: the device in words.
        versions: package -> version.
        extras: value of EXTRAS -> version, of those that are installed; of the user's own interpreter, those that were
            asked for and verified.
        folder: the managed environment's folder.
        size_bytes: of that folder.
        log: path of the set-up's log.
        report: the diagnostics as plain text.
    """

    ready: bool
    reason: str = ""
    python: str = ""
    device: str = ""
    device_name: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    size_bytes: int = 0
    log: str = ""
    report: str = ""

    def html(self) -> str:
        """Return the report as a page."""
        return (
            "<!DOCTYPE html>\n<html><head><meta charset='utf-8'><title>Deepscape: the engine</title></head>"
            f"<body><h1>{'The engine is ready' if self.ready else html.escape(self.reason)}</h1>"
            f"<p>Paste this into a bug report.</p><pre>{html.escape(self.report)}</pre></body></html>\n"
        )


def status(setting: str = "", extra: Optional[Mapping[str, str]] = None) -> EngineStatus:
    """Return the engine's state by a look at files; nothing is started.

    Args:
        setting: QGIS's setting ``deepscape/engine_python``.
        extra: facts of the caller for the report (QGIS's version, the plugin's).
    """
    try:
        return status_of(find_engine(setting), extra=extra)
    except EngineMissing as error:
        return status_of(None, str(error), extra)


def status_of(
    engine: Optional[EngineInterpreter], reason: str = "", extra: Optional[Mapping[str, str]] = None
) -> EngineStatus:
    """Return the state for an interpreter, or for none and the reason."""
    log = home() / "logs" / "setup.log"
    if engine is None:
        reason = reason or f"{NOT_SET_UP} {SET_UP}"
        engine = EngineInterpreter("", "none")
    facts = engine.facts
    size = folder_size(Path(engine.folder)) if engine.folder else 0
    return EngineStatus(
        ready=not reason,
        reason=reason,
        python=engine.python,
        device=str(facts.get("device", "")),
        device_name=str(facts.get("device_name", "")),
        versions=dict(facts.get("versions", {})),
        extras=dict(engine.extras),
        folder=engine.folder,
        size_bytes=size,
        log=str(log),
        report=_report(engine, reason, size, log, extra or {}),
    )


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            total += os.lstat(os.path.join(root, name)).st_size
    return total


def _report(engine: EngineInterpreter, reason: str, size: int, log: Path, extra: Mapping[str, str]) -> str:
    facts: Mapping[str, Any] = engine.facts
    rows: List[Tuple[str, str]] = [("Engine", "ready" if not reason else f"not ready: {reason}"), *extra.items()]
    rows += [
        ("System", platform.platform()),
        ("Machine", f"{platform.machine()}, {os.cpu_count()} cores"),
        ("This Python", f"{platform.python_version()} ({sys.executable})"),
        ("Release", f"{release_digest()}, torch {TORCH}"),
        ("Folder", str(home())),
        ("Interpreter", f"{engine.python or 'none'} ({engine.origin})"),
        ("Environment", f"{engine.folder}, {size / 1e9:.2f} GB" if engine.folder else "none"),
        ("Device", f"{facts.get('device', 'unknown')}: {facts.get('device_name', '')}"),
        ("Extras", in_words(engine.extras)),
        ("Other environments", ", ".join(_others(engine.folder)) or "none"),
    ]
    rows += [(f"  {name}", str(version)) for name, version in dict(facts.get("versions", {})).items()]
    rows += [(name, value) for name in _TELLING for value in [_variable(name)] if value]
    lines = [f"{name:<24}{value}" for name, value in rows]
    if log.is_file():
        lines += ["", f"The end of {log}:", *end_of(log, _LOG_LINES)]
    return scrub("\n".join(lines))


def _variable(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.lower(), "")


def _others(folder: str) -> List[str]:
    if not engines_dir().is_dir():
        return []
    return sorted(path.name for path in engines_dir().iterdir() if path.is_dir() and str(path) != folder)
