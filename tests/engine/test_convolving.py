"""Crops and shuffles that are written as convolutions: the same numbers to the last bit, for ONNX Runtime alone."""

import platform
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from deepscape.engine.convolving import convolve
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
    assert before.count("DepthToSpace") == after.count("ConvTranspose") == 2 and "DepthToSpace" not in after
    onnx.checker.check_model(onnx.load_model_from_string(exported.convolved), full_check=True)
    values = np.random.default_rng(0).normal(size=(2, 3, 68, 76)).astype(np.float32)
    found = logits(exported.convolved, values)
    assert found.shape == (2, 3, 68 - 2 * MARGIN, 76 - 2 * MARGIN)
    assert np.array_equal(found, logits(exported.dense, values))


def test_other_machines_and_other_channels_keep_their_crops(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert export_network(*network_and_card(), Context()).convolved is None
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    exported = export_network(*network_and_card(width=3), Context())
    assert operations(exported.convolved).count("Pad") == operations(exported.dense).count("Pad") > 1


def graph_of(node, channels, kind=onnx.TensorProto.FLOAT, constants=()):
    """A graph of one operation, from "shown" to "y"."""
    images = [helper.make_tensor_value_info(name, kind, [1, channels, None, None]) for name in ("x", "shown")]
    result = helper.make_tensor_value_info("y", kind, [1, None, None, None])
    nodes = [helper.make_node("Identity", ["x"], ["shown"]), node]
    return helper.make_model(
        helper.make_graph(nodes, "g", images[:1], [result], constants, value_info=images[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


def padded(sides, channels=16, kind=onnx.TensorProto.FLOAT):
    """A graph of one Pad by these numbers: before and behind of the four axes."""
    constant = numpy_helper.from_array(np.array(sides, np.int64), "sides")
    return graph_of(helper.make_node("Pad", ["shown", "sides"], ["y"]), channels, kind, [constant])


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
    assert convolve(model) is written
    assert (model.SerializeToString() != plain) is written
    if written:
        x = np.random.default_rng(0).normal(size=(1, 16, 9, 12)).astype(np.float32)
        assert np.array_equal(run(model, x), x[:, :, 3:-3, 3:-3])


@pytest.mark.parametrize(("channels", "size"), [(128, 2), (4, 2), (20, 2), (27, 3)])
def test_shuffles_are_written_anew_whatever_the_channels(on_x86, channels, size):
    model = graph_of(helper.make_node("DepthToSpace", ["shown"], ["y"], blocksize=size, mode="CRD"), channels)
    x = np.random.default_rng(0).normal(size=(1, channels, 5, 7)).astype(np.float32)
    before = run(model, x)
    assert convolve(model) and not any(node.op_type == "DepthToSpace" for node in model.graph.node)
    assert np.array_equal(run(model, x), before)


def test_shuffles_of_another_order_stay(on_x86):
    assert not convolve(graph_of(helper.make_node("DepthToSpace", ["shown"], ["y"], blocksize=2, mode="DCR"), 16))
    assert not convolve(graph_of(helper.make_node("DepthToSpace", ["shown"], ["y"], blocksize=2), 16))


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


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
