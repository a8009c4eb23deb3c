"""Networks of physical values: the scaling by the bands' statistics, in the first convolutions where that is exact."""

from __future__ import annotations

import copy
from typing import List, Optional

import torch
from torch import Tensor, fx, nn

from ..models.cards import Card
from .tracednetworks import constant_of, is_unpadded_convolution, stored

# Sums of values that are not centred lose as many digits as the mean is deviations away from zero: here two of seven.
_FARTHEST_MEAN = 32.0


class Scaled(nn.Module):
    """A network behind what is left of its scaling."""

    mean: Optional[Tensor]
    std: Optional[Tensor]

    def __init__(self, network: nn.Module, mean: Optional[Tensor], std: Optional[Tensor]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, values: Tensor) -> Tensor:
        """Return the logits of physical values ``(N, C, H, W)``."""
        if self.mean is not None:
            values = values - self.mean
        if self.std is not None:
            values = values / self.std
        logits: Tensor = self.network(values)
        return logits


def of_physical_values(network: nn.Module, card: Card) -> Scaled:
    """Return the network with the scaling of its card.

    Scaling an image takes as long as a pooling; in the weights of the convolutions that read it, it costs nothing. They
    take over the division, and the subtraction as well where no mean lies so far from zero that the sums would lose
    digits. None of them may add margins, whose zeros stand for means.

    Args:
        network: maps standardised images ``(N, C, H, W)``; stays as it is.
        card: has the bands' means and deviations.
    """
    bands = card.sources[0].bands
    mean, std = (torch.tensor([getattr(band, name) for band in bands]).double() for name in ("mean", "std"))
    shape = (1, len(bands), 1, 1)
    plain = Scaled(network, mean.float().reshape(shape), std.float().reshape(shape))
    if not isinstance(network, fx.GraphModule):
        return plain
    network = copy.deepcopy(network)
    readers = _convolutions_of_image(network)
    weights = [constant_of(network, reader.args[1]).double() / std[:, None, None] for reader in readers]
    if not weights or not all(torch.isfinite(weight.float()).all() for weight in weights):
        return plain
    centred = bool((mean / std).abs().max() <= _FARTHEST_MEAN)
    for number, (reader, weight) in enumerate(zip(readers, weights)):
        bias = reader.args[2] if len(reader.args) > 2 else None
        if centred:
            known = 0.0 if bias is None else constant_of(network, bias).double()
            shift = known - (weight * mean[:, None, None]).sum((1, 2, 3))
            with network.graph.inserting_before(reader):
                bias = stored(network, f"scaled_bias_{number}", shift.float())
        with network.graph.inserting_before(reader):
            scaled = stored(network, f"scaled_weight_{number}", weight.float())
        reader.args = (reader.args[0], scaled, bias, *reader.args[3:])
    network.recompile()
    return Scaled(network, None if centred else plain.mean, None)


def _convolutions_of_image(network: fx.GraphModule) -> List[fx.Node]:
    """Return the convolutions that read the image; none where one adds margins or anything else reads it."""
    (image,) = (node for node in network.graph.nodes if node.op == "placeholder")
    readers = list(image.users)
    return readers if all(_is_plain(node, image) for node in readers) else []


def _is_plain(node: fx.Node, image: fx.Node) -> bool:
    return is_unpadded_convolution(node) and node.args[0] is image and not node.kwargs
