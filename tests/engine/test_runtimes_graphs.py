"""Runtimes on ONNX graphs: equal to float64, to the last bit over tiles and threads, and chosen as they should be."""

import importlib.util
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from deepscape.engine.graphs import Graphs, graphs_of
from deepscape.engine.modelfiles import module_tensors, save_model
from deepscape.engine.runtimes import Model, Wishes, choosing, create_runtime, geometry_of, timing, trial
from deepscape.engine.runtimes.onnx import OnnxRuntime
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry, palette_colour
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, JobCancelled

from .listening import Log

MEANS, DEVIATIONS = (300.0, 900.0, -4.0), (120.0, 400.0, 2.5)
NAN = float("nan")
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
ON_GRAPHS = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]


class Case:
    """A network with random weights, its file, and its graphs."""

    def __init__(self, folder, network, size, **fields):
        torch.manual_seed(len(network))
        bands = tuple(CardBand("", m, s, NAN, NAN) for m, s in zip(MEANS, DEVIATIONS))
        table = tuple(ClassEntry(v, f"name {v}", palette_colour(v)) for v in range(5))
        self.card = Card("network", network, (CardSource(size, bands),), table, **fields)
        self.module = build_network(network, 3, 5, size, fields.get("arguments", {}))
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            if tensor.is_floating_point():
                low = torch.rand_like(tensor) * 0.5 + 0.2
                tensor.data = low if tensor.ndim < 2 else torch.randn_like(tensor) * 0.2
        self.module.eval()
        self.path = str(folder / f"{network}.safetensors")
        save_model(self.path, self.card, module_tensors(self.module))
        self.graphs = graphs_of(self.path, self.card, Context())
        self.model = Model(self.card, self.path)

    def block(self, height, width, missing=0.0, seed=0):
        rng = np.random.default_rng(seed)
        geometry = geometry_of(self.card)
        shape = height + geometry.before + geometry.after, width + geometry.before + geometry.after
        values = rng.standard_normal((3, *shape)) * np.array(DEVIATIONS)[:, None, None]
        values += np.array(MEANS)[:, None, None]
        values[rng.random(values.shape) < missing] = NAN
        return values.astype(np.float32), rng.random((height, width)) < 0.8

    def expected(self, values, wanted):
        """The logits of every wanted pixel's patch in float64 ``(K, n)``."""
        size = self.card.sources[0].patch_size
        means, deviations = (np.array(v)[:, None, None] for v in (MEANS, DEVIATIONS))
        standard = np.nan_to_num((values.astype(float) - means) / deviations, nan=0.0)
        windows = np.lib.stride_tricks.sliding_window_view(standard, (size, size), (1, 2))
        patches = torch.from_numpy(np.ascontiguousarray(windows[:, wanted].swapaxes(0, 1)))
        with torch.inference_mode():
            found = self.module.double()(patches).numpy().T
        self.module.float()
        return found

    def runtime(self, name="onnxruntime", context=None, tiles=(), **wishes):
        return create_runtime(self.model, Wishes(runtime=name, **wishes), context or Context(), tiles)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("graphs")
        patch.setenv("DEEPSCAPE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def simple(home):
    return Case(home, "simple_cnn", 16)


@pytest.fixture(scope="module")
def compact(home):
    return Case(home, "compact_cnn", 7)


@pytest.fixture(scope="module")
def unet(home):
    return Case(home, "unet", 32, arguments={"width": 4, "depth": 2}, output="pixels", margin=24, stride=4)


def assert_equal(found, expected):
    assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["simple", "compact"])
@pytest.mark.parametrize("runtime", [*ON_GRAPHS, "torch"])
def test_every_runtime_equals_float64_over_whole_blocks(request, name, runtime):
    case = request.getfixturevalue(name)
    context = Log()
    mapper = case.runtime(runtime, context, [case.block(40, 40)], device="cpu")
    assert any("in large pieces" in line and "on 64 patches" in line for line in context.lines) and not context.warnings
    for missing in (0.0, 0.1):
        values, wanted = case.block(33, 50, missing, seed=1)
        before = values.copy()
        scores = mapper.scores(values, wanted, whole=missing == 0)
        assert_equal(scores[:, wanted], case.expected(values, wanted))
        best = mapper.best(values, wanted)
        assert best.dtype == np.uint8 and (best == scores.argmax(axis=0))[wanted].all()
        np.testing.assert_array_equal(values, before)
    assert mapper.probabilities(scores).sum(axis=0) == pytest.approx(1, abs=1e-5)
    assert (mapper.device, mapper.precision) == ("cpu", "full")


