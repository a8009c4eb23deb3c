"""Bands computed from bands: the same in training, in mapping and as a file of their own; and what is refused."""

import numpy as np
import pytest
import rasterio
from deepscape.engine.computedbands import compute, parse_computed, used_bands
from deepscape.engine.datasets import PatchDataset
from deepscape.engine.forest import train_random_forest
from deepscape.engine.inference import classify
from deepscape.engine.normalising import normalise
from deepscape.engine.patches import extract_patches
from deepscape.engine.rasters import RasterReader
from deepscape.engine.training import train_classifier
from deepscape.models.cards import read_card
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import (
    Classify,
    ExtractPatches,
    Normalise,
    RasterSource,
    TrainClassifier,
    TrainRandomForest,
    VectorSource,
)
from deepscape.tests.engine import patchsets
from rasterio.transform import from_origin

NDVI = "NDVI = (B4 - B3) / (B4 + B3)"


def write(path, array, names=(), nodata=None, scales=None, offsets=None):
    with rasterio.open(
        path, "w", driver="GTiff", width=array.shape[2], height=array.shape[1], count=len(array), dtype=array.dtype,
        crs="EPSG:32654", transform=from_origin(500000, 4000000, 10, 10), nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(array)
        for index, name in enumerate(names, start=1):
            dataset.set_band_description(index, name)
        if scales:
            dataset.scales, dataset.offsets = scales, offsets
    return str(path)


@pytest.fixture
def image(tmp_path):
    values = np.random.default_rng(0).integers(1, 4000, (4, 20, 30)).astype("uint16")
    values[2, 3, 4] = 0
    return write(tmp_path / "i.tif", values, nodata=0, scales=(1e-4, 1e-4, 1e-4, 2e-4), offsets=(-0.1, -0.1, -0.1, 0.0))


def test_computed_bands_stand_behind_raw_ones_and_come_from_physical_values(image):
    with RasterReader(RasterSource(image)) as plain:
        raw, valid = plain.read(0, 0, 20, 30)
        physical = plain.physical(raw).astype(float)
    with RasterReader(RasterSource(image, expressions=f"{NDVI}; B1 * 2")) as reader:
        values, usable = reader.read(0, 0, 20, 30)
        assert [band.name for band in reader.bands[4:]] == ["NDVI", "B1 * 2"]
        assert [band.expression for band in reader.bands[3:]] == ["", "(B4 - B3) / (B4 + B3)", "B1 * 2"]
        assert [(band.scale, band.offset) for band in reader.bands[4:]] == [(1, 0), (1, 0)]
        in_units = reader.physical(values)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[:4], raw)
    np.testing.assert_array_equal(usable[:4], valid)
    expected = ((physical[3] - physical[2]) / (physical[3] + physical[2])).astype("float32")
    assert usable[4].sum() == 599 and not usable[4, 3, 4] and np.isnan(values[4, 3, 4])
    np.testing.assert_array_equal(values[4][usable[4]], expected[usable[4]])
    np.testing.assert_array_equal(in_units[5], (physical[0] * 2).astype("float32"))


def test_they_equal_the_band_that_normalising_writes(image, tmp_path):
    job = Normalise(RasterSource(image), str(tmp_path / "n.tif"), method="expression", expression=NDVI)
    assert normalise(job, Context()).bands == ("NDVI",)
    with rasterio.open(tmp_path / "n.tif") as dataset:
        assert dataset.descriptions == ("NDVI",)
        written = dataset.read(1)
    with RasterReader(RasterSource(image, expressions=NDVI)) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 20, 30)[0][4], written)


def test_scale_and_offset_of_the_user_count_for_file_bands_only(image):
    with RasterReader(RasterSource(image, expressions="X = B1 + B2"), scale=0.5, offset=3) as reader:
        assert [(band.scale, band.offset) for band in reader.bands] == [(0.5, 3)] * 4 + [(1, 0)]
        raw, _ = reader.read(0, 0, 1, 1)
    assert raw[4, 0, 0] == raw[0, 0, 0] * 0.5 + raw[1, 0, 0] * 0.5 + 6


