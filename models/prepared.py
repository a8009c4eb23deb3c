"""What a network has that solves a part of itself before the training's first step."""

from __future__ import annotations

import torch
from torch import nn


class PreparedNetwork(nn.Module):
    """Base of networks that `prepare` themselves once from the training patches.

    Such a network also shifts its spectra itself while it trains, where its own transform makes that sensible.

    Attributes:
        jitter: deviation of the shift that each band of a sample gets while training, in training deviations; set by
            the training's recipe.
        brightness: deviation of the shift that all bands of a sample get together, likewise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.jitter = 0.0
        self.brightness = 0.0

    def prepare(self, patches: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> None:
        """Solve what is solved beforehand; called once, before training, and not when a model is trained further.

        Args:
            patches: standardised training patches ``(N, bands, patch_size, patch_size)``.
            labels: class positions ``(N,)``.
            weights: weight of each sample ``(N,)``, 1 on average.
        """
