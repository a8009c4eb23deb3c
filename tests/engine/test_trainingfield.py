"""Where the model of a map learned: by its card, else by the files beside map and model; counted or left out."""

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from deepscape.engine import trainingfield
from deepscape.engine.assessment import assess
from deepscape.engine.datasets import (
    DatasetBand,
    DatasetDescription,
    DatasetScene,
    DatasetSource,
    PatchDataset,
    write_description,
)
from deepscape.engine.metrics import scores
from deepscape.engine.trainingground import patch_ground, written
from deepscape.tasks import jobfiles
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Assess, Classify, RasterSource, TrainClassifier, VectorSource

UTM = "EPSG:32721"
WKT = rasterio.crs.CRS.from_user_input(UTM).to_wkt()
TRANSFORM = Affine(10, 0, 500_000, 0, -10, 9_800_000)
MAP = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [1, 2, 2, 1], [2, 2, 1, 1]], np.uint8)
REFERENCE = np.array([[1, 1, 1, 1], [1, 2, 1, 2], [1, 2, 2, 2], [2, 2, 2, 2]], np.uint8)
SCENE = DatasetScene("s", "s.tif", WKT, tuple(TRANSFORM[:6]), 4, 4, 10.0)


def raster(path, values):
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=4, width=4, dtype="uint8", nodata=255, crs=UTM, transform=TRANSFORM
    ) as dataset:
        dataset.write(values[None])
    return RasterSource(str(path))


def dataset(folder):
    """Write a dataset whose training patch covers the 2 x 2 pixels of the upper left corner."""
    folder.mkdir()
    with rasterio.open(folder / "labels.tif", "w", driver="GTiff", count=1, height=2, width=1, dtype="uint8") as labels:
        labels.write(np.ones((1, 2, 1), np.uint8))
    with rasterio.open(folder / "source1.tif", "w", driver="GTiff", count=1, height=4, width=2, dtype="uint8") as file:
        file.write(np.ones((1, 4, 2), np.uint8))
    geopandas.GeoDataFrame(
        {"patch": [0, 1], "class_id": [1, 1], "class_name": ["", ""], "split": ["train", "test"],
         "accepted": [True] * 2, "reason": ["", ""], "row": [1, 3], "col": [1, 3], "originfid": [-1, -1]},
        geometry=[shapely.Point(0, 0)] * 2, crs=UTM,
    ).to_file(folder / "patches.gpkg", driver="GPKG")  # fmt: skip
    band = DatasetBand("", None, 1.0, 0.0, False, 0.0, 1.0)
    source = DatasetSource("source1.tif", 2, "uint8", (band,))
    write_description(str(folder), DatasetDescription((source,), (ClassEntry(1, "A", "#ff0000"),), SCENE, 2, {"1": 2}))
    return str(folder)


class Card:
    """What is read of a model's card."""

    def __init__(self, created="2020-01-01T00:00:00+00:00", output="patch", **training):
        self.created, self.output, self.training, self.settings = created, output, training, {}


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """Model files by name, each with its card; and a map that 'model' made."""
    known = {}
    monkeypatch.setattr(trainingfield, "read_card", lambda path: known[Path(path).stem])
    for name in ("model", "other"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"weights")
    raster(tmp_path / "map.tif", MAP)
    write_job(tmp_path)
    return known


def write_job(folder, *more):
    models = [str(folder / f"{name}.safetensors") for name in ("model", *more)]
    source = RasterSource(str(folder / "s.tif"))
    jobfiles.write_job_file(Classify(source, models[0], str(folder / "map.tif"), more_models=tuple(models[1:])))


@pytest.fixture
def job(tmp_path, cards):
    return Assess(
        RasterSource(str(tmp_path / "map.tif")), str(tmp_path / "r.html"),
        reference=raster(tmp_path / "reference.tif", REFERENCE),
    )  # fmt: skip


def field_at(*places, **scene):
    """Return a card's field of 2 x 2 patches around pixels."""
    rows, cols = np.array(places).T
    return written([patch_ground(replace(SCENE, **scene), rows, cols, 2)])


CORNER = (slice(0, 2), slice(0, 2))


