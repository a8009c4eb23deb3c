"""Which pixels of a class are kept: how many (strategies) and which ones (samplers).

The n-th pixel of a class, in the order of traversal and counted from 0, is called its ordinal n here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Mapping, Optional

import numpy as np
import numpy.typing as npt

from ..tasks.context import Context

Ordinals = npt.NDArray[np.int64]

# Share of a class that the periodic sampler may leave out at its end without a warning.
PERIODIC_TOLERANCE = 0.02


@dataclass(frozen=True)
class ClassPlan:
    """What is to be kept of one class.

    Attributes:
        available: pixels of the class, N.
        wanted: pixels to keep, n.
        step: distance of the periodic sampler, in pixels of the class.
        sampler: spread, random or periodic.
        drawn: sorted ordinals where the sampler cannot compute them (random).
    """

    available: int
    wanted: int
    step: int
    sampler: str
    drawn: Optional[Ordinals] = field(default=None, compare=False)

    def between(self, start: int, stop: int) -> Ordinals:
        """Return the kept ordinals in ``[start, stop)``, ascending."""
        if self.wanted == 0 or stop <= start:
            return np.empty(0, dtype=np.int64)
        if self.wanted == self.available:
            return np.arange(start, min(stop, self.available), dtype=np.int64)
        if self.drawn is not None:
            return self.drawn[np.searchsorted(self.drawn, start) : np.searchsorted(self.drawn, stop)]
        if self.sampler == "periodic":
            first, last = -(-(start + 1) // self.step), stop // self.step
            return np.arange(max(1, first), min(self.wanted, last) + 1, dtype=np.int64) * self.step - 1
        return self._spread(start, stop)

    def _spread(self, start: int, stop: int) -> Ordinals:
        total, kept = self.available, self.wanted
        first = max(0, -((total - 2 * kept * start) // (2 * total)))
        last = min(kept, -((total - 2 * kept * stop) // (2 * total)))
        # Beyond 64 bits the product is computed in Python's own integers.
        k = np.arange(first, last, dtype=np.int64 if 2 * kept * total < 2**63 else object)
        return ((2 * k + 1) * total // (2 * kept)).astype(np.int64)

    @property
    def unreachable_share(self) -> float:
        """Return the share of the class after the last pixel that the sampler can keep."""
        if self.sampler != "periodic" or self.wanted == 0:
            return 0.0
        return (self.available - self.step * self.wanted) / self.available


def targets_of_raster(counts: Mapping[int, int], strategy: str, count: int, context: Context) -> Dict[int, int]:
    """Return how many pixels of each class a strategy keeps, by the rules of LabelImageSampleSelection.

    Args:
        counts: class id -> available pixels, none 0.
        strategy: upto, constant, total, smallest or all.
        count: what is asked for, per class (upto, constant) or in all (total).
        context: takes the warnings.
    """
    if strategy == "all":
        return dict(counts)
    smallest = min(counts.values())
    if strategy == "smallest":
        return dict.fromkeys(counts, smallest)
    if strategy == "total":
        step = total_step(counts, count, context)
        return {value: available // step for value, available in counts.items()}
    if strategy == "constant":
        if smallest < count:
            rarest = min(counts, key=lambda value: counts[value])
            context.warn(
                f"Class {rarest} has {smallest} pixels, fewer than the {count} asked for: every class gives {smallest}."
            )
        return dict.fromkeys(counts, min(count, smallest))
    return clamped(counts, count, context)


def total_step(counts: Mapping[int, int], count: int, context: Context) -> int:
    """Return the step of strategy total, the same for all classes."""
    total = sum(counts.values())
    if total < count:
        context.warn(f"There are {total} labelled pixels, fewer than the {count} asked for: all are taken.")
    return max(1, total // count)


def clamped(counts: Mapping[int, int], count: int, context: Context) -> Dict[int, int]:
    """Return min(count, available) per class; a line of the log names each class that has fewer."""
    for value, available in counts.items():
        if available < count:
            context.log(f"Class {value} has {available} pixels, fewer than the {count} asked for: all are taken.")
    return {value: min(count, available) for value, available in counts.items()}


def plan_raster(
    counts: Mapping[int, int], strategy: str, count: int, sampler: str, seed: int, context: Context
) -> Dict[int, ClassPlan]:
    """Return the plan of every class of a label raster; classes that get no sample are named in a warning."""
    targets = targets_of_raster(counts, strategy, count, context)
    common = total_step(counts, count, Context()) if strategy == "total" else 0
    plans = {}
    for value, available in counts.items():
        wanted = targets[value]
        if wanted == 0:
            context.warn(f"Class {value} has {available} pixels, too few for a sample of its own; it gets none.")
        step = common or (available // wanted if wanted else 1)
        drawn = draw(available, wanted, seed, value) if sampler == "random" else None
        plans[value] = ClassPlan(available, wanted, step, sampler, drawn)
        share = plans[value].unreachable_share
        if share > PERIODIC_TOLERANCE:
            context.warn(
                f"The periodic sampler cannot reach the last {share:.1%} of class {value}; SAMPLER spread covers all "
                "of it."
            )
    return plans


def draw(available: int, wanted: int, seed: int, value: int) -> Ordinals:
    """Return exactly ``wanted`` ordinals at random, ascending; the draw of a class does not depend on the others."""
    generator = np.random.default_rng([seed % 2**64, value % 2**64])
    return np.sort(generator.choice(available, size=wanted, replace=False, shuffle=False)).astype(np.int64)


def periodic_by_rate(available: int, wanted: int) -> Ordinals:
    """Return the ordinals that SampleSelection's periodic sampler keeps, rounding included.

    Pixel i (from 1) is kept when ``ceil(i * rate - k) > 0`` with k the pixels kept before it: the first always is, and
    rounding may give one more than asked (500 of 3711 gives 501), as upstream. With ``c = ceil(i * rate)``, which never
    falls, ``k`` after pixel i is ``min(k + 1, c)``, hence a running minimum.
    """
    rate = min(wanted / available, 1.0)
    index = np.arange(1, available + 1, dtype=np.int64)
    ceilings = np.ceil(index * rate).astype(np.int64)
    kept = index + np.minimum(np.minimum.accumulate(ceilings - index), 0)
    return np.flatnonzero(np.diff(kept, prepend=0) > 0).astype(np.int64)
