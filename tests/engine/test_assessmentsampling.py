"""Blind probability samples: the published example, allocation within limits, exact counts, and what points tell."""

import csv

import numpy as np
import pyogrio
import pytest
import rasterio
from deepscape.engine import rastersampling
from deepscape.engine.assessmentsampling import allocate, assessment_sample, sample_size
from deepscape.tasks.classtable import ClassEntry, Legend
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import AssessmentSample, RasterSource, job_from_plain, job_to_plain
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin


def write(path, labels, nodata=None, crs="EPSG:32654"):
    with rasterio.open(
        path, "w", driver="GTiff", width=labels.shape[1], height=labels.shape[0], count=1, dtype=labels.dtype,
        nodata=nodata, crs=crs, transform=from_origin(1000, 2000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(labels, 1)
    return RasterSource(str(path))


@pytest.fixture
def labels():
    return np.random.default_rng(3).choice([2, 5, 9, 255], (300, 200), p=[0.7, 0.25, 0.01, 0.04]).astype("uint8")


def run(tmp_path, source, name="points.gpkg", context=None, **arguments):
    result = assessment_sample(AssessmentSample(source, str(tmp_path / name), **arguments), context or Context())
    return pyogrio.read_dataframe(result.output), result


def classes_at(frame, labels):
    cols, rows = (frame.geometry.x - 1000) / 10, (2000 - frame.geometry.y) / 10
    assert np.all(cols % 1 == 0.5) and np.all(rows % 1 == 0.5)
    return labels[rows.astype(int), cols.astype(int)]


def test_the_example_of_olofsson_et_al_2014():
    # Section 5.1: change strata of 2 % and 1.5 %, stable forest 32 %, stable non-forest 64.5 %; 641 points.
    shares, accuracies = np.array([0.02, 0.015, 0.32, 0.645]), np.array([0.7, 0.6, 0.9, 0.95])
    deviations = np.sqrt(accuracies * (1 - accuracies))
    assert sample_size(shares, deviations, 0.01, 10**12) == 641
    pixels = (shares * 10**7).astype(np.int64)
    # In proportion, the same for all, and 75 for each rare class with the rest in proportion to the others.
    assert allocate(641, shares, np.full(4, 2), pixels).tolist() == [13, 10, 205, 413]
    assert allocate(641, np.ones(4), np.full(4, 2), pixels).tolist() == [161, 160, 160, 160]
    assert allocate(641, shares, np.full(4, 75), pixels).tolist() == [75, 75, 163, 328]


def test_one_accuracy_for_all_gives_the_textbook_size():
    shares = np.array([0.5, 0.3, 0.2])
    deviations = np.full(3, 0.4)
    assert sample_size(shares, deviations, 0.01, 10**12) == 1600
    # With a finite population: 1600 / (1 + 1600 / 10000), rounded up.
    assert sample_size(shares, deviations, 0.01, 10_000) == 1380


@settings(max_examples=200, deadline=None)
@given(
    total=st.integers(1, 3000), minimum=st.integers(2, 100),
    strata=st.lists(st.tuples(st.integers(1, 2000), st.just(0.0) | st.floats(1e-9, 1)), min_size=1, max_size=8),
)  # fmt: skip
def test_allocation_keeps_its_limits_and_its_total(total, minimum, strata):
    highest = np.array([pixels for pixels, _ in strata], np.int64)
    weights = np.array([weight for _, weight in strata])
    lowest = np.minimum(minimum, highest)
    found = allocate(total, weights, lowest, highest)
    assert found.sum() == min(max(total, lowest.sum()), highest.sum())
    assert np.all(found >= lowest) and np.all(found <= highest)
    # In between, the larger weight never gets the smaller number (but for rounding).
    free = np.flatnonzero((found > lowest) & (found < highest))
    order = free[np.argsort(weights[free], kind="stable")]
    assert np.all(np.diff(found[order]) >= -1)


def test_points_are_exact_random_and_blind(tmp_path, labels):
    frame, result = run(tmp_path, write(tmp_path / "m.tif", labels, 255), total=400)
    values = classes_at(frame, labels)
    counts = {str(value): int((values == value).sum()) for value in np.unique(values)}
    pixels = {str(value): int((labels == value).sum()) for value in (2, 5, 9)}
    assert counts == result.counts and sum(counts.values()) == len(frame) == result.sample_count == 400
    assert counts["9"] == 50
    assert len(np.unique(np.stack([frame.geometry.x, frame.geometry.y]), axis=1).T) == 400
    assert list(frame.columns) == ["stratum", "weight", "reference", "geometry"]
    assert frame["reference"].isna().all() and pyogrio.read_info(result.output)["dtypes"][2] == "int32"
    for value, stratum in result.strata.items():
        mine = frame[values == int(value)]
        assert set(mine["stratum"]) == {stratum["stratum"]}
        np.testing.assert_allclose(mine["weight"], pixels[value] / counts[value])
    assert sorted(stratum["stratum"] for stratum in result.strata.values()) == [1, 2, 3]
    # The weights of all points add up to the map, which is what an estimator needs.
    assert frame["weight"].sum() == pytest.approx(sum(pixels.values()))
    # Neither the order of the points nor that of the codes tells the class.
    assert abs(np.corrcoef(np.arange(400), frame.geometry.y)[0, 1]) < 0.2
    assert np.count_nonzero(np.diff(values)) > 100


def test_the_log_names_the_strata_without_their_codes(tmp_path, labels):
    lines = []

    class Listener(Context):
        def log(self, text):
            lines.append(text)

    source = write(tmp_path / "m.tif", labels, 255)
    legend = Legend(layer_classes=(ClassEntry(5, "Forêt", "#106b00"),))
    _, result = run(tmp_path, source, context=Listener(), total=400, legend=legend)
    pixels = {value: int((labels == value).sum()) for value in (2, 5, 9)}
    assert lines[0] == (
        f"Points in each stratum: Class 2 {result.counts['2']} of {pixels[2]:,} pixels, Forêt {result.counts['5']} of "
        f"{pixels[5]:,} pixels, Class 9 {result.counts['9']} of {pixels[9]} pixels."
    )


def test_the_log_says_where_the_number_of_points_comes_from(tmp_path, labels):
    source, total = write(tmp_path / "m.tif", labels, 255), int((labels != 255).sum())

    def told(**arguments):
        lines, context = [], Context()
        context.log = lines.append
        run(tmp_path, source, context=context, **arguments)
        return next((line for line in lines if "asks for" in line), "")

    assert told() == (
        f"A standard error of 0.01 of the overall accuracy asks for {int(np.ceil(0.16 / (0.01**2 + 0.16 / total)))} "
        "points on this map, where user's accuracies of 0.8 are expected (Olofsson et al. 2014, equation 13)."
    )
    assert "of 0.02 of the" in told(target_se=0.02) and "of 0.6 to 0.8 are" in told(class_accuracies={"9": 0.6})
    assert "asks for 1 point on this map, where user's accuracies of 1 are" in told(expected_accuracy=1.0)
    # A number that was given comes from nowhere else.
    assert told(total=400) == ""


def test_codes_differ_between_maps_and_seeds(tmp_path):
    codes = set()
    for seed in range(20):
        labels = np.random.default_rng(seed).integers(0, 4, (40, 40)).astype("uint8")
        _, result = run(tmp_path, write(tmp_path / "m.tif", labels), total=200)
        codes.add(tuple(stratum["stratum"] for stratum in result.strata.values()))
    assert len(codes) > 8


def test_the_result_depends_on_the_seed_alone(tmp_path, labels, monkeypatch):
    source = write(tmp_path / "m.tif", labels, 255)
    first, _ = run(tmp_path, source, total=300)
    monkeypatch.setattr(rastersampling, "_STRIP_PIXELS", 700)
    again, _ = run(tmp_path, source, total=300)
    assert first.equals(again)
    other, _ = run(tmp_path, source, total=300, seed=1)
    assert not first.geometry.equals(other.geometry)


def test_the_size_follows_from_the_standard_error(tmp_path, labels):
    source = write(tmp_path / "m.tif", labels, 255)
    total = int((labels != 255).sum())
    _, result = run(tmp_path, source, target_se=0.02, minimum=2)
    assert result.sample_count == int(np.ceil(0.16 / (0.02**2 + 0.16 / total)))
    assert result.standard_error == pytest.approx(0.02, rel=1e-3)
    _, proportional = run(tmp_path, source, total=400, class_accuracies={"2": 0.99, "5": 0.6})
    _, neyman = run(tmp_path, source, total=400, class_accuracies={"2": 0.99, "5": 0.6}, allocation="neyman")
    assert neyman.counts["5"] > proportional.counts["5"]
    assert neyman.standard_error < proportional.standard_error
    context = Context()
    run(tmp_path, source, context=context, total=400, allocation="neyman")
    assert "neyman is the same as proportional" in context.warnings[0]
    _, equal = run(tmp_path, source, total=300, allocation="equal")
    assert equal.counts == {"2": 100, "5": 100, "9": 100}


def test_the_estimate_is_unbiased(tmp_path):
    # A map of two classes that is right in 90 % and 50 % of their pixels: the mean over many samples is the truth.
    generator = np.random.default_rng(0)
    labels = np.repeat([[1, 2]], 3000, axis=0).repeat([15, 5], axis=1).astype("uint8")
    right = generator.random(labels.shape) < np.where(labels == 1, 0.9, 0.5)
    source = write(tmp_path / "m.tif", labels)
    estimates = []
    for seed in range(20):
        frame, _ = run(tmp_path, source, total=200, minimum=100, seed=seed)
        hit = classes_at(frame, right)
        estimates.append(np.average(hit, weights=frame["weight"]))
    assert abs(np.mean(estimates) - right.mean()) < 3 * 0.03 / np.sqrt(20)


def test_the_key_is_a_table_of_its_own(tmp_path, labels):
    _, result = run(tmp_path, write(tmp_path / "m.tif", labels, 255), total=400, key=str(tmp_path / "key"))
    assert result.key == str(tmp_path / "key.csv")
    with open(result.key, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stratum"] for row in rows] == ["1", "2", "3"]
    assert {row["class_id"]: int(row["stratum"]) for row in rows} == {
        value: stratum["stratum"] for value, stratum in result.strata.items()
    }
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)


def test_small_classes_and_large_requests(tmp_path):
    labels = np.ones((20, 20), "uint8")
    labels[0, :10] = 7
    context = Context()
    _, result = run(tmp_path, write(tmp_path / "m.tif", labels), context=context, total=20)
    assert result.counts == {"1": 50, "7": 10}
    assert "Class 7 (Class 7) has fewer pixels than MINIMUM 50" in context.warnings[0]
    assert "makes 60 points, more than the 20" in context.warnings[1]
    context = Context()
    frame, result = run(tmp_path, write(tmp_path / "m.tif", labels), context=context, total=1000)
    assert (len(frame), result.standard_error) == (400, 0)
    assert set(frame["weight"]) == {1.0}


def test_degrees_are_warned_of(tmp_path):
    labels = np.ones((20, 20), "uint8")
    context = Context()
    run(tmp_path, write(tmp_path / "m.tif", labels, crs=None), context=context, total=60)
    assert context.warnings == []
    with rasterio.open(
        tmp_path / "d.tif", "w", driver="GTiff", width=20, height=20, count=1, dtype="uint8", crs="EPSG:4326",
        transform=from_origin(10, 50, 0.1, 0.1),
    ) as dataset:  # fmt: skip
        dataset.write(labels, 1)
    run(tmp_path, RasterSource(str(tmp_path / "d.tif")), context=context, total=60)
    assert "areas differ with latitude" in context.warnings[0]


def test_bad_input(tmp_path):
    source = write(tmp_path / "m.tif", np.full((9, 9), 3, "uint8"), nodata=3)
    with pytest.raises(BadInput, match=r"'m.tif' has no pixel with a class"):
        run(tmp_path, source)
    source = write(tmp_path / "m.tif", np.full((9, 9), 3, "uint8"))
    with pytest.raises(BadInput, match=r"names the class 4, which does not occur in 'm.tif'. Its classes are: 3\."):
        run(tmp_path, source, class_accuracies={"4": 0.5})
    for arguments, text in (
        ({"allocation": "even"}, "ALLOCATION 'even' is not a valid choice"),
        ({"minimum": 1}, "MINIMUM is 1, less than 2"),
        ({"total": 0}, "TOTAL is 0, less than 1"),
        ({"target_se": 0}, "TARGET_SE is 0, not above 0"),
        ({"expected_accuracy": 80}, "EXPECTED_ACCURACY is 80, which is no share"),
        ({"class_accuracies": {"3": 2}}, "The accuracy of class 3 in CLASS_ACCURACIES is 2"),
    ):
        with pytest.raises(BadInput, match=text):
            AssessmentSample(source, "x.gpkg", **arguments)


def test_the_job_travels_as_json():
    job = AssessmentSample(RasterSource("m.tif"), "x.gpkg", class_accuracies={"3": 0.5}, total=7)
    assert job_from_plain(job_to_plain(job)) == job
