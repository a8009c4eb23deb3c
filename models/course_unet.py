"""The U-Net of the course: the convolutions of VGG16 as its encoder, nearest upsampling in its decoder."""

from __future__ import annotations

from typing import List

import torch
from torch import Tensor, nn
from torch.nn import functional

from .vgg16 import convolutions, stages, start_encoder

_CENTRE = 512
_DECODER = (256, 128, 64, 32, 16)
_BESIDE = (512, 512, 256, 128, 0)  # of the encoder, joined with each of the decoder's upsamplings


class CourseUNet(nn.Module):
    """VGG16 without normalisation, two centre blocks of 512 channels, five upsamplings of 256 to 16 channels.

    Every upsampling repeats each value four times and is followed by two convolutions 3 x 3 with batch normalisation
    and ReLU. The first four are joined with the last convolution of VGG16's stages of 512, 512, 256 and 128 channels,
    before their poolings; the fifth, to full resolution, stands alone: with the 64 channels beside it there would be
    9,216 parameters more than the course's network has.

    23,753,143 parameters in total for 3 bands and 7 classes. Keras counts the running means and variances of the
    normalisations (4,032 numbers, which training does not set by gradients): 23,749,111 weights and those.

    Sources: K. Simonyan, A. Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014 (the
    encoder); O. Ronneberger, P. Fischer, T. Brox, U-Net, 2015.

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
            pretrained: whether training starts from VGG16's weights.
        """
        super().__init__()
        self.pretrained = pretrained
        self.encoder = nn.ModuleList(convolutions(channels) for channels in stages(bands))
        self.pool = nn.MaxPool2d(2)
        self.centre = _blocks(_CENTRE, _CENTRE)
        decoder, below = [], _CENTRE
        for channels, beside in zip(_DECODER, _BESIDE):
            decoder.append(_blocks(below + beside, channels))
            below = channels
        self.decoder = nn.ModuleList(decoder)
        self.classifier = nn.Conv2d(below, classes, 3, padding=1)
        for layer in (*self.centre.modules(), *self.decoder.modules()):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        nn.init.xavier_uniform_(self.classifier.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes, H, W)`` of images ``(N, bands, H, W)``; H and W are multiples of 32."""
        beside: List[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            beside.append(x)
            x = self.pool(x)
        x = self.centre(x)
        for channels, block in zip(_BESIDE, self.decoder):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, beside.pop()], dim=1) if channels else x)
        return self.classifier(x)

    def load_pretrained(self) -> str:
        """Give the encoder the weights of VGG16; return where they come from.

        Raises:
            UnavailableError: they cannot be had.
        """
        return start_encoder(self.encoder, "vgg16")


def _blocks(inputs: int, outputs: int) -> nn.Sequential:
    layers: List[nn.Module] = []
    for channels in (inputs, outputs):
        # As Keras has them: 1e-3 added to the variance, and 1 % of each batch's statistics taken over.
        normalisation = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), normalisation, nn.ReLU()]
    return nn.Sequential(*layers)
