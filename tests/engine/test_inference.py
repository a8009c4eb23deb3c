"""Mapping: grids, margins, no-data, bands, parts, and what is left behind when it fails."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from deepscape.engine import inference, maps
from deepscape.engine.bandstatistics import scene_statistics
from deepscape.engine.inference import classify, map_scene
from deepscape.engine.lengths import pixel_metres
from deepscape.engine.modelfiles import LoadedModel, load_model, module_tensors, save_model
from deepscape.engine.nodearrays import Forest
from deepscape.engine.rasters import BandInfo, RasterReader
from deepscape.engine.scenes import match_bands
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry, palette_colour
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, DiskFull, JobCancelled
from deepscape.tasks.jobs import Classify, Extent, RasterSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
SCENE = ROOT / "demo" / "data" / "sen2.tif"
NAN = float("nan")


class Centre(torch.nn.Module):
    """Scores are the centre pixel's bands."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return x[:, :, self.size // 2, self.size // 2]


class Sums(torch.nn.Module):
    """Scores are the sums of the patch's bands."""

    def forward(self, x):
        return x.sum(dim=(2, 3))


class RightDense(Centre):
    def dense(self, x):
        height, width = x.shape[2] - self.size + 1, x.shape[3] - self.size + 1
        return x[:, :, self.size // 2 : self.size // 2 + height, self.size // 2 : self.size // 2 + width]


class Log(Context):
    def __init__(self):
        super().__init__()
        self.lines, self.steps = [], []

    def log(self, text):
        self.lines.append(text)

    def progress(self, done, total, stage="", unit=""):
        self.steps.append((done, total, stage, unit))


def classes_of(values):
    return tuple(ClassEntry(v, f"name {v}", palette_colour(i)) for i, v in enumerate(values))


def model_of(module, size, bands, values=None, **card):
    # scene_mean and scene_std are those of `scene`, so that the preflight has nothing to say.
    source = CardSource(size, tuple(CardBand("", 0.0, 1.0, 24.5, 14.4) for _ in range(bands)))
    return LoadedModel(Card("network", "stub", (source,), classes_of(values or range(bands)), **card), module=module)


def write(path, values, nodata=None, names=(), crs="EPSG:32721", **options):
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, nodata=nodata, crs=crs, transform=rasterio.Affine(10, 0, 5e5, 0, -10, 9e6), **options,
    ) as dataset:  # fmt: skip
        dataset.write(values)
        for index, name in enumerate(names, start=1):
            dataset.set_band_description(index, name)
    return RasterSource(str(path))


def read(path, band=1):
    with rasterio.open(path) as dataset:
        return dataset.read(band)


def run(model, source, folder, context=None, tile=256, batch=1024, **job):
    job = Classify(source, "m.safetensors", str(folder / "map.tif"), continue_anyway=True, **job)
    return map_scene(model, job, context or Context(), tile=tile, batch=batch)


def scene(height, width, bands=3, seed=0):
    return np.random.default_rng(seed).integers(0, 50, (bands, height, width)).astype(np.float32)


def sums_of(values, size):
    """The sums over reflected patches, by numpy's own padding: pixel i reads [i - p // 2, i + p - 1 - p // 2]."""
    before, after = size // 2, size - 1 - size // 2
    padded = values
    for axis in (1, 2):
        pad = [(0, 0)] * 3
        pad[axis] = (before, after)
        padded = np.pad(padded, pad, mode="reflect" if values.shape[axis] > 1 else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    return windows.sum(axis=(-1, -2))


# --- geometry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [Centre(1), Centre(4), Centre(5), RightDense(4), RightDense(5)])
def test_an_identity_network_reproduces_the_argmax_of_its_input(tmp_path, module):
    values = scene(40, 33)
    result = run(model_of(module, module.size, 3), write(tmp_path / "s.tif", values), tmp_path, tile=16)
    assert (read(result.output) == values.argmax(axis=0)).all()
    assert result.pixels == 40 * 33


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.sampled_from([1, 2, 7, 8, 9, 17]), width=st.sampled_from([1, 3, 7, 8, 9, 16]),
    size=st.integers(1, 7), tile=st.sampled_from([8, 16, 256]), batch=st.sampled_from([1, 7, 64]), data=st.data(),
)  # fmt: skip
def test_maps_equal_numpy_and_parts_equal_their_crop(tmp_path, height, width, size, tile, batch, data):
    values = scene(height, width, seed=height * 100 + width)
    source = write(tmp_path / "s.tif", values)
    expected = sums_of(values, size).argmax(axis=0)
    whole = run(model_of(Sums(), size, 3), source, tmp_path, tile=tile, batch=batch)
    assert (read(whole.output) == expected).all()

    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, cols = data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col))
    part = run(model_of(Sums(), size, 3), source, tmp_path, tile=tile, batch=batch, box=(col, row, cols, rows))
    assert (read(part.output) == expected[row : row + rows, col : col + cols]).all()
    with rasterio.open(part.output) as dataset:
        assert dataset.transform * (0, 0) == (5e5 + 10 * col, 9e6 - 10 * row)


