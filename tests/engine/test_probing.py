"""Margins and grids of pixel networks: found as they are known, and enough for windows to equal one piece."""

import copy

import pytest
import torch
from deepscape.engine.probing import LARGEST_MARGIN, Field, probe
from deepscape.models.build import build_network
from deepscape.tasks.errors import JobCancelled
from torch import nn
from torch.nn import functional


def unet(depth, upsampling="transposed", width=3, bands=2, classes=3):
    torch.manual_seed(depth)
    network = build_network("unet", bands, classes, 0, {"width": width, "depth": depth, "upsampling": upsampling})
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return network.eval()


def convolutions(*layers, bands=2):
    """Return padded convolutions of (size, dilation)."""
    torch.manual_seed(0)
    parts = []
    for size, dilation in layers:
        parts += [nn.Conv2d(bands, bands, size, padding="same", dilation=dilation), nn.ReLU()]
    return nn.Sequential(*parts[:-1]).eval()


class Wrapped(nn.Module):
    """What a function does with a convolution of 5 x 5 before it."""

    def __init__(self, function, bands=2):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(bands, bands, 5, padding="same")
        self.function = function

    def forward(self, x):
        return self.function(self.first(x))


class SqueezeExcitation(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(2, 2, 3, padding=1)
        self.gate = nn.Linear(2, 2)

    def forward(self, x):
        x = self.convolution(x)
        return x * torch.sigmoid(self.gate(x.mean(dim=(2, 3))))[:, :, None, None]


class PlaceAware(nn.Module):
    """Adds what depends on the place in the image alone."""

    def forward(self, x):
        return x + torch.arange(x.shape[2], dtype=x.dtype)[:, None]


class Half(nn.Module):
    """Half the resolution and back."""

    def __init__(self, shrink, **options):
        super().__init__()
        torch.manual_seed(0)
        self.shrink, self.options = shrink, options

    def forward(self, x):
        return functional.interpolate(self.shrink(x), scale_factor=2, **self.options)


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
@pytest.mark.parametrize(("depth", "margin"), [(1, 8), (2, 24), (3, 48), (4, 96)])
def test_the_margin_of_a_unet(depth, margin, upsampling):
    assert probe(unet(depth, upsampling), 2) == Field(margin, 2**depth, "local")


def test_a_pixel_may_look_farther_than_a_window_that_ends_on_the_grid():
    # Of each phase of the grid one NaN row, and the rows that it spreads to.
    network, reaches = unet(4), []
    for row in range(176, 192):
        image = torch.zeros(1, 2, 352, 32)
        image[:, :, row] = torch.nan
        with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
            touched = network(image)[0].isnan().any(dim=2).any(dim=0).nonzero()[:, 0]
        reaches += [row - int(touched.min()), int(touched.max()) - row]
    assert max(reaches) == 107  # and not 96


@pytest.mark.parametrize(
    ("layers", "margin"),
    [
        ([(1, 1)], 0),
        ([(3, 1)], 1),
        ([(3, 1)] * 5, 5),
        ([(7, 1), (3, 4), (3, 16)], 23),
        # Gaps are wider than what a small image shows.
        ([(3, 90)], 90),
        ([(3, 600), (3, 300)], 900),
    ],
)
def test_convolutions_have_the_margin_that_their_sizes_add_up_to(layers, margin):
    assert probe(convolutions(*layers), 2) == Field(margin, 1, "local")


@pytest.mark.parametrize(("kernel", "padding"), [((1, 9), (0, 4)), ((9, 1), (4, 0))])
def test_rows_and_columns_are_both_probed(kernel, padding):
    assert probe(nn.Conv2d(2, 2, kernel, padding=padding), 2) == Field(4, 1, "local")


@pytest.mark.parametrize(
    ("network", "field"),
    [
        (Half(nn.Conv2d(2, 2, 3, stride=2, padding=1), mode="nearest"), Field(2, 2, "local")),
        (Half(nn.MaxPool2d(2), mode="nearest"), Field(0, 2, "local")),
        # Between the neighbours, up to the second pixel of the next cell.
        (Half(nn.MaxPool2d(2), mode="bilinear", align_corners=False), Field(2, 2, "local")),
        (nn.Sequential(nn.MaxPool2d(3), nn.Upsample(scale_factor=3)), Field(0, 3, "local")),
    ],
)
def test_the_grid_of_a_strided_network(network, field):
    assert probe(network, 2) == field


@pytest.mark.parametrize(
    ("network", "stride"),
    [
        (SqueezeExcitation(), 1),
        (Half(nn.MaxPool2d(2), mode="bilinear", align_corners=True), 2),
        (PlaceAware(), 1),
        (nn.InstanceNorm2d(2), 1),
        (convolutions((3, LARGEST_MARGIN), (3, 1)), 1),
    ],
)
def test_networks_without_a_finite_margin_are_mapped_in_tiles(network, stride):
    assert probe(network, 2) == Field(0, stride, "tile")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.where(x > 0, x, 0.0),
        lambda x: torch.nan_to_num(x),
        lambda x: x.clamp(-50, 50),
        lambda x: functional.relu6(x),
        lambda x: functional.max_pool2d(x, 1),
    ],
)
def test_operations_that_swallow_nan_do_not_hide_the_margin(function):
    assert probe(Wrapped(function), 2) == Field(2, 1, "local")


