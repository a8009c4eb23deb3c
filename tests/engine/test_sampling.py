"""Selecting samples: the reference's golden values, every sampler and strategy, and vectors on a grid."""

import os
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from deepscape.engine import sampling
from deepscape.engine.datasets import PatchDataset
from deepscape.engine.patches import extract_patches
from deepscape.engine.rasters import Grid
from deepscape.engine.sampling import feature_pixels, select_samples, select_vector_samples
from deepscape.engine.selection import ClassPlan, periodic_by_rate, plan_raster
from deepscape.tasks.classtable import Legend
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Extent, ExtractPatches, RasterSource, SelectSamples, SelectVectorSamples, VectorSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

A_COUNTS = {0: 554459, 1: 507256, 2: 446056, 3: 1082282, 4: 13362231, 5: 2008949}
B_COUNTS = {0: 683106, 1: 482047, 2: 491479, 3: 1017309, 4: 7366210, 5: 2059158}


class Told(Context):
    """Keeps the log, in which the steps are told."""

    def __init__(self):
        super().__init__()
        self.logged = []

    def log(self, text):
        self.logged.append(text)


@pytest.fixture
def tokyo():
    folder = Path(__file__).parents[3] / "shared" / "data" / "tokyo_truth"
    if not folder.is_dir():
        pytest.skip("shared/data/tokyo_truth is not beside the checkout")
    return folder


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


