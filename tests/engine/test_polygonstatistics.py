"""Pixels per class and per feature: the reference's file, and its numbers where it is installed."""

import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from deepscape.engine.polygonstatistics import polygon_statistics, read_statistics, write_statistics
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import PolygonStatistics, RasterSource, VectorSource
from rasterio.transform import from_origin
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, box

DEMO = Path(__file__).parents[2] / "demo" / "data"

POLYGONS = [
    box(1000, 1980, 1020, 2000), MultiPolygon([box(1100, 1900, 1130, 1920), box(1050, 1950, 1070, 1970)]),
    box(1001, 1801, 1002, 1802), box(0, 0, 10, 10),
    box(1000, 1800, 1100, 1900).difference(box(1020, 1820, 1080, 1880)),
    box(1015, 1980, 1040, 2000), box(1005, 1945, 1025, 1965),
]  # fmt: skip
LINES = [
    LineString([(1001, 1992), (1028, 1992)]), LineString([(1010, 1985), (1010, 1955)]),
    LineString([(1033, 1931), (1177, 1877)]), LineString([(1020, 1900), (1040, 1900)]),
    LineString([(900, 1700), (1300, 2050), (1100, 1990)]),
]  # fmt: skip
POINTS = [Point(1010, 1990), Point(1001, 1801), Point(5, 5), MultiPoint([(1100, 1805), (1150, 1805)])]


