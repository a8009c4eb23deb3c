"""A map of one class and its background: with polygons alone, and with the rest of the map as background."""

from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from deepscape.engine import assessment, featurelabels
from deepscape.engine.assessment import assess
from deepscape.engine.bootstrap import block_bootstrap
from deepscape.engine.legends import write_sidecars
from deepscape.engine.metrics import confusion_matrix
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Assess, AssessmentSample, RasterSource, VectorSource

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 9_800_000)
CRS = "EPSG:32721"
CLASSES = (ClassEntry(0, "elsewhere", "#ffffff"), ClassEntry(1, "building", "#d7301f"))
# Row, column, height and width of the buildings there are.
PLACES = [(2, 3, 6, 8), (4, 40, 10, 5), (30, 5, 7, 7), (32, 40, 9, 18), (48, 20, 10, 10), (20, 62, 6, 9)]


def write(path, values, names=(), **options):
    values = values if values.ndim == 3 else values[None]
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, **{"crs": CRS, "transform": TRANSFORM, "nodata": 255, **options},
    ) as dataset:  # fmt: skip
        dataset.write(values)
        dataset.descriptions = tuple(names) or (None,) * len(values)
    return RasterSource(str(path))


def layer(path, geometries, **fields):
    geopandas.GeoDataFrame(fields, geometry=geometries, crs=CRS).to_file(path, driver="GPKG")
    return VectorSource(str(path))


def box(row, col, height, width):
    x, y = TRANSFORM @ (col, row)
    return shapely.box(x + 2, y - 10 * height + 2, x + 10 * width - 2, y - 2)


@pytest.fixture
def town(tmp_path):
    """Buildings, and a map of 60 x 80 pixels that shows them moved, with one that is none, and no-data at its edge."""
    truth = np.zeros((60, 80), np.uint8)
    for row, col, height, width in PLACES:
        truth[row : row + height, col : col + width] = 1
    mapped = np.roll(truth, 1, axis=1)
    mapped[10:20, 20:30], mapped[:, 76:], mapped[:4, :] = 1, 255, 255
    source = write(tmp_path / "map.tif", mapped)
    write_sidecars(source.path, CLASSES, {})
    samples = layer(tmp_path / "b.gpkg", [box(*place) for place in PLACES], class_id=[1] * len(PLACES))
    return Assess(source, str(tmp_path / "r.html"), samples=samples, field="class_id"), truth, mapped


def expected(truth, mapped):
    known = mapped != 255
    return confusion_matrix(truth[known], mapped[known], 2).tolist()


def test_polygons_of_one_class_do_not_pretend_to_tell_the_rest(town):
    job, truth, mapped = town
    context = Context()
    result = assess(replace(job, design="clusters"), context)
    inside = (truth == 1) & (mapped != 255)
    share = (mapped[inside] == 1).mean()
    assert result.overall_accuracy == pytest.approx(share) and 0.5 < share < 1
    assert (result.kappa, result.macro_f1, result.mean_iou) == (None, None, None)
    elsewhere, building = result.metrics["classes"]
    assert [building[name] for name in ("precision", "recall", "f1", "iou")] == [None, share, None, None]
    assert elsewhere["precision"] is None and elsewhere["recall"] is None
    design = result.metrics["design"]
    assert (design["kappa"], design["macro_f1"], design["mean_iou"]) == (None, None, None)
    assert design["classes"][1]["precision"] is None and design["classes"][1]["recall"] == design["overall_accuracy"]
    told = next(text for text in context.warnings if "holds one class only" in text)
    assert told.startswith("'b.gpkg' holds one class only, 'building': it tells how much") and "BACKGROUND" in told
    page = Path(result.output).read_text(encoding="utf-8").replace("&#39;", "'")
    assert told in page and "Of each column" not in page and "0.000" not in page
    assess(job, Context())
    page = Path(result.output).read_text(encoding="utf-8")
    assert "in 6 polygons, all of them building" in page and "100.0 %" not in page.split("<h2>Confusion matrix, s")[0]


