"""How many samples each class gives, by the strategies of OTB's SampleSelection, and its CSV files of rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Mapping

from ..tasks.errors import BadInput
from .textfiles import write_text

_HEADER = "#className requiredSamples totalSamples rate"
_SEPARATORS = ("\t", ";", ",", " ")


@dataclass(frozen=True)
class Rate:
    """What is asked of one class.

    Attributes:
        required: samples asked for; may be more than there are.
        available: pixels of the class.
        share: the share of them that is taken, 0 to 1.
    """

    required: int
    available: int
    share: float

    @property
    def taken(self) -> int:
        """Return how many of the required samples there are."""
        return min(self.required, self.available)


def rate(required: int, available: int) -> Rate:
    """Return the rate of a class of which so many samples are asked."""
    return Rate(required, available, min(required / available, 1.0) if available else 0.0)


def class_rates(
    strategy: str, available: Mapping[str, int], count: int, percent: float, listed: Mapping[str, int]
) -> Dict[str, Rate]:
    """Return the rate of every class.

    Args:
        strategy: upto, smallest, constant, percent, total, byclass or all.
        available: class -> pixels.
        count: samples per class (upto, constant), or in all (total).
        percent: share of the pixels, 0 to 1 (percent).
        listed: class -> samples (byclass); a class that is not listed gives none.
    """
    if strategy == "all":
        return {name: Rate(total, total, 1.0) for name, total in available.items()}
    if strategy == "percent":
        return {name: Rate(share_of(percent, total), total, percent) for name, total in available.items()}
    smallest = min((total for total in available.values() if total), default=0)
    whole = sum(available.values())
    required: Dict[str, Callable[[str, int], int]] = {
        "upto": lambda name, total: min(count, total),
        "constant": lambda name, total: count if total else 0,
        "smallest": lambda name, total: smallest if total else 0,
        "total": lambda name, total: int(0.5 + count * total / whole) if whole else 0,
        "byclass": lambda name, total: listed.get(name, 0),
    }
    return {name: rate(required[strategy](name, total), total) for name, total in available.items()}


def share_of(percent: float, total: float) -> int:
    """Return a share of a number of pixels, rounded half up."""
    return math.floor(0.5 + percent * total)


def write_rates(path: str, rates: Mapping[str, Rate]) -> str:
    """Write rates as the reference does, classes sorted as texts (a missing suffix ``.csv`` is added).

    Raises:
        DiskFull: no room left.
        BadInput: the folder does not exist or cannot be written.
    """
    lines = [f"{name}\t{of.required}\t{of.available}\t{of.share:g}" for name, of in sorted(rates.items())]
    return write_text(path, ".csv", "\n".join([_HEADER, *lines]) + "\n")


def is_rates_file(path: str) -> bool:
    """Tell whether a file begins as `write_rates` begins it."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().rstrip("\n") == _HEADER
    except (OSError, UnicodeDecodeError):
        return False


def read_required(path: str) -> Dict[str, int]:
    """Read the samples per class from a file of rates, or any with class and number in its first two columns.

    The first line that is neither empty nor a comment (#) tells the separator: tab, semicolon, comma or space.

    Raises:
        BadInput: the file cannot be read, or a line is of another form; it is named.
    """
    remedy = "Write one class per line, with the number of its samples: 'water;500'."
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise BadInput(f"The file of rates '{path}' cannot be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"The file of rates '{path}' is not UTF-8.", remedy) from error
    rows = [(number, line.rstrip("\r\n")) for number, line in enumerate(lines, start=1)]
    rows = [(number, line) for number, line in rows if line.strip() and not line.lstrip().startswith("#")]
    if not rows:
        raise BadInput(f"The file of rates '{path}' lists no class.", remedy)
    separator = next((each for each in _SEPARATORS if each in rows[0][1].strip()), "\t")
    found: Dict[str, int] = {}
    for number, line in rows:
        parts = [part.strip() for part in line.strip().split(separator)]
        if len(parts) < 2 or not parts[1].isdecimal():
            raise BadInput(f"Line {number} of '{path}' ('{line.strip()}') is no class with its samples.", remedy)
        if parts[0] in found:
            raise BadInput(f"'{path}' lists the class '{parts[0]}' twice.", remedy)
        found[parts[0]] = int(parts[1])
    return found
