"""How patches reach a network in training: the recipe, standardised patches, batches and augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, List, Optional, Tuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..models.cards import Card, CardBand
from ..models.registry import network_entry
from ..tasks.context import Context
from ..tasks.jobs import TrainClassifier
from .patchpools import Part

Array = npt.NDArray[Any]

IN_MEMORY_BYTES = 512 << 20  # of standardised patches; larger sets are read from their file batch by batch
LARGEST_BATCH = 512
STEPS_PER_EPOCH = 200  # what the automatic batch size aims at


@dataclass(frozen=True)
class Recipe:
    """The settings of a run, all chosen; they go into the card.

    Attributes:
        batch_size: patches per step, over all devices.
        learning_rate: the highest; it warms up to it and falls along a cosine.
        weight_decay: of AdamW, on weights that are no biases or scales.
        label_smoothing: share of the target that is spread over all classes.
        warm_up: share of the steps in which the learning rate rises; 0 = constant rate.
        jitter: deviation of the shift that each band of a sample gets, in training deviations.
        brightness: deviation of the shift that all bands of a sample get together, likewise.
        flips: whether the eight symmetries of the square are used.
    """

    batch_size: int
    learning_rate: float
    weight_decay: float = 1e-2
    label_smoothing: float = 0.0
    warm_up: float = 0.3
    jitter: float = 0.0
    brightness: float = 0.0
    flips: bool = True


def choose_recipe(job: TrainClassifier, samples: int) -> Recipe:
    """Return the recipe of a job: the registry's settings of its network, and what the job says in their place.

    The automatic batch size is the network's own, doubled (to at most 512) while an epoch would take more than 200
    steps: a function of network and data alone, so that a run repeats on another machine.
    """
    settings = dict(network_entry(job.network).recipe)
    batch = int(settings.pop("batch_size", 64))
    while samples / batch > STEPS_PER_EPOCH and 2 * batch <= LARGEST_BATCH:
        batch *= 2
    recipe = Recipe(batch_size=job.batch_size or batch, learning_rate=settings.pop("learning_rate", 1e-3), **settings)
    if job.learning_rate is not None:
        recipe = replace(recipe, learning_rate=job.learning_rate)
    if job.augmentation == "none":
        return replace(recipe, flips=False, jitter=0.0, brightness=0.0)
    if job.augmentation == "full":
        return replace(recipe, jitter=max(0.1, recipe.jitter), brightness=max(0.2, 2 * recipe.brightness))
    return recipe


def statistics_of(bands: Tuple[CardBand, ...]) -> Tuple[Array, Array]:
    """Return mean and deviation of each band ``(C,)``, as the card has them."""
    return np.array([band.mean for band in bands]), np.array([band.std for band in bands])


class StandardisedPatches:
    """The patches of a part as the network gets them: (value - mean) / deviation, 0 where no-data.

    A small set is held in memory (on the device), a larger one read batch by batch; the values are the same.
    """

    def __init__(self, part: Part, card: Card, device: torch.device, context: Context) -> None:
        mean, std = statistics_of(card.sources[0].bands)
        self._mean, self._std = (a.astype(np.float32)[:, None, None] for a in (mean, std))
        self._part, self._device = part, device
        self.labels = torch.from_numpy(part.labels).to(device)
        size = card.sources[0].patch_size
        self._held: Optional[Tensor] = None
        if 4 * len(part) * len(mean) * size * size <= IN_MEMORY_BYTES:
            held = torch.empty(len(part), len(mean), size, size)
            for number in part.chunks():
                context.check()
                held[number[0] : number[-1] + 1] = self._read(number)
            self._held = held.to(device)

    def __len__(self) -> int:
        return len(self._part)

    def _read(self, numbers: Array) -> Tensor:
        values = (self._part.physical(numbers) - self._mean) / self._std
        values[np.isnan(values)] = 0.0
        return torch.from_numpy(np.ascontiguousarray(values))

    def batch(self, numbers: Tensor) -> Tensor:
        """Return the patches ``(n, C, p, p)`` at these positions, on the device."""
        if self._held is not None:
            return self._held[numbers.to(self._device)]
        return self._read(numbers.numpy()).to(self._device)


def batches(order: Tensor, batch_size: int, rank: int = 0, world: int = 1, smallest: int = 2) -> List[Tensor]:
    """Cut an order of samples into batches that differ by one sample at most, so that every sample is used.

    Batch normalisation cannot learn from a batch of one sample: a remainder joins the others instead of standing
    alone. Of each batch a rank gets its share.
    """
    count = max(1, min(math.ceil(len(order) / batch_size), len(order) // (smallest * world)))
    return [part.tensor_split(world)[rank] for part in order.tensor_split(count)]


def symmetry(patches: Tensor, number: int) -> Tensor:
    """Return patches ``(n, C, p, p)`` after one of the 8 symmetries of the square (0 = none) that keep the centre.

    The centre of an even patch stands right of and below the middle, so a plain flip would move the labelled pixel.
    There, all rows but the first are mirrored among themselves: the centre stays where it is, nothing is invented,
    and only the row farthest from it keeps its side.
    """
    size = patches.shape[-1]
    index = (size - torch.arange(size, device=patches.device)) % size if size % 2 == 0 else None
    for axis, bit in ((-1, 1), (-2, 2)):
        if number & bit:
            patches = patches.flip(axis) if index is None else patches.index_select(axis, index)
    return patches.transpose(-1, -2) if number & 4 else patches


def augment(patches: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return patches ``(n, C, p, p)`` under random symmetries and shifts of their bands; they are shuffled already."""
    count, bands = patches.shape[:2]
    if recipe.flips:
        start = int(torch.randint(8, (1,), generator=generator))
        parts = patches.tensor_split(8)
        patches = torch.cat([symmetry(part, (start + number) % 8) for number, part in enumerate(parts)])
    if recipe.jitter:
        patches = patches + recipe.jitter * torch.randn(count, bands, 1, 1, generator=generator).to(patches.device)
    if recipe.brightness:
        patches = patches + recipe.brightness * torch.randn(count, 1, 1, 1, generator=generator).to(patches.device)
    return patches
