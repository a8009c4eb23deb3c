"""Normalising: statistics without no-data, every method, and expressions that are checked and never executed."""

import os

import numpy as np
import pytest
import rasterio
from deepscape.engine import rasterwriting
from deepscape.engine.expressions import parse_expressions
from deepscape.engine.normalising import normalise
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Normalise, RasterSource
from rasterio.transform import from_origin


def write(path, array, names=(), **profile):
    with rasterio.open(
        path, "w", driver="GTiff", width=array.shape[2], height=array.shape[1], count=len(array), dtype=array.dtype,
        crs="EPSG:32654", transform=from_origin(0, 1000, 10, 10), **profile,
    ) as dataset:  # fmt: skip
        dataset.write(array)
        for index, name in enumerate(names, start=1):
            dataset.set_band_description(index, name)
    return RasterSource(str(path))


def run(tmp_path, source, method="max", expression=""):
    context = Context()
    result = normalise(Normalise(source, str(tmp_path / "out.tif"), method, expression), context)
    with rasterio.open(result.output) as dataset:
        assert dataset.dtypes == ("float32",) * dataset.count and np.isnan(dataset.nodata)
        assert dataset.descriptions == result.bands
        return dataset.read(), result, context


@pytest.fixture
def scene(tmp_path):
    image = np.array([[[0, 10, 20], [40, 30, 255]], [[1, 2, 3], [4, 5, 255]]], "uint8")
    return write(tmp_path / "i.tif", image, names=("Red", "N I R"), nodata=255)


def test_methods_leave_no_data_out_of_the_statistics(tmp_path, scene):
    nan = np.nan
    values, result, _ = run(tmp_path, scene, "max")
    np.testing.assert_allclose(values[0], [[0, 0.25, 0.5], [1, 0.75, nan]])
    np.testing.assert_allclose(values[1], [[0.2, 0.4, 0.6], [0.8, 1, nan]])
    assert result.bands == ("Red", "N I R")
    values, _, _ = run(tmp_path, scene, "minmax")
    np.testing.assert_allclose(values[1], [[0, 0.25, 0.5], [0.75, 1, nan]])
    values, _, _ = run(tmp_path, scene, "zscore")
    valid = np.array([0, 10, 20, 40, 30])
    np.testing.assert_allclose(values[0].ravel()[:5], (valid - 20) / valid.std(), rtol=1e-6)
    assert np.isnan(values[:, 1, 2]).all()


def test_windows_do_not_change_the_result(tmp_path, monkeypatch):
    image = np.random.default_rng(0).normal(5, 2, (3, 600, 700)).astype("float32")
    image[0, 5, 7] = np.nan
    source = write(tmp_path / "i.tif", image)
    monkeypatch.setattr(rasterwriting, "_WINDOW_VALUES", 1)
    values, result, _ = run(tmp_path, source, "zscore")
    np.testing.assert_allclose(values[1:], (image[1:] - 5) / 2, atol=0.05)
    expected = (image[0] - np.nanmean(image[0], dtype=float)) / np.nanstd(image[0].astype(float))
    np.testing.assert_allclose(values[0], expected, atol=1e-5)
    assert result.bands == ("B1", "B2", "B3")


def test_stacked_rasters_and_file_scale_count_in_physical_units(tmp_path):
    one = write(tmp_path / "a.tif", np.array([[[100, 200]]], "uint16"))
    with rasterio.open(one.path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.01,), (1.0,)
    write(tmp_path / "b.tif", np.array([[[4.0, 8.0]]], "float32"))
    source = RasterSource(one.path, stack=(str(tmp_path / "b.tif"),))
    values, _, _ = run(tmp_path, source, "max")
    np.testing.assert_allclose(values[:, 0], [[2 / 3, 1], [0.5, 1]])
    values, _, _ = run(tmp_path, source, "expression", "b1")
    np.testing.assert_allclose(values[0, 0], [2, 3])


