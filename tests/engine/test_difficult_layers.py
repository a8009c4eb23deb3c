"""Layers that are empty, invalid, mixed, over the antimeridian or around a pole: what every reader makes of them."""

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from deepscape.engine import globe
from deepscape.engine.globe import to_grid
from deepscape.engine.labelsources import open_labels
from deepscape.engine.polygonstatistics import polygon_statistics
from deepscape.engine.rasters import Grid
from deepscape.engine.vectorsampling import select_vector_samples
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import PolygonStatistics, RasterSource, SelectVectorSamples, VectorSource
from rasterio.crs import CRS

from .listening import Log

UTM = Grid(80, 60, Affine(10, 0, 380000, 0, -10, 3950000), CRS.from_epsg(32654))


def image(folder, grid):
    path = folder / "image.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=grid.width, height=grid.height, count=1, dtype="uint8", crs=grid.crs,
        transform=grid.transform,
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((1, grid.height, grid.width), np.uint8))
    return RasterSource(str(path))


def layer(folder, geometries, classes, crs=4326):
    path = folder / "layer.gpkg"
    geopandas.GeoDataFrame({"class": classes}, geometry=list(geometries), crs=crs).to_file(path, driver="GPKG")
    return VectorSource(str(path))


def labelled(folder, source, grid):
    """Return the labels of every pixel, 0 for none, after samples, statistics and dense labels were found to agree."""
    context = Context()
    with open_labels(None, source, "class", grid, "image", context) as opened:
        labels, valid = opened.read(0, 0, grid.height, grid.width)
        opened.finish(context)
    raster = image(folder, grid)
    result = select_vector_samples(
        SelectVectorSamples(source, "class", raster, str(folder / "points.gpkg"), strategy="all"), Context()
    )
    points = geopandas.read_file(result.output)
    rows, cols = grid.pixels_of(points.geometry.x.to_numpy(), points.geometry.y.to_numpy())
    sampled = np.zeros(labels.shape, np.int64)
    sampled[rows, cols] = points["class_id"]
    assert (sampled == labels).all()
    counted = polygon_statistics(PolygonStatistics(source, "class", raster, str(folder / "statistics.xml")), Context())
    values, counts = np.unique(labels[valid], return_counts=True)
    found = {str(value): count for value, count in zip(values.tolist(), counts.tolist())}
    assert {value: count for value, count in counted.counts.items() if count} == found
    return labels, context


def degrees(grid):
    rows, cols = np.indices((grid.height, grid.width))
    x, y = grid.centres_of(rows, cols)
    return pyproj.Transformer.from_crs(grid.crs.to_wkt(), 4326, always_xy=True).transform(x, y)


def every_reader(folder, source, grid):
    raster = image(folder, grid)
    with pytest.raises(BadInput) as error:
        select_vector_samples(SelectVectorSamples(source, "class", raster, str(folder / "points.gpkg")), Context())
    found = {str(error.value)}
    with pytest.raises(BadInput) as error:
        polygon_statistics(PolygonStatistics(source, "class", raster, str(folder / "s.xml")), Context())
    found.add(str(error.value))
    with pytest.raises(BadInput) as error, open_labels(None, source, "class", grid, "image", Context()):
        pass
    found.add(str(error.value))
    return found


def test_an_empty_layer(tmp_path):
    source = layer(tmp_path, [shapely.Point(0, 0)], [1])
    frame = geopandas.read_file(source.path)
    frame.iloc[:0].to_file(source.path, driver="GPKG")
    assert every_reader(tmp_path, source, UTM) == {
        "The layer 'layer.gpkg' is empty. Digitise some features, or choose another layer."
    }


def test_a_layer_without_a_geometry_in_any_feature(tmp_path):
    source = layer(tmp_path, [None, shapely.Polygon()], [1, 2])
    assert every_reader(tmp_path, source, UTM) == {
        "No feature of the layer 'layer.gpkg' has a geometry. Choose a layer with geometries."
    }


