"""Programs, and JSON files that are there as a whole or not at all: of environments, and beside graphs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping


def is_program(path: Path) -> bool:
    """Tell whether the path is a file (links followed: a venv breaks when its base Python goes) that can be run."""
    return path.is_file() and os.access(path, os.X_OK)


def read_json(path: Path) -> Dict[str, Any]:
    """Return the object in a JSON file; empty when the file is missing or cut off, which counts as not there."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file in one step: a reader sees the whole of it or nothing."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(dict(data), indent=1, sort_keys=True), encoding="utf-8")
    temporary.replace(path)
