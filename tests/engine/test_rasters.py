"""Reading rasters by window: reflection, no-data in every form, grids, damage, and exact values."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from deepscape.engine.damage import pixels_in
from deepscape.engine.lengths import pixel_metres
from deepscape.engine.rasters import Layout, RasterReader, reading
from deepscape.engine.rasterwriting import create_raster
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Extent, RasterSource
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio._env import get_gdal_config
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

UTM = CRS.from_epsg(32654)


def write(path, array, transform=None, crs=UTM, **profile):
    with rasterio.open(
        path, "w", driver="GTiff", width=array.shape[2], height=array.shape[1], count=len(array), dtype=array.dtype,
        crs=crs, transform=transform or from_origin(500000, 4000000, 10, 10), **profile,
    ) as dataset:  # fmt: skip
        dataset.write(array)
    return RasterSource(str(path))


# --- windows ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(-15, 12), st.integers(-15, 12), st.integers(1, 20), st.integers(1, 20))
def test_any_window_is_that_of_the_padded_raster(tmp_path_factory, row, col, height, width):
    image = np.arange(2 * 7 * 9).reshape(2, 7, 9).astype("int16")
    path = tmp_path_factory.getbasetemp() / "window.tif"
    if not path.exists():
        write(path, image)
    padded = np.pad(image, ((0, 0), (40, 40), (40, 40)), mode="reflect")
    with RasterReader(RasterSource(str(path))) as reader:
        values, valid = reader.read(row, col, height, width)
    np.testing.assert_array_equal(values, padded[:, 40 + row : 40 + row + height, 40 + col : 40 + col + width])
    assert valid.all() and values.dtype == np.int16


# --- no-data ---------------------------------------------------------------------------------------------------------


def test_no_data_numbers_count_per_band_or_only_where_all_agree(tmp_path):
    image = np.array([[[0, 0, 1]], [[5, 0, 0]]], "uint8")
    source = write(tmp_path / "i.tif", image, nodata=0)
    with RasterReader(source) as reader:
        assert reader.read(0, 0, 1, 3, "any")[1].tolist() == [[[False, False, True]], [[True, False, False]]]
        assert reader.read(0, 0, 1, 3, "all")[1].tolist() == [[[True, False, True]], [[True, False, True]]]
    with RasterReader(RasterSource(source.path, nodata=5)) as reader:
        assert reader.read(0, 0, 1, 3)[1].tolist() == [[[True] * 3], [[False, True, True]]]
    with RasterReader(RasterSource(source.path, nodata=-9999)) as reader:
        assert reader.read(0, 0, 1, 3)[1].all()


def test_nan_and_infinity_are_never_valid(tmp_path):
    image = np.array([[[np.nan, np.inf, -9999, 1]]], "float32")
    with RasterReader(write(tmp_path / "i.tif", image, nodata=-9999)) as reader:
        assert reader.read(0, 0, 1, 4, "all")[1].tolist() == [[[False, False, False, True]]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_beyond_any_measurement_are_never_valid(tmp_path, dtype):
    image = np.array([[[np.finfo(dtype).min, 3e38, 2e30, -1e30, 1]]], dtype)
    with RasterReader(write(tmp_path / "i.tif", image)) as reader:
        assert reader.read(0, 0, 1, 5)[1].tolist() == [[[False, False, False, True, True]]]
        assert reader.read_known(0, 3, 1, 2)[1] is None


def test_mask_band_and_alpha_are_masks_of_all_bands(tmp_path):
    source = write(tmp_path / "m.tif", np.ones((2, 1, 3), "uint8"))
    with rasterio.open(source.path, "r+") as dataset:
        dataset.write_mask(np.array([[255, 0, 255]], "uint8"))
    with RasterReader(source) as reader:
        assert reader.masked
        assert reader.read(0, 0, 1, 3)[1].tolist() == [[[True, False, True]]] * 2
    image = np.array([[[9, 9]], [[9, 9]], [[9, 9]], [[255, 0]]], "uint8")
    with RasterReader(write(tmp_path / "a.tif", image, photometric="rgb", alpha="yes")) as reader:
        assert len(reader.bands) == 3 and reader.masked
        assert reader.read(0, 0, 1, 2)[1].tolist() == [[[True, False]]] * 3
        assert reader.alpha == (4,)
    with RasterReader(RasterSource(str(tmp_path / "a.tif"), bands=(1, 4))) as reader:
        # Asked for, it is a measurement: its zeros are values.
        assert not reader.masked and reader.alpha == ()
        raw, valid = reader.read(0, 0, 1, 2)
        assert raw.tolist() == [[[9, 9]], [[255, 0]]] and valid.all()


@pytest.mark.parametrize("bands", [1, 3, 4, 12])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_alpha_is_a_mask_whatever_the_type_and_the_number_of_bands(tmp_path, bands, dtype):
    image = np.full((bands + 1, 1, 4), 9, dtype)
    image[-1] = [[1, 0, 0, 9]]
    image[0, 0, 3] = 5
    source = write(tmp_path / "a.tif", image, nodata=5, interleave="band")
    with rasterio.open(source.path, "r+") as dataset:
        dataset.colorinterp = [*dataset.colorinterp[:-1], ColorInterp.alpha]
    expected = [[[True, False, False, band > 0]] for band in range(bands)]
    with RasterReader(source) as reader:
        assert reader.masked and reader.alpha == (bands + 1,) and len(reader.bands) == bands
        assert reader.layout.pixel_bytes == (bands + 1) * np.dtype(dtype).itemsize
        assert reader.read(0, 0, 1, 4)[1].tolist() == expected
    with RasterReader(RasterSource(source.path, bands=(bands + 1,))) as reader:
        assert not reader.masked and reader.read(0, 0, 1, 4)[1].all()
    with rasterio.open(source.path, "r+") as dataset:
        dataset.nodata = None
        dataset.write_mask(np.array([[0, 255, 255, 255]], "uint8"))
    with RasterReader(source) as reader:
        assert reader.read(0, 0, 1, 4)[1].tolist() == [[[False, False, False, True]]] * bands


VRT = """<VRTDataset rasterXSize="3" rasterYSize="1">
<SRS>EPSG:32654</SRS><GeoTransform>500000,10,0,4000000,0,-10</GeoTransform>{}</VRTDataset>"""
VRT_SOURCE = (
    '<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
)


def vrt(path, *bands):
    parts = [f'<VRTRasterBand dataType="Byte" band="{i}">{text}</VRTRasterBand>' for i, text in enumerate(bands, 1)]
    path.write_text(VRT.format("".join(parts)))
    return RasterSource(str(path))


def test_a_mask_of_one_band_counts_for_that_band(tmp_path):
    write(tmp_path / "a.tif", np.array([[[7, 8, 9]]], "uint8"))
    write(tmp_path / "m.tif", np.array([[[255, 0, 255]]], "uint8"))
    mask = f'<MaskBand><VRTRasterBand dataType="Byte">{VRT_SOURCE.format("m.tif")}</VRTRasterBand></MaskBand>'
    source = vrt(tmp_path / "v.vrt", VRT_SOURCE.format("a.tif") + mask, VRT_SOURCE.format("a.tif"))
    with RasterReader(source) as reader:
        assert reader.masked
        assert reader.read(0, 0, 1, 3)[1].tolist() == [[[True, False, True]], [[True, True, True]]]
    with RasterReader(RasterSource(source.path, bands=(2,))) as reader:
        assert not reader.masked
    with RasterReader(write(tmp_path / "n.tif", np.ones((1, 1, 3), "uint8"), nodata=0)) as reader:
        assert not reader.masked


def test_a_number_that_float32_rounds_is_no_data_in_a_stack_of_float64_too(tmp_path):
    one = write(tmp_path / "a.tif", np.array([[[0.1, 1]]], "float32"), nodata=0.1)
    write(tmp_path / "b.tif", np.array([[[1, 0.1]]], "float64"), nodata=0.1)
    with RasterReader(RasterSource(one.path, stack=(str(tmp_path / "b.tif"),))) as reader:
        assert reader.dtype == np.float64
        assert reader.read(0, 0, 1, 2)[1].tolist() == [[[False, True]], [[True, False]]]


# --- stacks and their errors -----------------------------------------------------------------------------------------


def test_a_stack_keeps_the_order_and_the_widest_type(tmp_path):
    one = write(tmp_path / "a.tif", np.array([[[1, 2]], [[3, 4]]], "uint8"))
    write(tmp_path / "b.tif", np.array([[[500, 600]]], "uint16"))
    with RasterReader(RasterSource(one.path, stack=(str(tmp_path / "b.tif"),), bands=(2,))) as reader:
        values, _ = reader.read(0, 0, 1, 2)
        assert values.tolist() == [[[3, 4]], [[500, 600]]] and values.dtype == np.uint16


def test_what_cannot_be_stacked_or_opened_is_named(tmp_path):
    one = write(tmp_path / "a.tif", np.ones((2, 3, 4), "uint8"))
    write(tmp_path / "b.tif", np.ones((1, 3, 5), "uint8"))
    with pytest.raises(BadInput, match=r"'b\.tif' does not lie on the grid of 'scène': its size in pixels is 5 x 3"):
        RasterReader(RasterSource(one.path, stack=(str(tmp_path / "b.tif"),), label="scène"))
    with pytest.raises(BadInput, match=r"'a\.tif' has no band 3: it has 2"):
        RasterReader(RasterSource(one.path, bands=(3,)))
    with pytest.raises(BadInput, match="does not exist"):
        RasterReader(RasterSource(str(tmp_path / "x.tif")))
    (tmp_path / "t.tif").write_text("no raster")
    with pytest.raises(BadInput, match="cannot be read"):
        RasterReader(RasterSource(str(tmp_path / "t.tif")))


def test_a_vrt_names_the_file_that_it_lacks(tmp_path):
    source = vrt(tmp_path / "v.vrt", VRT_SOURCE.format("gone.tif"))
    with RasterReader(source) as reader, pytest.raises(BadInput, match=r"'v\.vrt' refers to '.*gone\.tif', which does"):
        reader.read(0, 0, 1, 3)


def test_complex_numbers_are_refused_where_they_are_wanted(tmp_path):
    write(tmp_path / "r.tif", np.ones((1, 1, 3), "uint8"))
    for dtype in ("complex64", "complex128"):
        one = write(tmp_path / f"{dtype}.tif", np.ones((1, 1, 3), dtype))
        with pytest.raises(BadInput, match=rf"Band 1 of '{dtype}\.tif' holds complex numbers \({dtype}\)\."):
            RasterReader(one)
        with pytest.raises(BadInput, match="complex"):
            RasterReader(RasterSource(str(tmp_path / "r.tif"), stack=(one.path,)))


def test_a_container_names_its_rasters(tmp_path):
    path = tmp_path / "two.gpkg"
    for table, options in (("one", {}), ("two", {"APPEND_SUBDATASET": "YES"})):
        with rasterio.open(
            path, "w", driver="GPKG", width=4, height=3, count=1, dtype="uint8", crs=UTM,
            transform=from_origin(500000, 4000000, 10, 10), RASTER_TABLE=table, **options,
        ) as dataset:  # fmt: skip
            dataset.write(np.ones((1, 3, 4), "uint8"))
    with pytest.raises(BadInput, match=r"'two\.gpkg' holds several rasters") as caught:
        RasterReader(RasterSource(str(path)))
    assert f"GPKG:{path}:one, GPKG:{path}:two" in caught.value.remedy
    with RasterReader(RasterSource(f"GPKG:{path}:two")) as reader:
        assert (reader.grid.width, reader.grid.height) == (4, 3)


def test_ground_control_points_are_no_grid(tmp_path):
    points = [GroundControlPoint(r, c, 1 + c / 4, 1 - r / 3) for r, c in ((0, 0), (0, 4), (3, 0))]
    with rasterio.open(
        tmp_path / "g.tif", "w", driver="GTiff", width=4, height=3, count=1, dtype="uint8", gcps=points, crs="EPSG:4326"
    ) as dataset:
        dataset.write(np.ones((1, 3, 4), "uint8"))
    with pytest.raises(BadInput, match=r"'g\.tif' lies on ground control points, not on a grid\."):
        RasterReader(RasterSource(str(tmp_path / "g.tif")))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_every_real_type_is_read_and_written_exactly(tmp_path, dtype):
    kind = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
    values = np.array([[[kind.min, 0, 1, kind.max]]], dtype)
    with RasterReader(write(tmp_path / "i.tif", values)) as reader:
        found, valid = reader.read(-2, -1, 4, 5)
        assert found.dtype == dtype
        np.testing.assert_array_equal(valid, np.abs(found.astype(float)) <= 1e30)
        np.testing.assert_array_equal(found[0], np.repeat(values[0][:, [1, 0, 1, 2, 3]], 4, axis=0))
        with create_raster(str(tmp_path / "o.tif"), reader.grid, count=1, dtype=dtype, nodata=None) as target:
            target.write(values)
    with rasterio.open(tmp_path / "o.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), values)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 500000, 0, 10, 4000000),
        Affine.translation(500000, 4000000) * Affine.rotation(30) * Affine.scale(10, -10),
    ],
    ids=["south-up", "rotated"],
)
def test_pixels_keep_their_place_where_north_is_not_up(tmp_path, transform):
    values = np.arange(12, dtype="uint8").reshape(1, 3, 4)
    with RasterReader(write(tmp_path / "i.tif", values, transform)) as reader:
        grid = reader.grid
        np.testing.assert_array_equal(reader.read(0, 0, 3, 4)[0], values)
        assert pixel_metres(grid) == pytest.approx(10)
        x, y = transform @ (2.5, 1.5)
        assert [int(part[0]) for part in grid.pixels_of(np.array([x]), np.array([y]))] == [1, 2]
        assert grid.window_of(Extent(x - 1, y - 1, x + 1, y + 1)) == (1, 2, 1, 1)
        with create_raster(str(tmp_path / "o.tif"), grid, count=1, dtype="uint8", nodata=None) as target:
            target.write(values)
    with rasterio.open(tmp_path / "o.tif") as dataset:
        assert dataset.transform.almost_equals(transform)


def test_the_block_cache_is_bounded_while_a_source_is_read(tmp_path):
    source = write(tmp_path / "i.tif", np.ones((1, 2, 2), "uint8"))
    with reading(source, cache=12_345_678) as reader:
        assert get_gdal_config("GDAL_CACHEMAX") == 12_345_678
        assert reader.read(0, 0, 2, 2)[1].all()


@pytest.fixture
def damaged(tmp_path):
    """Noise in blocks of 128, one of which, that of rows 128 to 255 and columns 256 to 383 of band 2, is broken."""
    noise = np.random.default_rng(0).integers(0, 255, (2, 300, 500)).astype("uint8")
    blocks = dict(tiled=True, blockxsize=128, blockysize=128, interleave="band")
    source = write(tmp_path / "d.tif", noise, compress="deflate", **blocks)
    with rasterio.open(source.path) as dataset:
        place = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=2))
    with open(source.path, "r+b") as file:
        file.seek(place)
        file.write(b"\0" * 500)
    return source, noise


def test_a_damaged_block_is_named_with_its_place(damaged):
    source, noise = damaged
    place = r"'d\.tif' is damaged in rows 128 to 255, columns 256 to 383"
    with RasterReader(source) as reader:
        for read in (reader.read, reader.read_raw):
            with pytest.raises(BadInput, match=place):
                read(0, 0, 300, 500)
        assert (reader.read(0, 0, 128, 500)[0] == noise[:, :128]).all()


def test_what_is_left_around_a_damaged_block_is_read_whatever_the_window(damaged):
    source, noise = damaged
    good = np.ones(noise.shape, bool)
    good[1, 128:256, 256:384] = False
    with RasterReader(source, salvage=True) as reader:
        for row, col, height, width in ((0, 0, 300, 500), (130, 257, 5, 3), (250, 380, 20, 30)):
            raw, valid = reader.read(row, col, height, width)
            part = np.s_[:, row : row + height, col : col + width]
            assert (valid == good[part]).all() and (raw[valid] == noise[part][valid]).all()
        assert list(reader.damaged) == [(128, 256, 128, 128)]


def test_a_mask_counts_around_a_damaged_block_too(damaged):
    source, noise = damaged
    mask = np.ones(noise.shape[1:], bool)
    mask[:, :300] = False
    with rasterio.open(source.path, "r+") as dataset:
        dataset.write_mask(mask)
    good = np.stack([mask, mask])
    good[1, 128:256, 256:384] = False
    with RasterReader(source, salvage=True) as reader:
        assert (reader.read(0, 0, 300, 500)[1] == good).all() and len(reader.damaged) == 1


@pytest.mark.parametrize("broken", [2, 6])
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_alpha_counts_around_a_damaged_block_too(tmp_path, broken, interleave):
    """Of five bands and alpha, which is 0 in the left half; a block of one of them, or of all, is broken."""
    image = np.random.default_rng(0).integers(1, 2**16, (6, 128, 256)).astype("uint16")
    image[5, :, :100] = 0
    blocks = dict(tiled=True, blockxsize=64, blockysize=64, interleave=interleave, compress="deflate")
    source = write(tmp_path / "a.tif", image, **blocks)
    with rasterio.open(source.path, "r+") as dataset:
        dataset.colorinterp = [*dataset.colorinterp[:5], ColorInterp.alpha]
    with rasterio.open(source.path) as dataset:
        place = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=broken))
    with open(source.path, "r+b") as file:
        file.seek(place)
        file.write(b"\0" * 500)
    good = np.repeat(image[5:] > 0, 5, axis=0)
    good[slice(None) if broken == 6 or interleave == "pixel" else broken - 1, 64:, 128:192] = False
    with RasterReader(source, salvage=True) as reader:
        for row, col, height, width in ((0, 0, 128, 256), (70, 90, 20, 50)):
            raw, valid = reader.read(row, col, height, width)
            part = np.s_[:, row : row + height, col : col + width]
            assert (valid == good[part]).all() and (raw[valid] == image[:5][part][valid]).all()
        assert list(reader.damaged) == [(64, 128, 64, 64)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 9)] * 2), max_size=4))
def test_pixels_of_overlapping_boxes_count_once(boxes):
    seen = np.zeros((30, 30), bool)
    for row, col, height, width in boxes:
        seen[row : row + height, col : col + width] = True
    assert pixels_in(boxes, (3, 4, 10, 8)) == seen[3:13, 4:12].sum()


def test_the_layout_tells_what_reading_costs(tmp_path):
    values = np.zeros((3, 300, 600), "uint16")
    blocks = dict(tiled=True, blockxsize=128, blockysize=256)
    planar = write(tmp_path / "a.tif", values, interleave="band", **blocks)
    together = write(tmp_path / "b.tif", values, interleave="pixel", blockysize=5)
    with RasterReader(replace(planar, bands=(1, 3))) as reader:
        assert reader.layout == Layout(300, 600, 256, 128, 4) and not reader.layout.striped
    with RasterReader(replace(together, bands=(2,))) as reader:
        assert reader.layout == Layout(300, 600, 5, 600, 6) and reader.layout.striped
    with RasterReader(replace(planar, stack=(together.path,))) as reader:
        assert reader.layout == Layout(300, 600, 256, 600, 12)
    for source, block in ((planar, (256, 128)), (together, (5, 600))):
        rasterio.shutil.copy(source.path, tmp_path / "v.vrt", driver="VRT")
        with RasterReader(RasterSource(str(tmp_path / "v.vrt"))) as reader:
            assert (reader.layout.block_height, reader.layout.block_width) == block


def test_no_mask_is_made_where_every_value_is_valid(tmp_path):
    values = np.arange(18, dtype="uint16").reshape(2, 3, 3)
    with RasterReader(write(tmp_path / "a.tif", values)) as reader:
        assert reader.read_known(-1, 0, 3, 3)[1] is None and reader.read(0, 0, 3, 3)[1].all()
    with RasterReader(write(tmp_path / "b.tif", values, nodata=4)) as reader:
        assert reader.read_known(0, 0, 1, 3)[1] is None
        assert reader.read_known(0, 0, 2, 3)[1].tolist() == (values[:, :2] != 4).tolist()
        assert reader.read_known(0, 0, 2, 3, "all")[1] is None
    # No value of an unsigned type is one of these.
    for number in (-9999, 4.5, 70000):
        source = replace(write(tmp_path / "c.tif", values), nodata=number)
        with RasterReader(source) as reader:
            assert reader.read_known(0, 0, 3, 3)[1] is None
    with RasterReader(write(tmp_path / "d.tif", (values / [[[1]], [[0]]]).astype("float32"))) as reader:
        assert not reader.read_known(0, 0, 3, 3)[1][1].any()


def test_scale_and_offset_give_physical_units(tmp_path):
    source = write(tmp_path / "s.tif", np.array([[[1000]], [[2000]]], "uint16"))
    with rasterio.open(source.path, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4, 1), (-0.1, 0)
    with RasterReader(source) as reader:
        raw, _ = reader.read(0, 0, 1, 1)
        np.testing.assert_allclose(reader.physical(raw).ravel(), [0, 2000], atol=1e-7)
        np.testing.assert_allclose(reader.physical(raw, np.array([2.0, 1]), np.array([1.0, 0])).ravel(), [2001, 2000])
    plain = write(tmp_path / "p.tif", np.array([[[7]]], "uint8"))
    with RasterReader(plain) as reader:
        assert reader.physical(np.array([[[7]]], "uint8")).dtype == np.float32


def test_a_file_without_crs_takes_the_one_given(tmp_path):
    source = write(tmp_path / "n.tif", np.ones((1, 1, 1), "uint8"), crs=None)
    with RasterReader(source) as reader:
        assert reader.grid.crs is None and pixel_metres(reader.grid) is None
    with RasterReader(RasterSource(source.path, crs=UTM.to_wkt())) as reader:
        assert reader.grid.crs == UTM
