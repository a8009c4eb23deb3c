"""SegNet: an encoder like VGG16, and a decoder that puts values back where the encoder's poolings took them from."""

from __future__ import annotations

from typing import List, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .pretrained import conv_layers
from .vgg16 import convolutions, stages, start_encoder


class SegNet(nn.Module):
    """Thirteen convolutions and their mirror image, with ReLU and then batch normalisation; max-unpooling between.

    29,446,470 parameters for 3 bands and 6 classes, those that gradients set (running means and variances not
    counted).

    Source: V. Badrinarayanan, A. Kendall, R. Cipolla, SegNet, 2017, in the form of N. Audebert, B. Le Saux, S. Lefevre,
    Beyond RGB: Very High Resolution Urban Remote Sensing With Multimodal Deep Networks, 2018 (its public notebook).

    Attributes:
        grid: height and width of an image must be multiples of this.
        pretrained: whether `load_pretrained` is to be called before training.
    """

    grid = 32

    def __init__(self, bands: int, classes: int, pretrained: bool = False) -> None:
        """Build the network, with random weights.

        Args:
            bands: input channels.
            classes: outputs.
            pretrained: whether training starts from VGG16's convolutions.
        """
        super().__init__()
        self.pretrained = pretrained
        encoder: List[nn.Module] = []
        decoder: List[nn.Module] = []
        for channels in stages(bands):
            encoder.append(convolutions(channels, normalised=True))
            # Backwards, from the stage's channels to those that it began with.
            decoder.insert(0, convolutions(channels[::-1], normalised=True))
        decoder[-1] = nn.Sequential(convolutions([64, 64], normalised=True), nn.Conv2d(64, classes, 3, padding=1))
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)
        for layer in conv_layers(self):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes, H, W)`` of images ``(N, bands, H, W)``; H and W are multiples of 32."""
        places: List[Tensor] = []
        for stage in self.encoder:
            x, place = pooled(stage(x))
            places.append(place)
        for stage in self.decoder:
            x = stage(unpooled(x, places.pop()))
        return x

    def load_pretrained(self) -> str:
        """Give the encoder's convolutions the weights of VGG16; return where they come from.

        Raises:
            UnavailableError: they cannot be had.
        """
        return start_encoder(self.encoder, "vgg16_bn")


def pooled(x: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the largest of each 2 x 2 values ``(N, C, H / 2, W / 2)``, and where it was.

    Where: ``(N, C, 4, H / 2, W / 2)``, true for the first largest of the four. `torch.nn.functional.max_unpool2d` would
    take the number of the pixel in the image; comparisons give the same, can be written as an ONNX graph, and repeat to
    the last bit on a GPU.
    """
    count, channels, rows, cols = x.shape
    fours = functional.pixel_unshuffle(x, 2).view(count, channels, 4, rows // 2, cols // 2)
    first = fours.detach().argmax(dim=2, keepdim=True)
    return functional.max_pool2d(x, 2), first == torch.arange(4, device=x.device).view(4, 1, 1)


def unpooled(x: Tensor, place: Tensor) -> Tensor:
    """Return values ``(N, C, H, W)`` at the places that `pooled` found, and 0 elsewhere."""
    fours = torch.where(place, x.unsqueeze(2), 0.0)
    return functional.pixel_shuffle(fours.flatten(1, 2), 2)