@pytest.mark.parametrize("kind", ON_GRAPHS)
def test_without_a_graph_for_whole_blocks_it_runs_patch_by_patch(compact, kind):
    context = Log()
    makers = choosing._makers(
        compact.model, Graphs(compact.graphs.patch, None, "it attends"), Wishes(batch=100), context, ()
    )
    runtime = makers[kind]()
    assert context.lines == ["The network 'compact_cnn' is run patch by patch: it attends."]
    values, wanted = compact.block(21, 34, 0.1)
    scores = runtime.scores(values, wanted)
    assert_equal(scores[:, wanted], compact.expected(values, wanted))
    best = runtime.best(values, wanted)
    assert (best == scores.argmax(axis=0))[wanted].all() and (best[~wanted] == 255).all()
    runtime._context.cancelled.set()
    with pytest.raises(JobCancelled):
        runtime.best(values, wanted)


def test_a_graph_that_differs_is_left_aside_with_a_warning(home, compact):
    other = Case(home / "..", "compact_cnn", 7, arguments={"width": 8})
    context = Log()
    tiles = [compact.block(40, 40)]
    runtime = OnnxRuntime(
        compact.model, Graphs(compact.graphs.patch, other.graphs.dense), Wishes(), context, tiles
    )  # fmt: skip
    assert "gets other scores than patch by patch" in context.warnings[0]
    values, wanted = tiles[0]
    assert_equal(runtime.scores(values, wanted)[:, wanted], compact.expected(values, wanted))


def test_scores_that_are_not_finite_are_no_class(simple):
    values, wanted = simple.block(9, 9)
    values[:, :16, :16] = np.inf
    best = simple.runtime().best(values, np.ones_like(wanted))
    assert best[0, 0] == 255


@pytest.mark.parametrize("name", ["simple", "compact"])
def test_results_are_equal_to_the_last_bit_over_tiles_and_threads(request, name):
    case = request.getfixturevalue(name)
    runtime, geometry = case.runtime(), geometry_of(case.card)
    values, wanted = case.block(61, 83)
    reach = geometry.before + geometry.after
    whole = runtime.scores(values, wanted)

    def part(row, col, height, width):
        cells = np.s_[:, row : row + height + reach, col : col + width + reach]
        return runtime.scores(values[cells], wanted[row : row + height, col : col + width])

    for height, width in ((16, 16), (61, 7), (5, 83), (1, 1), (32, 50)):
        places = [(r, c) for r in range(0, 61 - height + 1, height) for c in range(0, 83 - width + 1, width)][:40]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda place: part(*place, height, width), places))  # noqa: B023
        for (row, col), scores in zip(places, found):
            asked = wanted[row : row + height, col : col + width]
            np.testing.assert_array_equal(scores[:, asked], whole[:, row : row + height, col : col + width][:, asked])


@pytest.mark.parametrize("name", ["simple", "compact"])
def test_pieces_of_a_window_join_to_the_whole_and_those_without_a_wanted_pixel_are_not_computed(
    request, name, monkeypatch
):
    case = request.getfixturevalue(name)
    runtime, (values, _) = case.runtime(), case.block(61, 83)
    wanted = np.zeros((61, 83), bool)
    wanted[20:, :45] = True
    scores, best = runtime.scores(values, wanted), runtime.best(values, wanted)
    asked, evaluate = [], runtime._evaluate

    def counted(part, output):
        asked.append(part.shape[2:])
        return evaluate(part, output)

    runtime._evaluate = counted
    monkeypatch.setattr("deepscape.engine.runtimes.graph.PIECE", (20, 30))
    np.testing.assert_array_equal(runtime.scores(values, wanted)[:, wanted], scores[:, wanted])
    reach = runtime.geometry.before + runtime.geometry.after
    # Rows 20, 40 and 60 and columns 0 and 30 of the pieces; the last row is one pixel high.
    assert asked == [(rows + reach, 30 + reach) for rows in (20, 20, 1) for _ in range(2)]
    np.testing.assert_array_equal(runtime.best(values, wanted)[wanted], best[wanted])


@pytest.mark.parametrize("runtime", [*ON_GRAPHS, "torch"])
def test_a_pixel_network_in_windows_equals_the_whole_image_in_one_piece(unet, runtime):
    image = unet.block(96, 80)[0][:, :96, :80]
    standard = (image - np.array(MEANS, np.float32)[:, None, None]) / np.array(DEVIATIONS, np.float32)[:, None, None]
    with torch.inference_mode():
        expected = unet.module(torch.from_numpy(standard)[None])[0].numpy()
    mapper = unet.runtime(runtime, device="cpu")
    # 13 rows and 17 columns: no multiples of the stride.
    cells = np.s_[:, 32 - 24 : 32 + 13 + 28, 28 - 24 : 28 + 17 + 28]
    found = mapper.scores(image[cells], np.ones((13, 17), bool))
    assert_equal(found, expected[:, 32:45, 28:45])
    assert (mapper.best(image[cells], np.ones((13, 17), bool)) == found.argmax(axis=0)).all()


