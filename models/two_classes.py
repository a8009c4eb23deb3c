"""A network with one logit for two classes, in the form that all other networks have."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TwoClasses(nn.Module):
    """Gives the logits ``[0, z]`` for the one logit ``z`` of a network.

    Softmax over them is sigmoid(z), cross-entropy on them binary cross-entropy: a binary model is trained, exported
    and mapped as every other.
    """

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network with one output.

        Args:
            network: maps ``(N, bands, H, W)`` to ``(N, 1, H, W)``, or a patch to ``(N, 1)``.
        """
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, 2, H, W)``, or ``(N, 2)``."""
        logit = self.network(x)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)
