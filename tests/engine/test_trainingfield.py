"""The training dataset of a map, found by the files beside map and model."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from deepscape.engine.assessment import assess
from deepscape.engine.datasets import PatchDataset
from deepscape.engine.trainingfield import training_of_map
from deepscape.tasks import jobfiles
from deepscape.tasks.context import Context
from deepscape.tasks.jobs import Assess, Classify, RasterSource, TrainClassifier, VectorSource

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 9_800_000)


@pytest.fixture
def chain(tmp_path, monkeypatch):
    """A map, its model's job file and a dataset whose only patch covers the 2 x 2 pixels of the upper left corner."""
    folder = tmp_path / "patches"
    folder.mkdir()
    with rasterio.open(folder / "labels.tif", "w", driver="GTiff", count=1, height=1, width=1, dtype="uint8") as labels:
        labels.write(np.ones((1, 1, 1), np.uint8))
    with rasterio.open(folder / "source1.tif", "w", driver="GTiff", count=1, height=2, width=2, dtype="uint8") as file:
        file.write(np.ones((1, 2, 2), np.uint8))
    geopandas.GeoDataFrame(
        {"patch": [0], "class_id": [1], "class_name": [""], "split": ["train"], "accepted": [True], "reason": [""],
         "row": [1], "col": [1], "originfid": [-1]},
        geometry=[shapely.Point(0, 0)], crs="EPSG:32721",
    ).to_file(folder / "patches.gpkg", driver="GPKG")  # fmt: skip
    from deepscape.engine.datasets import (
        DatasetBand,
        DatasetDescription,
        DatasetScene,
        DatasetSource,
        write_description,
    )
    from deepscape.tasks.classtable import ClassEntry

    band = DatasetBand("", None, 1.0, 0.0, False, 0.0, 1.0)
    scene = DatasetScene("s", "s.tif", rasterio.crs.CRS.from_epsg(32721).to_wkt(), tuple(TRANSFORM[:6]), 4, 4, 10.0)
    write_description(
        str(folder),
        DatasetDescription(
            (DatasetSource("source1.tif", 2, "uint8", (band,)),), (ClassEntry(1, "A", "#ff0000"),), scene, 1, {"1": 1}
        ),
    )
    with rasterio.open(
        tmp_path / "map.tif", "w", driver="GTiff", count=1, height=4, width=4, dtype="uint8", nodata=255,
        crs="EPSG:32721", transform=TRANSFORM,
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((1, 4, 4), np.uint8))
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    jobfiles.write_job_file(Classify(RasterSource(str(tmp_path / "s.tif")), str(model), str(tmp_path / "map.tif")))
    jobfiles.write_job_file(TrainClassifier(str(folder), str(model)))
    card = type(
        "Card", (), {"training": {"datasets": {"training": {"hash": PatchDataset(str(folder)).content_hash()}}}}
    )
    monkeypatch.setattr("deepscape.engine.trainingfield.read_card", lambda path: card)
    return tmp_path


def test_the_dataset_of_the_map_is_found_and_its_pixels_counted(chain):
    assert Path(training_of_map(str(chain / "map.tif"))) == chain / "patches"
    frame = geopandas.GeoDataFrame({"c": [1]}, geometry=[shapely.box(500_001, 9_799_961, 500_039, 9_799_999)])
    frame.set_crs("EPSG:32721").to_file(chain / "p.gpkg", driver="GPKG")
    job = Assess(RasterSource(str(chain / "map.tif")), samples=VectorSource(str(chain / "p.gpkg")), field="c")
    result = assess(job, Context())
    assert (result.shared_pixels, result.sample_count) == (4, 16)


@pytest.mark.parametrize("change", ["map", "model", "dataset", "gone", "broken"])
def test_what_is_not_known_is_not_guessed(chain, change):
    if change == "map":
        (chain / "map.job.json").unlink()
    elif change == "model":
        (chain / "model.job.json").unlink()
    elif change == "dataset":
        with open(chain / "patches" / "labels.tif", "ab") as file:
            file.write(b"0")
    elif change == "gone":
        (chain / "patches" / "dataset.json").unlink()
    else:
        (chain / "model.job.json").write_text(json.dumps({"format": "other"}))
    assert training_of_map(str(chain / "map.tif")) == ""
