"""Rewriting a patch network as the equivalent dense network: one evaluation of an image in place of one per pixel.

A patch network answers for one pixel of its patch. Evaluated at every pixel it computes the same inner values over and
over; the dense network computes each once. Every tensor of the patch network becomes an image, in which the cell
(i, j) of the patch that begins at pixel (y, x) stands at (y + i * pitch, x + j * pitch). So a convolution or a pooling
of stride s becomes one of stride 1, dilated by the pitch, and multiplies the pitch by s; a fully connected layer on
h x w cells becomes a convolution of that size. The result is the same number, not an approximation. (The idea: Giusti
et al. 2013, Fast Image Scanning with Deep Max-Pooling Convolutional Neural Networks; Sermanet et al. 2014, OverFeat.
Keeping the pitch as a dilation: Yu and Koltun 2016.)

What has no such equivalent, because it treats a patch's border or its pixels in a way of their own, is refused by
name: padding, squeeze-excitation, attention, normalisation over pixels, upsampling.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from .densegraph import Cells, DenseGraph, NotDenseError, sides_of
from .denseoperations import HANDLERS, REFUSED
from .tracednetworks import first_line, name_of, packet_of, shape_of, traced

__all__ = ["NotDenseError", "dense_network"]


def dense_network(module: nn.Module, bands: int, patch_size: int) -> fx.GraphModule:
    """Return the dense equivalent of a patch network.

    Args:
        module: maps ``(N, bands, patch_size, patch_size)`` to ``(N, K)``; what it does in evaluation mode is taken.
        bands: input channels.
        patch_size: pixels on a side.

    Returns:
        A module in evaluation mode that maps ``(N, bands, H, W)`` to ``(N, K, H - patch_size + 1, W - patch_size +
        1)``: at (y, x) the answer for the patch that begins at row y and column x. It holds a copy of the weights.

    Raises:
        NotDenseError: an operation has no dense equivalent; names it.
    """
    try:
        program = traced(module, bands, patch_size, patch_size)
    except Exception as error:  # torch raises whatever its tracing met: the network runs patch by patch all the same
        raise NotDenseError(f"the network cannot be traced ({first_line(error)})") from error
    return _Rewriter(program, patch_size).rewritten()


class _Rewriter:
    """One pass over the traced operations of a patch network, which writes the dense network's."""

    def __init__(self, program: torch.export.ExportedProgram, patch_size: int) -> None:
        self._old = program.graph
        self._net = DenseGraph(patch_size)
        signature = program.graph_signature
        held = {**dict(program.named_parameters()), **dict(program.named_buffers()), **program.constants}
        targets = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self._weights = {name: held[target] for name, target in targets.items()}

    def rewritten(self) -> fx.GraphModule:
        """Return the dense network.

        Raises:
            NotDenseError: see `dense_network`.
        """
        for node in self._old.nodes:
            phrase = REFUSED.get(packet_of(node.target))
            if phrase:
                raise NotDenseError(phrase)
        for node in self._old.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "output":
                self._output(node)
            else:
                self._call(node)
        self._net.graph.eliminate_dead_code()
        self._net.graph.lint()
        return fx.GraphModule(self._net.root, self._net.graph, "DenseNetwork").eval()

    # --- the traced graph --------------------------------------------------------------------------------------------

    def _placeholder(self, node: fx.Node) -> None:
        if node.name in self._weights:
            self._net.constants[node] = self._weights[node.name]
            return
        if self._net.known:
            raise NotDenseError("the network has several inputs")
        side = self._net.patch_size
        image = self._net.graph.placeholder("values")
        self._net.known[node] = Cells(image, shape_of(node)[1], (side, side), (1, 1), (0, 0)).as_image()

    def _output(self, node: fx.Node) -> None:
        results = node.args[0]
        if not isinstance(results, (tuple, list)) or len(results) != 1:
            raise NotDenseError("the network has several outputs")
        cells = self._net.cells(results[0])
        if cells.shape != (1, 1):
            raise NotDenseError(f"the network answers for {sides_of(cells)} cells of a patch")
        self._net.graph.output(self._net.trimmed(cells).node)

    def _call(self, node: fx.Node) -> None:
        if node.op != "call_function":
            raise NotDenseError("the network decides by values which operations it runs")
        if not any(argument in self._net.known for argument in node.all_input_nodes):
            self._net.constants[node] = self._computed(node)
            return
        if node.target is operator.getitem:
            # A pooling that also tells where its maxima were.
            if node.args[1] != 0 and node.users:
                raise NotDenseError("the places of maxima are used")
            self._net.known[node] = self._net.cells(node.args[0])
            return
        handler = HANDLERS.get(packet_of(node.target))
        if handler is None:
            raise NotDenseError(f"the operation '{name_of(node)}' has no dense form")
        self._net.known[node] = handler(self._net, node)

    def _computed(self, node: fx.Node) -> Tensor:
        """Return a constant that is computed from constants, e.g. a reshaped weight."""
        if not isinstance(node.target, torch._ops.OpOverload):
            raise NotDenseError(f"the operation '{name_of(node)}' has no dense form")
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise NotDenseError(f"the operation '{name_of(node)}' draws at random")
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._known)
        with torch.no_grad():
            result: Tensor = node.target(*args, **kwargs)
        return result

    def _known(self, node: fx.Node) -> Any:
        return self._net.constants[node]