# --- choosing --------------------------------------------------------------------------------------------------------


def test_onnx_runtime_is_the_default_on_the_cpu(compact):
    runtime = compact.runtime("auto", device="cpu")
    assert runtime.name.startswith("ONNX Runtime ") and runtime.device == "cpu" and runtime.beside >= 1


def test_a_runtime_that_is_not_installed_is_refused_with_the_remedy(compact, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name))
    with pytest.raises(BadInput, match="OpenVINO is not installed") as caught:
        compact.runtime("openvino")
    assert caught.value.remedy == "Run 'Set up the engine' with openvino among its EXTRAS, or choose RUNTIME auto."


def test_what_changes_nothing_is_told(compact):
    context = Log()
    runtime = compact.runtime("onnxruntime", context, device="cuda", precision="fast")
    assert runtime.precision == "full" and runtime.device == "cpu"
    assert "DEVICE cuda is left aside" in context.warnings[0]
    assert any("PRECISION fast changes nothing" in line for line in context.lines)


def test_a_gpu_that_is_not_there_leaves_onnx_runtime(compact, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    context = Log()
    runtime = compact.runtime("auto", context, device="cuda")
    assert runtime.name.startswith("ONNX Runtime") and "no CUDA GPU" in context.warnings[0]


def test_a_gpu_is_looked_for_without_torch_where_its_build_knows_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    builds = ("+cpu", True, False), ("+cu130", True, True), ("", False, False), ("+rocm7", False, True)
    for build, driver, expected in builds:
        monkeypatch.setattr(importlib.metadata, "version", lambda name, found=build: f"2.13.0{found}")
        monkeypatch.setattr(choosing, "_driver_counts_gpus", lambda found=driver: found)
        assert choosing.gpu_is_likely() == expected
    assert "torch" not in sys.modules


class Timed:
    """A runtime that needs a known time."""

    def __init__(self, name, seconds, clock):
        self.name, self.seconds, self.clock, self.beside, self.calls = name, seconds, clock, 1, 0

    def best(self, values, wanted, whole=False):
        self.calls += 1
        self.clock[0] += self.seconds
        return wanted


def test_a_long_job_takes_the_runtime_that_proved_faster_and_keeps_the_measurement(compact, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(choosing, "_is_installed", lambda name: True)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9")
    runtimes = {"onnxruntime": Timed("ONNX Runtime 9.9", 1.0, clock), "openvino": Timed("OpenVINO 9.9", 0.5, clock)}
    makers = {name: lambda found=found: found for name, found in runtimes.items()}
    monkeypatch.setattr(choosing, "_makers", lambda *_: makers)
    # In this process, for the clock that both share.
    monkeypatch.setattr(trial, "rate_apart", lambda *given: timing.rate_of(runtimes["openvino"], *given[-3:]))
    tiles = [compact.block(100, 100)]

    def chosen(pixels, context):
        return create_runtime(compact.model, Wishes(device="cpu"), context, tiles, pixels).name

    assert chosen(59 * 10_000, Context()) == "ONNX Runtime 9.9" and runtimes["openvino"].calls == 0
    context = Log()
    assert chosen(61 * 10_000, context) == "OpenVINO 9.9"
    assert context.lines == [
        "Million pixels per second on this machine: ONNX Runtime 9.9 0.01, OpenVINO 9.9 0.02; the faster one maps."
    ]
    file = compact.graphs.dense.with_name(compact.graphs.dense.name + timing.SUFFIX)
    kept = json.loads(file.read_text())
    assert kept[timing.machine_key(Context())] == {"ONNX Runtime 9.9": 0.01, "OpenVINO 9.9": 0.02}
    assert kept["graph"].startswith("sha256:")
    calls = runtimes["openvino"].calls
    assert chosen(61 * 10_000, Context()) == "OpenVINO 9.9" and runtimes["openvino"].calls == calls
    # Another version, or a damaged file: measured anew.
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "10")
    chosen(61 * 10_000, Context())
    assert runtimes["openvino"].calls > calls
    calls = runtimes["openvino"].calls
    file.write_text("{")
    assert chosen(61 * 10_000, Context()) == "OpenVINO 9.9" and runtimes["openvino"].calls > calls


_MADE_UP = """
import threading
class MadeUp:
    name, beside = "Made up", 1
    def __init__(self, model, graphs, wishes, context, tiles):
        if wishes.batch == 13:
            raise MemoryError("no room for 13")
        assert (model.card.network, wishes.batch, context.threads(), len(tiles)) == ("compact_cnn", 7, 2, 1)
        assert graphs.dense.exists() and graphs.patch.exists()
    def best(self, values, wanted, whole=False):
        assert values.shape == (3, 106, 106) and wanted.shape == (100, 100)
        threading.Event().wait(0.01)
        return wanted
"""


class Two(Log):
    def threads(self):
        return 2


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    (tmp_path / "made_up.py").write_text(_MADE_UP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "made_up", "MadeUp"


def test_another_runtime_is_tried_in_a_process_of_its_own(compact, made_up):
    context = Two()
    found = trial.rate_apart(
        *made_up, compact.model, compact.graphs, Wishes(batch=7), *compact.block(100, 100), context
    )  # fmt: skip
    assert 0 < found <= 1.0  # million pixels per second: 10 000 in 0.01 s at best
    assert context.lines == [] and "made_up" not in sys.modules


def test_a_runtime_that_does_not_work_here_is_told_and_counts_nothing(compact, made_up, monkeypatch):
    context, tile = Two(), compact.block(100, 100)
    assert trial.rate_apart(*made_up, compact.model, compact.graphs, Wishes(batch=13), *tile, context) == 0
    assert context.lines == ["MadeUp could not be tried: MemoryError: no room for 13."]
    graph = compact.graphs.dense.with_name("other.onnx")
    graph.write_bytes(b"graph")
    measures = {"a": lambda: 2.0, "b": lambda: 0.0}
    assert timing.fastest(measures, {"a": "A 1", "b": "B 1"}, graph, Context()) == "a"
    kept = json.loads(graph.with_name(graph.name + timing.SUFFIX).read_text())
    assert kept[timing.machine_key(Context())] == {"A 1": 2.0}


def test_a_cancel_ends_the_trial(compact, made_up):
    context = Two()
    context.cancelled.set()
    with pytest.raises(JobCancelled):
        trial.rate_apart(
            *made_up, compact.model, compact.graphs, Wishes(batch=7), *compact.block(100, 100), context
        )  # fmt: skip


def test_without_a_graph_auto_runs_in_torch(compact, monkeypatch):
    from deepscape.engine import graphs

    def none(*_):
        raise BadInput("The network 'x' cannot be written as an ONNX graph: it is odd.", "Choose RUNTIME torch.")

    monkeypatch.setattr(graphs, "graphs_of", none)
    context = Log()
    runtime = create_runtime(compact.model, Wishes(device="cpu"), context, [compact.block(20, 20)])
    assert runtime.name.startswith("torch") and runtime.device == "cpu"
    assert context.lines[0] == "The network 'x' cannot be written as an ONNX graph: it is odd. It runs in torch."
    values, wanted = compact.block(20, 20)
    assert_equal(runtime.scores(values, wanted)[:, wanted], compact.expected(values, wanted))
    with pytest.raises(BadInput, match="it is odd"):
        create_runtime(compact.model, Wishes("onnxruntime", device="cpu"), context)


# --- imports ---------------------------------------------------------------------------------------------------------

_JOB = """
import sys
from deepscape.engine.inference import classify
from deepscape.tasks.context import Context
from deepscape.tasks.jobs import Classify, RasterSource
scene, model, output = sys.argv[1:]
result = classify(Classify(RasterSource(scene), model, output, continue_anyway=True, device_choice="auto"), Context())
heavy = ("torch", "sklearn", "geopandas", "lightning", "lightning_fabric", "onnx", "onnxscript", "pandas", "openvino",
         "scipy", "sympy")
print(result.pixels, [name for name in heavy if name in sys.modules])
"""


def test_mapping_with_a_kept_graph_imports_no_torch(home, compact, tmp_path):
    import rasterio

    values = compact.block(30, 30)[0]
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", count=3, height=36, width=36, dtype="float32", crs="EPSG:32721",
        transform=rasterio.Affine(10, 0, 5e5, 0, -10, 9e6),
    ) as dataset:  # fmt: skip
        dataset.write(values)
    path = [p for p in sys.path if (Path(p) / "deepscape").exists()]
    found = subprocess.run(
        [sys.executable, "-c", _JOB, str(tmp_path / "s.tif"), compact.path, str(tmp_path / "m.tif")],
        capture_output=True, text=True, env={"PYTHONPATH": ":".join(path), "DEEPSCAPE_HOME": str(home)},
    )  # fmt: skip
    assert found.stdout.strip() == f"{36 * 36} []", found.stderr
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert dataset.tags()["DEEPSCAPE_RUNTIME"].startswith("ONNX Runtime ")
        assert dataset.tags()["DEEPSCAPE_PRECISION"] == "full"
