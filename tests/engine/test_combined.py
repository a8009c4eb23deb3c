"""Several models and several orientations: equal to patches that are cut, turned and averaged one by one."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from deepscape.engine.inference import classify
from deepscape.engine.modelfiles import LoadedModel, module_tensors, save_model
from deepscape.engine.nodearrays import Forest
from deepscape.engine.runtimes import Geometry, Model, Wishes
from deepscape.engine.runtimes import combined as combined_runtimes
from deepscape.engine.runtimes.base import first_largest
from deepscape.engine.runtimes.combined import (
    AS_IT_IS,
    ORIENTATIONS,
    CombinedRuntime,
    Member,
    band_orders,
    create_combined,
    wanted_geometry,
)
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.models.unet import UNet
from deepscape.tasks.classtable import ClassEntry, palette_colour
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobfiles import input_paths
from deepscape.tasks.jobs import Classify, RasterSource

from .listening import Log

NAN = float("nan")
MEANS, DEVIATIONS = (300.0, 900.0, -4.0), (120.0, 400.0, 2.5)


def card_of(size, values=(1, 2, 5), names=("", "", ""), means=MEANS, **fields):
    bands = tuple(CardBand(n, m, s, NAN, NAN) for n, m, s in zip(names, means, DEVIATIONS))
    table = tuple(ClassEntry(v, f"name {v}", palette_colour(v)) for v in values)
    return Card("network", "compact_cnn", (CardSource(size, bands),), table, **fields)


def model_of(size, seed=0, name="compact_cnn", **fields):
    torch.manual_seed(seed)
    module = build_network(name, 3, 3, size)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor) * 0.5 + 0.2 if tensor.ndim < 2 else torch.randn_like(tensor) * 0.2
    card = card_of(size, **fields)
    return Model(card, loaded=LoadedModel(card, module=module.eval()))


def scene_of(height, width, margins, seed=0, missing=0.05):
    rng = np.random.default_rng(seed)
    shape = height + margins.before + margins.after, width + margins.before + margins.after
    values = rng.standard_normal((3, *shape)) * np.array(DEVIATIONS)[:, None, None] + np.array(MEANS)[:, None, None]
    values[rng.random(values.shape) < missing] = NAN
    return values.astype(np.float32), rng.random((height, width)) < 0.8


def variants(patch, tta):
    """All orientations of a patch, made with numpy's own words."""
    flips = [patch, patch[:, ::-1], patch[:, :, ::-1], patch[:, ::-1, ::-1]]
    return {"none": [patch], "flips": flips, "full": flips + [np.rot90(p, axes=(1, 2)) for p in flips]}[tta]


def patchwise(model, values, before, row, col, tta):
    """The mean probabilities of one pixel: patches around it, in which it always stands at p // 2."""
    size = model.card.sources[0].patch_size
    means = np.array([b.mean for b in model.card.sources[0].bands])[:, None, None]
    # Of an odd width around the pixel, so that turning keeps it in the middle; then the patch is cut.
    half = size // 2
    around = values[:, before + row - half : before + row + half + 1, before + col - half : before + col + half + 1]
    standard = np.nan_to_num((around.astype(float) - means) / np.array(DEVIATIONS)[:, None, None], nan=0.0)
    patches = np.stack([turned[:, :size, :size] for turned in variants(standard, tta)])
    with torch.inference_mode():
        logits = model.loaded.module.double()(torch.from_numpy(patches.copy()))
    model.loaded.module.float()
    return torch.softmax(logits, 1).mean(0).numpy().ravel()


def combined(models, tta="none", context=None):
    orders = band_orders([m.card for m in models], [f"m{i}" for i in range(len(models))], Context())
    return create_combined(models, orders, Wishes(device="cpu"), tta, context or Context())


