"""Convolutions of upsampled images, computed before the upsampling.

A decoder upsamples an image and convolves it, beside one of the encoder. Of the nine values that a 3 x 3 convolution
reads of an image in which every value stands four times, only four differ; after a transposed convolution they are
nine sums over the same four. For each of the four places that a fine pixel can have in its coarse one, the convolution
is one of 2 x 2 coarse pixels. That is less than half of the multiplications, or three quarters of those together with
the transposed convolution, and the fine image is never held in memory beside the encoder's. Equal but for rounding.

Source: the arrangement of the places is the sub-pixel convolution of W. Shi et al., Real-Time Single Image and Video
Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network, 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor, fx

from .tracednetworks import (
    argument_of,
    constant_of,
    is_unpadded_convolution,
    packet_of,
    pair,
    shape_in,
    stored,
    with_shapes,
)

_aten = torch.ops.aten


@dataclass(frozen=True)
class _Upsampling:
    """An upsampling by a whole factor that a convolution reads.

    Attributes:
        source: the coarse image.
        factor: fine pixels along a coarse one.
        kernel: what a coarse pixel adds to its fine ones ``(C coarse, C fine, factor, factor)``; None = itself.
        bias: of the fine channels; None = none.
    """

    source: fx.Node
    factor: int
    kernel: Optional[Tensor] = None
    bias: Optional[Tensor] = None


def convolved_before_upsampling(network: fx.GraphModule, bands: int, side: int) -> fx.GraphModule:
    """Return a network whose convolutions of upsampled images are computed before the upsampling, where that is less.

    Args:
        network: of operations that pad nothing, as `unpadding.unpadded_network` returns it; stays as it is.
        bands: input channels.
        side: of an image that it takes.
    """
    network = with_shapes(network, bands, side)
    for number, node in enumerate(list(network.graph.nodes)):
        if _is_plain_convolution(node):
            _rewrite(network, node, f"subpixel_{number}")
    network.graph.eliminate_dead_code()
    network.graph.lint()
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def _rewrite(network: fx.GraphModule, node: fx.Node, name: str) -> None:
    """Write a convolution of upsampled and other images as a sum of convolutions, and leave the old one unread."""
    parts = _joined(node.args[0])
    weight, bias, last = _with_normalisation(network, node)
    weights = torch.split(weight, [_channels(part) for part in parts], dim=1)
    found = [_upsampling(network, part, own) for part, own in zip(parts, weights)]
    if not any(found):
        return
    graph, dtype = network.graph, constant_of(network, node.args[1]).dtype

    def kept(kind: str, value: Tensor) -> fx.Node:
        return stored(network, f"{name}_{kind}", value.to(dtype))

    with graph.inserting_before(last):
        addends: List[fx.Node] = []
        for number, (up, own) in enumerate(zip(found, weights)):
            if up is not None:
                if up.bias is not None:
                    bias = bias + torch.einsum("kcyx,c->k", own, up.bias)
                kernel = kept(f"weight_{number}", _before(own, up))
                coarse = graph.call_function(_aten.conv2d.default, (up.source, kernel, None))
                addends.append(graph.call_function(_aten.pixel_shuffle.default, (coarse, up.factor)))
        rest = [number for number, up in enumerate(found) if up is None]
        if rest:
            images = [parts[number] for number in rest]
            image = images[0] if len(images) == 1 else graph.call_function(_aten.cat.default, (images, 1))
            kernel = kept("weight", torch.cat([weights[number] for number in rest], dim=1))
            result = graph.call_function(_aten.conv2d.default, (image, kernel, kept("bias", bias)))
        else:
            result = kept("bias", bias[:, None, None])
        for addend in addends:
            result = graph.call_function(_aten.add.Tensor, (result, addend))
    last.replace_all_uses_with(result)


def _before(weight: Tensor, up: _Upsampling) -> Tensor:
    """Return the weights ``(K f f, C coarse, n, n)`` of the convolution of the coarse image.

    Args:
        weight: of the convolution of the fine one ``(K, C fine, k, k)``.
        up: the upsampling between the two.
    """
    factor, size, taps = up.factor, weight.shape[2], _taps(weight.shape[2], up.factor)
    coarse = weight.shape[1] if up.kernel is None else up.kernel.shape[0]
    found = weight.new_zeros(weight.shape[0], factor, factor, coarse, taps, taps)
    for a, b, y, x in _places(factor, factor, size, size):
        (row, down), (col, right) = divmod(a + y, factor), divmod(b + x, factor)
        own = weight[:, :, y, x]
        found[:, a, b, :, row, col] += own if up.kernel is None else own @ up.kernel[:, :, down, right].T
    return found.reshape(-1, coarse, taps, taps)


def _places(*sizes: int) -> Any:
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes)).tolist()


def _taps(size: int, factor: int) -> int:
    """Return how many coarse pixels lie under ``size`` fine ones, wherever these begin."""
    return (factor + size - 2) // factor + 1


# --- what is found ---------------------------------------------------------------------------------------------------


def _upsampling(network: fx.GraphModule, part: fx.Node, weight: Tensor) -> Optional[_Upsampling]:
    """Return the upsampling that gives a part of an image, where convolving before it takes fewer multiplications."""
    outputs, fine, size = weight.shape[:3]
    found = _transposed(network, part) or _nearest(part)
    # Otherwise rows are left over, or needed, at the end.
    if found is None or len(part.users) > 1 or size == 1 or found.factor * (_taps(size, found.factor) - 1) != size - 1:
        return None
    # Of a fine pixel.
    before = size**2 * fine * outputs + (0 if found.kernel is None else _channels(found.source) * fine)
    after = _taps(size, found.factor) ** 2 * _channels(found.source) * outputs
    return found if after < before else None


def _transposed(network: fx.GraphModule, node: fx.Node) -> Optional[_Upsampling]:
    """Return a transposed convolution whose windows lie beside each other."""
    if packet_of(node.target) != _aten.conv_transpose2d:
        return None
    kernel = _constant(network, node.args[1])
    stride, padding = pair(argument_of(node, 3, "stride", 1)), pair(argument_of(node, 4, "padding", 0))
    more, groups = pair(argument_of(node, 5, "output_padding", 0)), argument_of(node, 6, "groups", 1)
    if stride[0] != stride[1] or tuple(kernel.shape[2:]) != stride or any((*padding, *more)) or groups != 1:
        return None
    bias = argument_of(node, 2, "bias")
    return _Upsampling(_node(node.args[0]), stride[0], kernel, None if bias is None else _constant(network, bias))


def _nearest(node: fx.Node) -> Optional[_Upsampling]:
    """Return an upsampling that repeats values."""
    if packet_of(node.target) != _aten.upsample_nearest2d:
        return None
    source = _node(node.args[0])
    factors = {fine / coarse for fine, coarse in zip(shape_in(node)[2:], shape_in(source)[2:])}
    factor = factors.pop()
    return None if factors or factor % 1 else _Upsampling(source, int(factor))


def _is_plain_convolution(node: fx.Node) -> bool:
    spacing = (pair(argument_of(node, at, name, 1)) for at, name in ((3, "stride"), (5, "dilation")))
    return is_unpadded_convolution(node) and set(spacing) == {(1, 1)}


def _joined(image: Any) -> List[fx.Node]:
    """Return the images whose channels make up one; those that are read elsewhere, too, as one."""
    image = _node(image)
    if packet_of(image.target) != _aten.cat or argument_of(image, 1, "dim", 0) != 1 or len(image.users) > 1:
        return [image]
    return [_node(part) for part in image.args[0]]


def _with_normalisation(network: fx.GraphModule, node: fx.Node) -> Tuple[Tensor, Tensor, fx.Node]:
    """Return the weights of a convolution with those of a normalisation that follows, and the later of the two.

    The runtimes would do so themselves, were it not for the sum that comes between.
    """
    weight, bias = _constant(network, node.args[1]), argument_of(node, 2, "bias")
    shift = weight.new_zeros(len(weight)) if bias is None else _constant(network, bias)
    (after, *others) = node.users or [node]
    if others or packet_of(after.target) != _aten.batch_norm:
        return weight, shift, node
    gain, offset, mean, variance = (None if entry is None else _constant(network, entry) for entry in after.args[1:5])
    assert mean is not None and variance is not None  # in evaluation mode
    scale = (variance + float(argument_of(after, 7, "eps", 1e-5))).rsqrt() * (1.0 if gain is None else gain)
    return weight * scale[:, None, None, None], (shift - mean) * scale + (0.0 if offset is None else offset), after


def _constant(network: fx.GraphModule, node: Any) -> Tensor:
    """Return a weight in double precision."""
    return constant_of(network, node).double()


def _node(argument: Any) -> fx.Node:
    assert isinstance(argument, fx.Node)
    return argument


def _channels(node: fx.Node) -> int:
    return shape_in(node)[1]
