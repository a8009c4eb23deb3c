"""Rewriting a network of one class per pixel for windows with margins: what a window does not need is not computed.

Such a network pads its convolutions, so that it answers for every pixel that it is given. A window is given with
margins, whose answers are thrown away: in a U-Net on 512 pixels that is nearly half of the work. Without the padding
every layer shrinks towards the window: the encoder reads the margins, the decoder computes next to nothing of them.
Each cell that remains is the sum of the same products, so the result is the same number. (The idea: Ronneberger et al.
2015, whose U-Net is unpadded.)

Cells are counted from the window's beginning, which lies on the grid of the network's strides. An operation that has no
such form is refused by name; the network then runs as it is, with its margins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import fx, nn

from .tracednetworks import Pair, argument_of, first_line, name_of, operations, packet_of, pair, shape_of, traced

_aten = torch.ops.aten


class NotUnpaddedError(Exception):
    """A network has no unpadded form; the message is a phrase that names what stands in the way."""


@dataclass(frozen=True)
class Cropped:
    """A tensor of the padded network, of which only the cells are computed that see no padding.

    Attributes:
        node: the tensor in the new graph.
        first: rows and columns that it lacks before, of those of the padded network.
        last: those that it lacks behind.
    """

    node: fx.Node
    first: Pair = (0, 0)
    last: Pair = (0, 0)


def unpadded_network(module: nn.Module, bands: int, stride: int, margin: int) -> fx.GraphModule:
    """Return the unpadded form of a network of one class per pixel.

    Args:
        module: maps ``(N, bands, H, W)`` to ``(N, K, H, W)`` for multiples of the stride; taken in evaluation mode.
        bands: input channels.
        stride: of the grid that its images lie on.
        margin: pixels around a window that it is given, a multiple of the stride.

    Returns:
        A module in evaluation mode that maps ``(N, bands, H + 2 margin, W + 2 margin)`` to ``(N, K, H, W)``: what the
        network answers for the middle of an image without end. It holds a copy of the weights.

    Raises:
        NotUnpaddedError: an operation has no such form, or the network looks farther than the margin; says which.
    """
    side = 2 * margin + 4 * stride
    try:
        program = traced(module, bands, side, side + stride)
    except Exception as error:  # torch raises whatever its tracing met: the network runs as it is all the same
        raise NotUnpaddedError(f"the network cannot be traced ({first_line(error)})") from error
    # Weights and computed constants become attributes of the module; what is left are the calls.
    return _Rewriter(program.module(check_guards=False), margin).rewritten()


class _Rewriter:
    """One pass over the traced operations of a padded network, which writes the unpadded one's."""

    def __init__(self, traced: Any, margin: int) -> None:
        self._traced = traced
        self._margin = margin
        self.graph = fx.Graph()
        self._known: Dict[fx.Node, Cropped] = {}
        self._constants: Dict[fx.Node, fx.Node] = {}

    def rewritten(self) -> fx.GraphModule:
        """Return the unpadded network.

        Raises:
            NotUnpaddedError: see `unpadded_network`.
        """
        for node in self._traced.graph.nodes:
            if node.op == "placeholder":
                if self._known:
                    raise NotUnpaddedError("the network has several inputs")
                self._known[node] = Cropped(self.graph.placeholder("values"))
            elif node.op == "get_attr":
                self._constants[node] = self.graph.get_attr(str(node.target))
            elif node.op == "output":
                self._output(node)
            elif any(argument in self._known for argument in node.all_input_nodes):
                self._call(node)
        self.graph.eliminate_dead_code()
        self.graph.lint()
        root = nn.Module()
        for node in self.graph.nodes:
            if node.op == "get_attr":
                _copy_attribute(self._traced, root, str(node.target))
        return fx.GraphModule(root, self.graph, "UnpaddedNetwork").eval()

    def _output(self, node: fx.Node) -> None:
        results = node.args[0]
        result = results[0] if isinstance(results, (tuple, list)) and len(results) == 1 else None
        if not isinstance(result, fx.Node) or result not in self._known:
            raise NotUnpaddedError("the network has several outputs")
        (image,) = (n for n in self._traced.graph.nodes if n.op == "placeholder")
        if shape_of(result)[2:] != shape_of(image)[2:]:
            raise NotUnpaddedError("the network's answer has another size than its image")
        found = self._known[result]
        if max(*found.first, *found.last) > self._margin:
            raise NotUnpaddedError(f"the network looks {max(*found.first, *found.last)} pixels far")
        whole = (self._margin, self._margin)
        self.graph.output(self.cropped(found, whole, whole).node)

    def _call(self, node: fx.Node) -> None:
        handler = _HANDLERS.get(packet_of(node.target))
        if handler is None:
            raise NotUnpaddedError(f"the operation '{name_of(node)}' has no unpadded form")
        self._known[node] = handler(self, node)

    # --- what operations ask for and write ---------------------------------------------------------------------------

    def image(self, argument: Any) -> Cropped:
        """Return the cropped form of an operation's input."""
        if not isinstance(argument, fx.Node) or argument not in self._known:
            raise NotUnpaddedError("a constant takes the place of the image")
        return self._known[argument]

    def has_image(self, argument: Any) -> bool:
        """Tell whether an argument is computed from the image."""
        return isinstance(argument, fx.Node) and argument in self._known

    def constant(self, argument: Any) -> Any:
        """Return a weight in the new graph; what is no weight as it is."""
        if not isinstance(argument, fx.Node):
            return argument
        if argument not in self._constants:
            raise NotUnpaddedError("weights are computed from the image")
        return self._constants[argument]

    def add(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Write an operation of the unpadded network."""
        return self.graph.call_function(target, args, kwargs)

    def cropped(self, image: Cropped, first: Pair, last: Pair) -> Cropped:
        """Return an image without the cells that lie before ``first`` or behind ``last`` of the padded one's."""
        before = [own - lacking for own, lacking in zip(first, image.first)]
        behind = [own - lacking for own, lacking in zip(last, image.last)]
        if min(*before, *behind) < 0:
            raise ValueError(f"cells {first}, {last} of {image} are not there")
        if not any((*before, *behind)):
            return image
        # Padding by less than nothing: one operation for both axes, where slices would be two.
        sides = [-before[1], -behind[1], -before[0], -behind[0]]
        return Cropped(self.add(_aten.constant_pad_nd.default, image.node, sides), first, last)


def _copy_attribute(source: nn.Module, target: nn.Module, path: str) -> None:
    *parents, name = path.split(".")
    value: Any = source
    for part in (*parents, name):
        value = getattr(value, part)
    for part in parents:
        if not hasattr(target, part):
            target.add_module(part, nn.Module())
        target = getattr(target, part)
    target.register_buffer(name, value.detach().clone())


def _sizes(node: fx.Node, source: Any, factor: Pair, shrinks: bool) -> None:
    """Raise unless an operation on an image gives the size that the grid of its strides asks for."""
    before, after = shape_of(source)[2:], shape_of(node)[2:]
    wanted = [size // f if shrinks else size * f for size, f in zip(before, factor)]
    if after != wanted or (shrinks and any(size % f for size, f in zip(before, factor))):
        raise NotUnpaddedError(f"the operation '{name_of(node)}' leaves the grid of its strides")


# --- windows ---------------------------------------------------------------------------------------------------------


def _window(
    net: _Rewriter, node: fx.Node, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair,
    write: Callable[[fx.Node], fx.Node],
) -> Cropped:  # fmt: skip
    """Return what a convolution or a pooling gives where it sees no padding.

    The cell i of its result reads the cells i s - p to i s - p + d (k - 1), where p is what it pads before the image
    itself and what an operation before it does.
    """
    source, before = _without_pad(node.args[0])
    _sizes(node, source, stride, shrinks=True)
    image = net.image(source)
    padding = (padding[0] + before[0], padding[1] + before[1])
    first: List[int] = []
    last: List[int] = []
    begin: List[int] = []
    end: List[int] = []
    for k, s, p, d, lo, hi in zip(kernel, stride, padding, dilation, image.first, image.last):
        first.append(-(-(lo + p) // s))
        last.append(-(-(hi - p + d * (k - 1) + 1) // s) - 1)
        begin.append(first[-1] * s - p)
        # What a stride leaves over behind: the operation itself would leave it out, but then sizes are rounded, and
        # writing the graph takes minutes of arithmetic with roundings of roundings.
        end.append((last[-1] + 1) * s - 1 + p - d * (k - 1))
    cut = net.cropped(image, pair(begin), pair(end))
    return Cropped(write(cut.node), pair(first), pair(last))


def _without_pad(source: Any) -> Tuple[Any, Pair]:
    """Return the image that an operation's input is padded of, and the rows and columns of padding before it."""
    before = (0, 0)
    while isinstance(source, fx.Node) and source.op == "call_function" and packet_of(source.target) in _PADS:
        sides: Any = source.args[1]  # left, right, top, bottom
        left, top = int(sides[0]), int(sides[2])
        source, before = source.args[0], (before[0] + top, before[1] + left)
    return source, before


def _pad(net: _Rewriter, node: fx.Node) -> Cropped:
    """Padding of its own, as TensorFlow's networks have it: `_window` counts it with the convolution's own."""
    sides: Any = node.args[1]
    windows = [user for user in node.users if packet_of(user.target) in _WINDOWS and user.args[0] is node]
    if len(sides) != 4 or min(sides) < 0 or len(windows) < len(node.users):
        raise NotUnpaddedError("an image is padded for something else than a convolution or a pooling")
    return net.image(node.args[0])


def _conv2d(net: _Rewriter, node: fx.Node) -> Cropped:
    kernel, dilation = pair(shape_of(node.args[1])[2:]), pair(argument_of(node, 5, "dilation", 1))
    stride, padding = pair(argument_of(node, 3, "stride", 1)), argument_of(node, 4, "padding", 0)
    if isinstance(padding, str):
        # As torch divides it: the larger half behind, which a cell before 0 cannot tell.
        if padding == "same" and any(d * (k - 1) % 2 for k, d in zip(kernel, dilation)):
            raise NotUnpaddedError("a convolution of an even size pads unevenly")
        padding = [d * (k - 1) // 2 for k, d in zip(kernel, dilation)] if padding == "same" else 0
    weights = [net.constant(node.args[1]), net.constant(argument_of(node, 2, "bias"))]
    groups = argument_of(node, 6, "groups", 1)
    return _window(
        net, node, kernel, stride, pair(padding), dilation,
        lambda image: net.add(
            _aten.conv2d.default, image, *weights, list(stride), [0, 0], list(dilation), groups
        ),
    )  # fmt: skip


def _max_pool2d(net: _Rewriter, node: fx.Node) -> Cropped:
    kernel, dilation = pair(node.args[1]), pair(argument_of(node, 4, "dilation", 1))
    stride = pair(argument_of(node, 2, "stride") or kernel)
    return _window(
        net, node, kernel, stride, pair(argument_of(node, 3, "padding", 0)), dilation,
        lambda image: net.add(_aten.max_pool2d.default, image, list(kernel), list(stride), [0, 0], list(dilation)),
    )  # fmt: skip


def _avg_pool2d(net: _Rewriter, node: fx.Node) -> Cropped:
    kernel = pair(node.args[1])
    stride = pair(argument_of(node, 2, "stride") or kernel)
    if argument_of(node, 6, "divisor_override") is not None:
        raise NotUnpaddedError("an average is divided by a number of its own")
    return _window(
        net, node, kernel, stride, pair(argument_of(node, 3, "padding", 0)), (1, 1),
        lambda image: net.add(_aten.avg_pool2d.default, image, list(kernel), list(stride)),
    )  # fmt: skip


# --- to a finer grid -------------------------------------------------------------------------------------------------


def _conv_transpose2d(net: _Rewriter, node: fx.Node) -> Cropped:
    """A transposed convolution: a cell of its result sums over the cells whose windows hold it."""
    kernel, stride = pair(shape_of(node.args[1])[2:]), pair(argument_of(node, 3, "stride", 1))
    padding, dilation = pair(argument_of(node, 4, "padding", 0)), pair(argument_of(node, 7, "dilation", 1))
    _sizes(node, node.args[0], stride, shrinks=False)
    if dilation != (1, 1) or any(k < s for k, s in zip(kernel, stride)):
        raise NotUnpaddedError("a transposed convolution leaves gaps")
    image = net.image(node.args[0])
    weights = [net.constant(node.args[1]), net.constant(argument_of(node, 2, "bias"))]
    groups = argument_of(node, 6, "groups", 1)
    whole = net.add(_aten.conv_transpose2d.input, image.node, *weights, list(stride), [0, 0], [0, 0], groups)
    # Where the windows of all cells that are there begin and end, in cells of the padded network's result.
    more = [k - s for k, s in zip(kernel, stride)]
    begin = [lo * s - p for lo, s, p in zip(image.first, stride, padding)]
    end = [hi * s - m + p for hi, s, m, p in zip(image.last, stride, more, padding)]
    first = [max(0, b + m) for b, m in zip(begin, more)]
    last = [max(0, e + m) for e, m in zip(end, more)]
    return net.cropped(Cropped(whole, pair(begin), pair(end)), pair(first), pair(last))


def _upsample(net: _Rewriter, node: fx.Node) -> Cropped:
    """Nearest and bilinear upsampling (without align_corners) by a whole factor."""
    before, after = shape_of(node.args[0])[2:], shape_of(node)[2:]
    factor = (after[0] // before[0], after[1] // before[1])
    _sizes(node, node.args[0], factor, shrinks=False)
    image = net.image(node.args[0])
    if factor == (1, 1):
        return image  # as decoders do that are told a size
    linear = "bilinear" in name_of(node)
    scales = [float(f) for f in factor]
    if linear:
        if argument_of(node, 2, "align_corners"):
            raise NotUnpaddedError("an upsampling aligns the corners of the whole image")
        found = net.add(_aten.upsample_bilinear2d.vec, image.node, None, False, scales)
    else:
        found = net.add(_aten.upsample_nearest2d.vec, image.node, None, scales)
    begin = [lo * f for lo, f in zip(image.first, factor)]
    end = [hi * f for hi, f in zip(image.last, factor)]
    # Bilinear values within half a cell of the end would need the next one.
    beyond = [f // 2 if linear else 0 for f in factor]
    first = [b + more for b, more in zip(begin, beyond)]
    last = [e + more for e, more in zip(end, beyond)]
    return net.cropped(Cropped(found, pair(begin), pair(end)), pair(first), pair(last))


# --- operations on single cells --------------------------------------------------------------------------------------


def _same(net: _Rewriter, node: fx.Node) -> Cropped:
    return net.image(node.args[0])


def _dropout(net: _Rewriter, node: fx.Node) -> Cropped:
    if argument_of(node, 2, "train", False):
        raise NotUnpaddedError("a dropout is active outside training")
    return net.image(node.args[0])


def _pointwise(net: _Rewriter, node: fx.Node) -> Cropped:
    """Operations on single cells: with numbers, with weights, or of images, which are cropped alike."""
    parts = [argument for argument in node.all_input_nodes if net.has_image(argument)]
    if any(shape_of(part)[2:] != shape_of(node)[2:] for part in parts):
        raise NotUnpaddedError("images of different sizes are joined (as squeeze-excitation does)")
    for weight in (argument for argument in node.all_input_nodes if not net.has_image(argument)):
        sides = shape_of(weight)
        if len(sides) > 2 and max(sides[-2:]) > 1 and packet_of(node.target) is not _aten.batch_norm:
            raise NotUnpaddedError(f"the operation '{name_of(node)}' treats single pixels differently")
    images = _alike(net, [net.image(part) for part in parts])
    known = {part: image.node for part, image in zip(parts, images)}
    args, kwargs = fx.node.map_arg(
        (node.args, node.kwargs), lambda argument: known.get(argument) or net.constant(argument)
    )
    return replace(images[0], node=net.add(_functional(node), *args, **kwargs))


def _alike(net: _Rewriter, images: List[Cropped]) -> List[Cropped]:
    """Return images cropped to the cells that all of them have."""
    first = pair([max(image.first[axis] for image in images) for axis in (0, 1)])
    last = pair([max(image.last[axis] for image in images) for axis in (0, 1)])
    return [net.cropped(image, first, last) for image in images]


def _functional(node: fx.Node) -> Any:
    """Return an operation that leaves its input as it is, in place of one that changes it."""
    name = name_of(node)
    if not name.endswith("_"):
        return node.target
    return getattr(getattr(_aten, name[:-1]), str(node.target).rpartition(".")[2])


def _batch_norm(net: _Rewriter, node: fx.Node) -> Cropped:
    if argument_of(node, 5, "training", False):
        raise NotUnpaddedError("a batch normalisation takes its statistics from the image")
    return _pointwise(net, node)


def _by_channel(net: _Rewriter, node: fx.Node) -> Cropped:
    """Softmax over, and parts of, the channels."""
    if int(str(argument_of(node, 1, "dim", 0))) % 4 != 1:
        raise NotUnpaddedError(f"the operation '{name_of(node)}' runs over pixels")
    return _pointwise(net, node)


def _cat(net: _Rewriter, node: fx.Node) -> Cropped:
    parts = node.args[0]
    if not isinstance(parts, (tuple, list)) or not all(map(net.has_image, parts)):
        raise NotUnpaddedError("constants are joined to the image")
    if int(str(argument_of(node, 1, "dim", 0))) % 4 != 1:
        raise NotUnpaddedError("layers are joined beside each other, not by their channels")
    if any(shape_of(part)[2:] != shape_of(node)[2:] for part in parts):
        raise NotUnpaddedError("images of different sizes are joined")
    images = _alike(net, [net.image(part) for part in parts])
    return replace(images[0], node=net.add(_aten.cat.default, [image.node for image in images], 1))


# --- what is known ---------------------------------------------------------------------------------------------------

_PADS = operations("pad constant_pad_nd")
_WINDOWS = [*_PADS, *operations("avg_pool2d conv2d max_pool2d")]

_HANDLERS: Dict[Any, Callable[[_Rewriter, fx.Node], Cropped]] = {
    op: handler
    for names, handler in (
        (
            "abs add add_ celu clamp clamp_ clamp_max clamp_min div div_ elu elu_ exp gelu hardsigmoid hardsigmoid_ "
            "hardswish hardswish_ hardtanh hardtanh_ leaky_relu leaky_relu_ log maximum minimum mish mish_ mul mul_ "
            "neg pow prelu relu relu_ relu6 relu6_ selu selu_ sigmoid sigmoid_ silu silu_ softplus sqrt sub sub_ tanh "
            "tanh_",
            _pointwise,
        ),
        ("alias clone contiguous detach", _same),
        ("dropout dropout_ feature_dropout feature_dropout_ alpha_dropout feature_alpha_dropout", _dropout),
        ("avg_pool2d", _avg_pool2d),
        ("batch_norm", _batch_norm),
        ("cat", _cat),
        ("conv2d", _conv2d),
        ("conv_transpose2d", _conv_transpose2d),
        ("max_pool2d", _max_pool2d),
        ("pad constant_pad_nd", _pad),
        ("slice softmax log_softmax", _by_channel),
        ("upsample_bilinear2d upsample_nearest2d", _upsample),
    )
    for op in operations(names)
}
