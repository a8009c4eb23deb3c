"""The networks of segmentation-models-pytorch: offline, with tiny encoders."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from deepscape.engine.graphexport import export_network
from deepscape.engine.modelfiles import load_model, module_tensors, save_model
from deepscape.engine.probing import Field, probe
from deepscape.models import pretrained
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.models.pretrained import UnavailableError, for_bands, start_pretrained
from deepscape.models.registry import PIXEL_NETWORKS
from deepscape.models.smp import ENCODERS
from deepscape.models.smplibrary import library
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.environment.release import LOCK, TORCH
from deepscape.tasks.errors import BadInput

TINY = "tu-test_resnet"  # of timm, made for tests: 0.5 million parameters
NETWORKS = [entry.id for entry in PIXEL_NETWORKS if entry.id.startswith("smp_")]


def tiny(network, bands=2, classes=3):
    torch.manual_seed(0)
    return build_network(network, bands, classes, 0, {"encoder": TINY, "pretrained": False})


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_trains_a_step_and_answers_the_same_from_its_file(network, tmp_path):
    module = tiny(network, bands=5)
    images, targets = torch.randn(2, 5, 64, 96), torch.randint(0, 3, (2, 64, 96))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    logits = module(images)
    assert logits.shape == (2, 3, 64, 96)
    torch.nn.functional.cross_entropy(logits, targets).backward()
    optimizer.step()
    changed = [not torch.equal(a, b) for a, b in zip(before, module.parameters())]
    # Residual blocks of this encoder begin with scales of zero, which keep gradients from what stands before them.
    assert changed[0] and sum(changed) > 0.5 * len(changed)

    card = Card(
        kind="network",
        network=network,
        sources=(CardSource(64, tuple(CardBand("b", 0.0, 1.0, 0.0, 1.0) for _ in range(5))),),
        classes=tuple(ClassEntry(value, f"class {value}", "#ff0000") for value in range(3)),
        # As the trainer writes it; nothing is fetched when the file is read.
        arguments={"encoder": TINY, "pretrained": True},
        output="pixels",
    )
    save_model(str(tmp_path / "a.safetensors"), card, module_tensors(module))
    loaded = load_model(str(tmp_path / "a.safetensors")).module
    with torch.inference_mode():
        assert torch.equal(loaded(images), module.eval()(images))


@pytest.mark.parametrize(
    ("network", "encoder", "field"),
    [
        ("smp_segformer", TINY, Field(128, 32, "local")),
        ("smp_fpn", TINY, Field(0, 32, "tile")),
        ("smp_upernet", TINY, Field(0, 32, "tile")),
    ],
)
def test_how_far_networks_look(network, encoder, field):
    module = build_network(network, 2, 2, 0, {"encoder": encoder, "pretrained": False})
    assert module.grid == field.stride
    assert probe(module, 2) == field


@pytest.mark.parametrize("network", NETWORKS)
def test_no_upsampling_depends_on_the_image_s_size(network):
    layers = [layer for layer in tiny(network).modules() if isinstance(layer, torch.nn.Upsample)]
    assert all(not layer.align_corners for layer in layers)


@pytest.mark.parametrize("network", ["smp_unet", "smp_unetplusplus", "smp_segformer"])
def test_networks_without_global_operations_answer_alike_for_shifted_images(network):
    module = tiny(network).double().eval()
    image = torch.randn(1, 2, 384, 64, dtype=torch.float64)
    with torch.inference_mode():
        here, there = module(image)[:, :, 32:], module(image[:, :, 32:])
    inside = slice(160, 192)  # a margin from both ends
    assert torch.allclose(here[:, :, inside], there[:, :, inside], rtol=0, atol=1e-10)
    assert not torch.allclose(here[:, :, :32], there[:, :, :32], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "encoder", [name for name in ENCODERS if name not in ("resnet50", "efficientnet-b3", "mit_b2")]
)
def test_the_good_encoders_take_any_number_of_bands(encoder):
    module = build_network("smp_unet", 6, 2, 0, {"encoder": encoder, "pretrained": False}).eval()
    with torch.inference_mode():
        assert module(torch.zeros(1, 6, 64, 64)).shape == (1, 2, 64, 64)


def test_names_of_timm_are_taken_with_and_without_the_prefix():
    for name in ("test_resnet", "tu-test_resnet"):
        assert build_network("smp_unet", 3, 2, 0, {"encoder": name}).encoder_name == "tu-test_resnet"


def test_an_unknown_encoder_is_named_with_those_that_are_near_and_those_that_are_good():
    with pytest.raises(BadInput) as caught:
        build_network("smp_unet", 3, 2, 0, {"encoder": "resnet81"})
    assert caught.value.message == "There is no encoder 'resnet81'."
    assert "resnet18" in caught.value.remedy and "Good ones" in caught.value.remedy


@pytest.mark.parametrize(
    ("encoder", "near"),
    [
        ("efficientnet", "efficientnet-b0, efficientnet-b3, efficientnet-b1"),
        ("EfficientNet_B0", "efficientnet-b0"),
        ("mobilenet", "mobilenet_v2, tu-mobilenetv3_small_100?"),
        ("mobilenetv4_conv_smal", "mobilenetv4_conv_small"),
        ("resnet", "resnet18, resnet34, resnet50"),
    ],
)
def test_of_the_encoders_that_are_near_the_known_and_small_ones_come_first(encoder, near):
    with pytest.raises(BadInput) as caught:
        build_network("smp_unet", 3, 2, 0, {"encoder": encoder})
    assert caught.value.remedy.startswith(f"Did you mean {near}"), caught.value.remedy


def test_an_encoder_that_does_not_fit_is_told_with_the_remedy():
    with pytest.raises(BadInput, match=r"'vit_tiny_patch16_224' does not go with Unet\. Good ones: ") as caught:
        build_network("smp_unet", 3, 2, 0, {"encoder": "vit_tiny_patch16_224"})
    assert "downsampling" in caught.value.details and ".." not in str(caught.value)
    assert "Good ones" in caught.value.remedy


# --- an encoder at full resolution -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2", "tu-efficientnet_b0", TINY, "tf_efficientnet_lite0"])
def test_at_full_resolution_features_have_twice_the_resolution_and_the_weights_are_the_same(encoder):
    usual, fine = (
        build_network("smp_unet", 4, 2, 0, {"encoder": encoder, "full_resolution": full}).eval()
        for full in (False, True)
    )
    assert fine.grid * 2 == usual.grid
    assert {name: array.shape for name, array in module_tensors(fine).items()} == {
        name: array.shape for name, array in module_tensors(usual).items()
    }
    with torch.inference_mode():
        image = torch.zeros(1, 4, 64, 64)
        halves = [feature.shape[2] for feature in usual.network.encoder(image)]
        whole = [feature.shape[2] for feature in fine.network.encoder(image)]
        assert whole == [64, *(2 * side for side in halves[1:])] and whole[1] == 64
        assert fine(image).shape == (1, 2, 64, 64)


def test_at_full_resolution_a_single_pixel_is_seen_by_the_decoder_s_last_step():
    """A pattern of single pixels that the encoder's first step skips is told apart only without that step."""
    torch.manual_seed(0)
    odd, even = torch.zeros(2, 1, 1, 64, 64)
    even[..., ::2, ::2] = 1
    odd[..., 1::2, ::2] = 1
    fine = build_network("smp_unet", 1, 2, 0, {"encoder": TINY, "full_resolution": True}).eval()
    with torch.inference_mode():
        first, second = (fine.network.encoder(image)[1] for image in (even, odd))
    # Moving the pattern by one pixel moves the features by one pixel.
    assert torch.allclose(first[..., 8:40, 8:40], second[..., 9:41, 8:40], atol=1e-6)
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("encoder", ["vgg11_bn", "mit_b0", "tu-convnext_atto", "efficientnet-b0"])
def test_an_encoder_whose_first_step_cannot_be_left_out_is_refused_at_full_resolution(encoder):
    with pytest.raises(BadInput, match=f"'{encoder}' cannot keep the full resolution") as caught:
        build_network("smp_unet", 3, 2, 0, {"encoder": encoder, "pretrained": False, "full_resolution": True})
    assert "resnet18" in caught.value.remedy


