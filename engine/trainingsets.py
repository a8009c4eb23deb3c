"""The three roles of training samples: training fits, validation chooses the epoch, test is evaluated once.

Where the user names no validation set, one is cut from the training samples: whole polygons where the samples know
theirs, else spatial blocks; training patches that touch a validation patch are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
import numpy.typing as npt

from ..models.cards import CardBand, CardSource
from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput
from .datasets import PatchDataset
from .leakage import shared_pixels
from .metrics import class_positions

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

CHUNK_BYTES = 32 << 20  # of float64 values handled at once
BLOCK_PATCHES = 10  # side of a block of the automatic split, in patches
_FEWEST_BLOCKS = 10
FEW_SAMPLES = 2  # a class with fewer training samples than this is warned about


@dataclass(frozen=True, eq=False)
class Part:
    """The patches of one role.

    Attributes:
        dataset: where they come from.
        index: positions in the dataset ``(N,)``, ascending.
        labels: class positions ``(N,)`` in the run's class table.
    """

    dataset: PatchDataset
    index: Indices
    labels: Indices

    def __len__(self) -> int:
        return len(self.index)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Return which patches of the dataset belong to the part."""
        mask = np.zeros(len(self.dataset), dtype=bool)
        mask[self.index] = True
        return mask

    @cached_property
    def _raw(self) -> Array:
        return self.dataset.patches()

    def physical(self, numbers: Array) -> npt.NDArray[np.float32]:
        """Return patches of the part ``(n, C, p, p)`` in physical units, NaN where no-data."""
        return self.dataset.physical(self._raw[self.index[numbers]])

    def chunks(self) -> Iterator[Array]:
        """Yield the part's positions in runs that fit `CHUNK_BYTES`."""
        count = max(1, CHUNK_BYTES // max(1, 8 * int(np.prod(self._raw.shape[1:]))))
        for start in range(0, len(self), count):
            yield np.arange(start, min(start + count, len(self)))

    def chosen(self, keep: Array) -> Part:
        """Return the part with some of its patches (a mask or positions)."""
        return replace(self, index=self.index[keep], labels=self.labels[keep])


@dataclass(frozen=True, eq=False)
class Roles:
    """Who does what in a run.

    Attributes:
        classes: union of the datasets' class tables, ascending: the order of the model's outputs.
        training: what the model is fitted to.
        validation: what chooses the epoch; None without.
        test: what is evaluated once, at the end; None without.
        shared_pixels: pixels that lie in training patches and in those of the set whose numbers are reported.
        notes: how the sets came about, for the log and the report.
    """

    classes: Tuple[ClassEntry, ...]
    training: Part
    validation: Optional[Part]
    test: Optional[Part]
    shared_pixels: int = 0
    notes: Tuple[str, ...] = ()

    @property
    def parts(self) -> Dict[str, Part]:
        """Return the parts that there are, by role."""
        named = {"training": self.training, "validation": self.validation, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    def counts(self) -> Dict[str, Dict[str, int]]:
        """Return the patches per class value (as text) of each role."""
        return {
            name: {
                str(entry.value): int(count)
                for entry, count in zip(self.classes, np.bincount(part.labels, minlength=len(self.classes)))
            }
            for name, part in self.parts.items()
        }


def open_roles(
    training: str, validation: str, test: str, validation_share: float, seed: int, context: Context
) -> Roles:
    """Open the datasets, give every patch its role, and check that they fit each other.

    Args:
        training: patch dataset folder; its own ``split`` values are honoured.
        validation: patch dataset folder, or empty.
        test: patch dataset folder, or empty.
        validation_share: share that is cut from the training samples where neither a folder nor ``split`` values say
            what validates; 0 = none.
        seed: of the automatic cut.
        context: for the log and the warnings.

    Raises:
        BadInput: a dataset cannot be used, they do not fit each other, or the training samples hold less than two
            classes.
    """
    main = PatchDataset(training)
    others = {role: PatchDataset(path) for role, path in (("validation", validation), ("test", test)) if path}
    for role, dataset in others.items():
        _check_fit(main, dataset, role, context)
    classes = _class_union([main, *others.values()])
    notes: List[str] = []
    own = _own_parts(main, classes, notes)
    named = {role: _named_part(dataset, role, classes) for role, dataset in others.items()}
    fit = own["training"]
    validating, testing = named.get("validation", own["validation"]), named.get("test", own["test"])
    if validating is None and validation_share > 0:
        fit, validating = _cut_validation(fit, len(classes), validation_share, seed, notes)
    roles = Roles(classes, fit, validating, testing)
    _check_classes(roles, training, context)
    shared = _count_shared(roles, context)
    for note in notes:
        context.log(note)
    return replace(roles, shared_pixels=shared, notes=tuple(notes))


def _check_fit(main: PatchDataset, other: PatchDataset, role: str, context: Context) -> None:
    """Raise unless two datasets have the same patch size and bands."""
    ours, theirs = main.description.sources[0], other.description.sources[0]
    remedy = "Extract both with the same source, bands and PATCH_SIZE."
    if theirs.patch_size != ours.patch_size:
        raise BadInput(
            f"The {role} patches have {theirs.patch_size} pixels on a side, the training patches {ours.patch_size}.",
            remedy,
        )
    if len(theirs.bands) != len(ours.bands):
        raise BadInput(
            f"The {role} patches have {len(theirs.bands)} bands, the training patches {len(ours.bands)}.", remedy
        )
    names, wanted = [band.name for band in theirs.bands], [band.name for band in ours.bands]
    if names != wanted and sorted(names) == sorted(wanted):
        number = next(i for i, (a, b) in enumerate(zip(names, wanted)) if a != b)
        raise BadInput(
            f"Band {number + 1} of the {role} patches is '{names[number]}', of the training patches "
            f"'{wanted[number]}'.",
            remedy,
        )
    if names != wanted:
        context.warn(f"The bands of the {role} patches have other names than those of the training patches.")


def _class_union(datasets: List[PatchDataset]) -> Tuple[ClassEntry, ...]:
    """Return the classes of all datasets, ascending; the first dataset that knows a value names it."""
    union: Dict[int, ClassEntry] = {}
    for dataset in datasets:
        for entry in dataset.description.classes:
            union.setdefault(entry.value, entry)
    return tuple(union[value] for value in sorted(union))


def _part(dataset: PatchDataset, mask: Array, classes: Tuple[ClassEntry, ...]) -> Part:
    index = np.nonzero(mask)[0]
    labels = class_positions(dataset.labels[index], classes)
    if np.any(labels < 0):
        value = int(dataset.labels[index][labels < 0][0])
        raise BadInput(f"Class {value} of '{dataset.folder}' is not in its class table.", "Extract the patches again.")
    return Part(dataset, index, labels)


def _own_parts(dataset: PatchDataset, classes: Tuple[ClassEntry, ...], notes: List[str]) -> Dict[str, Any]:
    """Return the parts that the dataset's own ``split`` values make; all of it trains where there are none."""
    splits = dataset.splits
    if not np.any(splits != ""):
        return {"training": _part(dataset, np.ones(len(dataset), bool), classes), "validation": None, "test": None}
    unused = int(np.count_nonzero(splits == ""))
    if unused:
        notes.append(f"{unused} patches without a 'split' value are left out.")
    if not np.any(splits == "train"):
        raise BadInput(
            f"No patch of '{dataset.folder}' has the 'split' value train.",
            "Split the samples again, or extract the patches from samples without a 'split' field.",
        )
    parts: Dict[str, Any] = {"training": _part(dataset, splits == "train", classes)}
    for role in ("validation", "test"):
        parts[role] = _part(dataset, splits == role, classes) if np.any(splits == role) else None
    return parts


def _named_part(dataset: PatchDataset, role: str, classes: Tuple[ClassEntry, ...]) -> Part:
    """Return the patches of a dataset that was named for a role: those of its ``split``, else all of them."""
    own = dataset.splits == role
    return _part(dataset, own if own.any() else np.ones(len(dataset), bool), classes)


def _cut_validation(part: Part, classes: int, share: float, seed: int, notes: List[str]) -> Tuple[Part, Optional[Part]]:
    """Cut a validation part from the training part: whole polygons, else blocks; None where that cannot be done."""
    groups = part.dataset.groups[part.index]
    by_polygon = bool(np.all(groups >= 0)) and len(np.unique(groups)) > 1
    taken = _take_groups(part.labels, groups, classes, share, seed) if by_polygon else None
    what = "whole polygons"
    if taken is None or not taken.any():
        taken = _take_groups(part.labels, _blocks(part), classes, share, seed)
        what = "spatial blocks"
    if not taken.any():
        notes.append("The training samples lie too close together to cut a validation part from them: there is none.")
        return part, None
    kept = _without_neighbours(part, taken)
    dropped = len(part) - int(taken.sum()) - int(kept.sum())
    notes.append(
        f"{int(taken.sum())} of {len(part)} training patches ({what}) are held back for validation"
        + (f"; {dropped} that touch them are left out." if dropped else ".")
    )
    return part.chosen(kept), part.chosen(taken)


def _blocks(part: Part) -> Indices:
    """Return the spatial block of each patch: 10 patches on a side, smaller where that gives too few blocks."""
    rows, cols = part.dataset.rows[part.index], part.dataset.cols[part.index]
    size = part.dataset.description.sources[0].patch_size
    side = BLOCK_PATCHES * size
    while True:
        number = (rows // side) * (int(cols.max()) // side + 1) + cols // side
        if side <= 2 * size or len(np.unique(number)) >= _FEWEST_BLOCKS:
            return np.unique(number, return_inverse=True)[1].astype(np.int64)
        side = max(2 * size, side // 2)


def _take_groups(labels: Indices, groups: Indices, classes: int, share: float, seed: int) -> Array:
    """Return which samples are held back: whole groups, about ``share`` of each class, never all groups of one.

    In random order a group is taken where that brings the classes nearer to their share; a class that is left without
    any gives its smallest group, if another remains.
    """
    names, number = np.unique(groups, return_inverse=True)
    table = np.zeros((len(names), classes), dtype=np.int64)
    np.add.at(table, (number, labels), 1)
    total = table.sum(axis=0)
    target = share * total
    have = np.zeros(classes)
    taken = np.zeros(len(names), dtype=bool)
    weight = 1 / np.maximum(total, 1)
    for group in np.random.default_rng(seed).permutation(len(names)):
        after = have + table[group]
        nearer = (np.abs(after - target) * weight).sum() < (np.abs(have - target) * weight).sum()
        if nearer and not np.any((after >= total) & (table[group] > 0)):
            taken[group], have = True, after
    for label in np.nonzero((have == 0) & (total > 0))[0]:
        candidates = [g for g in np.argsort(table[:, label], kind="stable") if table[g, label] > 0 and not taken[g]]
        if candidates and not np.any((have + table[candidates[0]] >= total) & (table[candidates[0]] > 0)):
            taken[candidates[0]] = True
            have += table[candidates[0]]
    return taken[number]


def _without_neighbours(part: Part, taken: Array) -> Array:
    """Return which patches train: not held back, and sharing no pixel with a patch that is.

    A class that would lose its last training patch keeps its own; the leakage check then says so.
    """
    from scipy.spatial import cKDTree

    places = np.stack([part.dataset.rows[part.index], part.dataset.cols[part.index]], axis=1)
    size = part.dataset.description.sources[0].patch_size
    distance, _ = cKDTree(places[taken]).query(places, p=np.inf, distance_upper_bound=size - 0.5)
    kept = ~taken & ~np.isfinite(distance)
    for label in np.setdiff1d(part.labels[~taken], part.labels[kept]):
        kept |= ~taken & (part.labels == label)
    return kept


def _check_classes(roles: Roles, folder: str, context: Context) -> None:
    """Raise unless two classes train; warn of classes that cannot be learned or judged."""
    count = np.bincount(roles.training.labels, minlength=len(roles.classes))
    known = [entry for entry, number in zip(roles.classes, count) if number > 0]
    if len(known) < 2:
        entry = known[0] if known else None
        raise BadInput(
            f"Only class {entry.value} '{entry.name}' is in the training samples."
            if entry is not None
            else f"'{folder}' holds no training sample.",
            "Add samples of at least one other class and extract the patches again.",
        )
    for entry, number in zip(roles.classes, count):
        if number == 0:
            context.warn(f"Class {entry.value} '{entry.name}' has no training sample: it will not be mapped.")
        elif number < FEW_SAMPLES:
            context.warn(f"Class {entry.value} '{entry.name}' has {number} training sample only.")
    for role, part in list(roles.parts.items())[1:]:
        missing = [e for e, n in zip(roles.classes, np.bincount(part.labels, minlength=len(count))) if n == 0]
        names = ", ".join(f"{e.value} '{e.name}'" for e in missing if count[roles.classes.index(e)] > 0)
        if names:
            context.warn(f"The {role} samples hold no patch of class {names}.")


def _count_shared(roles: Roles, context: Context) -> int:
    """Log how many pixels training shares with the other parts, warn where any, return that of the reported set."""
    reported = 0
    for role, part in list(roles.parts.items())[1:]:
        overlap = shared_pixels(roles.training.dataset, roles.training.mask, part.dataset, part.mask)
        reported = int(overlap.pixels)
        text = f"{overlap.pixels} pixels are shared between training and {role} patches"
        context.log(text + ".")
        if overlap.pixels:
            context.warn(
                f"{text} ({overlap.patches_b} of {len(part)} {role} patches): the accuracy is optimistic. Use smaller "
                "patches, or split the samples again with a GUARD."
            )
    return reported


# --- what the card says of the bands ---------------------------------------------------------------------------------


def band_statistics(part: Part, context: Context) -> Tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and deviation of each band ``(C,)`` over the part's patches, in physical units, without no-data.

    Read in chunks; the sums run over deviations from the first chunk's mean, so that large values lose nothing. A
    constant band (or one without data) gets the deviation 1, with a warning.
    """
    bands = part.dataset.description.sources[0].bands
    count, first, second = (np.zeros(len(bands)) for _ in range(3))
    shift: Optional[Array] = None
    for number in part.chunks():
        context.check()
        values = part.physical(number).transpose(1, 0, 2, 3).reshape(len(bands), -1).astype(np.float64)
        valid = ~np.isnan(values)
        values[~valid] = 0.0
        if shift is None:
            shift = values.sum(axis=1) / np.maximum(valid.sum(axis=1), 1)
        values = np.where(valid, values - shift[:, None], 0.0)
        count += valid.sum(axis=1)
        first += values.sum(axis=1)
        second += (values * values).sum(axis=1)
    offset = np.zeros(len(bands)) if shift is None else shift
    divisor = np.maximum(count, 1)
    mean = first / divisor
    std = np.sqrt(np.maximum(second / divisor - mean * mean, 0.0))
    mean = mean + offset
    # What float32 cannot tell from a constant is one.
    flat = std <= 1e-7 * np.maximum(np.abs(mean), 1e-30)
    for position in np.nonzero(flat)[0]:
        name = bands[position].name or f"band {position + 1}"
        what = "is constant" if count[position] else "holds no data"
        context.warn(f"'{name}' {what} in the training patches: the model learns nothing from it.")
    return mean, np.where(flat, 1.0, std)


def card_source(part: Part, mean: Array, std: Array) -> CardSource:
    """Return what the card says of the source: the dataset's bands with their training statistics."""
    source = part.dataset.description.sources[0]
    bands = tuple(
        CardBand(
            name=band.name,
            mean=float(mean[number]),
            std=float(std[number]),
            scene_mean=band.scene_mean,
            scene_std=band.scene_std,
            scale=band.scale if band.explicit else None,
            offset=band.offset if band.explicit else None,
            nodata=band.nodata,
            expression=band.expression,
        )
        for number, band in enumerate(source.bands)
    )
    return CardSource(source.patch_size, bands, source.dtype, source.nodata_rule)
