"""A number that nobody declared as no-data, and formulas without a value: found, counted, and told in time."""

from dataclasses import replace

import numpy as np
import pytest
from deepscape.engine.bandstatistics import scene_statistics
from deepscape.engine.inference import map_scene
from deepscape.engine.modelfiles import LoadedModel
from deepscape.engine.oddvalues import ValueWatch, undeclared
from deepscape.engine.patches import extract_patches
from deepscape.engine.rasters import RasterReader
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Classify, ExtractPatches
from deepscape.tests.engine.test_inference import Centre, RightDense, read, write
from deepscape.tests.engine.test_patches import write_points

SIDE = 120


def image(dtype=np.int16, bands=2, seed=0, low=20, high=220):
    return np.random.default_rng(seed).integers(low, high, (bands, SIDE, SIDE)).astype(dtype)


def holed(values, number, share=0.25, bands=slice(None)):
    """Return values whose first rows hold a number."""
    values = values.copy()
    values[bands, : round(share * SIDE)] = number
    return values


def watched(source):
    watch = ValueWatch()
    with RasterReader(source) as reader:
        scene_statistics(reader, watch=watch)
    return watch.outliers()


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "number"),
    [(np.int16, -9999), (np.uint16, 65535), (np.float32, -1e30), (np.float32, 1e20)],
)
def test_a_number_far_from_all_others_is_found(tmp_path, dtype, number):
    values = image(dtype)
    first, second = watched(write(tmp_path / "a.tif", holed(values, number, bands=slice(1, 2))))
    assert first is None and np.float32(second.value) == np.float32(number) and second.share == 0.25
    kept = values[1, 30:]
    assert second.mean == pytest.approx(kept.mean(), rel=0.05) and second.std == pytest.approx(kept.std(), rel=0.05)


def test_what_is_no_outlier(tmp_path):
    def found(values, **options):
        return any(watched(write(tmp_path / "a.tif", values, **options)))

    assert not found(holed(image(), -9999), nodata=-9999)
    # A black margin, and a few pixels that are saturated.
    assert not found(holed(image(np.uint8), 0)) and not found(holed(image(), -9999, share=0.005))
    # Classes, flags, and a value in the midst of the others.
    assert not found(holed(image() % 5, 255)) and not found(holed(image() % 2, 1))
    assert not found(holed(image(), 100, 0.6))
    assert not found(np.full((1, SIDE, SIDE), 7, np.int16))


def test_how_it_is_told(tmp_path):
    every = watched(write(tmp_path / "a.tif", holed(image(), -9999)))
    assert undeclared(every, "a")[0].startswith("-9999 holds 25 % of the pixels of 'a', far from all other values")
    one = watched(write(tmp_path / "b.tif", holed(image(bands=3), -9999, 0.05, [0, 2])))
    what, remedy = undeclared(one, "b")
    assert what.startswith("-9999 holds 5.0 % of the pixels of bands 1, 3 of 'b'")
    assert remedy == "set NODATA to -9999" and undeclared((None, None), "c") == ("", "")


def model(values, formulas=(), size=1, module=None, **band):
    """Return a model that knows the mean and deviation of values ``(C, H, W)``; its class is the largest band."""
    bands = [CardBand("", 0.0, 1.0, v.mean(), v.std(), **band) for v in values.astype(float)]
    bands += [CardBand(n, 0.0, 1.0, float("nan"), float("nan"), expression=text) for n, text in formulas]
    classes = tuple(ClassEntry(i, f"name {i}", "#00ff00") for i in range(len(bands)))
    card = Card("network", "stub", (CardSource(size, tuple(bands)),), classes)
    return LoadedModel(card, module=module or Centre(size))


def mapped(folder, values, model, tile=None, source=None, context=None, **job):
    context = context or Context()
    source = source or write(folder / "s.tif", values)
    result = map_scene(model, Classify(source, "m.safetensors", str(folder / "map.tif"), **job), context, tile=tile)
    return result, context.warnings


def test_mapping_names_the_number_as_the_cause(tmp_path):
    values = image()
    with pytest.raises(BadInput) as caught:
        mapped(tmp_path, holed(values, -9999), model(values), context=(context := Context()))
    assert not context.warnings
    assert "; -9999 holds 25 % of the pixels of 's.tif'" in caught.value.message
    assert "scale" not in caught.value.message and "is not declared as no-data." in caught.value.message
    assert caught.value.remedy == (
        "Where that means no data, set NODATA to -9999; or set CONTINUE to map it all the same."
    )
    source = replace(write(tmp_path / "s.tif", holed(values, -9999)), nodata=-9999)
    result, warnings = mapped(tmp_path, None, model(values), source=source)
    assert not warnings and result.pixels == SIDE * 90


