"""Model files: they come back as they were written, and damaged ones are named."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from deepscape.engine import modelfiles
from deepscape.engine.nodearrays import Forest
from deepscape.models.build import build_network, parameter_count
from deepscape.models.cards import Card, CardBand, CardSource, read_card
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.errors import BadInput

BANDS = (CardBand("B2", 1.0, 2.0, float("nan"), float("nan")), CardBand("B3", 0.5, 1.0, 0.4, 1.1, scale=0.1))
CLASSES = (ClassEntry(0, "Wald", "#00ff00"), ClassEntry(300, "eau à côté", "#0000ff"))
NETWORK = Card("network", "compact_cnn", (CardSource(7, BANDS),), CLASSES)
FOREST = Card("forest", "random_forest", (CardSource(7, BANDS),), CLASSES, arguments={"features": "pixel"})


def stump():
    return Forest(
        offsets=np.array([0, 3]),
        feature=np.array([1, -1, -1], dtype=np.int32),
        threshold=np.array([0.5, 0, 0]),
        children=np.array([[1, 2], [0, 0], [1, 0]], dtype=np.int32),
        probabilities=np.array([[1.0, 0.0], [0.25, 0.75]]),
    )


def save_network(path):
    torch.manual_seed(0)
    module = build_network("compact_cnn", 2, 2, 7).eval()
    modelfiles.save_model(str(path), NETWORK, modelfiles.module_tensors(module))
    return module


def test_a_network_comes_back_as_it_was(tmp_path):
    path = tmp_path / "modèle d'été.safetensors"
    module = save_network(path)
    loaded = modelfiles.load_model(str(path))
    patches = torch.randn(4, 2, 7, 7)
    assert torch.equal(module(patches), loaded.module(patches))
    assert loaded.forest is None and not loaded.module.training
    assert loaded.card.classes == CLASSES and loaded.card.sources[0].bands[1] == BANDS[1]
    assert np.isnan(loaded.card.sources[0].bands[0].scene_mean)
    assert parameter_count(loaded.module) == parameter_count(module)
    assert os.listdir(tmp_path) == [path.name]


def test_loading_leaves_torchs_generator_alone(tmp_path):
    save_network(tmp_path / "m.safetensors")
    state = torch.get_rng_state()
    modelfiles.load_model(str(tmp_path / "m.safetensors"))
    assert torch.equal(state, torch.get_rng_state())


def test_a_forest_comes_back_as_it_was(tmp_path):
    path = str(tmp_path / "f.safetensors")
    modelfiles.save_model(path, FOREST, stump().tensors())
    forest = modelfiles.load_model(path).forest
    assert forest.predict_proba(np.array([[9, 0.5], [9, 0.6]])).tolist() == [[1, 0], [0.25, 0.75]]


def test_a_forest_is_loaded_without_torch_and_scikit_learn(tmp_path):
    path = str(tmp_path / "f.safetensors")
    modelfiles.save_model(path, FOREST, stump().tensors())
    code = (
        "import sys; from deepscape.engine.modelfiles import load_model; load_model(sys.argv[1]);"
        "print([m for m in ('torch', 'sklearn', 'lightning_fabric', 'scipy') if m in sys.modules])"
    )
    plugins = Path(modelfiles.__file__).parents[1] / ".build" / "plugins"
    done = subprocess.run(
        [sys.executable, "-c", code, path], env={**os.environ, "PYTHONPATH": str(plugins)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("cut", [0, 5, 200, 4000, -1])
def test_a_file_that_is_cut_short_is_called_damaged(tmp_path, cut):
    path = tmp_path / "m.safetensors"
    save_network(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadInput, match="damaged") as caught:
        modelfiles.load_model(str(path))
    assert str(path) in caught.value.message and caught.value.remedy


@pytest.mark.parametrize("kind", ["network", "forest"])
def test_a_single_bit_that_changed_is_called_damaged(tmp_path, kind):
    path = tmp_path / "m.safetensors"
    if kind == "network":
        save_network(path)
    else:
        modelfiles.save_model(str(path), FOREST, stump().tensors())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"'.*m\.safetensors' is damaged: its weights are not those that were saved"):
        modelfiles.load_model(str(path))


def test_a_model_of_an_earlier_version_has_no_checksum(tmp_path, monkeypatch):
    path = str(tmp_path / "m.safetensors")
    monkeypatch.setattr(modelfiles, "CHECKSUM_KEY", "something else")
    save_network(path)
    monkeypatch.undo()
    assert modelfiles.load_model(path).module is not None


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_text("no model at all, but a rather long text of several words")
    with pytest.raises(BadInput, match=r"not a model file"):
        modelfiles.load_model(str(path))
    with pytest.raises(BadInput, match=r"does not exist"):
        modelfiles.load_model(str(tmp_path / "none.safetensors"))


def test_weights_that_do_not_fit_the_card_are_named(tmp_path):
    path = str(tmp_path / "m.safetensors")
    module = build_network("compact_cnn", 3, 2, 7)
    modelfiles.save_model(path, NETWORK, modelfiles.module_tensors(module))
    with pytest.raises(BadInput, match=r"'low' has the shape 1 x 3 x 1 x 1"):
        modelfiles.load_model(path)


def test_a_missing_array_and_wrong_arguments_are_named(tmp_path):
    path = str(tmp_path / "m.safetensors")
    tensors = modelfiles.module_tensors(build_network("compact_cnn", 2, 2, 7))
    tensors.pop("classifier.bias")
    modelfiles.save_model(path, NETWORK, tensors)
    with pytest.raises(BadInput, match=r"'classifier\.bias' is missing"):
        modelfiles.load_model(path)
    modelfiles.save_model(path, dataclasses.replace(NETWORK, arguments={"width": "wide"}), tensors)
    with pytest.raises(BadInput, match=r"arguments of 'compact_cnn'"):
        modelfiles.load_model(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("children", [[1, 2], [0, 0], [2, 0]]),  # a leaf that does not exist
        ("children", [[0, 2], [0, 0], [1, 0]]),  # a circle
        ("children", [[1, 3], [0, 0], [1, 0]]),  # a child outside the tree
        ("feature", [2, -1, -1]),  # a feature that the card lacks
        ("offsets", [0, 4]),
    ],
)
def test_node_arrays_that_contradict_each_other_are_refused(tmp_path, name, value):
    path = str(tmp_path / "f.safetensors")
    tensors = stump().tensors()
    tensors[name] = np.array(value, dtype=tensors[name].dtype)
    modelfiles.save_model(path, FOREST, tensors)
    with pytest.raises(BadInput, match=r"contradict"):
        modelfiles.load_model(path)


def test_a_missing_folder_is_named_and_nothing_is_left(tmp_path):
    with pytest.raises(BadInput, match=r"folder .* does not exist"):
        modelfiles.save_model(str(tmp_path / "no" / "m.safetensors"), FOREST, stump().tensors())


def test_an_older_model_survives_a_failed_write(tmp_path, monkeypatch):
    path = tmp_path / "f.safetensors"
    modelfiles.save_model(str(path), FOREST, stump().tensors())
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Exception, match=r"No room is left"):
        modelfiles.save_model(str(path), NETWORK, {})
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_the_suffix_is_added_once():
    assert modelfiles.with_suffix("a/b") == "a/b.safetensors"
    assert modelfiles.with_suffix("a/b.safetensors") == "a/b.safetensors"


def test_the_card_is_read_without_the_weights(tmp_path):
    save_network(tmp_path / "m.safetensors")
    assert read_card(str(tmp_path / "m.safetensors")).network == "compact_cnn"
