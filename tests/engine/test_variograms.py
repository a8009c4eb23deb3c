"""The range of the variogram: that of images with patches of a known size, and none of noise."""

import numpy as np
import pytest
import rasterio
from deepscape.engine.rasters import RasterReader
from deepscape.engine.variograms import measure_variogram, spherical
from deepscape.tasks.context import Context
from deepscape.tasks.jobs import RasterSource
from rasterio.transform import from_origin


def measured(path, bands, nodata=None):
    with rasterio.open(
        path, "w", driver="GTiff", width=bands.shape[2], height=bands.shape[1], count=len(bands), dtype="float32",
        crs="EPSG:32654", transform=from_origin(0, 0, 10, 10), nodata=nodata,
    ) as out:  # fmt: skip
        out.write(bands.astype("float32"))
    with RasterReader(RasterSource(str(path))) as reader:
        return measure_variogram(reader, Context())


def mosaic(side, size=600, seed=0, shift=(3, 7)):
    values = np.random.default_rng(seed).normal(size=(size // side + 2, size // side + 2))
    large = np.kron(values, np.ones((side, side)))
    return large[shift[0] :, shift[1] :][:size, :size]


@pytest.mark.parametrize("side", [12, 30, 80])
def test_the_range_is_about_the_size_of_the_fields(tmp_path, side):
    found = measured(tmp_path / "a.tif", np.stack([mosaic(side), mosaic(side, seed=1)]))
    assert side * 0.8 < found.range_px < side * 1.6
    assert found.nugget < 0.15 and found.sill == pytest.approx(1, abs=0.2)
    assert found.pixels == 96 * 24


def test_noise_has_no_range_and_a_flat_image_neither(tmp_path):
    assert measured(tmp_path / "a.tif", np.random.default_rng(0).normal(size=(2, 300, 300))).range_px is None
    assert measured(tmp_path / "b.tif", np.zeros((1, 300, 300))).range_px is None
    assert measured(tmp_path / "c.tif", np.zeros((1, 1, 1))).range_px is None


def test_no_data_is_left_out(tmp_path):
    bands = mosaic(30)[None].copy()
    bands[:, :, :300] = -9999
    found = measured(tmp_path / "a.tif", bands, nodata=-9999)
    assert 24 < found.range_px < 50 and found.pixels < 96 * 24
    bands[:] = -9999
    assert measured(tmp_path / "b.tif", bands, nodata=-9999).pixels == 0


def test_it_is_the_same_every_time_and_smaller_than_a_patch_works(tmp_path):
    bands = mosaic(20, size=40)[None]
    assert measured(tmp_path / "a.tif", bands) == measured(tmp_path / "b.tif", bands)


def test_the_spherical_model():
    assert spherical(np.array([0.0, 5.0, 10.0, 20.0]), 10.0).tolist() == [0.0, 0.6875, 1.0, 1.0]
