"""Samples where an image has no data, and the sentences on samples that are lost."""

import numpy as np
import pytest
import rasterio
from deepscape.engine.nodatasamples import losses_text, tell_of_losses, without_data
from deepscape.engine.rasters import RasterReader
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.jobs import RasterSource
from rasterio.transform import from_origin

WOOD, LAKE = ClassEntry(2, "wood", "#00ff00"), ClassEntry(5, "lake", "#0000ff")


def nothing():
    """Check for no cancel."""


def write(path, values, nodata=None, **options):
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[2], height=values.shape[1], count=len(values),
        dtype=values.dtype, nodata=nodata, crs="EPSG:32654", transform=from_origin(1000, 2000, 10, 10), **options,
    ) as dataset:  # fmt: skip
        dataset.write(values)
    return RasterSource(str(path))


@pytest.mark.parametrize("options", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64}])
@pytest.mark.parametrize("rule", ["any", "all"])
def test_pixels_without_data_are_those_of_the_raster(tmp_path, options, rule):
    random = np.random.default_rng(3)
    values = random.choice(np.array([0, 7], np.int16), (2, 700, 900))
    rows, cols = random.integers(0, 700, 5000), random.integers(0, 900, 5000)
    rows[:2], cols[:2] = (0, 699), (0, 899)
    lacking = (values == 0).any(axis=0) if rule == "any" else (values == 0).all(axis=0)
    with RasterReader(write(tmp_path / "i.tif", values, nodata=0, **options)) as reader:
        assert (without_data(reader, rule, rows, cols, nothing) == lacking[rows, cols]).all()
        assert without_data(reader, rule, rows[:0], cols[:0], nothing).shape == (0,)


def test_not_a_number_and_masks_are_no_data(tmp_path):
    values = np.ones((1, 4, 4), np.float32)
    values[0, 1, 2] = np.nan
    with RasterReader(write(tmp_path / "f.tif", values)) as reader:
        found = without_data(reader, "any", np.array([1, 1, 0]), np.array([2, 1, 0]), nothing)
        assert found.tolist() == [True, False, False]
    source = write(tmp_path / "m.tif", np.ones((1, 4, 4), np.uint8))
    with rasterio.open(source.path, "r+") as dataset:
        dataset.write_mask(np.eye(4, dtype=bool))
    with RasterReader(source) as reader:
        assert without_data(reader, "all", np.array([0, 0]), np.array([0, 1]), nothing).tolist() == [False, True]


def test_an_image_without_any_no_data_is_not_read(tmp_path, monkeypatch):
    source = write(tmp_path / "i.tif", np.zeros((2, 4, 4), np.uint8))
    with RasterReader(source) as reader:
        monkeypatch.setattr(reader, "read_known", None)
        assert not without_data(reader, "any", np.arange(4), np.arange(4), nothing).any()


def told(lost, totals, classes=(WOOD, LAKE)):
    context, log = Context(), []
    context.log = log.append
    tell_of_losses("samples lie elsewhere", lost, totals, classes, "Look there.", context)
    return log, context.warnings


def test_few_losses_are_logged_and_many_of_one_class_warned_of():
    assert told({2: 0, 5: 0}, {2: 10, 5: 10}) == ([], [])
    sentence = "5 of 300 samples lie elsewhere: 4 of 100 of class 5 'lake', 1 of 200 of class 2 'wood'."
    assert told({2: 1, 5: 4}, {2: 200, 5: 100}) == ([sentence], [])
    sentence = "1 of 210 samples lie elsewhere: 1 of 10 of class 5 'lake'. Look there."
    assert told({5: 1}, {2: 200, 5: 10}) == ([], [sentence])


def test_no_class_is_named_where_samples_have_none():
    assert told({-1: 1}, {-1: 20}, ()) == (["1 of 20 samples lie elsewhere."], [])
    assert told({-1: 2}, {-1: 20}, ()) == ([], ["2 of 20 samples lie elsewhere. Look there."])


def test_no_more_than_five_classes_are_named():
    classes = [ClassEntry(value, f"c{value}", "#000000") for value in range(8)]
    text = losses_text({value: value for value in range(8)}, dict.fromkeys(range(8), 10), classes)
    assert text.startswith("7 of 10 of class 7 'c7', 6 of 10 of class 6 'c6', ")
    assert text.endswith("3 of 10 of class 3 'c3', and some of 2 other classes")
