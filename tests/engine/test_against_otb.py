"""The chain of polygon statistics, rates and samples beside the Orfeo ToolBox: the same counts, rates and points."""

import importlib
import sqlite3
import subprocess
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import rasterio.windows
import scipy.ndimage
from deepscape.engine.polygonstatistics import read_statistics
from deepscape.tasks.context import Context
from deepscape.tasks.jobs import PolygonStatistics, RasterSource, SamplingRates, SelectVectorSamples, VectorSource
from rasterio.transform import from_origin
from shapely.geometry import LineString, MultiLineString, MultiPoint, MultiPolygon, Point, Polygon, box, shape

pytestmark = pytest.mark.otb

DEMO = Path(__file__).parents[2] / "demo" / "data"
SHARED = Path(__file__).parents[3] / "shared" / "data"
# What each strategy asks for by the reference's own default: its arguments, and the fields of our job.
DEFAULTS = {
    "smallest": ([], {}),
    "constant": (["-strategy.constant.nb", "1000"], {"count": 1000}),
    "percent": ([], {"percent": 0.5}),
    "total": ([], {"count": 1000}),
    "all": ([], {}),
    "byclass": (["-strategy.byclass.in", "{rates}"], {"rates_file": "{rates}"}),
}
# Numbers that do not divide evenly, where rounding tells.
ODD = {
    "constant": (["-strategy.constant.nb", "37"], {"count": 37}),
    "percent": (["-strategy.percent.p", "0.137"], {"percent": 0.137}),
    "total": (["-strategy.total.v", "1001"], {"count": 1001}),
}
ALL = {"all": DEFAULTS["all"]}
SHAPES = {
    "lines": LineString, "polygons": Polygon, "points": Point, "multilines": MultiLineString, "multipoints": MultiPoint,
    "multipolygons": MultiPolygon,
}  # fmt: skip


def run(job):
    """Do a job as the worker does it."""
    module, name = job.runner.split(":")
    return getattr(importlib.import_module(f"deepscape.{module}"), name)(job, Context())


def otb(application, *arguments):
    """Run an application of the Orfeo ToolBox."""
    command = [f"otbcli_{application}", *(str(argument) for argument in arguments)]
    subprocess.run(command, check=True, capture_output=True)


def samples(path, grid, centred=False):
    """Return (feature, row, col) of every point of an output, sorted; of ours all lie on pixel centres."""
    frame = pyogrio.read_dataframe(path)
    with rasterio.open(grid) as dataset:
        cols, rows = ~dataset.transform * (frame.geometry.x.to_numpy(), frame.geometry.y.to_numpy())
    assert not centred or max(abs(rows % 1 - 0.5).max(), abs(cols % 1 - 0.5).max()) < 1e-6
    places = (np.floor(part).astype(int).tolist() for part in (rows, cols))
    return sorted(zip(frame["originfid"].tolist(), *places))


# --- rasters and layers ----------------------------------------------------------------------------------------------


def grid_file(path, labels, transform=from_origin(1000, 5000, 10, 10), crs="EPSG:32654"):
    """Write a raster, of which only the grid matters.

    The rasters here are square: the reference takes features tile by tile, and one square tile holds these.
    """
    with rasterio.open(
        path, "w", driver="GTiff", width=labels.shape[1], height=labels.shape[0], count=1, dtype="uint8", crs=crs,
        transform=transform,
    ) as dataset:  # fmt: skip
        dataset.write(labels, 1)
    return path


def layer_file(path, geometries, codes, crs="EPSG:32654"):
    """Write a layer with the class as number and as text."""
    options = {"SPATIAL_INDEX": "NO"} if path.suffix == ".gpkg" else {}
    fields = {"code": codes, "kind": [f"class {code}" for code in codes]}
    pyogrio.write_dataframe(geopandas.GeoDataFrame(fields, geometry=geometries, crs=crs), path, **options)
    return path


def outlines(labels, transform, nodata=255):
    """Return the outlines of the areas of one label, and their labels."""
    found = rasterio.features.shapes(labels, labels != nodata, transform=transform)
    parts, codes = zip(*((shape(outline), int(value)) for outline, value in found))
    return list(parts), list(codes)


def tokyo_polygons(folder, letter, col, row, size):
    """Make a crop of a truth raster and a layer of its polygons."""
    truth = SHARED / "tokyo_truth"
    if not truth.is_dir():
        pytest.skip("shared/data/tokyo_truth is not beside the checkout")
    with rasterio.open(next(truth.glob(f"*{letter}.tif"))) as dataset:
        window = rasterio.windows.Window(col, row, size, size)
        labels, transform, crs = dataset.read(1, window=window), dataset.window_transform(window), dataset.crs
    grid = grid_file(folder / "grid.tif", labels, transform, crs)
    return grid, layer_file(folder / "v.gpkg", *outlines(labels, transform), crs=crs)


