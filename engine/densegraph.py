"""The dense network while it is written: its images, and what the operations that write it share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, fx, nn

from .tracednetworks import Pair
from .wording import across_by_down

_aten = torch.ops.aten


class NotDenseError(Exception):
    """A patch network has no equivalent dense network; the message is a phrase that names what stands in the way."""


@dataclass(frozen=True)
class Cells:
    """A tensor of the patch network as an image of the dense one.

    Attributes:
        node: the image in the dense graph, ``(N, channels, H - lost, W - lost)``.
        channels: channels of the image.
        shape: rows and columns of cells that one patch has.
        pitch: pixels between neighbouring cells, down and across.
        lost: rows and columns that the image is smaller than the input.
        layout: how the patch network holds them: for each axis behind the first, the letters of what runs along it
            (c, h, w), the slowest first; what has one element is left out. An image is ("c", "h", "w"), a flattened
            one ("chw",), the result of a global pooling ("c", "", "").
    """

    node: fx.Node
    channels: int
    shape: Pair
    pitch: Pair
    lost: Pair
    layout: Tuple[str, ...] = ()

    @property
    def sizes(self) -> Dict[str, int]:
        """Return the elements of one patch along channels, rows and columns."""
        return {"c": self.channels, "h": self.shape[0], "w": self.shape[1]}

    def as_image(self) -> Cells:
        """Return the same cells, held by the patch network as an image ``(N, C, h, w)``."""
        return replace(self, layout=tuple(letter if size > 1 else "" for letter, size in self.sizes.items()))

    def has_channels_at(self, axis: int) -> bool:
        """Say whether an axis (1 = the first behind the samples) holds the channels and nothing else."""
        held = self.layout[axis - 1]
        return held == "c" or (held == "" and self.channels == 1)


class DenseGraph:
    """The dense graph so far, and what is known of the patch network's tensors."""

    def __init__(self, patch_size: int) -> None:
        self.patch_size = patch_size
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.known: Dict[fx.Node, Cells] = {}
        self.constants: Dict[fx.Node, Tensor] = {}
        self._stored = 0

    # --- what operations ask for -------------------------------------------------------------------------------------

    def has_cells(self, argument: Any) -> bool:
        """Say whether an operation's argument is computed from the patch."""
        return isinstance(argument, fx.Node) and argument in self.known

    def cells(self, argument: Any) -> Cells:
        """Return the image of an operation's input."""
        if not self.has_cells(argument):
            raise NotDenseError("a constant takes the place of the patch")
        return self.known[argument]

    def image(self, argument: Any, what: str) -> Cells:
        """Return the image of an input that the patch network holds as an image too."""
        cells = self.cells(argument)
        if cells.layout != cells.as_image().layout:
            raise NotDenseError(f"a {what} acts on something that is no image")
        return cells

    def constant(self, argument: Any, what: str) -> Tensor:
        """Return a weight of the patch network."""
        if argument not in self.constants:
            raise NotDenseError(f"the weights of a {what} are computed from the patch")
        return self.constants[argument]

    # --- what operations write ---------------------------------------------------------------------------------------

    def add(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Write an operation of the dense network."""
        return self.graph.call_function(target, args, kwargs)

    def stored(self, value: Tensor) -> fx.Node:
        """Write a constant of the dense network."""
        name = f"constant_{self._stored}"
        self._stored += 1
        self.root.register_buffer(name, value.detach().clone())
        return self.graph.get_attr(name)

    def weight(self, argument: Any, what: str) -> Optional[fx.Node]:
        """Write a weight of the patch network as a constant of the dense one; None stays None."""
        return None if argument is None else self.stored(self.constant(argument, what))

    def trimmed(self, cells: Cells) -> Cells:
        """Return the image without the rows and columns behind the last whole patch, which floored strides leave."""
        node, lost = cells.node, list(cells.lost)
        for axis in (0, 1):
            extra = self.patch_size - 1 - (cells.shape[axis] - 1) * cells.pitch[axis] - lost[axis]
            if extra:
                node = self.add(_aten.slice.Tensor, node, axis + 2, 0, -extra)
                lost[axis] += extra
        return replace(cells, node=node, lost=(lost[0], lost[1]))

    def window(
        self, cells: Cells, kernel: Pair, stride: Pair, dilation: Pair, channels: int,
        write: Callable[[List[int]], fx.Node],
    ) -> Cells:  # fmt: skip
        """Return what an unpadded window operation gives: stride 1, dilated by the pitch.

        Args:
            cells: what it acts on.
            kernel: rows and columns of the window.
            stride: cells between two windows, in the patch network.
            dilation: cells between two of a window's elements, likewise.
            channels: channels of the result.
            write: writes the dense operation with the given dilation.
        """
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
        if reach[0] > cells.shape[0] or reach[1] > cells.shape[1]:
            raise NotDenseError("an operation is larger than what is left of the patch")
        spread = [d * p for d, p in zip(dilation, cells.pitch)]
        rows, cols = ((size - r) // s + 1 for size, r, s in zip(cells.shape, reach, stride))
        down, across = (gone + d * (k - 1) for gone, k, d in zip(cells.lost, kernel, spread))
        pitch = (cells.pitch[0] * stride[0], cells.pitch[1] * stride[1])
        return Cells(write(spread), channels, (rows, cols), pitch, (down, across)).as_image()


def sides_of(cells: Cells) -> str:
    """Return the cells that a patch has, as text."""
    return across_by_down(*cells.shape)
