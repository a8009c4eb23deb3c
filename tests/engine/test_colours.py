"""Class rasters from coloured label images: exact and near colours, palettes, unknown colours, and the legend."""

import json
import os

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from deepscape.engine import rasterwriting
from deepscape.engine.colours import labels_from_colours
from deepscape.engine.legends import read_map_legend
from deepscape.tasks.classtable import Legend, nomenclature
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import LabelsFromColours, RasterSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

ISPRS = Legend(nomenclature="isprs")
COLOURS = np.array(
    [[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0], [0, 0, 0]], "uint8"
)


def write(path, array, **profile):
    with rasterio.open(
        path, "w", driver="GTiff", width=array.shape[2], height=array.shape[1], count=len(array), dtype=array.dtype,
        crs="EPSG:32632", transform=from_origin(0, 1000, 0.09, 0.09), **profile,
    ) as dataset:  # fmt: skip
        dataset.write(array)
    return RasterSource(str(path))


def run(tmp_path, image, context=None, **arguments):
    source = image if isinstance(image, RasterSource) else write(tmp_path / "rgb.tif", image)
    job = LabelsFromColours(source, str(tmp_path / "labels.tif"), **{"legend": ISPRS, **arguments})
    result = labels_from_colours(job, context or Context())
    with rasterio.open(result.output) as dataset:
        assert dataset.nodata == result.nodata_value
        return dataset.read(1), result


def painted(labels):
    return np.ascontiguousarray(COLOURS[labels].transpose(2, 0, 1))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 600), width=st.integers(1, 600), seed=st.integers(0, 2**32 - 1), values=st.integers(1, 9))
def test_painting_and_reading_give_the_same_labels_whatever_the_windows(tmp_path, height, width, seed, values):
    labels = np.random.default_rng(seed).integers(0, 7, (height, width))
    before = rasterwriting._WINDOW_VALUES
    rasterwriting._WINDOW_VALUES = values * 100_000
    try:
        found, result = run(tmp_path, painted(labels))
    finally:
        rasterwriting._WINDOW_VALUES = before
    np.testing.assert_array_equal(found, labels)
    assert (result.unknown_pixels, result.warnings) == (0, ())


def test_the_legend_comes_with_the_raster(tmp_path):
    _, result = run(tmp_path, painted(np.array([[0, 1, 2], [3, 4, 6]])))
    assert result.nodata_value == 255
    assert read_map_legend(result.output) == nomenclature("isprs") == result.classes
    with rasterio.open(result.output) as dataset:
        assert dataset.colormap(1)[4] == (255, 255, 0, 255)
        assert dataset.crs.to_epsg() == 32632 and dataset.transform.a == 0.09
    assert sorted(os.listdir(tmp_path)) == ["labels.qml", "labels.tif", "labels.tif.aux.xml", "rgb.tif"]


def test_colours_of_no_class_are_no_data_and_counted(tmp_path):
    image = painted(np.array([[0, 1, 2, 3]]))
    image[:, 0, 1] = 10, 20, 250
    found, result = run(tmp_path, image)
    assert found.tolist() == [[0, 255, 2, 3]]
    assert result.unknown_pixels == 1
    assert result.warnings == (
        "1 pixels (25.00%) have a colour of no class and are no-data; the commonest: #0a14fa (1). Add them to the "
        "LEGEND, or raise TOLERANCE.",
    )
    with pytest.raises(BadInput, match=r"row 0, column 1 of 'rgb.tif' has the colour #0a14fa, which is no class"):
        run(tmp_path, image, unknown="error")


def test_tolerance_is_per_band_and_takes_the_nearest_class(tmp_path):
    image = painted(np.array([[0, 1, 2, 3]]))
    image[:, 0, 1] = 10, 20, 250
    assert run(tmp_path, image, tolerance=20)[0].tolist() == [[0, 1, 2, 3]]
    assert run(tmp_path, image, tolerance=19)[0].tolist() == [[0, 255, 2, 3]]
    legend = tmp_path / "legend.json"
    legend.write_text(
        json.dumps([{"value": v, "name": str(v), "colour": c} for v, c in ((7, "#640000"), (9, "#6e0000"))])
    )
    reds = np.zeros((3, 1, 5), "uint8")
    reds[0] = 96, 104, 105, 106, 121
    found, result = run(tmp_path, reds, tolerance=10, legend=Legend(str(legend)))
    # 105 lies in the middle between the two: it is neither; 121 is too far from both.
    assert found.tolist() == [[7, 7, 255, 9, 255]] and result.unknown_pixels == 2


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), tolerance=st.sampled_from([1, 40, 128]))
def test_tolerance_equals_the_distances_computed_one_by_one(tmp_path, seed, tolerance):
    image = np.random.default_rng(seed).integers(0, 256, (3, 20, 20)).astype("uint8")
    image[:, 0, 0] = 0
    difference = image[None].astype(int) - COLOURS[:, :, None, None]
    squares = np.where(np.abs(difference).max(axis=1) <= tolerance, (difference**2).sum(axis=1), 10**6)
    nearest = squares.min(axis=0)
    expected = np.where((nearest < 10**6) & ((squares == nearest).sum(axis=0) == 1), squares.argmin(axis=0), 255)
    np.testing.assert_array_equal(run(tmp_path, image, tolerance=tolerance)[0], expected)


