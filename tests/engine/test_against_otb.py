"""The chain of polygon statistics, rates and samples beside the Orfeo ToolBox: the same counts, rates and points."""

import subprocess
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import rasterio.windows
from deepscape.engine.polygonstatistics import polygon_statistics, read_statistics
from deepscape.engine.vectorsampling import select_vector_samples
from deepscape.tasks.context import Context
from deepscape.tasks.jobs import PolygonStatistics, RasterSource, SelectVectorSamples, VectorSource
from rasterio.transform import from_origin
from shapely.geometry import LineString, Point, Polygon, shape

pytestmark = pytest.mark.otb

DEMO = Path(__file__).parents[2] / "demo" / "data"
SHARED = Path(__file__).parents[3] / "shared" / "data"
# Ours -> what the reference calls it, and the job's own field.
STRATEGIES = {
    "smallest": [],
    "constant": ["-strategy.constant.nb", "500"],
    "percent": ["-strategy.percent.p", "0.5"],
    "total": ["-strategy.total.v", "1001"],
    "all": [],
    "byclass": ["-strategy.byclass.in", "{rates}"],
}


def otb(application, *arguments):
    """Run an application of the Orfeo ToolBox."""
    command = [f"otbcli_{application}", *(str(argument) for argument in arguments)]
    subprocess.run(command, check=True, capture_output=True)


def samples(path, grid):
    """Return (feature, row, col) of every point of an output, sorted."""
    frame = pyogrio.read_dataframe(path)
    with rasterio.open(grid) as dataset:
        cols, rows = ~dataset.transform * (frame.geometry.x.to_numpy(), frame.geometry.y.to_numpy())
    return sorted(zip(frame["originfid"], np.floor(rows).astype(int), np.floor(cols).astype(int)))


def tokyo_polygons(folder, letter="A", size=300):
    """Make a crop of a truth raster and a layer of its polygons, with the class as number and as text."""
    truth = SHARED / "tokyo_truth"
    if not truth.is_dir():
        pytest.skip("shared/data/tokyo_truth is not beside the checkout")
    with rasterio.open(next(truth.glob(f"*{letter}.tif"))) as dataset:
        window = rasterio.windows.Window(8400, 200, size, size)
        labels, transform = dataset.read(1, window=window), dataset.window_transform(window)
        profile = dict(dataset.profile, width=size, height=size, transform=transform, blockxsize=256, blockysize=256)
        crs = dataset.crs
    with rasterio.open(folder / "grid.tif", "w", **profile) as dataset:
        dataset.write(labels, 1)
    found = [
        (shape(outline), int(value))
        for outline, value in rasterio.features.shapes(labels, labels != 255, transform=transform)
    ]
    codes = [value for _, value in found]
    frame = {"code": codes, "kind": [f"class {value}" for value in codes]}
    pyogrio.write_dataframe(
        geopandas.GeoDataFrame(frame, geometry=[part for part, _ in found], crs=crs), folder / "v.gpkg"
    )
    return folder / "grid.tif", folder / "v.gpkg"


