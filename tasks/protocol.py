"""The messages between QGIS and the worker: one JSON object per line, in both directions.

To the worker: ``job`` (id, kind, job, threads, scratch), ``cancel`` (id) and ``stop`` (id: end the training early and
keep the best); end-of-file on its standard input means cancel and end. From the worker: ``hello`` once, then for each
job ``accepted``, any number of ``progress``, ``log``, ``warning``, ``metric`` and ``picture`` (a PNG as base64), then
exactly one of ``result``, ``error`` and ``cancelled``. Every message about a job carries its ``id``.

Standard library only; it knows of numpy scalars and arrays by their methods alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

PROTOCOL = 1
FINAL = frozenset({"result", "error", "cancelled"})

# More than any message needs; a program that is no worker and never ends its line is recognised by it.
LONGEST_LINE = 64 << 20

Message = Dict[str, Any]

PLUGIN_FOLDER = Path(__file__).resolve().parent.parent


def plugin_version() -> str:
    """Return the version that metadata.txt states now, or "0.0.0" without one.

    It is read each time: after an update in place, warm workers of the old version are found out by it.
    """
    try:
        text = (PLUGIN_FOLDER / "metadata.txt").read_text(encoding="utf-8")
    except OSError:
        return "0.0.0"
    found = re.search(r"^version\s*=\s*(\S+)", text, re.MULTILINE)
    return found.group(1) if found else "0.0.0"


def jsonable(value: Any) -> Any:
    """Return ``value`` in plain JSON values; numpy scalars and arrays, paths, sets and dataclasses are converted.

    Raises:
        TypeError: the value has no plain form.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(jsonable(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(item) for item in value), key=str)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, torch tensors
        return jsonable(value.tolist())
    raise TypeError(f"{type(value).__name__} has no plain form")


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as one line of UTF-8 JSON.

    Raises:
        TypeError: a value has no plain form.
    """
    text = json.dumps(jsonable(message), ensure_ascii=False, separators=(",", ":"))
    # A file name that is not UTF-8 reaches Python as lone surrogates, which the escaped form carries unharmed.
    try:
        return text.encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(jsonable(message), separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> Optional[Message]:
    """Return the message of a line, or None when it is none (something else printed it)."""
    try:
        data = json.loads(line.decode("utf-8"))
    except ValueError:
        return None
    return data if isinstance(data, dict) and isinstance(data.get("type"), str) else None


class LineReader:
    """Lines of a file descriptor, read without buffered file objects.

    A daemon thread that is blocked in a buffered reader when Python ends aborts the whole program (QGIS); one that is
    blocked in ``os.read`` does not.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pieces: List[bytes] = []
        self._lines: List[bytes] = []
        self._held = 0

    def readline(self) -> bytes:
        """Return the next line without its end, or what is left at the end of file; raise EOFError after that."""
        while not self._lines:
            try:
                block = os.read(self._descriptor, 1 << 16)
            except OSError:  # closed from the other side, or by another thread: the same as its end
                block = b""
            if not block:
                if not self._pieces:
                    raise EOFError
                block = b"\n"
            self._pieces.append(block)
            self._held += len(block)
            if b"\n" in block or self._held > LONGEST_LINE:
                *lines, rest = b"".join(self._pieces).split(b"\n")
                if not lines:
                    lines, rest = [rest], b""
                self._lines = lines[::-1]
                self._pieces, self._held = ([rest] if rest else []), len(rest)
        return self._lines.pop()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``; a pipe may take less than it is offered."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
