"""From a network in torch to ONNX graphs that hold all of mapping: scaling, network, and the choice of the class."""

from __future__ import annotations

import copy
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Mapping, Optional, Set, Tuple

import onnx
import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.nn import functional

from ..models.cards import Card
from ..tasks.context import Context
from ..tasks.errors import BadInput
from .convolving import convolve
from .densify import NotDenseError, dense_network
from .liveimages import live_images
from .scaling import of_physical_values
from .subpixel import convolved_before_upsampling
from .tracednetworks import first_line, name_of, traced
from .unpadding import NotUnpaddedError, unpadded_network

_OPSET = 18
_LARGE = 1024  # pixels on a side of a window, its margins aside, in which a network's memory is told
_UNEVEN = 1.25  # of the memory of images whose channels fill no blocks: 1.03 to 1.22 on U-Nets of 8 to 24 channels
_LEAST_EXAMPLE = 64  # pixels on a side of the image that a network is traced with
_FEW_CLASSES = 16  # are compared one by one
_UINT8_CLASSES = 255  # as many classes fit uint8 beside the value for "none"
# ONNX Runtime computes the last values of a tensor (less than 16, what is left over by the widest vector instruction)
# by another function than the others where it takes one of these; their last bit may differ.
_UNLIKE_AT_THE_END = ("cos", "log", "log10", "log1p", "log2", "log_sigmoid", "mish", "sin", "softplus")
_WIDEST_VECTOR = 16


@dataclass(frozen=True)
class Exported:
    """The graphs of a network as ONNX files.

    Attributes:
        patch: for patches; None for a network of one class per pixel.
        dense: for images; None where the network has no dense form.
        reason: a phrase that says why there is no dense graph.
        live: values that a network of one class per pixel holds for each pixel of its window; None = not known.
        convolved: the dense graph as ONNX Runtime takes it, where that is another one; see convolving.py.
    """

    patch: Optional[bytes]
    dense: Optional[bytes]
    reason: str = ""
    live: Optional[float] = None
    convolved: Optional[bytes] = None


class Guarded(nn.Module):
    """A dense network whose results for a pixel are the same to the last bit in windows of all sizes.

    Columns are added behind the image and cut off again: what a runtime does otherwise at the end of a tensor, or in
    an average over all that there is, befalls them.
    """

    def __init__(self, network: nn.Module, operations: Set[str]) -> None:
        """Guard a network against what these operations do."""
        super().__init__()
        self.network = network
        self.columns = _WIDEST_VECTOR if operations & set(_UNLIKE_AT_THE_END) else int("avg_pool2d" in operations)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(N, K, H', W')`` of images."""
        if not self.columns:
            return self.network(x)
        logits: Tensor = self.network(functional.pad(x, (0, self.columns)))
        return logits[..., : -self.columns]


class GuardedPatches(nn.Module):
    """A patch network whose results for a patch are the same to the last bit in batches of all sizes: see `Guarded`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(N, K)`` of patches, of which one more is evaluated."""
        logits: Tensor = self.network(torch.cat([x, x[:1]]))
        return logits[:-1]


class Mapper(nn.Module):
    """A network of physical values and the choice of the class.

    Maps ``(N, C, H, W)``, no-data replaced by the bands' training means, to logits ``(N, K, H', W')`` and to positions
    in the class table ``(N, H', W')``: of the first largest logit, the type's maximum where the largest is not finite.
    """

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network = network
        self.positions = torch.uint8 if classes <= _UINT8_CLASSES else torch.uint16
        self._few = 1 < classes <= _FEW_CLASSES

    def forward(self, values: Tensor) -> Tuple[Tensor, Tensor]:
        """Return logits and positions of physical values."""
        logits = self.network(values)
        if logits.dim() == 2:
            logits = logits[:, :, None, None]
        largest, chosen = self._best_of_few(logits) if self._few else (logits.amax(1), logits.argmax(1))
        known, none = torch.isfinite(largest), torch.iinfo(self.positions).max
        if self.positions == torch.uint8:
            # Of bytes: choosing among 64-bit numbers would take as long as a pooling. 16 bits cannot be chosen among.
            return logits, torch.where(known, chosen.to(torch.uint8), torch.tensor(none, dtype=torch.uint8))
        return logits, torch.where(known, chosen, none).to(self.positions)

    @staticmethod
    def _best_of_few(logits: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the largest logit, and its first position, class by class: half the time of the runtimes' argmax."""
        first, second, *planes = logits.unbind(1)
        largest, chosen = torch.maximum(first, second), (second > first).to(torch.uint8)
        for position, plane in enumerate(planes, start=2):
            chosen = torch.where(plane > largest, torch.tensor(position, dtype=torch.uint8), chosen)
            largest = torch.maximum(largest, plane)
        return largest, chosen


