"""Models of one class per pixel, from the network to the map: what `classify` writes is what the network says."""

import numpy as np
import pytest
import rasterio
import torch
from deepscape.engine.blending import weights
from deepscape.engine.fields import field_of
from deepscape.engine.inference import classify
from deepscape.engine.modelfiles import module_tensors, save_model
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.jobs import Classify, RasterSource

TINY = "tu-test_resnet"  # of timm, made for tests
MEANS, DEVIATIONS = (100.0, 20.0), (10.0, 5.0)
HEIGHT, WIDTH, TILE, OVERLAP = 96, 80, 64, 32


@pytest.fixture
def scene(tmp_path):
    rng = np.random.default_rng(0)
    statistics = (np.array(numbers)[:, None, None] for numbers in (DEVIATIONS, MEANS))
    deviation, mean = statistics
    values = (rng.standard_normal((2, HEIGHT, WIDTH)) * deviation + mean).astype("float32")
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", count=2, height=HEIGHT, width=WIDTH, dtype="float32",
        crs="EPSG:32721", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 9e6),
    ) as dataset:  # fmt: skip
        dataset.write(values)
    return str(tmp_path / "scene.tif"), (values - mean) / deviation


def model(path, network, arguments, **fields):
    """Write a model with random weights; return its network and card."""
    torch.manual_seed(1)
    module = build_network(network, 2, 3, 0, arguments).eval()
    last = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        # So that every class wins somewhere, and clearly.
        logits = module(torch.randn(1, 2, 96, 96))
        last.bias.copy_((last.bias - logits.mean((0, 2, 3))) / logits.std((0, 2, 3)))
        last.weight.div_(logits.std((0, 2, 3))[:, None, None, None])
    bands = tuple(CardBand(f"b{n}", m, s, m, s) for n, (m, s) in enumerate(zip(MEANS, DEVIATIONS)))
    table = tuple(ClassEntry(value, f"class {value}", "#ff0000") for value in (4, 7, 9))
    card = Card(
        "network", network, (CardSource(64, bands, "float32"),), table, arguments=arguments, output="pixels",
        res_m=10.0, **fields,
    )  # fmt: skip
    field = field_of(card)
    assert field.context == fields["context"] and field.stride == fields["stride"]
    assert field.context == "tile" or field.margin == fields["margin"]
    save_model(path, card, module_tensors(module))
    return module


def mapped(scene, path, folder):
    output = str(folder / "map.tif")
    classify(Classify(RasterSource(scene), path, output, resume=False, continue_anyway=True), Context())
    with rasterio.open(output) as dataset:
        return dataset.read(1)


def answer(module, image):
    """Return the logits ``(K, H, W)`` of an image."""
    with torch.inference_mode():
        return module(torch.from_numpy(np.ascontiguousarray(image, np.float32))[None])[0].double().numpy()


def assert_mapped(found, scores):
    """Check a map against scores; where two are nearly equal either may win."""
    first, second = -np.sort(-scores, axis=0)[:2]
    clear = first - second > 1e-4
    assert clear.mean() > 0.95 and len(np.unique(found)) > 1
    assert np.array_equal(found[clear], np.array([4, 7, 9])[scores.argmax(0)][clear])


def test_a_local_network_maps_a_scene_as_in_one_piece(scene, tmp_path):
    path, values = scene
    arguments = {"width": 4, "depth": 2}
    module = model(str(tmp_path / "m.safetensors"), "unet", arguments, context="local", margin=24, stride=4)
    around = np.pad(values, ((0, 0), (40, 40), (40, 40)), "reflect")
    found = mapped(path, str(tmp_path / "m.safetensors"), tmp_path)
    assert_mapped(found, answer(module, around)[:, 40:-40, 40:-40])


def test_an_encoder_network_maps_a_scene_in_tiles_that_fade_into_each_other(scene, tmp_path):
    path, values = scene
    arguments = {"encoder": TINY, "pretrained": False}
    module = model(
        str(tmp_path / "m.safetensors"), "smp_fpn", arguments, context="tile", margin=None, stride=32, tile=TILE,
        overlap=OVERLAP,
    )  # fmt: skip
    around = np.pad(values, ((0, 0), (TILE, TILE), (TILE, TILE)), "reflect")
    rising = weights(TILE, OVERLAP)
    sums = np.zeros((3, *around.shape[1:]))
    step = TILE - OVERLAP
    for row in range(-step, HEIGHT, step):
        for col in range(-step, WIDTH, step):
            part = slice(row + TILE, row + 2 * TILE), slice(col + TILE, col + 2 * TILE)
            if part[0].stop > around.shape[1] or part[1].stop > around.shape[2]:
                continue
            logits = answer(module, around[:, part[0], part[1]])
            shares = np.exp(logits - logits.max(0))
            sums[:, part[0], part[1]] += shares / shares.sum(0) * np.outer(rising, rising)
    found = mapped(path, str(tmp_path / "m.safetensors"), tmp_path)
    assert_mapped(found, sums[:, TILE : TILE + HEIGHT, TILE : TILE + WIDTH])
