"""A network with one logit for two classes, in the form that all other networks have."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class TwoClasses(nn.Module):
    """Gives the logits ``[0, z]`` for the one logit ``z`` of a network.

    Softmax over them is sigmoid(z), cross-entropy on them binary cross-entropy: a binary model is trained, exported
    and mapped as every other.
    """

    _sides: Tensor

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network with one output.

        Args:
            network: maps ``(N, bands, H, W)`` to ``(N, 1, H, W)``, or a patch to ``(N, 1)``.
        """
        super().__init__()
        self.network = network
        # A convolution, since everything that rewrites or exports networks knows it.
        self.register_buffer("_sides", torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, 2, H, W)``, or ``(N, 2)``."""
        logit = self.network(x)
        if logit.dim() == 2:
            return functional.linear(logit, self._sides[:, :, 0, 0])
        return functional.conv2d(logit, self._sides)
