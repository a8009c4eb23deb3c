"""Crops that are written as convolutions: the same numbers to the last bit, for ONNX Runtime alone."""

import platform
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from deepscape.engine.graphcrops import convolve_crops
from deepscape.engine.graphexport import export_network
from deepscape.engine.graphs import graphs_of
from deepscape.engine.modelfiles import module_tensors, save_model
from deepscape.engine.runtimes import Model, Wishes
from deepscape.engine.runtimes.onnx import OnnxRuntime
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource, read_card
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from onnx import helper, numpy_helper

MARGIN, STRIDE = 24, 4


def network_and_card(width=16):
    torch.manual_seed(0)
    arguments = {"width": width, "depth": 2, "upsampling": "nearest"}
    bands = tuple(CardBand("", 0.0, 1.0, 0.0, 1.0) for _ in range(3))
    table = tuple(ClassEntry(value, str(value), "#000000") for value in (1, 2, 3))
    card = Card(
        "network", "unet", (CardSource(32, bands),), table, arguments=arguments, output="pixels", context="local",
        margin=MARGIN, stride=STRIDE,
    )  # fmt: skip
    return build_network("unet", 3, 3, 32, arguments).eval(), card


@pytest.fixture
def on_x86(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def operations(content):
    return [node.op_type for node in onnx.load_model_from_string(content).graph.node]


def logits(content, values):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"values": values})[0]


def test_both_graphs_give_the_same_bits(on_x86):
    exported = export_network(*network_and_card(), Context())
    before, after = operations(exported.dense), operations(exported.convolved)
    crops = before.count("Pad") - after.count("Pad")
    # That of the three classes is no whole block.
    assert crops >= 3 and after.count("Pad") == 1
    assert after.count("Conv") - before.count("Conv") == crops
    onnx.checker.check_model(onnx.load_model_from_string(exported.convolved), full_check=True)
    values = np.random.default_rng(0).normal(size=(2, 3, 68, 76)).astype(np.float32)
    found = logits(exported.convolved, values)
    assert found.shape == (2, 3, 68 - 2 * MARGIN, 76 - 2 * MARGIN)
    assert np.array_equal(found, logits(exported.dense, values))


def test_other_machines_and_other_channels_keep_their_crops(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert export_network(*network_and_card(), Context()).convolved is None
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    assert export_network(*network_and_card(width=8), Context()).convolved is not None  # 16 channels further down
    assert export_network(*network_and_card(width=3), Context()).convolved is None


def padded(sides, channels=16, kind=onnx.TensorProto.FLOAT):
    """A graph of one Pad by these numbers: before and behind of the four axes."""
    images = [helper.make_tensor_value_info(name, kind, [1, channels, None, None]) for name in ("x", "shown", "y")]
    nodes = [
        helper.make_node("Identity", ["x"], ["shown"]),
        helper.make_node("Pad", ["shown", "sides"], ["y"]),
    ]
    constant = numpy_helper.from_array(np.array(sides, np.int64), "sides")
    return helper.make_model(
        helper.make_graph(nodes, "g", images[:1], images[2:], [constant], value_info=images[1:2]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


@pytest.mark.parametrize(
    ("model", "written"),
    [
        (padded([0, 0, -3, -3, 0, 0, -3, -3]), True),
        (padded([0, 0, -3, -2, 0, 0, -3, -2]), False),
        (padded([0, 0, -3, -3, 0, 0, -2, -3]), False),
        (padded([0, 0, 3, 3, 0, 0, 3, 3]), False),
        (padded([0, 0, 0, 0, 0, 0, 0, 0]), False),
        (padded([0, -3, -3, -3, 0, -3, -3, -3]), False),
        (padded([0, 0, -3, -3, 0, 0, -3, -3], channels=24), False),
        (padded([0, 0, -3, -3, 0, 0, -3, -3], kind=onnx.TensorProto.DOUBLE), False),
    ],
)
def test_only_crops_alike_on_all_sides_of_whole_blocks_are_written_anew(on_x86, model, written):
    plain = model.SerializeToString()
    assert convolve_crops(model) is written
    assert (model.SerializeToString() != plain) is written
    if written:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        x = np.random.default_rng(0).normal(size=(1, 16, 9, 12)).astype(np.float32)
        assert np.array_equal(session.run(None, {"x": x})[0], x[:, :, 3:-3, 3:-3])


def test_onnx_runtime_takes_it_and_the_cache_keeps_it(on_x86, monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPSCAPE_HOME", str(tmp_path / "home"))
    path = str(tmp_path / "m.safetensors")
    network, card = network_and_card()
    save_model(path, card, module_tensors(network))
    made, kept = (graphs_of(path, read_card(path), Context()) for _ in range(2))
    assert made == kept and "-convolved-" in kept.convolved.name and kept.patch == kept.dense
    opened = []

    class Watched(OnnxRuntime):
        def open(self, graph):
            opened.append(graph)
            return super().open(graph)

    Watched(Model(read_card(path), path), kept, Wishes(), Context())
    Watched(Model(read_card(path), path), replace(kept, convolved=None), Wishes(), Context())
    Watched.in_blocks = False
    Watched(Model(read_card(path), path), kept, Wishes(), Context())
    assert opened == [kept.convolved, kept.dense, kept.dense]
