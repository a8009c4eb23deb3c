"""The U-Net: parameters, shapes, and what it refuses."""

import pytest
import torch
from deepscape.models.build import build_network, parameter_count
from deepscape.tasks.errors import BadInput


def test_the_paper_s_width_and_depth_have_the_parameters_that_are_known():
    # The count that the common PyTorch implementation publishes for 3 bands and 1 class (with batch normalisation).
    assert parameter_count(build_network("unet", 3, 1, 0, {"width": 64})) == 31_037_633


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
@pytest.mark.parametrize(("depth", "height", "width"), [(1, 2, 6), (2, 12, 4), (3, 24, 8), (4, 16, 48)])
def test_logits_have_the_image_s_size(depth, height, width, upsampling):
    network = build_network("unet", 5, 3, 0, {"width": 2, "depth": depth, "upsampling": upsampling}).eval()
    assert network.grid == 2**depth
    assert network(torch.zeros(2, 5, height, width)).shape == (2, 3, height, width)


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
def test_every_weight_counts(upsampling):
    torch.manual_seed(0)
    network = build_network("unet", 2, 3, 0, {"width": 4, "depth": 2, "upsampling": upsampling})
    network(torch.randn(2, 2, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "value"), [({"depth": 0}, "depth 0"), ({"width": 0}, "width 0"), ({"upsampling": "cubic"}, "cubic")]
)
def test_arguments_that_make_no_network_are_named_with_the_remedy(arguments, value):
    with pytest.raises(BadInput, match=value) as caught:
        build_network("unet", 3, 2, 0, arguments)
    assert caught.value.remedy


def test_one_logit_gives_two_classes():
    torch.manual_seed(0)
    network = build_network("unet", 3, 2, 0, {"width": 4, "depth": 1}, binary=True).eval()
    image = torch.randn(2, 3, 8, 8)
    logits = network(image)
    assert logits.shape == (2, 2, 8, 8) and not logits[:, 0].any()
    assert torch.allclose(logits.softmax(1)[:, 1], torch.sigmoid(network.network(image))[:, 0])
    assert parameter_count(network) == parameter_count(build_network("unet", 3, 1, 0, {"width": 4, "depth": 1}))