def test_the_orientations_are_all_different_and_are_undone():
    image = np.arange(6).reshape(1, 2, 3)
    assert [len(ORIENTATIONS[tta]) for tta in ("none", "flips", "full")] == [1, 4, 8]
    assert len({(o.of(image).shape, o.of(image).tobytes()) for o in ORIENTATIONS["full"]}) == 8
    assert all((o.back(o.of(image)) == image).all() for o in ORIENTATIONS["full"])


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("tta", ["flips", "full"])
def test_turned_images_label_the_same_pixel(size, tta):
    model = model_of(size)
    runtime = combined([model], tta)
    assert runtime.geometry == Geometry(size // 2, size // 2)
    values, wanted = scene_of(9, 14, runtime.geometry)
    scores = runtime.scores(values, wanted)
    found = runtime.probabilities(scores)
    for row, col in np.argwhere(wanted):
        expected = patchwise(model, values, size // 2, row, col, tta)
        assert found[:, row, col] == pytest.approx(expected, abs=2e-6)
    assert (runtime.best(values, wanted)[wanted] == first_largest(found)[wanted]).all()
    assert found[:, wanted].sum(axis=0) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("tta", ["none", "full"])
def test_models_of_several_patch_sizes_scalings_and_band_orders_are_averaged(tta):
    first = model_of(8, names=("a", "b", "c"))
    second = model_of(5, seed=1, names=("a", "b", "c"), means=(310.0, 700.0, -3.0))
    third = model_of(6, seed=2, names=("a", "b", "c"))
    bands = third.card.sources[0].bands
    turned = replace(third.card.sources[0], bands=(bands[2], bands[0], bands[1]))
    third = Model(replace(third.card, sources=(turned,)), loaded=third.loaded)
    runtime = combined([first, second, third], tta)
    assert runtime.geometry == (Geometry(4, 4) if tta == "full" else Geometry(4, 3))
    values, wanted = scene_of(6, 11, runtime.geometry, missing=0)
    found = runtime.probabilities(runtime.scores(values, wanted, True))
    moved = values[[2, 0, 1]]
    stds = np.array(DEVIATIONS)[[2, 0, 1]]
    for row, col in np.argwhere(wanted):
        parts = [
            patchwise(model, np.pad(values, ((0, 0), (0, 1), (0, 1))), 4, row, col, tta) for model in (first, second)
        ]
        # patchwise standardises by the deviations of the usual order.
        scaled = moved / stds[:, None, None] * np.array(DEVIATIONS)[:, None, None]
        means = np.array([b.mean for b in turned.bands]) / stds * np.array(DEVIATIONS)
        fitting = replace(turned, bands=tuple(replace(b, mean=m) for b, m in zip(turned.bands, means)))
        parts.append(
            patchwise(Model(replace(third.card, sources=(fitting,)), loaded=third.loaded), scaled, 4, row, col, tta)
        )
        assert found[:, row, col] == pytest.approx(np.mean(parts, axis=0), abs=5e-6)


def test_a_network_on_a_stride_grid_is_turned_on_its_grid():
    """Windows of any size give what one large window gives: the turned images' grids agree."""
    torch.manual_seed(3)
    module = UNet(3, 3, width=4, depth=2).eval()
    margin, stride = 24, 4
    card = card_of(32, output="pixels", margin=margin, stride=stride)
    runtime = combined([Model(card, loaded=LoadedModel(card, module=module))], "full")
    assert runtime.geometry == Geometry(28, 31, 4)
    before, after = runtime.geometry.before, runtime.geometry.after
    values, _ = scene_of(24, 20, runtime.geometry, missing=0)
    whole = runtime.scores(values, np.ones((24, 20), bool))
    for row, col, height, width in ((0, 0, 7, 9), (8, 4, 16, 16), (20, 16, 1, 3)):
        part = values[:, row : row + height + before + after, col : col + width + before + after]
        found = runtime.scores(part, np.ones((height, width), bool))
        assert found == pytest.approx(whole[:, row : row + height, col : col + width], abs=1e-5)


def test_tta_of_single_pixels_is_left_out_and_said():
    context = Log()
    runtime = combined([model_of(1, name="pixel_network")], "full", context)
    assert not isinstance(runtime, CombinedRuntime)
    assert any("TTA changes nothing" in line for line in context.lines)


def test_a_patch_network_beside_one_of_pixels_takes_all_cores_for_a_call(monkeypatch):
    patchwise, of_pixels = model_of(5).card, replace(model_of(5).card, output="pixels", context="local", margin=16)
    found = []

    def create(model, wishes, *_):
        found.append(wishes.calls)
        return Forestlike()

    monkeypatch.setattr(combined_runtimes, "create_runtime", create)
    for cards in ([patchwise, of_pixels], [of_pixels], [patchwise, patchwise]):
        create_combined([Model(card) for card in cards], [()] * len(cards), Wishes(), "none", Context())
    assert found == [1, 0, 0, 0, 0]


class Forestlike:
    """A runtime whose scores are probabilities, as a forest's are, which gives none where the value is negative."""

    name, device, precision, geometry, beside, bytes_per_pixel = "shares", "cpu", "full", Geometry(0, 0), 4, 8.0
    exact = False

    def scores(self, values, wanted, whole=False):
        share = np.where(values[0] < 0, np.nan, values[0])
        return np.stack([share, 1 - share])

    def probabilities(self, scores):
        return scores


class Logitlike(Forestlike):
    name, precision, beside = "logits", "fast", 1

    def scores(self, values, wanted, whole=False):
        return np.stack([np.zeros_like(values[0]), np.log(values[0])])

    def probabilities(self, scores):
        return np.exp(scores) / np.exp(scores).sum(axis=0)


def test_shares_and_logits_are_averaged_as_probabilities():
    runtime = CombinedRuntime([Member(Forestlike(), (0,)), Member(Logitlike(), (1,), (AS_IT_IS,))])
    assert (runtime.name, runtime.precision, runtime.beside) == ("shares + logits, 2 models", "fast", 1)
    values = np.array([[[0.25, -1.0, 1.0]], [[3.0, 3.0, 1.0]]], np.float32)
    wanted = np.ones((1, 3), bool)
    found = runtime.probabilities(runtime.scores(values, wanted))
    assert found[:, 0, 0] == pytest.approx([0.25, 0.75]) and found[:, 0, 2] == pytest.approx([0.75, 0.25])
    assert runtime.best(values, wanted).tolist() == [[1, 255, 0]]


# --- which models go together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (card_of(5, values=(1, 2, 7)), r"'b' knows class 7 \(name 7\), 'a' does not"),
        (card_of(5, values=(1, 2)), r"'a' knows class 5 \(name 5\), 'b' does not"),
        (card_of(5, names=("red", "nir", "swir")), "'b' reads the bands red, nir, swir, 'a' reads unnamed"),
        (replace(card_of(5), sources=card_of(5).sources * 2), "'b' needs 2 sources"),
        (replace(card_of(5), sources=(replace(card_of(5).sources[0], nodata_rule="all"),)), "rule all, 'a' by any"),
    ],
)
def test_models_that_do_not_go_together_are_refused(other, sentence):
    with pytest.raises(BadInput, match=sentence):
        band_orders([card_of(5), other], ["a", "b"], Context())