def test_a_layer_of_invalid_geometries_only(tmp_path):
    x, y = 380100, 3949900
    bow = shapely.Polygon([(x, y), (x + 100, y - 100), (x + 100, y), (x, y - 100)])
    spike = shapely.Polygon(
        [(x + 200, y), (x + 300, y), (x + 300, y - 100), (x + 200, y - 100), (x + 200, y + 80), (x + 200, y)]
    )
    assert not bow.is_valid and not spike.is_valid
    labels, context = labelled(tmp_path, layer(tmp_path, [bow, spike], [1, 2], 32654), UTM)
    assert (labels == 2).sum() == 100
    assert 40 <= (labels == 1).sum() <= 60
    assert any("2 features of 'layer.gpkg' have an invalid geometry; they were repaired" in w for w in context.warnings)


def test_polygons_that_are_lines_hold_no_pixel_centre(tmp_path):
    x, y = 380100, 3949900
    flat = shapely.Polygon([(x, y), (x + 100, y - 53), (x + 200, y - 106), (x, y)])
    square = shapely.box(x, y - 300, x + 100, y - 200)
    labels, _ = labelled(tmp_path, layer(tmp_path, [flat, square], [1, 2], 32654), UTM)
    assert (labels == 2).sum() == 100


def test_types_may_be_mixed_in_a_layer_and_in_a_feature(tmp_path):
    x, y = 380100, 3949900
    shapes = [
        shapely.box(x, y - 50, x + 50, y),
        shapely.LineString([(x + 105, y - 5), (x + 185, y - 5)]),
        shapely.MultiPoint([(x + 5, y - 105), (x + 25, y - 105)]),
        shapely.GeometryCollection([shapely.box(x + 100, y - 130, x + 120, y - 100), shapely.Point(x + 155, y - 105)]),
    ]
    labels, _ = labelled(tmp_path, layer(tmp_path, shapes, [1, 2, 3, 4], 32654), UTM)
    assert [int((labels == value).sum()) for value in (1, 2, 3, 4)] == [25, 9, 2, 7]


def around_180(epsg):
    """Return a grid of 400 km x 200 km over the antimeridian at 15 degrees south (north for the zones of the north)."""
    way = pyproj.Transformer.from_crs(4326, epsg, always_xy=True)
    x, y = way.transform(180.0, 15.0)
    return Grid(80, 40, Affine(5000, 0, round(x) - 200_000.5, 0, -5000, round(y) + 100_000.5), CRS.from_epsg(epsg))


@pytest.mark.parametrize("epsg", [32601, 32660, 3832])
@pytest.mark.parametrize("form", ["split", "beyond 180", "beyond -180"])
def test_a_layer_over_the_antimeridian(tmp_path, epsg, form):
    grid = around_180(epsg)
    shapes = {
        "split": shapely.MultiPolygon([shapely.box(179.2, 14.5, 180, 15.5), shapely.box(-180, 14.5, -179.3, 15.5)]),
        "beyond 180": shapely.box(179.2, 14.5, 180.7, 15.5),
        "beyond -180": shapely.box(-180.8, 14.5, -179.3, 15.5),
    }
    labels, _ = labelled(tmp_path, layer(tmp_path, [shapes[form]], [3]), grid)
    lon, lat = degrees(grid)
    east = lon % 360
    inside = (east > 179.2) & (east < 180.7) & (lat > 14.5) & (lat < 15.5)
    edge = np.minimum.reduce([abs(east - 179.2), abs(east - 180.7), abs(lat - 14.5), abs(lat - 15.5)]) < 0.005
    assert inside.sum() > 400
    assert (labels == 3 * inside)[~edge].all()


@pytest.mark.parametrize("west", [175.0, -185.0])
def test_a_raster_of_longitudes_beyond_180(tmp_path, west):
    grid = Grid(100, 40, Affine(0.1, 0, west + 1e-3, 0, -0.1, 10), CRS.from_epsg(4326))
    split = shapely.MultiPolygon([shapely.box(178.5, 7, 180, 9), shapely.box(-180, 7, -178, 9)])
    labels, _ = labelled(tmp_path, layer(tmp_path, [split, shapely.Point(-177.05, 6.52)], [3, 4]), grid)
    assert ((labels == 3).sum(), (labels == 4).sum()) == (35 * 20, 1)


