"""The optimiser Muon: a step of a weight matrix is made orthogonal, so that it moves all directions alike.

A gradient's few large singular values drown the others; Muon replaces them all by about one. What that is worth to a
small U-Net stands in docs/architecture.md.

Source: K. Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
"""

from __future__ import annotations

from typing import Any, Dict, List

import torch
from torch import Tensor, nn

# Of the polynomial a x + b x^3 + c x^5, which drives all numbers between 0 and 1 towards 1 (Jordan et al.).
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_MOMENTUM = 0.95
# The learning rate of AdamW's steps, in that of the orthogonal ones.
_ADAMW_RATE = 0.1
# A matrix of fewer rows or columns, such as that of the last layer for a few classes, has no directions to level.
_LEAST_SIDE = 8


class Muon(torch.optim.Optimizer):
    """Muon for the weights of convolutions and linear layers, AdamW for all others.

    Weights of a convolution ``(K, C, h, w)`` are taken as a matrix ``(K, C h w)``. Those of grouped convolutions by
    channel, of small matrices, biases and scales are moved by AdamW.
    """

    def __init__(self, parameters: List[nn.Parameter], lr: float, weight_decay: float) -> None:
        """Sort the parameters.

        Args:
            parameters: all that are trained.
            lr: learning rate of the orthogonal steps; AdamW's is a tenth of it.
            weight_decay: of all but biases and scales, in AdamW's learning rate.
        """
        matrices = [parameter for parameter in parameters if _is_matrix(parameter)]
        super().__init__([{"params": matrices}], {"lr": lr, "weight_decay": weight_decay})
        others = [parameter for parameter in parameters if not _is_matrix(parameter)]
        self._adamw = torch.optim.AdamW(decay_groups(others, weight_decay), lr)
        # The same groups and one state: what is set or kept here is AdamW's.
        self.param_groups += self._adamw.param_groups
        self._adamw.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the weights by their gradients; ``closure`` is not taken."""
        matrices, *others = self.param_groups
        for parameter in matrices["params"]:
            if parameter.grad is not None:
                self._move(parameter, parameter.grad, matrices["lr"], matrices["weight_decay"])
        rates = [group["lr"] for group in others]
        for group, rate in zip(others, rates):
            group["lr"] = _ADAMW_RATE * rate
        self._adamw.step()
        for group, rate in zip(others, rates):
            group["lr"] = rate

    def _move(self, parameter: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        # A look ahead (Nesterov).
        step = orthogonal(gradient.lerp(momentum, _MOMENTUM).reshape(len(parameter), -1))
        scale = max(1.0, len(step) / step.shape[1]) ** 0.5
        parameter.mul_(1 - _ADAMW_RATE * rate * decay).add_(step.reshape(parameter.shape), alpha=-rate * scale)


def decay_groups(parameters: List[nn.Parameter], weight_decay: float) -> List[Dict[str, Any]]:
    """Return the groups of AdamW: weights that decay, and biases and scales, which do not."""
    return [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": weight_decay},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]


def _is_matrix(parameter: Tensor) -> bool:
    if parameter.ndim < 2 or parameter.shape[1] == 1:
        return False
    return min(len(parameter), parameter[0].numel()) >= _LEAST_SIDE


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix with the singular vectors of another ``(m, n)`` whose singular values are about 1 (0.7 to 1.2).

    Five iterations of Newton and Schulz. They are done on the matrix' products with itself, ``(m, m)`` or ``(n, n)``,
    whichever are smaller: two products with the matrix itself then remain of ten.
    """
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    square = wide @ wide.T
    found = None
    for iteration in range(_ITERATIONS):
        factor = torch.addmm(square, square, square, beta=_B, alpha=_C)
        factor.diagonal().add_(_A)
        found = factor if found is None else factor @ found
        if iteration + 1 < _ITERATIONS:
            square = factor @ square @ factor
    assert found is not None
    wide = found @ wide
    return wide if len(matrix) <= matrix.shape[1] else wide.T
