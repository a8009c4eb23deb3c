"""The rasters of a mapping job: types, areas, names."""

import json

import numpy as np
import pyproj
import pytest
from affine import Affine
from deepscape.engine import maps
from deepscape.engine.maps import RasterFiles, class_areas, raster_path, row_hectares
from deepscape.engine.products import output_type, products_of
from deepscape.engine.rasters import Grid
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, DiskFull
from rasterio.crs import CRS


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], ("uint8", 255)), ([0, 1], ("uint8", 255)), ([0, 254], ("uint8", 255)), ([1, 255], ("uint8", 0)),
        ([0, 255], ("uint16", 65535)), ([256], ("uint16", 65535)), ([1, 65535], ("uint16", 0)),
        ([0, 65535], ("uint32", 2**32 - 1)), ([-1], ("int16", -32768)), ([-32768, 5], ("int16", 32767)),
        ([-32768, 32767], ("int32", -(2**31))), ([-1, 40_000], ("int32", -(2**31))),
    ],
)  # fmt: skip
def test_output_type(values, expected):
    assert output_type(values) == expected


@pytest.mark.parametrize("values", [[2**32], [-1, 2**31], [-(2**40)]])
def test_an_id_that_fits_no_type_is_named(values):
    with pytest.raises(BadInput, match=str(max(values, key=abs))):
        output_type(values)


def test_raster_path():
    assert [raster_path(p) for p in ("", "a.tif", "a.TIFF", "a", "a.v2")] == [
        "",
        "a.tif",
        "a.TIFF",
        "a.tif",
        "a.v2.tif",
    ]
    for other in (".jp2", ".GPKG", ".vrt"):
        with pytest.raises(BadInput, match=f"'map{other}' ends in {other.lower()}, but rasters are written as .tif."):
            raster_path(f"map{other}")


def test_hectares_on_the_ellipsoid_equal_those_of_pyproj():
    for south in (0.0, 45.0, -70.0):
        grid = Grid(10, 4, Affine(0.01, 0, 7.0, 0, -0.01, south), CRS.from_epsg(4326))
        geod = pyproj.Geod(ellps="WGS84")
        for row, found in enumerate(row_hectares(grid)):
            top, bottom = south - 0.01 * row, south - 0.01 * (row + 1)
            x = np.linspace(7.0, 7.01, 50)  # the edges are parallels, not geodesics
            ring = (np.concatenate([x, x[::-1]]), np.concatenate([np.full(50, bottom), np.full(50, top)]))
            assert found == pytest.approx(abs(geod.polygon_area_perimeter(*ring)[0]) / 1e4, rel=1e-6)


def test_hectares_in_projections():
    utm = Grid(5, 3, Affine(10, 0, 5e5, 0, -10, 9e6), CRS.from_epsg(32721))
    assert row_hectares(utm).tolist() == [0.01] * 3
    feet = Grid(5, 3, Affine(100, 0, 2e6, 0, -100, 7e5), CRS.from_epsg(2264))
    assert row_hectares(feet) == pytest.approx(np.full(3, (100 * 1200 / 3937) ** 2 / 1e4))
    mercator = Grid(1, 1, Affine(10, 0, 0, 0, -10, 6446275.84), CRS.from_epsg(3857))  # 50 degrees north
    assert row_hectares(mercator)[0] == pytest.approx(0.01 * np.cos(np.radians(50)) ** 2, rel=0.01)
    assert row_hectares(Grid(5, 3, Affine.identity(), None)) is None