def renamed(card, **names):
    table = tuple(replace(entry, name=names.get(f"_{entry.value}", entry.name)) for entry in card.classes)
    return replace(card, classes=table)


def test_models_that_call_the_classes_otherwise_are_warned_of_or_refused():
    context = Context()
    first = card_of(5)
    band_orders([first, renamed(first, _1="NAME  1", _5="Class 5")], ["a", "b"], context)
    assert context.warnings == []
    band_orders([first, renamed(first, _5="roof")], ["a", "b"], context)
    assert context.warnings == ["Class 5 is 'name 5' in 'a' and 'roof' in 'b': they are taken for one class, 'name 5'."]
    other = renamed(first, _1="crop", _2="road", _5="water")
    with pytest.raises(BadInput, match="stand for other classes: class 1 is 'name 1' in 'a' and 'crop' in 'b'"):
        band_orders([first, other], ["a", "b"], Context())
    turned = renamed(first, _1="name 2", _2="name 1")
    with pytest.raises(BadInput, match="'name 2' is class 1 in 'b' and class 2 in 'a'") as error:
        band_orders([first, turned], ["a", "b"], Context())
    assert "LEGEND" in error.value.remedy


def test_bands_are_found_by_name_in_any_order():
    first, second = card_of(5, names=("a", "b", "c")), card_of(5, names=("c", "a", "b"))
    assert band_orders([first, second], ["x", "y"], Context()) == [(0, 1, 2), (2, 0, 1)]
    assert wanted_geometry([card_of(5), card_of(8)], "none") == Geometry(4, 3)
    assert wanted_geometry([card_of(5), card_of(8)], "flips") == Geometry(4, 4)


# --- whole maps ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """A scene of 3 bands, two networks and a forest of the same classes."""
    values, _ = scene_of(40, 37, Geometry(0, 0), missing=0)
    values[:, 5:9, 20:] = NAN
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", count=3, height=40, width=37, dtype="float32", nodata=NAN,
        crs="EPSG:32721", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 9e6),
    ) as dataset:  # fmt: skip
        dataset.write(values)
    for name, size in (("first", 8), ("second", 5)):
        model = model_of(size, seed=size)
        save_model(str(tmp_path / f"{name}.safetensors"), model.card, module_tensors(model.loaded.module))
    forest = Forest(
        np.array([0, 3]), np.array([0, -1, -1], np.int32), np.array([300.0, 0, 0]),
        np.array([[1, 2], [0, 0], [1, 0]], np.int32), np.array([[1.0, 0, 0], [0.25, 0.75, 0], [0, 0.5, 0.5]]),
    )  # fmt: skip
    card = replace(card_of(1), kind="forest", network="random_forest", arguments={"features": "pixel"})
    save_model(str(tmp_path / "forest.safetensors"), card, forest.tensors())
    return tmp_path