def test_windows_and_reflection_do_not_change_them(image):
    with RasterReader(RasterSource(image, expressions=NDVI)) as reader:
        whole, valid = reader.read(0, 0, 20, 30)
        part, usable = reader.read(-6, 20, 16, 18)
    for found, expected in ((part, whole), (usable, valid)):
        padded = np.pad(expected, ((0, 0), (20, 20), (20, 20)), mode="reflect")
        np.testing.assert_array_equal(found, padded[:, 14:30, 40:58])


def test_no_data_follows_the_rule_and_what_is_not_finite_is_none(tmp_path):
    values = np.array([[[0, 0, 4, 1]], [[0, 5, 4, 0]], [[0, 1, 1, 1]]], "uint8")
    path = write(tmp_path / "i.tif", values, nodata=0)
    source = RasterSource(path, expressions="D = B1 / (B1 - B2)")
    with RasterReader(source) as reader:
        assert reader.read(0, 0, 1, 4, "any")[1][3].tolist() == [[False, False, False, False]]
        raw, valid = reader.read(0, 0, 1, 4, "all")
    # 0 / 0 with all bands no-data; -0; 4 / 0; 1
    assert valid[3].tolist() == [[False, True, False, True]]
    assert raw[3, 0, 1] == 0 and raw[3, 0, 3] == 1
    assert valid[:3].tolist() == [[[False, True, True, True]]] * 3


def test_what_is_larger_than_any_measurement_is_none(tmp_path):
    path = write(tmp_path / "i.tif", np.array([[[1, 1e-35, 1e-20]]], "float32"))
    with RasterReader(RasterSource(path, expressions="D = 1 / B1")) as reader:
        raw, valid = reader.read(0, 0, 1, 3)
    assert valid[1].tolist() == [[True, False, True]] and np.isnan(raw[1, 0, 1])


def test_a_mask_counts_in_what_is_computed(tmp_path):
    path = write(tmp_path / "i.tif", np.full((2, 1, 3), 8, "uint8"))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.array([[255, 0, 255]], "uint8"))
    with RasterReader(RasterSource(path, bands=(2,), expressions="H = B1 / 2")) as reader:
        raw, valid = reader.read(0, 0, 1, 3, "all")
    assert valid.tolist() == [[[True, False, True]]] * 2
    np.testing.assert_array_equal(raw[1], [[4, np.nan, 4]])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("uint8", "float32"), ("int8", "float32"), ("int16", "float32"), ("uint32", "float64"), ("float64", "float64")],
)
def test_the_stack_holds_the_raw_values_exactly(tmp_path, dtype, expected):
    largest = np.iinfo(dtype).max if dtype != "float64" else 1 + 2**-40
    path = write(tmp_path / "i.tif", np.full((2, 2, 2), largest, dtype))
    with RasterReader(RasterSource(path, expressions="B1 / B2")) as reader:
        values, valid = reader.read(0, 0, 2, 2)
    assert values.dtype == expected == reader.dtype and valid.all()
    assert (values[:2] == largest).all() and (values[2] == 1).all()


def test_bands_are_called_by_their_description_and_a_stack_counts(tmp_path):
    one = write(tmp_path / "a.tif", np.full((2, 1, 2), 3, "uint8"), ["red", "near infrared"])
    two = write(tmp_path / "b.tif", np.full((1, 1, 2), 4.5, "float32"), ["height"])
    source = RasterSource(one, stack=(two,), bands=(2,), expressions="'a b' = height - 'near infrared', B2 * 2")
    with RasterReader(source) as reader:
        assert [band.name for band in reader.bands] == ["near infrared", "height", "a b", "B2 * 2"]
        assert reader.read(0, 0, 1, 1)[0].ravel().tolist() == [3, 4.5, 1.5, 9]


def test_an_overflow_is_no_data():
    expressions = parse_computed("B1 * 1e200", ["", ""])
    assert used_bands(expressions) == (0,)
    found = compute(expressions, {0: np.array([[1.0, 1e-180]])}, np.ones((2, 1, 2), bool))
    assert found.dtype == np.float32 and np.isnan(found[0, 0, 0]) and found[0, 0, 1] == np.float32(1e20)


