"""What a look at a scene's values tells: a number that may well mean no data, and pixels without a formula's value.

Both pass without a word otherwise: a number that nobody declared is learned from and mapped as any measurement is, and
a division by zero makes a hole.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.context import Context
from ..tasks.errors import BadInput

Array = npt.NDArray[Any]

# No measurement is as large, in whatever units, but numbers that stand for no data are: -3.4e38 is what many programs
# write. Such a value reaches the sums of a network, overflows on the way, and no two runtimes agree on what is left.
LARGEST_MEASUREMENT = 1e30

# Pixels of a window, on a side, that are looked at for such a number.
_LOOKED = 64
# A number that holds this share of a band ...
_MUCH = 0.01
# ... and lies farther from all others than these are apart (but for a thousandth at either end) is no measurement. The
# others have to be many: of classes or flags, one may well be 255.
_ENDS = 0.001
_FEWEST_VALUES = 16
_FEWEST_PIXELS = 100


@dataclass(frozen=True)
class Outlier:
    """A number that a band holds again and again, far from all of its other values.

    Attributes:
        value: the number, as the scene's values are.
        share: of the pixels that hold it.
        mean: of the other values.
        std: their deviation.
    """

    value: float
    share: float
    mean: float
    std: float


@dataclass
class ValueWatch:
    """Watches the windows of a scene go by.

    Attributes:
        formulas: how the computed bands are written, which stand behind all others.
        known: pixels that have a value in all other bands.
        holes: those of them that each formula has no value for ``(E,)``.
    """

    formulas: Sequence[str] = ()
    known: int = 0
    holes: List[int] = field(default_factory=list)
    _looked: List[List[Array]] = field(default_factory=list)

    def see(self, values: Array, valid: Array) -> None:
        """Look at the values and the validity ``(C + E, H, W)`` of a window."""
        own = len(values) - len(self.formulas)
        whole = valid[:own].all(axis=0)
        self.known += int(whole.sum())
        gone = [int(np.count_nonzero(whole & ~band)) for band in valid[own:]]
        self.holes = [a + b for a, b in zip(self.holes or [0] * len(gone), gone)]
        step = tuple(slice(None, None, max(1, side // _LOOKED)) for side in values.shape[1:])
        self._looked.append([band[step][good[step]] for band, good in zip(values[:own], valid[:own])])

    def outliers(self) -> Tuple[Optional[Outlier], ...]:
        """Return the outlier of each band that is not computed; None where it has none."""
        return tuple(_outlier(np.concatenate(parts)) for parts in zip(*self._looked))

    def tell_of_holes(self, name: str, context: Context) -> None:
        """Warn of pixels of an image that a formula has no value for.

        Args:
            name: what messages call the image.
            context: for the warning.

        Raises:
            BadInput: there is a formula that has no value anywhere.
        """
        for formula, holes in zip(self.formulas, self.holes):
            if holes and holes == self.known:
                raise BadInput(
                    f"The formula '{formula}' has no finite value in any of the {self.known} pixels of '{name}' that "
                    "were looked at (a division by 0?).",
                    "Correct EXPRESSIONS.",
                )
            if holes:
                context.warn(
                    f"The formula '{formula}' has no finite value in {holes} of the {self.known} pixels of '{name}' "
                    "that were looked at (a division by 0?): they count as no-data."
                )


class Holes:
    """Counts the pixels of a map that formulas have no value for, although the image has data; threads may share it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._counts: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, values: Array, asked: Array, formulas: int) -> None:
        """Take in a window.

        Args:
            values: the bands, the computed ones last, ``(C + E, H, W)``, NaN where no-data.
            asked: the pixels that are to be mapped ``(H, W)``.
            formulas: the number of computed bands.
        """
        missing = np.isnan(values)
        known = asked & ~missing[:-formulas].any(axis=0)
        found = np.count_nonzero(missing[-formulas:] & known, axis=(1, 2))
        with self._lock:
            self._counts = found + (self._counts if len(self._counts) else 0)

    def tell(self, formulas: Sequence[str], name: str, context: Context) -> None:
        """Warn of the pixels of the image ``name`` that the formulas have no value for."""
        for formula, count in zip(formulas, self._counts.tolist()):
            if count:
                context.warn(
                    f"The formula '{formula}' has no finite value in {count} pixels of '{name}' (a division by 0?): "
                    "they are no-data in the map."
                )


def _outlier(values: Array) -> Optional[Outlier]:
    """Return the most frequent of a band's values ``(N,)`` where it is an outlier."""
    found, counts = np.unique(values, return_counts=True)
    if len(found) <= _FEWEST_VALUES:
        return None
    most = int(np.argmax(counts))
    value, rest = found[most], values[values != found[most]].astype(np.float64)
    share = float(counts[most] / len(values))
    if share < _MUCH or len(rest) < _FEWEST_PIXELS:
        return None
    low, high = np.quantile(rest, [_ENDS, 1 - _ENDS])
    rest = rest[(rest >= low) & (rest <= high)]
    gap = max(low - float(value), float(value) - high)
    if not (gap > high - low and math.isfinite(gap)):
        return None
    return Outlier(float(value), share, float(rest.mean()), float(rest.std()))


def undeclared(
    outliers: Sequence[Optional[Outlier]], name: str, numbers: Optional[Sequence[int]] = None
) -> Tuple[str, str]:
    """Return in words what holds many pixels and is not declared as no-data, and what to do; "" without an outlier.

    Args:
        outliers: of bands of an image, in the image's own numbers.
        name: what messages call the image.
        numbers: of these bands; None = from 1.
    """
    numbers = numbers or range(1, len(outliers) + 1)
    there = [(number, one) for number, one in zip(numbers, outliers) if one is not None]
    if not there:
        return "", ""
    most = max((one for _, one in there), key=lambda one: one.share)
    same = [str(number) for number, one in there if one.value == most.value]
    where = "" if len(same) == len(outliers) else f" of band{'s' if len(same) > 1 else ''} {', '.join(same)}"
    share = f"{100 * most.share:.0f} %" if most.share >= 0.1 else f"{100 * most.share:.1f} %"
    return (
        f"{most.value:.10g} holds {share} of the pixels{where} of '{name}', far from all other values, and is not "
        "declared as no-data",
        f"set NODATA to {most.value:.10g}",
    )


def warn_of_undeclared(what: str, remedy: str, context: Context) -> None:
    """Warn of what `undeclared` returns: it is taken as a measurement."""
    if what:
        context.warn(f"{what}: it is taken as a measurement. If it means no data, {remedy}.")
