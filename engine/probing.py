"""How far a pixel network looks, and on which grid: found by trying, not asked.

A pixel network maps an image to classes of the same size. Mapping a scene in windows gives the same as mapping it in
one piece where two things are known: its *stride*, the grid on which it does the same everywhere (a U-Net of depth 4:
16), and its *margin*, the pixels beyond a window that the window's classes depend on. Networks that have neither
(squeeze-excitation, attention, global pooling, ``align_corners``) have the context "tile": see blending.py.

The margin is that of windows that begin and end on the grid. In a U-Net of depth 4 a pixel may depend on another that
is 107 away, but a window that ends on the grid on no more than 96 beyond it: the pixels at its rim, where the grid's
cells end, are not those that look farthest.

A scene has an edge, where a network in one piece would see its own zero padding. "In one piece" therefore means: the
scene continued beyond its edge by reflection, by the margin or more. There the padding has no say.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Callable, List, Optional

import torch
from torch import Tensor, nn

# A network with a larger margin would compute hardly anything but margins: it is mapped in tiles.
LARGEST_MARGIN = 1024
# Strides are products of poolings by 2, 3 and 5.
_STRIDES = tuple(n for n in range(1, 65) if 2**6 * 3**3 * 5**2 % n == 0)
_COLUMNS = 32
_ROWS = 128
# Float64 rounds at 1e-16 of the scale; a network's sums make it some 1e-14.
_TOLERANCE = 1e-11
# Against standardised values, in which 1 is a deviation: large enough to win every maximum.
_DISTURBANCE = 1e3


@dataclass(frozen=True)
class Field:
    """What a pixel network's classes depend on.

    Attributes:
        margin: pixels beyond a window, on each side, that its classes depend on, a multiple of the stride; 0 where the
            context is "tile".
        stride: windows begin at multiples of it, and their sizes are multiples.
        context: "local" (windows with the margin equal the image in one piece) or "tile".
    """

    margin: int
    stride: int
    context: str


def probe(module: nn.Module, bands: int, check: Optional[Callable[[], None]] = None) -> Field:
    """Return how far a pixel network looks, and on which grid.

    The stride is the smallest grid on which shifted images give shifted logits, of those that suit the network's own
    attribute ``grid`` where it has one: some accept images of any size and do something else with them. For the margin
    a cell of the grid, along a whole row, is made NaN, and the cells that it spreads to are counted; since an operation
    may swallow NaN (``where``, ``nan_to_num``), the same is done with a large disturbance in float64, and the larger
    counts. Columns likewise. The same network always gives the same answer. Takes seconds.

    Args:
        module: maps standardised images ``(N, bands, H, W)`` to logits ``(N, classes, H, W)``; not changed.
        bands: input channels.
        check: called between evaluations, so that a job can be cancelled.

    Raises:
        ValueError: it maps images of no size to logits of the same size.
    """
    # oneDNN's kernels may mix NaN into pixels that do not depend on them.
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
        return _Probe(module, bands, check or (lambda: None)).field()


class _Probe:
    def __init__(self, module: nn.Module, bands: int, check: Callable[[], None]) -> None:
        self._single = copy.deepcopy(module).cpu().float().eval()
        self._double = copy.deepcopy(module).cpu().double().eval()
        self._bands = bands
        self._check = check
        own = int(getattr(module, "grid", getattr(getattr(module, "network", None), "grid", 1)))
        self._strides = tuple(n for n in _STRIDES if n % own == 0) or (own,)

    def field(self) -> Field:
        accepted = reach = 0
        for stride in self._strides:
            if not self._accepts(stride):
                continue
            if not accepted:
                accepted = stride
                found = self._margin(stride)
                if found is None:
                    break
                reach = found
            # What is measured on one grid differs from what is measured on another by less than a cell of each.
            if self._keeps_to(stride, -(-(reach + accepted) // stride) * stride + stride):
                margin = reach if stride == accepted else self._margin(stride)
                if margin is not None:
                    return Field(margin, stride, "local")
        if not accepted:
            raise ValueError("the network maps no image to logits of the image's size")
        return Field(0, accepted, "tile")

    def _accepts(self, stride: int) -> bool:
        """Tell whether images whose sizes are multiples of the stride, and of nothing else, keep their size."""
        rows, cols = _multiple(_ROWS, stride), _multiple(_COLUMNS, stride)
        try:
            shape = self._single(torch.zeros(1, self._bands, rows, cols)).shape
        except (RuntimeError, ValueError, AssertionError):  # as torch, or the network's own check, says it
            return False
        return len(shape) == 4 and tuple(shape[2:]) == (rows, cols)

    def _margin(self, stride: int) -> Optional[int]:
        """Return how far the change of one cell spreads; None where that is farther than `LARGEST_MARGIN`."""
        # Twice as far on each side as the largest margin: dilated convolutions leave gaps, and a smaller image would
        # end in one and look as if nothing came after it.
        margin = self._widest(_multiple(4 * LARGEST_MARGIN, stride), stride, finite=False)
        if margin is None:
            return None
        least = 2 * (margin + _ROWS)
        while least <= 4 * LARGEST_MARGIN:
            found = self._widest(_multiple(least, stride), stride, finite=True)
            if found is not None:
                margin = max(margin, found)
                return margin if margin <= LARGEST_MARGIN else None
            least *= 2  # NaN was swallowed on the way
        return None

    def _widest(self, rows: int, stride: int, finite: bool) -> Optional[int]:
        """Return how far a change of the middle cell spreads along either axis; None where it comes to the edge."""
        spreads: List[int] = []
        for across in (False, True):
            spread = self._spread(rows, stride, finite, across)
            if spread is None:
                return None
            spreads.append(spread)
        return max(spreads)

    def _spread(self, rows: int, stride: int, finite: bool, across: bool) -> Optional[int]:
        """Return how far a change of the middle cell spreads along one axis; None where it comes to the image's edge.

        Args:
            rows: of the image.
            stride: of the grid.
            finite: change by a large disturbance, in place of NaN.
            across: along the other axis.
        """
        image = self._image(rows, stride)
        own = rows // stride // 2
        cell = slice(own * stride, (own + 1) * stride)
        if finite:
            image = image.double()
            plain = self._run(self._double, image, across)
            # Of both signs: what is negative everywhere would be lost in a maximum.
            image[:, :, cell] += _DISTURBANCE * self._image(stride, stride, seed=1)
            changed = (self._run(self._double, image, across) - plain).abs() > _TOLERANCE * plain.abs().max()
        else:
            image[:, :, cell] = torch.nan
            changed = self._run(self._single, image, across).isnan()
        touched = changed.any(dim=3).any(dim=1)[0].view(-1, stride).any(dim=1)
        if bool(touched[0]) or bool(touched[-1]):
            return None
        reached = [own, *touched.nonzero()[:, 0].tolist()]
        return max(own - min(reached), max(reached) - own) * stride

    def _keeps_to(self, stride: int, margin: int) -> bool:
        """Tell whether an image that is shifted by the stride gives shifted logits, its edges aside."""
        length = _multiple(2 * margin + 2 * stride + _COLUMNS, stride)
        # What lies nearer to an end than the margin sees that end's padding.
        inside = slice(margin, length - margin - stride)
        for across in (False, True):
            image = self._image(length + stride, stride).double()
            here = self._run(self._double, image[:, :, :length], across)[:, :, stride:]
            there = self._run(self._double, image[:, :, stride:], across)
            difference = (here[:, :, inside] - there[:, :, inside]).abs().max()
            if not bool(difference <= _TOLERANCE * here.abs().max()):  # false for NaN too
                return False
        return True

    def _image(self, rows: int, stride: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, self._bands, rows, _multiple(_COLUMNS, stride), generator=generator)

    def _run(self, module: nn.Module, image: Tensor, across: bool) -> Tensor:
        """Return the logits of an image ``(1, bands, rows, cols)``; across: of the image on its side."""
        self._check()
        logits: Tensor = module(image.transpose(2, 3).contiguous()).transpose(2, 3) if across else module(image)
        return logits


def _multiple(least: int, stride: int) -> int:
    """Return a multiple of the stride that is no multiple of a larger one: the factor is a prime."""
    factor = max(2, -(-least // stride))
    while any(factor % n == 0 for n in range(2, math.isqrt(factor) + 1)):
        factor += 1
    return factor * stride
