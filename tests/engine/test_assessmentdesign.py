"""Designs: estimates from a stratified sample, bootstrap of clusters and blocks, boundaries, probabilities."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from deepscape.engine import assessmentdesign, assessmentreport, trainingfield
from deepscape.engine.assessment import assess
from deepscape.engine.assessmentsampling import assessment_sample
from deepscape.engine.bootstrap import block_bootstrap
from deepscape.engine.datasets import DatasetScene
from deepscape.engine.estimation import stratified_estimate
from deepscape.engine.legends import write_sidecars
from deepscape.engine.metrics import confusion_matrix
from deepscape.engine.trainingground import mask_ground, written
from deepscape.models.cards import Card
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Assess, AssessmentSample, RasterSource, VectorSource
from rasterio.crs import CRS

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 9_800_000)
CLASSES = (ClassEntry(1, "Water", "#7fbcfc"), ClassEntry(2, "Forest", "#106b00"), ClassEntry(5, "Soil", "#a15c44"))


def write(path, values, names=(), **options):
    values = values if values.ndim == 3 else values[None]
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, **{"crs": "EPSG:32721", "transform": TRANSFORM, "nodata": 255, **options},
    ) as dataset:  # fmt: skip
        dataset.write(values)
        dataset.descriptions = tuple(names) or (None,) * len(values)
    return RasterSource(str(path))


@pytest.fixture
def scene(tmp_path):
    """A map of 60 x 80 pixels and its truth, which differs in 15 % of the pixels."""
    generator = np.random.default_rng(1)
    mapped = np.full((60, 80), 1, np.uint8)
    mapped[:, 30:], mapped[40:, 50:], mapped[:3, :3] = 2, 5, 255
    truth = np.where(generator.random(mapped.shape) < 0.15, generator.choice([1, 2, 5], mapped.shape), mapped)
    truth[mapped == 255] = 1
    source = write(tmp_path / "map.tif", mapped)
    write_sidecars(source.path, CLASSES, {})
    return source, mapped, truth.astype(np.uint8)


def labelled(tmp_path, source, truth, **options):
    """Draw a sample of the map and fill in its reference."""
    path = str(tmp_path / "sample.gpkg")
    assessment_sample(AssessmentSample(source, path, total=300, **options), Context())
    frame = geopandas.read_file(path)
    cols, rows = ~TRANSFORM @ np.stack([frame.geometry.x, frame.geometry.y])
    frame["reference"] = truth[rows.astype(int), cols.astype(int)].astype(int)
    frame.to_file(path, driver="GPKG")
    return VectorSource(path), frame, (rows.astype(int), cols.astype(int))


@pytest.mark.parametrize("window", [4_000_000, 500])
def test_a_stratified_sample_estimates_the_whole_map(tmp_path, scene, monkeypatch, window):
    monkeypatch.setattr(assessmentdesign, "_WINDOW_PIXELS", window)
    source, mapped, truth = scene
    samples, _, place = labelled(tmp_path, source, truth, allocation="equal")
    result = assess(
        Assess(source, str(tmp_path / "r"), samples=samples, field="reference", design="stratified",
               areas=str(tmp_path / "areas")),
        Context(),
    )  # fmt: skip
    values = np.array([1, 2, 5])
    counts = confusion_matrix(np.searchsorted(values, mapped[place]), np.searchsorted(values, truth[place]), 3)
    pixels = np.array([(mapped == value).sum() for value in values])
    expected = stratified_estimate(counts, pixels / 100)
    design = result.metrics["design"]
    assert result.overall_accuracy == pytest.approx(expected.overall, abs=1e-6)
    low, high = design["overall_accuracy"]
    assert (high - low) / 2 == pytest.approx(expected.overall_interval, abs=1e-6)
    for k, row in enumerate(design["classes"]):
        # Hectares on the ellipsoid: a little off those of the projection.
        assert row["mapped_area"] == pytest.approx(pixels[k] / 100, rel=0.01)
        assert row["area"] == pytest.approx(expected.areas[k], rel=0.01)
        assert row["area_interval"] == pytest.approx(expected.areas_interval[k], rel=0.01)
        assert result.metrics["classes"][k]["precision"] == pytest.approx(expected.users[k])
        assert result.metrics["classes"][k]["recall"] == pytest.approx(expected.producers[k], abs=1e-6)
        assert row["f1"] == pytest.approx(expected.f1_bounds[k], abs=1e-5)
        assert row["iou"] == pytest.approx(expected.iou_bounds[k], abs=1e-5)
        assert row["f1"][0] < result.metrics["classes"][k]["f1"] < row["f1"][1]
    for name in ("macro_f1", "mean_iou", "kappa"):
        assert design[name] == pytest.approx(getattr(expected, f"{name}_bounds"), abs=1e-5)
        assert design[name][0] < getattr(result, name) < design[name][1]
    assert result.metrics["matrix"] == counts.T.tolist() and result.sample_count == 300
    assert "Estimated for the whole map from 300 points" in result.metrics["reach"]
    with open(result.areas, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["Water", "Forest", "Soil"]
    assert float(rows[1]["estimated_hectares"]) == pytest.approx(design["classes"][1]["area"], abs=1e-4)
    forest = design["classes"][1]
    assert float(rows[1]["iou"]) == pytest.approx(result.metrics["classes"][1]["iou"], abs=1e-4)
    assert [float(rows[1][f"f1_{end}_95"]) for end in ("low", "high")] == pytest.approx(forest["f1"], abs=1e-4)
    page = Path(result.output).read_text(encoding="utf-8")
    for interval in (forest["f1"], forest["iou"]):
        assert "{:.3f} to {:.3f}".format(*interval) in page
    assert "95 %: {:.3f} to {:.3f}".format(*design["mean_iou"]) in page
    for text in ("Area of the classes", "95 % intervals", "Map (ha)", "Confusion matrix, shares"):
        assert text in page


def test_a_stratified_sample_estimates_the_map_outside_the_training_field(tmp_path, scene, monkeypatch):
    source, mapped, truth = scene
    samples, _, place = labelled(tmp_path, source, truth, allocation="equal")
    where = DatasetScene("s", "", CRS.from_epsg(32721).to_wkt(), tuple(TRANSFORM[:6]), 80, 60, 10.0)
    field = written([mask_ground(where, [(0, np.broadcast_to(np.arange(80) < 20, (60, 80)))])])
    monkeypatch.setattr(trainingfield, "_models_of_map", lambda path: (["m.safetensors"], ""))
    monkeypatch.setattr(trainingfield, "read_card", lambda path: Card("", "", (), (), training={"field": field}))
    context = Context()
    job = Assess(source, str(tmp_path / "r.html"), samples=samples, field="reference", design="stratified",
                 leave_out_training=True)  # fmt: skip
    result = assess(job, context)
    values, outside = np.array([1, 2, 5]), place[1] >= 20
    rows, cols = (axis[outside] for axis in place)
    counts = confusion_matrix(
        np.searchsorted(values, mapped[rows, cols]), np.searchsorted(values, truth[rows, cols]), 3
    )
    pixels = np.array([(mapped[:, 20:] == value).sum() for value in values])
    expected = stratified_estimate(counts, pixels / 100)
    assert result.metrics["left_out"] == (~outside).sum() > 30 and result.sample_count == outside.sum()
    # Of the whole map its training ground is a part, sampled like the rest: nothing to warn of, nor to leave out.
    whole = assess(replace(job, leave_out_training=False, output=""), Context())
    assert not any("training" in text or "LEAVE_OUT_TRAINING" in text for text in whole.warnings)
    inside = (~outside).sum()
    assert f" {inside} of the points lie in the training area: that is a part of the map" in whole.metrics["reach"]
    assert result.overall_accuracy == pytest.approx(expected.overall, abs=1e-6)
    for k, row in enumerate(result.metrics["design"]["classes"]):
        assert row["mapped_area"] == pytest.approx(pixels[k] / 100, rel=0.01)
        assert row["area"] == pytest.approx(expected.areas[k], rel=0.01)
        assert row["iou"] == pytest.approx(expected.iou_bounds[k], abs=1e-5)
    assert result.metrics["reach"].startswith("Estimated for the map outside the training area from ")
    assert not context.warnings  # no point is missing: the sample is all there
    page = Path(result.output).read_text(encoding="utf-8")
    assert "All are those of the map outside the training area." in page
    assert f"<td>{(~outside).sum()}, left out</td>" in page


def test_a_class_whose_points_all_lie_in_the_training_area_is_named_with_what_helps(tmp_path, scene, monkeypatch):
    source, mapped, truth = scene
    samples, _, place = labelled(tmp_path, source, truth)
    learned = np.zeros(mapped.shape, bool)
    learned[place] = mapped[place] == 1
    where = DatasetScene("s", "", CRS.from_epsg(32721).to_wkt(), tuple(TRANSFORM[:6]), 80, 60, 10.0)
    card = Card("", "", (), (), training={"field": written([mask_ground(where, [(0, learned)])])})
    monkeypatch.setattr(trainingfield, "_models_of_map", lambda path: (["m.safetensors"], ""))
    monkeypatch.setattr(trainingfield, "read_card", lambda path: card)
    job = Assess(source, samples=samples, field="reference", design="stratified", leave_out_training=True)
    with pytest.raises(BadInput, match=r"'Water' of the map .* outside the training area") as told:
        assess(job, Context())
    assert told.value.remedy.startswith("Set LEAVE_OUT_TRAINING to false")


def test_areas_of_a_map_of_small_pixels_have_more_digits(tmp_path, scene, monkeypatch):
    # Pixels of 5 cm: the map is 12 square metres, a class of it some ten thousandths of a hectare.
    monkeypatch.setitem(globals(), "TRANSFORM", Affine(0.05, 0, 500_000, 0, -0.05, 9_800_000))
    _, mapped, truth = scene
    source = write(tmp_path / "small.tif", mapped)
    samples = labelled(tmp_path, source, truth)[0]
    result = assess(
        Assess(source, str(tmp_path / "r"), samples=samples, field="reference", design="stratified",
               areas=str(tmp_path / "areas")),
        Context(),
    )  # fmt: skip
    page = Path(result.output).read_text(encoding="utf-8")
    with open(result.areas, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, found in zip(rows, result.metrics["design"]["classes"]):
        area, half, own = found["area"], found["area_interval"], found["mapped_area"]
        assert 1e-4 < area < 1e-3 and 1e-5 < half < 1e-4
        assert f"<td>{own:.6f}</td>" in page and f"<td>{area:.7f}</td>" in page and f"\u00b1 {half:.7f}" in page
        assert float(row["estimated_hectares"]) == pytest.approx(area, rel=1e-5)
        assert float(row["half_width_95"]) == pytest.approx(half, rel=1e-5)


def test_reference_classes_that_the_map_lacks_have_an_area(tmp_path, scene):
    source, _, truth = scene
    truth[truth == 5] = 9
    samples, _, _ = labelled(tmp_path, source, truth)
    result = assess(Assess(source, samples=samples, field="reference", design="stratified"), Context())
    nine = result.metrics["design"]["classes"][3]
    assert nine["value"] == 9 and nine["mapped_area"] == 0 and nine["area"] > 3 and nine["precision"] is None


def test_a_rare_class_of_which_every_pixel_was_taken_is_known(tmp_path, scene):
    source, mapped, truth = scene
    mapped[mapped == 5] = 2
    mapped[10, 10] = truth[10, 10] = 5
    write(tmp_path / "map.tif", mapped)
    samples, _, _ = labelled(tmp_path, source, truth)
    result = assess(Assess(source, samples=samples, field="reference", design="stratified"), Context())
    assert result.metrics["design"]["classes"][2]["precision"] == [1.0, 1.0]


def test_a_sample_of_another_map_is_refused(tmp_path, scene):
    source, mapped, truth = scene
    samples, frame, _ = labelled(tmp_path, source, truth)
    job = Assess(source, samples=samples, field="reference", design="stratified")
    other = write(tmp_path / "other.tif", np.roll(mapped, 15, axis=1))
    with pytest.raises(BadInput, match=r"was not drawn from the map 'other\.tif': points of one stratum lie on its"):
        assess(replace(job, map=other), Context())
    changed = mapped.copy()
    changed[5, 35] = 1
    frame = frame[(frame.geometry.x != TRANSFORM.c + 355)]
    frame.to_file(samples.path, driver="GPKG")
    context = Context()
    assess(replace(job, map=write(tmp_path / "new.tif", changed)), context)
    # The strata are told by the names of their classes, not by their codes.
    assert "The weight of the points of 'Class 1' in 'sample.gpkg' does not fit the 1792 pixels" in context.warnings[0]
    one = frame[frame.stratum == frame.stratum.iloc[0]]
    one.to_file(tmp_path / "one.gpkg", driver="GPKG")
    with pytest.raises(BadInput, match=r"has no labelled point in 'one\.gpkg'"):
        assess(replace(job, samples=VectorSource(str(tmp_path / "one.gpkg"))), Context())
    few = geopandas.pd.concat(
        [part.iloc[: 1 if k == 0 else 50] for k, (_, part) in enumerate(frame.groupby("stratum"))]
    )
    few.to_file(tmp_path / "few.gpkg", driver="GPKG")
    with pytest.raises(BadInput, match=r"has 1 labelled point in 'few\.gpkg'; an interval needs 2"):
        assess(replace(job, samples=VectorSource(str(tmp_path / "few.gpkg"))), Context())
    frame.drop(columns="weight").to_file(tmp_path / "bare.gpkg", driver="GPKG")
    with pytest.raises(BadInput, match=r"'bare\.gpkg' has no 'weight'"):
        assess(replace(job, samples=VectorSource(str(tmp_path / "bare.gpkg"))), Context())


def test_points_that_are_not_labelled_are_told(tmp_path, scene):
    source, _, truth = scene
    samples, frame, _ = labelled(tmp_path, source, truth)
    frame["reference"] = frame["reference"].astype("Int32")
    frame.loc[frame.index[:20], "reference"] = None
    frame.to_file(samples.path, driver="GPKG")
    context = Context()
    result = assess(Assess(source, samples=samples, field="reference", design="stratified"), context)
    assert result.sample_count == 280
    assert any("20 of the 300 points that were drawn have no reference class" in text for text in context.warnings)
    context = Context()
    result = assess(Assess(source, samples=samples, field="reference"), context)
    assert "design" not in result.metrics and "no confidence interval is given" in result.metrics["reach"]
    assert any("looks like a stratified sample" in text for text in context.warnings)


def test_points_that_are_there_twice_count_once(tmp_path, scene):
    source, _, truth = scene
    samples, frame, _ = labelled(tmp_path, source, truth)
    job = Assess(source, samples=samples, field="reference", design="stratified")
    alone = assess(job, Context())
    twice = geopandas.pd.concat([frame, frame.iloc[:60]])
    twice.to_file(tmp_path / "twice.gpkg", driver="GPKG")
    context = Context()
    result = assess(replace(job, samples=VectorSource(str(tmp_path / "twice.gpkg"))), context)
    assert result.sample_count == 300 and result.metrics["design"] == alone.metrics["design"]
    assert context.warnings == [
        "60 points of 'twice.gpkg' lie in the pixel of another one: the sample was drawn without replacement, so each "
        "pixel counts once."
    ]
    # One that says two things says nothing.
    twice = geopandas.pd.concat([frame, frame.iloc[[7]].assign(reference=9)])
    twice.to_file(tmp_path / "torn.gpkg", driver="GPKG")
    context = Context()
    result = assess(replace(job, samples=VectorSource(str(tmp_path / "torn.gpkg"))), context)
    place = frame.geometry.iloc[7]
    assert result.sample_count == 299 and context.warnings[0].startswith("1 point of 'torn.gpkg' lies in the pixel of")
    assert f"The first lies at {place.x:.10g}, {place.y:.10g}." in context.warnings[1]
    assert 9 not in result.metrics["values"]


def square(row, col, size=4):
    x, y = TRANSFORM @ (col, row)
    return shapely.box(x + 2, y - 10 * size + 2, x + 10 * size - 2, y - 2)


@pytest.fixture
def polygons(tmp_path, scene):
    _, mapped, _ = scene
    places = [(row, col) for row in range(5, 55, 5) for col in range(2, 74, 6)]
    classes = [int(np.random.default_rng(k).choice([mapped[p], 2])) for k, p in enumerate(places)]
    frame = geopandas.GeoDataFrame(
        {"c": classes, "farm": [k // 4 for k in range(len(places))]},
        geometry=[square(*place) for place in places], crs="EPSG:32721",
    )  # fmt: skip
    frame.to_file(tmp_path / "p.gpkg", driver="GPKG")
    return VectorSource(str(tmp_path / "p.gpkg")), places, classes


@pytest.mark.parametrize("field", ["", "farm"])
def test_polygons_are_drawn_again(tmp_path, scene, polygons, field):
    source, mapped, _ = scene
    samples, places, classes = polygons
    result = assess(Assess(source, samples=samples, field="c", design="clusters", cluster_field=field), Context())
    values = np.array([1, 2, 5])
    matrices = np.zeros((len(places) // (4 if field else 1), 3, 3), np.int64)
    for k, ((row, col), own) in enumerate(zip(places, classes)):
        found = np.searchsorted(values, mapped[row : row + 4, col : col + 4])
        unit = k // 4 if field else k
        matrices[unit] += confusion_matrix(np.full(found.shape, np.searchsorted(values, own)), found, 3)
    expected = block_bootstrap(matrices, 0)
    design = result.metrics["design"]
    assert design["units"] == len(matrices)
    assert design["overall_accuracy"] == pytest.approx(expected.overall)
    assert design["classes"][0]["iou"] == pytest.approx(expected.iou[0])
    assert f"drawing the {len(matrices)} clusters again" in result.metrics["reach"]


def test_where_no_error_was_found_there_is_no_interval(tmp_path, scene):
    source, mapped, _ = scene
    perfect = Assess(
        source, str(tmp_path / "r"), reference=write(tmp_path / "r.tif", mapped), design="clusters", block_size=9
    )
    result = assess(perfect, Context())
    assert result.overall_accuracy == 1.0 and result.metrics["design"]["overall_accuracy"] is None
    page = Path(result.output).read_text(encoding="utf-8")
    assert "no error was found, which gives no interval" in page
    assert "No error was seen in these blocks of 9 x 9 pixels, so that they cannot tell how wide" in page
    samples, _, _ = labelled(tmp_path, source, mapped)
    estimate = assess(Assess(source, samples=samples, field="reference", design="stratified"), Context())
    assert estimate.metrics["design"]["overall_accuracy"] is None
    assert "No error was seen in these points" in estimate.metrics["reach"]
    almost = mapped.copy()
    almost[59, 0] = 2
    result = assess(replace(perfect, reference=write(tmp_path / "r.tif", almost)), Context())
    assert "No error" not in result.metrics["reach"] and result.metrics["design"]["kappa"][1] == 1
    # Of almost none there is one, whose ends must not look alike.
    assert [assessmentreport._interval(ends) for ends in ([0.81, 0.92], [0.99971, 1.0], [1.0, 1.0], None)] == [
        "0.810 to 0.920", "0.9997 to 1.0000", "1.000 to 1.000", "\u2013"
    ]  # fmt: skip
    assert assessmentreport._interval([0.99971, 1.0], share=True) == "99.97 to 100.00 %"


def test_blocks_of_a_reference_raster_are_drawn_again(tmp_path, scene, monkeypatch):
    source, mapped, truth = scene
    monkeypatch.setattr("deepscape.engine.assessment._TILE", 17)
    job = Assess(source, reference=write(tmp_path / "r.tif", truth), design="clusters", block_size=25)
    context = Context()
    result = assess(job, context)
    assert any("12 blocks of 25 x 25 pixels are few" in text for text in context.warnings)
    values = np.array([1, 2, 5])
    matrices = []
    for row in range(0, 60, 25):
        for col in range(0, 80, 25):
            window = np.s_[row : row + 25, col : col + 25]
            known = mapped[window] != 255
            matrices.append(
                confusion_matrix(
                    np.searchsorted(values, truth[window][known]), np.searchsorted(values, mapped[window][known]), 3
                )
            )
    assert result.metrics["design"]["units"] == 12
    assert result.metrics["design"]["kappa"] == pytest.approx(block_bootstrap(np.stack(matrices), 0).kappa)
    assert "12 blocks of 25 x 25 pixels" in result.metrics["reach"]
    with pytest.raises(BadInput, match="needs 2 or more"):
        assess(replace(job, block_size=100), Context())
    monkeypatch.setattr(assessmentdesign, "_MOST_UNITS", 100)
    with pytest.raises(BadInput, match="BLOCK_SIZE 4 makes 300 blocks"):
        assess(replace(job, block_size=4), Context())


def test_clusters_need_to_be_told(tmp_path, scene, polygons):
    source, _, truth = scene
    samples, _, _ = labelled(tmp_path, source, truth)
    with pytest.raises(BadInput, match="has no field 'village'"):
        assess(
            Assess(source, samples=samples, field="reference", design="clusters", cluster_field="village"), Context()
        )
    with pytest.raises(BadInput, match="DESIGN stratified is for points"):
        assess(Assess(source, samples=polygons[0], field="c", design="stratified"), Context())


def test_clusters_that_cannot_be_drawn_leave_the_numbers_without_intervals(tmp_path, scene, polygons):
    source, _, truth = scene
    samples, _, _ = labelled(tmp_path, source, truth)
    found = assess(Assess(source, samples=samples, field="reference", design="clusters"), Context())
    plain = assess(Assess(source, samples=samples, field="reference"), Context())
    assert any("holds points, which are no clusters: no interval is given" in text for text in found.warnings)
    assert "design" not in found.metrics and found.metrics["kappa"] == plain.metrics["kappa"]
    assert "no confidence interval is given" in " ".join(found.metrics["reach"].split())
    # One polygon tells of no variation.
    layer = geopandas.read_file(polygons[0].path)
    layer.iloc[:1].to_file(tmp_path / "one.gpkg")
    one = VectorSource(str(tmp_path / "one.gpkg"))
    found = assess(Assess(source, samples=one, field="c", design="clusters"), Context())
    assert any("All reference pixels lie in one cluster" in text for text in found.warnings)
    assert "design" not in found.metrics and found.metrics["samples"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"design": "random"}, "DESIGN 'random' is not a valid choice"),
        ({"design": "stratified"}, "DESIGN stratified is for REFERENCE_SAMPLES"),
        ({"design": "clusters"}, "needs BLOCK_SIZE"),
        ({"block_size": 10}, "BLOCK_SIZE is for DESIGN clusters of a REFERENCE raster"),
        ({"design": "clusters", "block_size": 0}, "BLOCK_SIZE is 0"),
        ({"design": "clusters", "block_size": 9, "cluster_field": "a"}, "CLUSTER_FIELD is for REFERENCE_SAMPLES"),
        ({"background": True}, "BACKGROUND is for polygons as REFERENCE_SAMPLES"),
        ({"areas": "a.csv"}, "AREAS are estimated from DESIGN stratified alone"),
    ],
)
def test_settings_that_do_not_fit(options, message):
    with pytest.raises(BadInput, match=message):
        Assess(RasterSource("m.tif"), reference=RasterSource("r.tif"), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": False, "field": ""}, "REFERENCE_SAMPLES needs FIELD"),
        ({"design": "clusters"}, "with BACKGROUND, which lies in no polygon, needs BLOCK_SIZE"),
        ({"design": "clusters", "cluster_field": "a"}, "CLUSTER_FIELD 'a' tells no cluster of the BACKGROUND"),
        ({"design": "stratified"}, "DESIGN stratified is for points, BACKGROUND for polygons"),
        ({"block_size": 10}, "BLOCK_SIZE is for DESIGN clusters of a REFERENCE raster, or of polygons with BACKGROUND"),
    ],
)
def test_settings_that_do_not_fit_a_background(options, message):
    with pytest.raises(BadInput, match=message):
        Assess(RasterSource("m.tif"), samples=VectorSource("p.gpkg"), **{"background": True, **options})


def test_the_numbers_with_and_without_boundaries_stand_side_by_side(tmp_path, scene):
    source, mapped, _ = scene
    job = Assess(
        source, str(tmp_path / "r.html"), reference=write(tmp_path / "r.tif", np.where(mapped == 255, 1, mapped))
    )
    mapped[:, 29] = 2  # one column beside a boundary is wrong
    write(tmp_path / "map.tif", mapped)
    full, eroded = assess(job, Context()), assess(replace(job, erode=2), Context())
    assert eroded.overall_accuracy == 1.0 > full.overall_accuracy
    assert eroded.metrics["whole"]["matrix"] == full.metrics["matrix"]
    assert "Without boundaries" in Path(eroded.output).read_text(encoding="utf-8")
    assert "whole" not in full.metrics


@pytest.mark.parametrize("byte", [False, True])
def test_probabilities_are_read_as_classify_writes_them(tmp_path, byte):
    generator = np.random.default_rng(7)
    truth = generator.integers(1, 3, (40, 50)).astype(np.uint8)
    second = np.clip((truth == 2) * 0.4 + generator.random(truth.shape) * 0.6, 0, 1)
    second = np.rint(second * 250) / 250
    mapped = np.where(second >= 0.4, 2, 1).astype(np.uint8)
    mapped[1, :2] = 5  # classes without a band, which somebody drew into the map
    source = write(tmp_path / "map.tif", mapped)
    write_sidecars(source.path, CLASSES[:2], {})
    if byte:  # as 'Classify an image' notes it; else it is what the map shows
        with rasterio.open(source.path, "r+") as dataset:
            dataset.update_tags(DEEPSCAPE_THRESHOLD="0.4")
    bands = np.stack([1 - second, second])
    if byte:
        probabilities = write(tmp_path / "p.tif", np.rint(bands * 250).astype(np.uint8), ("Water", "Forest"))
        with rasterio.open(probabilities.path, "r+") as dataset:
            dataset.scales = (1 / 250, 1 / 250)
    else:
        bands[:, 0, :5] = np.nan
        probabilities = write(tmp_path / "p.tif", bands.astype(np.float32), ("Water", "Forest"), nodata=np.nan)
    job = Assess(
        source, str(tmp_path / "r.html"), reference=write(tmp_path / "r.tif", truth), probabilities=probabilities
    )
    result = assess(job, Context())
    figures = result.metrics["calibration"]
    kept = np.isfinite(bands[1]) & (mapped != 5)
    own = figures["threshold"]["map"]
    assert own["threshold"] == pytest.approx(0.4, abs=0 if byte else 0.004)
    assert own["recall"] == pytest.approx(((mapped == 2) & kept & (truth == 2)).sum() / ((truth == 2) & kept).sum())
    right = sum(row["accuracy"] * row["pixels"] for row in figures["bins"] if row["pixels"])
    assert right == pytest.approx(((mapped == truth) & kept).sum())
    assert figures["missing"] == (~kept).sum() and figures["pixels"] == kept.sum()
    assert figures["brier"] == pytest.approx(((bands[1] - (truth == 2))[kept] ** 2).mean(), abs=1e-6)
    called = (second >= 0.5) & kept
    assert figures["threshold"]["half"]["recall"] == pytest.approx(
        called[truth == 2].sum() / ((truth == 2) & kept).sum()
    )
    frame = geopandas.GeoDataFrame({"c": [2]}, geometry=[square(2, 2, 10)], crs="EPSG:32721")
    frame.to_file(tmp_path / "s.gpkg", driver="GPKG")
    samples = VectorSource(str(tmp_path / "s.gpkg"))
    polygon = assess(replace(job, output="", reference=None, samples=samples, field="c"), Context())
    assert polygon.metrics["calibration"]["pixels"] == 100
    page = Path(result.output).read_text(encoding="utf-8")
    assert "Calibration of the probabilities" in page and "Forest by threshold" in page
    assert re.search(r"This map, as it is</td>\s*<td[^>]*>0\.40<", page)
    small = write(tmp_path / "small.tif", bands[:, :10].astype(np.float32), ("Water", "Forest"), nodata=np.nan)
    with pytest.raises(BadInput, match="does not lie on the grid of the map"):
        assess(replace(job, probabilities=small), Context())