def test_the_number_of_the_file_is_told_not_the_physical_one(tmp_path):
    values = image()
    with pytest.raises(BadInput) as caught:
        mapped(tmp_path, holed(values, -9999), model(values * 0.001 - 0.1, scale=0.001, offset=-0.1))
    assert "set NODATA to -9999;" in caught.value.remedy


def test_a_number_that_hides_another_scale_is_no_cause_of_it(tmp_path):
    values = image()
    context = Context()
    with pytest.raises(BadInput) as caught:
        mapped(tmp_path, holed(values * 100, -32768), model(values), context=context)
    assert "the likely cause is the scale" in caught.value.message
    assert len(context.warnings) == 1 and "set NODATA to -32768." in context.warnings[0]


def test_where_the_scene_is_not_refused_the_number_is_warned_of_once(tmp_path):
    values = image()
    learned = holed(values, -9999)
    _, warnings = mapped(tmp_path, learned, model(learned))
    assert warnings == [
        "-9999 holds 25 % of the pixels of 's.tif', far from all other values, and is not declared as no-data: it is "
        "taken as a measurement. If it means no data, set NODATA to -9999."
    ]
    _, warnings = mapped(tmp_path, learned, model(learned, nodata=-9999.0))
    assert len(warnings) == 1 and "was no-data in the training scene" in warnings[0]


def test_extracting_patches_warns_of_it_once(tmp_path):
    points = write_points(tmp_path / "p.gpkg", [60, 80], [60, 80], class_id=[1, 2])
    source = write(tmp_path / "s.tif", holed(image(), -9999), crs="EPSG:32654")
    context = Context()
    with pytest.raises(BadInput):
        extract_patches(ExtractPatches(source, points, "class_id", str(tmp_path / "d")), context)
    assert [text for text in context.warnings if "set NODATA to -9999" in text] == context.warnings[:1]


# --- formulas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [Centre(1), RightDense(4)])
def test_pixels_that_a_formula_has_no_value_for_are_counted_in_maps(tmp_path, module):
    values = image(np.uint8)
    values[:, 10:40, 50:80] = 0
    formulas = [("X", "(B1 - B2) / (B1 + B2)"), ("Y", "B1 - B2")]
    for tile, box, count in ((None, None, 900), (32, None, 900), (32, (60, 0, 60, 20), 200)):
        result, warnings = mapped(
            tmp_path, values, model(values, formulas, module.size, module), tile, continue_anyway=True, box=box
        )
        told = [text for text in warnings if "formula" in text]
        assert told == [
            f"The formula 'X = (B1 - B2) / (B1 + B2)' has no finite value in {count} pixels of 's.tif' (a division by "
            "0?): they are no-data in the map."
        ]
        assert (read(result.output) == result.nodata_value).sum() == count


def test_pixels_without_data_are_no_fault_of_a_formula(tmp_path):
    values = image(np.uint8)
    values[:, 10:40] = 0
    source = write(tmp_path / "s.tif", values, nodata=0)
    _, warnings = mapped(tmp_path, None, model(values, [("X", "B1 / B2")]), source=source, continue_anyway=True)
    assert not [text for text in warnings if "formula" in text]


def told_of(source, expressions):
    watch, context = ValueWatch([expressions]), Context()
    with RasterReader(replace(source, expressions=expressions)) as reader:
        scene_statistics(reader, watch=watch)
    watch.tell_of_holes("s", context)
    return context.warnings


def test_a_formula_without_a_value_is_named_before_training(tmp_path):
    values = image(np.uint8)
    values[:, 10:40, 50:80] = 0
    source = write(tmp_path / "s.tif", values)
    assert told_of(source, "B1 / B2") == [
        "The formula 'B1 / B2' has no finite value in 900 of the 14400 pixels of 's' that were looked at (a division "
        "by 0?): they count as no-data."
    ]
    assert told_of(source, "B1 * B2") == []
    with pytest.raises(BadInput, match="'B1/0' has no finite value in any of the 14400 pixels of 's'"):
        told_of(source, "B1/0")
