"""ONNX graphs: the same numbers as the network in float64, made once, found again, and made again when damaged."""

import functools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from deepscape.engine import graphexport, graphs
from deepscape.engine.modelfiles import load_model, module_tensors, save_model
from deepscape.engine.training import train_classifier
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource, read_card
from deepscape.models.registry import PATCH_NETWORKS, network_entry
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import TrainClassifier
from deepscape.tests.engine import patchsets

MEANS, STDS = (700.0, 1200.0, 0.3), (250.0, 400.0, 0.1)
BANDS = tuple(CardBand(f"B{i}", mean, std, mean, std) for i, (mean, std) in enumerate(zip(MEANS, STDS)))


class Log(Context):
    def __init__(self, scratch=""):
        super().__init__(scratch)
        self.lines = []

    def log(self, text):
        self.lines.append(text)


@pytest.fixture(autouse=True)
def graphs_after_training():
    """In place of the other tests' fixture: training exports here."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSCAPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def card_of(network, size, classes=5):
    table = tuple(ClassEntry(value, f"class {value}", "#000000") for value in range(classes))
    return Card("network", network, (CardSource(size, BANDS),), table)


def random_network(network, size, classes=5):
    torch.manual_seed(4)
    module = build_network(network, len(BANDS), classes, size)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    for weight in module.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight)
    return module.eval()


def saved(path, network="pixel_network", size=3, classes=5):
    """Write a model file with random weights; returns path, card and network."""
    module, card = random_network(network, size, classes), card_of(network, size, classes)
    save_model(str(path), card, module_tensors(module))
    return str(path), card, module


def session(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def scene(height, width, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(1, len(BANDS), height, width)) * np.reshape(STDS, (-1, 1, 1)) * 2
    return (values + np.reshape(MEANS, (-1, 1, 1))).astype(np.float32)


def patch_logits(module, values, size):
    """Return the float64 logits (K, H', W') of all patches of a scene."""
    exact = torch.from_numpy(values).double()
    exact = (exact - torch.tensor(MEANS).double()[:, None, None]) / torch.tensor(STDS).double()[:, None, None]
    patches = exact[0].unfold(1, size, 1).unfold(2, size, 1).permute(1, 2, 0, 3, 4)
    with torch.inference_mode():
        logits = module.double()(patches.flatten(0, 1))
    module.float()
    return logits.reshape(*patches.shape[:2], -1).permute(2, 0, 1).numpy()


@pytest.mark.parametrize("network", [entry.id for entry in PATCH_NETWORKS])
def test_graphs_give_what_the_network_gives_in_float64(network, tmp_path):
    size = network_entry(network).smallest_patch + 1
    path, card, module = saved(tmp_path / "m.safetensors", network, size)
    found = graphs.graphs_of(path, card, Context())
    dense, patch = session(found.dense), session(found.patch)
    values = scene(size + 38, size + 52)
    expected = patch_logits(module, values, size)
    scale = np.abs(expected).max()
    logits, classes = dense.run(["logits", "classes"], {"values": values})
    assert logits.shape == (1, 5, 39, 53) and classes.shape == (1, 39, 53) and classes.dtype == np.uint8
    assert np.abs(logits[0] - expected).max() <= 1e-5 * scale
    assert (classes == logits.argmax(axis=1)).all()
    two_best = np.sort(expected, axis=0)[-2:]
    clear = two_best[1] - two_best[0] > 1e-4 * scale
    assert (classes[0] == expected.argmax(axis=0))[clear].all() and clear.mean() > 0.9
    # Windows of any size and place, alone or together, give the same bits.
    for rows, cols in ((1, 1), (1, 2), (2, 1), (1, 53), (17, 13), (39, 2), (5, 39)):
        top, left = 39 - rows, 53 - cols
        window = np.ascontiguousarray(values[:, :, top : top + rows + size - 1, left : left + cols + size - 1])
        (alone,) = dense.run(["logits"], {"values": window})
        assert np.array_equal(alone[0], logits[0, :, top:, left:])
        (together,) = dense.run(["logits"], {"values": np.concatenate([window, window])})
        assert np.array_equal(together[1], alone[0])
    patches = np.lib.stride_tricks.sliding_window_view(values[0], (size, size), (1, 2))[:, 0].swapaxes(0, 1)
    for count in (1, 7):
        single, position = patch.run(["logits", "classes"], {"values": np.ascontiguousarray(patches[:count])})
        assert single.shape == (count, 5, 1, 1) and position.shape == (count, 1, 1)
        assert np.abs(single[:, :, 0, 0] - expected[:, 0, :count].T).max() <= 1e-5 * scale
        assert (position[:, 0, 0] == single[:, :, 0, 0].argmax(axis=1)).all()
    assert np.array_equal(patch.run(["logits"], {"values": np.ascontiguousarray(patches[6:7])})[0][0], single[6])


class Spectrum(torch.nn.Module):
    """Logits that are the standardised values of the centre, with a network of one pixel."""

    def forward(self, x):
        return x.flatten(1)


def test_the_class_is_the_first_of_the_largest_and_none_where_that_is_not_finite():
    exported = graphexport.export_network(Spectrum(), card_of("pixel_network", 1, 3), Context())
    run = session_of(exported.dense)
    values = np.zeros((1, 3, 1, 6), np.float32) + np.reshape(MEANS, (-1, 1, 1)).astype(np.float32)
    values[0, 2, 0, 1] += 1
    values[0, :, 0, 2] = np.nan
    values[0, 1, 0, 3] = np.inf
    values[0, :, 0, 4] = -np.inf
    values[0, 0, 0, 5] = -np.inf
    assert run.run(["classes"], {"values": values})[0].tolist() == [[[0, 2, 255, 255, 255, 1]]]


def session_of(content):
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("classes", "dtype"), [(16, np.uint8), (17, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_many_classes_take_a_wider_type(classes, dtype):
    class Many(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, classes)
            self.layer.weight.data[:] = torch.linspace(0, 1, classes)[:, None]

        def forward(self, x):
            return self.layer(x.flatten(1))

    exported = graphexport.export_network(Many(), card_of("many", 1, classes), Context())
    values = np.full((1, 3, 1, 2), 1e4, np.float32)
    values[0, :, 0, 1] = np.nan
    (found,) = session_of(exported.dense).run(["classes"], {"values": values})
    assert found.dtype == dtype and found.tolist() == [[[classes - 1, np.iinfo(dtype).max]]]


class Padded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x):
        return self.convolution(x).mean((2, 3))


def test_a_network_without_a_dense_form_says_why_and_has_a_patch_graph(tmp_path):
    path, card, _ = saved(tmp_path / "m.safetensors", size=4)
    context = Log()
    graphs.export_graphs(Padded(), card, path, context)
    found = graphs.graphs_of(path, card, context)
    assert found.dense is None and found.reason == "a convolution pads the patch with zeros" and not context.lines
    run = session(found.patch)
    assert run.run(["logits"], {"values": scene(4, 4)})[0].shape == (1, 5, 1, 1)
    facts = run.get_modelmeta().custom_metadata_map
    assert facts["deepscape.reason"] == found.reason and facts["deepscape.patch_size"] == "4"
    assert facts["deepscape.network"] == "pixel_network" and facts["deepscape.form"] == "patch"


def test_a_network_of_one_class_per_pixel_has_one_graph_for_its_grid():
    module = build_network("unet", 3, 4, 0, {"width": 2, "depth": 2}).eval()
    card = replace(card_of("unet", 32, 4), output="pixels", stride=4)
    exported = graphexport.export_network(module, card, Context())
    assert exported.patch is None and exported.reason == ""
    values = scene(20, 36)
    logits, classes = session_of(exported.dense).run(["logits", "classes"], {"values": values})
    standardised = (torch.from_numpy(values) - torch.tensor(MEANS)[:, None, None]) / torch.tensor(STDS)[:, None, None]
    with torch.inference_mode():
        assert np.allclose(logits, module(standardised).numpy(), atol=1e-4)
    assert classes.shape == (1, 20, 36)


# --- the cache -------------------------------------------------------------------------------------------------------


@functools.cache
def ready():
    return graphexport.export_network(random_network("pixel_network", 3), card_of("pixel_network", 3), Context())


@pytest.fixture
def exports(monkeypatch):
    """The graphs of one small network in place of those that take seconds; returns how often they were made."""
    calls = []

    def exported(module, card, context):
        calls.append(module)
        return made

    made = ready()
    monkeypatch.setattr(graphexport, "export_network", exported)
    return calls


def test_graphs_are_made_once(exports, tmp_path, home):
    path, card, module = saved(tmp_path / "m.safetensors")
    context = Log()
    graphs.export_graphs(module, card, path, context)
    found = graphs.graphs_of(path, card, context)
    graphs.export_graphs(module, card, path, context)
    assert len(exports) == 1 and found.dense.parent == home / "cache" / "graphs" and not context.lines
    copy = tmp_path / "copy of it.safetensors"
    copy.write_bytes(Path(path).read_bytes())
    assert graphs.graphs_of(str(copy), card, context) == found
    assert not [name for name in os.listdir(found.dense.parent) if "part" in name]


def test_another_model_has_graphs_of_its_own(exports, tmp_path):
    first, card, module = saved(tmp_path / "a.safetensors")
    module.layers[0].weight.data += 1
    save_model(str(tmp_path / "b.safetensors"), card, module_tensors(module))
    found = [graphs.graphs_of(each, card, Context()) for each in (first, str(tmp_path / "b.safetensors"))]
    assert found[0].dense != found[1].dense
    weights = [made.layers[0].weight for made in exports]
    assert torch.equal(weights[0] + 1, weights[1])


@pytest.mark.parametrize("damage", ["dense", "patch", "index", "missing", "format"])
def test_a_damaged_cache_is_made_again(damage, exports, tmp_path, monkeypatch):
    path, card, _ = saved(tmp_path / "m.safetensors")
    found = graphs.graphs_of(path, card, Context())
    index = found.dense.with_name(found.dense.name.split("-")[0] + ".json")
    if damage == "index":
        index.write_text(index.read_text()[:20])
    elif damage == "missing":
        found.patch.unlink()
    elif damage == "format":
        monkeypatch.setattr(graphs, "GRAPH_FORMAT", graphs.GRAPH_FORMAT + 1)
    else:
        file = getattr(found, damage)
        file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    context = Log()
    again = graphs.graphs_of(path, card, context)
    assert "graphs are made" in context.lines[0]
    assert session(again.dense).run(["logits"], {"values": scene(5, 5)})[0].shape == (1, 5, 3, 3)
    assert session(again.patch) and len(exports) == 2


def test_the_cache_answers_without_torch(exports, tmp_path):
    path, card, _ = saved(tmp_path / "m.safetensors")
    graphs.graphs_of(path, card, Context())
    code = (
        "import sys\nfrom deepscape.engine.graphs import graphs_of\nfrom deepscape.models.cards import read_card\n"
        "from deepscape.tasks.context import Context\n"
        f"print(graphs_of({path!r}, read_card({path!r}), Context()).dense.is_file(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_where_the_cache_cannot_be_written_the_scratch_folder_is_used(exports, tmp_path, home):
    path, card, module = saved(tmp_path / "m.safetensors")
    home.mkdir()
    (home / "cache").write_text("a file in the folder's place")
    context = Log(str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    found = graphs.graphs_of(path, card, context)
    assert found.dense.parent == tmp_path / "scratch" / "graphs" and session(found.dense)
    graphs.export_graphs(module, card, path, context)


def test_a_full_disk_in_the_cache_is_no_end(exports, tmp_path, monkeypatch):
    path, card, _ = saved(tmp_path / "m.safetensors")
    write = graphs._write

    def full(target, content):
        if "home" in target.parts:
            raise OSError(28, "No space left on device")
        write(target, content)

    monkeypatch.setattr(graphs, "_write", full)
    (tmp_path / "scratch").mkdir()
    context = Log(str(tmp_path / "scratch"))
    assert graphs.graphs_of(path, card, context).dense.is_file()
    assert any("No space left on device" in line for line in context.lines)


def test_what_was_not_used_for_longest_goes_first(exports, tmp_path, home, monkeypatch):
    folder = home / "cache" / "graphs"
    folder.mkdir(parents=True)
    for age, key in enumerate(("young", "middle", "old")):
        for suffix in (".json", "-dense.onnx", "-dense.onnx.timings.json", "-patch.onnx"):
            file = folder / (key + suffix)
            file.write_bytes(bytes(1000))
            os.utime(file, (1e9 - age, 1e9 - age))
    # An old model that was used today.
    os.utime(folder / "old.json")
    monkeypatch.setattr(graphs, "MOST_FILES", 9)
    path, card, _ = saved(tmp_path / "m.safetensors")
    new = graphs.graphs_of(path, card, Context()).dense.name.split("-")[0]
    assert {name.split(".")[0].split("-")[0] for name in os.listdir(folder)} == {"old", new}
    monkeypatch.setattr(graphs, "MOST_BYTES", 3000)
    graphs._prune(folder, new)
    assert {name.split(".")[0].split("-")[0] for name in os.listdir(folder)} == {new}


def test_training_ends_with_the_graphs_of_its_model(tmp_path):
    train = TrainClassifier(
        patchsets.dataset(tmp_path), str(tmp_path / "m"), validation_share=0.0, network="pixel_network", epochs=1
    )
    output = train_classifier(train, Context()).output
    context, values = Log(), np.full((1, 3, 5, 5), 10, np.float32)
    found = graphs.graphs_of(output, read_card(output), context)
    assert not context.lines
    loaded = load_model(output)
    bands = loaded.card.sources[0].bands
    mean, std = (torch.tensor([getattr(band, name) for band in bands])[:, None, None] for name in ("mean", "std"))
    with torch.inference_mode():
        expected = loaded.module((torch.from_numpy(values) - mean) / std).numpy()
    assert np.allclose(session(found.patch).run(["logits"], {"values": values})[0][:, :, 0, 0], expected, atol=1e-5)


def test_training_is_not_lost_when_its_graphs_cannot_be_made(tmp_path):
    class Unfit(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :5] if float(x.sum()) > 0 else x.flatten(1)[:, 1:6]

    path, card, _ = saved(tmp_path / "m.safetensors")
    context = Log()
    graphs.export_graphs(Unfit(), card, path, context)
    graphs.export_graphs(Unfit(), card, str(tmp_path / "nowhere.safetensors"), context)
    assert "could not be made now" in context.lines[0] and "RUNTIME torch" in context.lines[0]
    assert "nowhere.safetensors" in context.lines[1] and len(context.lines) == 2


def test_exporting_leaves_the_network_and_the_generator_alone():
    module = random_network("compact_cnn", 5).train()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    generator = torch.get_rng_state()
    graphexport.export_network(module, card_of("compact_cnn", 5), Context())
    assert module.training and torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_a_missing_model_and_one_without_a_network_are_named(tmp_path):
    with pytest.raises(BadInput, match="'nowhere' cannot be read"):
        graphs.graphs_of("nowhere", card_of("compact_cnn", 5), Context())


def test_the_index_names_what_it_holds(exports, tmp_path):
    path, card, _ = saved(tmp_path / "m.safetensors")
    found = graphs.graphs_of(path, card, Context())
    index = json.loads(found.dense.with_name(found.dense.name.split("-")[0] + ".json").read_text())
    assert index == {
        "format": graphs.GRAPH_FORMAT,
        "reason": "",
        "live": None,
        "files": {"dense": found.dense.name, "patch": found.patch.name},
    }
