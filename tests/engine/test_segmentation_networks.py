"""The networks of one class per pixel that others published: their parameters to the last one, sizes and reach."""

import pytest
import torch
from deepscape.engine.probing import Field, probe
from deepscape.models.build import build_network, parameter_count
from deepscape.models.pretrained import conv_layers, for_bands, start_convolutions
from deepscape.models.registry import ARGUMENT_HELP, PIXEL_NETWORKS, network_entry
from deepscape.models.segnet import pooled, unpooled
from deepscape.tasks.jobs import OPTIMIZERS
from torch import nn
from torch.nn import functional

PUBLISHED = ["course_unet", "segnet", "reference_fcnn", "maggiori_fcn"]


@pytest.mark.parametrize(
    ("network", "bands", "classes", "parameters"),
    [
        ("course_unet", 3, 7, 23_749_111),
        ("segnet", 3, 6, 29_446_470),
        ("reference_fcnn", 4, 2, 120_962),
        ("maggiori_fcn", 4, 1, 439_170),
    ],
)
def test_published_networks_have_the_parameters_that_are_published(network, bands, classes, parameters):
    assert parameter_count(build_network(network, bands, classes, 0)) == parameters


def test_the_course_s_network_has_its_total_with_the_running_statistics_as_keras_counts_them():
    network = build_network("course_unet", 3, 7, 0)
    running = sum(array.numel() for name, array in network.named_buffers() if "running" in name)
    assert running == 4_032
    assert parameter_count(network) + running == 23_753_143


@pytest.mark.parametrize("network", PUBLISHED)
def test_logits_have_the_image_s_size_for_any_bands_and_classes(network):
    module = build_network(network, 5, 3, 0).eval()
    rows = max(2 * module.grid, 16)
    with torch.inference_mode():
        assert module(torch.zeros(2, 5, rows, rows + module.grid)).shape == (2, 3, rows, rows + module.grid)


@pytest.mark.parametrize("network", PUBLISHED)
def test_every_weight_counts(network):
    torch.manual_seed(0)
    module = build_network(network, 2, 3, 0)
    module(torch.randn(2, 2, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in module.parameters())


def test_maggiori_s_network_maps_patches_of_80_to_their_inner_16():
    torch.manual_seed(0)
    module = build_network("maggiori_fcn", 4, 1, 0).eval()
    image = torch.randn(1, 4, 96, 88)
    with torch.inference_mode():
        whole = module(image)
        for row, col in ((0, 0), (4, 8), (16, 4)):
            patch = module.inner(image[:, :, row : row + 80, col : col + 80])
            assert patch.shape == (1, 1, 16, 16)
            same = whole[:, :, row + 32 : row + 48, col + 32 : col + 48]
            assert torch.allclose(patch, same, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("network", "field"), [("reference_fcnn", Field(16, 16, "local"))])
def test_the_rim_that_does_not_count_is_what_the_network_looks_beyond_a_window(network, field):
    torch.manual_seed(0)
    assert probe(build_network(network, 1, 2, 0), 1) == field
    assert network_entry(network).rim == field.margin


def test_maggiori_s_rim_is_what_its_patches_lose():
    assert network_entry("maggiori_fcn").rim == build_network("maggiori_fcn", 1, 1, 0).rim == (80 - 16) // 2


def test_the_margin_of_a_small_segnet():
    torch.manual_seed(0)

    class Small(nn.Module):
        """Two stages of SegNet's kind."""

        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))

        def forward(self, x):
            x, outer = pooled(self.first(x))
            x, inner = pooled(self.second(x))
            return self.last(unpooled(unpooled(x, inner), outer))

    found = probe(Small(), 2)
    assert (found.context, found.stride) == ("local", 4)


def test_unpooling_is_that_of_torch_and_ties_go_to_the_first():
    torch.manual_seed(0)
    image = torch.randn(2, 3, 8, 12).round().relu()  # with many ties
    values, places = pooled(image)
    theirs, numbers = functional.max_pool2d(image, 2, return_indices=True)
    assert torch.equal(values, theirs)
    assert torch.equal(unpooled(values + 1, places), functional.max_unpool2d(theirs + 1, numbers, 2))


def test_the_gradient_of_unpooling_is_that_of_torch():
    torch.manual_seed(0)
    image = torch.randn(1, 2, 4, 6).round().relu()
    found = []
    for ours in (True, False):
        values = image.clone().requires_grad_()
        if ours:
            back = unpooled(*pooled(values))
        else:
            back = functional.max_unpool2d(*functional.max_pool2d(values, 2, return_indices=True), 2)
        (back * torch.arange(back.numel()).view(back.shape)).sum().backward()
        found.append(values.grad)
    assert torch.equal(*found)


