"""Extracting patches: the footprint rule, values equal to the image windows, no-data, and the folder that comes out."""

import errno
import os
import re
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from deepscape.engine import patches
from deepscape.engine.datasets import FOOTPRINT_FIELDS, PatchDataset
from deepscape.engine.patches import extract_patches
from deepscape.engine.rasters import RasterReader
from deepscape.tasks.classtable import ClassEntry, Legend
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, DiskFull, JobCancelled
from deepscape.tasks.jobs import ExtractPatches, RasterSource, VectorSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

SCENE = str(Path(__file__).parents[2] / "demo" / "data" / "sen2.tif")


def write_raster(path, array, nodata=None, crs="EPSG:32654", **tags):
    array = np.atleast_3d(array) if array.ndim == 3 else array[None]
    with rasterio.open(
        path, "w", driver="GTiff", width=array.shape[2], height=array.shape[1], count=len(array), dtype=array.dtype,
        nodata=nodata, crs=crs, transform=from_origin(500000, 4000000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(array)
        if tags:
            dataset.scales, dataset.offsets = tags["scales"], tags["offsets"]
    return RasterSource(str(path))


def write_points(path, rows, cols, crs="EPSG:32654", transform=None, **fields):
    transform = transform or from_origin(500000, 4000000, 10, 10)
    fields = fields or {"class_id": np.ones(len(rows), int)}
    x, y = transform * (np.asarray(cols) + 0.5, np.asarray(rows) + 0.5)
    frame = geopandas.GeoDataFrame(fields, geometry=geopandas.points_from_xy(x, y), crs=crs)
    pyogrio.write_dataframe(frame, path)
    return VectorSource(str(path))


def counting(bands, height, width, dtype="uint16"):
    return np.arange(bands * height * width).reshape(bands, height, width).astype(dtype)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_patches_equal_the_image_windows_for_odd_and_even_sizes(tmp_path, data):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    size = data.draw(st.integers(1, 12))
    edge = data.draw(st.sampled_from(["reject", "reflect"]))
    count = data.draw(st.integers(1, 20))
    rows = np.array(data.draw(st.lists(st.integers(0, height - 1), min_size=count, max_size=count)))
    cols = np.array(data.draw(st.lists(st.integers(0, width - 1), min_size=count, max_size=count)))
    image = counting(2, height, width)
    source = write_raster(tmp_path / "i.tif", image)
    samples = write_points(tmp_path / "p.gpkg", rows, cols, class_id=np.arange(count))
    inside = (rows - size // 2 >= 0) & (rows - size // 2 + size <= height)
    inside &= (cols - size // 2 >= 0) & (cols - size // 2 + size <= width)
    if edge == "reflect":
        inside[:] = True
    job = ExtractPatches(source, samples, "class_id", str(tmp_path / "d"), patch_size=size, edge=edge)
    if not inside.any():
        with pytest.raises(BadInput):
            extract_patches(job, Context())
        return
    result = extract_patches(job, Context())
    dataset = PatchDataset(result.output)
    assert (result.accepted, result.rejected) == (inside.sum(), count - inside.sum())
    assert dataset.labels.tolist() == np.flatnonzero(inside).tolist()
    assert dataset.rows.tolist() == rows[inside].tolist()
    far = np.pad(image, ((0, 0), (12, 12), (12, 12)), mode="reflect")
    top, left = rows[inside] - size // 2 + 12, cols[inside] - size // 2 + 12
    expected = np.stack([far[:, r : r + size, c : c + size] for r, c in zip(top, left)])
    np.testing.assert_array_equal(dataset.patches(), expected)
    # The sample's own pixel stands at p // 2.
    centre = dataset.patches()[:, :, size // 2, size // 2]
    np.testing.assert_array_equal(centre, image[:, rows[inside], cols[inside]].T)


def test_patches_of_the_demo_scene_are_its_windows_and_statistics_its_own(tmp_path):
    with rasterio.open(SCENE) as dataset:
        image, transform, crs = dataset.read(), dataset.transform, dataset.crs
    rows, cols = (part.ravel() for part in np.mgrid[0:237:7, 0:247:7])
    samples = write_points(tmp_path / "p.gpkg", rows, cols, crs=crs, transform=transform)
    job = ExtractPatches(RasterSource(SCENE), samples, "class_id", str(tmp_path / "d"), patch_size=16)
    result = extract_patches(job, Context())
    dataset = PatchDataset(result.output)
    assert result.accepted + result.rejected == len(rows)
    for patch, row, col in zip(dataset.patches(), dataset.rows, dataset.cols):
        assert patch.tobytes() == image[:, row - 8 : row + 8, col - 8 : col + 8].tobytes()
    bands = dataset.description.sources[0].bands
    assert [band.name for band in bands][-3:] == ["B9", "B11", "B12"]
    np.testing.assert_allclose([band.scene_mean for band in bands], image.mean(axis=(1, 2), dtype=float), rtol=1e-6)
    np.testing.assert_allclose([band.scene_std for band in bands], image.std(axis=(1, 2), dtype=float), rtol=1e-6)
    assert dataset.description.scene.res_m == pytest.approx(10, rel=0.01)
    assert result.classes == (ClassEntry(1, "Class 1", result.classes[0].colour),)


def test_sparse_samples_of_a_large_block_are_read_one_by_one_with_the_same_values(tmp_path):
    image = counting(1, 700, 700, "int32")
    source = write_raster(tmp_path / "i.tif", image)
    rows, cols = np.array([3, 696, 350, 3]), np.array([696, 3, 350, 696])
    job = ExtractPatches(
        source, write_points(tmp_path / "p.gpkg", rows, cols), "class_id", str(tmp_path / "d"), patch_size=7
    )
    patches = PatchDataset(extract_patches(job, Context()).output).patches()
    for patch, row, col in zip(patches, rows, cols):
        np.testing.assert_array_equal(patch, image[:, row - 3 : row + 4, col - 3 : col + 4])


@pytest.mark.parametrize(
    ("rule", "max_nodata", "accepted"), [("any", 0, [0]), ("any", 0.2, [0, 1, 2]), ("all", 0, [0, 1])]
)
def test_no_data_rejects_by_rule_and_share(tmp_path, rule, max_nodata, accepted):
    image = np.full((2, 5, 20), 7, "uint8")
    image[0, 0, 6] = 0  # one band of a pixel in patch 1
    image[:, 0, 11] = 0  # both bands of a pixel in patch 2
    image[:, 2, 17] = 0  # the centre of patch 3
    source = write_raster(tmp_path / "i.tif", image, nodata=0)
    samples = write_points(tmp_path / "p.gpkg", [2] * 4, [2, 7, 12, 17], class_id=[0, 1, 2, 3])
    job = ExtractPatches(
        source, samples, "class_id", str(tmp_path / "d"), patch_size=5, nodata_rule=rule, max_nodata=max_nodata
    )
    result = extract_patches(job, Context())
    assert PatchDataset(result.output).labels.tolist() == accepted
    assert result.rejected == 4 - len(accepted)
    table = pyogrio.read_dataframe(tmp_path / "d" / "patches.gpkg")
    assert list(table.loc[table["patch"] < 0, "reason"]) == ["no-data"] * result.rejected


def test_nan_and_a_mask_band_are_no_data_and_marked_in_the_stack(tmp_path):
    image = np.full((1, 5, 12), 2.5, "float32")
    image[0, 0, 0] = np.nan
    samples = write_points(tmp_path / "p.gpkg", [2, 2], [2, 8])
    job = ExtractPatches(
        write_raster(tmp_path / "nan.tif", image), samples, "class_id", str(tmp_path / "d"), patch_size=5
    )
    assert extract_patches(job, Context()).accepted == 1

    source = write_raster(tmp_path / "mask.tif", np.full((1, 5, 12), 9, "uint8"))
    with rasterio.open(source.path, "r+") as dataset:
        mask = np.full((5, 12), 255, "uint8")
        mask[0, 0] = 0
        dataset.write_mask(mask)
    job = ExtractPatches(source, samples, "class_id", str(tmp_path / "d"), patch_size=5, max_nodata=0.1)
    dataset = PatchDataset(extract_patches(job, Context()).output)
    values = dataset.physical(dataset.patches())
    assert np.argwhere(np.isnan(values)).tolist() == [[0, 0, 0, 0]]
    assert np.nanmax(values) == 9


def test_scale_and_offset_of_the_file_and_of_the_user(tmp_path):
    image = np.array([[[1000, 3000]], [[10, 30]]], "uint16")
    source = write_raster(tmp_path / "i.tif", image, scales=(0.0001, 1), offsets=(-0.1, 0))
    samples = write_points(tmp_path / "p.gpkg", [0], [1])
    own = PatchDataset(
        extract_patches(
            ExtractPatches(source, samples, "class_id", str(tmp_path / "d"), patch_size=1), Context()
        ).output
    )
    np.testing.assert_allclose(own.physical(own.patches()).ravel(), [0.2, 30], rtol=1e-6)
    band = own.description.sources[0].bands[0]
    assert (band.explicit, band.scene_mean, band.scene_std) == (False, pytest.approx(0.1), pytest.approx(0.1))
    job = ExtractPatches(source, samples, "class_id", str(tmp_path / "d"), patch_size=1, scale=0.01)
    given_by_user = PatchDataset(extract_patches(job, Context()).output)
    np.testing.assert_allclose(given_by_user.physical(given_by_user.patches()).ravel(), [29.9, 0.3], rtol=1e-6)
    assert given_by_user.description.sources[0].bands[1].explicit


def test_footprints_split_and_polygon_of_origin(tmp_path):
    source = write_raster(tmp_path / "i.tif", counting(1, 20, 20))
    samples = write_points(
        tmp_path / "p.gpkg", [10, 0, 10, 99], [10, 10, 5, 0], crop=["maize", "wheat", "wheat", "maize"],
        split=["train", "test", "validation", "train"], originfid=[4, 5, 6, 4],
    )  # fmt: skip
    job = ExtractPatches(
        source, samples, "crop", str(tmp_path / "d"), footprints=str(tmp_path / "foot prints"), patch_size=4
    )
    result = extract_patches(job, Context())
    assert result.footprints == str(tmp_path / "foot prints.gpkg")
    assert result.counts == {"1": 1, "2": 1}
    assert [(entry.value, entry.name) for entry in result.classes] == [(1, "maize"), (2, "wheat")]
    table = pyogrio.read_dataframe(result.footprints)
    assert tuple(table.columns) == (*FOOTPRINT_FIELDS, "geometry")
    assert list(table["patch"]) == [0, -1, 1, -1]
    assert list(table["reason"]) == ["", "over the edge", "", "outside the raster"]
    assert list(table["accepted"]) == [True, False, True, False]
    assert table.geometry.iloc[0].bounds == (500080, 3999880, 500120, 3999920)
    dataset = PatchDataset(result.output)
    assert dataset.splits.tolist() == ["train", "validation"]
    assert dataset.groups.tolist() == [4, 6]


def test_samples_in_another_crs_are_reprojected_and_without_one_assumed(tmp_path):
    image = counting(1, 30, 30)
    source = write_raster(tmp_path / "i.tif", image)
    here = write_points(tmp_path / "p.gpkg", [7, 20], [9, 3])
    frame = pyogrio.read_dataframe(here.path)
    pyogrio.write_dataframe(frame.to_crs(4326), tmp_path / "w.gpkg")
    pyogrio.write_dataframe(frame.set_crs(None, allow_override=True), tmp_path / "n.gpkg")
    for name, warned in (("w", 0), ("n", 1)):
        context = Context()
        job = ExtractPatches(
            source, VectorSource(str(tmp_path / f"{name}.gpkg")), "class_id", str(tmp_path / name), patch_size=1
        )
        patches = PatchDataset(extract_patches(job, context).output).patches()
        assert patches.ravel().tolist() == image[0, [7, 20], [9, 3]].tolist()
        assert len(context.warnings) == warned
        assert all("'n.gpkg' has no CRS" in text and "EPSG:32654" in text for text in context.warnings)


def test_stack_opens_as_one_raster_of_patches_and_labels_keep_large_ids(tmp_path):
    source = write_raster(tmp_path / "i.tif", counting(3, 9, 9))
    samples = write_points(tmp_path / "p.gpkg", [4, 5], [4, 5], class_id=[-3, 70000])
    extract_patches(ExtractPatches(source, samples, "class_id", str(tmp_path / "d"), patch_size=3), Context())
    with rasterio.open(tmp_path / "d" / "source1.tif") as stack, rasterio.open(tmp_path / "d" / "labels.tif") as labels:
        assert (stack.count, stack.height, stack.width) == (3, 6, 3)
        np.testing.assert_array_equal(stack.read()[:, 3:], counting(3, 9, 9)[:, 4:7, 4:7])
        assert labels.read(1).tolist() == [[-3], [70000]]


def test_bands_and_stack_and_a_no_data_number_beyond_the_type(tmp_path):
    image = counting(3, 9, 9, "uint8")
    write_raster(tmp_path / "i.tif", image)
    source = RasterSource(str(tmp_path / "i.tif"), stack=(str(tmp_path / "i.tif"),), bands=(3, 1), nodata=-9999)
    samples = write_points(tmp_path / "p.gpkg", [4], [4])
    job = ExtractPatches(source, samples, "class_id", str(tmp_path / "d"), patch_size=1)
    patches = PatchDataset(extract_patches(job, Context()).output).patches()
    assert patches.ravel().tolist() == image[[2, 0, 0, 1, 2], 4, 4].tolist()


def test_an_older_dataset_is_replaced_and_other_folders_are_left_alone(tmp_path):
    source = write_raster(tmp_path / "i.tif", counting(1, 9, 9))
    samples = write_points(tmp_path / "p.gpkg", [4, 5], [4, 5])
    target = tmp_path / "données 1"
    for size in (1, 3):
        extract_patches(ExtractPatches(source, samples, "class_id", str(target), patch_size=size), Context())
        assert PatchDataset(str(target)).patches().shape[-1] == size
    (target / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"notes.txt"):
        extract_patches(ExtractPatches(source, samples, "class_id", str(target)), Context())
    assert (target / "notes.txt").read_text() == "mine"
    with pytest.raises(BadInput, match=r"not a folder|is a file"):
        extract_patches(ExtractPatches(source, samples, "class_id", samples.path), Context())
    with pytest.raises(BadInput, match=r"does not exist"):
        extract_patches(ExtractPatches(source, samples, "class_id", str(tmp_path / "no" / "d")), Context())
    assert sorted(os.listdir(tmp_path)) == ["données 1", "i.tif", "p.gpkg"]


def test_bad_samples_are_refused_with_a_sentence_and_nothing_is_left(tmp_path):
    source = write_raster(tmp_path / "i.tif", counting(1, 9, 9), nodata=40)
    samples = write_points(tmp_path / "p.gpkg", [4, 0, 80], [4, 0, 0], class_id=[1, 2, 3])
    target = str(tmp_path / "d")
    with pytest.raises(BadInput, match=r"99 x 99 pixels is larger than 'i.tif' \(9 x 9\)"):
        extract_patches(ExtractPatches(source, samples, "class_id", target, patch_size=99), Context())
    with pytest.raises(BadInput, match=r"No patch is accepted: 1 no-data, 1 over the edge, 1 outside the raster"):
        extract_patches(ExtractPatches(source, samples, "class_id", target, patch_size=3), Context())
    with pytest.raises(BadInput, match=r"no field 'klass'.*class_id"):
        extract_patches(ExtractPatches(source, samples, "klass", target), Context())
    frame = pyogrio.read_dataframe(samples.path)
    pyogrio.write_dataframe(frame.set_geometry(frame.buffer(20)), tmp_path / "a.gpkg")
    with pytest.raises(BadInput, match=r"Polygon features, not points.*selectvectorsamples"):
        extract_patches(ExtractPatches(source, VectorSource(str(tmp_path / "a.gpkg")), "class_id", target), Context())
    cancelled = Context()
    cancelled.cancelled.set()
    with pytest.raises(JobCancelled):
        extract_patches(ExtractPatches(source, samples, "class_id", target, patch_size=1), cancelled)
    assert sorted(os.listdir(tmp_path)) == ["a.gpkg", "i.tif", "p.gpkg"]


def test_a_small_raster_is_reflected_and_classes_are_kept_and_named(tmp_path):
    source = write_raster(tmp_path / "i.tif", counting(1, 1, 2))
    samples = write_points(tmp_path / "p.gpkg", [0, 0], [0, 1], class_id=[0, 5])
    legend = Legend(nomenclature="tokyo")
    job = ExtractPatches(
        source, samples, "class_id", str(tmp_path / "d"), patch_size=5, edge="reflect", classes=(5,), legend=legend
    )
    result = extract_patches(job, Context())
    patch = PatchDataset(result.output).patches()[0, 0]
    np.testing.assert_array_equal(patch, np.tile([1, 0, 1, 0, 1], (5, 1)))
    assert result.warnings[0].startswith("A patch of 5 x 5 pixels is larger than 'i.tif' (2 x 1).")
    assert [(entry.value, entry.colour) for entry in result.classes] == [(5, "#a15c44")]


def test_reading_counts_every_pixel_of_a_dense_scene_about_once(tmp_path, monkeypatch):
    source = write_raster(tmp_path / "i.tif", counting(1, 300, 300))
    rows, cols = (part.ravel() for part in np.mgrid[0:300:3, 0:300:3])
    read = []
    whole = RasterReader.read
    monkeypatch.setattr(RasterReader, "read", lambda self, *a: read.append(a[2] * a[3]) or whole(self, *a))
    job = ExtractPatches(
        source, write_points(tmp_path / "p.gpkg", rows, cols), "class_id", str(tmp_path / "d"), edge="reflect"
    )
    assert extract_patches(job, Context()).accepted == 10000
    assert sum(read) < 2.2 * 300 * 300  # the patches and the scene statistics


def test_a_full_disk_leaves_the_earlier_dataset(tmp_path, monkeypatch):
    source = write_raster(tmp_path / "i.tif", counting(1, 9, 9))
    samples = write_points(tmp_path / "p.gpkg", [4], [4], class_id=[1])
    job = ExtractPatches(source, samples, "class_id", str(tmp_path / "d"), patch_size=3)
    before = PatchDataset(extract_patches(job, Context()).output).content_hash()

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(patches, "_write_stack", full)
    with pytest.raises(DiskFull, match=re.escape(f"No room is left in '{tmp_path}' to write 'd'.")):
        extract_patches(job, Context())
    assert PatchDataset(job.output).content_hash() == before
    assert sorted(os.listdir(tmp_path)) == ["d", "i.tif", "p.gpkg"]