def scattered(folder, kind):
    """Make a small grid and a layer of scattered lines, points or triangles that share no pixel between classes."""
    with rasterio.open(
        folder / "grid.tif", "w", driver="GTiff", width=400, height=400, count=1, dtype="uint8", crs="EPSG:32654",
        transform=from_origin(1000, 5000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((400, 400), "uint8"), 1)
    generator = np.random.default_rng(7)
    made = []
    for row in range(10):
        for col in range(10):
            corner = np.array([1030 + 400 * col, 1030 + 400 * row])
            spots = corner + generator.uniform(0, 340, (3, 2))
            made.append(
                {"lines": LineString, "polygons": Polygon, "points": lambda spots: Point(spots[0])}[kind](spots)
            )
    codes = [n % 4 for n in range(len(made))]
    frame = {"code": codes, "kind": [f"class {value}" for value in codes]}
    pyogrio.write_dataframe(geopandas.GeoDataFrame(frame, geometry=made, crs="EPSG:32654"), folder / "v.gpkg")
    return folder / "grid.tif", folder / "v.gpkg"


def half_mask(folder, grid):
    """Make a mask of the grid that leaves out half of the pixels at random."""
    with rasterio.open(grid) as dataset:
        profile, size = dataset.profile, (dataset.height, dataset.width)
    profile.update(count=1, dtype="uint8", nodata=None, driver="GTiff")
    with rasterio.open(folder / "mask.tif", "w", **profile) as dataset:
        dataset.write(np.random.default_rng(3).integers(0, 2, size).astype("uint8"), 1)
    return folder / "mask.tif"


def compare(folder, grid, layer, field, masked=False):
    """Run both chains with every strategy and compare statistics, rates and points."""
    mask = half_mask(folder, grid) if masked else None
    common = ["-in", grid, "-vec", layer, "-field", field, *(["-mask", mask] if mask else [])]
    vector, raster = VectorSource(str(layer)), RasterSource(str(grid))
    valid = RasterSource(str(mask)) if mask else None
    otb("PolygonClassStatistics", *common, "-out", folder / "otb.xml")
    job = PolygonStatistics(vector, field, raster, str(folder / "ours.xml"), valid)
    counts = polygon_statistics(job, Context()).counts
    assert (folder / "ours.xml").read_text() == (folder / "otb.xml").read_text()
    rates = folder / "wanted.csv"
    rates.write_text("#class samples\n" + "".join(f"{name};{7 + 40 * n}\n" for n, name in enumerate(counts) if n != 1))
    for strategy, arguments in STRATEGIES.items():
        arguments = [argument.format(rates=rates) for argument in arguments]
        command = [*common, "-instats", folder / "otb.xml", "-strategy", strategy, *arguments]
        otb("SampleSelection", *command, "-outrates", folder / "otb.csv", "-out", folder / "otb.gpkg")
        job = SelectVectorSamples(
            vector, field, raster, str(folder / "ours.gpkg"), valid, strategy, sampler="periodic",
            count=1001 if strategy == "total" else 500, rates_file=str(rates), rates=str(folder / "ours.csv"),
        )  # fmt: skip
        result = select_vector_samples(job, Context())
        assert (folder / "ours.csv").read_text() == (folder / "otb.csv").read_text(), strategy
        found = samples(folder / "ours.gpkg", grid)
        assert found == samples(folder / "otb.gpkg", grid), strategy
        assert result.sample_count == len(found) > 0


@pytest.mark.parametrize("field", ["class_id", "class_name"])
@pytest.mark.parametrize("name", ["train", "validation"])
def test_demo_polygons(tmp_path, name, field):
    compare(tmp_path, DEMO / "sen2.tif", DEMO / f"{name}_polygons.gpkg", field)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("field", ["code", "kind"])
def test_polygons_of_a_truth_raster(tmp_path, field, masked):
    compare(tmp_path, *tokyo_polygons(tmp_path), field, masked)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["lines", "points", "polygons"])
def test_scattered_features(tmp_path, kind, masked):
    compare(tmp_path, *scattered(tmp_path, kind), "kind", masked)


def test_polygons_in_another_crs(tmp_path):
    grid, layer = scattered(tmp_path, "polygons")
    pyogrio.write_dataframe(pyogrio.read_dataframe(layer).to_crs("EPSG:4326"), tmp_path / "w.gpkg")
    common = ["-in", grid, "-vec", tmp_path / "w.gpkg", "-field", "code"]
    otb("PolygonClassStatistics", *common, "-out", tmp_path / "otb.xml")
    vector, raster = VectorSource(str(tmp_path / "w.gpkg")), RasterSource(str(grid))
    polygon_statistics(PolygonStatistics(vector, "code", raster, str(tmp_path / "ours.xml")), Context())
    assert read_statistics(str(tmp_path / "ours.xml")) == read_statistics(str(tmp_path / "otb.xml"))
    otb("SampleSelection", *common, "-instats", tmp_path / "otb.xml", "-out", tmp_path / "otb.gpkg")
    job = SelectVectorSamples(
        vector, "code", raster, str(tmp_path / "ours.gpkg"), strategy="smallest", sampler="periodic"
    )
    select_vector_samples(job, Context())
    # The reference counts the features of its reprojected copy from 0; ours keep their own ids.
    theirs = [(feature + 1, row, col) for feature, row, col in samples(tmp_path / "otb.gpkg", grid)]
    assert samples(tmp_path / "ours.gpkg", grid) == theirs


@pytest.mark.parametrize("percent", [0.7, 0.1, 0.003, 1.0])
def test_shares_are_rounded_alike(tmp_path, percent):
    grid, layer = DEMO / "sen2.tif", DEMO / "train_polygons.gpkg"
    common = ["-in", grid, "-vec", layer, "-field", "class_id"]
    otb("PolygonClassStatistics", *common, "-out", tmp_path / "otb.xml")
    command = [*common, "-instats", tmp_path / "otb.xml", "-strategy", "percent", "-strategy.percent.p", percent]
    otb("SampleSelection", *command, "-outrates", tmp_path / "otb.csv", "-out", tmp_path / "otb.gpkg")
    job = SelectVectorSamples(
        VectorSource(str(layer)), "class_id", RasterSource(str(grid)), str(tmp_path / "ours.gpkg"),
        strategy="percent", percent=percent, sampler="periodic", rates=str(tmp_path / "ours"),
    )  # fmt: skip
    assert select_vector_samples(job, Context()).rates == str(tmp_path / "ours.csv")
    assert (tmp_path / "ours.csv").read_text() == (tmp_path / "otb.csv").read_text()
    assert samples(tmp_path / "ours.gpkg", grid) == samples(tmp_path / "otb.gpkg", grid)
