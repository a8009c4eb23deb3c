"""How each operation of a patch network becomes one of the dense network.

`HANDLERS` holds what has a dense form, `REFUSED` what has none by nature, with the phrase that says so. In the dense
network the elements of a patch lie `Cells.pitch` apart, so every window operation is dilated by the pitch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import Tensor, fx

from .densegraph import (
    Cells,
    DenseGraph,
    NotDenseError,
    sides_of,
)
from .tracednetworks import Pair, argument_of, name_of, operations, packet_of, pair, shape_of

_aten = torch.ops.aten
_END = 2**63 - 1  # how torch writes a slice without an end


# --- convolutions and fully connected layers -------------------------------------------------------------------------


def _conv2d(net: DenseGraph, node: fx.Node) -> Cells:
    cells = net.image(node.args[0], "convolution")
    weight = net.constant(node.args[1], "convolution")
    bias = net.weight(argument_of(node, 2, "bias"), "convolution")
    kernel = pair(weight.shape[2:])
    padding = argument_of(node, 4, "padding", 0)
    if padding != "valid" and (kernel != (1, 1) if isinstance(padding, str) else any(pair(padding))):
        raise NotDenseError("a convolution pads the patch with zeros")
    groups = argument_of(node, 6, "groups", 1)
    return net.window(
        cells, kernel, pair(argument_of(node, 3, "stride", 1)), pair(argument_of(node, 5, "dilation", 1)),
        weight.shape[0],
        lambda spread: net.add(
            _aten.conv2d.default, cells.node, net.stored(weight), bias, [1, 1], [0, 0], spread, groups
        ),
    )  # fmt: skip


def _linear(net: DenseGraph, node: fx.Node) -> Cells:
    """A fully connected layer: a convolution over the cells that its input's last axis holds."""
    cells = net.cells(node.args[0])
    weight = net.constant(node.args[1], "fully connected layer")
    bias = net.weight(argument_of(node, 2, "bias"), "fully connected layer")
    held = cells.layout[-1]
    if "c" not in held and cells.channels > 1:
        raise NotDenseError("a fully connected layer acts along rows or columns of the patch")
    # Along the axis the letters may come in any order; what has one element may stand anywhere.
    order = held + "".join(letter for letter in "chw" if letter not in held)
    sides = [cells.sizes[letter] if letter in held else 1 for letter in order]
    kernel = weight.reshape(weight.shape[0], *sides).permute(0, *(1 + order.index(letter) for letter in "chw"))
    found = net.window(
        cells, pair(kernel.shape[2:]), (1, 1), (1, 1), weight.shape[0],
        lambda spread: net.add(_aten.conv2d.default, cells.node, net.stored(kernel), bias, [1, 1], [0, 0], spread, 1),
    )  # fmt: skip
    return replace(found, layout=(*cells.layout[:-1], "c" if found.channels > 1 else ""))


def _batch_norm(net: DenseGraph, node: fx.Node) -> Cells:
    cells = net.cells(node.args[0])
    if argument_of(node, 5, "training", False):
        raise NotDenseError("a batch normalisation takes its statistics from the patches")
    if not cells.has_channels_at(1):
        raise NotDenseError("a batch normalisation treats single pixels of the patch differently")
    weights = [net.weight(argument, "batch normalisation") for argument in node.args[1:5]]
    epsilon = argument_of(node, 7, "eps")
    return replace(cells, node=net.add(_aten.batch_norm.default, cells.node, *weights, False, 0.0, epsilon, False))


# --- poolings --------------------------------------------------------------------------------------------------------


def _max_pool2d(net: DenseGraph, node: fx.Node) -> Cells:
    cells, kernel, stride = _pooling(net, node)
    dilation = pair(argument_of(node, 4, "dilation", 1))
    _check_floor(cells, kernel, stride, dilation, argument_of(node, 5, "ceil_mode", False))
    return _maximum(net, cells, kernel, stride, dilation)


def _avg_pool2d(net: DenseGraph, node: fx.Node) -> Cells:
    cells, kernel, stride = _pooling(net, node)
    _check_floor(cells, kernel, stride, (1, 1), argument_of(node, 4, "ceil_mode", False))
    return _average(net, cells, kernel, stride, argument_of(node, 6, "divisor_override") or kernel[0] * kernel[1])


