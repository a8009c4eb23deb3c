"""Mapping with networks of one class per pixel, from model file to class raster."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from deepscape.engine.blending import blended
from deepscape.engine.graphs import graphs_of
from deepscape.engine.inference import classify, map_scene
from deepscape.engine.modelfiles import LoadedModel, load_model, module_tensors, save_model
from deepscape.engine.probing import probe
from deepscape.engine.rasters import Layout
from deepscape.engine.runtimes import Model, Wishes
from deepscape.engine.runtimes.onnx import OnnxRuntime
from deepscape.engine.runtimes.torch_runtime import TorchRuntime
from deepscape.engine.scenes import Scene
from deepscape.engine.tiling import plan
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource, read_card
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Classify, RasterSource

VALUES = (1, 4, 9)
CLASSES = tuple(ClassEntry(value, f"name {value}", "#000000") for value in VALUES)
BANDS = tuple(CardBand("", 25.0, 15.0, 24.5, 14.4) for _ in range(3))


def write(path, height, width):
    values = np.random.default_rng(height + width).integers(0, 50, (3, height, width)).astype(np.float32)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=height, width=width, dtype="float32", crs="EPSG:32721",
        transform=rasterio.Affine(10, 0, 5e5, 0, -10, 9e6),
    ) as dataset:  # fmt: skip
        dataset.write(values)
    return values


def read(path, band=1):
    with rasterio.open(path) as dataset:
        return dataset.read(band)


def mapping(folder, model):
    """The job that maps a folder's scene from its beginning."""
    return Classify(
        RasterSource(str(folder / "s.tif")), model, str(folder / "map.tif"), continue_anyway=True, resume=False
    )


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """A U-Net of depth 2 with random weights, as a file, and the network."""
    path = str(tmp_path_factory.mktemp("unet") / "m.safetensors")
    torch.manual_seed(0)
    arguments = {"width": 4, "depth": 2, "upsampling": "nearest"}
    network = build_network("unet", 3, 3, 32, arguments).eval()
    field = probe(network, 3)
    card = Card(
        "network", "unet", (CardSource(32, BANDS),), CLASSES, arguments=arguments, output="pixels",
        context=field.context, margin=field.margin, stride=field.stride,
    )  # fmt: skip
    save_model(path, card, module_tensors(network))
    return path, network, field


def test_the_graph_computes_windows_without_their_margins(unet):
    import onnxruntime

    path, network, field = unet
    session = onnxruntime.InferenceSession(str(graphs_of(path, read_card(path), Context()).dense))
    values = np.random.default_rng(0).normal(25, 15, (1, 3, 24 + 2 * field.margin, 36 + 2 * field.margin))
    logits = session.run(["logits"], {"values": values.astype(np.float32)})[0]
    assert logits.shape == (1, 3, 24, 36)
    whole = in_one_piece_logits(network, values[0].astype(np.float32))
    inside = slice(field.margin, -field.margin)
    np.testing.assert_allclose(logits[0], whole[:, inside, inside], atol=1e-5)


def in_one_piece_logits(network, values):
    with torch.inference_mode():
        return network(torch.from_numpy((values - np.float32(25)) / np.float32(15))[None])[0].numpy()


def in_one_piece(network, values, reach=64):
    """The classes of a scene that is continued by reflection, mapped at once: what its map is to equal."""
    standard = (values - 25.0) / 15.0
    height, width = values.shape[1:]
    more = [(reach, reach + -size % 16) for size in (height, width)]
    with torch.inference_mode():
        logits = network(torch.from_numpy(np.pad(standard, [(0, 0), *more], mode="reflect")).float()[None])[0]
    logits = logits[:, reach : reach + height, reach : reach + width].numpy()
    first, second = np.sort(logits, axis=0)[[-1, -2]]
    return np.array(VALUES)[logits.argmax(axis=0)], first - second


