"""How times, sizes and lists are worded in logs, reports and tables; without torch, for mapping jobs use it, too."""

from __future__ import annotations

import math
from typing import Sequence

# Digits after the point that are written at most: float64 holds no more of what is near 1.
_MOST_DECIMALS = 15


def duration(seconds: float) -> str:
    """Return a length of time in words: "40 s", "2.3 min", "12 min", "3.5 h", "46 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    length, unit = (seconds / 60, "min") if seconds < 90 * 60 else (seconds / 3600, "h")
    return f"{length:.1f} {unit}" if length < 9.95 else f"{length:.0f} {unit}"


def many(count: int, what: str) -> str:
    """Return a number of things: "1 window", "12 windows"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def as_given(value: float) -> str:
    """Return a number as a user gave it: "0.6", "1", and "0.9999999", which in fewer digits would be 1."""
    return f"{value:.15g}"


def across_by_down(height: int, width: int) -> str:
    """Return the size of an array ``(H, W)`` as QGIS tells that of a raster, the width first: "247 x 237"."""
    return f"{width} x {height}"


def first_of(words: Sequence[str], most: int) -> str:
    """Return a list of which so many are named: "a, b and 3 more"."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def decimals_of(value: float, significant: int = 3) -> int:
    """Return the digits after the point that show so many significant digits of a number.

    0 for 0 and for what is large: 12.3, 0.0123 and 1234 need 1, 4 and none of three.
    """
    if value == 0 or not math.isfinite(value):
        return 0
    return min(max(significant - 1 - math.floor(math.log10(abs(value))), 0), _MOST_DECIMALS)