def _pooling(net: DenseGraph, node: fx.Node) -> Tuple[Cells, Pair, Pair]:
    """Return the image, the kernel and the stride of a pooling."""
    cells = net.image(node.args[0], "pooling")
    kernel = pair(node.args[1])
    if any(pair(argument_of(node, 3, "padding", 0))):
        raise NotDenseError("a pooling pads the patch")
    return cells, kernel, pair(argument_of(node, 2, "stride") or kernel)


def _check_floor(cells: Cells, kernel: Pair, stride: Pair, dilation: Pair, ceiling: bool) -> None:
    left = [(n - d * (k - 1) - 1) % s for n, k, s, d in zip(cells.shape, kernel, stride, dilation)]
    if ceiling and any(left):
        raise NotDenseError("a pooling reaches over the patch's end (ceil_mode)")


def _adaptive_pool2d(net: DenseGraph, node: fx.Node) -> Cells:
    cells = net.image(node.args[0], "pooling")
    rows, cols = pair(node.args[1])
    if cells.shape[0] % rows or cells.shape[1] % cols:
        raise NotDenseError("an adaptive pooling divides the patch unevenly")
    kernel = (cells.shape[0] // rows, cells.shape[1] // cols)
    if "max" in name_of(node):
        return _maximum(net, cells, kernel, kernel, (1, 1))
    return _average(net, cells, kernel, kernel, kernel[0] * kernel[1])


def _reduced(net: DenseGraph, node: fx.Node) -> Cells:
    """Mean, sum and maximum over all rows or columns, or both."""
    cells = net.cells(node.args[0])
    axes = _axes(argument_of(node, 1, "dim"), len(cells.layout) + 1)
    held = "".join(cells.layout[axis - 1] if axis else "n" for axis in axes)
    if not axes or set(held) - {"h", "w"}:
        raise NotDenseError(f"a {name_of(node)} is taken over more than the pixels of a patch")
    if len(node.args) > 3 or node.kwargs.get("dtype") is not None:
        raise NotDenseError(f"a {name_of(node)} changes the type of numbers")
    kernel = (cells.shape[0] if "h" in held else 1, cells.shape[1] if "w" in held else 1)
    if "max" in name_of(node):
        found = _maximum(net, cells, kernel, (1, 1), (1, 1))
    else:
        found = _average(net, cells, kernel, (1, 1), 1 if name_of(node) == "sum" else kernel[0] * kernel[1])
    kept = argument_of(node, 2, "keepdim", False)
    layout = ["" if axis + 1 in axes else letters for axis, letters in enumerate(cells.layout)]
    return replace(found, layout=tuple(v for axis, v in enumerate(layout) if kept or axis + 1 not in axes))


def _axes(value: Any, dimensions: int) -> List[int]:
    """Return the axes that an operation names, counted from 0."""
    named = [] if value is None else [value] if isinstance(value, int) else list(value)
    return [int(axis) % dimensions for axis in named]


def _max(net: DenseGraph, node: fx.Node) -> Cells:
    """torch.max: of two tensors, or along one axis."""
    if len(node.args) > 1 and isinstance(node.args[1], fx.Node):
        return _pointwise(net, node)
    return _reduced(net, node)


def _maximum(net: DenseGraph, cells: Cells, kernel: Pair, stride: Pair, dilation: Pair) -> Cells:
    def pooled(below: Cells, size: Pair, step: Pair, between: Pair) -> Cells:
        return net.window(
            below, size, step, between, below.channels,
            lambda spread: net.add(_aten.max_pool2d.default, below.node, list(size), [1, 1], [0, 0], spread, False),
        )  # fmt: skip

    if _separable(kernel):
        down = pooled(cells, (kernel[0], 1), (stride[0], 1), (dilation[0], 1))
        return pooled(down, (1, kernel[1]), (1, stride[1]), (1, dilation[1]))
    return pooled(cells, kernel, stride, dilation)


def _separable(kernel: Pair) -> bool:
    """Say whether rows and then columns take less than all elements of the window at once; either way is exact."""
    return kernel[0] * kernel[1] > 2 * (kernel[0] + kernel[1])


def _average(net: DenseGraph, cells: Cells, kernel: Pair, stride: Pair, divisor: int) -> Cells:
    """Return the sum over windows, divided."""

    def pooled(below: Cells, size: Pair) -> Cells:
        return net.window(
            below, size, (1, 1), (1, 1), below.channels,
            lambda spread: net.add(_aten.avg_pool2d.default, below.node, list(size), [1, 1]),
        )  # fmt: skip

    if divisor == kernel[0] * kernel[1] and cells.pitch == (1, 1):
        if _separable(kernel):
            found = pooled(pooled(cells, (kernel[0], 1)), (1, kernel[1]))
        else:
            found = pooled(cells, kernel)
    else:
        # There is no dilated average pooling.
        found = _slid(net, _slid(net, cells, 0, kernel[0]), 1, kernel[1])
        if divisor != 1:
            found = replace(found, node=net.add(_aten.div.Tensor, found.node, divisor))
    rows, cols = ((size - 1) // s + 1 for size, s in zip(found.shape, stride))
    pitch = (found.pitch[0] * stride[0], found.pitch[1] * stride[1])
    return replace(found, shape=(rows, cols), pitch=pitch).as_image()


def _slid(net: DenseGraph, cells: Cells, axis: int, count: int) -> Cells:
    """Return the sum of ``count`` neighbouring cells along rows (0) or columns (1), for every cell that has them."""
    pitch, total = cells.pitch[axis], cells.node
    for number in range(count if count > 1 else 0):
        end = -(count - 1 - number) * pitch or _END
        part = net.add(_aten.slice.Tensor, cells.node, axis + 2, number * pitch, end)
        total = net.add(_aten.add.Tensor, total, part) if number else part
    lost, shape = list(cells.lost), list(cells.shape)
    lost[axis] += (count - 1) * pitch
    shape[axis] -= count - 1
    return replace(cells, node=total, lost=(lost[0], lost[1]), shape=(shape[0], shape[1])).as_image()


# --- operations on single values -------------------------------------------------------------------------------------


def _same(net: DenseGraph, node: fx.Node) -> Cells:
    return net.cells(node.args[0])


def _dropout(net: DenseGraph, node: fx.Node) -> Cells:
    if argument_of(node, 2, "train", False):
        raise NotDenseError("a dropout is active outside training")
    return net.cells(node.args[0])


def _pointwise(net: DenseGraph, node: fx.Node) -> Cells:
    """Operations on single values: with numbers, with weights per channel, or of images that lie alike."""
    inputs = [argument for argument in node.all_input_nodes if net.has_cells(argument)]
    images = dict(zip(inputs, _alike(net, [net.cells(argument) for argument in inputs])))
    widest = max(images.values(), key=lambda cells: cells.channels)

    def known(argument: fx.Node) -> fx.Node:
        if argument in images:
            return images[argument].node
        return net.stored(_per_channel(net.constant(argument, name_of(node)), widest, name_of(node)))

    args, kwargs = fx.node.map_arg((node.args, node.kwargs), known)
    return replace(widest, node=net.add(_functional(node), *args, **kwargs))


def _functional(node: fx.Node) -> Any:
    """Return an operation that leaves its input as it is, in place of one that changes it."""
    if not name_of(node).endswith("_"):
        return node.target
    changed = node.args[0]
    while isinstance(changed, fx.Node) and packet_of(changed.target) in _VIEWS:
        changed = changed.args[0]
        if isinstance(changed, fx.Node) and len(changed.users) > 1:
            raise NotDenseError("a part of the patch is changed in place")
    overload = str(node.target).rpartition(".")[2]
    return getattr(getattr(_aten, name_of(node)[:-1]), overload)


def _per_channel(value: Tensor, cells: Cells, name: str) -> Tensor:
    """Return a weight that acts alike on all pixels, in the form that an image ``(N, C, H, W)`` takes."""
    if value.numel() == 1 and value.dim() <= len(cells.layout) + 1:
        return value.reshape(())
    sides = list(value.shape)
    axes = [axis for axis in range(-len(sides), 0) if sides[axis] != 1]
    if len(axes) == 1 and -axes[0] <= len(cells.layout) and cells.layout[axes[0]] == "c":
        return value.reshape(1, -1, 1, 1)
    raise NotDenseError(f"the operation '{name}' treats single pixels of the patch differently")


def _prelu(net: DenseGraph, node: fx.Node) -> Cells:
    cells = net.cells(node.args[0])
    weight = net.constant(node.args[1], "PReLU")
    if weight.numel() > 1 and not cells.has_channels_at(1):
        raise NotDenseError("the operation 'prelu' treats single pixels of the patch differently")
    return replace(cells, node=net.add(_aten.prelu.default, cells.node, net.stored(weight)))


def _softmax(net: DenseGraph, node: fx.Node) -> Cells:
    cells = net.cells(node.args[0])
    (axis,) = _axes(node.args[1], len(cells.layout) + 1)
    if not axis or not cells.has_channels_at(axis):
        raise NotDenseError("a softmax is taken over pixels of the patch (as attention does)")
    return replace(cells, node=net.add(_functional(node), cells.node, 1))


# --- joining, cropping, reshaping ------------------------------------------------------------------------------------


def _alike(net: DenseGraph, inputs: List[Cells]) -> List[Cells]:
    """Return images that are joined, cut to one size."""
    first = inputs[0]
    for other in inputs[1:]:
        if other.shape != first.shape:
            raise NotDenseError(
                f"{sides_of(first)} and {sides_of(other)} cells of a patch are joined (as squeeze-excitation does)"
            )
        if any(n > 1 and p != q for n, p, q in zip(first.shape, first.pitch, other.pitch)):
            raise NotDenseError("layers of different stride are joined")
        pairs = list(zip(first.layout, other.layout))
        if len(first.layout) != len(other.layout) or any(a != b and {a, b} != {"", "c"} for a, b in pairs):
            raise NotDenseError("layers are joined whose axes differ")
    return [net.trimmed(cells) for cells in inputs] if len(inputs) > 1 else inputs


def _cat(net: DenseGraph, node: fx.Node) -> Cells:
    parts = node.args[0]
    if not isinstance(parts, (tuple, list)) or not all(net.has_cells(part) for part in parts):
        raise NotDenseError("constants are joined to the patch")
    joined = _alike(net, [net.cells(part) for part in parts])
    (axis,) = _axes(argument_of(node, 1, "dim", 0), len(joined[0].layout) + 1)
    if not axis or not all(cells.has_channels_at(axis) for cells in joined):
        raise NotDenseError("layers are joined beside each other, not by their channels")
    layout = list(joined[0].layout)
    layout[axis - 1] = "c"
    image = net.add(_aten.cat.default, [cells.node for cells in joined], 1)
    return replace(
        joined[0], node=image, channels=sum(cells.channels for cells in joined), layout=tuple(layout)
    )  # fmt: skip


def _slice(net: DenseGraph, node: fx.Node) -> Cells:
    (axis,) = _axes(argument_of(node, 1, "dim", 0), len(shape_of(node)))
    side = shape_of(node.args[0])[axis]
    bounds = [argument_of(node, place, name) for place, name in ((2, "start"), (3, "end"), (4, "step"))]
    return _taken(net, net.cells(node.args[0]), axis, range(side)[slice(*bounds)], side)


def _narrow(net: DenseGraph, node: fx.Node) -> Cells:
    (axis,) = _axes(node.args[1], len(shape_of(node)))
    side, length = shape_of(node.args[0])[axis], shape_of(node)[axis]
    first = int(str(node.args[2])) % side
    return _taken(net, net.cells(node.args[0]), axis, range(first, first + length), side)


def _select(net: DenseGraph, node: fx.Node) -> Cells:
    cells = net.cells(node.args[0])
    (axis,) = _axes(node.args[1], len(cells.layout) + 1)
    side = shape_of(node.args[0])[axis]
    place = int(str(node.args[2])) % side
    found = _taken(net, cells, axis, range(place, place + 1), side)
    return replace(found, layout=found.layout[: axis - 1] + found.layout[axis:])


def _taken(net: DenseGraph, cells: Cells, axis: int, taken: range, side: int) -> Cells:
    """Return a part of an axis of ``side`` elements: of the rows, the columns or the channels."""
    if axis and taken == range(side):
        return cells
    letter = cells.layout[axis - 1] if axis else ""
    if letter not in ("c", "h", "w"):
        raise NotDenseError("a part is taken of an axis that is neither channels nor rows nor columns")
    layout = list(cells.layout)
    layout[axis - 1] = letter if len(taken) > 1 else ""
    if letter == "c":
        node = net.add(_aten.slice.Tensor, cells.node, 1, taken.start, taken.stop, taken.step)
        return replace(cells, node=node, channels=len(taken), layout=tuple(layout))
    place = "hw".index(letter)
    shape, pitch, lost = list(cells.shape), list(cells.pitch), list(cells.lost)
    skipped = taken.start * pitch[place]
    node = net.add(_aten.slice.Tensor, cells.node, place + 2, skipped, _END) if skipped else cells.node
    lost[place] += skipped
    shape[place], pitch[place] = len(taken), pitch[place] * taken.step
    return Cells(node, cells.channels, pair(shape), pair(pitch), pair(lost), tuple(layout))


def _reshaped(net: DenseGraph, node: fx.Node) -> Cells:
    """Flatten, view, reshape, squeeze and unsqueeze, where they divide no axis and leave the samples alone."""
    cells = net.cells(node.args[0])
    letters = list("".join(cells.layout))
    layout = []
    for side in shape_of(node)[1:]:
        held, product = "", 1
        while product < side and letters:
            held += letters[0]
            product *= cells.sizes[letters.pop(0)]
        if product != side:
            raise NotDenseError(f"the operation '{name_of(node)}' mixes channels, rows and columns")
        layout.append(held)
    if letters or shape_of(node)[0] != shape_of(node.args[0])[0]:
        raise NotDenseError(f"the operation '{name_of(node)}' mixes channels, rows and columns")
    return replace(cells, layout=tuple(layout))


def _permuted(net: DenseGraph, node: fx.Node) -> Cells:
    cells = net.cells(node.args[0])
    count = len(cells.layout) + 1
    order = list(range(count))
    if name_of(node) == "permute":
        order = _axes(node.args[1], count)
    else:
        first, second = (_axes(argument, count)[0] for argument in node.args[1:3])
        order[first], order[second] = second, first
    if order[0] != 0:
        raise NotDenseError("the samples are moved to another axis")
    return replace(cells, layout=tuple(cells.layout[axis - 1] for axis in order[1:]))


# --- what is known ---------------------------------------------------------------------------------------------------


_VIEWS = frozenset(
    operations("alias detach flatten narrow permute reshape select slice squeeze transpose unsqueeze view _unsafe_view")
)
REFUSED: Dict[Any, str] = {
    op: phrase
    for names, phrase in (
        ("pad constant_pad_nd reflection_pad2d replication_pad2d _pad_circular", "the patch is padded"),
        ("group_norm native_group_norm", "a group normalisation takes its statistics from the patch"),
        ("instance_norm", "an instance normalisation takes its statistics from the patch"),
        ("layer_norm native_layer_norm rms_norm", "a layer normalisation takes its statistics from the patch"),
        ("local_response_norm", "a response normalisation takes its statistics from the patch"),
        (
            "scaled_dot_product_attention _native_multi_head_attention matmul bmm baddbmm einsum",
            "pixels of the patch are compared with each other (as attention does)",
        ),
        ("conv_transpose2d pixel_shuffle", "the patch is upsampled"),
        ("upsample_nearest2d _upsample_nearest_exact2d", "the patch is upsampled"),
        ("upsample_bilinear2d upsample_bicubic2d", "the patch is upsampled"),
        ("gru lstm rnn_tanh rnn_relu", "a recurrent layer runs over the patch"),
    )
    for op in operations(names)
}
HANDLERS: Dict[Any, Callable[[DenseGraph, fx.Node], Cells]] = {
    op: handler
    for names, handler in (
        (
            "abs add add_ celu clamp clamp_ clamp_max clamp_min cos div div_ elu elu_ erf exp expm1 gelu hardshrink "
            "hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ leaky_relu leaky_relu_ log log10 log1p "
            "log2 log_sigmoid maximum minimum mish mish_ mul mul_ neg pow reciprocal relu relu_ relu6 relu6_ rsqrt "
            "rsub selu selu_ sigmoid sigmoid_ silu silu_ sin softplus softshrink sqrt square sub sub_ tanh tanh_ "
            "threshold threshold_",
            _pointwise,
        ),
        ("alias clone contiguous detach", _same),
        ("flatten view reshape squeeze unsqueeze _unsafe_view", _reshaped),
        ("permute transpose", _permuted),
        ("dropout dropout_ feature_dropout feature_dropout_ alpha_dropout feature_alpha_dropout", _dropout),
        ("adaptive_avg_pool2d adaptive_max_pool2d", _adaptive_pool2d),
        ("mean sum amax", _reduced),
        ("max", _max),
        ("max_pool2d max_pool2d_with_indices", _max_pool2d),
        ("avg_pool2d", _avg_pool2d),
        ("batch_norm", _batch_norm),
        ("cat", _cat),
        ("conv2d", _conv2d),
        ("linear", _linear),
        ("narrow", _narrow),
        ("prelu", _prelu),
        ("select", _select),
        ("slice", _slice),
        ("softmax log_softmax", _softmax),
    )
    for op in operations(names)
}