# --- blocks left out at random ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [TINY, "tf_efficientnet_lite0"])
def test_blocks_are_left_out_in_training_alone(encoder):
    torch.manual_seed(0)
    module = build_network("smp_unet", 3, 2, 0, {"encoder": encoder, "pretrained": False, "drop_path": 0.9})
    for layer in (layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
        torch.nn.init.ones_(layer.weight)  # some begin with blocks that add nothing
    whole = build_network("smp_unet", 3, 2, 0, {"encoder": encoder, "pretrained": False, "drop_path": 0.0})
    whole.load_state_dict(module.state_dict())
    image = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(module.eval()(image), whole.eval()(image))
        # Without normalisation by the batch's own numbers, chance alone makes a difference.
        for layer in (layer for layer in module.modules() if type(layer).__name__ == "DropPath"):
            layer.train()
        assert not torch.equal(module(image), module(image))


@pytest.mark.parametrize("encoder", ["resnet18", "vgg11_bn", "tu-vgg11_bn"])
def test_encoders_that_leave_out_no_blocks_are_built_without(encoder):
    module = build_network("smp_unet", 3, 2, 0, {"encoder": encoder, "pretrained": False, "drop_path": 0.2})
    assert not any(type(layer).__name__ == "DropPath" for layer in module.modules()) and module.drop_path == 0


# --- pretrained weights ----------------------------------------------------------------------------------------------


def test_without_a_connection_training_starts_from_random_weights_and_one_sentence(monkeypatch):
    def offline(repository, revision, name=""):
        raise UnavailableError(f"'{repository}' cannot be downloaded: no network")

    monkeypatch.setattr("deepscape.models.smp.fetched", offline)
    module = build_network("smp_unet", 3, 2, 0, {"encoder": "resnet10t", "pretrained": True}, binary=True)
    said = []
    before = module_tensors(module)
    assert not start_pretrained(module, pytest.fail, said.append)
    assert said == [
        "The encoder's pretrained weights cannot be had ('timm/resnet10t.c3_in1k' cannot be downloaded: no network): "
        "training starts from random weights."
    ]
    assert all(np.array_equal(array, before[name]) for name, array in module_tensors(module).items())


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch):
    import huggingface_hub

    asked = []

    class Session:
        def head(self, url, timeout):
            asked.append(timeout)
            raise OSError("[Errno -2] Name or service not known\nand more")

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    with pytest.raises(UnavailableError, match=r"^'none/none' cannot be downloaded: Name or service not known$"):
        pretrained.fetched("none/none", None)
    assert len(asked) == 1 and asked[0] <= 10


