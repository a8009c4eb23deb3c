"""The three roles of training samples: training fits, validation chooses the epoch, test is evaluated once.

Where the user names no validation set, one is cut from the training samples (`validationparts`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import TrainClassifier, TrainRandomForest, TrainSegmenter
from .crossvalidation import Step
from .datasets import PatchDataset
from .leakage import shared_pixels
from .metrics import class_positions
from .patchpools import Array, Part, PatchPool, check_fit, class_union, open_dataset, open_pool
from .validationparts import FEW_JUDGED, cut_validation, validating_scenes

TrainingJob = Union[TrainClassifier, TrainRandomForest, TrainSegmenter]

FEW_SAMPLES = 2  # a class with fewer training samples than this is warned about


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
        choosing_pixels: pixels that lie in validation patches, which choose the epoch, and in test patches.
    """

    classes: Tuple[ClassEntry, ...]
    training: Part
    validation: Optional[Part]
    test: Optional[Part]
    shared_pixels: int = 0
    notes: Tuple[str, ...] = ()
    choosing_pixels: int = 0

    @property
    def parts(self) -> Dict[str, Part]:
        """Return the parts that there are, by role."""
        named = {"training": self.training, "validation": self.validation, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def scenes(self) -> Tuple[str, ...]:
        """Return the names of the scenes that the training patches may come from."""
        return self.training.pool.scenes

    def counts(self) -> Dict[str, Dict[str, int]]:
        """Return the patches per class value (as text) of each role."""
        return {
            name: {
                str(entry.value): int(count)
                for entry, count in zip(self.classes, np.bincount(part.labels, minlength=len(self.classes)))
            }
            for name, part in self.parts.items()
        }


@dataclass(frozen=True, eq=False)
class Plan:
    """What is trained: the model that is written, and before it one model for each scene that is left out.

    Attributes:
        roles: those of the model that is written.
        folds: name of the scene that is left out, and the roles of the model that is judged on it.
    """

    roles: Roles
    folds: Tuple[Tuple[str, Roles], ...] = ()


def open_plan(job: TrainingJob, context: Context) -> Plan:
    """Open the datasets, check that they fit each other, and give every patch its role in every model.

    With CROSS_VALIDATION each scene is the test set of one model, which neither learns from it nor chooses its epoch by
    it. The model that is written is made by the same rule from all scenes, so that the models' accuracies tell of it.

    Raises:
        BadInput: a dataset cannot be used, they do not fit each other, a scene is not there, or the training samples of
            a model hold less than two classes.
    """
    pool, others, classes = open_pools(job, context)
    if len(pool.datasets) > 1:
        context.log(f"{len(pool.datasets)} patch datasets of {len(pool.scenes)} scenes: {', '.join(pool.scenes)}.")
    check_scenes(job, pool)
    held = scene_numbers(pool, job.test_scenes)
    named = {role: named_part(other, role, classes) for role, other in others.items()}
    roles = give_roles(job, pool, classes, named, held, context)
    if job.cross_validation == "none":
        return Plan(roles)
    folds = []
    for number, scene in enumerate(pool.scenes):
        try:
            folds.append((scene, give_roles(job, pool, classes, named, [number], Step(context, scene))))
        except BadInput as error:
            raise BadInput(f"Without the scene '{scene}': {error.message}", error.remedy) from error
    return Plan(roles, tuple(folds))


def open_pools(
    job: TrainingJob, context: Context, dense: bool = False
) -> Tuple[PatchPool, Dict[str, PatchPool], Tuple[ClassEntry, ...]]:
    """Open the datasets of a job and check that they fit each other.

    Args:
        job: of the training.
        context: for the log.
        dense: those with a class for every pixel are wanted, in place of those with one per patch.

    Returns:
        What is learned from; what was named for validation and test, by role; and the classes of all.

    Raises:
        BadInput: a dataset cannot be used, is given for two roles, or they do not fit each other.
    """
    pool = open_pool([job.training, *job.more_datasets], context, dense)
    others = {
        role: PatchPool([open_dataset(path, dense)])
        for role, path in (("validation", job.validation), ("test", job.test))
        if path
    }
    _check_folders(pool, others)
    for role, other in others.items():
        check_fit(pool.datasets[0], other.datasets[0], f"{role} patches", context)
    return pool, others, class_union([*pool.datasets, *(other.datasets[0] for other in others.values())], context)


def _check_folders(pool: PatchPool, others: Mapping[str, PatchPool]) -> None:
    """Raise where the same patches would have two roles: what learns cannot judge."""

    def same(one: PatchDataset, other: PatchDataset) -> bool:
        return os.path.samefile(one.folder, other.folder)

    for role, other in others.items():
        held = other.datasets[0]
        for number, dataset in enumerate(pool.datasets):
            if same(dataset, held):
                raise BadInput(
                    f"The patch dataset '{held.folder}' is given as {'MORE_DATASETS' if number else 'TRAINING'} and as "
                    f"{role.upper()}.",
                    f"Give patches of other places as {role.upper()}, or leave it empty: then the dataset's own "
                    f"{role} part is used, if it has one.",
                )
    # A folder of patches for validation and others for test, told apart by their split, is one for both.
    if len(others) > 1 and same(*(other.datasets[0] for other in others.values())):
        missing = next((role for role, other in others.items() if not np.any(other.splits == role)), "")
        if missing:
            raise BadInput(
                f"The patch dataset '{others[missing].datasets[0].folder}' is given as VALIDATION and as TEST, and "
                f"none of its patches has the 'split' value {missing}.",
                "Give patches of other places as TEST, or leave it empty.",
            )


def check_scenes(job: TrainingJob, pool: PatchPool) -> None:
    """Raise where one scene alone is to be split or left out."""
    for name, value in (("SPLIT_BY", job.split_by), ("CROSS_VALIDATION", job.cross_validation)):
        if value == "scene" and len(pool.scenes) < 2:
            raise BadInput(
                f"{name} is scene, but all patches come from one scene, '{pool.scenes[0]}'.",
                "Add datasets of other scenes as MORE_DATASETS.",
            )


def scene_numbers(pool: PatchPool, names: Sequence[str]) -> List[int]:
    """Return the positions of the scenes of these names."""
    known = {name.casefold(): number for number, name in enumerate(pool.scenes)}
    for name in names:
        if name.casefold() not in known:
            raise BadInput(
                f"TEST_SCENES names '{name}', which is no scene of these datasets.",
                f"The scenes are: {', '.join(pool.scenes)}.",
            )
    numbers = sorted({known[name.casefold()] for name in names})
    if len(numbers) == len(pool.scenes):
        raise BadInput("TEST_SCENES names every scene: none is left to train on.", "Leave at least one out of it.")
    return numbers


def give_roles(
    job: TrainingJob,
    pool: PatchPool,
    classes: Tuple[ClassEntry, ...],
    named: Mapping[str, Part],
    held: Sequence[int],
    context: Context,
    check: Optional[Callable[[Roles, str, Context], None]] = None,
) -> Roles:
    """Give every patch its role; the scenes ``held`` are the test set.

    Args:
        job: of the training.
        pool: the patches.
        classes: of the run.
        named: parts of datasets that were named for a role.
        held: positions of the scenes that are the test set.
        context: for the log.
        check: looks at the roles before anything is told; None = the rules of patches with one class each.
    """
    notes: List[str] = []
    free = ~np.isin(pool.scene_of, held)
    by_scene = job.split_by == "scene"
    own = {"training": _part(pool, free, classes)} if by_scene else _own_parts(pool, free, classes, notes)
    if by_scene and np.any(pool.splits != ""):
        notes.append("SPLIT_BY is scene: the 'split' values of the patches are not used.")
    fit, testing = own["training"], named.get("test", own.get("test"))
    validating = named.get("validation", own.get("validation"))
    if by_scene and validating is None:
        fit, validating = validating_scenes(fit, len(classes), job.validation_share, job.seed, notes)
    if validating is None and job.validation_share > 0:
        fit, validating = cut_validation(fit, classes, job.validation_share, job.seed, notes, context)
    if held:
        testing = _part(pool, ~free, classes)
        notes.append(f"Scenes held out for the test: {', '.join(pool.scenes[number] for number in held)}.")
    elif job.cross_validation != "none":
        testing = None
    roles = Roles(classes, fit, validating, testing)
    (check or _check_classes)(roles, job.training, context)
    # Of a forest, and without patience, validation chooses nothing.
    choosing = not isinstance(job, TrainRandomForest) and job.patience != 0
    shared, chosen_by = _count_shared(roles, choosing, context)
    for note in notes:
        context.log(note)
    return replace(roles, shared_pixels=shared, choosing_pixels=chosen_by, notes=tuple(notes))


def _part(pool: PatchPool, mask: Array, classes: Tuple[ClassEntry, ...]) -> Part:
    index = np.nonzero(mask)[0]
    labels = class_positions(pool.labels[index], classes)
    if np.any(labels < 0):
        wrong = index[labels < 0][:1]
        folder = pool.datasets[int(pool.owner(wrong)[0])].folder
        raise BadInput(
            f"Class {int(pool.labels[wrong[0]])} of '{folder}' is not in its class table.", "Extract the patches again."
        )
    return Part(pool, index, labels)


def _own_parts(pool: PatchPool, free: Array, classes: Tuple[ClassEntry, ...], notes: List[str]) -> Dict[str, Part]:
    """Return the parts that the datasets' own ``split`` values make; a dataset without any trains as a whole."""
    splits = pool.splits.copy()
    for start, end in zip(pool.starts[:-1], pool.starts[1:]):
        if not np.any(splits[start:end] != ""):
            splits[start:end] = "train"
    unused = int(np.count_nonzero(free & (splits == "")))
    if unused:
        notes.append(f"{unused} patches without a 'split' value are left out.")
    found = {role: free & (splits == value) for role, value in _SPLITS.items()}
    if not found["training"].any():
        folders = "', '".join(str(dataset.folder) for dataset in pool.datasets)
        raise BadInput(
            f"No patch of '{folders}' has the 'split' value train.",
            "Split the samples again, or extract the patches from samples without a 'split' field.",
        )
    return {role: _part(pool, mask, classes) for role, mask in found.items() if mask.any()}


_SPLITS = {"training": "train", "validation": "validation", "test": "test"}


def named_part(pool: PatchPool, role: str, classes: Tuple[ClassEntry, ...]) -> Part:
    """Return the patches of a dataset that was named for a role: those of its ``split``, else all of them."""
    own = pool.splits == role
    return _part(pool, own if own.any() else np.ones(len(pool), bool), classes)


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
        held = np.bincount(part.labels, minlength=len(count))
        missing = [e for e, n, learned in zip(roles.classes, held, count) if n == 0 and learned > 0]
        names = ", ".join(f"{e.value} '{e.name}'" for e in missing)
        if names:
            context.warn(f"The {role} samples hold no patch of class {names}.")
        few = [f"{n} of {e.value} '{e.name}'" for e, n in zip(roles.classes, held) if 0 < n < FEW_JUDGED]
        if few:
            context.warn(f"The {role} samples hold {', '.join(few)} only: too few to judge these classes by.")


# --- shared pixels ---------------------------------------------------------------------------------------------------


def _count_shared(roles: Roles, choosing: bool, context: Context) -> Tuple[int, int]:
    """Log how many pixels the parts share, warn where any flatter the accuracy.

    Args:
        roles: with their parts.
        choosing: whether validation chooses the epoch.
        context: takes the log.

    Returns:
        The pixels that training shares with the reported set, and those that validation shares with the test set.
    """
    reported = 0
    parts = list(roles.parts.items())
    for other in parts[1:]:
        reported = _tell_of_shared(parts[0], other, "the accuracy is optimistic", context)
    if roles.validation is None or roles.test is None:
        return reported, 0
    harm = "the accuracy is optimistic, for validation chooses the epoch" if choosing else ""
    return reported, _tell_of_shared(parts[1], parts[2], harm, context)


def _tell_of_shared(one: Tuple[str, Part], other: Tuple[str, Part], harm: str, context: Context) -> int:
    """Log how many pixels two parts (role, patches) share, and return it; warn of ``harm`` where it is not empty."""
    (first, _), (second, part) = one, other
    shared, touched = _shared_between(one[1], part, context)
    text = f"{shared} pixels are shared between {first} and {second} patches"
    if all(each.pool.placed[each.index].all() for _, each in (one, other)):
        context.log(text + ".")
    elif first == "training":  # which is told of each of the others, and so of both of them
        context.warn(
            f"It is not known where all {first} and {second} patches lie: shared pixels were not looked for, "
            "and the accuracy may be optimistic."
        )
    if shared and harm:
        context.warn(
            f"{text} ({touched} of {len(part)} {second} patches): {harm}. Use smaller patches, or split the samples "
            "again with a GUARD."
        )
    return shared


def _shared_between(one: Part, other: Part, context: Context) -> Tuple[int, int]:
    """Return the pixels that two parts share and the other's patches that hold one, over all pairs of datasets.

    Ground that several datasets show counts once for each pair.
    """
    pixels, touched, notes = 0, 0, set()
    for theirs, their_mask in other.masks():
        most = 0
        for ours, our_mask in one.masks():
            context.check()
            a, b = one.pool.datasets[ours], other.pool.datasets[theirs]
            overlap = shared_pixels(a, *_near(a, our_mask, b, their_mask))
            pixels += int(overlap.pixels)
            notes.add(overlap.note)
            most = max(most, int(overlap.patches_b))
        touched += most
    for note in sorted(notes - {""}):
        context.log(note)
    return pixels, touched


def _near(
    a: PatchDataset, mask_a: npt.NDArray[np.bool_], b: PatchDataset, mask_b: npt.NDArray[np.bool_]
) -> Tuple[npt.NDArray[np.bool_], PatchDataset, npt.NDArray[np.bool_]]:
    """Return the masks without patches that no patch of the other set touches; no other can share a pixel.

    Samples of a mosaic lie far apart: the ground between them need not be looked at. Of different grids, all stay.
    """
    from scipy.spatial import cKDTree

    scene_a, scene_b = a.description.scene, b.description.scene
    if (scene_a.crs, scene_a.transform) != (scene_b.crs, scene_b.transform):
        return mask_a, b, mask_b
    size = a.description.sources[0].patch_size
    places = [np.stack([each.rows[mask], each.cols[mask]], axis=1) for each, mask in ((a, mask_a), (b, mask_b))]
    found = []
    for mask, own, other in ((mask_a, places[0], places[1]), (mask_b, places[1], places[0])):
        distance, _ = cKDTree(other).query(own, p=np.inf, distance_upper_bound=size - 0.5)
        near = mask.copy()
        near[mask] = np.isfinite(distance)
        found.append(near)
    return found[0], b, found[1]


def scene_settings(job: TrainingJob) -> Dict[str, Any]:
    """Return how the scenes were split, for the card."""
    scenes = ", ".join(job.test_scenes)
    return {"split_by": job.split_by, "test_scenes": scenes, "cross_validation": job.cross_validation}
