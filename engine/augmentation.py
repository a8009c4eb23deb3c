"""Augmentation of image and mask together: what moves pixels moves both, what changes values leaves the mask alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """What is drawn anew for every window.

    Attributes:
        symmetries: one of the eight symmetries of the square: mirrored, turned by right angles.
        zoom: a square part is enlarged to the window's size, by up to this factor; 1 = none.
        contrast: deviation of the logarithm of the factor on all bands' values.
        brightness: deviation of what is added to all bands, in training deviations.
        jitter: deviation of what is added to each band, likewise.
        noise: largest deviation of what is added to each value, likewise.
    """

    symmetries: bool = False
    zoom: float = 1.0
    contrast: float = 0.0
    brightness: float = 0.0
    jitter: float = 0.0
    noise: float = 0.0


_CHOICES = {
    "none": Augmentation(),
    "flips": Augmentation(symmetries=True),
    "full": Augmentation(symmetries=True, zoom=1.5, contrast=0.2, brightness=0.2, jitter=0.1, noise=0.1),
}


def augmentation_of(choice: str) -> Augmentation:
    """Return what AUGMENTATION stands for: none, flips or full."""
    return _CHOICES[choice]


def augmented(
    values: Tensor, targets: Tensor, settings: Augmentation, generator: torch.Generator
) -> Tuple[Tensor, Tensor]:
    """Return windows and their targets under random changes, each window's own.

    Args:
        values: float32 ``(N, C, p, p)``, standardised: 0 is a band's mean, 1 a deviation.
        targets: int64 ``(N, p, p)``, negative where ignored.
        settings: what is drawn.
        generator: on the CPU; the same one gives the same changes.
    """
    if settings.symmetries:
        values, targets = _turned(values, targets, torch.randint(8, (len(values),), generator=generator))
    if settings.zoom > 1:
        values, targets = _enlarged(values, targets, settings.zoom, generator)
    return _recoloured(values, settings, generator), targets


def _turned(values: Tensor, targets: Tensor, numbers: Tensor) -> Tuple[Tensor, Tensor]:
    """Return windows under the symmetries of these numbers: 1 mirrors columns, 2 rows, 4 exchanges both."""
    # A view for each window, then one copy of all: less memory traffic than groups that are cut out and put back.
    drawn = numbers.tolist()
    moved = torch.stack([_symmetry(image, number) for image, number in zip(values, drawn)])
    return moved, torch.stack([_symmetry(mask, number) for mask, number in zip(targets, drawn)])


def _symmetry(images: Tensor, number: int) -> Tensor:
    if number & 1:
        images = images.flip(-1)
    if number & 2:
        images = images.flip(-2)
    return images.transpose(-1, -2) if number & 4 else images


def _enlarged(values: Tensor, targets: Tensor, zoom: float, generator: torch.Generator) -> Tuple[Tensor, Tensor]:
    """Return square parts of the windows, enlarged to their size: values bilinear, targets nearest.

    A part begins and ends between pixels of the window, so that no value is invented beyond its edge.
    """
    size = values.shape[-1]
    made, moved = [], []
    factors = zoom ** torch.rand(len(values), generator=generator)
    places = torch.rand(len(values), 2, generator=generator)
    for image, mask, factor, place in zip(values, targets, factors.tolist(), places.tolist()):
        side = min(size, max(1, round(size / factor)))
        row, col = (min(int(share * (size - side + 1)), size - side) for share in place)
        part, labels = image[:, row : row + side, col : col + side], mask[row : row + side, col : col + side]
        if side < size:
            part = functional.interpolate(part[None], (size, size), mode="bilinear", align_corners=False)[0]
            # The pixel whose centre is nearest; exact for class positions, which floats would be as well.
            nearest = ((torch.arange(size) + 0.5) * side / size).long()
            labels = labels[nearest][:, nearest]
        made.append(part)
        moved.append(labels)
    return torch.stack(made), torch.stack(moved)


def _recoloured(values: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Return windows with other contrast, brightness and noise."""
    count, bands = values.shape[:2]
    factor, shift = torch.ones(count, 1, 1, 1), torch.zeros(count, bands, 1, 1)
    if settings.contrast:
        factor = (settings.contrast * torch.randn(count, 1, 1, 1, generator=generator)).exp()
    if settings.brightness:
        shift = shift + settings.brightness * torch.randn(count, 1, 1, 1, generator=generator)
    if settings.jitter:
        shift = shift + settings.jitter * torch.randn(count, bands, 1, 1, generator=generator)
    if settings.contrast or settings.brightness or settings.jitter:
        values = torch.addcmul(shift, values, factor)
    if settings.noise:
        strength = settings.noise * torch.rand(count, 1, 1, 1, generator=generator)
        values = torch.addcmul(values, strength, torch.randn(values.shape, generator=generator))
    return values
