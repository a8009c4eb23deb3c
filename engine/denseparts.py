"""What a network of one class per pixel learns from: windows with a class for every pixel, by role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..models.cards import CardSource
from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import TrainSegmenter
from .bandstatistics import BandStatistics
from .cardsources import source_of, usable_deviation
from .datasets import DatasetScene, DatasetSource
from .trainingground import Ground
from .wording import as_given

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]

# The target of a pixel that no loss and no number counts.
IGNORED = -1
# Of the training windows, so many are enough for means and deviations.
_STATISTICS_WINDOWS = 400
_TOGETHER = 8
_LABEL_MORE = (
    "Label at least two classes there. Where polygons are of one class and the rest of the area is another, set "
    "BACKGROUND."
)
# Of a part whose windows are the same in every epoch; larger ones are read again.
_KEPT_BYTES = 256 << 20


class DensePart(Protocol):
    """The windows of one role; threads may read at the same time."""

    @property
    def pixels(self) -> npt.NDArray[np.int64]:
        """Return the labelled pixels of each class ``(K,)``."""
        ...

    def __len__(self) -> int:
        """Return the number of windows; for training, of an epoch."""
        ...

    def read(self, numbers: Sequence[int], epoch: int = 0) -> Tuple[Floats, Targets]:
        """Return windows.

        Args:
            numbers: which ones, from 0.
            epoch: training windows that are drawn at random are others in every epoch.

        Returns:
            Physical values ``(n, C, p, p)``, NaN where no-data, and class positions ``(n, p, p)``, `IGNORED` where
            nothing is labelled.
        """
        ...

    def facts(self) -> Dict[str, Any]:
        """Return what the card says of them: name, hash where there is one, windows."""
        ...

    def ground(self, check: Callable[[], None]) -> List[Ground]:
        """Return where the pixels lie that they may hold; ``check`` is called between pieces of it."""
        ...


@dataclass(frozen=True, eq=False)
class DenseRoles:
    """Who does what in a run.

    Attributes:
        classes: ascending values: the order of the network's outputs.
        training: what the network is fitted to.
        validation: what chooses epoch and threshold; None without.
        test: what is evaluated once, at the end; None without.
        source: bands and size of the windows.
        scene: the first scene.
        scenes: names of the scenes.
        shared_pixels: pixels that are scored and lie in a training window.
        notes: how the parts came about, for the log and the report.
        choosing_pixels: pixels that lie in validation patches, which choose the epoch, and in test patches.
    """

    classes: Tuple[ClassEntry, ...]
    training: DensePart
    validation: Optional[DensePart]
    test: Optional[DensePart]
    source: DatasetSource
    scene: DatasetScene
    scenes: Tuple[str, ...]
    shared_pixels: int = 0
    notes: Tuple[str, ...] = ()
    choosing_pixels: int = 0

    @property
    def parts(self) -> Mapping[str, DensePart]:
        """Return the parts that there are, by role."""
        named = {"training": self.training, "validation": self.validation, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    def counts(self) -> Dict[str, Dict[str, int]]:
        """Return the labelled pixels per class value (as text) of each role."""
        return {
            name: {str(entry.value): int(count) for entry, count in zip(self.classes, part.pixels)}
            for name, part in self.parts.items()
        }


class KeptPart:
    """Windows that are the same in every epoch, kept in memory once they are read; see `DensePart`."""

    def __init__(self, part: DensePart) -> None:
        self._part = part
        self._windows: Dict[int, Tuple[Floats, Targets]] = {}

    def __len__(self) -> int:
        return len(self._part)

    @property
    def pixels(self) -> npt.NDArray[np.int64]:
        """Labelled pixels of each class ``(K,)``."""
        return self._part.pixels

    def read(self, numbers: Sequence[int], epoch: int = 0) -> Tuple[Floats, Targets]:
        """Return windows, as the part itself does; the arrays are the caller's own."""
        new = [int(number) for number in numbers if int(number) not in self._windows]
        if new:
            values, targets = self._part.read(new)
            self._windows.update(zip(new, zip(values, targets)))
        found = [self._windows[int(number)] for number in numbers]
        return np.stack([values for values, _ in found]), np.stack([targets for _, targets in found])

    def facts(self) -> Dict[str, Any]:
        """Return those of the part."""
        return self._part.facts()

    def ground(self, check: Callable[[], None]) -> List[Ground]:
        """Return that of the part."""
        return self._part.ground(check)