def raster(path, values):
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[1], height=values.shape[0], count=1, dtype=values.dtype,
        crs="EPSG:32654", transform=from_origin(1000, 2000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
    return RasterSource(str(path))


def vector(path, geometries, crs="EPSG:32654", **fields):
    pyogrio.write_dataframe(geopandas.GeoDataFrame(fields, geometry=geometries, crs=crs), path)
    return VectorSource(str(path))


@pytest.fixture
def grid(tmp_path):
    return raster(tmp_path / "grid.tif", np.ones((20, 20), "uint8"))


def blocks(path):
    """Return the blocks of a statistics file: name -> [(key, value), ...] in the file's order."""
    root = ElementTree.parse(path).getroot()
    return {block.get("name"): [(entry.get("key"), int(entry.get("value"))) for entry in block] for block in root}


def reference(tmp_path, raster, vector, field, mask=None):
    command = ["otbcli_PolygonClassStatistics", "-in", raster, "-vec", vector, "-field", field]
    command += ["-mask", mask] if mask else []
    subprocess.run([*command, "-out", str(tmp_path / "otb.xml")], check=True, capture_output=True)
    return tmp_path / "otb.xml"


def test_the_file_has_the_layout_of_the_reference(tmp_path, grid):
    source = vector(tmp_path / "v.gpkg", POLYGONS, code=["a", "b & b", "c", "d", "a", "b & b", "e"])
    context = Context()
    result = polygon_statistics(PolygonStatistics(source, "code", grid, str(tmp_path / "new")), context)
    assert result.output == str(tmp_path / "new.xml")
    assert result.counts == {"a": 68, "b & b": 16, "c": 0, "e": 4}
    assert (tmp_path / "new.xml").read_text() == (
        '<?xml version="1.0" ?>\n<GeneralStatistics>\n    <Statistic name="samplesPerClass">\n'
        '        <StatisticMap key="a" value="68" />\n        <StatisticMap key="b &amp; b" value="16" />\n'
        '        <StatisticMap key="c" value="0" />\n        <StatisticMap key="e" value="4" />\n    </Statistic>\n'
        '    <Statistic name="samplesPerVector">\n        <StatisticMap key="1" value="4" />\n'
        '        <StatisticMap key="2" value="10" />\n        <StatisticMap key="3" value="0" />\n'
        '        <StatisticMap key="5" value="64" />\n        <StatisticMap key="6" value="6" />\n'
        '        <StatisticMap key="7" value="4" />\n    </Statistic>\n</GeneralStatistics>\n'
    )
    text = " ".join(context.warnings)
    assert "1 of 7 features" in text and "id 3" in text
    assert read_statistics(result.output) == result.counts


def test_keys_are_sorted_as_texts_and_a_mask_counts(tmp_path, grid):
    values = np.ones((20, 20), "uint8")
    values[:2] = 0
    mask = raster(tmp_path / "mask.tif", values)
    source = vector(tmp_path / "v.gpkg", POLYGONS[:2] + POLYGONS[4:] * 3, code=[10, 2, 1, 2, 7, 1, 2, 7, 1, 2, 7])
    job = PolygonStatistics(source, "code", grid, str(tmp_path / "s.xml"), mask)
    assert polygon_statistics(job, Context()).counts == {"1": 192, "10": 0, "2": 10, "7": 12}
    assert [key for key, value in blocks(job.output)["samplesPerVector"]] == sorted(str(fid) for fid in range(1, 12))


def test_bad_input_is_refused(tmp_path, grid):
    source = vector(tmp_path / "v.gpkg", POLYGONS[3:4], code=[1])
    with pytest.raises(BadInput, match=r"No feature of 'v\.gpkg'.*labels a pixel of 'grid\.tif'"):
        polygon_statistics(PolygonStatistics(source, "code", grid, str(tmp_path / "s.xml")), Context())
    small = raster(tmp_path / "small.tif", np.ones((5, 5), "uint8"))
    with pytest.raises(BadInput, match=r"mask 'small\.tif' does not .*: its size in pixels is 5 x 5, not"):
        polygon_statistics(PolygonStatistics(source, "code", grid, str(tmp_path / "s.xml"), small), Context())
    source = vector(tmp_path / "v.gpkg", POLYGONS[:1], code=[1])
    with pytest.raises(BadInput, match="does not exist"):
        polygon_statistics(PolygonStatistics(source, "code", grid, str(tmp_path / "no" / "s.xml")), Context())
    assert not list(tmp_path.glob("*.xml")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<a>", "no file of polygon statistics"), ("<a/>", "has no 'samplesPerClass'"),
        ('<a><Statistic name="samplesPerClass"><StatisticMap key="1" value="x"/></Statistic></a>', "invalid literal"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a/>', "XML entities"),
    ],
)  # fmt: skip
def test_bad_statistics_are_refused(tmp_path, text, message):
    (tmp_path / "s.xml").write_text(text)
    with pytest.raises(BadInput, match=message):
        read_statistics(str(tmp_path / "s.xml"))
    with pytest.raises(BadInput, match="cannot be read"):
        read_statistics(str(tmp_path / "none.xml"))


def test_any_class_name_is_read_back(tmp_path):
    counts = {"": 1, "ä <b> \"c\" 'd'": 2, "10": 3}
    assert read_statistics(write_statistics(str(tmp_path / "s.xml"), counts, {})) == counts


# --- beside the reference --------------------------------------------------------------------------------------------


@pytest.mark.otb
@pytest.mark.parametrize("field", ["class_id", "class_name"])
@pytest.mark.parametrize("name", ["train", "validation"])
def test_demo_polygons_give_the_file_of_the_reference(tmp_path, name, field):
    source, image = DEMO / f"{name}_polygons.gpkg", DEMO / "sen2.tif"
    job = PolygonStatistics(VectorSource(str(source)), field, RasterSource(str(image)), str(tmp_path / "ours.xml"))
    polygon_statistics(job, Context())
    assert (tmp_path / "ours.xml").read_text() == reference(tmp_path, image, source, field).read_text()


@pytest.mark.otb
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("geometries", [POLYGONS, LINES, POINTS], ids=["polygons", "lines", "points"])
def test_geometries_give_the_file_of_the_reference(tmp_path, grid, geometries, masked):
    values = np.random.default_rng(1).integers(0, 2, (20, 20)).astype("uint8")
    mask = raster(tmp_path / "mask.tif", values) if masked else None
    source = vector(tmp_path / "v.gpkg", geometries, code=[n % 3 for n in range(len(geometries))])
    job = PolygonStatistics(source, "code", grid, str(tmp_path / "ours.xml"), mask)
    polygon_statistics(job, Context())
    theirs = reference(tmp_path, grid.path, source.path, "code", mask and mask.path)
    assert blocks(tmp_path / "ours.xml") == blocks(theirs)


@pytest.mark.otb
@pytest.mark.parametrize("seed", range(3))
def test_random_lines_and_polygons_give_the_counts_of_the_reference(tmp_path, grid, seed):
    generator = np.random.default_rng(seed)
    for number, kind in enumerate((LineString, Polygon)):
        made = [kind(generator.uniform([950, 1750], [1250, 2050], (3, 2))) for _ in range(200)]
        source = vector(tmp_path / f"v{number}.gpkg", made, code=[n % 4 for n in range(200)])
        job = PolygonStatistics(source, "code", grid, str(tmp_path / "ours.xml"))
        polygon_statistics(job, Context())
        assert blocks(tmp_path / "ours.xml") == blocks(reference(tmp_path, grid.path, source.path, "code"))