# The layers with weights, as models that are saved name them: they must be found there again.
SAVED = {
    "course_unet": """
        encoder.0.0 encoder.0.2 encoder.1.0 encoder.1.2 encoder.2.0 encoder.2.2 encoder.2.4
        encoder.3.0 encoder.3.2 encoder.3.4 encoder.4.0 encoder.4.2 encoder.4.4
        centre.0 centre.1 centre.3 centre.4
        decoder.0.0 decoder.0.1 decoder.0.3 decoder.0.4 decoder.1.0 decoder.1.1 decoder.1.3 decoder.1.4
        decoder.2.0 decoder.2.1 decoder.2.3 decoder.2.4 decoder.3.0 decoder.3.1 decoder.3.3 decoder.3.4
        decoder.4.0 decoder.4.1 decoder.4.3 decoder.4.4 classifier
    """,
    "segnet": """
        encoder.0.0 encoder.0.2 encoder.0.3 encoder.0.5 encoder.1.0 encoder.1.2 encoder.1.3 encoder.1.5
        encoder.2.0 encoder.2.2 encoder.2.3 encoder.2.5 encoder.2.6 encoder.2.8
        encoder.3.0 encoder.3.2 encoder.3.3 encoder.3.5 encoder.3.6 encoder.3.8
        encoder.4.0 encoder.4.2 encoder.4.3 encoder.4.5 encoder.4.6 encoder.4.8
        decoder.0.0 decoder.0.2 decoder.0.3 decoder.0.5 decoder.0.6 decoder.0.8
        decoder.1.0 decoder.1.2 decoder.1.3 decoder.1.5 decoder.1.6 decoder.1.8
        decoder.2.0 decoder.2.2 decoder.2.3 decoder.2.5 decoder.2.6 decoder.2.8
        decoder.3.0 decoder.3.2 decoder.3.3 decoder.3.5 decoder.4.0.0 decoder.4.0.2 decoder.4.1
    """,
}


@pytest.mark.parametrize("network", SAVED)
def test_the_names_of_the_weights_are_those_of_models_that_were_saved_before(network):
    weights = build_network(network, 3, 2, 0).state_dict()
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in weights))
    assert layers == SAVED[network].split()
    statistics = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert {name.rpartition(".")[2] for name in weights} == statistics
    assert len(weights) == {"course_unet": 100, "segnet": 177}[network]


def test_segnet_normalises_after_its_relu():
    kinds = [type(layer) for layer in build_network("segnet", 3, 6, 0).encoder[0]]
    assert kinds == 2 * [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]


@pytest.mark.parametrize("network", ["course_unet", "segnet"])
def test_encoders_start_from_the_convolutions_of_vgg16_in_their_order(network):
    encoder = build_network(network, 4, 2, 0).encoder
    layers, weights = conv_layers(encoder), {}
    assert len(layers) == 13
    for number, layer in enumerate(layers):
        shape = (layer.out_channels, 3 if number == 0 else layer.in_channels, 3, 3)
        weights[f"features.{3 * number}.weight"] = torch.full(shape, float(number + 1))
        weights[f"features.{3 * number}.bias"] = torch.full(shape[:1], -float(number))
        weights[f"features.{3 * number + 1}.weight"] = torch.zeros(shape[:1])  # a normalisation's
    start_convolutions(layers, dict(sorted(weights.items())))
    assert torch.equal(layers[0].weight, torch.full((64, 4, 3, 3), 0.75))
    assert [layer.weight.mean().item() for layer in layers[1:]] == list(range(2, 14))
    assert [layer.bias.mean().item() for layer in layers] == [-float(number) for number in range(13)]


@pytest.mark.parametrize("bands", [2, 3, 4, 6, 13])
def test_a_first_convolution_for_any_bands_takes_red_green_and_blue_in_turn(bands):
    weight = torch.randn(5, 3, 7, 7)
    found = for_bands(weight, bands)
    assert found.shape == (5, bands, 7, 7)
    for band in range(bands):
        assert torch.allclose(found[:, band], weight[:, band % 3] * 3 / bands)


def test_a_single_band_is_seen_as_a_grey_photograph():
    weight, grey = torch.randn(5, 3, 7, 7), torch.randn(1, 1, 9, 9)
    expected = functional.conv2d(grey.expand(1, 3, 9, 9), weight)
    assert torch.allclose(functional.conv2d(grey, for_bands(weight, 1)), expected, atol=1e-4)


def test_every_argument_of_every_network_is_explained():
    for entry in PIXEL_NETWORKS:
        assert set(entry.arguments) <= set(ARGUMENT_HELP)
        needed = {"learning_rate", "weight_decay"}
        # Without a batch size it follows from the windows; without an optimiser or averaging it is the recipe's.
        assert needed <= set(entry.recipe) <= needed | {"batch_size", "optimizer", "averaging"}
        assert entry.recipe.get("optimizer", "adamw") in OPTIMIZERS