@pytest.mark.parametrize("size", [(100, 90), (1, 5), (64, 65), (67, 200)])
def test_the_map_equals_the_scene_in_one_piece_whatever_the_tiles(unet, tmp_path, size):
    path, network, _ = unet
    values = write(tmp_path / "s.tif", *size)
    expected, lead = in_one_piece(network, values)
    job = mapping(tmp_path, path)
    classify(job, Context())
    sure = lead > 1e-4
    assert (read(job.output) == expected)[sure].all() and sure.mean() > 0.99
    whole = read(job.output)

    for tile in (16, 64):
        map_scene(load_model(path), job, Context(), tile=tile)
        assert (read(job.output) == whole)[sure].all()


def test_a_number_that_would_overflow_is_no_data_in_every_runtime(unet, tmp_path):
    path, network, _ = unet
    values = write(tmp_path / "s.tif", 70, 66)
    with rasterio.open(tmp_path / "s.tif", "r+") as dataset:
        for number, col in ((3e38, 20), (-3.4e38, 21), (2e30, 22)):
            dataset.write(np.array([[number]], "float32"), 2, window=rasterio.windows.Window(col, 30, 1, 1))
    values[1, 30, 20:23] = 25.0  # what no-data is to the network
    expected, lead = in_one_piece(network, values)
    job = mapping(tmp_path, path)
    for runtime in ("onnxruntime", "torch"):
        result = classify(replace(job, runtime=runtime), Context())
        expected[30, 20:23] = result.nodata_value
        assert result.pixels == 70 * 66 - 3 and (read(job.output) == expected)[lead > 1e-4].all()
        assert (read(job.output)[30, 20:23] == result.nodata_value).all()


def test_while_a_window_is_computed_the_next_is_read_and_none_is_computed(unet, tmp_path, monkeypatch):
    path, _, _ = unet
    write(tmp_path / "s.tif", 64, 256)
    reads, computing, most, read_meanwhile = threading.Semaphore(0), [], [], []
    best, read_window = TorchRuntime.best, Scene.read

    def reading(scene, *window):
        found = read_window(scene, *window)
        reads.release()
        return found

    def computed(runtime, *given):
        computing.append(runtime.beside)
        most.append(len(computing))
        reads.acquire()  # its own
        read_meanwhile.append(reads.acquire(timeout=10 if len(most) < 4 else 0))
        if read_meanwhile[-1]:
            reads.release()
        result = best(runtime, *given)
        computing.pop()
        return result

    monkeypatch.setattr(Scene, "read", reading)
    monkeypatch.setattr(TorchRuntime, "best", computed)
    job = mapping(tmp_path, path)
    map_scene(load_model(path), job, Context(), tile=64)
    assert most == [1, 1, 1, 1]
    # Behind the last there is none.
    assert read_meanwhile == [True, True, True, False]


@pytest.mark.parametrize(("side", "told"), [(64, True), (256, False)])
def test_it_is_told_where_most_of_what_is_computed_are_margins(unet, tmp_path, side, told):
    path, _, field = unet
    write(tmp_path / "s.tif", 64, 256)
    lines = []

    class Log(Context):
        def log(self, text):
            lines.append(text)

    # Tiles of 64 pixels with margins of 64: nine times as many pixels.
    model = load_model(path)
    wide = replace(model, card=replace(model.card, margin=64))
    job = mapping(tmp_path, path)
    map_scene(wide, job, Log(), tile=side)
    found = [line for line in lines if "More MEMORY makes the tiles larger" in line]
    assert len(found) == told and field.margin < 64
    assert not told or "looks 64 pixels beyond a tile: 9 times as many pixels are computed as are mapped" in found[0]


def test_a_part_is_the_crop_of_the_whole_map(unet, tmp_path):
    path, network, _ = unet
    expected, lead = in_one_piece(network, write(tmp_path / "s.tif", 150, 140))
    job = Classify(
        RasterSource(str(tmp_path / "s.tif")), path, str(tmp_path / "map.tif"), box=(31, 50, 61, 77),
        continue_anyway=True,
    )  # fmt: skip
    classify(job, Context())
    part = np.s_[50 : 50 + 77, 31 : 31 + 61]
    assert (read(job.output) == expected[part])[lead[part] > 1e-4].all()


