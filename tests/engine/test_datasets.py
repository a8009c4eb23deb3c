"""Patch datasets: what is read back, and what is said of a folder that is none or is broken."""

import json
import shutil

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from deepscape.engine.datasets import PatchDataset
from deepscape.engine.patches import extract_patches
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import ExtractPatches, RasterSource, VectorSource
from rasterio.transform import from_origin


@pytest.fixture
def folder(tmp_path):
    image = np.arange(2 * 9 * 9).reshape(2, 9, 9).astype("int16")
    with rasterio.open(
        tmp_path / "i.tif", "w", driver="GTiff", width=9, height=9, count=2, dtype="int16", nodata=-1,
        crs="EPSG:32654", transform=from_origin(0, 90, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(image)
    frame = geopandas.GeoDataFrame(
        {"class_id": [4, 2, 4]}, geometry=geopandas.points_from_xy([45, 5, 55], [45, 85, 55]), crs="EPSG:32654"
    )
    pyogrio.write_dataframe(frame, tmp_path / "p.gpkg")
    job = ExtractPatches(
        RasterSource(str(tmp_path / "i.tif")), VectorSource(str(tmp_path / "p.gpkg")), "class_id", str(tmp_path / "d"),
        patch_size=3,
    )  # fmt: skip
    extract_patches(job, Context())
    return tmp_path / "d"


def test_a_dataset_reads_back_by_folder_and_by_description(folder):
    for path in (folder, folder / "dataset.json"):
        dataset = PatchDataset(str(path))
        assert len(dataset) == 2 and dataset.labels.tolist() == [4, 4]
        assert dataset.rows.tolist() == [4, 3] and dataset.cols.tolist() == [4, 5]
        assert dataset.groups.tolist() == [-1, -1] and dataset.splits.tolist() == ["", ""]
        assert dataset.patches().shape == (2, 2, 3, 3) and dataset.patches()[0, 1, 1, 1] == 81 + 40
        assert not dataset.patches().flags.writeable
    assert [entry.value for entry in dataset.description.classes] == [4]
    assert dataset.description.counts == {"4": 2} and dataset.description.edge == "reject"


def test_physical_values_are_nan_where_no_data(folder):
    dataset = PatchDataset(str(folder))
    raw = np.full((1, 2, 3, 3), 5, "int16")
    raw[0, 0, 0, 0] = -1
    assert np.argwhere(np.isnan(dataset.physical(raw))).tolist() == [[0, 0, 0, 0]]


def test_a_computed_band_has_no_say_in_what_all_bands_are(folder):
    description = json.loads((folder / "dataset.json").read_text())
    source = description["sources"][0]
    source["nodata_rule"] = "all"
    source["bands"].append({**source["bands"][1], "name": "x", "nodata": "nan", "expression": "B1 / B2"})
    (folder / "dataset.json").write_text(json.dumps(description))
    raw = np.full((1, 3, 3, 3), 5, "float32")
    raw[0, :, 0, 0] = -1, -1, np.nan
    raw[0, :, 1, 1] = -1, 5, 0.2
    physical = PatchDataset(str(folder)).physical(raw)
    assert np.argwhere(np.isnan(physical)).tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0]]


def test_the_content_hash_follows_the_content(folder, tmp_path):
    first = PatchDataset(str(folder)).content_hash()
    shutil.copytree(folder, tmp_path / "copy")
    assert PatchDataset(str(tmp_path / "copy")).content_hash() == first and first.startswith("sha256:")
    with open(tmp_path / "copy" / "source1.tif", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x77")
    assert PatchDataset(str(tmp_path / "copy")).content_hash() != first


def test_broken_datasets_are_named(folder, tmp_path):
    def refused(path):
        with pytest.raises(BadInput) as caught:
            PatchDataset(str(path)).patches()
        return str(caught.value)

    def changed(**fields):
        data = json.loads(text)
        data.update(fields)
        (folder / "dataset.json").write_text(json.dumps(data))
        return refused(folder)

    assert "is not a patch dataset" in refused(tmp_path)
    assert "is not a patch dataset" in refused(tmp_path / "absent")
    assert "is not a patch dataset" in refused(tmp_path / "i.tif")
    text = (folder / "dataset.json").read_text()
    assert "newer Deepscape" in changed(format=99)
    assert "has no field 'colour'" in changed(colour=1)
    assert "3 patches are described, 2 are listed" in changed(patch_count=3)
    (folder / "dataset.json").write_text("{")
    assert "is damaged" in refused(folder)
    (folder / "dataset.json").write_text(text)
    stack = (folder / "source1.tif").read_bytes()
    (folder / "source1.tif").write_bytes(stack[:-10])
    assert "source1.tif' is cut short: " in refused(folder)
    with rasterio.open(folder / "source1.tif", "w", driver="GTiff", width=3, height=4, count=2, dtype="int16"):
        pass
    assert "holds 2 bands of 3 x 4 pixels instead of 2 of 3 x 6" in refused(folder)
    (folder / "labels.tif").unlink()
    assert "is incomplete" in refused(folder)
