"""Several patch datasets read as one: the patches of the first, then those of the second, and so on.

Every dataset belongs to a scene, the image that its patches were cut from; two datasets of one image are one scene. The
pool tells patches of different scenes apart, so that whole scenes can be given to training, validation or test.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry, names_nothing, other_names, taken_for_one
from ..tasks.context import Context
from ..tasks.errors import BadInput
from .bandnames import one_unnamed
from .datasets import DatasetSource, PatchDataset
from .trainingground import Ground, patch_ground

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

CHUNK_BYTES = 32 << 20  # of float64 values handled at once
# Text classes without a legend are numbered by the names that are there.
_ONE_LEGEND = (
    "Give all scenes the same LEGEND or NOMENCLATURE where samples are selected and patches extracted, so that a name "
    "has one number everywhere."
)
_SAME_RESOLUTION = 0.05  # pixel sizes that differ by a smaller share are alike


class PatchPool:
    """Patch datasets of the same bands and patch size, read as one; nothing but the index is held in memory.

    Attributes:
        datasets: in the order of their patches.
        starts: position of each dataset's first patch, and the number of all patches at the end, ``(D + 1,)``.
        labels: class value of each patch, int64 ``(N,)``.
        splits: "train", "validation", "test" or "" of each patch, ``(N,)``.
        rows: row of the sample's pixel in its scene, int64 ``(N,)``.
        cols: column likewise.
        groups: polygon that the sample came from, int64 ``(N,)``, -1 when unknown; polygons of two datasets differ.
        grids: number of the pixel grid that row and column count on ``(N,)``; a patch whose place is not known has one
            of its own.
        placed: whether the patch's place is known, bool ``(N,)``.
        scenes: names of the scenes.
        scene_of: position in ``scenes`` of each patch ``(N,)``.
    """

    def __init__(self, datasets: Sequence[PatchDataset]) -> None:
        """Join datasets that fit each other (see `check_fit`)."""
        self.datasets = tuple(datasets)
        counts = [len(dataset) for dataset in datasets]
        self.starts: Indices = np.cumsum([0, *counts])
        self.labels: Indices = np.concatenate([dataset.labels for dataset in datasets])
        self.splits: Array = np.concatenate([dataset.splits for dataset in datasets])
        self.rows: Indices = np.concatenate([dataset.rows for dataset in datasets])
        self.cols: Indices = np.concatenate([dataset.cols for dataset in datasets])
        self.groups = _distinct_groups(self.datasets)
        scenes = [dataset.description.scene for dataset in datasets]
        self.grids = np.repeat(_numbered([(scene.crs, scene.transform) for scene in scenes]), counts)
        self.placed = np.repeat([scene.width > 0 for scene in scenes], counts)
        self.grids[~self.placed] = len(scenes) + np.arange(np.count_nonzero(~self.placed))
        self.scenes, owners = _scene_names(self.datasets)
        self.scene_of = np.repeat(owners, counts)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def source(self) -> DatasetSource:
        """Return patch size and bands, as the first dataset has them."""
        return self.datasets[0].description.sources[0]

    @cached_property
    def _stacks(self) -> List[Array]:
        return [dataset.patches() for dataset in self.datasets]

    @cached_property
    def hashes(self) -> Tuple[str, ...]:
        """Return the content hash of each dataset."""
        return tuple(dataset.content_hash() for dataset in self.datasets)

    def owner(self, numbers: Array) -> Indices:
        """Return the dataset of each of these patches."""
        return np.searchsorted(self.starts, numbers, side="right").astype(np.int64) - 1

    def physical(self, numbers: Array) -> npt.NDArray[np.float32]:
        """Return patches ``(n, C, p, p)`` in physical units, each dataset by its own scale and no-data; NaN there."""
        if len(self.datasets) == 1:
            return self.datasets[0].physical(self._stacks[0][numbers])
        source = self.source
        shape = (len(numbers), len(source.bands), source.patch_size, source.patch_size)
        values: npt.NDArray[np.float32] = np.empty(shape, dtype=np.float32)
        owners = self.owner(numbers)
        for owner in np.unique(owners):
            mine = owners == owner
            raw = self._stacks[owner][numbers[mine] - self.starts[owner]]
            values[mine] = self.datasets[owner].physical(raw)
        return values


@dataclass(frozen=True, eq=False)
class Part:
    """The patches of one role.

    Attributes:
        pool: where they come from.
        index: positions in the pool ``(N,)``, ascending.
        labels: class positions ``(N,)`` in the run's class table.
    """

    pool: PatchPool
    index: Indices
    labels: Indices

    def __len__(self) -> int:
        return len(self.index)

    def physical(self, numbers: Array) -> npt.NDArray[np.float32]:
        """Return patches of the part ``(n, C, p, p)`` in physical units, NaN where no-data."""
        return self.pool.physical(self.index[numbers])

    def chunks(self) -> Iterator[Array]:
        """Yield the part's positions in runs that fit `CHUNK_BYTES`."""
        source = self.pool.source
        count = max(1, CHUNK_BYTES // max(1, 8 * len(source.bands) * source.patch_size**2))
        for start in range(0, len(self), count):
            yield np.arange(start, min(start + count, len(self)))

    def chosen(self, keep: Array) -> Part:
        """Return the part with some of its patches (a mask or positions)."""
        return replace(self, index=self.index[keep], labels=self.labels[keep])

    def masks(self) -> Iterator[Tuple[int, npt.NDArray[np.bool_]]]:
        """Yield the number of each dataset that the part has patches of, and which of its patches they are."""
        owners = self.pool.owner(self.index)
        for owner in np.unique(owners):
            mask = np.zeros(len(self.pool.datasets[owner]), dtype=bool)
            mask[self.index[owners == owner] - self.pool.starts[owner]] = True
            yield int(owner), mask

    def facts(self) -> Dict[str, Any]:
        """Return what the card says of the part: names, hash of the contents, number of patches; each dataset's own."""
        pool = self.pool
        members = [(pool.datasets[number], pool.hashes[number], mask) for number, mask in self.masks()]
        if len(members) == 1:
            return {"name": members[0][0].folder.name, "hash": members[0][1], "patches": len(self)}
        digest = hashlib.sha256("\n".join(known for _, known, _ in members).encode()).hexdigest()
        each = [
            {"name": dataset.folder.name, "hash": known, "patches": int(mask.sum())} for dataset, known, mask in members
        ]
        names = ", ".join(str(entry["name"]) for entry in each)
        return {"name": names, "hash": f"sha256:{digest}", "patches": len(self), "datasets": each}

    def ground(self, check: Callable[[], None]) -> List[Ground]:
        """Return where the patches lie, by dataset."""
        check()
        members = [(self.pool.datasets[number], mask) for number, mask in self.masks()]
        return [
            patch_ground(one.description.scene, one.rows[mask], one.cols[mask], self.pool.source.patch_size)
            for one, mask in members
        ]


def open_pool(paths: Sequence[str], context: Context, dense: bool = False) -> PatchPool:
    """Open the datasets that are trained on together; folders, or the ``dataset.json`` in them.

    ``dense``: those that have a class for every pixel are wanted, in place of those with one per patch.

    Raises:
        BadInput: one cannot be read or is of another kind, is given twice, or does not fit the first one.
    """
    datasets: List[PatchDataset] = []
    for path in paths:
        dataset = open_dataset(path, dense)
        if any(os.path.samefile(dataset.folder, known.folder) for known in datasets):
            raise BadInput(
                f"The patch dataset '{dataset.folder}' is given twice.",
                "Remove it from MORE_DATASETS: each counts once.",
            )
        if datasets:
            check_fit(datasets[0], dataset, f"patches of '{dataset.folder.name}'", context)
            _check_resolution(datasets[0], dataset, context)
        datasets.append(dataset)
    return PatchPool(datasets)


def open_dataset(path: str, dense: bool = False) -> PatchDataset:
    """Open a dataset of one source per patch, with one class per patch, or with one per pixel (dense).

    Raises:
        BadInput: it cannot be read, or is of another kind.
    """
    dataset = PatchDataset(path)
    description = dataset.description
    if dense and not dataset.dense:
        raise BadInput(
            f"'{dataset.folder}' holds one class per patch; this training needs one for every pixel.",
            "Extract the patches with LABELS or LABEL_FEATURES, or train a classifier with it.",
        )
    if dataset.dense and not dense:
        raise BadInput(
            f"'{dataset.folder}' holds a class for every pixel of its patches; this training needs one per patch.",
            "Give a dataset that was extracted around sample points.",
        )
    if len(description.sources) > 1:
        raise BadInput(
            f"'{dataset.folder}' holds patches of {len(description.sources)} sources; this training takes one.",
            "Extract the patches of one image; STACK adds the bands of others that have the same grid.",
        )
    return dataset


def check_fit(main: PatchDataset, other: PatchDataset, what: str, context: Context) -> None:
    """Raise unless two datasets have the same patch size and bands; ``what`` names the other's patches."""
    ours, theirs = main.description.sources[0], other.description.sources[0]
    remedy = "Extract both with the same source, bands and PATCH_SIZE."
    if theirs.patch_size != ours.patch_size:
        raise BadInput(
            f"The {what} have {theirs.patch_size} pixels on a side, the training patches {ours.patch_size}.", remedy
        )
    if len(theirs.bands) != len(ours.bands):
        raise BadInput(f"The {what} have {len(theirs.bands)} bands, the training patches {len(ours.bands)}.", remedy)
    names, wanted = [band.name for band in theirs.bands], [band.name for band in ours.bands]
    if names != wanted and sorted(names) == sorted(wanted):
        number = next(i for i, (a, b) in enumerate(zip(names, wanted)) if a != b)
        raise BadInput(
            f"Band {number + 1} of the {what} is '{names[number]}', of the training patches '{wanted[number]}'.",
            remedy,
        )
    own = [band.name for band in theirs.bands if not band.expression]
    if names != wanted and not one_unnamed(own, [band.name for band in ours.bands if not band.expression]):
        context.warn(f"The bands of the {what} have other names than those of the training patches.")
    for theirs_band, our_band in zip(theirs.bands, ours.bands):
        if theirs_band.expression and our_band.expression and theirs_band.expression != our_band.expression:
            raise BadInput(
                f"'{theirs_band.name}' of the {what} is {theirs_band.expression}, of the training patches "
                f"{our_band.expression}.",
                "Extract both with the same EXPRESSIONS.",
            )
    if [_given_scale(band) for band in theirs.bands] != [_given_scale(band) for band in ours.bands]:
        context.warn(
            f"The {what} were extracted with another SCALE or OFFSET than the training patches: mapping uses those of "
            f"'{main.folder.name}'."
        )


def _given_scale(band: Any) -> Any:
    return (band.scale, band.offset) if band.explicit else None


def _check_resolution(main: PatchDataset, other: PatchDataset, context: Context) -> None:
    ours, theirs = main.description.scene.res_m, other.description.scene.res_m
    if ours and theirs and abs(theirs - ours) > _SAME_RESOLUTION * ours:
        context.warn(
            f"Pixels of '{other.folder.name}' measure {theirs:.4g} m, those of '{main.folder.name}' {ours:.4g} m: the "
            "same thing has two sizes in the training patches."
        )


def class_union(datasets: Sequence[PatchDataset], context: Context) -> Tuple[ClassEntry, ...]:
    """Return the classes of all datasets, ascending; the first dataset that has a name for a value names it.

    Raises:
        BadInput: the same values are other classes in two datasets.
    """
    union: Dict[int, Tuple[ClassEntry, str]] = {}
    told = set()
    for dataset in datasets:
        name, classes = f"'{dataset.folder.name}'", dataset.description.classes
        for entry in other_names(union, classes, name, _ONE_LEGEND):
            if (entry.value, entry.name) not in told:
                told.add((entry.value, entry.name))
                context.warn(taken_for_one(union[entry.value], entry, name))
        for entry in classes:
            if entry.value not in union or names_nothing(union[entry.value][0]):
                union[entry.value] = entry, name
    return tuple(union[value][0] for value in sorted(union))


def _numbered(keys: Sequence[Any]) -> Indices:
    """Return a number for each key, equal for equal keys, counted from the first one."""
    numbers: Dict[Any, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _distinct_groups(datasets: Sequence[PatchDataset]) -> Indices:
    parts, first = [], 0
    for dataset in datasets:
        parts.append(np.where(dataset.groups >= 0, dataset.groups + first, -1))
        first = max(first, int(parts[-1].max(initial=-1)) + 1)
    return np.concatenate(parts).astype(np.int64)


def _scene_names(datasets: Sequence[PatchDataset]) -> Tuple[Tuple[str, ...], Indices]:
    """Return the names of the scenes and the scene of each dataset.

    A scene has its layer's name, or its dataset's folder's name where two layers have the same, or that folder's path.
    """
    owners = _numbered([dataset.description.scene.path or str(dataset.folder) for dataset in datasets])
    first = [datasets[int(np.argmax(owners == number))] for number in range(int(owners.max()) + 1)]
    labels = [dataset.description.scene.label for dataset in first]
    for fallback in ([dataset.folder.name for dataset in first], [str(dataset.folder) for dataset in first]):
        count = Counter(labels)
        labels = [label if label and count[label] == 1 else other for label, other in zip(labels, fallback)]
    return tuple(labels), owners
