"""Pixels and map coordinates, windows of extents, pixel sizes, and the reflection beyond an edge."""

import numpy as np
import pytest
from affine import Affine
from deepscape.engine.grids import Grid, reflect_indices
from deepscape.engine.lengths import pixel_metres
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Extent
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import from_origin

UTM = CRS.from_epsg(32654)


@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 40))
def test_reflected_indices_are_those_of_numpy(size, before, after):
    expected = np.pad(np.arange(size), (before, after), mode="reflect")
    np.testing.assert_array_equal(reflect_indices(-before, before + size + after, size), expected)


@given(st.integers(0, 99), st.integers(0, 79), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_a_point_belongs_to_the_pixel_that_holds_it(row, col, down, right):
    for transform in (from_origin(500000, 4000000, 10, 10), Affine(8, 2, 100, 1, -9, 900)):
        grid = Grid(80, 100, transform, None)
        x, y = grid.corners_of(np.array([row + down]), np.array([col + right]))
        assert [int(part[0]) for part in grid.pixels_of(x, y)] == [row, col]
        x, y = grid.centres_of(np.array([row]), np.array([col]))
        assert [part[0] for part in grid.index_of(x, y)] == pytest.approx([col + 0.5, row + 0.5])


def test_a_point_on_an_edge_belongs_to_the_right_and_lower_pixel():
    grid = Grid(10, 10, from_origin(0, 100, 10, 10), None)
    rows, cols = grid.pixels_of(np.array([10.0, 0, 100]), np.array([90.0, 100, 0]))
    assert rows.tolist() == [1, 0, 10] and cols.tolist() == [1, 0, 10]


def test_an_extent_snaps_outward_is_cut_and_reprojected():
    grid = Grid(10, 10, from_origin(500000, 4000000, 10, 10), UTM)
    assert grid.window_of(Extent(500011, 3999961, 500029, 3999979)) == (2, 1, 2, 2)
    assert grid.window_of(Extent(500010, 3999960, 500030, 3999980)) == (2, 1, 2, 2)
    assert grid.window_of(Extent(0, 0, 9e9, 9e9)) == (0, 0, 10, 10)
    from rasterio.warp import transform_bounds

    bounds = transform_bounds(UTM, CRS.from_epsg(4326), 500020, 3999920, 500050, 3999950)
    row, col, height, width = grid.window_of(Extent(*bounds, crs=CRS.from_epsg(4326).to_wkt()))
    assert row <= 5 and col <= 2 and row + height >= 8 and col + width >= 5 and height <= 5
    with pytest.raises(BadInput, match=r"extent x 0 to 1\.25, y 0 to 1 lies outside the raster, which is x 500000 to "):
        grid.window_of(Extent(0, 0, 1.25, 1))


def test_grids_are_the_same_within_a_hundredth_of_a_pixel():
    grid = Grid(10, 10, from_origin(0, 100, 10, 10), UTM)
    assert grid.same_as(Grid(10, 10, from_origin(0.05, 100, 10, 10), None))
    assert not grid.same_as(Grid(10, 10, from_origin(0.2, 100, 10, 10), UTM))
    assert not grid.same_as(Grid(10, 10, from_origin(0, 100, 10.02, 10), UTM))
    assert not grid.same_as(Grid(10, 11, grid.transform, UTM))


def test_what_tells_two_grids_apart_is_named_with_both_values():
    grid = Grid(10, 10, from_origin(500000, 4000000, 10, 10), UTM)
    other = Grid(10, 11, from_origin(500005, 4000000, 10.02, 10), None)
    assert grid.difference_from(other) == (
        "its size in pixels is 10 x 10, not 10 x 11; its pixel size is 10 x 10, not 10.02 x 10; its upper left corner "
        "is x 500000, y 4000000, not x 500005, y 4000000"
    )
    moved = Grid(10, 10, from_origin(500000.25, 4000000, 10, 10), UTM)
    assert moved.difference_from(grid) == "its upper left corner is x 500000.25, y 4000000, not x 500000, y 4000000"
    for turned in (grid.transform @ Affine.rotation(90), grid.transform @ Affine.scale(1, -1)):
        assert Grid(10, 10, turned, UTM).difference_from(grid) == "its rows and columns run in other directions"


def test_a_crs_is_told_after_what_makes_another_grid_and_never_alone():
    degrees, utm = CRS.from_epsg(4326), CRS.from_epsg(32721)
    image = Grid(10, 10, from_origin(500000, 7000000, 10, 10), utm)
    assert Grid(10, 10, from_origin(-57, -27.1, 1e-4, 9e-5), degrees).difference_from(image) == (
        "its pixel size is 0.0001 x 9e-05, not 10 x 10; its upper left corner is x -57, y -27.1, not x 500000, "
        "y 7000000; its CRS is EPSG:4326, not EPSG:32721"
    )
    assert image.same_as(Grid(10, 10, image.transform, degrees))
    size = "its size in pixels is 10 x 10, not 9 x 10"
    for crs, note in ((None, ""), (utm, ""), (UTM, "; its CRS is EPSG:32721, not EPSG:32654")):
        assert image.difference_from(Grid(9, 10, image.transform, crs)) == size + note
    assert Grid(10, 10, image.transform, None).difference_from(Grid(9, 10, image.transform, utm)) == size


def test_a_small_difference_is_told_with_more_digits_and_rounding_is_none():
    grid = Grid(10, 10, from_origin(500000, 7000000, 0.02, 0.02), UTM)
    moved = Grid(10, 10, from_origin(500000, 7000000.0004, 0.02, 0.02), UTM)
    assert not moved.same_as(grid)
    corner = "its upper left corner is x 500000, y 7000000.0004, not x 500000, y 7000000"
    assert moved.difference_from(grid) == corner
    rounded = Grid(10, 10, Affine(0.02 + 1e-12, 1e-12, 500000.0000001, -1e-12, -0.02, 7000000.0004), UTM)
    assert rounded.difference_from(grid) == corner.replace(
        "x 500000, y 7000000.0004", "x 500000.0000001, y 7000000.0004"
    )
    assert rounded.difference_from(Grid(9, 10, moved.transform, UTM)) == "its size in pixels is 10 x 10, not 9 x 10"


@given(*[st.floats(-1, 1)] * 6, st.sampled_from([1e-2, 1e-3, 1e-5]))
def test_grids_that_are_not_the_same_are_always_told_apart(a, b, c, d, e, f, change):
    transform = from_origin(500000, 7000000, 0.5, 0.5)
    shifts = (a / 500, b / 500, c, d / 500, e / 500, f)
    other = Affine(*(number + change * shift for number, shift in zip(transform[:6], shifts)))
    own, theirs = Grid(500, 400, transform, UTM), Grid(500, 400, other, UTM)
    assert own.same_as(theirs) or own.difference_from(theirs)


def test_pixels_measure_metres_also_in_degrees_and_feet():
    assert pixel_metres(Grid(10, 10, from_origin(0, 0, 10, 10), UTM)) == 10
    degrees = Grid(10, 10, from_origin(0, 60, 1e-4, 1e-4), CRS.from_epsg(4326))
    assert pixel_metres(degrees) == pytest.approx((5.58 * 11.14) ** 0.5, rel=0.01)
    feet = Grid(1, 1, from_origin(980_000, 200_000, 10, 10), CRS.from_epsg(2263))
    assert pixel_metres(feet) == pytest.approx(3.048, rel=1e-5)


def test_pixels_measure_metres_on_the_ground_where_a_map_stretches_them():
    def side(latitude_metres, crs=3857):
        return pixel_metres(Grid(10, 10, from_origin(0, latitude_metres, 10, 10), CRS.from_epsg(crs)))

    assert side(50) == pytest.approx(10, rel=0.005)
    # 60 degrees north, where Web Mercator shows everything at twice its size.
    assert side(8_399_738) == pytest.approx(5, rel=0.005)
    # Beyond the globe the map's own number is all there is.
    assert side(1e9, 32654) == 10


def test_a_crop_keeps_the_place():
    grid = Grid(10, 10, from_origin(500000, 4000000, 10, 20), UTM).crop(2, 3, 4, 5)
    assert (grid.width, grid.height, grid.transform.c, grid.transform.f) == (5, 4, 500030, 3999960)


def test_an_extent_far_larger_than_the_raster_covers_it_and_one_off_the_globe_does_not():
    grid, degrees = Grid(10, 10, from_origin(500000, 4000000, 10, 10), UTM), CRS.from_epsg(4326).to_wkt()
    for side in ((-180, -90, 180, 90), (-200, -100, 200, 100), (139, 30, 142, 37)):
        assert grid.window_of(Extent(*side, crs=degrees)) == (0, 0, 10, 10)
    with pytest.raises(BadInput, match="has no place in the raster's CRS"):
        grid.window_of(Extent(-1e5, -1e5, 1e5, 1e5, crs=degrees))
