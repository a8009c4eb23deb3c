"""Convolutions of upsampled images, computed before the upsampling: the same numbers from fewer multiplications."""

import pytest
import torch
from deepscape.engine.subpixel import convolved_before_upsampling
from deepscape.engine.tracednetworks import name_of, traced
from deepscape.engine.unpadding import unpadded_network
from deepscape.models.unet import UNet
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

BANDS, SIDE = 3, 24


def prepared(module):
    """Give a network weights and statistics that matter, in double precision."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 2)
            layer.bias.data.normal_()
    return module.double().eval()


def graph_of(module):
    return traced(prepared(module), BANDS, SIDE, SIDE).module(check_guards=False)


def multiplications(network, image):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops()


def shuffles(network):
    return sum(name_of(node) == "pixel_shuffle" for node in network.graph.nodes)


def compared(before, side=SIDE, more=(0, 0)):
    """Return the rewritten network after a comparison with what it was, and the share of multiplications left.

    They are compared on an image of ``side`` and some ``more`` rows and columns.
    """
    after = convolved_before_upsampling(before, BANDS, side)
    image = torch.randn(2, BANDS, side + more[0], side + more[1], dtype=torch.float64)
    with torch.no_grad():
        expected, found = before(image), after(image)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
    return after, multiplications(after, image) / multiplications(before, image)


class Decoder(nn.Module):
    """A coarse image, upsampled by some factor, and a fine one beside it, read by a convolution of some size."""

    def __init__(self, up, size=3, normalised=True, deep=8, fine=4):
        super().__init__()
        self.coarse, self.up, self.fine = nn.Conv2d(BANDS, deep, 3, stride=8), up, nn.Conv2d(BANDS, fine, 3)
        upsampled = up.out_channels if isinstance(up, nn.ConvTranspose2d) else deep
        self.conv = nn.Conv2d(upsampled + fine, 5, size, bias=not normalised)
        self.norm = nn.BatchNorm2d(5) if normalised else nn.Identity()

    def forward(self, x):
        up = self.up(self.coarse(x))
        fine = self.fine(x)[:, :, : up.shape[2], : up.shape[3]]
        return torch.relu(self.norm(self.conv(torch.cat([up, fine], 1))))


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
@pytest.mark.parametrize(("depth", "margin"), [(1, 8), (3, 48)])
def test_each_decoder_of_a_u_net_convolves_before_it_upsamples(depth, margin, upsampling):
    network = unpadded_network(prepared(UNet(BANDS, 5, 4, depth, upsampling)), BANDS, 2**depth, margin)
    after, left = compared(network, 2 * margin + 2**depth, (16, 32))
    assert shuffles(after) == depth
    assert left < 0.98
    names = {name_of(node) for node in after.graph.nodes}
    assert not names & {"conv_transpose2d", "upsample_nearest2d"}


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(
    ("up", "size"),
    [
        (nn.Upsample(scale_factor=2), 3),
        (nn.Upsample(scale_factor=2), 5),
        (nn.Upsample(scale_factor=4), 5),
        (nn.ConvTranspose2d(8, 6, 2, stride=2), 3),
        (nn.ConvTranspose2d(8, 6, 2, stride=2, bias=False), 3),
    ],
)
def test_factors_sizes_and_biases(up, size, normalised):
    after, left = compared(graph_of(Decoder(up, size, normalised)), SIDE)
    assert shuffles(after) == 1 and left < 1
    # The normalisation moves into the weights, for a sum now comes between.
    assert "batch_norm" not in {name_of(node) for node in after.graph.nodes}


class Alone(nn.Module):
    """Nothing stands beside the upsampled image; two convolutions read it where ``twice``."""

    def __init__(self, twice):
        super().__init__()
        self.twice = twice
        self.one, self.two = nn.Conv2d(BANDS, 4, 3), nn.Conv2d(BANDS, 4, 3)

    def forward(self, x):
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        return self.one(x) + self.two(x) if self.twice else self.one(x)


def test_an_upsampled_image_alone():
    after, left = compared(graph_of(Alone(twice=False)))
    assert shuffles(after) == 1 and left < 0.5


@pytest.mark.parametrize(
    "module",
    [
        Alone(twice=True),  # would be convolved twice, and held all the same
        Decoder(nn.Upsample(scale_factor=2), size=1),
        Decoder(nn.Upsample(scale_factor=2), size=4),  # rows of coarse pixels would be left over
        Decoder(nn.Upsample(scale_factor=3), size=3),
        Decoder(nn.Upsample(scale_factor=2, mode="bilinear")),
        Decoder(nn.ConvTranspose2d(8, 6, 3, stride=2)),  # its windows overlap
        Decoder(nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)),
        Decoder(nn.ConvTranspose2d(40, 2, 2, stride=2), deep=40),  # 40 channels are more than 2, four times
        nn.Conv2d(BANDS, 4, 3),
    ],
)
def test_what_has_no_such_form_or_would_take_longer_stays_as_it_is(module):
    after, left = compared(graph_of(module))
    assert shuffles(after) == 0 and left == 1
