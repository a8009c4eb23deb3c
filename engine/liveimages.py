"""How much memory a network needs at a time, told from its operations before it runs."""

from __future__ import annotations

import math
from typing import Dict

from torch import fx

from .convolving import BLOCK
from .tracednetworks import operations, packet_of, shape_in, with_shapes

# The runtimes write the result of these in place of what they read, or join them with the operation before.
_IN_PLACE = frozenset(
    operations(
        "add add_ alias batch_norm clone contiguous detach div div_ dropout dropout_ elu elu_ gelu hardsigmoid "
        "hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ leaky_relu leaky_relu_ mish mish_ mul mul_ neg prelu "
        "relu relu_ relu6 relu6_ selu selu_ sigmoid sigmoid_ silu silu_ softplus sub sub_ tanh tanh_"
    )
)


def live_images(network: fx.GraphModule, bands: int, side: int, uneven: float = 1.0) -> float:
    """Return how many values a network holds at a time for each pixel of its image, at most, itself left out.

    Its operations are followed in their order: a tensor is held from its computation until it was read for the last
    time. What a runtime's kernels need beside is not counted.

    Args:
        network: of traced operations; stays as it is.
        bands: input channels.
        side: of the image.
        uneven: that an image counts whose channels fill no whole blocks: runtimes bring it into another order, or fill
            it up.
    """
    network = with_shapes(network, bands, side)
    readers: Dict[fx.Node, int] = {}
    for number, node in enumerate(network.graph.nodes):
        readers.update(dict.fromkeys(node.all_input_nodes, number))
    held: Dict[fx.Node, float] = {}
    most = 0.0
    for number, node in enumerate(network.graph.nodes):
        if node.op != "call_function":
            continue
        shape = shape_in(node)
        size = math.prod(shape) * (1.0 if len(shape) < 4 or shape[1] % BLOCK == 0 else uneven)
        done = [each for each in node.all_input_nodes if each in held and readers[each] == number]
        if packet_of(node.target) in _IN_PLACE and any(held[each] == size for each in done):
            held.pop(next(each for each in done if held[each] == size))
        held[node] = size
        most = max(most, sum(held.values()))
        for each in done:
            held.pop(each, None)
    return most / side**2