def noise(size=150, classes=5, seed=11):
    """Return labels in areas with holes and islands, as a land cover has them; 255 where nothing is known."""
    fields = np.random.default_rng(seed).normal(size=(classes, size, size))
    smooth = np.stack([scipy.ndimage.gaussian_filter(field, 2) for field in fields])
    labels = smooth.argmax(axis=0).astype("uint8")
    labels[smooth.max(axis=0) < 0.1] = 255
    return labels


def noise_polygons(folder, shift=0.0):
    """Make a label raster and its polygons, which lie ``shift`` pixels beside it."""
    labels = noise()
    grid = grid_file(folder / "grid.tif", labels)
    parts, codes = outlines(labels, from_origin(1000 + 10 * shift, 5000 - 10 * shift, 10, 10))
    return grid, parts, codes


def scattered(folder, kind):
    """Make a small grid and a layer of scattered features that share no pixel between classes."""
    grid = grid_file(folder / "grid.tif", np.ones((400, 400), "uint8"))
    generator = np.random.default_rng(7)
    made = []
    for row in range(10):
        for col in range(10):
            corner = np.array([1030 + 400 * col, 1030 + 400 * row])
            spots = corner + np.array([(20, 20), (120, 190), (240, 60)]) + generator.uniform(0, 90, (3, 2))
            parts = {"multilines": [spots[:2], [corner, corner - 10]], "points": spots[0]}.get(kind, spots)
            if kind == "multipolygons":
                # The lower part first.
                parts = [box(*corner, *corner + 60), box(*corner + 90, *corner + 150), box(*corner + 70, *corner + 85)]
            made.append(SHAPES[kind](parts))
    return grid, layer_file(folder / "v.gpkg", made, [n % 4 for n in range(len(made))])


def half_mask(folder, grid):
    """Make a mask of the grid that leaves out half of the pixels at random."""
    with rasterio.open(grid) as dataset:
        profile, size = dataset.profile, (dataset.height, dataset.width)
    profile.update(count=1, dtype="uint8", nodata=None, driver="GTiff")
    with rasterio.open(folder / "mask.tif", "w", **profile) as dataset:
        dataset.write(np.random.default_rng(3).integers(0, 2, size).astype("uint8"), 1)
    return folder / "mask.tif"


# --- both chains -----------------------------------------------------------------------------------------------------


def compare(folder, grid, layer, field, masked=False, strategies=DEFAULTS, first_fid=0):
    """Run both chains and compare statistics, rates and points, feature by feature; returns the counts.

    Args:
        folder: scratch folder.
        grid: path of the raster.
        layer: path of the layer.
        field: of the class.
        masked: with a mask of half of the pixels.
        strategies: as `DEFAULTS`; what follows the first word of a name only tells it from others.
        first_fid: what the reference's ids lack to ours.
    """
    mask = half_mask(folder, grid) if masked else None
    common = ["-in", grid, "-vec", layer, "-field", field, *(["-mask", mask] if mask else [])]
    vector, raster = VectorSource(str(layer)), RasterSource(str(grid))
    valid = RasterSource(str(mask)) if mask else None
    otb("PolygonClassStatistics", *common, "-out", folder / "otb.xml")
    job = PolygonStatistics(vector, field, raster, str(folder / "ours.xml"), valid)
    counts = run(job).counts
    if first_fid:
        assert read_statistics(str(folder / "ours.xml")) == read_statistics(str(folder / "otb.xml"))
    else:
        assert (folder / "ours.xml").read_text() == (folder / "otb.xml").read_text()
    rates = folder / "wanted.csv"
    wanted = "#class samples\n" + "".join(f"{name};{7 + 40 * n}\n" for n, name in enumerate(counts) if n != 1)
    # A class of which no feature lies on the raster, and one that the layer lacks.
    rates.write_text(wanted + "9;5\n77;3\n")
    for name, (arguments, fields) in strategies.items():
        strategy = name.split()[0]
        arguments = [argument.format(rates=rates) for argument in arguments]
        command = [*common, "-instats", folder / "otb.xml", "-strategy", strategy, *arguments]
        otb("SampleSelection", *command, "-outrates", folder / "otb.csv", "-out", folder / "otb.gpkg")
        fields = {name: value.format(rates=rates) if name == "rates_file" else value for name, value in fields.items()}
        job = SelectVectorSamples(
            vector, field, raster, str(folder / "ours.gpkg"), valid, strategy, sampler="periodic",
            rates=str(folder / "ours.csv"), **fields,
        )  # fmt: skip
        result = run(job)
        assert (folder / "ours.csv").read_text() == (folder / "otb.csv").read_text(), name
        found = samples(folder / "ours.gpkg", grid, centred=True)
        theirs = [(feature + first_fid, row, col) for feature, row, col in samples(folder / "otb.gpkg", grid)]
        assert found == theirs, name
        assert result.sample_count == len(found) > 0
    return counts


