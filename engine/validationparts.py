"""The validation part that is cut from the training samples where the user names none.

Whole scenes where she splits by scene, else whole polygons where the samples know theirs, else spatial blocks; training
patches that touch a validation patch are left out.
"""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from .patchpools import Array, Indices, Part

BLOCK_PATCHES = 10  # side of a block of the automatic split, in patches
_FEWEST_BLOCKS = 10
_FEWEST_SCENES = 3  # of which one can validate
FEW_JUDGED = 5  # a class with fewer samples than this in another part is warned about
_UNEVEN = 0.5  # a class whose held-back share differs by more than this from the one asked for, as its part, is named


def validating_scenes(
    part: Part, classes: int, share: float, seed: int, notes: List[str]
) -> Tuple[Part, Optional[Part]]:
    """Give whole scenes of the training part to validation: the share of them, at least one of three or more.

    They are drawn at random, but never the last one that holds a class.

    Args:
        part: what could train.
        classes: how many there are.
        share: of the scenes that validates.
        seed: of the drawing.
        notes: takes sentences for the log and the report.

    Returns:
        What trains and what validates; None for the latter where there are too few scenes.
    """
    scenes = part.pool.scene_of[part.index]
    present = np.unique(scenes)
    if share <= 0 or len(present) < _FEWEST_SCENES:
        return part, None
    table = np.zeros((len(part.pool.scenes), classes), dtype=np.int64)
    np.add.at(table, (scenes, part.labels), 1)
    remaining, taken = table.sum(axis=0), np.zeros(len(table), dtype=bool)
    wanted = min(max(1, round(share * len(present))), len(present) - 1)
    for scene in np.random.default_rng(seed).permutation(present):
        if taken.sum() < wanted and np.all((table[scene] == 0) | (table[scene] < remaining)):
            taken[scene] = True
            remaining = remaining - table[scene]
    if not taken.any():
        notes.append("Every scene holds a class that no other has: none can validate as a whole.")
        return part, None
    names = ", ".join(part.pool.scenes[scene] for scene in np.nonzero(taken)[0])
    notes.append(f"Scenes that validate: {names}.")
    return part.chosen(~taken[scenes]), part.chosen(taken[scenes])


def cut_validation(
    part: Part, classes: Sequence[ClassEntry], share: float, seed: int, notes: List[str], context: Context
) -> Tuple[Part, Optional[Part]]:
    """Cut a validation part from the training part: whole polygons, else blocks.

    Args:
        part: what could train.
        classes: their table.
        share: of the patches of each class that validates.
        seed: of the drawing.
        notes: takes sentences for the log and the report.
        context: takes the warnings.

    Returns:
        What trains and what validates; None for the latter where the samples lie too close together.
    """
    groups = part.pool.groups[part.index]
    by_polygon = bool(np.all(groups >= 0)) and len(np.unique(groups)) > 1
    # Every scene gives its share of every class.
    strata = part.pool.scene_of[part.index] * len(classes) + part.labels
    count = len(classes) * len(part.pool.scenes)
    taken = _take_groups(strata, groups, count, share, seed) if by_polygon else None
    what = "whole polygons"
    if taken is None or not taken.any():
        taken = _take_groups(strata, _blocks(part), count, share, seed)
        placed = part.pool.placed[part.index]
        what = "spatial blocks" if placed.all() else "at random" if not placed.any() else "spatial blocks, or at random"
    if not taken.any():
        notes.append("The training samples lie too close together to cut a validation part from them: there is none.")
        return part, None
    kept = _without_neighbours(part, taken)
    dropped = len(part) - int(taken.sum()) - int(kept.sum())
    notes.append(
        f"{int(taken.sum())} of {len(part)} training patches ({what}) are held back for validation"
        + (f"; {dropped} that touch them are left out." if dropped else ".")
        + _uneven(part, taken, classes, share)
    )
    if by_polygon and what == "whole polygons":
        _warn_of_polygons(part, kept, classes, context)
    return part.chosen(kept), part.chosen(taken)


def _uneven(part: Part, taken: Array, classes: Sequence[ClassEntry], share: float) -> str:
    """Return a sentence on the classes of which far more or less is held back than asked for; empty without any."""
    named = []
    for position, entry in enumerate(classes):
        own = taken[part.labels == position]
        off = abs(np.count_nonzero(own) - share * len(own))
        # Of a handful of patches no share is exact; of a class without any the check of the classes tells.
        if own.any() and off > max(_UNEVEN * share * len(own), FEW_JUDGED):
            named.append(f"{own.mean():.0%} of class {entry.value} '{entry.name}'")
    if not named:
        return ""
    return f" Asked for are {share:.0%}; as polygons and blocks stay whole, they are {', '.join(named)}."


