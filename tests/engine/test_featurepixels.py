"""Which pixels features cover: one by one, many at a time, in strips, and with their edges cut."""

import geopandas
import numpy as np
import pytest
import shapely
import shapely.affinity
from deepscape.engine import featurepixels
from deepscape.engine.classes import FeatureClasses
from deepscape.engine.featurepixels import feature_pixels, pixel_chunks
from deepscape.engine.rasters import Grid
from deepscape.engine.vectors import Layer
from deepscape.tasks.context import Context
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine, from_origin
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box


def test_polygons_lines_and_points_give_their_pixels():
    grid = Grid(20, 20, from_origin(1000, 2000, 10, 10), None)

    def pixels(geometry):
        found = feature_pixels(geometry, grid)
        return None if found is None else [(int(key) // 20, int(key) % 20) for key in found]

    # Centres of columns 0 and 1 lie at x = 1005 and 1015, of rows 0 and 1 at y = 1995 and 1985.
    assert pixels(box(1004, 1984, 1016, 1996)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert pixels(box(1006, 1984, 1016, 1996)) == [(0, 1), (1, 1)]
    assert pixels(box(1006, 1986, 1014, 1994)) == []
    assert pixels(box(0, 0, 10, 10)) is None
    assert pixels(LineString([(1001, 1992), (1028, 1992)])) == [(0, 0), (0, 1), (0, 2)]
    assert pixels(Point(1010, 1990)) == [(1, 1)]  # an edge belongs to the right and lower pixel
    assert pixels(MultiPolygon([box(1004, 1994, 1006, 1996), box(1194, 1804, 1300, 1806)])) == [(0, 0), (19, 19)]


def test_parts_come_one_after_the_other_and_share_no_pixel():
    grid = Grid(20, 20, from_origin(1000, 2000, 10, 10), None)
    lower, upper = box(1004, 1914, 1026, 1926), box(1004, 1984, 1016, 1996)
    expected = feature_pixels(lower, grid).tolist()
    both = feature_pixels(MultiPolygon([lower, upper]), grid).tolist()
    assert both == [*expected, 0, 1, 20, 21] and min(expected) > 21
    # Of parts that overlap, and of collections in collections, the first keeps the pixel.
    over = box(1004, 1904, 1016, 1936)
    nested = shapely.GeometryCollection(
        [lower, shapely.GeometryCollection([MultiPolygon([upper]), over]), Point(1001, 1999)]
    )
    extra = [key for key in feature_pixels(over, grid).tolist() if key not in expected]
    assert extra and feature_pixels(nested, grid).tolist() == [*expected, 0, 1, 20, 21, *extra]
    assert feature_pixels(shapely.MultiPoint([(1015, 1985), (1005, 1995), (1015, 1985)]), grid).tolist() == [21, 0]


def test_a_line_meets_the_pixels_beyond_an_edge_inside_the_window_of_its_feature():
    grid = Grid(20, 20, from_origin(1000, 2000, 10, 10), None)
    corner = LineString([(1050, 1950), (1060, 1940)])
    assert feature_pixels(corner, grid).tolist() == [105, 106, 125, 126]
    far = shapely.MultiLineString([corner, [(1001, 1999), (1002, 1999)]])
    assert feature_pixels(far, grid).tolist() == [84, 85, 104, 105, 106, 125, 126, 0]


def test_erosion_of_parts_keeps_their_order():
    grid = Grid(20, 20, from_origin(1000, 2000, 10, 10), None)
    lower, upper = box(1000, 1900, 1050, 1950), box(1100, 1950, 1150, 2000)
    found = feature_pixels(MultiPolygon([lower, upper]), grid, erode=1).tolist()
    assert found == feature_pixels(lower, grid, 1).tolist() + feature_pixels(upper, grid, 1).tolist()
    assert found[0] > found[-1] and len(found) == 2 * 9
    over = shapely.GeometryCollection([lower, box(1000, 1900, 1100, 1950), Point(1101, 1999)])
    assert sorted(feature_pixels(over, grid, erode=1)) == [
        10,
        *feature_pixels(box(1000, 1900, 1100, 1950), grid, 1).tolist(),
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 300))
def test_strips_of_a_line_give_the_pixels_of_the_whole(seed, strip):
    grid = Grid(40, 40, from_origin(1000, 2000, 10, 10), None)
    line = LineString(np.random.default_rng(seed).uniform([950, 1550], [1450, 2050], (3, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(featurepixels, "_STRIP_PIXELS", strip)
        in_strips = feature_pixels(line, grid)
    whole = feature_pixels(line, grid)
    assert (in_strips is None) == (whole is None)
    if whole is not None:
        assert in_strips.tolist() == whole.tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_polygon_holds_the_centres_inside(seed):
    grid = Grid(40, 40, from_origin(1000, 2000, 10, 10), None)
    polygon = Polygon(np.random.default_rng(seed).uniform([950, 1550], [1450, 2050], (3, 2)))
    found = feature_pixels(polygon, grid)
    x, y = grid.centres_of(*np.divmod(np.arange(1600), 40))
    expected = np.flatnonzero(shapely.contains_xy(polygon, x, y)).tolist()
    assert (found is None and not expected) or found.tolist() == expected


# --- many at a time --------------------------------------------------------------------------------------------------


def layer_of(geometries):
    return Layer(geopandas.GeoDataFrame(geometry=list(geometries)), "v")


def all_known(count):
    return FeatureClasses(np.ones(count, np.int64), np.ones(count, bool), np.zeros(count, bool), ())


def by_feature(geometries, grid, context=None, erode=0):
    """Return the pixels of each feature, None where it lies outside, by way of the chunks."""
    found = []
    layer, classes = layer_of(geometries), all_known(len(geometries))
    for chunk in pixel_chunks(layer, classes, grid, None, context or Context(), erode):
        parts = np.split(chunk.keys, np.cumsum(chunk.counts)[:-1])
        assert chunk.positions.tolist() == list(range(len(found), len(found) + len(parts)))
        found += [None if out else part.tolist() for out, part in zip(chunk.outside, parts)]
    return found


def one_by_one(geometries, grid, erode=0):
    found = [feature_pixels(geometry, grid, erode) for geometry in geometries]
    return [None if part is None else part.tolist() for part in found]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_many_polygons_give_the_pixels_of_each(seed, snapped):
    generator = np.random.default_rng(seed)
    grid = Grid(30, 25, from_origin(1000, 2000, 10, 10), None)
    places = generator.uniform([900, 1700], [1350, 2050], (40, 2))
    sizes = generator.uniform(1, 90, 40)
    if snapped:
        # Edges on pixel centres and edges.
        places, sizes = np.round(places / 5) * 5, np.ceil(sizes / 5) * 5
    made = [Point(place).buffer(size, quad_segs=2) for place, size in zip(places, sizes)]
    made[5] = made[5].difference(made[5].centroid.buffer(sizes[5] / 2))
    made[6] = shapely.union_all([made[6], shapely.affinity.translate(made[6], 400)])
    made[7] = box(*np.round(made[7].bounds))
    assert by_feature(made, grid) == one_by_one(made, grid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(featurepixels, "_CHUNK_PIXELS", 60)
        patch.setattr(featurepixels, "_SMALL_PIXELS", 40)
        patch.setattr(featurepixels, "_CHUNK_FEATURES", 7)
        assert by_feature(made, grid) == one_by_one(made, grid)


def test_many_polygons_on_a_rotated_grid_and_a_layer_of_all_kinds():
    grid = Grid(30, 30, Affine.translation(1000, 2000) @ Affine.rotation(30) @ Affine.scale(10, -10), None)
    made = [Point(1000 + 20 * n, 1800 + 20 * n).buffer(35) for n in range(12)]
    assert by_feature(made, grid) == one_by_one(made, grid)
    mixed = [*made, Point(1100, 1900), LineString([(1000, 1900), (1200, 1900)]), Point(0, 0)]
    assert by_feature(mixed, grid) == one_by_one(mixed, grid)
    points = [Point(1100, 1900), Point(0, 0), Point(1101, 1901)]
    assert by_feature(points, grid) == one_by_one(points, grid)


# --- erosion ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 2000))
def test_erosion_keeps_pixels_whose_square_is_of_the_polygon(seed, erode, strip):
    generator = np.random.default_rng(seed)
    wide = Grid(60, 60, from_origin(900, 2100, 10, 10), None)
    grid = wide.crop(10, 10, 40, 40)
    polygon = shapely.convex_hull(shapely.multipoints(generator.uniform([900, 1500], [1500, 2100], (6, 2))))
    polygon = polygon.difference(Point(generator.uniform([1000, 1600], [1400, 2000])).buffer(60))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(featurepixels, "_STRIP_PIXELS", strip)
        found = feature_pixels(polygon, grid, erode)
    # Counted on a raster that is larger all around: the raster's edge is none of the polygon's.
    inside = np.zeros((60, 60), bool)
    inside.reshape(-1)[feature_pixels(polygon, wide)] = True
    expected = [
        (row - 10) * 40 + col - 10
        for row in range(10, 50)
        for col in range(10, 50)
        if inside[row - erode : row + erode + 1, col - erode : col + erode + 1].all()
    ]
    assert (found is None and not expected) or found.tolist() == expected


def test_lines_and_points_are_not_eroded_and_vanished_polygons_are_listed():
    grid = Grid(20, 20, from_origin(1000, 2000, 10, 10), None)
    made = [
        box(1000, 1900, 1050, 1950), LineString([(1001, 1992), (1028, 1992)]), Point(1010, 1990),
        box(1100, 1900, 1120, 1920), box(1101, 1901, 1102, 1902),
    ]  # fmt: skip
    context = Context()
    found = by_feature(made, grid, context, erode=1)
    assert found[0] == [row * 20 + col for row in (6, 7, 8) for col in (1, 2, 3)]
    assert found[1:] == [[0, 1, 2], [21], [], []]
    text = " ".join(context.warnings)
    assert "ERODE_POLYGONS 1 leaves nothing of 1 polygons of 'v': id 3." in text
    assert "1 features of 'v' hold no pixel centre and give no sample: id 4." in text