@pytest.mark.parametrize(("name", "field"), [("train", "class_id"), ("validation", "class_name")])
def test_demo_polygons(tmp_path, name, field):
    compare(tmp_path, DEMO / "sen2.tif", DEMO / f"{name}_polygons.gpkg", field)


@pytest.mark.parametrize(
    ("crop", "field", "masked"),
    [
        (("A", 8400, 200, 300), "code", False),
        (("B", 7400, 0, 600), "kind", False),
        (("B", 5000, 5000, 400), "code", True),
    ],
)
def test_polygons_of_a_truth_raster(tmp_path, crop, field, masked):
    counts = compare(tmp_path, *tokyo_polygons(tmp_path, *crop), field, masked)
    labels = rasterio.open(tmp_path / "grid.tif").read(1)
    if not masked:
        present, number = np.unique(labels[labels != 255], return_counts=True)
        assert list(counts.values()) == number.tolist() and len(present) >= 4


@pytest.mark.parametrize(("field", "masked"), [("code", False), ("kind", True)])
def test_polygons_with_holes(tmp_path, field, masked):
    grid, parts, codes = noise_polygons(tmp_path)
    assert sum(len(part.interiors) for part in parts) > 3
    compare(tmp_path, grid, layer_file(tmp_path / "v.gpkg", parts, codes), field, masked)


def test_numbers_that_do_not_divide(tmp_path):
    grid, parts, codes = noise_polygons(tmp_path)
    compare(tmp_path, grid, layer_file(tmp_path / "v.gpkg", parts, codes), "code", strategies=ODD)


@pytest.mark.parametrize(("shift", "strategies"), [(0.5, DEFAULTS), (-0.5, ALL), (0.25, ALL)])
def test_edges_on_pixel_centres(tmp_path, shift, strategies):
    grid, parts, codes = noise_polygons(tmp_path, shift)
    compare(tmp_path, grid, layer_file(tmp_path / "v.gpkg", parts, codes), "code", strategies=strategies)


def test_multipolygons_with_holes(tmp_path):
    grid, parts, codes = noise_polygons(tmp_path, 0.5)
    # A third of the areas of one class is one feature.
    members = {(code, n): [p for p, c in zip(parts, codes) if c == code][n::3] for code in range(5) for n in range(3)}
    made = [MultiPolygon(group) for group in members.values()]
    layer = layer_file(tmp_path / "v.gpkg", made, [code for code, _ in members])
    compare(tmp_path, grid, layer, "kind")


def test_features_outside_the_raster(tmp_path):
    _, parts, codes = noise_polygons(tmp_path)
    inner = grid_file(tmp_path / "inner.tif", np.ones((90, 90), "uint8"), from_origin(1403, 4598, 10, 10))
    parts, codes = [*parts, box(0, 0, 10, 10), box(9000, 0, 9500, 9000)], [*codes, 3, 9]
    counts = compare(tmp_path, inner, layer_file(tmp_path / "v.gpkg", parts, codes), "code")
    assert sum(counts.values()) < 90 * 90 < sum(part.area for part in parts) / 100


@pytest.mark.parametrize("suffix", ["gpkg", "shp"])
def test_ids_with_gaps(tmp_path, suffix):
    grid, parts, codes = noise_polygons(tmp_path)
    layer = layer_file(tmp_path / f"v.{suffix}", parts, codes)
    if suffix == "gpkg":
        with sqlite3.connect(layer) as file:
            file.execute("DELETE FROM v WHERE fid % 3 = 1")
        file.close()
    else:
        # A record of a table is marked as deleted by a star in its first byte.
        table = bytearray((tmp_path / "v.dbf").read_bytes())
        header, record = (int.from_bytes(table[at : at + 2], "little") for at in (8, 10))
        table[header : header + record * len(parts) : 3 * record] = b"*" * len(range(0, len(parts), 3))
        (tmp_path / "v.dbf").write_bytes(table)
    compare(tmp_path, grid, layer, "code")
    first = min(samples(tmp_path / "ours.gpkg", grid))[0]
    assert first == {"gpkg": 2, "shp": 1}[suffix]


@pytest.mark.parametrize(
    ("kind", "masked"),
    [
        ("lines", False), ("points", False), ("polygons", False), ("multilines", False), ("multipoints", False),
        ("lines", True), ("points", True), ("multipolygons", True),
    ],
)  # fmt: skip
def test_scattered_features(tmp_path, kind, masked):
    compare(tmp_path, *scattered(tmp_path, kind), "kind", masked)


