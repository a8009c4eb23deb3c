"""The unpadded form of pixel networks answers for a window as the network does inside a large image."""

import pytest
import torch
from deepscape.engine.unpadding import NotUnpaddedError, unpadded_network
from deepscape.models.unet import UNet
from torch import nn
from torch.nn import functional


def prepared(module, seed=0):
    """Give a network weights and statistics that matter, in double precision."""
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return module.double().eval()


def compared(module, stride, margin, bands=3, rows=5, cols=3):
    """Return what the unpadded form gives for a window, and what the network gives for it inside a large image."""
    form = unpadded_network(module, bands, stride, margin)
    height, width = rows * stride, cols * stride
    image = torch.randn(1, bands, height + 4 * margin, width + 4 * margin, dtype=torch.float64)
    with torch.no_grad():
        whole = module(image)[:, :, 2 * margin : 2 * margin + height, 2 * margin : 2 * margin + width]
        found = form(image[:, :, margin : 3 * margin + height, margin : 3 * margin + width])
    assert found.shape == (1, whole.shape[1], height, width)
    return found, whole


class Strided(nn.Module):
    """Strided, dilated, padded by half and more; overlapping transposed convolution; bilinear upsampling."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.mean = nn.AvgPool2d(2)
        self.up = nn.ConvTranspose2d(6, 6, 4, stride=2, padding=1)
        self.beside = nn.Conv2d(3, 6, 5, padding="same")
        self.last = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        y = functional.relu_(self.norm(self.wide(self.down(x))))
        z = functional.interpolate(self.pool(y) + self.mean(y), scale_factor=2, mode="bilinear", align_corners=False)
        return self.last(torch.cat([self.up(y * z), self.beside(x)], 1)).softmax(1)


class Resized(nn.Module):
    """Upsamples to the size of another layer, as many decoders do."""

    def __init__(self):
        super().__init__()
        self.own = nn.Conv2d(3, 4, 3, padding=1)
        self.deep = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = functional.silu(self.own(x))
        deep = self.deep(functional.avg_pool2d(x, 4))
        return functional.interpolate(deep, size=x.shape[2:], mode="nearest") - x


class Uneven(nn.Module):
    """Pads by operations of its own, more behind than before, as networks from TensorFlow do."""

    def __init__(self):
        super().__init__()
        self.own = nn.Conv2d(3, 4, 3, padding=1)
        self.down = nn.Conv2d(3, 4, 3, stride=2)
        self.wide = nn.Conv2d(4, 4, 5, stride=2, padding=1)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x):
        y = functional.relu(self.down(functional.pad(x, (0, 1, 0, 1))))
        y = self.wide(functional.pad(y, (0, 1, 1, 0))) + self.pool(functional.pad(y, (0, 1, 1, 0), value=-torch.inf))
        return functional.interpolate(y, scale_factor=4) + self.own(x)


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
@pytest.mark.parametrize(("depth", "margin"), [(1, 8), (2, 24), (3, 48), (4, 96)])
def test_u_nets_are_equal_to_the_last_digits(depth, margin, upsampling):
    found, whole = compared(prepared(UNet(3, 5, 4, depth, upsampling)), 2**depth, margin)
    assert (found - whole).abs().max() <= 1e-12 * whole.abs().max()


OTHERS = [
    (Strided(), 16),
    (Strided(), 32),
    (Resized(), 8),
    (nn.ConvTranspose2d(3, 3, 3, stride=1, padding=1), 4),
    (Uneven(), 16),
    (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), 4),
]


@pytest.mark.parametrize(("network", "margin"), OTHERS)
def test_other_operations(network, margin):
    found, whole = compared(prepared(network), 4, margin)
    assert (found - whole).abs().max() <= 1e-12 * whole.abs().max()


def test_margins_are_not_computed():
    network = UNet(3, 5, 4, 2).eval()
    form = unpadded_network(network, 3, 4, 24)
    computed = {"padded": 0, "unpadded": 0}
    for name, module in (("padded", network), ("unpadded", form)):
        with torch.no_grad(), torch.profiler.profile(with_flops=True) as profile:
            module(torch.zeros(1, 3, 80, 80))
        computed[name] = sum(event.flops for event in profile.key_averages() if event.key == "aten::conv2d")
    # 32 pixels of 80 are wanted: 16 % of what is computed with the margins.
    assert 0.2 * computed["padded"] < computed["unpadded"] < 0.6 * computed["padded"]


def test_it_holds_a_copy():
    network = prepared(UNet(3, 5, 4, 1))
    form = unpadded_network(network, 3, 2, 8)
    image = torch.ones(1, 3, 20, 20, dtype=torch.float64)
    with torch.no_grad():
        before = form(image)
        network.classifier.weight.zero_()
        assert torch.equal(form(image), before)


def test_a_margin_that_is_too_small_is_refused():
    with pytest.raises(NotUnpaddedError, match="looks 22 pixels far"):
        unpadded_network(UNet(3, 5, 4, 2), 3, 4, 20)


class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.own = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        x = self.own(x)
        return x * functional.adaptive_avg_pool2d(x, 1).sigmoid()


class Aligned(nn.Module):
    def forward(self, x):
        return functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2, mode="bilinear", align_corners=True)


class Unpadded(nn.Module):
    def forward(self, x):
        return functional.pad(functional.avg_pool2d(x, 3, 1), (1, 1, 1, 1))


class Moved(nn.Module):
    def forward(self, x):
        return functional.pad(x, (1, 0, 1, 0))[:, :, :-1, :-1]


class Placed(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 3, 1, 34))

    def forward(self, x):
        return x * functional.pad(self.weight, (0, x.shape[3] - 34))


@pytest.mark.parametrize(
    ("network", "phrase"),
    [
        (Squeezed(), "adaptive_avg_pool2d"),
        (Aligned(), "aligns the corners"),
        (Unpadded(), "leaves the grid"),
        (nn.GroupNorm(1, 3), "group_norm"),
        (Moved(), "padded for something else"),
        (nn.Conv2d(3, 3, 2, padding="same"), "pads unevenly"),
        (nn.Conv2d(3, 3, 3), "leaves the grid"),
        (nn.MaxPool2d(2), "another size"),
        (nn.Softmax(dim=2), "runs over pixels"),
    ],
)
def test_what_has_no_unpadded_form_is_named(network, phrase):
    with pytest.raises(NotUnpaddedError, match=phrase):
        unpadded_network(network.eval(), 3, 2, 8)


def test_weights_that_differ_by_pixel_are_refused():
    with pytest.raises(NotUnpaddedError):
        unpadded_network(Placed().eval(), 3, 2, 8)