def mapped(folder, name, model, more=(), **fields):
    context = Context()
    job = Classify(
        RasterSource(str(folder / "scene.tif")), str(folder / f"{model}.safetensors"), str(folder / f"{name}.tif"),
        str(folder / f"{name}-p.tif"), more_models=tuple(str(folder / f"{m}.safetensors") for m in more),
        device_choice="cpu", **fields,
    )  # fmt: skip
    assert input_paths(job)[1:] == [job.model, *job.more_models]
    classify(job, context)
    with rasterio.open(job.output) as classes, rasterio.open(job.probabilities) as probabilities:
        return classes.read(1), probabilities.read(), classes.tags()


def test_a_map_of_several_models_averages_their_maps(files):
    alone = [mapped(files, name, name)[1] for name in ("first", "second", "forest")]
    classes, probabilities, tags = mapped(files, "all", "first", ("second", "forest"))
    assert np.allclose(probabilities, np.mean(alone, axis=0), atol=2e-6, equal_nan=True)
    valid = np.isfinite(probabilities[0])
    assert valid.sum() == 40 * 37 - 4 * 17
    assert (classes[valid] == np.array([1, 2, 5])[probabilities.argmax(axis=0)][valid]).all()
    assert tags["DEEPSCAPE_MODEL"] == "first.safetensors, second.safetensors, forest.safetensors"
    assert tags["DEEPSCAPE_NETWORK"] == "compact_cnn, compact_cnn, random_forest"
    assert tags["DEEPSCAPE_RUNTIME"].endswith("random forest, 3 models")


def test_a_turned_scene_gives_the_turned_map(files):
    """With all eight orientations, a scene that is turned is mapped as before, and the map is turned."""
    classes, probabilities, tags = mapped(files, "before", "first", tta="full")
    assert tags["DEEPSCAPE_TTA"] == "full"
    with rasterio.open(files / "scene.tif") as dataset:
        profile, values = dataset.profile, dataset.read()
    profile.update(width=40, height=37)
    with rasterio.open(files / "scene.tif", "w", **profile) as dataset:
        dataset.write(np.rot90(values, axes=(1, 2)))
    turned_classes, turned, _ = mapped(files, "after", "first", tta="full")
    assert np.allclose(turned, np.rot90(probabilities, axes=(1, 2)), atol=2e-6, equal_nan=True)
    sure = np.nan_to_num(np.diff(np.sort(probabilities, axis=0)[-2:], axis=0)[0], nan=1.0) > 1e-5
    assert (turned_classes == np.rot90(classes))[np.rot90(sure)].all()


def test_a_map_with_tta_and_models_is_that_of_its_parts(files):
    whole, _, _ = mapped(files, "whole", "first", ("second",), tta="flips")
    part, _, _ = mapped(files, "part", "first", ("second",), tta="flips", box=(3, 11, 20, 13))
    assert (part == whole[11:24, 3:23]).all()


def test_a_model_of_other_classes_stops_the_job(files):
    model = model_of(5, values=(1, 2, 6))
    save_model(str(files / "other.safetensors"), model.card, module_tensors(model.loaded.module))
    with pytest.raises(BadInput, match=r"'other.safetensors' knows class 6 \(name 6\), 'first.safetensors' does not"):
        mapped(files, "none", "first", ("other",))
    assert not list(files.glob("none*"))
    with pytest.raises(BadInput, match="TTA 'twice'"):
        mapped(files, "none", "first", tta="twice")


def test_a_model_that_is_given_twice_stops_the_job(files):
    shutil.copy(files / "second.safetensors", files / "copy.safetensors")
    (files / "link.safetensors").symlink_to(files / "first.safetensors")
    (files / "folder").mkdir()
    for more, said in (
        (("first",), r"The model '.*first\.safetensors' is given twice\. Remove it from MODELS"),
        (("second", "folder/../second"), r"The model '.*folder/\.\./second\.safetensors' is given twice\."),
        (("link",), r"The model '.*link\.safetensors' is given twice\."),
        (("second", "copy"), r"The model '.*copy\.safetensors' is a copy of '.*second\.safetensors'\."),
    ):
        with pytest.raises(BadInput, match=said):
            mapped(files, "none", "first", more)
    assert not list(files.glob("none*"))