def test_the_card_tells_the_field_and_its_pixels_are_left_out(cards, job):
    cards["model"] = Card(field=field_at((1, 1)))
    counted = assess(job, Context())
    assert (counted.shared_pixels, counted.sample_count) == (4, 16)
    assert any("4 of 16 reference pixels (25.0 %) lie in the training area" in w for w in counted.warnings)
    page = Path(counted.output).read_text(encoding="utf-8")
    assert "<th>Reference pixels in the training area</th><td>4</td>" in page
    left = assess(replace(job, leave_out_training=True), Context())
    outside = np.ones((4, 4), bool)
    outside[CORNER] = False
    expected = np.zeros((2, 2), int)
    np.add.at(expected, (REFERENCE[outside] - 1, MAP[outside] - 1), 1)
    assert left.metrics["matrix"] == expected.tolist() and (left.shared_pixels, left.sample_count) == (4, 12)
    assert left.kappa == pytest.approx(scores(expected).kappa) and left.metrics["left_out"] == 4
    assert left.overall_accuracy == pytest.approx((MAP == REFERENCE)[outside].mean()) != counted.overall_accuracy
    assert not any("training area" in text for text in left.warnings)
    page = Path(left.output).read_text(encoding="utf-8")
    assert "<th>Reference pixels in the training area</th><td>4, left out</td>" in page


def test_of_windows_it_is_said_how_many_pixels_carried_a_label(cards, job):
    counts = {"training": {"1": 1, "2": 0}, "validation": {"1": 1}, "test": {"2": 9}}
    cards["model"] = Card(field=field_at((1, 1)), output="pixels", counts=counts)
    result = assess(job, Context())
    assert (
        "4 of 16 reference pixels (25.0 %) lie inside the windows that the map's model was trained in, in which 2 "
        "labelled pixels trained or validated it: on what carried a label the accuracy is better than "
        "elsewhere. Use reference samples apart from them, or set LEAVE_OUT_TRAINING to true." in result.warnings
    )
    page = Path(result.output).read_text(encoding="utf-8")
    assert "<th>Reference pixels inside the windows of the training</th><td>4</td>" in page
    # What an earlier training counted, or another model, is not known.
    for change in ({"settings": {"initial_model": "m"}}, {"training": {"field": field_at((1, 1))}}):
        cards["model"] = Card(field=field_at((1, 1)), output="pixels", counts=counts)
        vars(cards["model"]).update(change)
        text = next(text for text in assess(job, Context()).warnings if "inside the windows" in text)
        assert "trained in: on what" in text


def test_leaving_out_is_no_remedy_where_nothing_of_a_class_would_be_left(tmp_path, cards, job):
    cards["model"] = Card(field=field_at((1, 1)))
    values = np.where(np.arange(16).reshape(4, 4) == 5, 1, 2).astype(np.uint8)
    result = assess(replace(job, reference=raster(tmp_path / "few.tif", values)), Context())
    told = next(text for text in result.warnings if "lie in the training area" in text)
    assert told.endswith("Use reference samples apart from it; LEAVE_OUT_TRAINING would leave none of 'Class 1'.")


def test_polygons_and_eroded_pixels_are_left_out_of_all_scores(tmp_path, cards, job):
    cards["model"] = Card(field=field_at((1, 1)))
    polygon = geopandas.GeoDataFrame(
        {"c": [1, 2]}, crs=UTM,
        geometry=[shapely.box(x, 9_799_960, x + 20, 9_800_000) for x in (500_000, 500_020)],
    )  # fmt: skip
    polygon.to_file(tmp_path / "p.gpkg", driver="GPKG")
    samples = replace(
        job, reference=None, samples=VectorSource(str(tmp_path / "p.gpkg")), field="c", erode=1, leave_out_training=True
    )
    result = assess(samples, Context())
    # Of the left polygon 2 x 2 pixels are left; 4 columns, of which the middle two are near the other class.
    assert result.metrics["whole"]["samples"] == 12 and result.sample_count == 6 and result.metrics["eroded"] == 6
    assert result.metrics["left_out"] == 4 and result.groups == 2


def test_several_models_and_scenes_are_one_field(tmp_path, cards, job):
    write_job(tmp_path, "other")
    east = (10.0, 0.0, 500_020.0, 0.0, -10.0, 9_800_000.0)
    cards["model"] = Card(field=field_at((1, 1)))
    two = [patch_ground(replace(SCENE, transform=east), np.array([1]), np.array([1]), 2)]
    cards["other"] = Card(field=written([*two, patch_ground(SCENE, np.array([3]), np.array([3]), 2)]))
    result = assess(replace(job, leave_out_training=True), Context())
    assert (result.metrics["left_out"], result.sample_count) == (12, 4)
    cards["other"] = Card()
    context = Context()
    result = assess(replace(job, leave_out_training=True), context)
    assert result.metrics["left_out"] == 4
    assert any("known in part only: the model 'other.safetensors' does not tell" in text for text in context.warnings)
    assert "at least 4, left out: the model" in Path(result.output).read_text(encoding="utf-8")