def test_constant_and_empty_bands_are_said(tmp_path):
    image = np.array([[[3, 3]], [[0, 0]], [[np.nan, np.nan]]], "float32")
    values, _, context = run(tmp_path, write(tmp_path / "i.tif", image), "max")
    np.testing.assert_array_equal(values[:, 0], [[1, 1], [0, 0], [np.nan, np.nan]])
    text = " ".join(context.warnings)
    assert "Band B2 has maximum 0" in text and "Band B3 holds no valid pixel" in text
    values, _, context = run(tmp_path, write(tmp_path / "i.tif", image), "zscore")
    assert values[0].tolist() == [[0, 0]] and "the same value everywhere" in context.warnings[0]
    with pytest.raises(BadInput, match="holds no valid pixel"):
        run(tmp_path, write(tmp_path / "i.tif", image[2:]), "max")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("(b2 - Red) / (b2 + Red)", [(1 - 0) / 1, (2 - 10) / 12]),
        ('"N I R" * 2 ** 3 + -1', [7, 15]),
        ("min(Red, b2, 1.5)", [0, 1.5]),
        ("max(Red, b2)", [1, 10]),
        ("where(Red > 5, 1, b2)", [1, 1]),
        ("1 < b2 <= 2", [0, 1]),
        ("abs(-Red) + sqrt(b2 ** 2) + exp(0) + log(1)", [2, 13]),
        ("Red / bandmax(Red) + bandmin(B2) + bandmean(Red)", [21, 21.25]),
        ('bandstd("N I R")', [2**0.5] * 2),
        ("1 / Red", [np.nan, 0.1]),
        ("where(Red == 0, 5, 0) + 0 * log(Red)", [np.nan, 0]),
        ("7", [7, 7]),
    ],
)
def test_expressions(tmp_path, scene, expression, expected):
    values, _, _ = run(tmp_path, scene, "expression", expression)
    np.testing.assert_allclose(values[0, 0, :2], expected, rtol=1e-6)
    # No-data of a band that is used makes the result no-data, a comparison included.
    assert np.isnan(values[0, 1, 2]) == (expression != "7")


def test_several_expressions_become_several_bands(tmp_path, scene):
    values, result, _ = run(tmp_path, scene, "expression", " Red , min(b1,b2) ; b2*2,")
    assert result.bands == ("Red", "min(b1,b2)", "b2*2")
    np.testing.assert_array_equal(values[:, 0, 1], [10, 2, 4])


def test_a_description_goes_before_a_number():
    names = ["B1", "B8A", "B9"]
    assert [sorted(e.bands) for e in parse_expressions("B9; b3; B2; B8A", names)] == [[2], [2], [1], [1]]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("B1 + B7", "'B7' at character 6 of EXPRESSION is no band. The bands are: Red, B2."),
        ("B1; Blau", "'Blau' at character 5"),
        ("ü + B1", "'ü' at character 1"),
        ("(B1 + ", "cannot be understood at character"),
        ("B1 +* 2, B2", "cannot be understood at character 5"),
        ("open('x')", "is no known function. The functions are: min, max"),
        ("__import__('os').system('x')", "is no known function"),
        ("B1.real", "'B1.real' at character 1 of EXPRESSION is not allowed"),
        ("[B1 for B1 in (1,)]", "is not allowed"),
        ("lambda: 1", "is not allowed"),
        ("B1[0]", "is not allowed"),
        ("max(B1)", "has 1 arguments, 2 are needed. For the maximum of a whole band write bandmax(B1)."),
        ("bandmax(B1 + B2)", "must name one band"),
        ("sqrt(B1, 2)", "has 2 arguments"),
        ("1e999 * B1", "is too large a number"),
        ("9" * 400, "is too large a number"),
        ("+".join(["B1"] * 1000), "is nested too deeply"),
        ("-" * 900 + "B1", "is nested too deeply"),
        ("(" * 300 + "B1" + ")" * 300, "cannot be understood"),
        ("True", "is not allowed"),
        (" ; ,", "The expression is empty"),
        ("B1" + " " * 10_000, "characters, more than"),
        ("B1\0", "cannot be understood"),
    ],
)
def test_bad_expressions_are_named_with_their_place(expression, said):
    with pytest.raises(BadInput) as caught:
        parse_expressions(expression, ["Red", ""])
    assert said in str(caught.value)


def test_a_bad_expression_leaves_no_file(tmp_path, scene):
    with pytest.raises(BadInput):
        run(tmp_path, scene, "expression", "B9")
    with pytest.raises(BadInput, match="does not exist"):
        normalise(Normalise(scene, str(tmp_path / "no" / "o.tif")), Context())
    assert os.listdir(tmp_path) == ["i.tif"]
