"""The reference's networks that map a patch to its middle, here for images of any size: each pixel gets a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class UNetLikeFCNN(nn.Module):
    """Four convolutions 3 x 3 with stride 2 (16, 32, 64, 64), as many transposed ones (64, 32, 16, classes), and sums.

    The result of each convolution but the last is added to that of the transposed convolution of its resolution. The
    reference trains it on patches of 64 pixels, of which the inner 32 count (the rim is the zero padding's); here
    padding is as in torch, before the image and not behind it, which is the mirror image of TensorFlow's.

    120,962 parameters for 4 bands and 2 classes.

    Source: R. Cresson, Deep Learning for Remote Sensing Images with Open Source Software, 2020 (OTBTF).

    Attributes:
        grid: height and width of an image must be multiples of this.
    """

    grid = 16

    def __init__(self, bands: int, classes: int) -> None:
        """Build the network.

        Args:
            bands: input channels.
            classes: outputs.
        """
        super().__init__()
        down, up = [bands, 16, 32, 64, 64], [64, 64, 32, 16, classes]
        self.encoder = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(down, down[1:]))
        self.decoder = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1) for a, b in zip(up, up[1:])
        )
        for layer in (*self.encoder, *self.decoder):
            nn.init.xavier_uniform_(layer.weight)  # as in the reference
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes, H, W)`` of images ``(N, bands, H, W)``; H and W are multiples of 16."""
        beside = []
        for layer in self.encoder:
            x = functional.relu(layer(x))
            beside.append(x)
        beside.pop()
        for layer in self.decoder:
            x = layer(x)
            if beside:
                x = functional.relu(x) + beside.pop()
        return x


class MaggioriFCN(nn.Module):
    """Convolutions 12, 4, 3 and 8 on a quarter of the resolution, and one transposed convolution back.

    conv12 64 CReLU, normalisation, maxpool 4, conv4 112 CReLU, normalisation, conv3 80 CReLU, normalisation, conv8
    CReLU, transposed conv8 with stride 4, crop 4. CReLU gives the ReLU of a value and that of its negative. Of a patch
    of 80 pixels the inner 16 remain; here the image is padded by 32 zeros, and no layer pads, so that all pixels get a
    class.

    439,170 parameters for 4 bands and one output: a binary model, on its logit (the reference applies a sigmoid
    twice).

    Source: E. Maggiori, Y. Tarabalka, G. Charpiat, P. Alliez, Convolutional Neural Networks for Large-Scale
    Remote-Sensing Image Classification, 2017, as in R. Cresson's OTBTF.

    Attributes:
        grid: height and width of an image must be multiples of this.
    """

    grid = 4
    rim = 32

    def __init__(self, bands: int, classes: int) -> None:
        """Build the network.

        Args:
            bands: input channels.
            classes: outputs.
        """
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(bands, 64, 12),
            CReLU(),
            nn.BatchNorm2d(128),
            nn.MaxPool2d(4),
            nn.Conv2d(128, 112, 4),
            CReLU(),
            nn.BatchNorm2d(224),
            nn.Conv2d(224, 80, 3),
            CReLU(),
            nn.BatchNorm2d(160),
            nn.Conv2d(160, classes, 8),
            CReLU(),
            nn.ConvTranspose2d(2 * classes, classes, 8, stride=4, padding=4),
        )

    def inner(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes, H - 64, W - 64)`` of the middle of images ``(N, bands, H, W)``."""
        return self.layers(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes, H, W)`` of images ``(N, bands, H, W)``; H and W are multiples of 4."""
        return self.inner(functional.pad(x, [self.rim] * 4))


class CReLU(nn.Module):
    """The ReLU of values and of their negatives, ``(N, 2 C, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the doubled channels of ``(N, C, H, W)``."""
        return functional.relu(torch.cat([x, -x], dim=1))