def test_no_data_is_what_all_bands_hold(tmp_path):
    # Black declared as no-data must not take the pure blue of the buildings with it.
    found, result = run(tmp_path, write(tmp_path / "n.tif", painted(np.array([[6, 1, 5]])), nodata=0))
    assert found.tolist() == [[255, 1, 5]] and result.unknown_pixels == 0


def test_alpha_is_no_data(tmp_path):
    image = np.concatenate([painted(np.array([[1, 2]])), np.array([[[255, 0]]], "uint8")])
    found, result = run(tmp_path, write(tmp_path / "a.tif", image, photometric="RGB", alpha="YES"))
    assert found.tolist() == [[1, 255]] and result.unknown_pixels == 0


def test_a_colour_table_is_as_good_as_bands(tmp_path):
    path = tmp_path / "p.tif"
    with rasterio.open(path, "w", driver="GTiff", width=3, height=1, count=1, dtype="uint8") as dataset:
        dataset.write_colormap(1, {9: (0, 0, 255, 255), 4: (0, 255, 0, 255), 5: (1, 2, 3, 255)})
        dataset.write(np.array([[[9, 4, 5]]], "uint8"))
    found, result = run(tmp_path, RasterSource(str(path)))
    assert found.tolist() == [[1, 3, 255]] and result.unknown_pixels == 1


def test_values_beyond_8_bits_are_no_colours(tmp_path):
    image = painted(np.array([[0, 3]])).astype("float32")
    image[1, 0, 1] = 255.5
    assert run(tmp_path, image)[0].tolist() == [[0, 255]]
    with pytest.raises(BadInput, match=r"No pixel of 'rgb.tif' has a colour .* no colour of 8 bits \(2\)"):
        run(tmp_path, np.full((3, 1, 2), 65535, "uint16"))
    assert sorted(os.listdir(tmp_path)) == ["labels.qml", "labels.tif", "labels.tif.aux.xml", "rgb.tif"]


def test_the_image_is_never_overwritten(tmp_path):
    source = write(tmp_path / "scene.tif", painted(np.array([[0, 1, 2]])))
    before = (tmp_path / "scene.tif").read_bytes()
    rasterio.shutil.copy(source.path, str(tmp_path / "m.vrt"), driver="VRT")
    # Without its suffix the output is another file for the check of every job's outputs.
    output = str(tmp_path / "scene")
    with pytest.raises(BadInput, match=r"OUTPUT '.*scene\.tif' is also an input and would be overwritten\."):
        labels_from_colours(LabelsFromColours(source, output, legend=ISPRS), Context())
    with pytest.raises(BadInput, match=r"OUTPUT '.*scene\.tif' is also an input .*: the VRT '.*m\.vrt' reads it\."):
        labels_from_colours(LabelsFromColours(RasterSource(str(tmp_path / "m.vrt")), output, legend=ISPRS), Context())
    assert (tmp_path / "scene.tif").read_bytes() == before


def test_bad_input(tmp_path):
    with pytest.raises(BadInput, match=r"no class table .* Give a LEGEND file .* or choose a NOMENCLATURE"):
        run(tmp_path, painted(np.array([[0]])), legend=Legend())
    legend = tmp_path / "two.csv"
    legend.write_text("value,name,colour\n1,Lake,#0000ff\n2,Sea,#0000FF\n")
    with pytest.raises(BadInput, match=r"classes 1 \(Lake\) and 2 \(Sea\) have the same colour #0000ff"):
        run(tmp_path, painted(np.array([[0]])), legend=Legend(str(legend)))
    with pytest.raises(BadInput, match=r"'rgb.tif' has 1 band\(s\) and no colour table"):
        run(tmp_path, np.zeros((1, 2, 2), "uint8"))
    with pytest.raises(BadInput, match="UNKNOWN 'skip' is not a valid choice"):
        LabelsFromColours(RasterSource("x"), "y", unknown="skip")
    with pytest.raises(BadInput, match="TOLERANCE is -1"):
        LabelsFromColours(RasterSource("x"), "y", tolerance=-1)