def test_an_overlap_that_is_too_small_warns_and_changes_the_map(unet, tmp_path):
    path, network, field = unet
    expected, _ = in_one_piece(network, write(tmp_path / "s.tif", 130, 130))
    job = Classify(
        RasterSource(str(tmp_path / "s.tif")), path, str(tmp_path / "map.tif"), continue_anyway=True, overlap=0
    )
    context = Context()
    result = map_scene(load_model(path), job, context, tile=32)
    assert any(f"OVERLAP is 0, but the network looks {field.margin} pixels" in line for line in result.warnings)
    assert (read(job.output) != expected).mean() > 0.01

    map_scene(load_model(path), replace(job, overlap=field.margin + 1), context, tile=32)
    assert (read(job.output) == expected).mean() > 0.999


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_each_overlap_has_graphs_of_its_own(unet, tmp_path, runtime):
    path, network, field = unet
    expected, _ = in_one_piece(network, write(tmp_path / "s.tif", 130, 130))
    job = Classify(
        RasterSource(str(tmp_path / "s.tif")), path, str(tmp_path / "map.tif"), continue_anyway=True, runtime=runtime
    )
    # One after the other, in one cache: the margins are cut off within the graph.
    for overlap in (field.margin + 8, None, 8, 2 * field.margin, None):
        classify(replace(job, overlap=overlap), Context())
        # The raster is one window: a smaller overlap is nothing but reflection nearer to its edges.
        inner = np.s_[:] if overlap != 8 else np.s_[field.margin : -field.margin, field.margin : -field.margin]
        assert (read(job.output)[inner] == expected[inner]).mean() > 0.999, overlap


def test_an_overlap_below_zero_is_refused(unet):
    with pytest.raises(BadInput, match="OVERLAP is -1"):
        Classify(RasterSource("s.tif"), unet[0], "map.tif", overlap=-1)


def test_onnx_runtime_gives_the_same_bits_in_windows_on_the_grid_and_with_any_threads(unet):
    path, _, field = unet
    card, before = read_card(path), field.margin
    graphs = graphs_of(path, card, Context())
    runtimes = [OnnxRuntime(Model(card, path), graphs, Wishes(), Threads(count)) for count in (1, 2, 3)]
    # All cores share one call, so that few large windows fit the memory.
    assert [(runtime.beside, runtime.threads) for runtime in runtimes] == [(1, 1), (1, 2), (1, 3)]
    image = np.random.default_rng(0).normal(25, 15, (3, 160, 144)).astype(np.float32)

    def scores(runtime, row, col, height, width):
        after = runtime.geometry.after
        values = image[:, row - before : row + height + after, col - before : col + width + after]
        return runtime.scores(values, np.ones((height, width), bool))

    whole = scores(runtimes[0], 24, 24, 104, 88)
    assert all((scores(runtime, 24, 24, 104, 88) == whole).all() for runtime in runtimes)
    for row, col, height, width in [(24, 24, 16, 16), (60, 32, 24, 40), (100, 88, 13, 23)]:
        part = whole[:, row - 24 : row - 24 + height, col - 24 : col - 24 + width]
        assert (scores(runtimes[1], row, col, height, width) == part).all()
    assert (scores(runtimes[0], 62, 34, 16, 16) != whole[:, 38:54, 10:26]).any()


