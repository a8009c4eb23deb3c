"""The reference's fully convolutional networks: patch networks of convolutions alone, without pooling."""

from __future__ import annotations

from typing import List, Tuple

from torch import Tensor, nn

from ..tasks.errors import BadInput


class SimpleFCN(nn.Module):
    """Simple FCN (v1): conv5 16, conv5 16, conv5 32, conv4 32, ReLU after each, then a linear layer.

    A patch of 16 pixels leaves one position with 32 values, the "features"; of the positions that a larger patch
    leaves the mean is taken. The labelled pixel is the one at local index ``patch_size // 2``.

    Source: R. Cresson, A Framework for Remote Sensing Images Processing Using Deep Learning Techniques, IEEE GRSL 2018
    (OTBTF); 37544 parameters for 4 bands and 8 classes.

    Attributes:
        patch_size: pixels on a side.
        centre: local index of the labelled pixel.
    """

    smallest_patch = 16
    title = "Simple FCN"
    # Kernel and channels of each convolution.
    layers: Tuple[Tuple[int, int], ...] = ((5, 16), (5, 16), (5, 32), (4, 32))

    def __init__(self, bands: int, classes: int, patch_size: int = 16) -> None:
        """Build the network.

        Raises:
            BadInput: the patch is smaller than 16 pixels.
        """
        super().__init__()
        if patch_size < self.smallest_patch:
            raise BadInput(
                f"The {self.title} needs patches of at least {self.smallest_patch} pixels, these have {patch_size}.",
                f"Extract patches of {self.smallest_patch} pixels, or choose the Compact CNN.",
            )
        self.patch_size = patch_size
        self.centre = patch_size // 2
        parts: List[nn.Module] = []
        channels = bands
        for kernel, outputs in self.layers:
            parts += [nn.Conv2d(channels, outputs, kernel), nn.ReLU()]
            channels = outputs
        self.convolutions = nn.Sequential(*parts)
        self.classifier = nn.Linear(channels, classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the 32 values ``(N, 32)`` of each patch ``(N, bands, patch_size, patch_size)``."""
        return self.convolutions(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes)`` of patches ``(N, bands, patch_size, patch_size)``."""
        return self.classifier(self.features(x))


class BookFCN(SimpleFCN):
    """FCN of the book: conv5 16, conv3 16 twice, conv3 32 three times, conv2 32, ReLU after each, a linear layer.

    Source: R. Cresson, Deep Learning for Remote Sensing Images with Open Source Software, 2020; 33718 parameters for 4
    bands and 6 classes.
    """

    title = "FCN of the book"
    layers = ((5, 16), (3, 16), (3, 16), (3, 32), (3, 32), (3, 32), (2, 32))
