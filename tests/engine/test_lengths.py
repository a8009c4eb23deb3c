"""Lengths on grids: pixels, map units, and metres on the ground wherever the raster lies."""

import math

import numpy as np
import pytest
from deepscape.engine.lengths import full_turn, ground_sizes, in_pixels, most_pixels
from deepscape.engine.rasters import Grid
from deepscape.tasks.errors import BadInput
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin


def grid_at(lon, lat, epsg, pixel, size=100):
    """A grid of ``size`` pixels whose middle lies at a place."""
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    half = size / 2 * pixel
    return Grid(size, size, from_origin(x - half, y + half, pixel, pixel), CRS.from_epsg(epsg))


def test_pixels_and_map_units_need_no_crs():
    grid = Grid(10, 10, Affine(4, 0, 0, 0, -2, 0), None)
    assert in_pixels(7, "pixels", grid, "a.tif") == (7, 7)
    assert in_pixels(20, "map", grid, "a.tif") == (10, 5)
    assert most_pixels(20, "map", grid, "a.tif") == (10, 5)
    with pytest.raises(BadInput, match=r"UNIT metres cannot be used: 'a\.tif' has no CRS"):
        in_pixels(7, "metres", grid, "a.tif")


def test_a_rotated_grid_keeps_its_pixel():
    turned = Affine.rotation(30) @ Affine.scale(10, -10)
    assert in_pixels(50, "map", Grid(10, 10, turned, None), "a.tif") == pytest.approx((5, 5))


def test_metres_of_utm_are_its_own_but_for_the_scale_factor():
    rows, cols = in_pixels(1000, "metres", grid_at(141, 35, 32654, 10), "a.tif")
    # 0.9996 on the central meridian: 10 map units are 10.004 m there.
    assert (rows, cols) == pytest.approx((99.96, 99.96), abs=1e-3)


@pytest.mark.parametrize(("lat", "factor"), [(0, 1.0), (45, math.cos(math.radians(45))), (60, 0.5), (-60, 0.5)])
def test_web_mercator_is_corrected_for_its_scale(lat, factor):
    rows, cols = in_pixels(100, "metres", grid_at(10, lat, 3857, 10), "a.tif")
    # Within the flattening of the ellipsoid, 0.7 %.
    assert (rows, cols) == pytest.approx((10 / factor, 10 / factor), rel=7e-3)


def test_degrees_of_longitude_shrink_towards_the_pole():
    pixel = 1 / 3600
    down, across = ground_sizes(grid_at(20, 60, 4326, pixel), np.array([50.0]), np.array([50.0]), "a.tif")
    # Lengths of a degree on WGS84 at 60 degrees: 111,412.2 and 55,800.0 m.
    assert (down[0] * 3600, across[0] * 3600) == pytest.approx((111_412.2, 55_800.0), rel=1e-5)
    rows, cols = in_pixels(300, "metres", grid_at(20, 60, 4326, pixel), "a.tif")
    assert (rows, cols) == pytest.approx((300 / 30.948, 300 / 15.5), rel=1e-4)


@pytest.mark.parametrize(("epsg", "lat"), [(3031, -71), (3413, 70)])
def test_polar_grids_are_true_at_their_standard_parallel_and_work_at_the_pole(epsg, lat):
    assert in_pixels(1000, "metres", grid_at(30, lat, epsg, 10), "a.tif") == pytest.approx((100, 100), rel=1e-3)
    pole = Grid(100, 100, from_origin(-500, 500, 10, 10), CRS.from_epsg(epsg))
    rows, cols = in_pixels(1000, "metres", pole, "a.tif")
    # The scale at the pole is 0.97 (EPSG guidance note 7-2, variant B).
    assert rows == pytest.approx(cols, rel=1e-6) and 96.5 < rows < 98


def test_most_pixels_holds_at_every_place():
    world = Grid(360, 160, from_origin(-180, 80, 1, 1), CRS.from_epsg(4326))
    rows, cols = most_pixels(100_000, "metres", world, "a.tif")
    for row in range(0, 161, 8):
        here = in_pixels(100_000, "metres", world, "a.tif", (row, 180))
        assert rows >= here[0] * (1 - 1e-3) and cols >= here[1] * (1 - 1e-9)
    narrow = most_pixels(100_000, "metres", world, "a.tif", (80, 0, 80, 360))
    assert narrow[1] == pytest.approx(0.8983, rel=1e-4)


def test_at_a_pole_the_whole_circle_is_near():
    world = Grid(360, 180, from_origin(-180, 90, 1, 1), CRS.from_epsg(4326))
    rows, cols = most_pixels(1000, "metres", world, "a.tif")
    assert math.isinf(cols) and rows == pytest.approx(0.009, rel=0.01)
    assert most_pixels(0, "metres", world, "a.tif")[1] == 0


def test_a_grid_outside_its_crs_is_refused():
    nowhere = Grid(10, 10, from_origin(1e12, 1e12, 1, 1), CRS.from_epsg(32654))
    with pytest.raises(BadInput, match=r"'a\.tif' lies outside the area of its CRS"):
        in_pixels(7, "metres", nowhere, "a.tif")


def test_feet_are_feet():
    # EPSG:2263 counts in US survey feet.
    rows, cols = in_pixels(304.8, "metres", grid_at(-74, 40.7, 2263, 10), "a.tif")
    assert (rows, cols) == pytest.approx((100, 100), rel=1e-3)


def test_the_turn_of_the_earth():
    assert full_turn(Grid(10, 10, from_origin(0, 0, 0.5, 0.5), CRS.from_epsg(4326))) == 720
    assert full_turn(Grid(10, 10, from_origin(0, 0, 10, 10), CRS.from_epsg(32654))) is None
    assert full_turn(Grid(10, 10, from_origin(0, 0, 10, 10), None)) is None