@pytest.mark.parametrize("train", ["forest", "network"])
def test_extracting_training_and_mapping_know_no_difference(tmp_path, train):
    """NDVI computed on the way, and the same NDVI as a band of a second file: equal patches, models and maps."""
    plain = patchsets.scene(tmp_path / "plain.tif", values=lambda data: data * 100 + 500, dtype="uint16", nodata=0)
    ndvi = "(B3 - B1) / (B3 + B1)"
    job = Normalise(RasterSource(plain), str(tmp_path / "n.tif"), method="expression", expression=f"NDVI = {ndvi}")
    points = patchsets.grid_points(tmp_path / "p.gpkg", (4, 90))
    sources = {
        "computed": RasterSource(plain, expressions=f"NDVI = {ndvi}"),
        "filed": RasterSource(plain, stack=(normalise(job, Context()).output,)),
    }
    maps, means = {}, {}
    for name, source in sources.items():
        folder = tmp_path / name
        folder.mkdir()
        extract_patches(
            ExtractPatches(source, VectorSource(points), "class_id", str(folder / "patches"), patch_size=5), Context()
        )
        dataset = PatchDataset(str(folder / "patches"))
        assert [band.name for band in dataset.description.sources[0].bands] == ["B1", "B2", "B3", "NDVI"]
        model = str(folder / "m.safetensors")
        if train == "forest":
            train_random_forest(TrainRandomForest(str(dataset.folder), model, features="window"), Context())
        else:
            train_classifier(TrainClassifier(str(dataset.folder), model, epochs=1, device_choice="cpu"), Context())
        bands = read_card(model).sources[0].bands
        assert [band.expression for band in bands] == ["", "", "", ndvi if name == "computed" else ""]
        means[name] = [(band.mean, band.std, band.scene_mean, band.scene_std) for band in bands]
        scene = RasterSource(plain) if name == "computed" else source
        maps[name] = classify(Classify(scene, model, str(folder / "map.tif")), Context()).output
    np.testing.assert_allclose(means["computed"], means["filed"], rtol=1e-12)
    with rasterio.open(maps["computed"]) as one, rasterio.open(maps["filed"]) as other:
        found = one.read(1)
        np.testing.assert_array_equal(found, other.read(1))
    assert len(np.unique(found)) == 3


def test_patches_whose_bands_are_computed_otherwise_do_not_train_together(tmp_path):
    image = patchsets.scene(tmp_path / "i.tif")
    folders = []
    for number, factor in enumerate((2, 3)):
        points = patchsets.grid_points(tmp_path / f"{number}.gpkg", (4 + 50 * number, 44 + 50 * number))
        source = RasterSource(image, expressions=f"X = B1 * {factor}")
        job = ExtractPatches(source, VectorSource(points), "class_id", str(tmp_path / str(number)), patch_size=3)
        folders.append(extract_patches(job, Context()).output)
    with pytest.raises(BadInput, match=r"'X' of the validation patches is B1 \* 3, of the training patches B1 \* 2\."):
        train_random_forest(
            TrainRandomForest(folders[0], str(tmp_path / "m.safetensors"), validation=folders[1]), Context()
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("B1 / bandmax(B1)", "'B1 / bandmax(B1)' of EXPRESSIONS needs statistics of the whole image"),
        ("X = 3 + 4", "'3 + 4' of EXPRESSIONS uses no band"),
        ("red = B1 * 2", "calls a band 'red', which is the name of another band"),
        ("X = B1; X = B2", "calls a band 'X', which is the name of another band"),
        ("NDVI = (B9 - B1)", "'B9' at character 9 of EXPRESSIONS is no band"),
        ("X = Y = B1", "cannot be understood at character 7"),
        ("X = ", "cannot be understood"),
        (" ;", "The expression is empty"),
    ],
)
def test_bad_expressions_are_named(tmp_path, text, said):
    path = write(tmp_path / "i.tif", np.ones((2, 2, 2), "uint8"), ["red", "green"])
    with pytest.raises(BadInput) as caught:
        RasterReader(RasterSource(path, expressions=text))
    assert said in caught.value.message and caught.value.remedy
