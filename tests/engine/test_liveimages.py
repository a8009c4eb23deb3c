"""What a network holds at a time, told from its operations."""

import pytest
import torch
from deepscape.engine.liveimages import live_images
from deepscape.engine.tracednetworks import traced
from torch import nn

SIDE = 16


def live(module):
    return live_images(traced(module.eval(), 3, SIDE, SIDE).module(check_guards=False), 3, SIDE)


def conv(channels, outputs):
    return nn.Conv2d(channels, outputs, 3, padding=1)


def test_a_chain_holds_what_is_read_and_what_is_written():
    assert live(nn.Sequential(conv(3, 8), conv(8, 20), conv(20, 4))) == 8 + 20


def test_normalisation_and_activation_write_in_place():
    assert live(nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.SiLU(), conv(8, 4))) == 8 + 4


def test_a_pooling_holds_less():
    assert live(nn.Sequential(conv(3, 8), nn.MaxPool2d(2), conv(8, 16))) == 8 + 8 / 4


def test_images_whose_channels_fill_no_blocks_may_count_more():
    layers = nn.Sequential(conv(3, 16), conv(16, 24), conv(24, 4))
    network = traced(layers.eval(), 3, SIDE, SIDE).module(check_guards=False)
    assert live_images(network, 3, SIDE) == 16 + 24
    assert live_images(network, 3, SIDE, uneven=1.5) == 16 + 1.5 * 24


class Kept(nn.Module):
    """What the first layer gives is read again by the last one, and twice at once."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = conv(3, 8), conv(8, 20), conv(20, 4)

    def forward(self, x):
        first = self.one(x)
        third = self.three(self.two(first))
        return torch.cat([first, third, first], 1)


def test_what_is_read_later_is_held_until_then():
    # 8 of the first layer beside 20 and 4 of the others; then 8 and 4 that are joined to 20.
    assert live(Kept()) == 8 + max(20 + 4, 4 + 20)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-mobilenetv3_small_100"])
def test_networks_of_the_library_have_a_number(encoder):
    from deepscape.models.build import build_network

    found = live_images(
        traced(build_network("smp_unet", 3, 2, 0, {"encoder": encoder}).eval(), 3, 64, 64).module(check_guards=False),
        3,
        64,
    )
    assert 10 < found < 100
