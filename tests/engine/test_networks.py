"""The networks: parameter counts, centre rule, and that each patch network has a dense form."""

import pytest
import torch
from deepscape.engine.densify import dense_network
from deepscape.models.build import build_network, network_class, parameter_count
from deepscape.models.registry import PATCH_NETWORKS, network_entry
from deepscape.tasks.errors import BadInput

IDS = [entry.id for entry in PATCH_NETWORKS]


@pytest.mark.parametrize(
    ("network", "classes", "parameters"),
    [("simple_cnn", 6, 6214), ("simple_cnn", 8, 6280), ("simple_fcn", 8, 37544), ("book_fcn", 6, 33718)],
)
def test_reference_networks_have_the_parameters_of_the_reference(network, classes, parameters):
    assert parameter_count(build_network(network, 4, classes, 16)) == parameters


@pytest.mark.parametrize("network", ["simple_cnn", "simple_fcn", "book_fcn"])
@pytest.mark.parametrize("size", [16, 19])
def test_reference_networks_give_32_features(network, size):
    module = build_network(network, 4, 6, size)
    patches = torch.randn(3, 4, size, size)
    features = module.features(patches)
    assert features.shape == (3, 32)
    assert torch.equal(module(patches), module.classifier(features))


def randomised(network, bands, classes, size):
    """Return a network whose normalisations and zero weights do something."""
    module = build_network(network, bands, classes, size)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    for weight in module.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight)
    return module.eval()


@pytest.mark.parametrize("network", IDS)
@pytest.mark.parametrize("more", [0, 1, 2, 7])
def test_every_patch_network_has_a_dense_form_that_gives_what_its_patches_give(network, more):
    torch.manual_seed(more)
    size = network_entry(network).smallest_patch + more
    module = randomised(network, 3, 4, size).double()
    image = torch.randn(1, 3, size + 5, size + 8, dtype=torch.float64)
    patches = image.unfold(2, size, 1).unfold(3, size, 1)[0].permute(1, 2, 0, 3, 4)
    with torch.inference_mode():
        dense = dense_network(module, 3, size)(image)[0].permute(1, 2, 0)
        single = module(patches.reshape(-1, 3, size, size)).reshape(6, 9, 4)
    assert dense.shape == single.shape
    assert torch.allclose(dense, single, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [5, 6, 7, 8, 16])
def test_the_pixel_network_reads_the_centre_alone(size):
    module = build_network("pixel_network", 2, 3, size).eval()
    patch = torch.randn(1, 2, size, size, requires_grad=True)
    module(patch).sum().backward()
    read = patch.grad.abs().sum(dim=(0, 1)) > 0
    assert read.nonzero().tolist() == [[size // 2, size // 2]]


def prepared(bands, classes, size, count=60):
    """Return a Compact CNN that has seen ``count`` patches, whose class is told by their first band alone."""
    module = build_network("compact_cnn", bands, classes, size)
    labels = torch.arange(count) % classes
    patches = torch.rand(count, bands, size, size)
    patches[:, 0] += 2 * labels[:, None, None]
    module.prepare(patches, labels, torch.ones(count))
    return module.eval()


def test_the_compact_cnn_starts_as_a_linear_rule_that_tells_the_classes_apart():
    torch.manual_seed(0)
    module = prepared(3, 4, 7)
    labels = torch.arange(40) % 4
    patches = torch.rand(40, 3, 7, 7)
    patches[:, 0] += 2 * labels[:, None, None]
    assert torch.equal(module(patches).argmax(1), labels)
    assert torch.equal(module.linear(module.at_scales(module.compressed(patches))).flatten(1), module(patches))
    # What training may change is the correction alone.
    assert not module.linear.weight.requires_grad and module.classifier.weight.requires_grad


def test_the_compact_cnn_counts_half_of_its_correction_when_mapping():
    torch.manual_seed(0)
    module = prepared(2, 3, 5)
    patches = torch.rand(8, 2, 5, 5)
    before = module(patches)
    torch.nn.init.ones_(module.classifier.bias)
    assert torch.allclose(module(patches), before + 0.5)


@pytest.mark.parametrize("size", [5, 6, 7, 8, 9, 16])
def test_the_compact_cnn_reads_its_whole_patch(size):
    torch.manual_seed(0)
    module = prepared(2, 3, size)
    torch.nn.init.normal_(module.classifier.weight)
    patch = torch.rand(1, 2, size, size, requires_grad=True)
    module(patch).square().sum().backward()
    assert bool((patch.grad.abs().sum(dim=(0, 1)) > 0).all())


@pytest.mark.parametrize(
    ("network", "size"), [("compact_cnn", 4), ("simple_cnn", 15), ("simple_fcn", 15), ("book_fcn", 15)]
)
def test_a_patch_that_is_too_small_is_named_with_the_remedy(network, size):
    with pytest.raises(BadInput) as caught:
        build_network(network, 4, 3, size)
    assert f"at least {size + 1} pixels, these have {size}" in caught.value.message
    assert caught.value.remedy


def test_the_registry_states_each_networks_smallest_patch_and_arguments():
    for entry in PATCH_NETWORKS:
        assert network_class(entry.id).smallest_patch == entry.smallest_patch
        build_network(entry.id, 1, 2, entry.smallest_patch, entry.arguments)


def test_an_unknown_argument_is_named_with_the_valid_ones():
    with pytest.raises(BadInput, match=r"no argument 'widht'.*width"):
        build_network("compact_cnn", 1, 2, 7, {"widht": 3})
