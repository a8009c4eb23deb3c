"""Polygons from a class map: equal to its pixels, whatever the tiles; areas on the ground; holes and small parts."""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from deepscape.engine import vectorising
from deepscape.engine.vectorising import vectorise
from deepscape.tasks import jobs
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from rasterio.transform import from_origin

UTM = from_origin(500_000, 4_000_000, 2, 2)


def write(path, classes, crs="EPSG:32631", transform=UTM, nodata=0, dtype="uint8"):
    height, width = classes.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=dtype, crs=crs, transform=transform,
        nodata=nodata,
    ) as raster:  # fmt: skip
        raster.write(classes.astype(dtype), 1)
    return jobs.RasterSource(str(path))


def polygons(folder, source, **changes):
    made = vectorise(jobs.Vectorise(source, str(folder / "polygons.gpkg"), **changes), Context())
    return made, geopandas.read_file(made.output)


def noise(seed, height=40, width=55, kinds=4):
    return np.kron(np.random.default_rng(seed).integers(0, kinds, (height // 2 + 1, width // 2 + 1)), np.ones((2, 2)))[
        :height, :width
    ].astype(np.int64)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([7, 16, 1024]))
def test_polygons_are_the_pixels(tmp_path_factory, seed, tile):
    folder, classes = tmp_path_factory.mktemp("v"), noise(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectorising, "_TILE", tile)
        _, layer = polygons(folder, write(folder / "map.tif", classes), simplify=0)
    burnt = rasterize(zip(layer.geometry, layer.class_id), out_shape=classes.shape, transform=UTM, dtype="int64")
    assert np.array_equal(burnt, classes)
    assert layer.geometry.area.sum() == 4 * np.count_nonzero(classes)
    assert layer.geometry.is_valid.all()


@pytest.mark.parametrize("simplify", [0.0, 1.0, 2.5])
def test_seams_cannot_be_seen(tmp_path, monkeypatch, simplify):
    source = write(tmp_path / "map.tif", noise(3, 90, 70))
    whole = polygons(tmp_path, source, simplify=simplify)[1]
    monkeypatch.setattr(vectorising, "_TILE", 16)
    tiled = polygons(tmp_path, source, simplify=simplify)[1]
    assert len(whole) == len(tiled)
    assert shapely.equals(shapely.normalize(whole.geometry.values), shapely.normalize(tiled.geometry.values)).all()
    assert whole.class_id.tolist() == tiled.class_id.tolist()


def test_parts_that_meet_in_a_corner_stay_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(vectorising, "_TILE", 2)
    classes = np.zeros((4, 4), int)
    classes[:2, :2] = classes[2:, 2:] = 1
    assert polygons(tmp_path, write(tmp_path / "map.tif", classes), simplify=0)[0].polygon_count == 2


def test_shared_borders_stay_common(tmp_path):
    layer = polygons(tmp_path, write(tmp_path / "map.tif", noise(5) + 1), simplify=1.5)[1]
    # Not to the last bit of map coordinates: what is left between neighbours is no more than their rounding.
    assert layer.geometry.union_all().area == pytest.approx(layer.geometry.area.sum(), rel=1e-9)
    assert layer.geometry.area.sum() == pytest.approx(4 * 40 * 55, rel=5e-3)  # but for the corners of the map


def test_small_parts_and_holes_are_left_out(tmp_path):
    classes = np.zeros((30, 30), int)
    classes[2:20, 2:20] = 1
    classes[5, 5] = 0  # a hole of 4 square metres
    classes[10:14, 10:14] = 0  # one of 64
    classes[25, 25] = 1
    made, layer = polygons(tmp_path, write(tmp_path / "map.tif", classes), simplify=0, min_area=10.0)
    assert made.polygon_count == 1 and len(layer.geometry[0].interiors) == 1
    assert layer.area_m2[0] == pytest.approx(4 * (18 * 18 - 16), rel=2e-3)  # on the ground: UTM is 0.04 % off here


def test_sizes_of_small_pixels_have_more_digits(tmp_path):
    # One pixel of 3 cm: 0.0009 square metres, which two decimals make nothing of.
    source = write(tmp_path / "m.tif", np.eye(1, dtype=int), transform=from_origin(500_000, 4_000_000, 0.03, 0.03))
    layer = polygons(tmp_path, source, simplify=0)[1]
    assert layer.area_m2[0] == 0.000901 and layer.perimeter_m[0] == 0.12


def test_areas_are_those_on_the_ground(tmp_path):
    # A square of 0.01 degrees on the equator and one at 60 degrees north, which is half as wide.
    sizes = []
    for north in (0.01, 60.01):
        source = write(tmp_path / "m.tif", np.ones((10, 10), int), "EPSG:4326", from_origin(10, north, 0.001, 0.001))
        sizes.append(polygons(tmp_path, source)[0].area)
    assert sizes[0] == pytest.approx(1_230_900, rel=1e-3) and sizes[1] / sizes[0] == pytest.approx(0.505, abs=0.005)


def test_classes_names_and_colours(tmp_path):
    source = write(tmp_path / "Gebäude map.tif", noise(1))
    legend = jobs.Legend(layer_classes=(ClassEntry(2, "Gebäude", "#ff0000"),))
    made, layer = polygons(tmp_path, source, classes=(2,), legend=legend)
    assert set(layer.class_id) == {2} and set(layer.class_name) == {"Gebäude"}
    assert made.classes == (ClassEntry(2, "Gebäude", "#ff0000"),) and made.counts == {"2": len(layer)}


def test_without_crs_areas_are_in_map_units(tmp_path):
    assert polygons(tmp_path, write(tmp_path / "m.tif", np.ones((5, 5), int), None))[0].area == 100


def test_what_cannot_be_is_said(tmp_path):
    source = write(tmp_path / "m.tif", np.ones((5, 5), int))
    with pytest.raises(BadInput, match="holds no pixel of class 4, 9"):
        polygons(tmp_path, source, classes=(4, 9))
    with pytest.raises(BadInput, match="holds no class"):
        polygons(tmp_path, write(tmp_path / "m.tif", np.zeros((5, 5), int)))
    with pytest.raises(BadInput, match="is no class"):
        polygons(tmp_path, write(tmp_path / "f.tif", np.full((5, 5), 0.5), dtype="float32"))
    assert not (tmp_path / "polygons.gpkg").exists()
