"""Crops, shuffles and sums within convolutions: what ONNX Runtime maps U-Nets faster with.

Crops: without the padding, what the encoder hands to the decoder is larger than what the decoder has, and is cropped.
On x86 ONNX Runtime computes convolutions in blocks of channels; for a crop it brings an image back into the order of
the graph and then into blocks again, which is a tenth of a U-Net's time. A depthwise convolution of 3 x 3, whose middle
weight is 1 and all others 0, dilated by the pixels to be cut, is the same crop and stays in blocks.

Shuffles, which put the channels of a coarse image side by side as fine pixels (see subpixel.py), are done by a single
thread, value by value, in another tenth. They are depthwise convolutions too: transposed ones, which give each channel
its place among the fine pixels.

Sums of finite numbers and zeros are exact, so the results of these are the same.

Sums: what a convolution gives is added to another image. In ONNX Runtime the convolution itself begins with that image,
and ends with the activation, where both lie in blocks and are told to have the same shape. Shuffles give none in
blocks; a pooling of single pixels brings theirs there, for half of what the sum and the activation take beside the
convolution. Such sums are rounded in another order.
"""

from __future__ import annotations

import platform
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

# Channels of ONNX Runtime's widest block. With others a convolution is not computed in blocks, and takes longer.
BLOCK = 16
_BLOCKED_MACHINES = ("x86_64", "amd64")

Weights = npt.NDArray[np.float32]


def convolve(model: onnx.ModelProto) -> bool:
    """Write the crops and shuffles of a graph as convolutions, in place; return whether there was one.

    Where there was one, those of the tensors' shapes are kept that ONNX Runtime needs and does not find by itself.

    Crops that are not the same on all four sides, and those of images whose channels fill no whole blocks, stay as they
    are; on machines whose ONNX Runtime has no blocks, where nothing of this was measured, everything does. OpenVINO
    cannot compile a graph whose crops are dilated by more than its smallest image has pixels.

    Args:
        model: a graph whose tensors' shapes are told.
    """
    if platform.machine().lower() not in _BLOCKED_MACHINES:
        return False
    graph = model.graph
    shapes = {info.name: info for info in graph.value_info}
    channels = {name: _channels(info) for name, info in shapes.items()}
    constants = {constant.name: constant for constant in graph.initializer}
    made: Dict[str, Weights] = {}
    for node in graph.node:
        count = channels.get(node.input[0] if node.input else "", 0)
        found = _crop(node, count, constants) or _shuffle(node, count)
        if found is None:
            continue
        operation, weights, settings = found
        name = f"deepscape_{operation}_{'x'.join(map(str, weights.shape))}"
        made[name] = weights
        written = helper.make_node(operation, [node.input[0], name], node.output, name=node.name)
        written.attribute.extend(helper.make_attribute(key, value) for key, value in settings.items())
        node.CopyFrom(written)
    graph.initializer.extend(numpy_helper.from_array(weights, name) for name, weights in made.items())
    if made:
        _tell_of_sums(graph, shapes)
    return bool(made)


def _tell_of_sums(graph: onnx.GraphProto, shapes: Dict[str, onnx.ValueInfoProto]) -> None:
    """Keep of the tensors' shapes those of the images that are added to what a convolution gives, all in blocks."""
    graph.ClearField("value_info")
    makers = {name: node for node in graph.node for name in node.output}
    told: Dict[str, onnx.ValueInfoProto] = {}
    sizes: Dict[bytes, int] = {}
    for node in [node for node in graph.node if node.op_type == "Add"]:
        kinds = {makers[name].op_type for name in node.input if name in makers}
        if "Conv" not in kinds or not _same_blocks(*map(shapes.get, node.input)):
            continue
        for name in node.input:
            if name not in told and name in makers and makers[name].op_type == "ConvTranspose":
                _bring_into_blocks(graph, makers[name])
            # The exporter's names of sizes differ from one time to the next.
            shape = shapes[name].type.SerializeToString(deterministic=True)
            number = sizes.setdefault(shape, len(sizes))
            names: List[Union[str, int, None]] = ["images", _channels(shapes[name]), f"rows_{number}", f"cols_{number}"]
            told[name] = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, names)
    graph.value_info.extend(told.values())


def _same_blocks(first: Optional[onnx.ValueInfoProto], second: Optional[onnx.ValueInfoProto]) -> bool:
    """Tell whether two images are known to have the same shape, in whole blocks of channels."""
    if first is None or second is None or not _channels(first) or _channels(first) % BLOCK:
        return False
    told = all(size.dim_value or size.dim_param for size in first.type.tensor_type.shape.dim)
    return told and first.type == second.type


def _bring_into_blocks(graph: onnx.GraphProto, maker: onnx.NodeProto) -> None:
    """Put a pooling of single pixels behind a node: its image is in blocks then."""
    name = maker.output[0]
    maker.output[0] = f"deepscape_plain_{name}"
    # Their mean: the largest of one would hide that it is not a number.
    pooling = helper.make_node("AveragePool", [maker.output[0]], [name], kernel_shape=[1, 1])
    graph.node.insert(list(graph.node).index(maker) + 1, pooling)


# The operation, its weights and its attributes.
_Convolution = Tuple[str, Weights, Dict[str, Any]]


def _crop(node: onnx.NodeProto, channels: int, constants: Dict[str, onnx.TensorProto]) -> Optional[_Convolution]:
    """Return the convolution that cuts what a node cuts off all four sides of an image."""
    if node.op_type != "Pad" or node.input[1] not in constants or not channels or channels % BLOCK:
        return None
    sides = numpy_helper.to_array(constants[node.input[1]]).tolist()
    cut = -int(sides[-1])
    if cut <= 0 or sides != [0, 0, -cut, -cut] * 2:
        return None
    weights = np.zeros((channels, 1, 3, 3), np.float32)
    weights[:, :, 1, 1] = 1
    return "Conv", weights, {"group": channels, "kernel_shape": [3, 3], "dilations": [cut, cut]}


def _shuffle(node: onnx.NodeProto, channels: int) -> Optional[_Convolution]:
    """Return the convolution that puts the channels of an image side by side as a node does."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type != "DepthToSpace" or not channels or given.get("mode") != b"CRD":
        return None
    size = given["blocksize"]
    fine = channels // size**2
    weights = np.tile(np.eye(size**2, dtype=np.float32).reshape(-1, 1, size, size), (fine, 1, 1, 1))
    return "ConvTranspose", weights, {"group": fine, "kernel_shape": [size, size], "strides": [size, size]}


def _channels(info: onnx.ValueInfoProto) -> int:
    """Return the channels of an image of float32; 0 for any other tensor."""
    kind = info.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT or len(kind.shape.dim) != 4:
        return 0
    return int(kind.shape.dim[1].dim_value)