@pytest.fixture(scope="module")
def compact(tmp_path_factory):
    """A Compact CNN with random weights on the demo scene, and its map, probabilities and confidence."""
    folder = tmp_path_factory.mktemp("compact")
    with RasterReader(RasterSource(str(SCENE))) as reader:
        found = scene_statistics(reader)
        bands = tuple(
            CardBand(b.name, float(m), float(s), float(m), float(s))
            for b, m, s in zip(reader.bands, found.mean, found.std)
        )
        res = pixel_metres(reader.grid)
    torch.manual_seed(1)
    module = build_network("compact_cnn", 12, 4, 7)
    card = Card("network", "compact_cnn", (CardSource(7, bands),), classes_of([1, 2, 3, 9]), res_m=res)
    save_model(str(folder / "m.safetensors"), card, module_tensors(module))
    job = Classify(
        RasterSource(str(SCENE)), str(folder / "m.safetensors"), str(folder / "map.tif"),
        str(folder / "probabilities.tif"), str(folder / "confidence.tif"),
    )  # fmt: skip
    return job, classify(job, Context())


def test_outputs_agree_with_each_other_and_with_the_scene(compact):
    job, result = compact
    assert result.warnings == () and result.device == "cpu" and result.nodata_value == 255
    with rasterio.open(SCENE) as scene, rasterio.open(job.output) as mapped:
        assert (mapped.shape, mapped.transform, mapped.crs) == (scene.shape, scene.transform, scene.crs)
        assert mapped.dtypes == ("uint8",) and mapped.nodata == 255 and mapped.block_shapes == [(256, 256)]
        assert mapped.tags()["DEEPSCAPE_MODEL"] == "m.safetensors"
        assert mapped.tags()["DEEPSCAPE_RUNTIME"].startswith(("ONNX Runtime ", "torch "))
        assert mapped.tags()["TIFFTAG_SOFTWARE"].startswith("Deepscape ")
        classes = mapped.read(1)
    with rasterio.open(job.probabilities) as dataset:
        assert dataset.descriptions == ("name 1", "name 2", "name 3", "name 9") and np.isnan(dataset.nodata)
        probabilities = dataset.read()
    confidence = read(job.confidence)
    assert probabilities.dtype == confidence.dtype == np.float32
    assert probabilities.sum(axis=0) == pytest.approx(1, abs=1e-5)
    assert (confidence == probabilities.max(axis=0)).all()
    assert (np.array([1, 2, 3, 9])[probabilities.argmax(axis=0)] == classes).all()
    assert {int(v): a["pixels"] for v, a in result.class_areas.items()} == {
        v: int((classes == v).sum()) for v in (1, 2, 3, 9)
    }
    # Of the probabilities, the style shows the band of the most frequent class.
    most = 1 + int(np.argmax([area["pixels"] for area in result.class_areas.values()]))
    style = Path(job.probabilities).with_suffix(".qml").read_text(encoding="utf-8")
    assert f'type="singlebandpseudocolor" band="{most}"' in style
    hectares = sum(area["hectares"] for area in result.class_areas.values())
    assert hectares == pytest.approx(237 * 247 * 9.9649**2 / 1e4, rel=1e-3)