def test_weights_of_zero_do_not_hide_the_margin():
    network = convolutions((3, 1), (5, 1))
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    assert probe(network, 2).margin == 3


def test_a_network_that_pads_by_itself_has_its_grid_all_the_same():
    class Padding(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = unet(2)

        def forward(self, x):
            height, width = x.shape[2:]
            return self.inner(functional.pad(x, (0, -width % 4, 0, -height % 4)))[:, :, :height, :width]

    assert probe(Padding(), 2) == Field(24, 4, "local")


def test_the_network_is_not_changed_and_the_answer_repeats():
    network = unet(2).train()
    before = copy.deepcopy(network.state_dict())
    generator = torch.get_rng_state()
    assert probe(network, 2) == probe(network, 2)
    assert network.training and torch.equal(torch.get_rng_state(), generator)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) and after[name].dtype == before[name].dtype for name in before)


def test_a_network_of_one_class_per_patch_is_refused():
    with pytest.raises(ValueError, match="no image to logits of the image's size"):
        probe(build_network("compact_cnn", 2, 3, 7), 2)


def test_probing_can_be_cancelled():
    def cancelled():
        raise JobCancelled()

    with pytest.raises(JobCancelled):
        probe(unet(1), 2, cancelled)


# --- what the margin is for ------------------------------------------------------------------------------------------


def in_windows(network, image, field, shift=0):
    """Map windows of 3 cells with their margins; ``shift`` moves the windows off the grid. Edges are left out."""
    size, margin = 3 * field.stride, field.margin
    found = torch.full((3, *image.shape[2:]), torch.nan, dtype=image.dtype)
    outer = size + 2 * margin
    for row in range(shift, image.shape[2] - outer + 1, size):
        for col in range(shift, image.shape[3] - outer + 1, size):
            logits = network(image[:, :, row : row + outer, col : col + outer])[0]
            place = (slice(None), slice(row + margin, row + margin + size), slice(col + margin, col + margin + size))
            found[place] = logits[:, margin : margin + size, margin : margin + size]
    return found


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_windows_with_the_margin_on_the_grid_equal_one_piece_and_no_others(depth, upsampling):
    network = unet(depth, upsampling).double()
    field = probe(network, 2)
    side = (2 * field.margin + 6 * field.stride) + field.stride
    image = torch.randn(1, 2, side, side + field.stride, dtype=torch.float64)

    def difference(other, shift=0):
        with torch.inference_mode():
            found, whole = in_windows(network, image, other, shift), network(image)[0]
        seen = ~found.isnan()
        # The image's own edge is the network's padding, which windows inside it do not see.
        assert seen.sum() > 0
        return float((found - whole)[seen].abs().max() / whole.abs().max())

    assert difference(field) < 1e-12
    smaller = Field(field.margin - field.stride, field.stride, "local")
    assert difference(smaller) > 1e-9
    for shift in range(1, field.stride):
        assert difference(field, shift) > 1e-9