class Threads(Context):
    """A job that may use so many cores."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def threads(self):
        return self.count


@pytest.fixture
def tiled(unet, tmp_path):
    """The U-Net as if it had no finite margin, in a file, with tiles of 48 pixels."""
    path, network, _ = unet
    card = replace(read_card(path), context="tile", margin=None, tile=48, overlap=16)
    own = str(tmp_path / "tiled.safetensors")
    save_model(own, card, module_tensors(network))
    return own, card


def test_as_many_tiles_are_computed_beside_each_other_as_memory_holds(tiled):
    path, card = tiled
    graphs = graphs_of(path, card, Context())

    def shared(memory, tile=None, **wishes):
        model = Model(replace(card, tile=tile, overlap=None), path)
        runtime = OnnxRuntime(model, graphs, Wishes(memory=memory, **wishes), Threads(3))
        # What the job then takes by its own estimate.
        inner = blended(runtime, model.card)
        told = plan(Layout(3000, 3000, 256, 256, 6), inner.geometry, inner.bytes_per_pixel, inner.beside, memory).memory
        return runtime.beside, runtime.threads, told / 1e6

    found = [shared(memory) for memory in range(200, 1600, 50)]
    assert [each[:2] for each in found] == sorted(each[:2] for each in found)
    assert {each[:2] for each in found} == {(1, 3), (2, 2), (3, 1)}
    assert all(calls == 1 or told <= memory for memory, (calls, _, told) in zip(range(200, 1600, 50), found))
    assert shared(500)[0] < shared(500, 256)[0] == 3
    assert shared(9000, calls=1)[:2] == (1, 3)


def test_the_map_does_not_hang_on_the_tiles_beside_each_other(tiled, tmp_path):
    path, card = tiled
    write(tmp_path / "s.tif", 130, 97)
    found = []
    for threads, memory in ((1, None), (4, None), (4, 1)):
        map_scene(Model(card, path), replace(mapping(tmp_path, path), memory=memory), Threads(threads))
        found.append((tmp_path / "map.tif").read_bytes())
    assert found[0] == found[1] == found[2] and len(np.unique(read(tmp_path / "map.tif"))) > 1


class Excited(torch.nn.Module):
    """Channels weighed by their mean over the image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        return self.last(x * torch.sigmoid(3 * x.mean(dim=(2, 3), keepdim=True)))


def test_a_network_without_a_margin_is_mapped_in_blended_tiles_whose_windows_do_not_show(tmp_path):
    values = write(tmp_path / "s.tif", 110, 75)
    card = Card(
        "network", "stub", (CardSource(32, BANDS),), CLASSES, output="pixels", context="tile", tile=32, overlap=8
    )
    model = LoadedModel(card, module=Excited().eval())
    job = Classify(
        RasterSource(str(tmp_path / "s.tif")), "m.safetensors", str(tmp_path / "map.tif"),
        str(tmp_path / "probabilities.tif"), continue_anyway=True, resume=False,
    )  # fmt: skip
    map_scene(model, job, Context(), tile=24)
    whole = read(job.output)
    with rasterio.open(job.probabilities) as dataset:
        probabilities = dataset.read()
    assert (np.array(VALUES)[probabilities.argmax(axis=0)] == whole).all()
    assert probabilities.sum(axis=0) == pytest.approx(1, abs=1e-5)
    # Far from the overlaps a pixel has the probabilities of its tile: that which begins at row 24, column 24.
    with torch.inference_mode():
        logits = model.module(torch.from_numpy((values[:, 24:56, 24:56] - 25) / 15)[None])[0]
    expected = torch.softmax(logits, dim=0).numpy()[:, 8:24, 8:24]
    assert probabilities[:, 32:48, 32:48] == pytest.approx(expected, abs=1e-5)

    for tile in (48, 96):
        map_scene(model, job, Context(), tile=tile)
        assert (read(job.output) == whole).all()
        with rasterio.open(job.probabilities) as dataset:
            assert (dataset.read() == probabilities).all()
    map_scene(model, replace(job, probabilities="", box=(30, 11, 40, 70)), Context(), tile=24)
    assert (read(job.output) == whole[11:81, 30:70]).all()


def test_only_networks_with_tiles_are_blended():
    card = Card("network", "unet", (CardSource(32, BANDS),), CLASSES, output="pixels", margin=8, stride=2)
    runtime = object()
    assert blended(runtime, card) is runtime
    assert blended(runtime, replace(card, output="patch", context="tile")) is runtime