def test_the_map_equals_the_network_on_every_patch(compact):
    job, _ = compact
    model = load_model(job.model)
    with rasterio.open(SCENE) as dataset:
        values = dataset.read()
    source = model.card.sources[0]
    mean = np.array([b.mean for b in source.bands], np.float32)[:, None, None]
    std = np.array([b.std for b in source.bands], np.float32)[:, None, None]
    padded = np.pad((values - mean) / std, ((0, 0), (3, 3), (3, 3)), mode="reflect")
    places = [(r, c) for r in (0, 1, 100, 236) for c in (0, 2, 128, 246)]
    patches = torch.from_numpy(np.stack([padded[:, r : r + 7, c : c + 7] for r, c in places]))
    with torch.inference_mode():
        expected = torch.softmax(model.module(patches), dim=1).numpy()
    with rasterio.open(job.probabilities) as dataset:
        found = dataset.read()
    assert np.array([found[:, r, c] for r, c in places]) == pytest.approx(expected, abs=1e-5)


def test_tile_and_batch_do_not_change_the_map_of_a_real_network(compact, tmp_path):
    job, _ = compact
    model = load_model(job.model)
    expected, confidence = read(job.output)[30:60, 20:50], read(job.confidence)[30:60, 20:50]
    for tile, module in ((64, model.module), (25, model.module), (25, Without(model.module))):
        other = replace(
            job, output=str(tmp_path / "m.tif"), probabilities="", confidence=str(tmp_path / "c.tif"),
            box=(20, 30, 30, 30),
        )  # fmt: skip
        map_scene(replace(model, module=module), other, Context(), tile=tile, batch=300)
        assert (read(other.output) == expected).all()
        assert read(other.confidence) == pytest.approx(confidence, abs=1e-5)


class Without(torch.nn.Module):
    """A network whose evaluation of whole blocks is hidden."""

    def __init__(self, module):
        super().__init__()
        self.inner = module

    def forward(self, x):
        return self.inner(x)


def test_an_extent_is_the_crop_of_the_whole_map_to_the_last_bit(compact, tmp_path):
    job, _ = compact
    with rasterio.open(SCENE) as dataset:
        west, north = dataset.transform * (33.5, 20.2)
        east, south = dataset.transform * (180, 199)
    part = replace(
        job, output=str(tmp_path / "m.tif"), probabilities="", confidence=str(tmp_path / "c.tif"),
        extent=Extent(west, south, east, north),
    )  # fmt: skip
    context = Log()
    result = classify(part, context)
    assert (read(part.output) == read(job.output)[20:199, 33:180]).all()
    assert (read(part.confidence) == read(job.confidence)[20:199, 33:180]).all()
    assert result.pixels == 179 * 147
    mapped = [step for step in context.steps if step[2] == "Mapping"]
    assert mapped[-1] == (179 * 147, 179 * 147, "Mapping", "pixels")


def test_a_box_beyond_the_raster_is_refused(compact, tmp_path):
    with pytest.raises(BadInput, match=r"247 x 237"):
        classify(replace(compact[0], output=str(tmp_path / "m.tif"), box=(200, 0, 48, 10)), Context())
    with pytest.raises(BadInput, match="outside"):
        classify(replace(compact[0], output=str(tmp_path / "m.tif"), extent=Extent(0, 0, 1, 1)), Context())
    assert list(tmp_path.iterdir()) == []


def test_equal_scores_go_to_the_lowest_class(tmp_path):
    result = run(model_of(Centre(1), 1, 3), write(tmp_path / "s.tif", np.ones((3, 2, 2), np.float32)), tmp_path)
    assert (read(result.output) == 0).all()


# --- forests ---------------------------------------------------------------------------------------------------------


def stump(feature, threshold):
    """A forest of one tree: class 0 up to the threshold, class 1 above."""
    return Forest(
        np.array([0, 3]), np.array([feature, -1, -1], np.int32), np.array([threshold, 0.0, 0.0]),
        np.array([[1, 2], [0, 0], [1, 0]], np.int32), np.array([[1.0, 0.0], [0.25, 0.75]]),
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "feature", "size"), [("pixel", 0, 1), ("pixel", 1, 3), ("window", 2, 4)])
def test_a_forest_maps_its_features(tmp_path, kind, feature, size):
    values = scene(30, 21, bands=2)
    source = CardSource(size, tuple(CardBand("", 0.0, 1.0, NAN, NAN) for _ in range(2)))
    card = Card("forest", "random_forest", (source,), classes_of([4, 7]), arguments={"features": kind})
    expected = sums_of(values, size)[0] / size**2 if kind == "window" else values[feature]
    model = LoadedModel(card, forest=stump(feature, 24.5))
    result = run(model, write(tmp_path / "s.tif", values), tmp_path, tile=16, confidence=str(tmp_path / "c.tif"))
    assert (read(result.output) == np.where(expected > 24.5, 7, 4)).all()
    assert read(result.confidence) == pytest.approx(np.where(expected > 24.5, 0.75, 1.0))
    assert result.device == "cpu"


