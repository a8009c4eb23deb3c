"""Training windows from dense patch datasets: the patches, and a class for every pixel of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.jobs import TrainSegmenter
from .denseparts import IGNORED, DensePart, DenseRoles, Floats, Targets, check_classes, count_pixels, is_binary, without
from .metrics import class_positions
from .patchpools import Part
from .trainingground import Ground
from .trainingsets import Roles, check_scenes, give_roles, named_part, open_pools, scene_numbers

_EXTRACT_AGAIN = "Extract patches whose labels hold at least two classes."


class PatchPart:
    """The patches of one role; see `DensePart`."""

    def __init__(self, part: Part, classes: Sequence[ClassEntry]) -> None:
        self._part, self._classes = part, classes
        self._starts, self._datasets = part.pool.starts, part.pool.datasets
        self._labels = [dataset.dense_labels() for dataset in self._datasets]

    def __len__(self) -> int:
        return len(self._part)

    @cached_property
    def pixels(self) -> npt.NDArray[np.int64]:
        """Labelled pixels of each class ``(K,)``."""
        total = np.zeros(len(self._classes), np.int64)
        for numbers in self._part.chunks():
            total += count_pixels(self._targets(numbers), len(self._classes))
        return total

    def read(self, numbers: Sequence[int], epoch: int = 0) -> Tuple[Floats, Targets]:
        """Return patches; they are the same in every epoch."""
        chosen = np.asarray(numbers, dtype=np.int64)
        return self._part.physical(chosen), self._targets(chosen)

    def _targets(self, numbers: npt.NDArray[Any]) -> Targets:
        places = self._part.index[numbers]
        owners = self._part.pool.owner(places)
        size = self._part.pool.source.patch_size
        targets = np.full((len(places), size, size), IGNORED, np.int64)
        for owner in np.unique(owners):
            mine = owners == owner
            labels = np.asarray(self._labels[owner][places[mine] - self._starts[owner]]).astype(np.int64)
            found = class_positions(labels, self._classes)
            nodata = self._datasets[owner].description.label_nodata
            targets[mine] = found if nodata is None else np.where(labels == nodata, IGNORED, found)
        return targets

    def facts(self) -> Dict[str, Any]:
        """Return names and hashes of the datasets, and the number of patches."""
        return self._part.facts()

    def ground(self, check: Callable[[], None]) -> List[Ground]:
        """Return where the patches lie, by dataset."""
        return self._part.ground(check)


def patch_roles(job: TrainSegmenter, context: Context) -> DenseRoles:
    """Open dense patch datasets and give every patch its role, by the rules of datasets with one class per patch.

    Raises:
        BadInput: a dataset cannot be used, they do not fit each other, or less than two classes are labelled.
    """
    pool, others, every = open_pools(job, context, dense=True)
    classes = without(every, job.ignore_class)
    is_binary(job, classes)  # refuses what does not go with them, before all patches are read
    for each in (pool, *others.values()):
        # The class of most pixels stands for a patch where parts are balanced; patches without one go where they fall.
        each.labels = np.where(class_positions(each.labels, classes) < 0, classes[0].value, each.labels)
    check_scenes(job, pool)
    held = scene_numbers(pool, job.test_scenes)
    named = {role: named_part(other, role, classes) for role, other in others.items()}
    found: List[DenseRoles] = []

    def check(roles: Roles, name: str, inside: Context) -> None:
        found.append(_dense(roles, classes))
        check_classes(found[0], name, inside, _EXTRACT_AGAIN)

    roles = give_roles(job, pool, classes, named, held, context, check)
    return replace(
        found[0], shared_pixels=roles.shared_pixels, choosing_pixels=roles.choosing_pixels, notes=roles.notes
    )


def _dense(roles: Roles, classes: Tuple[ClassEntry, ...]) -> DenseRoles:
    pool = roles.training.pool

    def of(part: Optional[Part]) -> Optional[DensePart]:
        return None if part is None else PatchPart(part, classes)

    training = PatchPart(roles.training, classes)
    scene = pool.datasets[0].description.scene
    return DenseRoles(classes, training, of(roles.validation), of(roles.test), pool.source, scene, pool.scenes)