# --- the reference's values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letter", "counts", "steps", "firsts"),
    [
        (
            "A", A_COUNTS, [1108, 1014, 892, 2164, 26724, 4017],
            [(127, 8430), (152, 9758), (300, 8519), (221, 7582), (227, 10354), (96, 8543)],
        ),
        (
            "B", B_COUNTS, [1366, 964, 982, 2034, 14732, 4118],
            [(123, 3905), (55, 2892), (217, 4587), (232, 7614), (169, 4436), (107, 6987)],
        ),
    ],
)  # fmt: skip
def test_tokyo_constant_500_gives_the_reference_points_and_patches(tokyo, tmp_path, letter, counts, steps, firsts):
    source = RasterSource(str(tokyo / f"terrain_truth_epsg32654_{letter}.tif"))
    context = Told()
    job = SelectSamples(
        source, str(tmp_path / "p.gpkg"), strategy="constant", count=500, sampler="periodic",
        legend=Legend(nomenclature="tokyo"),
    )  # fmt: skip
    result = select_samples(job, context)
    assert (result.sample_count, result.counts) == (3000, {str(value): 500 for value in range(6)})
    names = [entry.name for entry in result.classes]
    assert context.logged == [
        f"Class {value} ({name}): {counts[value]} pixels, 500 samples, step {step}."
        for value, (name, step) in enumerate(zip(names, steps))
    ]
    table = pyogrio.read_dataframe(result.output)
    found = table.groupby("class_id").first()
    assert [(int((4000020 - p.y) // 10), int((p.x - 300000) // 10)) for p in found.geometry] == firsts
    if letter == "A":
        assert (found.geometry[0].x, found.geometry[0].y) == (384305, 3998745)
    np.testing.assert_allclose(found["weight"], [counts[value] / 500 for value in range(6)])

    # As an image the labels have no no-data: 255 is a value like any other.
    image = RasterSource(source.path, nodata=-1)
    extracted = extract_patches(
        ExtractPatches(image, VectorSource(result.output), "class_id", str(tmp_path / "d"), patch_size=16), Context()
    )
    assert (extracted.accepted, extracted.rejected) == (3000, 0)
    dataset = PatchDataset(extracted.output)
    assert dataset.labels.tolist() == table["class_id"].tolist()
    with rasterio.open(source.path) as raster:
        labels = raster.read(1)
    for patch, row, col in zip(dataset.patches(), dataset.rows, dataset.cols):
        assert patch.tobytes() == labels[row - 8 : row + 8, col - 8 : col + 8].tobytes()


def test_steps_and_targets_of_the_other_strategies():
    def plan(counts, strategy, count):
        plans = plan_raster(counts, strategy, count, "periodic", 0, Context())
        return [p.step for p in plans.values()], [p.wanted for p in plans.values()]

    assert plan(A_COUNTS, "constant", 1000) == ([554, 507, 446, 1082, 13362, 2008], [1000] * 6)
    assert plan(A_COUNTS, "total", 1000) == ([17961] * 6, [30, 28, 24, 60, 743, 111])
    assert plan(A_COUNTS, "smallest", 1) == ([1, 1, 1, 2, 29, 4], [446056] * 6)
    assert plan(A_COUNTS, "all", 1) == ([1] * 6, list(A_COUNTS.values()))
    assert plan({1: 3, 2: 10}, "upto", 5) == ([1, 2], [3, 5])
    assert plan({1: 3, 2: 10}, "constant", 5) == ([1, 3], [3, 3])
    assert plan({1: 3, 2: 10}, "total", 100) == ([1, 1], [3, 10])


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


# --- samplers --------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 5000).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
    st.sampled_from(["spread", "random", "periodic"]),
    st.lists(st.integers(0, 5000), max_size=6),
)
def test_a_plan_gives_its_ordinals_whatever_the_blocks(numbers, sampler, cuts):
    available, wanted = numbers
    plan = plan_raster({7: available}, "upto", wanted, sampler, 3, Context())[7]
    whole = plan.between(0, available)
    assert len(whole) == wanted
    assert np.all(np.diff(whole) > 0) and whole[0] >= 0 and whole[-1] < available
    borders = [0, *sorted(min(cut, available) for cut in cuts), available]
    parts = [plan.between(start, stop) for start, stop in zip(borders, borders[1:])]
    assert np.concatenate(parts).tolist() == whole.tolist()
    if sampler == "spread":
        assert whole.tolist() == [(2 * k + 1) * available // (2 * wanted) for k in range(wanted)]
        share = available / wanted
        assert whole[0] <= share / 2 and whole[-1] >= available - share / 2 - 1


def test_a_plan_of_a_class_beyond_64_bit_products():
    plan = ClassPlan(10**10, 10**9, 10, "spread")
    assert plan.between(10**10 - 25, 10**10).tolist() == [10**10 - 25, 10**10 - 15, 10**10 - 5]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), sampler=st.sampled_from(["spread", "random", "periodic"]), strip=st.integers(1, 400))
def test_points_do_not_depend_on_the_block_size_and_lie_on_their_class(tmp_path, seed, sampler, strip):
    labels = (
        np.random.default_rng(seed).choice([-5, 0, 255, 300], size=(23, 17), p=[0.1, 0.5, 0.3, 0.1]).astype("int16")
    )
    source = label_raster(tmp_path / "l.tif", labels, nodata=0)
    outcomes = []
    for pixels in (strip, 4_000_000):
        job = SelectSamples(source, str(tmp_path / "p.gpkg"), count=20, sampler=sampler, seed=seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampling, "_STRIP_PIXELS", pixels)
            result = select_samples(job, Context())
        table = pyogrio.read_dataframe(result.output)
        places = pixels_of(result.output)
        assert [labels[place] for place in places] == table["class_id"].tolist()
        assert places == sorted(places) and len(set(places)) == result.sample_count
        for value in (-5, 255, 300):
            available = np.count_nonzero(labels == value)
            assert result.counts[str(value)] == min(20, available) == np.count_nonzero(table["class_id"] == value)
            np.testing.assert_allclose(table.loc[table["class_id"] == value, "weight"], available / min(20, available))
        outcomes.append(places)
    assert outcomes[0] == outcomes[1]


def test_many_classes_take_the_sorting_way_with_the_same_result(tmp_path):
    labels = np.random.default_rng(1).integers(0, 100, (50, 60)).astype("int32")
    result = select_samples(
        SelectSamples(label_raster(tmp_path / "l.tif", labels), str(tmp_path / "p.gpkg"), count=3), Context()
    )
    assert result.sample_count == 300
    chosen = set(pixels_of(result.output))
    for value in range(100):
        places = np.argwhere(labels == value)
        kept = [tuple(places[(2 * k + 1) * len(places) // 6]) for k in range(3)]
        assert set(kept) <= chosen


def test_random_is_repeatable_by_seed(tmp_path):
    labels = np.repeat(np.array([[1, 2]], "uint8"), 500, axis=0)
    source = label_raster(tmp_path / "l.tif", labels)

    def draw(seed):
        job = SelectSamples(source, str(tmp_path / "p.gpkg"), count=9, sampler="random", seed=seed)
        return pixels_of(select_samples(job, Context()).output)

    assert draw(4) == draw(4) != draw(5)


def test_periodic_names_what_it_cannot_reach(tmp_path):
    labels = np.ones((10, 19), "uint8")
    labels[0] = 2
    context = Context()
    job = SelectSamples(
        label_raster(tmp_path / "l.tif", labels), str(tmp_path / "p.gpkg"), count=100, sampler="periodic"
    )
    select_samples(job, context)
    assert "last 41.5% of class 1" in " ".join(context.warnings)


# --- what is left out, and bad input ---------------------------------------------------------------------------------


def test_pad_extent_classes_and_no_data_override(tmp_path):
    labels = np.arange(36).reshape(6, 6).astype("uint8")
    source = label_raster(tmp_path / "l.tif", labels, nodata=14)

    def values(**fields):
        job = SelectSamples(source, str(tmp_path / "p.gpkg"), strategy="all", **fields)
        return pyogrio.read_dataframe(select_samples(job, Context()).output)["class_id"].tolist()

    assert values(pad=2) == [15, 20, 21]
    extent = Extent(1001, 1941, 1019, 1959)  # rows 4-5, columns 0-1
    assert values(extent=extent) == [24, 25, 30, 31]
    assert values(extent=extent, pad=1) == [25]
    assert values(classes=(3, 35)) == [3, 35]
    source = RasterSource(source.path, nodata=0)
    assert values(pad=2) == [14, 15, 20, 21]


def test_bands_and_integral_floats(tmp_path):
    source = label_raster(tmp_path / "l.tif", np.array([[1.0, np.nan, 3.0]], "float32"))
    result = select_samples(SelectSamples(source, str(tmp_path / "ünï p"), strategy="all"), Context())
    assert result.output.endswith("ünï p.gpkg")
    assert result.counts == {"1": 1, "3": 1}
    source = label_raster(tmp_path / "l.tif", np.array([[1.0, 2.5]], "float32"))
    with pytest.raises(BadInput, match=r"2\.5, which is no class"):
        select_samples(SelectSamples(source, str(tmp_path / "q.gpkg")), Context())
    with pytest.raises(BadInput, match="has no band 2: it has 1"):
        select_samples(SelectSamples(source, str(tmp_path / "q.gpkg"), band=2), Context())
    assert sorted(os.listdir(tmp_path)) == ["l.tif", "ünï p.gpkg"]


def test_bad_label_rasters_are_refused(tmp_path):
    source = label_raster(tmp_path / "l.tif", np.zeros((4, 4), "uint8"), nodata=0)
    output = str(tmp_path / "p.gpkg")
    with pytest.raises(BadInput, match=r"no labelled pixel in 'l\.tif'"):
        select_samples(SelectSamples(source, output), Context())
    with pytest.raises(BadInput, match="PAD 2 leaves nothing"):
        select_samples(SelectSamples(source, output, pad=2), Context())
    source = label_raster(tmp_path / "l.tif", np.array([[1, 1, 2]], "uint8"))
    with pytest.raises(BadInput, match=r"CLASSES \(7\) occurs.*1, 2"):
        select_samples(SelectSamples(source, output, classes=(7,)), Context())
    with pytest.raises(BadInput, match="does not exist"):
        select_samples(SelectSamples(source, str(tmp_path / "no" / "p.gpkg")), Context())
    with pytest.raises(BadInput, match="not a GeoPackage"):
        select_samples(SelectSamples(source, str(tmp_path / "p.shp")), Context())
    context = Context()
    select_samples(SelectSamples(source, output, classes=(1, 9)), context)
    text = " ".join(context.warnings)
    assert "CLASSES lists 9" in text and "one class only (1)" in text and "Class 1 has 2 pixels, fewer than" in text
    assert sorted(os.listdir(tmp_path)) == ["l.tif", "p.gpkg"]


# --- vectors ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def grid(tmp_path):
    return label_raster(tmp_path / "grid.tif", np.zeros((20, 20), "uint8"))


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
        patch.setattr(sampling, "_STRIP_PIXELS", strip)
        in_strips = feature_pixels(polygon, grid)
    whole = feature_pixels(polygon, grid)
    assert (in_strips is None) == (whole is None)
    if whole is not None:
        assert in_strips.tolist() == whole.tolist()
        x, y = grid.centres_of(*np.divmod(np.arange(1600), 40))
        assert set(whole) == {i for i in range(1600) if polygon.contains(Point(x[i], y[i]))}


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
    context = Context()
    job = SelectVectorSamples(source, "code", grid, str(tmp_path / "p.gpkg"), mask=masked, strategy="all")
    result = select_vector_samples(job, context)
    assert pixels_of(result.output) == [(0, 1), (0, 2), (0, 3), (0, 5)]
    assert pyogrio.read_dataframe(result.output)["originfid"].tolist() == [1, 1, 2, 3]
    text = " ".join(context.warnings)
    assert "1 of 5 features" in text and "no pixel centre and give no sample: id 4" in text
    assert "1 pixels are claimed by features of two classes" in text
    small = label_raster(tmp_path / "s.tif", mask[:5])
    with pytest.raises(BadInput, match=r"mask 's.tif' \(20 x 5\)"):
        select_vector_samples(
            SelectVectorSamples(source, "code", grid, str(tmp_path / "p.gpkg"), mask=small), Context()
        )


@pytest.mark.parametrize("sampler", ["spread", "random", "periodic"])
@pytest.mark.parametrize(
    ("strategy", "expected"), [("upto", [4, 50]), ("constant", [4, 50]), ("smallest", [4, 4]), ("all", [4, 100])]
)
def test_strategies_of_vectors(tmp_path, grid, strategy, expected, sampler):
    source = vector(tmp_path / "v.gpkg", [box(1000, 1900, 1100, 2000), box(1100, 1980, 1120, 2000)], code=[7, 0])
    context = Context()
    job = SelectVectorSamples(
        source, "code", grid, str(tmp_path / "p.gpkg"), strategy=strategy, count=50, sampler=sampler
    )
    result = select_vector_samples(job, context)
    assert result.counts == {"0": expected[0], "7": expected[1]}
    clamps = [text for text in context.warnings if "Class 0 has 4 pixels, fewer than the 50 asked for" in text]
    assert len(clamps) == (strategy in ("upto", "constant"))


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