def test_mapping_with_a_forest_imports_neither_torch_nor_sklearn(tmp_path):
    source = CardSource(1, tuple(CardBand("", 0.0, 1.0, NAN, NAN) for _ in range(2)))
    card = Card("forest", "random_forest", (source,), classes_of([0, 1]), arguments={"features": "pixel"})
    save_model(str(tmp_path / "f.safetensors"), card, stump(0, 24.5).tensors())
    write(tmp_path / "s.tif", scene(9, 9, bands=2))
    code = (
        "import sys; from deepscape.engine.inference import classify; from deepscape.tasks.context import Context;"
        "from deepscape.tasks.jobs import Classify, RasterSource;"
        f"classify(Classify(RasterSource({str(tmp_path / 's.tif')!r}), {str(tmp_path / 'f.safetensors')!r}, "
        f"{str(tmp_path / 'm.tif')!r}), Context());"
        "print([n for n in ('torch', 'sklearn', 'geopandas', 'lightning_fabric', 'lightning') if n in sys.modules])"
    )
    path = [p for p in sys.path if (Path(p) / "deepscape").exists()]
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(path)}
    )
    assert found.stdout.strip() == "[]"


# --- no-data and units -----------------------------------------------------------------------------------------------


def test_a_nodata_centre_is_nodata_and_other_nodata_counts_as_the_mean(tmp_path):
    values = scene(12, 12)
    values[1, 5, 6] = -9999
    values[:, 0, 0] = NAN
    source = write(tmp_path / "s.tif", values, nodata=-9999)
    model = model_of(Sums(), 3, 3)
    bands = tuple(CardBand("", mean, 1.0, NAN, NAN) for mean in (10.0, 20.0, 30.0))
    model = replace(model, card=replace(model.card, sources=(CardSource(3, bands),)))
    result = run(model, source, tmp_path, confidence=str(tmp_path / "c.tif"), probabilities=str(tmp_path / "p.tif"))
    standard = values - np.array([10, 20, 30], np.float32)[:, None, None]
    standard[1, 5, 6] = 0
    standard[:, 0, 0] = 0
    expected = sums_of(standard, 3).argmax(axis=0).astype(np.uint8)
    expected[5, 6] = expected[0, 0] = 255
    assert (read(result.output) == expected).all()
    assert result.pixels == 142 and result.nodata_value == 255
    for path in (result.confidence, result.probabilities):
        assert np.argwhere(np.isnan(read(path))).tolist() == [[0, 0], [5, 6]]


def test_nodata_rule_all_keeps_single_bands(tmp_path):
    values = np.array([[[0, 0, 9]], [[0, 5, 1]]], np.uint8)
    model = model_of(Centre(1), 1, 2)
    model = replace(model, card=replace(model.card, sources=(replace(model.card.sources[0], nodata_rule="all"),)))
    result = run(model, write(tmp_path / "s.tif", values, nodata=0), tmp_path)
    assert read(result.output).tolist() == [[255, 1, 0]]


def test_a_scene_without_valid_pixels_gives_a_nodata_map_and_a_warning(tmp_path):
    source = write(tmp_path / "s.tif", np.full((3, 4, 4), NAN, np.float32))
    result = run(model_of(Centre(1), 1, 3), source, tmp_path)
    assert (read(result.output) == 255).all() and result.pixels == 0
    assert any("no valid pixel" in warning for warning in result.warnings)


def test_the_file_s_scale_and_offset_are_applied_unless_the_card_has_its_own(tmp_path):
    source = write(tmp_path / "s.tif", np.array([[[10]], [[10]]], np.uint16))
    with rasterio.open(source.path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.1, 1.0), (0.0, -5.0)  # physical: 1 and 5
    assert read(run(model_of(Centre(1), 1, 2), source, tmp_path).output)[0, 0] == 1
    model = model_of(Centre(1), 1, 2)
    own = tuple(replace(b, scale=s, offset=0.0) for b, s in zip(model.card.sources[0].bands, (2.0, 1.0)))
    model = replace(model, card=replace(model.card, sources=(CardSource(1, own),)))  # physical: 20 and 10
    assert read(run(model, source, tmp_path).output)[0, 0] == 0