def export_network(module: nn.Module, card: Card, context: Context) -> Exported:
    """Return the graphs of a network; takes seconds.

    Args:
        module: the network, on any device; stays as it is.
        card: its card.
        context: asked between the graphs whether the job was cancelled.

    Raises:
        BadInput: torch cannot write the network as an ONNX graph for images of all sizes.
    """
    module = copy.deepcopy(module).cpu().float().eval()
    source = card.sources[0]
    if card.output == "pixels":
        network = _without_margins(module, card, context)
        graph = _graph(of_physical_values(network, card), card, "pixels", _image_of(card), card.stride, "")
        plain = _bytes_of(graph)
        convolved = graph.SerializeToString(deterministic=True) if convolve(graph) else None
        return Exported(None, plain, live=_live_values(network, card), convolved=convolved)
    size = source.patch_size
    reason, dense = "", None
    try:
        network = dense_network(module, len(source.bands), size)
    except NotDenseError as error:
        reason = str(error)
    else:
        operations = {name_of(node) for node in network.graph.nodes}
        image = (size + _LEAST_EXAMPLE, size + _LEAST_EXAMPLE + 1)
        dense = _bytes_of(_graph(Guarded(of_physical_values(network, card), operations), card, "dense", image, 1, ""))
        context.check()
    patches = GuardedPatches(of_physical_values(module, card))
    return Exported(_bytes_of(_graph(patches, card, "patch", (size, size), 0, reason)), dense, reason)


def _without_margins(module: nn.Module, card: Card, context: Context) -> nn.Module:
    """Return a network of one class per pixel that answers for windows without their margins, where it has that form.

    Tiles of networks without a finite margin have none, and are answered as they are.
    """
    if card.context != "local" or not card.margin:
        return module
    bands = len(card.sources[0].bands)
    try:
        network = unpadded_network(module, bands, card.stride, card.margin)
    except NotUnpaddedError as error:
        context.log(f"The margins of windows are mapped too, which takes longer: {error}.")
        return module
    return convolved_before_upsampling(network, bands, 2 * card.margin + card.stride)


def _live_values(network: nn.Module, card: Card) -> Optional[float]:
    """Return the values that a network of one class per pixel holds for each pixel of a window such as jobs have."""
    bands, side = len(card.sources[0].bands), card.tile or _LARGE // card.stride * card.stride + 2 * (card.margin or 0)
    try:
        if not isinstance(network, fx.GraphModule):
            network = traced(network, bands, side, side).module(check_guards=False)
        return live_images(network, bands, side, _UNEVEN)
    except Exception:  # torch raises whatever its tracing met: then the memory is told from the weights
        return None


def _image_of(card: Card) -> Tuple[int, int]:
    """Return the size of an image, margins included, that suits the grid of a network of one class per pixel."""
    rows = 2 * (card.margin or 0) + -(-_LEAST_EXAMPLE // card.stride) * card.stride
    return rows, rows + card.stride


def _graph(
    network: nn.Module, card: Card, form: str, size: Tuple[int, int], stride: int, reason: str
) -> onnx.ModelProto:
    """Return the graph of a network; its tensors' shapes are told.

    Args:
        network: maps physical values.
        card: of the model.
        form: dense, patch or pixels, for the graph's metadata.
        size: rows and columns of an image that it can map.
        stride: an image may have any multiple of it as rows and columns; 0 = that size alone.
        reason: why there is no dense graph, for the metadata.
    """
    source = card.sources[0]
    if stride and any(_pools_to_parts(layer) for layer in network.modules()):
        # The exporter would write the parts of the image that it traces.
        raise _no_graph(card, "it takes means of parts of the whole image")
    free: Dict[int, Any] = {0: Dim("patches", min=1)}
    for axis, name in ((2, "rows"), (3, "cols")) if stride else ():
        least = source.patch_size if form == "dense" else 2 * (card.margin or 0) // stride + 1
        free[axis] = stride * Dim(name, min=least) if stride > 1 else Dim(name, min=least)
    example = torch.zeros(2, len(source.bands), *size)
    with _quiet():
        try:
            program = torch.onnx.export(
                Mapper(network, len(card.classes)).eval(), (example,), input_names=["values"],
                output_names=["logits", "classes"], opset_version=_OPSET, dynamo=True, dynamic_shapes=(free,),
                verbose=False,
            )  # fmt: skip
        except Exception as error:  # whatever its tracing met; the network can be run in torch all the same
            raise _no_graph(card, first_line(error)) from error
    if program is None:
        raise _no_graph(card, "the exporter gave none")
    program.model.metadata_props.update(_metadata(card, form, reason))
    proto = program.model_proto
    # What the exporter notes for its developers: places in the source code, symbols that differ from run to run.
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        part.ClearField("metadata_props")
    return proto


def _bytes_of(proto: onnx.ModelProto) -> bytes:
    """Return a graph as a file, without the shapes of its tensors, which runtimes find by themselves."""
    bare = copy.deepcopy(proto)
    bare.graph.ClearField("value_info")
    return bare.SerializeToString(deterministic=True)


def _pools_to_parts(layer: nn.Module) -> bool:
    """Tell whether a layer divides an image into a number of parts, whatever its size (one part aside)."""
    pools = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    return isinstance(layer, pools) and layer.output_size not in (1, (1, 1))


def _metadata(card: Card, form: str, reason: str) -> Mapping[str, str]:
    return {
        "deepscape.network": card.network,
        "deepscape.form": form,
        "deepscape.patch_size": str(card.sources[0].patch_size),
        "deepscape.reason": reason,
    }


def _no_graph(card: Card, why: str) -> BadInput:
    return BadInput(f"The network '{card.network}' cannot be written as an ONNX graph: {why}.", "Choose RUNTIME torch.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's messages on packages that it could also use, and on its own code, out of the log."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
