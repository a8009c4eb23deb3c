"""Selecting samples from a label raster: the reference's golden values, every sampler and strategy."""

import os
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from deepscape.engine import rastersampling
from deepscape.engine.datasets import PatchDataset
from deepscape.engine.patches import extract_patches
from deepscape.engine.rastersampling import select_samples
from deepscape.engine.selection import ClassPlan, plan_raster
from deepscape.tasks.classtable import Legend
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Extent, ExtractPatches, RasterSource, SelectSamples, VectorSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

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
            patch.setattr(rastersampling, "_STRIP_PIXELS", pixels)
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
    assert "CLASSES lists 9" in text and "one class only (1)" in text
    assert sorted(os.listdir(tmp_path)) == ["l.tif", "p.gpkg"]


# --- keeping a distance, and the report ------------------------------------------------------------------------------


def nearest(places):
    rows, cols = (np.array(part) for part in zip(*places))
    apart = np.maximum(np.abs(rows[:, None] - rows), np.abs(cols[:, None] - cols))
    np.fill_diagonal(apart, 10**6)
    return apart.min()


@pytest.mark.parametrize("sampler", ["spread", "random", "periodic"])
def test_samples_of_all_classes_keep_the_distance(tmp_path, sampler):
    labels = np.random.default_rng(3).choice([1, 2, 9], (60, 70), p=[0.02, 0.2, 0.78]).astype("uint8")
    source = label_raster(tmp_path / "l.tif", labels)
    outcomes = []
    for pixels in (300, 4_000_000):
        context = Context()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rastersampling, "_STRIP_PIXELS", pixels)
            job = SelectSamples(source, str(tmp_path / "p.gpkg"), count=30, sampler=sampler, min_distance=4)
            result = select_samples(job, context)
        table = pyogrio.read_dataframe(result.output)
        places = pixels_of(result.output)
        assert places == sorted(places) and nearest(places) >= 4
        assert [labels[place] for place in places] == table["class_id"].tolist()
        for value in (1, 2, 9):
            number = np.count_nonzero(table["class_id"] == value)
            weights = table.loc[table["class_id"] == value, "weight"]
            np.testing.assert_allclose(weights, np.count_nonzero(labels == value) / number)
            assert number == result.counts[str(value)]
            told = f"Class {value} (Class {value}) gives {number} of 30 samples" in " ".join(context.warnings)
            assert told == (number < 30)
        outcomes.append(places)
    assert outcomes[0] == outcomes[1]
    if sampler == "periodic":
        plain = select_samples(SelectSamples(source, str(tmp_path / "q.gpkg"), count=30, sampler=sampler), Context())
        assert set(places) < set(pixels_of(plain.output))
    else:
        # Others took the place of those that were too near.
        assert result.counts["2"] == result.counts["9"] == 30


def test_all_pixels_at_a_distance_leave_no_room_for_another(tmp_path):
    labels = np.ones((31, 40), "uint8")
    labels[:, 20:] = 2
    job = SelectSamples(
        label_raster(tmp_path / "l.tif", labels), str(tmp_path / "p.gpkg"), strategy="all", min_distance=3
    )
    places = pixels_of(select_samples(job, Context()).output)
    assert nearest(places) == 3
    rows, cols = (np.array(part) for part in zip(*places))
    for row, col in np.ndindex(labels.shape):
        assert np.maximum(np.abs(rows - row), np.abs(cols - col)).min() < 3


def test_the_report_shows_classes_before_and_after(tmp_path):
    labels = np.ones((60, 100), "uint8")
    labels[0, :40] = 2
    job = SelectSamples(
        label_raster(tmp_path / "l.tif", labels), str(tmp_path / "p.gpkg"), count=50, report=str(tmp_path / "r")
    )
    context, told = Context(), []
    context.log = told.append
    result = select_samples(job, context)
    # What the strategy upto promises is no warning.
    assert not context.warnings and "Class 2 has 40 pixels, fewer than the 50 asked for: all are taken." in told
    assert result.report == str(tmp_path / "r.html")
    page = Path(result.report).read_text()
    for text in (
        "<svg",
        "5\u202f960 labelled pixels",
        "50 samples",
        "40 samples",
        "119.2",
        "99.3 %",
        "55.6 %",
        "1 : 149",
    ):
        assert text in page, text
    assert "logarithmic" in page


# --- every part of a class, with real labels -------------------------------------------------------------------------


def test_default_samplers_reach_the_first_and_last_rows_of_every_class(tokyo, tmp_path):
    path = tokyo / "terrain_truth_epsg32654_A.tif"
    with rasterio.open(path) as dataset:
        labels = dataset.read(1)
    count = 500
    for sampler in ("spread", "random"):
        job = SelectSamples(RasterSource(str(path)), str(tmp_path / "p.gpkg"), count=count, sampler=sampler)
        table = pyogrio.read_dataframe(select_samples(job, Context()).output)
        for value, available in A_COUNTS.items():
            points = table.geometry[table["class_id"] == value]
            rows = ((4000020 - points.y) // 10).astype(int)
            cols = ((points.x - 300000) // 10).astype(int)
            # So many pixels of the class lie before its first and after its last sample. The n-th part of a class is
            # what one sample stands for; a draw at random misses ten of them once in 20,000 cases.
            per_row = np.count_nonzero(labels == value, axis=1)
            before = per_row[: rows.iloc[0]].sum() + np.count_nonzero(labels[rows.iloc[0], : cols.iloc[0]] == value)
            behind = per_row[rows.iloc[-1] + 1 :].sum()
            behind += np.count_nonzero(labels[rows.iloc[-1], cols.iloc[-1] + 1 :] == value)
            assert max(before, behind) <= available / count * (0.5 if sampler == "spread" else 10)


def test_the_share_that_periodic_cannot_reach_is_counted(tokyo, tmp_path):
    path = tokyo / "terrain_truth_epsg32654_A.tif"
    context = Context()
    job = SelectSamples(
        RasterSource(str(path)), str(tmp_path / "p.gpkg"), count=60_000, sampler="periodic", classes=(2, 5)
    )
    table = pyogrio.read_dataframe(select_samples(job, context).output)
    with rasterio.open(path) as dataset:
        labels = dataset.read(1)
    told = []
    for value in (2, 5):
        last = table.geometry[table["class_id"] == value].iloc[-1]
        row, col = int((4000020 - last.y) // 10), int((last.x - 300000) // 10)
        behind = np.count_nonzero(labels[row + 1 :] == value) + np.count_nonzero(labels[row, col + 1 :] == value)
        share = behind / A_COUNTS[value]
        sentence = f"cannot reach the last {share:.1%} of class {value};"
        assert (sentence in " ".join(context.warnings)) == (share > 0.02)
        told.append(sentence in " ".join(context.warnings))
    assert told == [True, False]
