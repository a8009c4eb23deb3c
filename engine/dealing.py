"""Dealing groups of samples to parts or folds, so that every class reaches each by its share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping

import numpy as np
import numpy.typing as npt

from ..tasks.context import Context
from ..tasks.errors import BadInput

Numbers = npt.NDArray[np.int64]
# Groups that are dealt between two looks for a cancel.
_CHUNK = 4096


@dataclass(frozen=True)
class Plan:
    """What is dealt.

    Attributes:
        shares: part -> share, in the order of the parts; all above 0.
        folds: True where the parts are folds of one size: what is left over goes round, class by class.
        unit: what a message calls the groups.
        names: class id -> name.
        remedy: what to do where a class has too few groups.
    """

    shares: Mapping[str, float]
    folds: bool
    unit: str
    names: Mapping[int, str]
    remedy: str


def portions(count: int, shares: Mapping[str, float]) -> Dict[str, int]:
    """Return how many of ``count`` groups each part gets: largest remainder, ties to the first part, none empty."""
    whole = sum(shares.values())
    exact = {part: count * share / whole for part, share in shares.items()}
    given = {part: int(number + 1e-9) for part, number in exact.items()}
    order = sorted(shares, key=lambda part: -round(exact[part] - given[part], 9))
    for part in order[: count - sum(given.values())]:
        given[part] += 1
    for part in shares:
        if given[part] == 0 and count >= len(shares):
            given[max(shares, key=lambda other: given[other])] -= 1
            given[part] = 1
    return given


def deal_by_class(ids: Numbers, groups: Numbers, plan: Plan, seed: int) -> npt.NDArray[Any]:
    """Return the part of each feature ``(N,)`` where a group holds one class; each class deals its own groups.

    Args:
        ids: class of each feature ``(N,)``.
        groups: group of each feature, numbered from 0.
        plan: of the parts.
        seed: of the order.

    Raises:
        BadInput: a class has fewer groups than there are parts.
    """
    part_of_group = np.empty(int(groups.max()) + 1, dtype=object)
    values = np.unique(ids)
    order = np.argsort(ids, kind="stable")
    owned = [np.unique(some) for some in np.split(groups[order], np.flatnonzero(np.diff(ids[order])) + 1)]
    wanted = _wanted(values, np.array([len(own) for own in owned]), plan)
    for value, own, numbers in zip(values, owned, wanted):
        shuffled = np.random.default_rng([seed % 2**64, int(value) % 2**64]).permutation(own)
        part_of_group[shuffled] = np.repeat(np.array(list(plan.shares), dtype=object), numbers)
    return np.asarray(part_of_group[groups])


def deal_together(ids: Numbers, groups: Numbers, plan: Plan, seed: int, context: Context) -> npt.NDArray[Any]:
    """Return the part of each feature ``(N,)``; a group goes to one part with all its classes.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): the class with the fewest undealt groups deals
    first, each group to the part that lacks most groups of it. Arguments and errors as for `deal_by_class`.
    """
    values, columns = np.unique(ids, return_inverse=True)
    holds = np.zeros((int(groups.max()) + 1, len(values)), dtype=bool)
    holds[groups, columns] = True
    parts = list(plan.shares)
    lacking = _wanted(values, holds.sum(axis=0), plan)
    order = np.random.default_rng(seed % 2**64).permutation(len(holds))
    part_of_group = np.full(len(holds), -1, dtype=np.int64)
    while np.any(part_of_group < 0):
        left = holds[part_of_group < 0].sum(axis=0)
        rarest = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        for number, group in enumerate(order[(part_of_group[order] < 0) & holds[order, rarest]]):
            if number % _CHUNK == 0:
                context.check()
            # Ties go to the part that lacks most over all classes of the group, then to the first.
            own, total = lacking[rarest], lacking[holds[group]].sum(axis=0)
            chosen = max(range(len(parts)), key=lambda p: (int(own[p]), int(total[p]), -p))
            part_of_group[group] = chosen
            lacking[holds[group], chosen] -= 1
    return np.array(parts, dtype=object)[part_of_group[groups]]


def fewest_groups(ids: Numbers, groups: Numbers) -> int:
    """Return the number of groups of the class that has the fewest."""
    pairs = np.unique(np.stack([ids, groups]), axis=1)
    return int(np.unique(pairs[0], return_counts=True)[1].min())


def _wanted(values: Numbers, counts: Numbers, plan: Plan) -> Numbers:
    """Return how many groups of each class every part is to get ``(classes, parts)``."""
    wanted: List[List[int]] = []
    turn = 0
    for value, count in zip(values, counts):
        if count < len(plan.shares):
            what = "folds" if plan.folds else f"parts ({', '.join(plan.shares)})"
            raise BadInput(
                f"Class {value} ({plan.names[int(value)]}) has {count} {plan.unit}, fewer than the {len(plan.shares)} "
                f"{what}.",
                plan.remedy,
            )
        numbers = list(portions(int(count), plan.shares).values())
        if plan.folds:
            # Always to the first folds, the remainders of many classes would make them larger than the last.
            numbers = np.roll(numbers, turn).tolist()
            turn += int(count) % len(plan.shares)
        wanted.append(numbers)
    return np.array(wanted, dtype=np.int64)
