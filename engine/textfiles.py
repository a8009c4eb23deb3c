"""Writing small text files by temporary name."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from .outputfiles import part_name, writing_error


def write_text(path: str, suffix: str, text: str, *others: str) -> str:
    """Write a text file and return its real path; ``suffix`` (".csv") is added where it and the ``others`` are missing.

    Raises:
        DiskFull: no room left.
        BadInput: the folder does not exist or cannot be written.
    """
    target = path if Path(path).suffix.lower() in (suffix, *others) else path + suffix
    part = part_name(target)
    try:
        Path(part).write_text(text, encoding="utf-8")
        os.replace(part, target)
    except OSError as error:
        raise writing_error(target, error) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
    return target


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table as CSV: a line of the columns, then one of each row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