def test_a_raster_of_one_class_is_told_without_a_word_of_polygons(tmp_path, town):
    job, truth, _ = town
    context = Context()
    reference = write(tmp_path / "r.tif", np.where(truth == 1, 1, 255).astype(np.uint8))
    result = assess(replace(job, samples=None, field="", reference=reference), context)
    told = next(text for text in context.warnings if "holds one class only" in text)
    assert result.kappa is None and "BACKGROUND" not in told and told.endswith("the other classes, too.")


@pytest.mark.parametrize("field", ["class_id", ""])
@pytest.mark.parametrize("small", [False, True])
def test_the_rest_of_the_map_is_background(town, monkeypatch, field, small):
    job, truth, mapped = town
    if small:
        monkeypatch.setattr(assessment, "_TILE", 17)
        monkeypatch.setattr(featurelabels, "_BLOCK", 16)
    context = Context()
    result = assess(replace(job, background=True, field=field), context)
    assert result.metrics["matrix"] == expected(truth, mapped) and result.metrics["values"] == [0, 1]
    assert result.kappa > 0 and 0 < result.metrics["classes"][1]["precision"] < 1
    # The names are the map's.
    assert [row["name"] for row in result.metrics["classes"]] == ["elsewhere", "building"]
    # Where the map is no-data, only what was drawn is missed.
    assert result.metrics["unmapped"] == ((truth == 1) & (mapped == 255)).sum() > 0
    assert result.groups == 0 and "pixels of 'b.gpkg' and the background around its polygons" in result.metrics["reach"]
    assert not any("one class only" in text or "lie within" in text for text in context.warnings)
    page = Path(result.output).read_text(encoding="utf-8")
    assert "<th>The map outside the polygons of the reference</th><td>background, class 0</td>" in page


def test_blocks_of_the_whole_map_are_drawn_again(town):
    job, truth, mapped = town
    result = assess(replace(job, background=True, design="clusters", block_size=20), Context())
    matrices = [
        expected(truth[row : row + 20, col : col + 20], mapped[row : row + 20, col : col + 20])
        for row in range(0, 60, 20)
        for col in range(0, 80, 20)
    ]
    intervals = block_bootstrap(np.array(matrices), 0)
    assert result.metrics["design"]["units"] == 12
    assert result.metrics["design"]["kappa"] == pytest.approx(intervals.kappa)
    assert "drawing the 12 blocks of 20 x 20 pixels again" in result.metrics["reach"]
    assert "they do not speak of places outside it" in result.metrics["reach"]


def test_what_two_classes_claim_is_not_background(tmp_path, town):
    job, _, mapped = town
    samples = layer(tmp_path / "two.gpkg", [box(10, 10, 30, 40), box(20, 30, 30, 40)], kind=[1, 2])
    context = Context()
    result = assess(replace(job, samples=samples, field="kind", background=True), context)
    claimed = np.zeros(mapped.shape, bool)
    claimed[20:40, 30:50] = True
    assert result.sample_count == ((mapped != 255) & ~claimed).sum()
    assert any("400 pixels are claimed by features of two classes" in text for text in context.warnings)


@pytest.mark.parametrize("how", ["NULL", "text", "crosswalk"])
def test_polygons_of_no_class_are_neither_right_nor_wrong(tmp_path, town, how):
    job, truth, mapped = town
    kinds = {"NULL": [1, 1, 1, 1, None, None], "text": ["building"] * 4 + ["", None], "crosswalk": [1, 1, 1, 1, 7, 7]}
    samples = layer(tmp_path / "s.gpkg", [box(*place) for place in PLACES], kind=kinds[how])
    (tmp_path / "c.csv").write_text("from,to\n7,\n")
    crosswalk = str(tmp_path / "c.csv") if how == "crosswalk" else ""
    context = Context()
    job = replace(job, samples=samples, field="kind", background=True, crosswalk=crosswalk)
    result = assess(job, context)
    unknown = np.zeros(mapped.shape, bool)
    for row, col, height, width in PLACES[4:]:
        unknown[row : row + height, col : col + width] = True
    truth, known = np.where(unknown, 0, truth), (mapped != 255) & ~unknown
    assert result.metrics["matrix"] == confusion_matrix(truth[known], mapped[known], 2).tolist()
    assert result.sample_count == known.sum() and (mapped[unknown] == 1).any()
    told = (
        "154 pixels of 's.gpkg' have no class, or one that is left out; they are ignored, and not taken as background."
    )
    assert unknown.sum() == 154 and told in context.warnings and told in result.warnings


