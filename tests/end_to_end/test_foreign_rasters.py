"""An image that only QGIS's GDAL can open goes through qgis_process and the real engine."""

import json
import struct
import subprocess

import pytest
from osgeo import gdal


@pytest.fixture
def fits(tmp_path):
    """A FITS file of 3 x 2 pixels."""
    cards = ("SIMPLE  =                    T", "BITPIX  =                   16", "NAXIS   =                    2")
    sizes = (f"NAXIS1  = {3:>20}", f"NAXIS2  = {2:>20}", "END")
    header = "".join(card.ljust(80) for card in cards + sizes).ljust(2880)
    path = tmp_path / "star field.fits"
    path.write_bytes(header.encode() + struct.pack(">6h", 40, 50, 10, 10, 20, 30).ljust(2880, b"\0"))
    return path


def test_a_foreign_raster_is_copied_for_the_engine(qgis_process, fits, tmp_path):
    done = qgis_process("normalise", INPUT=fits, METHOD="minmax", OUTPUT=tmp_path / "scaled.tif")
    assert done.code == 0, done.text
    assert "is passed to the engine as a copy" in done.text
    found = gdal.Open(str(tmp_path / "scaled.tif")).ReadAsArray().tolist()
    assert found == [[0.0, 0.25, 0.5], [0.75, 1.0, 0.0]]
    assert (tmp_path / "scaled.input1.tif").exists()
    assert "scaled.input1.tif" in json.dumps(json.loads((tmp_path / "scaled.job.json").read_text()))


def test_no_driver_that_the_engine_has_counts_as_foreign(engine_python):
    """A copy costs time and room: it is made where nothing else helps."""
    from deepscape.algorithms.rasterexport import FOREIGN_DRIVERS

    code = "import rasterio; environment = rasterio.Env(); environment.__enter__(); print(*environment.drivers())"
    there = subprocess.run([engine_python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "GTiff" in there and not FOREIGN_DRIVERS & set(there)


@pytest.fixture
def engine_python():
    from deepscape.tasks.environment import find_engine

    return find_engine("").python