def test_nothing_is_fetched_where_it_is_not_asked_for():
    said = []
    assert not start_pretrained(tiny("smp_unet"), said.append, said.append)
    assert not start_pretrained(build_network("unet", 3, 2, 0, {"width": 2}), said.append, said.append)
    assert said == []


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_fetched_weights_go_into_the_encoder_for_any_bands(bands, monkeypatch):
    torch.manual_seed(1)
    weights = library().encoders.get_encoder("resnet18", weights=None).state_dict()
    monkeypatch.setattr("deepscape.models.smp.pretrained_file", lambda encoder: (dict(weights), "a/b"))
    module = build_network("smp_unet", bands, 2, 0, {"encoder": "resnet18", "pretrained": True})
    decoder = module_tensors(module.network.decoder)
    said = []
    assert start_pretrained(module, said.append, pytest.fail)
    assert said == ["The encoder starts from weights that were learned from photographs (a/b)."]
    found = module.network.encoder.state_dict()
    assert torch.allclose(found["conv1.weight"], for_bands(weights["conv1.weight"], bands))
    assert torch.equal(found["layer3.0.conv1.weight"], weights["layer3.0.conv1.weight"])
    assert all(np.array_equal(array, decoder[name]) for name, array in module_tensors(module.network.decoder).items())


def test_fetched_weights_of_timm_go_into_the_encoder(monkeypatch, tmp_path):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(1)
    weights = timm.create_model("test_resnet").state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    monkeypatch.setattr("deepscape.models.smp.fetched", lambda *names: str(tmp_path / "model.safetensors"))
    module = build_network("smp_unet", 4, 2, 0, {"encoder": TINY, "pretrained": True})
    assert start_pretrained(module, lambda text: None, pytest.fail)
    found = module.network.encoder.model.state_dict()
    assert torch.equal(found["layer2.0.conv1.weight"], weights["layer2.0.conv1.weight"])


# --- graphs, and the packages ----------------------------------------------------------------------------------------


def test_means_of_parts_of_the_image_have_no_graph_and_torch_is_named():
    card = Card(
        kind="network",
        network="smp_upernet",
        sources=(CardSource(64, tuple(CardBand("b", 0.0, 1.0, 0.0, 1.0) for _ in range(2))),),
        classes=tuple(ClassEntry(value, f"class {value}", "#ff0000") for value in range(3)),
        output="pixels",
        context="tile",
        stride=32,
    )
    with pytest.raises(BadInput, match="means of parts of the whole image") as caught:
        export_network(tiny("smp_upernet").eval(), card, None)
    assert caught.value.remedy == "Choose RUNTIME torch."


def test_torchvision_is_the_release_that_belongs_to_torch():
    minor = int(TORCH.split(".")[1])
    (line,) = [line for line in LOCK.read_text().splitlines() if line.startswith("torchvision==")]
    assert line.startswith(f"torchvision==0.{minor + 15}.")
    assert importlib.metadata.version("torchvision").startswith(f"0.{minor + 15}.")


def test_importing_the_registry_and_building_another_network_imports_none_of_it():
    code = (
        "import json, sys\n"
        "from deepscape.models.build import build_network\n"
        "build_network('unet', 3, 2, 0, {'width': 2})\n"
        "print(json.dumps([m for m in sys.modules if m in ('timm', 'torchvision', 'segmentation_models_pytorch')]))"
    )
    path = str(Path(__file__).parents[2] / ".build" / "plugins")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path})
    assert json.loads(found.stdout) == []
