"""Crops within a graph, written as convolutions: what ONNX Runtime maps U-Nets faster with.

Without the padding, what the encoder hands to the decoder is larger than what the decoder has, and is cropped. On x86
ONNX Runtime computes convolutions in blocks of channels; for a crop it brings an image back into the order of the graph
and then into blocks again, which is a tenth of a U-Net's time. A depthwise convolution of 3 x 3, whose middle weight is
1 and all others 0, dilated by the pixels to be cut, is the same crop: it stays in blocks, and sums of finite numbers
are exact. OpenVINO cannot compile it where it is dilated by more than the smallest image has pixels.
"""

from __future__ import annotations

import platform
from typing import Dict, Optional

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Channels of ONNX Runtime's widest block. With others a convolution is not computed in blocks, and takes longer.
_BLOCK = 16
_BLOCKED_MACHINES = ("x86_64", "amd64")


def convolve_crops(model: onnx.ModelProto) -> bool:
    """Write the crops of a graph as convolutions, in place; return whether there was one.

    Crops that are not the same on all four sides, and those of images whose channels fill no whole blocks, stay as they
    are; on machines whose ONNX Runtime has no blocks all do.

    Args:
        model: a graph whose tensors' shapes are told.
    """
    if platform.machine().lower() not in _BLOCKED_MACHINES:
        return False
    graph = model.graph
    channels = {info.name: _channels(info) for info in graph.value_info}
    constants = {constant.name: constant for constant in graph.initializer}
    weights: Dict[int, str] = {}
    for node in graph.node:
        count, cut = channels.get(node.input[0] if node.input else "", 0), _cut(node, constants)
        if not cut or not count or count % _BLOCK:
            continue
        if count not in weights:
            weights[count] = f"deepscape_crop_{count}"
            middle = np.zeros((count, 1, 3, 3), np.float32)
            middle[:, :, 1, 1] = 1
            graph.initializer.append(numpy_helper.from_array(middle, weights[count]))
        made = helper.make_node("Conv", [node.input[0], weights[count]], node.output, name=node.name)
        for name, value in (("group", count), ("kernel_shape", [3, 3]), ("dilations", [cut, cut])):
            made.attribute.append(helper.make_attribute(name, value))
        node.CopyFrom(made)
    return bool(weights)


def _channels(info: onnx.ValueInfoProto) -> int:
    """Return the channels of an image of float32; 0 for any other tensor."""
    kind = info.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT or len(kind.shape.dim) != 4:
        return 0
    return int(kind.shape.dim[1].dim_value)


def _cut(node: onnx.NodeProto, constants: Dict[str, onnx.TensorProto]) -> Optional[int]:
    """Return the pixels that a node cuts off all four sides of an image; None where it does anything else."""
    if node.op_type != "Pad" or node.input[1] not in constants:
        return None
    sides = numpy_helper.to_array(constants[node.input[1]]).tolist()
    cut = -int(sides[-1])
    return cut if cut > 0 and sides == [0, 0, -cut, -cut] * 2 else None