def test_a_score_that_is_not_finite_is_nodata(tmp_path):
    class Undefined(torch.nn.Module):
        def forward(self, x):
            return x[:, :, 0, 0] / (x[:, :1, 0, 0] - 7)

    values = np.array([[[7, 1]], [[0, 3]]], np.float32)
    result = run(model_of(Undefined(), 1, 2), write(tmp_path / "s.tif", values), tmp_path)
    assert read(result.output)[0, 0] == 255 and result.pixels == 1
    nothing = run(model_of(Undefined(), 1, 2), write(tmp_path / "t.tif", np.full((2, 2, 2), 7, np.float32)), tmp_path)
    assert not any("no valid pixel" in warning for warning in nothing.warnings)
    assert any("no finite score for 4 pixels (all that have data" in warning for warning in nothing.warnings)
    assert any("no finite score for 1 pixel: no-data" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("values", "dtype", "nodata"),
    [
        ((0, 1, 2), "uint8", 255), ((0, 9, 255), "uint16", 65535), ((1, 9, 255), "uint8", 0),
        ((3, 256, 70_000), "uint32", 2**32 - 1), ((0, 300, 1000), "uint16", 65535), ((-5, 0, 12), "int16", -32768),
        ((-70_000, 0, 1), "int32", -(2**31)), ((1, 300, 65535), "uint16", 0),
    ],
)  # fmt: skip
def test_any_class_ids(tmp_path, values, dtype, nodata):
    data = scene(6, 7)
    data[:, 2, 2] = NAN
    result = run(model_of(Centre(1), 1, 3, values), write(tmp_path / "s.tif", data), tmp_path)
    expected = np.array(values, np.int64)[data.argmax(axis=0)]
    expected[2, 2] = nodata
    mapped = read(result.output)
    assert mapped.dtype == dtype and (mapped == expected).all() and result.nodata_value == nodata
    assert list(result.class_areas) == [str(value) for value in values]


# --- bands -----------------------------------------------------------------------------------------------------------


def bands(*names):
    return [BandInfo(name, "float32", None, 1.0, 0.0) for name in names]


def needed(*names):
    return [CardBand(name, 0.0, 1.0, NAN, NAN) for name in names]


def test_bands_are_matched_by_name_then_by_order():
    def match(have, need, anyway=False, context=None):
        return match_bands(have, need, "s", anyway, context or Context())

    assert match(bands("B4", "B3", "B2"), needed("B2", "B4")) == (2, 0)
    assert match(bands("", ""), needed("B2", "B4")) == (0, 1)
    assert match(bands("x", "y"), needed("", "")) == (0, 1)
    assert match(bands("a", "a"), needed("a", "a")) == (0, 1)
    context = Context()
    assert match(bands("blue", "red"), needed("B2", "B4"), context=context) == (0, 1)
    assert "other names" in context.warnings[0]
    with pytest.raises(BadInput, match=r"2 bands \(B4, B3\), the model needs 3 \(B2, B3, B4\)"):
        match(bands("B4", "B3"), needed("B2", "B3", "B4"))
    with pytest.raises(BadInput, match="no band 'B8'"):
        match(bands("B2", "B8A"), needed("B2", "B8"))
    assert match(bands("B2", "B8A"), needed("B2", "B8"), anyway=True) == (0, 1)
    with pytest.raises(BadInput, match="their names do not tell which"):
        match(bands("", "", ""), needed("B2", "B8"))


def test_reordered_bands_give_the_same_map(tmp_path):
    values = scene(9, 9)
    model = model_of(Centre(1), 1, 3)
    source = CardSource(1, tuple(needed("a", "b", "c")))
    model = replace(model, card=replace(model.card, sources=(source,)))
    context = Log()
    result = run(model, write(tmp_path / "s.tif", values[[2, 0, 1]], names=("c", "a", "b")), tmp_path, context)
    assert (read(result.output) == values.argmax(axis=0)).all()
    assert any("taken by name: a, b, c" in line for line in context.lines)


