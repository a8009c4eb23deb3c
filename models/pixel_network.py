"""A network without context: what the centre pixel's spectrum alone can tell."""

from __future__ import annotations

from torch import Tensor, nn


class PixelNetwork(nn.Module):
    """Two 1 x 1 convolutions of 64 channels with batch normalisation on the centre pixel of the patch.

    Trained beside another network it shows what the neighbourhood adds. The centre is the pixel at local index
    ``patch_size // 2``, for odd and even sizes.

    Attributes:
        patch_size: pixels on a side.
        centre: local index of the labelled pixel.
    """

    smallest_patch = 1

    def __init__(self, bands: int, classes: int, patch_size: int = 1, width: int = 64, dropout: float = 0.2) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.centre = patch_size // 2
        self.layers = nn.Sequential(
            nn.Conv2d(bands, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(width, classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes)`` of patches ``(N, bands, patch_size, patch_size)``."""
        return self.layers(x[..., self.centre : self.centre + 1, self.centre : self.centre + 1]).flatten(1)
