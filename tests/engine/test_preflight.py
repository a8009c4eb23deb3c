"""The preflight: which scenes are refused, and which cause it names."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from deepscape.engine.bandstatistics import BandStatistics, SceneStatistics, sample_windows, scene_statistics
from deepscape.engine.oddvalues import ValueWatch
from deepscape.engine.preflight import check_resolution, check_scene, check_undeclared_nodata
from deepscape.engine.rasters import RasterReader
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import RasterSource
from deepscape.tests.engine.test_bandstatistics import sampled
from deepscape.tests.engine.test_oddvalues import holed, image, mapped, model
from hypothesis import given, settings
from hypothesis import strategies as st

SCENE = Path(__file__).resolve().parents[2] / "demo" / "data" / "sen2.tif"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def demo():
    with RasterReader(RasterSource(str(SCENE))) as reader:
        return scene_statistics(reader)


@pytest.fixture(scope="module")
def values():
    with rasterio.open(SCENE) as dataset:
        return dataset.read().astype(np.float64)


def bands_of(statistics):
    return [CardBand("", m, s, m, s) for m, s in zip(statistics.mean.tolist(), statistics.std.tolist())]


def statistics_of(values):
    count = np.full(len(values), values[0].size)
    return SceneStatistics(values.mean(axis=(1, 2)), values.std(axis=(1, 2)), count)


def refusal(statistics, bands):
    with pytest.raises(BadInput) as caught:
        check_scene(statistics, bands, scene="scene.tif", continue_anyway=False, context=Context())
    assert "CONTINUE" in caught.value.remedy
    return caught.value.message


def test_statistics_equal_numpy(demo, values):
    assert demo.mean == pytest.approx(values.mean(axis=(1, 2)), rel=1e-9)
    assert demo.std == pytest.approx(values.std(axis=(1, 2)), rel=1e-9)
    assert demo.count.tolist() == [237 * 247] * 12


def test_the_training_scene_and_its_crops_pass(demo, values):
    bands = bands_of(demo)
    context = Context()
    check_scene(demo, bands, scene="s", continue_anyway=False, context=context)
    height, width = values.shape[1] // 2, values.shape[2] // 2
    for row in range(0, values.shape[1] - height, 20):
        for col in range(0, values.shape[2] - width, 20):
            part = statistics_of(values[:, row : row + height, col : col + width])
            check_scene(part, bands, scene="s", continue_anyway=False, context=context)
    assert context.warnings == []


def test_a_lost_offset_is_named(demo, values):
    message = refusal(statistics_of(values - 0.1), bands_of(demo))
    assert "band 1 differs by -6.6 training deviations (mean 0.03033 instead of 0.1303)" in message
    assert "offset" in message and "-0.1" in message and "04.00" in message
    noisy = statistics_of(values * 1.0001 - 0.1)
    assert "all bands are shifted by about -0.1" in refusal(noisy, bands_of(demo))


def test_a_scale_is_named(demo, values):
    message = refusal(statistics_of(values * 10000), bands_of(demo))
    assert "1e+04 times" in message and "scale" in message
    assert "1/1e+04 of" in refusal(statistics_of(values / 10000), bands_of(demo))


def test_scale_and_offset_together_are_named(demo, values):
    message = refusal(statistics_of(values * 10000 + 1000), bands_of(demo))
    assert "missing scale and offset" in message


def test_reversed_bands_are_named(demo, values):
    message = refusal(statistics_of(values[::-1]), bands_of(demo))
    assert "the order 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1 fits much better" in message


NDVI = CardBand("NDVI", 0.4, 0.1, 0.4, 0.1, expression="(B2 - B1) / (B2 + B1)")


def with_ndvi(demo, mean, std):
    count = np.append(demo.count, demo.count[0])
    return SceneStatistics(np.append(demo.mean, mean), np.append(demo.std, std), count)


def test_a_computed_band_alone_is_refused_in_its_own_words(demo):
    message = refusal(with_ndvi(demo, 0.9, 0.1), [*bands_of(demo), NDVI])
    assert "the computed band NDVI differs by +5.0 training deviations (mean 0.9 instead of 0.4); the bands" in message
    assert message.endswith("that it is computed from look as in training, so they go together in another way here.")


def test_scene_bands_that_differ_come_first_and_explain_alone(demo, values):
    shifted = statistics_of(values - 0.1)
    both = SceneStatistics(
        np.append(shifted.mean, 0.9), np.append(shifted.std, 0.1), np.append(shifted.count, shifted.count[0])
    )
    assert refusal(both, [*bands_of(demo), NDVI]) == refusal(shifted, bands_of(demo))


def test_a_few_wild_ratios_are_a_warning(demo):
    context = Context()
    check_scene(with_ndvi(demo, 2.4, 900.0), [*bands_of(demo), NDVI], scene="s", continue_anyway=False, context=context)
    assert len(context.warnings) == 1 and "the computed band NDVI varies 9e+03 times" in context.warnings[0]
    check_scene(
        with_ndvi(demo, np.nan, np.nan), [*bands_of(demo), NDVI], scene="s", continue_anyway=False, context=context
    )
    assert len(context.warnings) == 1


# Mean and deviation of an orthophoto of high contrast: three bands whose means lie within two deviations of 0.
AERIAL = SceneStatistics(np.array([107.7, 108.6, 102.5]), np.array([51.7, 45.4, 44.5]), np.full(3, 10_000))


def scaled(statistics, mean, std=None):
    return SceneStatistics(statistics.mean * mean, statistics.std * (mean if std is None else std), statistics.count)


def warnings_of(statistics, bands):
    context = Context()
    check_scene(statistics, bands, scene="dark.tif", continue_anyway=False, context=context)
    return context.warnings


def test_another_scale_that_is_not_refused_is_warned_of():
    bands = bands_of(AERIAL)
    [text] = warnings_of(scaled(AERIAL, 40 / 255), bands)
    assert "'dark.tif' seems to have another scale" in text and "all values are about 1/6.4 of what they were" in text
    assert "band 2 has mean 17.04 and deviation 7.122, in training 108.6 and 45.4" in text
    assert "the map is wrong: give the image the training scene's scale" in text
    # Other ground at another scale, too: the bands need not agree to the digit.
    other = SceneStatistics(AERIAL.mean * [1.1, 0.9, 1.2], AERIAL.std * [0.8, 0.9, 1.0], AERIAL.count)
    assert "another scale" in warnings_of(scaled(other, 40 / 255), bands)[0]
    radar = SceneStatistics(np.array([0.1, 0.02]), np.array([0.2, 0.03]), np.full(2, 10_000))
    assert "about 4.5 times what they were" in warnings_of(scaled(radar, 4.5), bands_of(radar))[0]


def test_a_band_of_a_scale_of_its_own_hides_no_other_scale():
    index = SceneStatistics(np.append(AERIAL.mean, 0.4), np.append(AERIAL.std, 0.25), np.full(4, 10_000))
    dark = SceneStatistics(np.append(AERIAL.mean * 0.157, 0.4), np.append(AERIAL.std * 0.157, 0.25), index.count)
    assert "another scale" in warnings_of(dark, bands_of(index))[0]


@pytest.mark.parametrize(("mean", "std"), [(0.34, 0.34), (0.4, 0.05), (0.9, 0.1), (1.0, 0.157), (0.3, 0.9)])
def test_darker_or_flatter_ground_is_no_other_scale(mean, std):
    assert warnings_of(scaled(AERIAL, mean, std), bands_of(AERIAL)) == []


def test_water_alone_is_no_other_scale(demo, values):
    water = values[2] > values[7]
    assert 5000 < water.sum() < 10_000
    count = np.full(12, water.sum())
    found = SceneStatistics(values[:, water].mean(axis=1), values[:, water].std(axis=1), count)
    assert warnings_of(found, bands_of(demo)) == []


def test_a_refused_scale_is_not_warned_of_as_well(demo, values):
    context = Context()
    with pytest.raises(BadInput):
        check_scene(
            statistics_of(values / 10000), bands_of(demo), scene="s", continue_anyway=False, context=context
        )  # fmt: skip
    assert context.warnings == []


def test_a_computed_band_is_refused_for_the_scale_of_those_it_is_computed_from():
    difference = CardBand("D", 60.0, 10.0, 60.0, 10.0, expression="B1 - B2")
    dark = scaled(AERIAL, 40 / 255)
    found = SceneStatistics(np.append(dark.mean, 9.4), np.append(dark.std, 1.6), np.full(4, 10_000))
    message = refusal(found, [*bands_of(AERIAL), difference])
    assert "the computed band D differs by -5.1 training deviations" in message
    assert "the likely cause is the scale of the bands that it is computed from: all values are about 1/6.4" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v / 255, "'-scale 0 1 0 255'"),
        (lambda v: v * 10000, "'-scale 0 10000 0 1'"),
        (lambda v: v + 1000, "'-scale 1000 1001 0 1'"),
    ],
)
def test_the_remedy_of_another_scale_brings_the_values_back(values, change, said):
    scene = np.round(values * 255)
    with pytest.raises(BadInput) as caught:
        check_scene(
            statistics_of(change(scene)), bands_of(statistics_of(scene)), scene="s", continue_anyway=False,
            context=Context(),
        )  # fmt: skip
    assert f"by 'Translate (convert format)' with {said} as additional command-line parameters" in caught.value.remedy
    low, high, least, most = map(float, said.strip("'").split()[1:])
    back = (change(scene) - low) / (high - low) * (most - least) + least
    np.testing.assert_allclose(back, scene, rtol=1e-9, atol=1e-6)


def test_darker_ground_is_no_offset_beside_the_factor():
    other = scaled(AERIAL, 1 / 255)
    darker = replace(other, mean=other.mean - 16 / 255)
    message = refusal(darker, bands_of(AERIAL))
    assert "all values are about 1/255 of what they were, so the likely cause is the scale" in message


def test_what_the_file_scales_by_itself_is_not_sent_through_a_tool_that_keeps_the_scale(demo, values):
    with pytest.raises(BadInput) as caught:
        check_scene(
            statistics_of(values * 10000), bands_of(demo), scene="s", continue_anyway=False, context=Context(),
            plain=False,
        )  # fmt: skip
    assert caught.value.remedy.startswith("Give an image of the training scene's sensor, units and processing; or set")


def test_an_unexplained_difference_says_so(demo, values):
    other = values.copy()
    other[3] *= 7
    assert "no single offset, factor or order" in refusal(statistics_of(other), bands_of(demo))


def test_continue_turns_the_refusal_into_a_warning(demo, values):
    context = Context()
    check_scene(statistics_of(values - 0.1), bands_of(demo), scene="scene.tif", continue_anyway=True, context=context)
    assert len(context.warnings) == 1 and "CONTINUE" in context.warnings[0]


def test_a_few_pixels_are_not_compared(demo, values):
    check_scene(
        statistics_of(values[:, :3, :3] - 0.1), bands_of(demo), scene="s", continue_anyway=False, context=Context()
    )


def test_patch_statistics_serve_where_the_scene_s_are_unknown(demo, values):
    bands = [CardBand("", b.mean, b.std, math.nan, math.nan) for b in bands_of(demo)]
    check_scene(demo, bands, scene="s", continue_anyway=False, context=Context())
    assert "offset" in refusal(statistics_of(values - 0.1), bands)


# --- a handful of wild pixels ----------------------------------------------------------------------------------------


def reflectances(dtype=np.uint16):
    return np.random.default_rng(0).normal(1500, 60, (2, 120, 120)).astype(dtype)


def test_one_saturated_pixel_is_mapped_and_told(tmp_path):
    values, spoilt = reflectances(), reflectances()
    spoilt[1, 60, 70] = 65535
    result, [warning] = mapped(tmp_path, spoilt, model(values))
    low, high = np.sort(values[1].ravel())[[0, -1]]
    assert result.pixels == 14400 and warning == (
        f"In 's.tif' band 2 holds 65535 in 1 of the 14400 pixels that were looked at, far from all others ({low} to "
        f"{high}). They are left out of the comparison with the training scene, and mapped all the same: if 65535 "
        "means no data, set NODATA to 65535; if not, leave such pixels out with MASK."
    )
    source = replace(RasterSource(str(tmp_path / "s.tif")), nodata=65535)
    result, warnings = mapped(tmp_path, None, model(values), source=source)
    assert warnings == [] and result.pixels == 14399


def test_what_one_pixel_of_every_band_made_of_a_scene_of_reflectances(demo, values):
    spoilt = values.copy()
    spoilt[:, 100, 50] = 65535.0
    # Without a second look, and with advice that spoils the image.
    assert "all values are about 3346 times what they were" in refusal(statistics_of(spoilt), bands_of(demo))
    [text] = warnings_of(sampled(spoilt), bands_of(demo))
    assert "band 1 holds 65535 in 1 of the 58539 pixels" in text and "11 other bands hold such values, too" in text


def test_numbers_are_rounded_and_what_is_to_be_typed_is_the_pixel_s(tmp_path):
    values, spoilt = reflectances(np.float32), reflectances(np.float32)
    spoilt[:, 60, 70] = 1e30
    _, [warning] = mapped(tmp_path, spoilt, model(values))
    assert "holds 1e+30 in 1 of" in warning and "set NODATA to 1e+30;" in warning
    assert warning.endswith("with MASK. 1 other band holds such values, too.") and len(warning) < 400
    source = replace(RasterSource(str(tmp_path / "s.tif")), nodata=1e30)
    assert mapped(tmp_path, None, model(values), source=source)[1] == []
    spoilt[:, 60, 71:74] = [1.2345678e20, -3e25, 9.87654e22]
    _, [warning] = mapped(tmp_path, spoilt, model(values))
    assert "holds values like 1e+30 in 4 of the 14400 pixels" in warning
    assert "mapped all the same: leave such pixels out with MASK." in warning


@pytest.mark.parametrize("number", [2**31 - 1, -(2**31), 2**24 + 1])
def test_a_whole_number_beyond_the_digits_that_are_looked_at_is_not_told_to_be_typed(tmp_path, number):
    spoilt = reflectances(np.int32)
    spoilt[1, 60, 70] = number
    _, [warning] = mapped(tmp_path, spoilt, model(reflectances(np.int32)))
    assert f"band 2 holds values like {float(np.float32(number)):.4g} in 1 of" in warning and "NODATA" not in warning


def test_what_is_looked_at_again_is_not_collected_again(tmp_path, monkeypatch):
    seen, see = [], ValueWatch.see
    monkeypatch.setattr(ValueWatch, "see", lambda watch, *window: seen.append(1) or see(watch, *window))
    mapped(tmp_path, reflectances(), model(reflectances()))
    once = len(seen)
    spoilt = reflectances()
    spoilt[1, 60, 70] = 65535
    assert mapped(tmp_path, spoilt, model(reflectances()))[1] and len(seen) == 2 * once


def test_a_number_in_physical_units_is_not_told_as_that_of_the_file(tmp_path):
    values, spoilt = reflectances(), reflectances()
    spoilt[1, 60, 70] = 65535
    _, [warning] = mapped(tmp_path, spoilt, model(values * 0.0001, scale=0.0001, offset=0.0))
    assert "band 2 holds 6.5535 in 1 of" in warning and "set NODATA to its number in the file;" in warning


def test_refusals_are_rounded_as_well():
    bands = [CardBand("", 0.0, 1.0, 1500.0, 200.0)]
    found = SceneStatistics(np.array([2.5e38]), np.array([1e30]), np.array([14400]))
    assert "band 1 differs by +1.25e+36 training deviations (mean 2.5e+38 instead of 1500); " in refusal(found, bands)


# The change of a scene, and what the refusal says of it.
MISTAKES = {
    "units": (lambda v: v * 10000, "the likely cause is the scale"),
    "eight bits": (lambda v: v / 255, "the likely cause is the scale"),
    "offset": (lambda v: v - 0.1, "the likely cause is an offset"),
    "both": (lambda v: v * 10000 + 1000, "missing scale and offset"),
    "order": (lambda v: v[::-1], "the likely cause is another band order"),
}


def spoil(values, kind, share, seed, every):
    """Return values ``(C, H, W)`` with a share of garbage, in one band or in every."""
    rng = np.random.default_rng(seed)
    spoilt, pixels, span = values.copy(), values[0].size, values.max() - values.min()
    wild = rng.permutation(pixels)[: max(1, int(share * pixels))]
    garbage = {
        "saturated": values.max() + 300 * span,
        "negative": -9999 * span,
        "huge": 1e30,
        "many": 10 ** rng.uniform(4, 30, len(wild)) * span,
    }[kind]
    for band in range(len(values)) if every else [rng.integers(len(values))]:
        spoilt[band].flat[wild] = garbage
    return spoilt


GARBAGE = {
    "kind": st.sampled_from(["saturated", "negative", "huge", "many"]),
    "share": st.sampled_from([0.0, 0.0001, 0.002, 0.008]),
    "seed": st.integers(0, 99),
    "every": st.booleans(),
}


@given(**GARBAGE)
@settings(max_examples=15, deadline=None)
def test_garbage_in_a_few_pixels_is_a_warning(demo, values, kind, share, seed, every):
    context = Context()
    spoilt = spoil(values, kind, share, seed, every)
    check_scene(sampled(spoilt), bands_of(demo), scene="s", continue_anyway=False, context=context)
    # A single one may be too small a matter to be looked for.
    assert len(context.warnings) == 1 or (share == 0 and not context.warnings)
    assert all("far from all others" in text for text in context.warnings)


@given(mistake=st.sampled_from(sorted(MISTAKES)), **GARBAGE)
@settings(max_examples=25, deadline=None)
def test_real_mistakes_are_refused_with_garbage_as_without(demo, values, mistake, kind, share, seed, every):
    change, said = MISTAKES[mistake]
    wrong, context = change(values), Context()
    with pytest.raises(BadInput) as clean:
        check_scene(sampled(wrong), bands_of(demo), scene="s", continue_anyway=False, context=context)
    with pytest.raises(BadInput) as spoilt:
        check_scene(
            sampled(spoil(wrong, kind, share, seed, every)), bands_of(demo), scene="s", continue_anyway=False,
            context=context,
        )  # fmt: skip
    assert said in clean.value.message and said in spoilt.value.message
    assert spoilt.value.remedy.split("-scale")[0] == clean.value.remedy.split("-scale")[0]
    assert context.warnings == []


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_second_look_changes_no_word_of_a_refusal_without_garbage(demo, values, mistake):
    wrong = MISTAKES[mistake][0](values)
    assert refusal(sampled(wrong), bands_of(demo)) == refusal(statistics_of(wrong), bands_of(demo))


def test_garbage_in_more_than_a_few_pixels_is_refused_as_ever(demo, values):
    spoilt = values.copy()
    spoilt[3, :8] = 1e6 * np.random.default_rng(0).random((8, values.shape[2]))  # 3 %
    assert "band 4 differs by" in refusal(sampled(spoilt), bands_of(demo))


def test_the_band_that_was_refused_is_named_not_the_one_with_most_strays(demo, values):
    context, spoilt = Context(), values.copy()
    spoilt[2, 100, :50] = 10.0
    spoilt[7, 5, 6] = 1e20
    check_scene(sampled(spoilt), bands_of(demo), scene="s", continue_anyway=False, context=context)
    assert "band 8 holds 1e+20 in 1 of the 58539 pixels" in context.warnings[0]
    assert "1 other band holds such values, too" in context.warnings[0]


def test_several_models_tell_of_the_same_pixels_once(demo, values):
    context, spoilt = Context(), values.copy()
    spoilt[7, 5, 6] = 1e20
    for _ in range(2):
        check_scene(sampled(spoilt), bands_of(demo), scene="s", continue_anyway=False, context=context)
    assert len(context.warnings) == 1


def test_a_few_pixels_make_no_other_scale():
    rng = np.random.default_rng(0)
    anomaly = rng.normal(0, 1, (2, 200, 200))
    spoilt = anomaly.copy()
    spoilt[:, 50, 60:64] = 450.0
    bands = [CardBand("", 0.0, 1.0, 0.0, 1.0)] * 2
    assert statistics_of(spoilt).std.min() > 4 and "another scale" in warnings_of(statistics_of(spoilt), bands)[0]
    [text] = warnings_of(sampled(spoilt), bands)
    assert "holds 450 in 4 of the 40000 pixels" in text
    assert "another scale" in warnings_of(sampled(anomaly * 4.5), bands)[0]


def test_wild_pixels_beside_an_undeclared_number(tmp_path):
    values = image()
    spoilt = holed(values, -9999)
    spoilt[0, 60, 70] = 32000
    with pytest.raises(BadInput) as caught:
        mapped(tmp_path, spoilt, model(values))
    assert caught.value.remedy.startswith("Where that means no data, set NODATA to -9999;")
    source = replace(RasterSource(str(tmp_path / "s.tif")), nodata=-9999)
    _, [warning] = mapped(tmp_path, None, model(values), source=source)
    assert "band 1 holds 32000 in 1 of the 10800 pixels" in warning


def test_wild_pixels_do_not_hide_that_the_number_was_learned_with(tmp_path):
    learned = holed(image(np.float32), -9999)
    spoilt = learned.copy()
    spoilt[0, 60, 70] = 1e20
    _, warnings = mapped(tmp_path, spoilt, model(learned))
    assert len(warnings) == 2 and "holds 1e+20 in 1 of" in warnings[0] and "set NODATA to -9999" in warnings[1]


def test_half_a_percent_of_an_undeclared_number_is_told_with_its_remedy(tmp_path):
    values = image()
    spoilt = values.copy()
    spoilt[1].flat[::200] = -9999
    _, [warning] = mapped(tmp_path, spoilt, model(values))
    assert "band 2 holds -9999 in 72 of the 14400 pixels" in warning and "set NODATA to -9999;" in warning


def test_only_a_scene_that_would_be_refused_is_read_again(demo, values):
    for scene, times in ((values, 1), (values[:, :99], 1), (values - 0.1, 3)):
        reads = []
        statistics = sampled(scene, reads=reads)
        check_scene(statistics, bands_of(demo), scene="s", continue_anyway=True, context=Context())
        assert len(reads) == times * len(set(reads))


def test_a_real_scene_of_whole_numbers(tmp_path):
    path = SHARED / "landsat8_rondonia" / "LC08_232066_20190727.tif"
    if not path.is_file():
        pytest.skip("shared/data/landsat8_rondonia is not beside the checkout")
    with rasterio.open(path) as dataset:
        values, nodata = dataset.read(), dataset.nodata
    valid = values != nodata
    bands = bands_of(sampled(values, valid))
    spoilt, known = values.copy(), valid.all(axis=0)
    rows, cols = (at[:: known.sum() // 300] for at in np.nonzero(known))
    spoilt[0, rows, cols] = 32767
    assert "band 1 varies" in refusal(replace(sampled(spoilt, valid), windows=None), bands)
    [text] = warnings_of(sampled(spoilt, valid), bands)
    assert f"band 1 holds 32767 in {len(rows)} of the {valid[0].sum()} pixels" in text
    assert "the scale" in refusal(sampled(spoilt / 10000, valid), bands)
    assert "band order" in refusal(sampled(spoilt[::-1], valid[::-1]), bands)


def test_a_band_that_was_constant_in_training():
    bands = [CardBand("", 5.0, 1.0, 5.0, 0.0)]
    same = SceneStatistics(np.array([5.0]), np.array([0.5]), np.array([1000]))
    check_scene(same, bands, scene="s", continue_anyway=False, context=Context())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (256, 257), (10980, 10980), (1, 100_000), (60_000, 60_000)])
def test_windows_are_inside_distinct_and_few(height, width):
    windows = list(sample_windows(height, width))
    assert 1 <= len(windows) == len(set(windows))
    assert sum(h * w for _, _, h, w in windows) <= 6_000_000
    assert all(0 <= r < r + h <= height and 0 <= c < c + w <= width for r, c, h, w in windows)


def write(path, values, nodata=None, res=10.0, crs="EPSG:32721"):
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, nodata=nodata, crs=crs, transform=rasterio.Affine(res, 0, 5e5, 0, -res, 9e6),
    ) as dataset:  # fmt: skip
        dataset.write(values)
    return RasterSource(str(path))


def test_statistics_leave_out_nodata_and_apply_scale(tmp_path):
    values = np.array([[[1, 2, 3], [-9999, 4, -9999]]], np.int16)
    with RasterReader(write(tmp_path / "a.tif", values, nodata=-9999)) as reader:
        found = scene_statistics(reader, scales=[0.5], offsets=[1.0])
    assert found.mean.tolist() == [2.25] and found.count.tolist() == [4]
    assert found.std[0] == pytest.approx(np.std([1, 2, 3, 4]) / 2)


def test_an_undeclared_nodata_number_is_warned_about(tmp_path):
    values = np.array([[[1, -9999]], [[2, 3]]], np.int16)
    context = Context()
    with RasterReader(write(tmp_path / "a.tif", values)) as reader:
        check_undeclared_nodata(reader, [-9999.0, -9999.0], context)
    assert len(context.warnings) == 1 and "-9999" in context.warnings[0] and "Band 1" in context.warnings[0]
    with RasterReader(write(tmp_path / "b.tif", values, nodata=-9999)) as reader:
        check_undeclared_nodata(reader, [-9999.0, -9999.0], context)
    assert len(context.warnings) == 1


@pytest.mark.parametrize(("res", "warned"), [(10.0, 0), (10.9, 0), (11.5, 1), (30.0, 1)])
def test_another_pixel_size_is_warned_about(tmp_path, res, warned):
    card = Card("network", "n", (CardSource(1, ()),), (ClassEntry(1, "a", "#000000"),), res_m=10.0)
    context = Context()
    with RasterReader(write(tmp_path / "a.tif", np.ones((1, 2, 2), np.uint8), res=res)) as reader:
        check_resolution(reader, card, context)
    assert len(context.warnings) == warned
    if warned:
        assert f"{res:g} m" in context.warnings[0] and "10 m" in context.warnings[0]


@pytest.mark.parametrize("kind", ["float32", "float64", "uint16"])
def test_windows_without_gaps_give_the_statistics_that_masks_would(kind):
    rng = np.random.default_rng(0)
    windows = [(1e4 + 300 * rng.normal(size=(2, *shape))).astype(kind) for shape in ((5, 7), (1, 1), (9, 2))]
    kept = [window.copy() for window in windows]
    plain, masked, some = BandStatistics(2), BandStatistics(2), BandStatistics(2)
    for window in windows:
        plain.add(window, np.ones(window.shape, bool))
        # A pixel more, which does not count, takes the other way to the same numbers.
        wider = np.concatenate([window, np.full((2, window.shape[1], 1), 7, kind)], axis=2)
        masked.add(wider, wider != 7)
        some.add(window, np.zeros(window.shape, bool))
    every = np.concatenate([window.reshape(2, -1) for window in windows], axis=1).astype(float)
    for found in (plain, masked):
        np.testing.assert_allclose(found.mean, every.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(found.deviation, every.std(axis=1), rtol=1e-9)
        assert (found.minimum == every.min(axis=1)).all() and (found.maximum == every.max(axis=1)).all()
        assert found.count.tolist() == [every.shape[1]] * 2
    assert np.isnan(some.mean).all() and np.isnan(some.maximum).all()
    assert all((window == before).all() for window, before in zip(windows, kept))
