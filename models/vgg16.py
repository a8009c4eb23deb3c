"""The convolutions of VGG16: the encoder that the course's U-Net and SegNet share.

Source: K. Simonyan, A. Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014.
"""

from __future__ import annotations

from typing import Iterator, List, Tuple

from torch import nn

from .pretrained import conv_layers, pretrained_file, start_convolutions

# Channels and number of convolutions of each stage.
_STAGES: Tuple[Tuple[int, int], ...] = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def stages(bands: int) -> Iterator[List[int]]:
    """Yield the channels of each of the five stages: those that it takes, then those of each of its convolutions."""
    inputs = bands
    for channels, number in _STAGES:
        yield [inputs, *[channels] * number]
        inputs = channels


def convolutions(channels: List[int], normalised: bool = False) -> nn.Sequential:
    """Return convolutions 3 x 3 from each number of channels to the next, each with ReLU.

    Args:
        channels: of the input, and of each convolution.
        normalised: whether a batch normalisation follows each ReLU.
    """
    layers: List[nn.Module] = []
    for inputs, outputs in zip(channels, channels[1:]):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        if normalised:
            layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers)


def start_encoder(encoder: nn.Module, variant: str) -> str:
    """Give an encoder's convolutions the weights of VGG16; return where they come from.

    Args:
        encoder: all five stages.
        variant: of VGG16 in segmentation-models-pytorch, vgg16 or vgg16_bn.

    Raises:
        UnavailableError: they cannot be had.
    """
    weights, source = pretrained_file(variant)
    start_convolutions(conv_layers(encoder), weights)
    return source