def _warn_of_polygons(part: Part, kept: Array, classes: Sequence[ClassEntry], context: Context) -> None:
    """Warn of classes of several polygons that learn from one: the model knows no other that looks different."""
    groups = part.pool.groups[part.index]
    named: List[str] = []
    for position, entry in enumerate(classes):
        own = part.labels == position
        count = len(np.unique(groups[own]))
        if count > 1 and len(np.unique(groups[own & kept])) == 1:
            verb = "" if named else " learns from 1 polygon only"
            named.append(f"class {entry.value} '{entry.name}'{verb} (of {count})")
    if named:
        text = ", ".join(named)
        context.warn(
            f"{text[0].upper()}{text[1:]}, as whole polygons validate. Add polygons, or give VALIDATION_SHARE 0 to "
            "learn from all."
        )


def _blocks(part: Part) -> Indices:
    """Return the spatial block of each patch: 10 patches on a side, smaller where that gives too few blocks."""
    grids = part.pool.grids[part.index]
    # Of patches whose place is not known, each is a block: its grid has none but it.
    rows, cols = (np.maximum(values[part.index], 0) for values in (part.pool.rows, part.pool.cols))
    size = part.pool.source.patch_size
    side = BLOCK_PATCHES * size
    while True:
        down, across = int(rows.max()) // side + 1, int(cols.max()) // side + 1
        number = (grids * down + rows // side) * across + cols // side
        if side <= 2 * size or len(np.unique(number)) >= _FEWEST_BLOCKS:
            return np.unique(number, return_inverse=True)[1].astype(np.int64)
        side = max(2 * size, side // 2)


def _take_groups(labels: Indices, groups: Indices, classes: int, share: float, seed: int) -> Array:
    """Return which samples are held back: whole groups, by the rule of `balanced_groups`."""
    names, number = np.unique(groups, return_inverse=True)
    table = np.zeros((len(names), classes), dtype=np.int64)
    np.add.at(table, (number, labels), 1)
    return balanced_groups(table, share, seed)[number]


def balanced_groups(table: Indices, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which groups are held back ``(G,)``: about ``share`` of each class, never all groups of one.

    In random order a group is taken where that brings the classes nearer to their share; a class that is left without
    any gives its smallest group, if another remains.

    Args:
        table: samples of each class in each group ``(G, K)``.
        share: of the samples that is held back.
        seed: of the order.
    """
    total = table.sum(axis=0)
    target = share * total
    have = np.zeros(table.shape[1])
    taken = np.zeros(len(table), dtype=bool)
    weight = 1 / np.maximum(total, 1)
    for group in np.random.default_rng(seed).permutation(len(table)):
        after = have + table[group]
        nearer = (np.abs(after - target) * weight).sum() < (np.abs(have - target) * weight).sum()
        if nearer and not np.any((after >= total) & (table[group] > 0)):
            taken[group], have = True, after
    for label in np.nonzero((have == 0) & (total > 0))[0]:
        candidates = [g for g in np.argsort(table[:, label], kind="stable") if table[g, label] > 0 and not taken[g]]
        if candidates and not np.any((have + table[candidates[0]] >= total) & (table[candidates[0]] > 0)):
            taken[candidates[0]] = True
            have += table[candidates[0]]
    return taken


def _without_neighbours(part: Part, taken: Array) -> Array:
    """Return which patches train: not held back, and sharing no pixel with a patch that is.

    A class that would lose its last training patch keeps its own; the leakage check then says so.
    """
    from scipy.spatial import cKDTree

    pool, size = part.pool, part.pool.source.patch_size
    # Patches on different grids lie a patch apart; where their scenes overlap, the leakage check tells.
    places = np.stack([values[part.index] for values in (pool.rows, pool.cols, pool.grids * size)], axis=1)
    distance, _ = cKDTree(places[taken]).query(places, p=np.inf, distance_upper_bound=size - 0.5)
    kept = ~taken & ~np.isfinite(distance)
    for label in np.setdiff1d(part.labels[~taken], part.labels[kept]):
        kept |= ~taken & (part.labels == label)
    return kept
