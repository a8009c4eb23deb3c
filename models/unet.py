"""The U-Net: one class per pixel, from an encoder and a decoder that are joined at every resolution."""

from __future__ import annotations

from typing import List

import torch
from torch import Tensor, nn

from ..tasks.errors import BadInput

UPSAMPLINGS = ("transposed", "nearest")


class UNet(nn.Module):
    """Encoder of ``depth`` poolings, decoder of as many upsamplings, two 3 x 3 convolutions at each resolution.

    As in the paper, but for what has become usual since: convolutions are padded with zeros, so that an image keeps
    its size, and followed by batch normalisation. Every operation is local and keeps to the grid of the poolings
    (no ``align_corners``): the network has a finite margin, and mapping in windows equals mapping in one piece.

    Source: O. Ronneberger, P. Fischer, T. Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015.

    Attributes:
        grid: height and width of an image must be multiples of this, ``2 ** depth``.
    """

    def __init__(
        self, bands: int, classes: int, width: int = 32, depth: int = 4, upsampling: str = "transposed"
    ) -> None:
        """Build the network.

        Args:
            bands: input channels.
            classes: outputs.
            width: channels at full resolution; they double with each pooling.
            depth: poolings.
            upsampling: transposed (2 x 2, stride 2, the paper's), or nearest (a 1 x 1 convolution, then each value
                four times).

        Raises:
            BadInput: width or depth is below 1, or there is no such upsampling.
        """
        super().__init__()
        for name, value in (("width", width), ("depth", depth)):
            if value < 1:
                raise BadInput(f"The U-Net cannot have the {name} {value}.", "Give 1 or more.")
        if upsampling not in UPSAMPLINGS:
            raise BadInput(f"The U-Net has no upsampling '{upsampling}'.", f"Valid ones: {', '.join(UPSAMPLINGS)}.")
        self.grid = 2**depth
        channels = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            _convolutions(inputs, outputs) for inputs, outputs in zip([bands, *channels], channels)
        )
        self.pool = nn.MaxPool2d(2)
        deepest_first = channels[::-1]
        pairs = list(zip(deepest_first, deepest_first[1:]))
        self.upsample = nn.ModuleList(_upsampling(upsampling, below, beside) for below, beside in pairs)
        self.decoder = nn.ModuleList(_convolutions(2 * beside, beside) for _, beside in pairs)
        self.classifier = nn.Conv2d(width, classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # the paper's

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes, H, W)`` of images ``(N, bands, H, W)``; H and W are multiples of `grid`."""
        beside: List[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            beside.append(x)
        beside.pop()
        for upsample, block in zip(self.upsample, self.decoder):
            x = block(torch.cat([beside.pop(), upsample(x)], dim=1))
        return self.classifier(x)


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    layers: List[nn.Module] = []
    for channels in (inputs, outputs):
        # The normalisation that follows would take away a bias.
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def _upsampling(kind: str, inputs: int, outputs: int) -> nn.Module:
    if kind == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.Upsample(scale_factor=2, mode="nearest"))