def ndvi_of(values):
    red, infrared = values[0].astype("float64"), values[1].astype("float64")
    with np.errstate(invalid="ignore"):
        return ((infrared - red) / (infrared + red)).astype("float32")


def both_models(size=3, **computed):
    """The same random network, with NDVI as a computed band and as one of the scene."""
    torch.manual_seed(0)
    module = torch.nn.Conv2d(4, 3, size).eval()
    own = tuple(needed("red", "nir", "height"))
    model = model_of(module, size, 4, [1, 2, 3])
    bands = (*own, CardBand("NDVI", 0.1, 0.3, NAN, NAN, **computed))
    sources = (CardSource(size, bands),), (CardSource(size, (*own, CardBand("NDVI", 0.1, 0.3, NAN, NAN))),)
    return [replace(model, card=replace(model.card, sources=source)) for source in sources]


def test_a_computed_band_maps_as_the_same_band_of_a_file(tmp_path):
    values = scene(40, 53).astype("uint16")
    values[:2, 7, 9] = 0  # 0 / 0: no-data in NDVI
    one, other = both_models(expression="(nir - red) / (B2 + B1)")
    full = np.concatenate([values.astype("float32"), ndvi_of(values)[None]])
    plain = write(tmp_path / "plain.tif", values[[2, 1, 0]], names=("height", "nir", "red"))
    whole = write(tmp_path / "whole.tif", full, names=("red", "nir", "height", "NDVI"))
    expected, context = run(other, whole, tmp_path, tile=16), Log()
    map_of_file, folder = read(expected.output), tmp_path / "again"
    folder.mkdir()
    assert map_of_file[7, 9] == expected.nodata_value and len(np.unique(map_of_file)) > 2
    found = run(one, plain, folder, context)
    np.testing.assert_array_equal(read(found.output), map_of_file)
    assert "The model computes from the scene's bands: NDVI = (nir - red) / (B2 + B1)." in context.lines
    # A scene that brings a band of that name: the model's own expression counts.
    full[3] = 0
    ignored = write(tmp_path / "ignored.tif", full, names=("red", "nir", "height", "NDVI"))
    np.testing.assert_array_equal(read(run(one, ignored, folder).output), map_of_file)
    # A model that knows NDVI as a band of the scene takes one that the source computes.
    computing = replace(plain, expressions="NDVI = (nir - red) / (nir + red)")
    np.testing.assert_array_equal(read(run(other, computing, folder, tile=7).output), map_of_file)
    box = run(one, plain, folder, box=(5, 3, 11, 20))
    np.testing.assert_array_equal(read(box.output), map_of_file[3:23, 5:16])


def test_a_model_s_scale_counts_in_what_it_computes(tmp_path):
    values = scene(6, 7).astype("uint16")
    module = torch.nn.Conv2d(4, 2, 1, bias=False).eval()
    module.weight.data = torch.tensor([[0.0, 0, 0, 1], [0.0, 0, 0, -1]])[:, :, None, None]
    bands = [CardBand(b.name, 0, 1, NAN, NAN, scale=0.1, offset=-2.0) for b in needed("red", "nir", "height")]
    source = CardSource(1, (*bands, CardBand("X", 0, 1, NAN, NAN, expression="red - 1")))
    model = replace(
        model_of(module, 1, 4, [1, 2]), card=replace(model_of(module, 1, 4, [1, 2]).card, sources=(source,))
    )
    result = run(model, write(tmp_path / "s.tif", values, names=("red", "nir", "height")), tmp_path)
    np.testing.assert_array_equal(read(result.output), np.where(values[0] * 0.1 - 3 >= 0, 1, 2))


def test_the_bands_that_a_model_needs_are_those_of_the_scene(tmp_path):
    model, _ = both_models(expression="(nir - red) / (nir + red)")
    source = write(tmp_path / "s.tif", scene(6, 7)[:2], names=("red", "nir"))
    with pytest.raises(BadInput, match=r"has 2 bands \(red, nir\), the model needs 3 \(red, nir, height\)"):
        run(model, source, tmp_path)


def test_chosen_bands_and_stacked_rasters(tmp_path):
    values = scene(9, 9, bands=4)
    source = write(tmp_path / "s.tif", values[[3, 0, 1]])
    stacked = replace(source, bands=(2, 3), stack=(write(tmp_path / "t.tif", values[2:3]).path,))
    result = run(model_of(Centre(1), 1, 3), stacked, tmp_path)
    assert (read(result.output) == values[:3].argmax(axis=0)).all()


