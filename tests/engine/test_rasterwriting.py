"""Writing rasters: whole or absent, and no picture."""

import os

import numpy as np
import pytest
import rasterio
from affine import Affine
from deepscape.engine.rasters import Grid
from deepscape.engine.rasterwriting import create_raster
from deepscape.tasks.errors import BadInput
from rasterio.crs import CRS
from rasterio.transform import from_origin

UTM = CRS.from_epsg(32654)


def test_an_output_is_whole_or_absent(tmp_path):
    path = tmp_path / "o é.tif"
    grid = Grid(300, 200, from_origin(0, 0, 1, 1), UTM)
    with create_raster(str(path), grid, count=1, dtype="uint8", nodata=255, descriptions=["class"]) as dataset:
        dataset.write(np.full((200, 300), 3, "uint8"), 1)
        assert not path.exists()
    with rasterio.open(path) as dataset:
        assert (dataset.nodata, dataset.descriptions, dataset.block_shapes) == (255, ("class",), [(256, 256)])
        assert (dataset.read() == 3).all()
    with pytest.raises(ZeroDivisionError), create_raster(str(path), grid, count=1, dtype="uint8", nodata=None):
        1 / 0  # noqa: B018
    with rasterio.open(path) as dataset:
        assert (dataset.read() == 3).all()
    assert os.listdir(tmp_path) == ["o é.tif"]


def test_an_old_sidecar_does_not_outlive_its_raster(tmp_path):
    path = tmp_path / "o.tif"
    (tmp_path / "o.tif.aux.xml").write_text("<PAMDataset/>")
    with create_raster(str(path), Grid(1, 1, from_origin(0, 0, 1, 1), UTM), count=1, dtype="uint8", nodata=None):
        pass
    assert os.listdir(tmp_path) == ["o.tif"]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with (
        pytest.raises(BadInput, match=r"folder .* does not exist"),
        create_raster(
            str(tmp_path / "no" / "o.tif"), Grid(1, 1, Affine.identity(), None), count=1, dtype="uint8", nodata=None
        ),
    ):
        pass


@pytest.mark.parametrize("count", [3, 4])
def test_bands_of_a_raster_that_is_written_are_no_picture(tmp_path, count):
    grid = Grid(3, 2, from_origin(0, 0, 1, 1), None)
    with create_raster(str(tmp_path / "r.tif"), grid, count=count, dtype="uint8", nodata=255) as dataset:
        dataset.write(np.zeros((count, 2, 3), "uint8"))
    with rasterio.open(tmp_path / "r.tif") as dataset:
        assert {"red", "green", "blue", "alpha"}.isdisjoint(interp.name for interp in dataset.colorinterp)