@pytest.mark.parametrize("epsg", [3031, 3413])
def test_polygons_around_a_pole(tmp_path, epsg):
    south = epsg == 3031
    grid = Grid(101, 101, Affine(30_000, 0, -1_515_000, 0, -30_000, 1_515_000), CRS.from_epsg(epsg))
    sign = -1 if south else 1
    shapes = [
        shapely.box(-180, min(sign * 90, sign * 84), 180, max(sign * 90, sign * 84)),
        shapely.box(20, min(sign * 78, sign * 82), 130, max(sign * 78, sign * 82)),
    ]
    labels, _ = labelled(tmp_path, layer(tmp_path, shapes, [1, 2]), grid)
    lon, lat = degrees(grid)
    lat = sign * lat
    cap = lat > 84
    sector = (lat > 78) & (lat < 82) & (lon > 20) & (lon < 130)
    assert cap.sum() > 1000 and sector.sum() > 300
    edge = np.minimum.reduce([abs(lat - 84), abs(lat - 82), abs(lat - 78)]) < 0.01
    edge |= (np.minimum(abs(lon - 20), abs(lon - 130)) < 0.1) & (lat < 84)
    assert (labels == np.where(cap, 1, np.where(sector, 2, 0)))[~edge].all()


@pytest.mark.parametrize("epsg", [32654, 3031, 3832])
def test_a_polygon_of_the_whole_world_holds_every_raster(tmp_path, epsg):
    place = {32654: (380000, 3950000), 3031: (-400, 400), 3832: (3339584, 400)}[epsg]
    grid = Grid(80, 60, Affine(10, 0, place[0], 0, -10, place[1]), CRS.from_epsg(epsg))
    labels, _ = labelled(tmp_path, layer(tmp_path, [shapely.box(-180, -90, 180, 90)], [6]), grid)
    assert (labels == 6).all()


@pytest.mark.parametrize("west", [-180.0, 0.0])
def test_a_projected_layer_over_the_antimeridian_on_a_raster_of_degrees(tmp_path, west):
    grid = Grid(360, 60, Affine(1, 0, west, 0, -1, 30), CRS.from_epsg(4326))
    way = pyproj.Transformer.from_crs(4326, 3832, always_xy=True)
    xmin, ymin = way.transform(177.2, 3.2)
    xmax, ymax = way.transform(-177.8, 9.2)
    labels, _ = labelled(tmp_path, layer(tmp_path, [shapely.box(xmin, ymin, xmax, ymax)], [2], 3832), grid)
    cols = np.flatnonzero((labels == 2).any(axis=0))
    assert (labels == 2).sum() == 5 * 6
    assert {int((west + col + 0.5) % 360 - 0.5) for col in cols} == {177, 178, 179, 180, 181}


def test_a_feature_far_away_is_not_torn_over_the_raster(tmp_path):
    # EPSG:3832 begins and ends at 30 degrees west: a country there would lie over the whole map.
    grid = around_180(3832)
    ring = shapely.segmentize(shapely.box(-31, 10, -29.5, 20), 0.1)
    near = shapely.box(179.5, 14.5, 179.9, 15.5)
    context = Log()
    with open_labels(None, layer(tmp_path, [ring, near], [1, 2]), "class", grid, "image", context) as opened:
        labels, _ = opened.read(0, 0, grid.height, grid.width)
        opened.finish(context)
    assert set(np.unique(labels)) == {0, 2}
    assert "1 of 2 features of 'layer.gpkg' lie outside 'image'." in context.lines


def test_features_of_ordinary_size_keep_their_vertices(tmp_path):
    rng = np.random.default_rng(1)
    way = pyproj.Transformer.from_crs(32654, 4326, always_xy=True)
    lon, lat = way.transform(rng.uniform(380000, 380800, (30, 3)), rng.uniform(3949400, 3950000, (30, 3)))
    frame = geopandas.GeoDataFrame(geometry=shapely.polygons(np.stack([lon, lat], axis=-1)), crs=4326)
    target = pyproj.CRS.from_epsg(32654)
    expected = frame.to_crs(target).geometry.values
    assert (to_grid(frame, target, UTM, Context()).geometry.values == expected).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(globe, "_CHUNK", 7)
        assert (to_grid(frame, target, UTM, Context()).geometry.values == expected).all()
        assert frame.geometry.notna().all()
        # Given up on the way, for the memory.
        assert (to_grid(frame, target, UTM, Context(), consume=True).geometry.values == expected).all()
    assert frame.geometry.isna().all()
