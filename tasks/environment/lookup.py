"""Find the engine's interpreter: the user's own choice, else the managed environment of this release."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..errors import EngineMissing
from .extras import extras_of, installed_extras
from .files import is_program, read_json
from .places import engines_dir
from .release import release_digest

SETTING = "deepscape/engine_python"
VARIABLE = "DEEPSCAPE_ENGINE_PYTHON"
READY = "ready.json"
NOT_SET_UP = "The engine is not set up."
SET_UP = "Run 'Set up the engine' (Deepscape, Tools) once; it needs the network."

_CACHE_S = 2.0
_cached: Dict[Tuple[str, str], Tuple[float, bool]] = {}


@dataclass(frozen=True)
class EngineInterpreter:
    """The Python that runs the engine.

    Attributes:
        python: path of the interpreter.
        origin: ``setting``, ``environment`` (DEEPSCAPE_ENGINE_PYTHON) or ``managed``.
        folder: the managed environment's folder; empty for the user's own interpreter.
        facts: what the last verification found (versions, device); empty for the user's own interpreter.
        extras: value of EXTRAS -> version, of those that the environment has.
    """

    python: str
    origin: str
    folder: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, str] = field(default_factory=dict)


def find_engine(setting: str = "", environ: Optional[Mapping[str, str]] = None) -> EngineInterpreter:
    """Return the engine's interpreter, by a look at files alone (milliseconds, nothing is started).

    Args:
        setting: the value of QGIS's setting ``deepscape/engine_python``; empty = not set.
        environ: the environment to read DEEPSCAPE_ENGINE_PYTHON from; None = this process's own.

    Raises:
        EngineMissing: there is none, or the one that was asked for is no file.
    """
    variable = (os.environ if environ is None else environ).get(VARIABLE, "")
    for value, origin, name in ((setting, "setting", f"The setting {SETTING}"), (variable, "environment", VARIABLE)):
        if value:
            if not is_program(Path(value)):
                raise EngineMissing(
                    f"{name} names '{value}', which is no Python interpreter.",
                    "Correct it, or clear it to use the managed environment.",
                )
            return EngineInterpreter(str(value), origin, extras=extras_of(str(value)))
    managed = managed_engines()
    if not managed:
        raise EngineMissing(NOT_SET_UP, SET_UP)
    return managed[0]


def engine_ready(setting: str = "") -> bool:
    """Tell whether an engine is there; cheap enough for `canExecute` of every algorithm (kept for two seconds)."""
    key = (setting, os.environ.get(VARIABLE, ""))
    now = time.monotonic()
    if key in _cached and now - _cached[key][0] < _CACHE_S:
        return _cached[key][1]
    try:
        find_engine(setting)
        ready = True
    except EngineMissing:
        ready = False
    _cached[key] = (now, ready)
    return ready


def forget() -> None:
    """Drop what `engine_ready` keeps; called when an environment came or went."""
    _cached.clear()


def managed_engines() -> List[EngineInterpreter]:
    """Return this release's verified environments, the one verified last first."""
    found: List[Tuple[int, EngineInterpreter]] = []
    for marker in engines_dir().glob(f"{release_digest()}-*/{READY}"):
        facts = read_json(marker)
        python = venv_python(marker.parent)
        if facts and is_program(python):
            extras = installed_extras(marker.parent)
            engine = EngineInterpreter(str(python), "managed", str(marker.parent), facts, extras)
            found.append((marker.stat().st_mtime_ns, engine))
    return [engine for _, engine in sorted(found, key=lambda item: item[0], reverse=True)]


def venv_python(folder: Path) -> Path:
    """Return where a virtual environment keeps its interpreter."""
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"
