"""Crops and shuffles that are written as convolutions, and sums that become part of them, for ONNX Runtime alone."""

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


def test_both_graphs_give_the_same_logits(on_x86):
    exported = export_network(*network_and_card(), Context())
    before, after = operations(exported.dense), operations(exported.convolved)
    crops = before.count("Pad") - after.count("Pad")
    # That of the three classes is no whole block.
    assert crops >= 3 and after.count("Pad") == 1
    assert after.count("Conv") - before.count("Conv") == crops
    assert before.count("DepthToSpace") == after.count("ConvTranspose") == 2 and "DepthToSpace" not in after
    assert after.count("AveragePool") == 2
    onnx.checker.check_model(onnx.load_model_from_string(exported.convolved), full_check=True)
    values = np.random.default_rng(0).normal(size=(2, 3, 68, 76)).astype(np.float32)
    found = logits(exported.convolved, values)
    assert found.shape == (2, 3, 68 - 2 * MARGIN, 76 - 2 * MARGIN)
    # Sums alone are rounded in another order.
    assert np.allclose(found, logits(exported.dense, values), rtol=0, atol=1e-5)


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="ONNX Runtime has blocks of channels on x86 alone"
)
def test_onnx_runtime_makes_the_sums_part_of_convolutions(tmp_path):
    exported = export_network(*network_and_card(), Context())
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(exported.convolved, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    sums = [node for node in nodes if node.op_type == "Conv" and len(node.input) == 4]
    assert len(sums) == 2 and all(b"Relu" in str(node.attribute).encode() for node in sums)
    assert not any(node.op_type in ("Add", "Relu") for node in nodes)


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


SAME = [1, 16, "2*h", "2*w"]


def sum_of(second, shape, uses=1, shuffled=SAME):
    """A graph that adds a shuffled image to a second one; ``shape`` and ``shuffled`` are what is told of them."""
    images = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
        for name, sizes in {
            "x": [1, 64, None, None], "shown": [1, 64, "h", "w"], "fine": shuffled, "other": shape,
            "y": [1, 16, None, None],
        }.items()
    ]  # fmt: skip
    weights = np.random.default_rng(1).normal(size=(16, 16, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Identity", ["x"], ["shown"]),
        helper.make_node("DepthToSpace", ["shown"], ["fine"], blocksize=2, mode="CRD"),
        helper.make_node("DepthToSpace", ["shown"], ["again"], blocksize=2, mode="CRD"),
        second,
        helper.make_node("Add", ["other", "fine"], ["y" if uses == 1 else "sum"]),
        *([helper.make_node("Add", ["sum", "fine"], ["y"])] if uses == 2 else []),
    ]
    return helper.make_model(
        helper.make_graph(
            nodes, "g", images[:1], images[-1:], [numpy_helper.from_array(weights, "weights")], value_info=images[1:-1]
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


CONVOLUTION = helper.make_node("Conv", ["again", "weights"], ["other"])


@pytest.mark.parametrize(
    ("model", "joined"),
    [
        (sum_of(CONVOLUTION, SAME), True),
        (sum_of(CONVOLUTION, [1, 16, None, None]), False),
        (sum_of(CONVOLUTION, [1, 16, None, None], shuffled=[1, 16, None, None]), False),
        (sum_of(CONVOLUTION, [1, 16, "2*h", "2*h"]), False),
        (sum_of(CONVOLUTION, SAME, uses=2), True),
        (sum_of(helper.make_node("Relu", ["again"], ["other"]), SAME), False),
    ],
)
def test_only_sums_with_a_convolution_of_the_same_shape_are_told_of(on_x86, model, joined):
    x = np.random.default_rng(0).normal(size=(1, 64, 5, 7)).astype(np.float32)
    x[0, :, 2, 3] = np.nan  # of all fine pixels that a coarse one becomes
    before = run(model, x)
    assert convolve(model)
    operations = [node.op_type for node in model.graph.node]
    assert operations.count("AveragePool") == joined
    assert sorted(info.name for info in model.graph.value_info) == (["fine", "other"] if joined else [])
    found = run(model, x)
    assert np.isnan(before).any() and np.allclose(found, before, rtol=0, atol=1e-6, equal_nan=True)


def test_an_image_of_several_sums_is_told_of_once_and_needs_no_pooling_where_it_is_in_blocks(on_x86):
    """A chain as in residual networks: what was added is added to, too."""
    model = sum_of(CONVOLUTION, SAME)
    graph = model.graph
    weights = numpy_helper.from_array(np.ones((16, 16, 1, 1), np.float32), "ones")
    graph.initializer.append(weights)
    graph.node[-1].output[0] = "sum"
    graph.node.append(helper.make_node("Conv", ["sum", "ones"], ["third"]))
    graph.node.append(helper.make_node("Add", ["third", "other"], ["y"]))
    graph.value_info.append(helper.make_tensor_value_info("third", onnx.TensorProto.FLOAT, SAME))
    x = np.random.default_rng(0).normal(size=(1, 64, 5, 7)).astype(np.float32)
    before = run(model, x)
    assert convolve(model)
    assert [node.op_type for node in graph.node].count("AveragePool") == 1
    told = {info.name: [size.dim_param for size in info.type.tensor_type.shape.dim] for info in graph.value_info}
    assert sorted(told) == ["fine", "other", "third"] and len(graph.value_info) == 3
    assert all(sizes == ["images", "", "rows_0", "cols_0"] for sizes in told.values())
    onnx.checker.check_model(model, full_check=True)
    assert np.allclose(run(model, x), before, rtol=0, atol=1e-4)


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