# --- preflight -------------------------------------------------------------------------------------------------------


def test_the_shifted_scene_is_refused_also_for_an_extent_and_mapped_with_continue(compact, tmp_path):
    job, _ = compact
    with rasterio.open(SCENE) as dataset:
        profile, values, names = dataset.profile, dataset.read(), dataset.descriptions
    with rasterio.open(tmp_path / "shifted.tif", "w", **profile) as dataset:
        dataset.write(values - np.float32(0.1))
        dataset.descriptions = names
    shifted = replace(
        job, source=RasterSource(str(tmp_path / "shifted.tif")), output=str(tmp_path / "m.tif"), probabilities="",
        confidence="",
    )  # fmt: skip
    with pytest.raises(BadInput, match="offset"):
        classify(shifted, Context())
    with pytest.raises(BadInput, match="offset"):
        classify(replace(shifted, box=(0, 0, 3, 3)), Context())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shifted.tif"]
    result = classify(replace(shifted, continue_anyway=True), Context())
    assert result.pixels == 237 * 247 and any("offset" in warning for warning in result.warnings)


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_cancelled_job_leaves_its_finished_windows_and_keeps_the_old_map(tmp_path):
    class Cancelling(Context):
        def progress(self, done, total, stage="", unit=""):
            if stage == "Mapping" and done > 300:
                self.cancelled.set()

    source = write(tmp_path / "s.tif", scene(40, 40))
    (tmp_path / "map.tif").write_bytes(b"old")
    with pytest.raises(JobCancelled):
        run(
            model_of(Centre(1), 1, 3), source, tmp_path, Cancelling(), tile=16,
            confidence=str(tmp_path / "c.tif"), probabilities=str(tmp_path / "p.tif"),
        )  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "map.tif.log", "s.tif"]
    assert (tmp_path / "map.tif").read_bytes() == b"old"


