"""Bands are found by what they are called: by their description, else by the colour that their file gives them."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from deepscape.engine.bandnames import band_names, one_unnamed, usual_order
from deepscape.engine.datasets import PatchDataset
from deepscape.engine.inference import map_scene
from deepscape.engine.modelfiles import LoadedModel
from deepscape.engine.patchpools import open_pool
from deepscape.engine.rasters import BandInfo, RasterReader
from deepscape.engine.runtimes.combined import band_orders
from deepscape.engine.scenes import match_bands
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Classify, RasterSource
from deepscape.tests.engine import patchsets
from deepscape.tests.engine.test_inference import Log
from deepscape.tests.engine.test_training import Listener
from rasterio.enums import ColorInterp

NAN = float("nan")
RGB, BGR = ("red", "green", "blue"), ("blue", "green", "red")
RGBA = (*RGB, "alpha")


def image(path, colours, names=(), values=None, **options):
    """Write an image whose bands are called by these colours."""
    values = (
        np.random.default_rng(0).integers(0, 50, (len(colours), 9, 8)).astype(np.uint8) if values is None else values
    )
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, crs="EPSG:32631", transform=patchsets.TRANSFORM, **options,
    ) as dataset:  # fmt: skip
        dataset.colorinterp = [ColorInterp[colour] for colour in colours]
        dataset.write(values)
        for number, name in enumerate(names, start=1):
            dataset.set_band_description(number, name)
    return RasterSource(str(path))


def have(*colours, names=None):
    return [BandInfo(name, "uint8", None, 1.0, 0.0, colour=colour) for name, colour in zip(names or [""] * 9, colours)]


def need(*names):
    return [CardBand(name, 0.0, 1.0, NAN, NAN) for name in names]


def match(bands, wanted, **options):
    """Return the order, and the warnings and lines of the log."""
    context = Log()
    return match_bands(bands, need(*wanted), "s", options.pop("anyway", False), context, **options), context


# --- names -----------------------------------------------------------------------------------------------------------


def test_bands_are_called_by_their_colours_where_nothing_describes_them(tmp_path):
    def names(colours, names=(), bands=(), stack=()):
        source = image(tmp_path / "a.tif", colours, names)
        with RasterReader(replace(source, bands=bands, stack=stack)) as reader:
            return band_names(reader.bands)

    assert names(BGR) == BGR
    assert names(RGB, ("B4", "", "B2")) == ("B4", "green", "B2")
    # Where a band stays without a name, or two have the same, colours tell nothing.
    assert names((*RGB, "undefined")) == ("", "", "", "")
    assert names(("gray",)) == ("",)
    assert names(RGB, stack=(image(tmp_path / "b.tif", RGB).path,)) == ("",) * 6
    assert names(RGB, ("", "", "red")) == ("", "", "red")
    # What is called alpha is a band where it is asked for alone.
    assert names(RGBA) == RGB and names(RGBA, bands=(1, 2, 3, 4)) == RGBA


def test_usual_orders():
    assert usual_order(BGR) == (2, 1, 0) and usual_order(RGB) == (0, 1, 2)
    assert usual_order(("coastal", "blue", "green", "Red", "NIR")) == (0, 3, 2, 1, 4)
    assert usual_order(("nir", "red", "green")) == (1, 2, 0) and usual_order((*BGR, *BGR)) == tuple(range(6))
    assert one_unnamed(("", "", ""), RGB) and one_unnamed(RGBA, ("",) * 4) and one_unnamed(("",), ("",)) is False
    assert not one_unnamed(("", "", ""), BGR) and not one_unnamed(RGB, RGB) and not one_unnamed(("",), RGB)


# --- matching --------------------------------------------------------------------------------------------------------


def test_a_scene_in_another_order_is_matched_by_colour_or_description():
    order, context = match(have(*BGR), RGB)
    assert order == (2, 1, 0) and not context.warnings
    assert context.lines == ["Bands of 's' taken by name: red, green, blue (numbers 3, 2, 1)."]
    described = have("", "", "", names=("Blue", "Green", "Red"))
    assert match(described, RGB)[0] == (2, 1, 0)
    # Descriptions of another kind do not hide the colours, and a fourth band of no colour is none of the three.
    assert match(have(*BGR, names=("Band 1", "Band 2", "Band 3")), RGB)[0] == (2, 1, 0)
    assert match(have(*RGB, ""), RGB)[0] == (0, 1, 2)


def test_what_could_be_mapped_before_still_can_be():
    for wanted in (("", "", ""), RGB, ("B4", "B3", "B2")):
        for bands in (have("", "", ""), have("gray", "", ""), have(*RGB), have("red", "green", "")):
            order, context = match(bands, wanted)
            assert order == (0, 1, 2) and not context.warnings, (wanted, bands)


def test_an_order_that_is_not_the_usual_one_is_warned_of_where_the_model_knows_no_names():
    (text,) = match(have(*BGR, ""), [""] * 4)[1].warnings
    assert "are called blue, green, red, unnamed and are taken in their order" in text and "BANDS 3, 2, 1, 4." in text
    for bands in (have(*BGR), have("", "", "", names=("Blue", "Green", "Red"))):
        order, context = match(bands, ("", "", ""))
        assert order == (0, 1, 2)
        (text,) = context.warnings
        assert "taken in their order, for the model does not know" in text and "choose the BANDS 3, 2, 1." in text
    assert not match(have(*BGR), ("", "", ""), chosen=True)[1].warnings
    # A model of four bands knows three colours; the scene's names are no colours of theirs.
    (text,) = match(have("", "", "", "", names=("Blue", "Green", "Red", "NIR")), RGBA)[1].warnings
    assert text.startswith("The bands of 's' are called Blue, Green, Red, NIR, the model's red, green, blue, alpha")


def test_bands_that_the_user_chose_are_taken_in_that_order_whatever_their_file_calls_them():
    order, context = match(have(*BGR), RGB, chosen=True)
    assert order == (0, 1, 2)
    assert context.warnings == [
        "The bands of 's' are called blue, green, red, the model's red, green, blue: they are taken in their order, as "
        "BANDS gives it."
    ]
    assert match(have(*RGB), RGB, chosen=True)[1].warnings == []
    # Descriptions are the user's own, and count as ever.
    assert match(have(*BGR, names=("blue", "green", "red")), RGB, chosen=True)[0] == (2, 1, 0)


def test_a_model_of_alpha_takes_any_fourth_band():
    assert match(have(*RGBA), RGBA)[0] == (0, 1, 2, 3)
    assert match(have("blue", "green", "red", "alpha"), RGBA)[0] == (2, 1, 0, 3)
    for bands in (have("", "", "", ""), have(*RGB, ""), have(*[""] * 4, names=("Red", "Green", "Blue", "NIR"))):
        order, context = match(bands, RGBA)
        assert order == (0, 1, 2, 3) and not context.warnings


# --- whole maps ------------------------------------------------------------------------------------------------------


class Centre(torch.nn.Module):
    def forward(self, x):
        return x[:, :, 0, 0]


def mapped(folder, source, wanted, values):
    """Return the map and the context of a model whose class is the largest of its bands."""
    bands = tuple(CardBand(n, 0.0, 1.0, v.mean(), v.std()) for n, v in zip(wanted, values))
    classes = tuple(ClassEntry(i, f"name {i}", "#00ff00") for i in range(len(wanted)))
    model = LoadedModel(Card("network", "stub", (CardSource(1, bands),), classes), module=Centre())
    context = Log()
    map_scene(model, Classify(source, "m.safetensors", str(folder / "map.tif")), context)
    with rasterio.open(folder / "map.tif") as dataset:
        return dataset.read(1), context


def test_a_blue_green_red_scene_has_the_map_of_the_red_green_blue_one(tmp_path):
    values = np.random.default_rng(0).integers(0, 50, (3, 30, 40)).astype(np.uint8)
    turned = image(tmp_path / "bgr.tif", BGR, values=values[::-1])
    assert np.array_equal(mapped(tmp_path, turned, RGB, values)[0], values.argmax(axis=0))
    chosen = replace(image(tmp_path / "wrong.tif", BGR, values=values), bands=(1, 2, 3))
    assert np.array_equal(mapped(tmp_path, chosen, RGB, values)[0], values.argmax(axis=0))


def test_a_band_called_alpha_is_mapped_where_the_model_learned_from_one(tmp_path):
    values = np.random.default_rng(0).integers(0, 50, (4, 30, 40)).astype(np.uint8)
    source = image(tmp_path / "naip.tif", RGBA, values=values)
    found, context = mapped(tmp_path, source, RGBA, values)
    assert np.array_equal(found, values.argmax(axis=0)) and not context.warnings
    assert "Band 4 of 'naip.tif', which is called alpha, is taken as a measurement, as in training." in context.lines
    with pytest.raises(BadInput) as caught:
        mapped(tmp_path, source, ("", "", "", ""), values)
    assert caught.value.message == "'naip.tif' has 3 bands (red, green, blue), the model needs 4 (unnamed)."
    assert caught.value.remedy == (
        "Band 4 of 'naip.tif' is called alpha and taken for a mask: if it is a measurement, such as near infrared, "
        "choose the BANDS 1, 2, 3, 4."
    )
    # Five bands are not made up by one that is called alpha.
    with pytest.raises(BadInput) as caught:
        mapped(tmp_path, source, ("",) * 5, np.zeros((5, 2, 2)))
    assert "STACK" in caught.value.remedy


# --- what else knows names -------------------------------------------------------------------------------------------


def test_an_expression_on_a_band_called_alpha_names_the_remedy(tmp_path):
    source = image(tmp_path / "naip.tif", RGBA)
    with pytest.raises(BadInput) as caught:
        RasterReader(replace(source, expressions="NDVI = (B4 - B1) / (B4 + B1)"))
    assert caught.value.message == "'B4' at character 9 of EXPRESSIONS is no band."
    assert caught.value.remedy == (
        "The bands are: B1, B2, B3. Band 4 of 'naip.tif' is called alpha and taken for a mask: if it is a measurement, "
        "such as near infrared, choose the BANDS 1, 2, 3, 4."
    )
    with RasterReader(replace(source, expressions="B1 / 2", stack=(source.path,))) as reader:
        assert reader.alpha_remedy.endswith("BANDS 1, 2, 3, 4.")
    with RasterReader(replace(source, bands=(1, 2))) as reader:
        assert reader.alpha_remedy == ""


def datasets(folder, *colours):
    """Return patch datasets of images of three bands, by the colours of their bands."""
    found = []
    for number, each in enumerate(colours):
        values = np.random.default_rng(number).integers(0, 50, (3, patchsets.SIDE, patchsets.SIDE)).astype(np.uint8)
        source = image(folder / f"{number}.tif", each, values=values)
        points = patchsets.grid_points(folder / f"{number}.gpkg", (4, 60))
        found.append(patchsets.extract(folder / f"set {number}", source.path, points))
    return found


def test_datasets_keep_colours_and_refuse_another_order(tmp_path):
    red, blue, plain = datasets(tmp_path, RGB, BGR, ("gray", "undefined", "undefined"))
    assert [band.name for band in PatchDataset(red).description.sources[0].bands] == list(RGB)
    context = Listener()
    open_pool([red, plain], context)
    assert not [text for text in context.warnings if "names" in text]
    with pytest.raises(BadInput, match=r"Band 1 of .* is 'blue', of the training patches 'red'"):
        open_pool([red, blue], Listener())


def card(names):
    bands = tuple(need(*names))
    return Card(
        "network", "stub", (CardSource(1, bands),), (ClassEntry(1, "a", "#00ff00"), ClassEntry(2, "b", "#ff0000"))
    )


def test_models_of_earlier_versions_go_together_with_those_that_know_their_colours():
    assert band_orders([card(("", "", "")), card(RGB)], ["a", "b"], Context())[1] == (0, 1, 2)
    assert band_orders([card(RGB), card(BGR)], ["a", "b"], Context())[1] == (2, 1, 0)
    with pytest.raises(BadInput, match="reads the bands"):
        band_orders([card(("", "", "")), card(BGR)], ["a", "b"], Context())
