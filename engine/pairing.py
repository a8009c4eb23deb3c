"""Means over seeds, and the differences of runs that belong together: what a change adds, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

import numpy as np

from .wording import many

ADDS, NOTHING, HARMS, UNKNOWN = "adds", "no improvement", "harms", "unknown"
# Below so many seeds, a standard error says little.
FEWEST_SEEDS = 3
_ERRORS = 2.0
# Numbers and their spread stay on one line of a table.
_PLUS_MINUS = "\u00a0±\u00a0"
# Of numbers from 0 to 1; smaller differences are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Spread:
    """Some runs' numbers.

    Attributes:
        mean: None without any number.
        deviation: of the sample (divided by n - 1); None with less than two.
        count: numbers.
    """

    mean: Optional[float]
    deviation: Optional[float]
    count: int


@dataclass(frozen=True)
class Difference:
    """What one kind of runs has over another, from pairs of runs.

    Attributes:
        mean: of the differences of the pairs; None without pairs.
        standard_error: of that mean, deviation / sqrt(pairs); None with less than two pairs.
        pairs: how many.
    """

    mean: Optional[float]
    standard_error: Optional[float]
    pairs: int

    @property
    def verdict(self) -> str:
        """Return adds or harms beyond two standard errors, no improvement within, unknown without an error."""
        if self.mean is None or self.standard_error is None:
            return UNKNOWN
        if abs(self.mean) <= _ERRORS * self.standard_error + _ROUNDING:
            return NOTHING
        return ADDS if self.mean > 0 else HARMS


def spread(values: Sequence[Optional[float]]) -> Spread:
    """Return mean and deviation of the numbers that there are."""
    known = [value for value in values if value is not None]
    return Spread(
        float(np.mean(known)) if known else None, float(np.std(known, ddof=1)) if len(known) > 1 else None, len(known)
    )


def difference(pairs: Sequence[Tuple[Optional[float], Optional[float]]]) -> Difference:
    """Return the mean of second - first over the pairs that have both numbers, with its standard error."""
    found = spread([after - before for before, after in pairs if before is not None and after is not None])
    error = None if found.deviation is None else found.deviation / math.sqrt(found.count)
    return Difference(found.mean, error, found.count)


def spoken_seeds(count: int) -> str:
    """Return ``1 seed`` or ``3 seeds``."""
    return many(count, "seed")


def listed_seeds(count: int) -> str:
    """Return the seeds of so many runs, which are counted from 0: ``0``, or ``0 to 2``."""
    return "0" if count == 1 else f"0 to {count - 1}"


def spoken_spread(found: Spread, digits: int = 3) -> str:
    """Return ``0.912 ± 0.004``; without a deviation the mean alone."""
    if found.mean is None:
        return "n/a"
    return f"{found.mean:.{digits}f}" + (
        "" if found.deviation is None else f"{_PLUS_MINUS}{found.deviation:.{digits}f}"
    )


def spoken_difference(found: Difference, digits: int = 3) -> str:
    """Return ``+0.012 ± 0.004`` (standard error); without an error the mean alone."""
    if found.mean is None:
        return "n/a"
    error = "" if found.standard_error is None else f"{_PLUS_MINUS}{found.standard_error:.{digits}f}"
    # No minus before a zero.
    return f"{round(found.mean, digits) + 0.0:+.{digits}f}{error}"
