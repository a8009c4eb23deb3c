"""Which pixels features cover: one by one, many at a time, in strips, and with their edges cut."""

import numpy as np
import pytest
from deepscape.engine import featurepixels
from deepscape.engine.featurepixels import feature_pixels
from deepscape.engine.rasters import Grid
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
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


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 300))
def test_strips_of_a_polygon_give_the_pixels_of_the_whole(seed, strip):
    grid = Grid(40, 40, from_origin(1000, 2000, 10, 10), None)
    corners = np.random.default_rng(seed).uniform([950, 1550], [1450, 2050], (3, 2))
    polygon = Polygon(corners)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(featurepixels, "_STRIP_PIXELS", strip)
        in_strips = feature_pixels(polygon, grid)
    whole = feature_pixels(polygon, grid)
    assert (in_strips is None) == (whole is None)
    if whole is not None:
        assert in_strips.tolist() == whole.tolist()
        x, y = grid.centres_of(*np.divmod(np.arange(1600), 40))
        assert set(whole) == {i for i in range(1600) if polygon.contains(Point(x[i], y[i]))}