def kept(part: Optional[DensePart], source: DatasetSource) -> Optional[DensePart]:
    """Return a part that is the same in every epoch so that it is read once, if it fits into `_KEPT_BYTES`."""
    each = source.patch_size**2 * (4 * len(source.bands) + 8)
    return KeptPart(part) if part is not None and len(part) * each <= _KEPT_BYTES else part


def check_classes(roles: DenseRoles, name: str, context: Context, remedy: str = _LABEL_MORE) -> None:
    """Raise unless two classes train; warn of classes that cannot be learned or judged.

    Args:
        roles: the parts.
        name: what messages call the labels.
        context: takes the warnings.
        remedy: for labels of one class, or none.

    Raises:
        BadInput: less than two classes are labelled.
    """
    count = roles.training.pixels
    known = [entry for entry, number in zip(roles.classes, count) if number > 0]
    if len(known) < 2:
        told = f"Only class {known[0].value} '{known[0].name}' is" if known else "No class is"
        raise BadInput(f"{told} labelled where the network learns ('{name}').", remedy)
    for entry, number in zip(roles.classes, count):
        if number == 0:
            context.warn(f"Class {entry.value} '{entry.name}' has no training pixel: it will not be mapped.")
    for role, part in list(roles.parts.items())[1:]:
        missing = [e for e, n, learned in zip(roles.classes, part.pixels, count) if n == 0 and learned > 0]
        if missing:
            names = ", ".join(f"{entry.value} '{entry.name}'" for entry in missing)
            context.warn(f"The {role} part holds no pixel of class {names}.")


def card_source(roles: DenseRoles, context: Context) -> CardSource:
    """Return what the card says of the source, with means and deviations over the training windows.

    Of many windows a regular choice is read. A constant band (or one without data) gets the deviation 1, with a
    warning.
    """
    part, bands = roles.training, roles.source.bands
    numbers = np.unique(np.linspace(0, len(part) - 1, min(len(part), _STATISTICS_WINDOWS)).round().astype(int))
    found = BandStatistics(len(bands))
    for some in np.array_split(numbers, -(-len(numbers) // _TOGETHER)):
        context.check()
        # Epoch 0 is one that no training has: the statistics do not depend on what is learned from.
        values = part.read(some.tolist())[0].transpose(1, 0, 2, 3).reshape(len(bands), len(some), -1)
        valid = ~np.isnan(values)
        found.add(np.where(valid, values, 0), valid)
    mean, deviation = np.nan_to_num(found.mean), np.nan_to_num(found.deviation)
    deviation = usable_deviation(mean, deviation, found.count, bands, "windows", context)
    scene_mean, scene_std = (np.array([getattr(band, name) for band in bands]) for name in ("scene_mean", "scene_std"))
    return source_of(roles.source, mean, deviation, scene_mean, scene_std)


def count_pixels(targets: Targets, classes: int) -> npt.NDArray[np.int64]:
    """Return the labelled pixels of each class ``(K,)``."""
    return np.bincount(targets[targets >= 0].reshape(-1), minlength=classes).astype(np.int64)


def is_binary(job: TrainSegmenter, classes: Sequence[ClassEntry]) -> bool:
    """Tell whether a job's network has one probability that parts two classes.

    Raises:
        BadInput: TARGET or THRESHOLD do not go with the number of classes.
    """
    count = len(classes)
    if job.target == "binary" and count != 2:
        names = ", ".join(f"{entry.value} '{entry.name}'" for entry in classes)
        raise BadInput(
            f"TARGET is binary, but there are {count} classes: {names}.",
            "Choose TARGET classes, or leave all classes but two out.",
        )
    if job.threshold is not None and (count != 2 or job.target == "classes"):
        raise BadInput(
            f"THRESHOLD is {as_given(job.threshold)}, but the model is not binary.",
            "Leave THRESHOLD empty, or train with TARGET binary on two classes.",
        )
    return count == 2 and job.target != "classes"


def without(classes: Sequence[ClassEntry], ignored: Optional[int]) -> Tuple[ClassEntry, ...]:
    """Return a class table without the class that is ignored.

    Raises:
        BadInput: there is no such class.
    """
    kept: List[ClassEntry] = [entry for entry in classes if entry.value != ignored]
    if ignored is not None and len(kept) == len(classes):
        values = ", ".join(str(entry.value) for entry in classes)
        raise BadInput(f"IGNORE_CLASS is {ignored}, which is no class of the labels.", f"The classes are: {values}.")
    return tuple(kept)
