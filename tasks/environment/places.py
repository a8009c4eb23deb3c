"""Where Deepscape keeps what does not belong into a project: per user, outside the plugin folder.

An update of the plugin replaces its folder; the environments, models and logs stay.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Mapping, Optional

from ..errors import EngineSetupFailed


def home(environ: Optional[Mapping[str, str]] = None) -> Path:
    """Return the root folder: DEEPSCAPE_HOME, else ``deepscape`` in the platform's per-user data folder."""
    env = os.environ if environ is None else environ
    if env.get("DEEPSCAPE_HOME"):
        return Path(env["DEEPSCAPE_HOME"]).expanduser()
    if sys.platform == "win32":
        return Path(env.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "deepscape"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "deepscape"
    return Path(env.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "deepscape"


def engines_dir() -> Path:
    """Return the folder of the managed environments (it may not exist)."""
    return home() / "engines"


def cache_dir() -> Path:
    """Return the folder of things that can be made again: uv's cache, measurements of runtimes (made when missing)."""
    return made(home() / "cache")


def graphs_dir() -> Path:
    """Return the folder of the networks' ONNX graphs, which are made from the models (made when missing)."""
    return made(cache_dir() / "graphs")


def scratch_dir() -> Path:
    """Return the workers' current folder, for temporary files (made when missing)."""
    return made(home() / "scratch")


def model_store() -> Path:
    """Return the folder with copies of models that were written to temporary outputs (made when missing)."""
    return made(home() / "models")


def log_dir() -> Path:
    """Return the folder of the log files (made when missing)."""
    return made(home() / "logs")


def made(folder: Path) -> Path:
    """Return the folder, made when missing.

    Raises:
        EngineSetupFailed: it cannot be made; names the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineSetupFailed(
            f"The folder '{folder}' cannot be made: {error.strerror or error}.",
            "Make it writable, or set DEEPSCAPE_HOME to a folder of your own.",
        ) from error
    return folder
