"""The default network for small patches: the centre pixel's spectrum and its neighbourhood, weighed together."""

from __future__ import annotations

from typing import List

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..tasks.errors import BadInput


class CompactCNN(nn.Module):
    """Two branches: 1 x 1 convolutions on the centre pixel, and unpadded 3 x 3 convolutions on the whole patch.

    The remaining map of the second branch is averaged and joined to the first. A network that only pools its patch
    draws small objects too large (every patch that touches water looks like water); the centre branch keeps edges
    where they are, and leaving out the neighbourhood of some samples while training (``context_dropout``) keeps the
    network from leaning on it alone. The labelled pixel is the one at local index ``patch_size // 2``. Every operation
    is local and unpadded, so that the network maps whole images at once (`dense`).

    Attributes:
        patch_size: pixels on a side; 5 or more, odd or even.
        centre: local index of the labelled pixel.
    """

    smallest_patch = 5

    def __init__(
        self,
        bands: int,
        classes: int,
        patch_size: int = 9,
        width: int = 32,
        centre_width: int = 64,
        dropout: float = 0.3,
        context_dropout: float = 0.3,
    ) -> None:
        """Build the network.

        Args:
            bands: input channels.
            classes: outputs.
            patch_size: pixels on a side.
            width: channels of the neighbourhood's branch.
            centre_width: channels of the centre pixel's branch.
            dropout: share of the joined features that is left out while training.
            context_dropout: share of the samples whose neighbourhood is left out while training.

        Raises:
            BadInput: the patch is smaller than 5 pixels.
        """
        super().__init__()
        if patch_size < self.smallest_patch:
            raise BadInput(
                f"The Compact CNN needs patches of at least {self.smallest_patch} pixels, these have {patch_size}.",
                f"Extract patches of {self.smallest_patch} pixels or more, or choose the Pixel network.",
            )
        self.patch_size = patch_size
        self.centre = patch_size // 2
        self.context_dropout = context_dropout
        depth = 2 if patch_size < 7 else 3
        self.pool = patch_size - 2 * depth
        layers = _block(bands, width, 1)
        for _ in range(depth):
            layers += _block(width, width, 3)
        self.context_branch = nn.Sequential(*layers)
        self.centre_branch = nn.Sequential(*_block(bands, centre_width, 1), *_block(centre_width, centre_width, 1))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(width + centre_width, classes, 1)

    def dense_features(self, x: Tensor) -> Tensor:
        """Return the joined features ``(N, F, H - p + 1, W - p + 1)`` at every position where a whole patch fits."""
        height, width = (size - self.patch_size + 1 for size in x.shape[-2:])
        context = functional.avg_pool2d(self.context_branch(x), self.pool, stride=1)
        if self.training and self.context_dropout > 0:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.context_dropout
            context = context * kept
        pixel = self.centre_branch(x[..., self.centre : self.centre + height, self.centre : self.centre + width])
        return torch.cat([pixel, context], dim=1)

    def features(self, x: Tensor) -> Tensor:
        """Return the joined features ``(N, F)`` of patches ``(N, bands, patch_size, patch_size)``."""
        return self.dense_features(x).flatten(1)

    def dense(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes, H - p + 1, W - p + 1)`` of an image ``(N, bands, H, W)``."""
        return self.classifier(self.dropout(self.dense_features(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes)`` of patches ``(N, bands, patch_size, patch_size)``."""
        return self.dense(x).flatten(1)


def _block(inputs: int, outputs: int, size: int) -> List[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
