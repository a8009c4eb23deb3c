"""Means over seeds, and the differences of runs that belong together: what a change adds, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

import numpy as np
import scipy.special

from .wording import many

ADDS, NOTHING, HARMS, UNKNOWN = "adds", "no improvement", "harms", "unknown"
# Below so many seeds, a standard error says little: of two, a t-test at 5 % would ask for 12.7 of them.
FEWEST_SEEDS = 3
# The remedy of algorithms that take SEEDS.
MORE_SEEDS = f"give SEEDS {FEWEST_SEEDS} or more"
_ERRORS = 2.0
# Probability below the upper end of a two-sided test at 5 %.
_UPPER = 0.975
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
        """Return adds or harms beyond two standard errors, no improvement within, unknown where chance is not known.

        It is not known of less than `FEWEST_SEEDS` pairs, nor where all pairs have the same difference: few test
        samples make accuracies coarse, so that this says nothing of how far they would scatter.
        """
        if self.mean is None or self.pairs < FEWEST_SEEDS or self._equal:
            return UNKNOWN
        if abs(self.mean) <= _ERRORS * (self.standard_error or 0.0) + _ROUNDING:
            return NOTHING
        return ADDS if self.mean > 0 else HARMS

    @property
    def _equal(self) -> bool:
        return self.standard_error is None or self.standard_error <= _ROUNDING

    def reason(self, remedy: str) -> str:
        """Return why the verdict is unknown; empty where it is another one.

        Args:
            remedy: how to get more seeds, for the end of a sentence.
        """
        if self.verdict != UNKNOWN:
            return ""
        if self.mean is None:
            return "the number is not defined for these runs"
        if self.pairs < FEWEST_SEEDS:
            count = "one seed" if self.pairs == 1 else "two seeds"
            return f"{count} cannot tell how much of it is chance: {remedy}"
        return "all seeds have the same difference, which tells nothing of chance"


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


def leniency(pairs: int) -> str:
    """Return in a sentence how much stricter a t-test would be than the rule of two standard errors.

    Args:
        pairs: that are compared; of fewer than a verdict takes, the sentence is that of the fewest.
    """
    pairs = max(pairs, FEWEST_SEEDS)
    errors = float(scipy.special.stdtrit(pairs - 1, _UPPER))
    return f"With {pairs} seeds this rule is lenient: a t-test at 5 % would ask for {errors:.1f} standard errors."


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
