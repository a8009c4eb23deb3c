"""Operations that only move values, written as convolutions: what ONNX Runtime maps U-Nets faster with.

Crops: without the padding, what the encoder hands to the decoder is larger than what the decoder has, and is cropped.
On x86 ONNX Runtime computes convolutions in blocks of channels; for a crop it brings an image back into the order of
the graph and then into blocks again, which is a tenth of a U-Net's time. A depthwise convolution of 3 x 3, whose middle
weight is 1 and all others 0, dilated by the pixels to be cut, is the same crop and stays in blocks.

Shuffles, which put the channels of a coarse image side by side as fine pixels (see subpixel.py), are done by a single
thread, value by value, in another tenth. They are depthwise convolutions too: transposed ones, which give each channel
its place among the fine pixels.

Sums of finite numbers and zeros are exact, so the graph's results are the same.
"""

from __future__ import annotations

import platform
from typing import Any, Dict, Optional, Tuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

# Channels of ONNX Runtime's widest block. With others a convolution is not computed in blocks, and takes longer.
_BLOCK = 16
_BLOCKED_MACHINES = ("x86_64", "amd64")

Weights = npt.NDArray[np.float32]


def convolve(model: onnx.ModelProto) -> bool:
    """Write the crops and shuffles of a graph as convolutions, in place; return whether there was one.

    Crops that are not the same on all four sides, and those of images whose channels fill no whole blocks, stay as they
    are; on machines whose ONNX Runtime has no blocks, where nothing of this was measured, everything does. OpenVINO
    cannot compile a graph whose crops are dilated by more than its smallest image has pixels.

    Args:
        model: a graph whose tensors' shapes are told.
    """
    if platform.machine().lower() not in _BLOCKED_MACHINES:
        return False
    graph = model.graph
    channels = {info.name: _channels(info) for info in graph.value_info}
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
    return bool(made)


# The operation, its weights and its attributes.
_Convolution = Tuple[str, Weights, Dict[str, Any]]


def _crop(node: onnx.NodeProto, channels: int, constants: Dict[str, onnx.TensorProto]) -> Optional[_Convolution]:
    """Return the convolution that cuts what a node cuts off all four sides of an image."""
    if node.op_type != "Pad" or node.input[1] not in constants or not channels or channels % _BLOCK:
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
