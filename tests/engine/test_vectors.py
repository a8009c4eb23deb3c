"""Reading and writing vector layers: repair, missing CRS, and GeoPackages that are whole or absent."""

import os
import sqlite3

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from deepscape.engine.rasters import Grid
from deepscape.engine.vectors import LayerWriter, crs_name, on_grid, read_layer, vector_path, write_layer
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import VectorSource
from rasterio.crs import CRS
from rasterio.transform import from_origin
from shapely.geometry import LineString, Point, Polygon, box

GRID = Grid(10, 10, from_origin(500000, 4000000, 10, 10), CRS.from_epsg(32654))


def save(path, geometries, crs="EPSG:32654", **fields):
    pyogrio.write_dataframe(geopandas.GeoDataFrame(fields, geometry=geometries, crs=crs), path)
    return VectorSource(str(path))


def test_feature_ids_fields_and_layers_are_read(tmp_path):
    path = tmp_path / "é v.gpkg"
    save(path, [Point(0, 0), Point(1, 1)], a=[1, 2])
    frame = geopandas.GeoDataFrame({"b": ["x"]}, geometry=[box(0, 0, 1, 1)], crs=4326)
    pyogrio.write_dataframe(frame, path, layer="second")
    layer = read_layer(VectorSource(str(path)), Context())
    assert (layer.name, layer.fields, layer.frame.index.tolist()) == ("é v.gpkg", ["a"], [1, 2])
    assert read_layer(VectorSource(str(path), layer="second", label="Mine"), Context()).name == "Mine"
    with pytest.raises(BadInput, match="cannot be read"):
        read_layer(VectorSource(str(path), layer="third"), Context())


def test_invalid_geometries_are_repaired_and_missing_ones_left_out(tmp_path):
    bow_tie = Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    source = save(tmp_path / "v.gpkg", [bow_tie, None, Polygon(), box(0, 0, 1, 1)], a=[1, 2, 3, 4])
    context = Context()
    layer = read_layer(source, context)
    assert layer.frame["a"].tolist() == [1, 4]
    assert shapely.is_valid(np.asarray(layer.frame.geometry.values)).all()
    assert layer.frame.geometry.iloc[0].area == 2 and shapely.get_dimensions(layer.frame.geometry.iloc[0]) == 2
    assert len(context.warnings) == 2 and "2 features" in context.warnings[0] and "1 feature " in context.warnings[1]
    assert not pyogrio.read_dataframe(source.path).geometry.iloc[0].is_valid  # the user's own file is as it was
    with pytest.raises(BadInput, match="No feature of the layer"):
        read_layer(save(tmp_path / "n.gpkg", [None], a=[1]), Context())


def test_what_is_no_layer_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="table without geometry"):
        read_layer(VectorSource(str(tmp_path / "t.csv")), Context())
    (tmp_path / "x.gpkg").write_text("no database")
    with pytest.raises(BadInput, match="cannot be read"):
        read_layer(VectorSource(str(tmp_path / "x.gpkg")), Context())
    with pytest.raises(BadInput, match="does not exist"):
        read_layer(VectorSource(str(tmp_path / "y.gpkg")), Context())


def test_layers_come_into_the_crs_of_the_raster(tmp_path):
    here = geopandas.GeoSeries([Point(500055, 3999945)], crs="EPSG:32654")
    source = save(tmp_path / "w.gpkg", here.to_crs(4326), crs="EPSG:4326", a=[1])
    context = Context()
    point = on_grid(read_layer(source, context), GRID, "r", context).frame.geometry.iloc[0]
    assert (point.x, point.y) == pytest.approx((500055, 3999945), abs=1e-5) and context.warnings == []
    same = save(tmp_path / "s.gpkg", here, a=[1])
    exact = on_grid(read_layer(same, context), GRID, "r", context).frame.geometry.iloc[0]
    assert (exact.x, exact.y) == (500055, 3999945)  # no rounding by a transformation onto itself


def test_a_missing_crs_is_taken_from_qgis_or_assumed_and_said(tmp_path):
    source = save(tmp_path / "n.gpkg", [Point(0, 0)], crs=None, a=[1])
    assert read_layer(VectorSource(source.path, crs=CRS.from_epsg(4326).to_wkt()), Context()).frame.crs == "EPSG:4326"
    bare = Grid(10, 10, GRID.transform, None)
    for grid, said in (
        (GRID, "'n.gpkg' has no CRS; it is assumed to be that of 'r', EPSG:32654."),
        (bare, "Neither 'n.gpkg' nor 'r' has a CRS"),
    ):
        context = Context()
        on_grid(read_layer(source, context), grid, "r", context)
        assert said in context.warnings[0]
    context = Context()
    on_grid(read_layer(save(tmp_path / "c.gpkg", [Point(0, 0)], a=[1]), context), bare, "r", context)
    assert "'r' has no CRS; it is assumed to be that of 'c.gpkg', EPSG:32654." in context.warnings


@pytest.mark.parametrize("srs_id", [0, -1])
def test_a_geopackage_s_undefined_crs_is_none(tmp_path, srs_id):
    source = save(tmp_path / "u.gpkg", [Point(500055, 3999945)], a=[1])
    with sqlite3.connect(source.path) as database:
        for table in ("gpkg_contents", "gpkg_geometry_columns"):
            database.execute(f"UPDATE {table} SET srs_id = {srs_id}")
    context = Context()
    layer = on_grid(read_layer(source, context), GRID, "r", context)
    assert (layer.frame.geometry.iloc[0].x, layer.frame.geometry.iloc[0].y) == (500055, 3999945)
    assert context.warnings == ["'u.gpkg' has no CRS; it is assumed to be that of 'r', EPSG:32654."]


def test_crs_names():
    assert crs_name(None) == "no CRS"
    assert crs_name(CRS.from_epsg(32654)) == "EPSG:32654"


def test_output_paths_get_their_suffix():
    assert vector_path("a b") == "a b.gpkg" and vector_path("v1.2") == "v1.2.gpkg" and vector_path("A.GPKG") == "A.GPKG"
    for other in ("a.shp", "a.jp2"):
        with pytest.raises(BadInput, match="not a GeoPackage"):
            vector_path(other)


def test_a_layer_is_written_in_pieces_whole_or_not_at_all(tmp_path):
    path = str(tmp_path / "o.gpkg")
    with LayerWriter(path, "Point", GRID.crs) as writer:
        for start in (0, 3):
            numbers = np.arange(start, start + 3)
            writer.write(shapely.points(numbers, numbers), {"n": numbers})
            assert not os.path.exists(path)
    table = pyogrio.read_dataframe(path)
    assert table["n"].tolist() == [0, 1, 2, 3, 4, 5] and table.crs == "EPSG:32654"
    assert pyogrio.list_layers(path)[:, 0].tolist() == ["o"]
    with pytest.raises(ZeroDivisionError), LayerWriter(path, "Point", None) as writer:
        writer.write(shapely.points([0.0], [0.0]), {"n": np.array([9])})
        1 / 0  # noqa: B018
    assert len(pyogrio.read_dataframe(path)) == 6 and os.listdir(tmp_path) == ["o.gpkg"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    frame = geopandas.GeoDataFrame({"a": [1]}, geometry=[LineString([(0, 0), (1, 1)])])
    with pytest.raises(BadInput, match=r"folder .* does not exist"):
        write_layer(frame, str(tmp_path / "no" / "o.gpkg"), "LineString", None, Context())