@pytest.mark.parametrize("kind", ["polygons", "lines", "points"])
def test_features_in_another_crs(tmp_path, kind):
    grid, layer = scattered(tmp_path, kind)
    pyogrio.write_dataframe(pyogrio.read_dataframe(layer).to_crs("EPSG:4326"), tmp_path / "w.gpkg")
    # The reference counts the features of its reprojected copy from 0; ours keep their own ids.
    compare(tmp_path, grid, tmp_path / "w.gpkg", "code", first_fid=1)


def test_shares_are_rounded_alike(tmp_path):
    strategies = {
        f"percent {share}": (["-strategy.percent.p", str(share)], {"percent": share})
        for share in (0.7, 0.1, 0.003, 1.0)
    }
    compare(tmp_path, DEMO / "sen2.tif", DEMO / "train_polygons.gpkg", "class_id", strategies=strategies)


# --- several images --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three images of different size with their polygons: (grid, layer, statistics); classes differ, too."""
    folder = tmp_path_factory.mktemp("images")
    labels = noise(300, 6, 5)
    made = []
    for name, rows, cols, size, missing in (("a", 0, 0, 170, 5), ("b", 0, 180, 110, 0), ("c", 180, 40, 120, 255)):
        part = np.where(labels == missing, 255, labels)[rows : rows + size, cols : cols + size]
        part = np.ascontiguousarray(part)
        transform = from_origin(1000 + 10 * cols, 5000 - 10 * rows, 10, 10)
        grid = grid_file(folder / f"{name}.tif", part, transform)
        layer = layer_file(folder / f"{name}.gpkg", *outlines(part, transform))
        statistics = folder / f"{name}.xml"
        otb("PolygonClassStatistics", "-in", grid, "-vec", layer, "-field", "kind", "-out", statistics)
        made.append((grid, layer, statistics))
    return made


ONE = {
    "smallest": [], "all": [], "constant": ["-strategy.constant.nb", "1000"], "percent": ["-strategy.percent.p", "0.5"],
    "total": ["-strategy.total.v", "1000"], "byclass": ["-strategy.byclass.in", "{0}"],
}  # fmt: skip
EACH = {
    "smallest": [], "all": [], "constant": ["-strategy.constant.nb", "900 401 77"],
    "percent": ["-strategy.percent.p", "0.5 0.1 0.037"], "total": ["-strategy.total.v", "1000 300 77"],
    "byclass": ["-strategy.byclass.in", "{0}", "{1}", "{2}"],
}  # fmt: skip
NUMBERS = {"constant": (900, 401, 77), "percent": (0.5, 0.1, 0.037), "total": (1000, 300, 77)}


@pytest.mark.parametrize(
    ("strategy", "mode", "number"),
    [(strategy, mode, 3) for strategy in ONE for mode in ("proportional", "equal", "custom")]
    + [("constant", "proportional", 2), ("total", "custom", 2), ("byclass", "equal", 2)],
)
def test_one_budget_for_several_images(tmp_path, images, strategy, mode, number):
    custom = mode == "custom"
    wanted = []
    for place in range(3):
        wanted.append(tmp_path / f"wanted{place}.csv")
        wanted[-1].write_text("".join(f"class {code};{place + 61 * code}\n" for code in range(1, 6)))
    statistics = [str(image[2]) for image in images[:number]]
    given = [argument.format(*wanted) for argument in (EACH if custom else ONE)[strategy]]
    if custom and strategy in NUMBERS:
        given[1] = " ".join(given[1].split()[:number])
    elif custom and strategy == "byclass":
        given = given[: 1 + number]
    command = ["-il", *statistics, "-strategy", strategy, *given, "-mim", mode, "-out", tmp_path / "otb.csv"]
    otb("MultiImageSamplingRate", *command)
    job = SamplingRates(
        tuple(statistics), str(tmp_path / "ours"), strategy, mode, 1000, 0.5,
        NUMBERS.get(strategy, ())[:number] if custom else (),
        tuple(str(path) for path in wanted[: number if custom else 1]) if strategy == "byclass" else (),
    )  # fmt: skip
    run(job)
    for n in range(1, number + 1):
        assert (tmp_path / "ours" / f"rates_{n}.csv").read_text() == (tmp_path / f"otb_{n}.csv").read_text()


def test_points_of_several_images(tmp_path, images):
    statistics = tuple(str(image[2]) for image in images)
    folder = run(SamplingRates(statistics, str(tmp_path / "r"), "constant", count=500)).output_folder
    total = 0
    for n, (grid, layer, _) in enumerate(images, start=1):
        rates = f"{folder}/rates_{n}.csv"
        strategies = {"byclass": (["-strategy.byclass.in", rates], {"rates_file": rates})}
        compare(tmp_path, grid, layer, "kind", strategies=strategies)
        total += len(samples(tmp_path / "ours.gpkg", grid))
    assert 500 * 6 - 3 * 6 <= total <= 500 * 6 + 3 * 6