def test_edges_of_polygons_towards_the_background_are_boundaries(town):
    job, _, _ = town
    full, eroded = (
        assess(replace(job, background=True), Context()),
        assess(replace(job, background=True, erode=2), Context()),
    )
    assert eroded.metrics["eroded"] > 200 and eroded.overall_accuracy > full.overall_accuracy
    assert eroded.metrics["whole"]["matrix"] == full.metrics["matrix"]


def test_polygons_in_a_corner_of_the_map_are_asked_about(tmp_path, town):
    job, _, _ = town
    samples = layer(tmp_path / "few.gpkg", [box(*place) for place in PLACES[:1]])
    context = Context()
    result = assess(replace(job, samples=samples, field="", background=True), context)
    assert result.sample_count > 3000
    assert any("The polygons of 'few.gpkg' lie within 2 % of 'map.tif'" in text for text in context.warnings)


def test_a_background_needs_polygons_of_other_classes(tmp_path, town):
    job, _, _ = town
    points = layer(tmp_path / "p.gpkg", [shapely.Point(500_105, 9_799_895)], class_id=[1])
    with pytest.raises(BadInput, match=r"BACKGROUND needs polygons, but 'p\.gpkg' holds points or lines"):
        assess(replace(job, samples=points, background=True), Context())
    zero = layer(tmp_path / "z.gpkg", [box(10, 10, 9, 9), box(30, 30, 9, 9)], class_id=[0, 1])
    with pytest.raises(BadInput, match=r"BACKGROUND is class 0, which 'z\.gpkg' has as 'elsewhere' already"):
        assess(replace(job, samples=zero, background=True), Context())
    tiny = layer(tmp_path / "t.gpkg", [shapely.box(500_101, 9_799_901, 500_102, 9_799_902)])
    with pytest.raises(BadInput, match=r"'t\.gpkg' labels no pixel of 'map\.tif'"):
        assess(replace(job, samples=tiny, field="", background=True), Context())
    names = layer(tmp_path / "n.gpkg", [box(10, 10, 9, 9)], kind=["house"])
    bare = write(tmp_path / "bare.tif", np.ones((60, 80), np.uint8))
    with pytest.raises(BadInput, match=r"holds class names, but the map 'bare\.tif' carries none"):
        assess(replace(job, map=bare, samples=names, field="kind", background=True), Context())


def test_a_threshold_is_not_chosen_on_one_class(tmp_path, town):
    job, truth, _ = town
    second = np.where(truth == 1, 0.9, 0.2).astype(np.float32)
    probabilities = write(tmp_path / "p.tif", np.stack([1 - second, second]), ("elsewhere", "building"), nodata=np.nan)
    job = replace(job, probabilities=probabilities)
    assert "threshold" not in assess(job, Context()).metrics["calibration"]
    assert "threshold" in assess(replace(job, background=True), Context()).metrics["calibration"]


def test_a_stratified_sample_of_one_class_still_tells_the_user_s_accuracies(tmp_path, town):
    from deepscape.engine.assessmentsampling import assessment_sample

    job, _, _ = town
    path = str(tmp_path / "s.gpkg")
    assessment_sample(AssessmentSample(job.map, path, total=200), Context())
    frame = geopandas.read_file(path)
    frame["reference"] = 1
    frame.to_file(path, driver="GPKG")
    context = Context()
    result = assess(replace(job, samples=VectorSource(path), field="reference", design="stratified"), context)
    assert [row["precision"] for row in result.metrics["classes"]] == [0.0, 1.0]
    assert (result.kappa, result.macro_f1, result.metrics["design"]["kappa"]) == (None, None, None)
    assert any("All labelled points of 's.gpkg' are of the class 'building'" in text for text in context.warnings)