def test_areas_end_with_the_digits_of_a_pixel():
    classes = [ClassEntry(1, "a", "#000000"), ClassEntry(2, "b", "#ffffff")]
    counts = np.array([[51807, 1], [1, 0]])
    utm, zone = Affine(10, 0, 500_000, 0, -10, 5_000_000), CRS.from_epsg(32632)
    areas = class_areas(classes, counts, Grid(60_000, 2, utm, zone), Context())
    assert json.dumps([area["hectares"] for area in areas.values()]) == "[518.08, 0.01]"
    # 0.3 m: a pixel is 0.000009 ha; and of degrees some digits are enough.
    small = class_areas(classes, counts, Grid(60_000, 2, utm * Affine.scale(0.03), zone), Context())
    assert json.dumps([area["hectares"] for area in small.values()]) == "[0.466272, 9e-06]"
    degrees = Grid(60_000, 2, Affine(1e-4, 0, 8, 0, -1e-4, 45), CRS.from_epsg(4326))
    area = class_areas(classes, counts, degrees, Context())["1"]["hectares"]
    assert area == pytest.approx(51808 * row_hectares(degrees)[0], abs=1e-5) and area == round(area, 5)


def files(path, grid, classes=(ClassEntry(1, "a", "#000000"),)):
    return RasterFiles(products_of(classes, [str(path)]), grid, classes, {})


def test_messages_name_the_file_that_the_user_gave(tmp_path):
    grid = Grid(4, 4, Affine(10, 0, 0, 0, -10, 0), None)
    rasters = files(tmp_path / "map.tif", grid)
    with pytest.raises(DiskFull, match=r"write 'map\.tif'"), rasters, rasters.create(0):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_what_described_an_older_file_of_the_name_is_removed(tmp_path):
    for name in ("map.tif", "map.tif.ovr", "map.tif.aux.xml", "map.qml"):
        (tmp_path / name).write_text("old")
    grid = Grid(4, 4, Affine(10, 0, 0, 0, -10, 0), None)
    rasters = files(tmp_path / "map.tif", grid)
    with rasters:
        with rasters.create(0):
            pass
        rasters.finish({})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.qml", "map.tif", "map.tif.aux.xml"]
    assert all("old" not in path.read_text(errors="ignore") for path in tmp_path.iterdir())


def test_what_a_disk_swallowed_is_found_out(tmp_path):
    grid = Grid(300, 200, Affine(10, 0, 0, 0, -10, 0), None)
    rasters = files(tmp_path / "map.tif", grid)
    with pytest.raises(BadInput, match=r"'.*map\.tif' does not hold what was written"), rasters:
        with rasters.create(0):
            rasters.write(0, (0, 0, 200, 256), np.ones((1, 200, 256), np.uint8))
            rasters.write(0, (0, 256, 200, 44), np.ones((1, 200, 44), np.uint8))
        (part,) = tmp_path.iterdir()
        content = part.read_bytes()
        part.write_bytes(content[:-40] + bytes(40))
        rasters.finish({})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("classes", [1, 11, 12, 200])
def test_rows_are_counted_the_same_way_with_few_values_and_many(kind, classes):
    most = np.iinfo(kind).max
    rng = np.random.default_rng(classes)
    positions = rng.choice([*range(classes), most - 1, most], (7, 90)).astype(kind)
    values = [*range(classes), most - 1]
    found = maps._counts_per_row(positions, values)
    assert found.dtype == np.int64
    assert found.tolist() == [[line.tolist().count(value) for value in values] for line in positions]


@pytest.mark.filterwarnings("error")  # numbers that wrap around are meant to
@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 254],
        [0, 300, 9],
        [-4, 7, 8],
        [0, 65535, 2],
        [1, 2, 3],
        [0, 1, 2],
        [253, 254, 255],
        [-1, 0, 1],
        [32765, 32766, 32767],
        [65533, 65534, 65535],
    ],
)
def test_positions_become_class_values_and_all_else_no_data(values):
    classes = [ClassEntry(value, str(value), "#000000") for value in values]
    (product,) = products_of(classes, ["map.tif", "", "", "", ""], "uint8")
    files = RasterFiles([product], Grid(4, 2, Affine.identity(), None), classes, {})
    last = np.iinfo(product.stored).max
    positions = np.array([[[0, 1, 2, 3], [2, last, last - 1, 0]]], product.stored)
    expected = [[[*values, product.nodata], [values[2], product.nodata, product.nodata, values[0]]]]
    assert files.class_values(positions).tolist() == expected
    # As places of a list: what has no class is the last.
    assert files.class_values(np.array([-1, 1])).tolist() == [product.nodata, values[1]]
