"""Selecting samples from polygons, lines and points on a raster's grid."""

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from deepscape.engine.datasets import PatchDataset
from deepscape.engine.patches import extract_patches
from deepscape.engine.selection import periodic_by_rate
from deepscape.engine.vectorsampling import select_vector_samples
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import ExtractPatches, RasterSource, SelectVectorSamples, VectorSource
from rasterio.transform import from_origin
from shapely.geometry import Polygon, box

from .listening import Log


def label_raster(path, labels, nodata=None, crs="EPSG:32654"):
    with rasterio.open(
        path, "w", driver="GTiff", width=labels.shape[1], height=labels.shape[0], count=1, dtype=labels.dtype,
        nodata=nodata, crs=crs, transform=from_origin(1000, 2000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(labels, 1)
    return RasterSource(str(path))


def vector(path, geometries, crs="EPSG:32654", **fields):
    pyogrio.write_dataframe(geopandas.GeoDataFrame(fields, geometry=geometries, crs=crs), path)
    return VectorSource(str(path))


def pixels_of(path):
    """Return (row, col) of the points of an output on the test grid."""
    points = pyogrio.read_dataframe(path).geometry
    return list(zip(((2000 - points.y) / 10 - 0.5).astype(int), ((points.x - 1000) / 10 - 0.5).astype(int)))


@pytest.fixture
def grid(tmp_path):
    return label_raster(tmp_path / "grid.tif", np.zeros((20, 20), "uint8"))


def test_output_keeps_the_fields_is_ordered_by_class_and_tells_the_polygon(tmp_path, grid):
    source = vector(
        tmp_path / "v.gpkg", [box(1000, 1980, 1020, 2000), box(1100, 1990, 1120, 2000), box(1000, 1800, 1010, 1810)],
        code=[5, 2, 5], Class_Name=["wood", "lake", "wood"], owner=["a", None, "c"], OriginFID=[9, 9, 9],
    )  # fmt: skip
    job = SelectVectorSamples(source, "code", grid, str(tmp_path / "p.gpkg"), strategy="all")
    result = select_vector_samples(job, Context())
    table = pyogrio.read_dataframe(result.output)
    assert list(table.columns) == ["code", "owner", "class_id", "class_name", "originfid", "geometry"]
    assert table["class_id"].tolist() == [2, 2, 5, 5, 5, 5, 5]
    assert table["class_name"].tolist() == ["lake"] * 2 + ["wood"] * 5
    assert table["originfid"].tolist() == [2, 2, 1, 1, 1, 1, 3]
    assert pixels_of(result.output) == [(0, 10), (0, 11), (0, 0), (0, 1), (1, 0), (1, 1), (19, 0)]
    assert table["owner"].isna().tolist() == [True] * 2 + [False] * 5
    assert result.counts == {"2": 2, "5": 5}
    assert [(entry.value, entry.name) for entry in result.classes] == [(2, "lake"), (5, "wood")]


def test_a_text_field_another_crs_and_an_invalid_geometry_work(tmp_path, grid):
    bow_tie = Polygon([(1000, 2000), (1040, 1960), (1040, 2000), (1000, 1960)])
    frame = geopandas.GeoDataFrame(
        {"crop": ["é b", "a", None]}, geometry=[bow_tie, box(1100, 1900, 1120, 1920), bow_tie]
    )
    frame = frame.set_crs("EPSG:32654").to_crs("EPSG:4326")
    pyogrio.write_dataframe(frame, tmp_path / "v.gpkg")
    context = Context()
    job = SelectVectorSamples(
        VectorSource(str(tmp_path / "v.gpkg")), "crop", grid, str(tmp_path / "p.gpkg"), strategy="all"
    )
    result = select_vector_samples(job, context)
    assert [(entry.value, entry.name) for entry in result.classes] == [(1, "a"), (2, "é b")]
    assert result.counts["1"] == 4 and result.counts["2"] in range(6, 9)
    text = " ".join(context.warnings)
    assert "2 features of 'v.gpkg' have an invalid geometry" in text and "1 features of 'v.gpkg' have no class" in text


def test_mask_overlaps_and_polygons_without_pixels(tmp_path, grid):
    mask = np.ones((20, 20), "uint8")
    mask[0, 0] = 0
    masked = label_raster(tmp_path / "m.tif", mask)
    source = vector(
        tmp_path / "v.gpkg",
        [
            box(1000, 1990, 1030, 2000), box(1010, 1990, 1050, 2000),  # one class twice on columns 1 and 2
            box(1040, 1990, 1060, 2000),  # another class on column 4
            box(1001, 1801, 1002, 1802), box(0, 0, 10, 10),
        ],
        code=[1, 1, 2, 2, 2],
    )  # fmt: skip
    context = Log()
    job = SelectVectorSamples(source, "code", grid, str(tmp_path / "p.gpkg"), mask=masked, strategy="all")
    result = select_vector_samples(job, context)
    assert pixels_of(result.output) == [(0, 1), (0, 2), (0, 3), (0, 5)]
    assert pyogrio.read_dataframe(result.output)["originfid"].tolist() == [1, 1, 2, 3]
    text = " ".join(context.warnings)
    assert "1 of 5 features of 'v.gpkg' lie outside the raster: 1 of 3 of class 2 'Class 2'." in context.lines
    assert "no pixel centre and give no sample: id 4" in text
    assert "1 pixels are claimed by features of two classes" in text
    small = label_raster(tmp_path / "s.tif", mask[:5])
    with pytest.raises(BadInput, match=r"mask 's\.tif' does not .*: its size in pixels is 20 x 5, not"):
        select_vector_samples(
            SelectVectorSamples(source, "code", grid, str(tmp_path / "p.gpkg"), mask=small), Context()
        )


def test_samples_where_the_image_has_no_data_are_told_by_class_and_stay(tmp_path):
    values = np.full((20, 20), 7, "uint8")
    whole = label_raster(tmp_path / "whole.tif", values)
    values[:, :2] = 0
    source = vector(
        tmp_path / "v.gpkg", [box(1000, 1900, 1100, 2000), box(1100, 1900, 1200, 2000)], code=[5, 2], name=["lake", "b"]
    )
    points = {}
    for name, raster in (("whole", whole), ("cut", label_raster(tmp_path / "cut.tif", values, nodata=0))):
        context = Context()
        job = SelectVectorSamples(source, "code", raster, str(tmp_path / f"{name}.gpkg"), strategy="all")
        points[name] = pixels_of(select_vector_samples(job, context).output)
        sentences = [text for text in context.warnings if "no data" in text]
        if name == "whole":
            assert sentences == []
        else:
            assert sentences[0].startswith(
                "20 of 200 samples lie where 'cut.tif' has no data: 20 of 100 of class 5 'lake'. 'Extract patches' "
                "leaves them out: give a MASK"
            )
    assert points["cut"] == points["whole"]
    # What is told is what the next step does.
    patches = ExtractPatches(
        RasterSource(str(tmp_path / "cut.tif")), VectorSource(str(tmp_path / "cut.gpkg")), "class_id",
        str(tmp_path / "patches"), patch_size=1,
    )  # fmt: skip
    assert extract_patches(patches, Context()).rejected == 20
    # And the remedy is one.
    context = Context()
    cut = RasterSource(str(tmp_path / "cut.tif"))
    select_vector_samples(SelectVectorSamples(source, "code", cut, str(tmp_path / "m.gpkg"), mask=cut), context)
    assert not any("no data" in text for text in context.warnings)


def test_a_damaged_image_is_sampled_all_the_same(tmp_path):
    path = tmp_path / "damaged.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=64, height=32, count=1, dtype="float32", crs="EPSG:32654", tiled=True,
        blockxsize=32, blockysize=32, compress="deflate", transform=from_origin(1000, 2000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(np.random.default_rng(0).random((1, 32, 64), "float32"))
    with rasterio.open(path) as dataset:
        place = int(dataset.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(b"\0" * 300)
    source = vector(tmp_path / "v.gpkg", [box(1000, 1680, 1640, 2000)], code=[1])
    context = Context()
    job = SelectVectorSamples(source, "code", RasterSource(str(path)), str(tmp_path / "p.gpkg"), strategy="all")
    assert select_vector_samples(job, context).counts == {"1": 2048}
    assert "1024 of 2048 samples lie where 'damaged.tif' has no data" in " ".join(context.warnings)


@pytest.mark.parametrize("sampler", ["spread", "random", "periodic"])
@pytest.mark.parametrize(
    ("strategy", "expected"), [("upto", [4, 50]), ("constant", [4, 50]), ("smallest", [4, 4]), ("all", [4, 100])]
)
def test_strategies_of_vectors(tmp_path, grid, strategy, expected, sampler):
    source = vector(tmp_path / "v.gpkg", [box(1000, 1900, 1100, 2000), box(1100, 1980, 1120, 2000)], code=[7, 0])
    context, told = Context(), []
    context.log = told.append
    job = SelectVectorSamples(
        source, "code", grid, str(tmp_path / "p.gpkg"), strategy=strategy, count=50, sampler=sampler
    )
    result = select_vector_samples(job, context)
    assert result.counts == {"0": expected[0], "7": expected[1]}
    clamps = [text for text in context.warnings if "Class 0 has 4 pixels, fewer than the 50 asked for" in text]
    assert len(clamps) == (strategy == "constant")
    promised = "Class 0 (Class 0): 4 pixels, 4 samples (all: fewer than COUNT 50)."
    assert (promised in told) == (strategy == "upto")


def test_bad_vectors_are_refused_with_a_sentence_and_nothing_is_left(tmp_path, grid):
    def refused(source, field="code", **fields):
        with pytest.raises(BadInput) as caught:
            select_vector_samples(
                SelectVectorSamples(source, field, grid, str(tmp_path / "p.gpkg"), **fields), Context()
            )
        return str(caught.value)

    here = [box(1000, 1900, 1100, 2000)]
    empty = geopandas.GeoDataFrame({"code": np.array([], int)}, geometry=geopandas.GeoSeries([], crs="EPSG:32654"))
    pyogrio.write_dataframe(empty, tmp_path / "e.gpkg", geometry_type="Polygon")
    assert "'e.gpkg' is empty" in refused(VectorSource(str(tmp_path / "e.gpkg")))
    source = vector(tmp_path / "v.gpkg", here, code=[1])
    assert "no field 'klass'. Its fields are: code" in refused(source, "klass")
    assert "does not exist" in refused(VectorSource(str(tmp_path / "x.gpkg")))
    assert "is empty (NULL) in every feature" in refused(vector(tmp_path / "n.gpkg", here, code=[None], b=[1]))
    assert "1.5, which is no class" in refused(vector(tmp_path / "f.gpkg", here, code=[1.5]))
    far = vector(tmp_path / "w.gpkg", [box(10, 50, 11, 51)], crs="EPSG:4326", code=[1])
    text = refused(far)
    assert "(extent 10, 50, 11, 51, EPSG:4326)" in text and "(extent 1000, 1800, 1200, 2000, EPSG:32654)" in text
    assert "claimed by features of two classes" in refused(vector(tmp_path / "d.gpkg", here * 2, code=[1, 2]))
    assert not (tmp_path / "p.gpkg").exists() and not list(tmp_path.glob(".p.*"))


def test_without_crs_the_other_one_is_assumed_and_said(tmp_path, grid):
    source = vector(tmp_path / "v.gpkg", [box(1000, 1900, 1100, 2000)], crs=None, code=[1])
    context = Context()
    result = select_vector_samples(SelectVectorSamples(source, "code", grid, str(tmp_path / "p.gpkg")), context)
    assert result.sample_count == 100
    assert pyogrio.read_info(result.output)["crs"] == "EPSG:32654"
    text = " ".join(context.warnings)
    assert "'v.gpkg' has no CRS; it is assumed to be that of 'grid.tif', EPSG:32654" in text
    assert "one class only (1)" in text
    bare = label_raster(tmp_path / "b.tif", np.zeros((20, 20), "uint8"), crs=None)
    context = Context()
    select_vector_samples(SelectVectorSamples(source, "code", bare, str(tmp_path / "p.gpkg")), context)
    assert "Neither 'v.gpkg' nor 'b.tif' has a CRS" in " ".join(context.warnings)


def test_an_input_field_named_fid_or_geom_does_not_collide(tmp_path, grid):
    frame = geopandas.GeoDataFrame({"code": [1], "geom": ["x"]}, geometry=[box(1000, 1990, 1020, 2000)], crs=32654)
    frame["fid"] = [77]
    pyogrio.write_dataframe(frame, tmp_path / "v.geojson")
    job = SelectVectorSamples(VectorSource(str(tmp_path / "v.geojson")), "code", grid, str(tmp_path / "p.gpkg"))
    table = pyogrio.read_dataframe(select_vector_samples(job, Context()).output)
    assert table["fid"].tolist() == [77, 77] and table["geom"].tolist() == ["x", "x"]


def test_patches_of_the_chosen_points_of_a_dataset_keep_the_polygon(tmp_path, grid):
    source = vector(tmp_path / "v.gpkg", [box(1000, 1900, 1100, 2000), box(1100, 1980, 1120, 2000)], code=[7, 0])
    points = select_vector_samples(
        SelectVectorSamples(source, "code", grid, str(tmp_path / "p.gpkg"), strategy="all"), Context()
    )
    job = ExtractPatches(grid, VectorSource(points.output), "class_id", str(tmp_path / "d"), patch_size=1)
    dataset = PatchDataset(extract_patches(job, Context()).output)
    assert dataset.groups.tolist() == [2] * 4 + [1] * 100


def test_periodic_sampler_of_vectors_keeps_the_reference_rounding():
    def by_the_book(available, wanted):
        rate, kept, found = wanted / available, 0, []
        for i in range(1, available + 1):
            if np.ceil(i * rate - kept) > 0:
                kept += 1
                found.append(i - 1)
        return found

    assert len(periodic_by_rate(3711, 500)) == 501
    for available in (1, 2, 7, 100, 3711, 4096):
        for wanted in {1, 2, 3, available // 3 + 1, available - 1, available} - {0}:
            if wanted <= available:
                assert periodic_by_rate(available, wanted).tolist() == by_the_book(available, wanted)


# --- erosion, keeping a distance, the report -------------------------------------------------------------------------


def test_eroded_polygons_give_their_inner_pixels(tmp_path, grid):
    source = vector(tmp_path / "v.gpkg", [box(1000, 1900, 1100, 2000), box(1100, 1980, 1120, 2000)], code=[7, 0])
    context = Context()
    job = SelectVectorSamples(source, "code", grid, str(tmp_path / "p.gpkg"), strategy="all", erode_polygons=2)
    result = select_vector_samples(job, context)
    assert result.counts == {"7": 36}
    assert pixels_of(result.output) == [(row, col) for row in range(2, 8) for col in range(2, 8)]
    text = " ".join(context.warnings)
    assert "ERODE_POLYGONS 2 leaves nothing of 1 polygons of 'v.gpkg': id 2." in text
    assert "No pixel is left of class 0" in text
    job = SelectVectorSamples(source, "code", grid, str(tmp_path / "q.gpkg"), erode_polygons=9)
    with pytest.raises(BadInput, match=r"ERODE_POLYGONS 9 leaves no pixel of any polygon of 'v\.gpkg'"):
        select_vector_samples(job, Context())
    with pytest.raises(BadInput, match="ERODE_POLYGONS"):
        SelectVectorSamples(source, "code", grid, "p.gpkg", erode_polygons=-1)
    with pytest.raises(BadInput, match="MIN_DISTANCE"):
        SelectVectorSamples(source, "code", grid, "p.gpkg", min_distance=0)


@pytest.mark.parametrize("sampler", ["spread", "random", "periodic"])
def test_samples_of_polygons_keep_the_distance(tmp_path, grid, sampler):
    source = vector(tmp_path / "v.gpkg", [box(1000, 1900, 1200, 2000), box(1000, 1800, 1200, 1900)], code=[7, 0])
    context = Context()
    job = SelectVectorSamples(
        source, "code", grid, str(tmp_path / "p.gpkg"), count=12, sampler=sampler, min_distance=3,
        report=str(tmp_path / "r.html"),
    )  # fmt: skip
    result = select_vector_samples(job, context)
    rows, cols = (np.array(part) for part in zip(*pixels_of(result.output)))
    apart = np.maximum(np.abs(rows[:, None] - rows), np.abs(cols[:, None] - cols))
    np.fill_diagonal(apart, 99)
    assert apart.min() >= 3
    ids = pyogrio.read_dataframe(result.output)["class_id"].tolist()
    assert ids == sorted(ids) and {str(value): ids.count(value) for value in (0, 7)} == result.counts
    if sampler != "periodic":
        assert result.counts == {"0": 12, "7": 12} and not context.warnings
    page = (tmp_path / "r.html").read_text()
    assert result.report == str(tmp_path / "r.html")
    assert "200 labelled pixels" in page and "<th>Features</th>" in page and "Least distance" in page
    again = select_vector_samples(job, Context())
    assert pixels_of(again.output) == list(zip(rows, cols))
