"""The reference network of the OTBTF tutorial, for patches of 16 pixels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ..tasks.errors import BadInput


class SimpleCNN(nn.Module):
    """Simple CNN: conv5 16, pool 2, conv3 16, pool 2, conv2 32, ReLU after each, then a linear layer.

    A patch of 16 pixels leaves one position with 32 values, the "features". Larger patches leave a map of positions;
    its mean is taken, so that the number of parameters does not depend on the patch size. The labelled pixel is the
    one at local index ``patch_size // 2``.

    Source: R. Cresson, Deep Learning for Remote Sensing Images with Open Source Software, 2020 (OTBTF tutorial); 6214
    parameters for 4 bands and 6 classes.

    Attributes:
        patch_size: pixels on a side.
        centre: local index of the labelled pixel.
    """

    smallest_patch = 16

    def __init__(self, bands: int, classes: int, patch_size: int = 16) -> None:
        """Build the network.

        Raises:
            BadInput: the patch is smaller than 16 pixels.
        """
        super().__init__()
        if patch_size < self.smallest_patch:
            raise BadInput(
                f"The Simple CNN needs patches of at least {self.smallest_patch} pixels, these have {patch_size}.",
                f"Extract patches of {self.smallest_patch} pixels, or choose the Compact CNN.",
            )
        self.patch_size = patch_size
        self.centre = patch_size // 2
        self.conv1 = nn.Conv2d(bands, 16, 5)
        self.conv2 = nn.Conv2d(16, 16, 3)
        self.conv3 = nn.Conv2d(16, 32, 2)
        self.classifier = nn.Linear(32, classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the 32 values ``(N, 32)`` of each patch ``(N, bands, patch_size, patch_size)``."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return functional.relu(self.conv3(x)).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes)`` of patches ``(N, bands, patch_size, patch_size)``."""
        return self.classifier(self.features(x))
