"""The preflight: which scenes are refused, and which cause it names."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from deepscape.engine.bandstatistics import BandStatistics, SceneStatistics, sample_windows, scene_statistics
from deepscape.engine.preflight import check_resolution, check_scene, check_undeclared_nodata
from deepscape.engine.rasters import RasterReader
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import RasterSource

SCENE = Path(__file__).resolve().parents[2] / "demo" / "data" / "sen2.tif"


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
