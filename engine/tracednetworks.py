"""Networks as graphs of torch's operations: what all that rewrites them, or reads of them, shares."""

from __future__ import annotations

import copy
import itertools
from operator import attrgetter
from typing import Any, List, Tuple

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

Pair = Tuple[int, int]
_aten = torch.ops.aten


def traced(module: nn.Module, bands: int, height: int, width: int) -> torch.export.ExportedProgram:
    """Return the operations that a network does in evaluation mode with images ``(N, bands, height, width)``.

    They are those of a copy of the network. Raises whatever its tracing meets.
    """
    frozen = copy.deepcopy(module).eval()
    weight = next(iter(frozen.parameters()), torch.empty(0))
    example = torch.zeros(2, bands, height, width, dtype=weight.dtype, device=weight.device)
    return torch.export.export(frozen, (example,), strict=False)


def with_shapes(network: fx.GraphModule, bands: int, side: int) -> fx.GraphModule:
    """Return a copy of a network whose tensors know their shapes for a square image; nothing is computed."""
    weight = next(itertools.chain(network.parameters(), network.buffers()), torch.empty(0))
    weightless = copy.deepcopy(network).to("meta")
    ShapeProp(weightless).propagate(torch.empty(1, bands, side, side, dtype=weight.dtype, device="meta"))
    network = copy.deepcopy(network)
    for node, known in zip(network.graph.nodes, weightless.graph.nodes):
        node.meta = known.meta
    return network


def shape_in(node: Any) -> List[int]:
    """Return the shape of a tensor of a network `with_shapes`."""
    return list(node.meta["tensor_meta"].shape)


def constant_of(network: fx.GraphModule, node: Any) -> Tensor:
    """Return the weight that a node of a network reads."""
    weight: Tensor = attrgetter(str(getattr(node, "target", "")))(network)
    return weight.detach()


def stored(network: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    """Write a constant of a network where its graph is being written; ``name`` is a new one."""
    network.register_buffer(name, value)
    return network.graph.get_attr(name)


def first_line(error: Exception) -> str:
    """Return the first line of what torch says, which may be pages long."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def operations(names: str) -> List[Any]:
    """Return torch's operations of these names, without those that this release of torch does not have."""
    return [getattr(_aten, name) for name in names.split() if hasattr(_aten, name)]


def packet_of(target: Any) -> Any:
    """Return the operation that a traced call is one variant of (aten.add of aten.add.Tensor)."""
    return getattr(target, "overloadpacket", target)


def name_of(node: fx.Node) -> str:
    """Return the name that torch has for a traced operation ("relu")."""
    return str(packet_of(node.target)).rpartition(".")[2]


def shape_of(node: Any) -> List[int]:
    """Return the shape that a tensor of a `traced` network has for the two images that it was traced with."""
    return [int(side) for side in node.meta["val"].shape]


def argument_of(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """Return an argument of a traced operation, given by position or by name."""
    return node.args[position] if position < len(node.args) else node.kwargs.get(name, default)


def is_unpadded_convolution(node: fx.Node) -> bool:
    """Tell whether an operation is a convolution of all channels that adds no margins."""
    if packet_of(node.target) != _aten.conv2d:
        return False
    padding, groups = argument_of(node, 4, "padding", 0), argument_of(node, 6, "groups", 1)
    return padding in (0, [0, 0], (0, 0)) and groups == 1


def pair(value: Any) -> Pair:
    """Return what stands for rows and columns, given once or for each."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))