def test_a_failure_while_the_last_file_is_named_leaves_no_temporary_file(tmp_path, monkeypatch):
    def full(path, classes, counts):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maps, "write_sidecars", full)
    source = write(tmp_path / "s.tif", scene(4, 4))
    with pytest.raises(DiskFull, match=r"write 'map\.tif'"):
        run(model_of(Centre(1), 1, 3), source, tmp_path, confidence=str(tmp_path / "c.tif"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif.log", "s.tif"]


_LIMITED = """
import resource, signal, sys
import numpy as np
from deepscape.engine.inference import classify
from deepscape.tasks.context import Context
from deepscape.tasks.errors import DeepscapeError
from deepscape.tasks.jobs import Classify, RasterSource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import torch  # a module that is imported under the limit would leave a cut-off .pyc behind
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
scene, model, folder = sys.argv[1:]
try:
    classify(Classify(RasterSource(scene), model, folder + "/m.tif", folder + "/p.tif", folder + "/c.tif"), Context())
except DeepscapeError as error:
    print("refused", error.kind)
except Exception as error:
    print("failed", type(error).__name__, error)
else:
    print("written")
"""


def test_a_file_that_cannot_grow_is_an_error_and_leaves_nothing(compact, tmp_path):
    job, _ = compact
    path = [p for p in sys.path if (Path(p) / "deepscape").exists()]
    found = subprocess.run(
        [sys.executable, "-B", "-c", _LIMITED, str(SCENE), job.model, str(tmp_path)],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(path)},
    )  # fmt: skip
    assert "written" not in found.stdout, found.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_scene_is_never_overwritten(tmp_path):
    source = write(tmp_path / "map.tif", scene(4, 4))
    before = (tmp_path / "map.tif").read_bytes()
    with pytest.raises(BadInput, match=r"OUTPUT '.*map\.tif' is also an input and would be overwritten\."):
        run(model_of(Centre(1), 1, 3), source, tmp_path)
    rasterio.shutil.copy(source.path, str(tmp_path / "m.vrt"), driver="VRT")
    # Without its suffix the output is another file for the check of every job's outputs.
    job = Classify(RasterSource(str(tmp_path / "m.vrt")), "m.safetensors", str(tmp_path / "map"), continue_anyway=True)
    with pytest.raises(BadInput, match=r"OUTPUT '.*map\.tif' is also an input .*: the VRT '.*m\.vrt' reads it\."):
        map_scene(model_of(Centre(1), 1, 3), job, Context())
    (tmp_path / "m.vrt").unlink()
    assert (tmp_path / "map.tif").read_bytes() == before
    other = write(tmp_path / "s.tif", scene(4, 4))
    with pytest.raises(BadInput, match="same file name"):
        run(model_of(Centre(1), 1, 3), other, tmp_path, confidence=str(tmp_path / "map.tif"))
    with pytest.raises(
        BadInput, match=r"OUTPUT '.*map\.tif' and CONFIDENCE '.*map\.tiff' would share the style 'map\.qml'"
    ):
        run(model_of(Centre(1), 1, 3), other, tmp_path, confidence=str(tmp_path / "map.tiff"))
    (tmp_path / "maps").mkdir()
    with pytest.raises(BadInput, match="maps' is a folder"):
        run(model_of(Centre(1), 1, 3), other, tmp_path, confidence=str(tmp_path / "maps"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "maps", "s.tif"]


def test_what_leaves_out_every_pixel_is_named_and_a_memory_that_is_too_small(tmp_path, monkeypatch):
    source = write(tmp_path / "s.tif", scene(4, 4))
    result = run(model_of(Centre(9), 9, 3), source, tmp_path, border="nodata", min_confidence=0.5, memory=1, tile=None)
    expected = "The map is all no-data: BORDER and MIN_CONFIDENCE leave no valid pixel of 's.tif'."
    assert expected in result.warnings
    assert any("MEMORY is 1 MB, but the smallest windows" in line for line in result.warnings)
    assert not any("this machine has" in line for line in result.warnings)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.tags()["DEEPSCAPE_MIN_CONFIDENCE"] == "0.5" and "DEEPSCAPE_OVERLAP" not in dataset.tags()
    monkeypatch.setattr(inference, "machine_memory", lambda: 100_000_000)
    result = run(model_of(Centre(9), 9, 3), source, tmp_path)
    assert any("of memory, but this machine has 100 MB. Give a smaller MEMORY." in line for line in result.warnings)


def test_a_missing_folder_is_named(tmp_path):
    source = write(tmp_path / "s.tif", scene(4, 4))
    with pytest.raises(BadInput, match="does not exist"):
        run(model_of(Centre(1), 1, 3), source, tmp_path / "missing")


def test_missing_suffix_unicode_and_no_crs(tmp_path):
    folder = tmp_path / "été 東京"
    folder.mkdir()
    source = write(folder / "scène.tif", scene(5, 5), crs=None)
    job = Classify(source, "m", str(folder / "carte v1.2"), continue_anyway=True)
    result = map_scene(model_of(Centre(1), 1, 3), job, Context())
    assert result.output == str(folder / "carte v1.2.tif") and read(result.output).shape == (5, 5)
    assert {area["hectares"] for area in result.class_areas.values()} == {None}


def test_a_damaged_model_is_refused(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"\x00" * 100)
    source = write(tmp_path / "s.tif", scene(4, 4))
    with pytest.raises(BadInput):
        classify(Classify(source, str(tmp_path / "m.safetensors"), str(tmp_path / "o.tif")), Context())


def test_cuda_that_is_not_there_falls_back_to_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    source = write(tmp_path / "s.tif", scene(4, 4))
    result = run(model_of(Centre(1), 1, 3), source, tmp_path, device_choice="cuda")
    assert result.device == "cpu" and any("no CUDA GPU" in warning for warning in result.warnings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_gpu_and_cpu_give_the_same_map(compact, tmp_path):
    job, _ = compact
    other = replace(
        job, output=str(tmp_path / "m.tif"), probabilities="", confidence=str(tmp_path / "c.tif"), device_choice="cuda"
    )
    assert classify(other, Context()).device == torch.cuda.get_device_name(0)
    assert read(other.confidence) == pytest.approx(read(job.confidence), abs=1e-4)
    differs = read(other.output) != read(job.output)
    with rasterio.open(job.probabilities) as dataset:
        top = np.sort(dataset.read(), axis=0)[-2:]
    assert (top[1] - top[0])[differs].max(initial=0) < 1e-4
