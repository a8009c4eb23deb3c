"""Dense rewriting: the same numbers as patch by patch for what has a dense form, a named refusal for the rest."""

import copy

import pytest
import torch
from deepscape.engine.densify import NotDenseError, dense_network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

BANDS = 3


class Layer(nn.Module):
    """A function as a layer."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x):
        return self.function(x, *self.parts)


def net(*layers):
    return nn.Sequential(*(layer if isinstance(layer, nn.Module) else Layer(layer) for layer in layers))


def randomised(module):
    """Return a copy with random statistics of its normalisations, so that no operation is the identity."""
    torch.manual_seed(1)
    module = copy.deepcopy(module).eval()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                part.weight.data.normal_()
    return module


def expected(module, image, size):
    """Return what the patches of an image give, one at a time: (K, H - p + 1, W - p + 1)."""
    patches = image[0].unfold(1, size, 1).unfold(2, size, 1).permute(1, 2, 0, 3, 4)
    rows, cols = patches.shape[:2]
    return module(patches.flatten(0, 1)).reshape(rows, cols, -1).permute(2, 0, 1)


def check(module, size, bands=BANDS):
    exact = randomised(module).double()
    dense = dense_network(exact, bands, size)
    torch.manual_seed(2)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        exact, dense = exact.to(dtype), dense.to(dtype)
        for height, width in ((size + 5, size + 8), (size, size), (size, size + 3)):
            image = torch.randn(1, bands, height, width, dtype=dtype)
            with torch.inference_mode():
                wanted, found = expected(exact, image, size), dense(image)[0]
            assert found.shape == wanted.shape
            assert (found - wanted).abs().max() <= tolerance * max(1.0, float(wanted.abs().max()))


def pooled(x):
    return x.mean(dim=(2, 3))


def cropped_residual(x, first, second, third):
    x = torch.relu(first(x))
    x = x[:, :, 1:-1, 1:-1] + torch.relu(second(x))
    return torch.cat([x[:, :, 1:-1, 1:-1], third(x)], 1)


def shared_in_place(x, first):
    """The result of an operation that changes its input is used twice, as the input is."""
    y = first(x)
    z = functional.relu(y, inplace=True)
    return (y + z).mean((2, 3))


def indices_unused(x):
    values, _ = functional.max_pool2d(x, 2, return_indices=True)
    return values


def channels_last(x, hidden, last):
    """A fully connected layer along the channels of every pixel."""
    x = hidden(x.permute(0, 2, 3, 1))
    return last(torch.relu(x).mean((1, 2)))


def gated(x, first, gate):
    """One weight per pixel for all channels."""
    x = first(x)
    return x * torch.sigmoid(gate(x))


def two_strides_of_one_cell(x, left, right):
    return torch.cat([left(x), right(x)], 1)


CONV = nn.Conv2d(BANDS, 6, 3)
DENSE = {
    "strided convolutions": (net(nn.Conv2d(BANDS, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), pooled), 19),
    "dilated convolutions": (net(nn.Conv2d(BANDS, 8, 3, dilation=2), nn.Conv2d(8, 4, 3, 2, dilation=2), pooled), 15),
    "oblong kernels": (net(nn.Conv2d(BANDS, 8, (1, 5), (1, 2)), nn.Conv2d(8, 4, (3, 2), (2, 1)), pooled), 12),
    "grouped convolutions": (
        net(nn.Conv2d(BANDS, 9, 3, groups=3), nn.MaxPool2d(2), nn.Conv2d(9, 9, 2, groups=9), pooled),
        9,
    ),
    "1 x 1 with 'same'": (net(nn.Conv2d(BANDS, 4, 1, padding="same"), nn.Conv2d(4, 4, 3, padding="valid"), pooled), 6),
    "pools, flatten, two linears": (
        net(
            nn.Conv2d(BANDS, 8, 3),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 8, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(200, 16),
            nn.ReLU(),
            nn.Linear(16, 4),
        ),
        15,
    ),
    "floored pools, global average": (
        net(
            CONV,
            nn.AvgPool2d(2),
            nn.Conv2d(6, 7, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(7, 4),
        ),
        17,
    ),
    "floored pools, global maximum": (
        net(CONV, nn.AvgPool2d(2), nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
        17,
    ),
    "adaptive pools of several cells": (
        net(
            nn.AdaptiveAvgPool2d(6),
            nn.Conv2d(BANDS, 5, 1),
            nn.AdaptiveMaxPool2d((3, 2)),
            nn.Flatten(),
            nn.Linear(30, 3),
        ),
        12,
    ),
    "oblong and dilated pools": (
        net(nn.MaxPool2d((2, 3), (1, 2), dilation=(2, 1)), CONV, nn.MaxPool2d(2, dilation=2), pooled),
        16,
    ),
    "ceil_mode without a rest": (net(nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 2, ceil_mode=True), pooled), 14),
    "divisor of an average": (net(lambda x: functional.avg_pool2d(x, 2, divisor_override=3), pooled), 7),
    "large windows": (net(nn.MaxPool2d(7, 1), nn.AvgPool2d(8, 3), lambda x: x.amax((2, 3))), 24),
    "sums": (net(CONV, nn.MaxPool2d(2), lambda x: x.sum((2, 3))), 11),
    "axis by axis": (net(CONV, nn.MaxPool2d(2), lambda x: x.flatten(2).max(2)[0]), 11),
    "rows, then columns": (net(CONV, lambda x: x.mean(3).amax(2, keepdim=True), nn.Flatten(), nn.Linear(6, 2)), 8),
    "batch normalisations": (
        net(
            nn.BatchNorm2d(BANDS),
            CONV,
            nn.BatchNorm2d(6),
            pooled,
            nn.BatchNorm1d(6),
            nn.Linear(6, 3),
            nn.BatchNorm1d(3),
        ),
        7,
    ),
    "batch normalisation without weights": (net(nn.Conv2d(BANDS, 4, 3), nn.BatchNorm2d(4, affine=False), pooled), 5),
    "batch normalisation of cells": (net(CONV, nn.Flatten(2), nn.BatchNorm1d(6), lambda x: x.mean(2)), 7),
    "cropped residual, cat, global mean": (
        net(
            Layer(cropped_residual, CONV, nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3)),
            pooled,
            nn.BatchNorm1d(12),
            nn.Linear(12, 5),
        ),
        13,
    ),
    "crop with a step": (net(CONV, lambda x: x[:, 1:5:2, 1:-2:3, ::2], nn.Conv2d(2, 4, 2), pooled), 16),
    "narrow": (net(CONV, lambda x: x.narrow(2, 1, 3).narrow(3, -4, 2), pooled), 9),
    "the centre": (net(CONV, lambda x: x[:, :, 3, 3]), 9),
    "the centre, kept": (net(lambda x: x[..., 4:5, 4:5], nn.Conv2d(BANDS, 4, 1), nn.Flatten()), 9),
    "one channel": (net(CONV, lambda x: x[:, 2], lambda x: x[:, :3, -3:], nn.Flatten(), nn.Linear(9, 2)), 9),
    "linear layers along channels": (
        net(CONV, nn.MaxPool2d(2), Layer(channels_last, nn.Linear(6, 8), nn.Linear(8, 3))),
        11,
    ),
    "channels last, flattened": (net(CONV, lambda x: x.permute(0, 2, 3, 1).flatten(1), nn.Linear(6 * 25, 4)), 7),
    "transposed": (net(CONV, lambda x: x.flatten(2).transpose(1, 2).flatten(1), nn.Linear(6 * 25, 4)), 7),
    "squeeze and unsqueeze": (
        net(
            CONV,
            nn.AdaptiveAvgPool2d(1),
            lambda x: x.squeeze(-1).squeeze(2)[:, :, None, None],
            nn.Conv2d(6, 4, 1),
            nn.Flatten(),
        ),
        7,
    ),
    "pixel weights": (net(Layer(gated, CONV, nn.Conv2d(6, 1, 1)), pooled), 7),
    "branches of one cell": (
        net(
            Layer(
                two_strides_of_one_cell,
                nn.Conv2d(BANDS, 4, 8, 3),
                nn.Sequential(nn.MaxPool2d(2, 3), nn.Conv2d(BANDS, 4, 3)),
            ),
            nn.Flatten(),
        ),
        9,
    ),
    "scalar weights": (net(CONV, lambda x: 2 / (x.abs() + 0.5) - 3, lambda x: torch.add(x, x, alpha=0.5), pooled), 5),
    "in place": (net(Layer(shared_in_place, CONV)), 7),
    "indices that nobody uses": (net(CONV, indices_unused, pooled), 9),
    "softmax of the classes": (net(CONV, nn.Softmax(dim=1), pooled, nn.LogSoftmax(dim=1)), 7),
    "dropouts": (net(CONV, nn.Dropout2d(0.5), nn.AlphaDropout(), pooled, nn.Dropout(0.5)), 7),
    "a patch of one pixel": (net(nn.Conv2d(BANDS, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)), 1),
    "one channel throughout": (
        net(nn.Conv2d(BANDS, 1, 3), nn.BatchNorm2d(1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9, 1)),
        8,
    ),
}


@pytest.mark.parametrize("case", DENSE)
def test_an_image_gives_what_its_patches_give(case):
    check(*DENSE[case])


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.LeakyReLU(0.2, inplace=True),
        nn.ELU(),
        nn.CELU(),
        nn.SELU(),
        nn.GELU(),
        nn.GELU("tanh"),
        nn.SiLU(),
        nn.Mish(),
        nn.Hardswish(),
        nn.Hardsigmoid(),
        nn.Hardtanh(),
        nn.ReLU6(),
        nn.Sigmoid(),
        nn.Tanh(),
        nn.Softplus(),
        nn.PReLU(),
        nn.PReLU(6),
        nn.Softsign(),
        nn.Softshrink(),
        nn.Hardshrink(),
        nn.Tanhshrink(),
        nn.LogSigmoid(),
        nn.Threshold(0.1, 2.0),
    ],
    ids=repr,
)
def test_activations(activation):
    check(net(nn.Conv2d(BANDS, 6, 3, 2), activation, nn.Conv2d(6, 6, 2), activation, pooled), 8)


class PerChannel(nn.Module):
    """Weights per channel, as a scale of layers or a standardisation inside the network has them."""

    def __init__(self, shape):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.register_buffer("mean", torch.randn(6), persistent=False)
        self.one = torch.tensor(0.5)

    def forward(self, x):
        return (x - self.mean.view(1, -1, 1, 1)) * torch.exp(self.weight) + self.one


@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1), (1, 1, 1, 1)])
def test_weights_per_channel(shape):
    check(net(nn.Conv2d(BANDS, 6, 3, 2), PerChannel(shape), nn.Conv2d(6, 4, 2), pooled), 8)


@st.composite
def networks(draw):
    """Return a random network of the parts above, and its patch size."""
    size = side = draw(st.integers(5, 21))
    channels, layers = BANDS, []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["conv", "max", "avg", "norm", "act", "crop", "residual"]))
        kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        reach = dilation * (kernel - 1) + 1
        width = draw(st.integers(1, 5))
        if kind == "conv" and reach <= side:
            groups = channels if draw(st.booleans()) else 1
            layers.append(nn.Conv2d(channels, width * groups, kernel, stride, dilation=dilation, groups=groups))
            channels, side = width * groups, (side - reach) // stride + 1
        elif kind == "max" and reach <= side:
            layers.append(nn.MaxPool2d(kernel, stride, dilation=dilation))
            side = (side - reach) // stride + 1
        elif kind == "avg" and kernel <= side:
            layers.append(nn.AvgPool2d(kernel, stride))
            side = (side - kernel) // stride + 1
        elif kind == "norm":
            layers.append(nn.BatchNorm2d(channels))
        elif kind == "act":
            layers.append(draw(st.sampled_from([nn.ReLU(inplace=True), nn.SiLU(), nn.Tanh(), nn.PReLU(channels)])))
        elif kind == "crop" and side > 3:
            first, last = draw(st.integers(0, 1)), draw(st.integers(1, 2))
            layers.append(Layer(lambda x, a=first, b=last: x[:, :, a : x.shape[2] - b, b : x.shape[3] - a]))
            side -= first + last
        elif kind == "residual" and side > 2:
            branch = nn.Conv2d(channels, channels, 3)
            layers.append(Layer(lambda x, conv: x[:, :, 1:-1, 1:-1] + conv(x), branch))
            side -= 2
    head = draw(st.sampled_from(["flatten", "mean", "max", "adaptive"]))
    if head == "flatten":
        layers += [nn.Flatten(), nn.Linear(channels * side * side, 4), nn.ReLU(), nn.Linear(4, 3)]
    else:
        pool = {"mean": pooled, "max": lambda x: x.amax((2, 3)), "adaptive": nn.AdaptiveAvgPool2d(1)}[head]
        layers += [pool, nn.Flatten(), nn.BatchNorm1d(channels), nn.Linear(channels, 3)]
    return net(*layers), size


@settings(max_examples=40, deadline=None, derandomize=True)
@given(networks())
def test_random_networks(drawn):
    check(*drawn)


# --- what has no dense form ------------------------------------------------------------------------------------------


def squeeze_excitation(x, conv, squeeze):
    x = conv(x)
    return (x * torch.sigmoid(squeeze(x.mean((2, 3), keepdim=True)))).mean((2, 3))


def attention(x, layer):
    x = x.flatten(2).transpose(1, 2)
    return layer(x, x, x, need_weights=False)[0].mean(1)


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, BANDS, 7, 7))

    def forward(self, x):
        return pooled(x * self.weight)


def used_indices(x):
    values, places = functional.max_pool2d(x, 2, return_indices=True)
    return pooled(values + places)


def view_changed_in_place(x, conv):
    x = conv(x)
    functional.relu(x[:, :, 1:3], inplace=True)
    return pooled(x)


REFUSALS = {
    "a convolution pads the patch with zeros": [
        net(nn.Conv2d(BANDS, 4, 3, padding=1), pooled),
        net(nn.Conv2d(BANDS, 4, 3, padding="same"), pooled),
        net(nn.Conv2d(BANDS, 4, 1, padding=(0, 1)), pooled),
    ],
    "the patch is padded": [
        net(nn.Conv2d(BANDS, 4, 3, padding=1, padding_mode="reflect"), pooled),
        net(nn.Conv2d(BANDS, 4, 3, padding=1, padding_mode="circular"), pooled),
        net(nn.ZeroPad2d(1), pooled),
    ],
    "a pooling pads the patch": [net(nn.MaxPool2d(3, padding=1), pooled), net(nn.AvgPool2d(3, padding=1), pooled)],
    "a pooling reaches over the patch's end (ceil_mode)": [
        net(nn.MaxPool2d(2, ceil_mode=True), pooled),
        net(nn.AvgPool2d(2, ceil_mode=True), pooled),
    ],
    "an adaptive pooling divides the patch unevenly": [net(nn.AdaptiveAvgPool2d(2), pooled)],
    "7 x 7 and 1 x 1 cells of a patch are joined (as squeeze-excitation does)": [
        net(Layer(squeeze_excitation, nn.Conv2d(BANDS, 4, 1), nn.Conv2d(4, 4, 1)))
    ],
    "pixels of the patch are compared with each other (as attention does)": [
        net(Layer(attention, nn.MultiheadAttention(BANDS, 1, batch_first=True)))
    ],
    "a softmax is taken over pixels of the patch (as attention does)": [
        net(nn.Flatten(2), nn.Softmax(dim=-1), nn.Flatten(), nn.Linear(147, 2))
    ],
    "a group normalisation takes its statistics from the patch": [net(CONV, nn.GroupNorm(2, 6), pooled)],
    "an instance normalisation takes its statistics from the patch": [net(CONV, nn.InstanceNorm2d(6), pooled)],
    "a layer normalisation takes its statistics from the patch": [net(CONV, nn.LayerNorm([6, 5, 5]), pooled)],
    "a batch normalisation takes its statistics from the patches": [
        net(CONV, nn.BatchNorm2d(6, track_running_stats=False), pooled)
    ],
    "a batch normalisation treats single pixels of the patch differently": [
        net(nn.Flatten(), nn.BatchNorm1d(147), nn.Linear(147, 2))
    ],
    "the patch is upsampled": [
        net(CONV, nn.Upsample(scale_factor=2), pooled),
        net(CONV, nn.Upsample(scale_factor=2, mode="bilinear"), pooled),
        net(CONV, nn.ConvTranspose2d(6, 4, 2, 2), pooled),
    ],
    "the operation 'view' mixes channels, rows and columns": [net(CONV, lambda x: x.view(len(x), 5, 6, 5), pooled)],
    "the operation 'mul' treats single pixels of the patch differently": [net(Positions())],
    "a fully connected layer acts along rows or columns of the patch": [
        net(nn.Flatten(2), nn.Linear(49, 2), nn.Flatten())
    ],
    "a mean is taken over more than the pixels of a patch": [net(CONV, lambda x: x - x.mean(1, keepdim=True), pooled)],
    "layers of different stride are joined": [
        net(Layer(lambda x, a, b: pooled(a(x) + b(x)), nn.Conv2d(BANDS, 2, 1, 3), nn.Conv2d(BANDS, 2, 3, 2)))
    ],
    "layers are joined beside each other, not by their channels": [net(lambda x: pooled(torch.cat([x, x], 2)))],
    "the places of maxima are used": [net(used_indices)],
    "a part of the patch is changed in place": [net(Layer(view_changed_in_place, CONV))],
    "the operation 'rand' draws at random": [net(lambda x: pooled(x) * torch.rand(1))],
    "the operation 'flip' has no dense form": [net(lambda x: pooled(x.flip(3)))],
    "the network answers for 5 x 5 cells of a patch": [CONV],
    "the network answers for 3 x 6 cells of a patch": [nn.Conv2d(BANDS, 2, (2, 5))],
    "the network has several outputs": [net(lambda x: (pooled(x), pooled(x)))],
    "the samples are moved to another axis": [net(lambda x: pooled(x.transpose(0, 1)))],
    "a recurrent layer runs over the patch": [
        net(nn.Flatten(2), nn.GRU(49, 2, batch_first=True), lambda found: found[0].mean(1))
    ],
}


@pytest.mark.parametrize("phrase", REFUSALS)
def test_what_has_no_dense_form_is_named(phrase):
    for module in REFUSALS[phrase]:
        with pytest.raises(NotDenseError) as caught:
            dense_network(module, BANDS, 7)
        assert str(caught.value) == phrase


def test_several_inputs_are_refused():
    class Two(nn.Module):
        def forward(self, x, y=None):
            return pooled(x)

    assert dense_network(Two(), BANDS, 5)(torch.ones(1, BANDS, 6, 7)).shape == (1, BANDS, 2, 3)

    class Three(nn.Module):
        def forward(self, x, y):
            return pooled(x + y)

    with pytest.raises(NotDenseError, match="cannot be traced"):
        dense_network(Three(), BANDS, 5)


def test_a_network_that_decides_by_values_cannot_be_traced():
    with pytest.raises(NotDenseError, match="the network cannot be traced"):
        dense_network(net(lambda x: pooled(x) if x.sum() > 0 else -pooled(x)), BANDS, 5)


def test_the_network_itself_stays_as_it_was():
    module = net(nn.Conv2d(BANDS, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), pooled)
    module[1].eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    training = [part.training for part in module.modules()]
    dense = dense_network(module, BANDS, 5)
    module[0].weight.data.zero_()
    assert not dense.training and [part.training for part in module.modules()] == training
    module.load_state_dict(state)
    image = torch.randn(1, BANDS, 8, 9)
    before = image.clone()
    wanted = expected(module.eval(), image, 5)
    assert torch.allclose(dense(image)[0], wanted, atol=1e-6) and torch.equal(image, before)