def test_nothing_left_is_one_sentence(cards, job):
    cards["model"] = Card(field=field_at((1, 1), (1, 3), (3, 1), (3, 3)))
    with pytest.raises(BadInput) as caught:
        assess(replace(job, leave_out_training=True), Context())
    assert caught.value.message == (
        "Nothing of 'reference.tif' is left to compare: 16 of its labelled pixels lie in the training area."
    )
    assert caught.value.remedy.endswith("or set LEAVE_OUT_TRAINING to false.") and not Path(job.output).exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("map", "no job file beside the map tells its model"),
        ("model", "its model 'model.safetensors' cannot be read any more"),
        ("later", "its model 'model.safetensors' was trained anew since"),
        ("old", "the model 'model.safetensors' does not tell where it learned"),
        ("imported", "the card of 'model.safetensors' does not tell where 'patches' lies"),
    ],
)
def test_a_model_that_does_not_know_its_field_says_so(tmp_path, cards, job, monkeypatch, change, reason):
    cards["model"] = Card(field=field_at((1, 1)))
    if change == "map":
        (tmp_path / "map.job.json").unlink()
    elif change == "model":

        def gone(path):
            raise BadInput(f"The model '{path}' does not exist.")

        monkeypatch.setattr(trainingfield, "read_card", gone)
    elif change == "later":
        cards["model"] = Card("2999-01-01T00:00:00+00:00", field=field_at((1, 1)))
    elif change == "old":
        cards["model"] = Card()
    else:
        cards["model"] = Card(field=field_at((1, 1), label="patches", width=0))
    result = assess(job, Context())
    assert (result.shared_pixels, result.sample_count) == (0, 16)
    page = Path(result.output).read_text(encoding="utf-8").replace("&#39;", "'")
    assert f"in the training area</th><td>not known: {reason}</td>" in page
    with pytest.raises(BadInput) as caught:
        assess(replace(job, leave_out_training=True), Context())
    assert caught.value.message == f"LEAVE_OUT_TRAINING cannot leave anything out of 'map.tif': {reason}."
    assert "TRAINING" in caught.value.remedy


def older(folder, cards):
    """Make the model one of an older version: the job file beside it names its dataset, the card the content."""
    patches = dataset(folder / "patches")
    jobfiles.write_job_file(TrainClassifier(patches, str(folder / "model.safetensors")))
    cards["model"] = Card(datasets={"training": {"hash": PatchDataset(patches).content_hash()}})
    return patches


def test_of_older_models_the_dataset_is_found(tmp_path, cards, job):
    older(tmp_path, cards)
    result = assess(replace(job, leave_out_training=True), Context())
    assert (result.metrics["left_out"], result.sample_count) == (4, 12)


def test_a_dataset_that_is_named_goes_first(tmp_path, cards, job):
    cards["model"] = Card(field=field_at((3, 3)))
    result = assess(replace(job, training=dataset(tmp_path / "named"), leave_out_training=True), Context())
    assert result.metrics["matrix"] == [[1, 3], [3, 5]]


@pytest.mark.parametrize("change", ["model", "dataset", "gone", "broken"])
def test_what_is_not_known_is_not_guessed(tmp_path, cards, job, change):
    patches = Path(older(tmp_path, cards))
    if change == "model":
        (tmp_path / "model.job.json").unlink()
    elif change == "dataset":
        with open(patches / "labels.tif", "ab") as file:
            file.write(b"0")
    elif change == "gone":
        (patches / "dataset.json").unlink()
    else:
        (tmp_path / "model.job.json").write_text(json.dumps({"format": "other"}))
    assert trainingfield.dataset_of_model(str(tmp_path / "model.safetensors")) == ""
    assert assess(job, Context()).shared_pixels == 0


def test_a_map_of_another_crs_is_compared_on_the_ground(tmp_path, cards, job):
    degrees = geopandas.GeoSeries([shapely.Point(500_020, 9_799_980)], crs=UTM).to_crs("EPSG:4326").iloc[0]
    wkt = rasterio.crs.CRS.from_epsg(4326).to_wkt()
    cell = 20 / 111_000
    cards["model"] = Card(
        field=field_at(
            (1, 1), crs=wkt, transform=(cell / 2, 0.0, degrees.x - cell, 0.0, -cell / 2, degrees.y + cell), label="deg"
        )
    )
    # The patch reaches from the north-west corner to the middle of the map.
    result = assess(replace(job, leave_out_training=True), Context())
    assert result.metrics["left_out"] == 4 and result.metrics["matrix"] == [[1, 3], [3, 5]]
