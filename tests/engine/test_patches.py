"""Extracting patches: the footprint rule, values equal to the image windows, no-data, and the folder that comes out."""

import dataclasses
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
from deepscape.engine.gridding import footprints, select_patches
from deepscape.engine.patches import extract_patches
from deepscape.engine.rasters import Grid, RasterReader
from deepscape.tasks.classtable import ClassEntry, Legend
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, DiskFull, JobCancelled
from deepscape.tasks.jobfiles import read_job_file, write_job_file
from deepscape.tasks.jobs import ExtractPatches, RasterSource, SelectPatches, VectorSource
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


def test_a_class_that_loses_many_samples_is_named(tmp_path):
    source = write_raster(tmp_path / "i.tif", counting(1, 40, 40))
    # Of twenty each: class 1 loses none, class 2 one, class 3 two, class 4 all.
    rows = [20] * 20 + [0] + [20] * 19 + [0] * 2 + [20] * 18 + [0] * 20
    samples = write_points(
        tmp_path / "p.gpkg", rows, [*range(10, 30)] * 4, crop=np.repeat(["barley", "maize", "rice", "wheat"], 20)
    )
    job = ExtractPatches(source, samples, "crop", str(tmp_path / "d"), patch_size=5)
    assert extract_patches(job, Context()).warnings == (
        "23 of 80 samples were rejected (23 over the edge): 20 of 20 of class 4 'wheat', 2 of 20 of class 3 'rice', 1 "
        "of 20 of class 2 'maize'. Choose a smaller PATCH_SIZE, or EDGE reflect.",
    )
    reflected = dataclasses.replace(job, output=str(tmp_path / "r"), edge="reflect")
    assert extract_patches(reflected, Context()).warnings == ()


def test_what_is_rejected_is_told_with_the_remedy_of_the_class_that_it_hits(tmp_path):
    image = counting(1, 40, 40)
    image[0, 20, 10] = 9999
    source = write_raster(tmp_path / "i.tif", image, nodata=9999)
    # Three of forty of class 1 lie over the edge, one of two of class 2 where the image has no data.
    samples = write_points(
        tmp_path / "p.gpkg", [0] * 3 + [30] * 37 + [20, 20], [10, 20, 30, *range(1, 38), 10, 30],
        class_id=[1] * 40 + [2] * 2,
    )  # fmt: skip
    context = Context()
    extract_patches(ExtractPatches(source, samples, "class_id", str(tmp_path / "d"), patch_size=2), context)
    assert context.warnings == [
        "4 of 42 samples were rejected (3 over the edge, 1 no-data): 1 of 2 of class 2 'Class 2', 3 of 40 of class 1 "
        "'Class 1'. Check NODATA and NODATA_RULE, or allow a share of no-data with MAX_NODATA."
    ]


def test_few_rejections_are_logged(tmp_path):
    source = write_raster(tmp_path / "i.tif", counting(1, 40, 40))
    samples = write_points(tmp_path / "p.gpkg", [0] + [20] * 19, range(10, 30))
    context, log = Context(), []
    context.log = log.append
    extract_patches(ExtractPatches(source, samples, "class_id", str(tmp_path / "d"), patch_size=5), context)
    assert context.warnings == []
    assert "1 of 20 samples were rejected (1 over the edge): 1 of 20 of class 1 'Class 1'." in log


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
    with pytest.raises(BadInput, match=r"\(3 of 3 .* covers 4 x 4 pixels of 'i.tif', .*is 9.*selectvectorsamples"):
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

    monkeypatch.setattr(patches.StackWriter, "write", full)
    with pytest.raises(DiskFull, match=re.escape(f"No room is left in '{tmp_path}' to write 'd'.")):
        extract_patches(job, Context())
    assert PatchDataset(job.output).content_hash() == before
    assert sorted(os.listdir(tmp_path)) == ["d", "i.tif", "p.gpkg"]


# --- footprints, labels of every pixel, several sources --------------------------------------------------------------


def write_squares(path, rows, cols, size, transform=None, **fields):
    transform = transform or from_origin(500000, 4000000, 10, 10)
    rows, cols = np.asarray(rows), np.asarray(cols)
    grid = Grid(0, 0, transform, None)
    squares = footprints(grid, rows, cols, size)
    frame = geopandas.GeoDataFrame(fields or {"row": rows}, geometry=squares, crs="EPSG:32654")
    pyogrio.write_dataframe(frame, path)
    return VectorSource(str(path))


def finer(path, image, times, nodata=None):
    """Write an image whose pixels are ``times`` smaller than those of `write_raster`, from the same corner on."""
    source = write_raster(path, image, nodata)
    with rasterio.open(path, "r+") as dataset:
        dataset.transform = from_origin(500000, 4000000, 10 / times, 10 / times)
    return source


def windows(image, rows, cols, size):
    return np.stack([image[:, r : r + size, c : c + size] for r, c in zip(rows, cols)])


def test_footprints_begin_at_their_first_pixel_however_they_came(tmp_path):
    image = counting(2, 40, 40)
    source = write_raster(tmp_path / "i.tif", image)
    selected = str(tmp_path / "s.gpkg")
    select_patches(SelectPatches(source, selected, patch_size=8, step=8, offset=-1, split="chessboard"), Context())
    frame = pyogrio.read_dataframe(selected)
    rows, cols = frame["row"].to_numpy(), frame["col"].to_numpy()
    pyogrio.write_dataframe(frame.to_crs(4326), tmp_path / "world.gpkg")
    pyogrio.write_dataframe(frame.drop(columns=["row", "col"]).dissolve("split").reset_index(), tmp_path / "multi.gpkg")
    for name in ("s", "world"):
        layer = VectorSource(str(tmp_path / f"{name}.gpkg"))
        job = ExtractPatches(
            source,
            layer,
            "",
            str(tmp_path / name),
            patch_size=8,
            labels=write_raster(tmp_path / "l.tif", image[:1] % 4),
        )
        result = extract_patches(job, Context())
        dataset = PatchDataset(result.output)
        np.testing.assert_array_equal(dataset.patches(), windows(image, rows, cols, 8))
        assert (dataset.rows - 4).tolist() == rows.tolist() and (dataset.cols - 4).tolist() == cols.tolist()
        assert dataset.splits.tolist() == frame["split"].tolist() and result.shared_patches == 0
        table = pyogrio.read_dataframe(tmp_path / name / "patches.gpkg")
        assert table.geometry.iloc[3].equals(frame.geometry.iloc[3])


@pytest.mark.parametrize(("size", "said"), [(7, "covers 8 x 8 pixels"), (16, "covers 8 x 8 pixels")])
def test_footprints_of_another_size_and_other_shapes_are_named(tmp_path, size, said):
    source = write_raster(tmp_path / "i.tif", counting(1, 40, 40))
    squares = write_squares(tmp_path / "s.gpkg", [0, 8], [0, 8], 8, class_id=[1, 2])
    with pytest.raises(BadInput, match=rf"2 of 2 .* {said} of 'i.tif', while PATCH_SIZE is {size}"):
        extract_patches(ExtractPatches(source, squares, "class_id", str(tmp_path / "d"), patch_size=size), Context())
    frame = pyogrio.read_dataframe(squares.path)
    pyogrio.write_dataframe(frame.set_geometry(frame.centroid.buffer(40)), tmp_path / "round.gpkg")
    job = ExtractPatches(
        source, VectorSource(str(tmp_path / "round.gpkg")), "class_id", str(tmp_path / "d"), patch_size=8
    )
    with pytest.raises(BadInput, match=r"no square of 8 x 8 pixels"):
        extract_patches(job, Context())
    mixed = geopandas.GeoDataFrame({"class_id": [1, 2]}, geometry=[frame.centroid[0], frame.geometry[1]], crs=frame.crs)
    pyogrio.write_dataframe(mixed, tmp_path / "mixed.gpkg", geometry_type="Unknown")
    job = ExtractPatches(source, VectorSource(str(tmp_path / "mixed.gpkg")), "class_id", str(tmp_path / "d"))
    with pytest.raises(BadInput, match=r"Polygon features, not only points"):
        extract_patches(job, Context())


def test_footprints_may_have_one_class_each_and_need_one_or_labels(tmp_path):
    source = write_raster(tmp_path / "i.tif", counting(1, 40, 40))
    squares = write_squares(tmp_path / "s.gpkg", [0, 8], [0, 8], 8, class_id=[4, 2])
    job = ExtractPatches(source, squares, "class_id", str(tmp_path / "d"), patch_size=8)
    assert PatchDataset(extract_patches(job, Context()).output).labels.tolist() == [4, 2]
    with pytest.raises(BadInput, match=r"FIELD is missing, and neither LABELS nor LABEL_FEATURES is given"):
        extract_patches(dataclasses.replace(job, field=""), Context())
    with pytest.raises(BadInput, match=r"footprints 's.gpkg' have no field 'kind'.* Give labels for every pixel"):
        extract_patches(dataclasses.replace(job, field="kind"), Context())


def test_dense_labels_lie_as_the_patches_do_with_ignored_pixels(tmp_path):
    image = counting(2, 30, 30)
    image[1, 5, 5] = 65535
    source = write_raster(tmp_path / "i.tif", image, nodata=65535)
    truth = np.where(np.arange(900).reshape(1, 30, 30) % 7 == 0, 255, 3).astype("uint8")
    truth[0, :, 15:] = 9
    truth[0, 20:, :] = 255
    labels = write_raster(tmp_path / "l.tif", truth, nodata=255)
    rows, cols = np.array([2, 3, 12, 22]), np.array([2, 11, 16, 3])
    squares = write_squares(tmp_path / "s.gpkg", rows, cols, 6)
    job = ExtractPatches(
        source, squares, "", str(tmp_path / "d"), str(tmp_path / "f.gpkg"), patch_size=6, labels=labels, max_nodata=0.5
    )
    context = Context()
    result = extract_patches(job, context)
    dataset = PatchDataset(result.output)
    expected = windows(truth, rows, cols, 6)[:, 0].copy()
    expected[0, 3, 3] = 255  # one band of the image has no data there
    assert dataset.dense and dataset.description.label_nodata == 255
    np.testing.assert_array_equal(dataset.dense_labels(), expected)
    counts = {str(v): int((expected == v).sum()) for v in (3, 9)}
    assert result.counts == counts == dataset.description.counts
    assert dataset.labels.tolist() == [3, 3, 9, -1]
    assert [entry.value for entry in result.classes] == [3, 9]
    assert any("1 of 4 patches hold no labelled pixel" in text for text in context.warnings)
    table = pyogrio.read_dataframe(result.footprints)
    assert table["class_id"].tolist() == [3, 3, 9, -1] and table["class_name"].tolist()[3] == ""
    with rasterio.open(tmp_path / "d" / "labels.tif") as stack:
        assert (stack.count, stack.width, stack.height, stack.dtypes[0], stack.nodata) == (1, 6, 24, "uint8", 255)
    assert sorted(os.listdir(tmp_path / "d")) == ["dataset.json", "labels.tif", "patches.gpkg", "source1.tif"]
    points = ExtractPatches(
        source, write_points(tmp_path / "p.gpkg", rows + 3, cols + 3), "", str(tmp_path / "e"), patch_size=6,
        labels=labels, max_nodata=0.5,
    )  # fmt: skip
    np.testing.assert_array_equal(PatchDataset(extract_patches(points, Context()).output).dense_labels(), expected)


def test_label_features_are_burnt_and_large_class_ids_kept(tmp_path):
    image = counting(1, 30, 30)
    source = write_raster(tmp_path / "i.tif", image)
    polygons = write_squares(tmp_path / "t.gpkg", [0, 10], [0, 10], 10, kind=[-5, 70000])
    squares = write_squares(tmp_path / "s.gpkg", [4, 10], [4, 12], 10, split=["train", "test"])
    job = ExtractPatches(
        source, squares, "", str(tmp_path / "d"), patch_size=10, label_features=polygons, label_field="kind"
    )
    context = Context()
    result = extract_patches(job, context)
    dataset = PatchDataset(result.output)
    expected = np.full((30, 30), dataset.description.label_nodata, np.int64)
    expected[:10, :10], expected[10:20, 10:20] = -5, 70000
    np.testing.assert_array_equal(dataset.dense_labels(), windows(expected[None], [4, 10], [4, 12], 10)[:, 0])
    assert result.counts == {"-5": 36, "70000": 16 + 80} and dataset.description.label_nodata not in (-5, 70000)
    assert dataset.labels.tolist() == [-5, 70000]
    # Rows 10-13 and columns 12-13 lie in both footprints.
    assert result.shared_patches == 2
    assert any("2 of 2 patches share pixels with a patch of another part" in text for text in context.warnings)


def test_features_without_a_field_are_one_class_on_their_background(tmp_path):
    source = write_raster(tmp_path / "i.tif", counting(1, 30, 30))
    squares = write_squares(tmp_path / "s.gpkg", [4, 16], [4, 16], 10)
    town = write_squares(tmp_path / "town.gpkg", [0], [6], 8)
    job = ExtractPatches(
        source, squares, "", str(tmp_path / "d"), patch_size=10, label_features=town, background=True
    )  # fmt: skip
    result = extract_patches(job, Context())
    dataset = PatchDataset(result.output)
    expected = np.zeros((30, 30), np.int64)
    expected[:8, 6:14] = 1
    np.testing.assert_array_equal(dataset.dense_labels(), windows(expected[None], [4, 16], [4, 16], 10)[:, 0])
    assert result.counts == {"0": 200 - 32, "1": 32}
    assert [(entry.value, entry.name) for entry in result.classes] == [(0, "background"), (1, "town")]
    with pytest.raises(BadInput, match=r"BACKGROUND is class 0, which 'l\.tif' has"):
        zero = write_raster(tmp_path / "l.tif", np.zeros((1, 30, 30), "uint8"))
        extract_patches(
            dataclasses.replace(job, label_features=None, labels=zero, output=str(tmp_path / "e")), Context()
        )
    assert not (tmp_path / "e").exists()


def test_squares_of_no_class_are_no_background(tmp_path):
    source = write_raster(tmp_path / "i.tif", counting(1, 30, 30))
    squares = write_squares(tmp_path / "s.gpkg", [4, 16], [4, 16], 10)
    town = write_squares(tmp_path / "town.gpkg", [0, 16, 4], [6, 16, 4], 8, kind=["roof", None, "shed"])
    job = ExtractPatches(
        source, squares, "", str(tmp_path / "d"), patch_size=10, label_features=town, label_field="kind",
        background=True,
    )  # fmt: skip
    result = extract_patches(job, Context())
    dataset = PatchDataset(result.output)
    expected = np.zeros((30, 30), np.int64)
    expected[:8, 6:14], expected[4:12, 4:12] = 1, 2
    expected[4:8, 6:12] = expected[16:24, 16:24] = dataset.description.label_nodata
    np.testing.assert_array_equal(dataset.dense_labels(), windows(expected[None], [4, 16], [4, 16], 10)[:, 0])
    assert result.counts["0"] == int((expected[4:14, 4:14] == 0).sum() + 36)


def test_labels_that_label_nothing_are_refused(tmp_path):
    source = write_raster(tmp_path / "i.tif", counting(1, 30, 30))
    labels = write_raster(tmp_path / "l.tif", np.zeros((1, 30, 30), "uint8"), nodata=0)
    squares = write_squares(tmp_path / "s.gpkg", [4], [4], 10)
    with pytest.raises(BadInput, match=r"'l.tif'"):
        extract_patches(
            ExtractPatches(source, squares, "", str(tmp_path / "d"), patch_size=10, labels=labels), Context()
        )
    assert not (tmp_path / "d").exists()
    with pytest.raises(BadInput, match=r"LABELS and LABEL_FEATURES are both given"):
        ExtractPatches(source, squares, "", "d", labels=labels, label_features=squares, label_field="x")
    with pytest.raises(BadInput, match=r"BACKGROUND is set, but there are no labels"):
        ExtractPatches(source, squares, "", "d", background=True)
    patch = PatchDataset(
        extract_patches(ExtractPatches(source, squares, "row", str(tmp_path / "d"), patch_size=10), Context()).output
    )
    with pytest.raises(BadInput, match=r"one class per patch, not one per pixel"):
        patch.dense_labels()


def test_points_take_in_every_source_the_patch_around_their_pixel(tmp_path):
    coarse, fine = counting(2, 30, 30), counting(1, 90, 90)
    source, second = write_raster(tmp_path / "a.tif", coarse), finer(tmp_path / "b.tif", fine, 3)
    rng = np.random.default_rng(1)
    x, y = 500000 + rng.uniform(0, 300, 40), 4000000 - rng.uniform(0, 300, 40)
    frame = geopandas.GeoDataFrame({"class_id": np.arange(40)}, geometry=geopandas.points_from_xy(x, y), crs=32654)
    pyogrio.write_dataframe(frame, tmp_path / "p.gpkg")
    job = ExtractPatches(
        source, VectorSource(str(tmp_path / "p.gpkg")), "class_id", str(tmp_path / "d"), patch_size=5,
        more_sources=(second,), more_patch_sizes=(25,),
    )  # fmt: skip
    result = extract_patches(job, Context())
    dataset = PatchDataset(result.output)
    kept = dataset.labels
    row, col = ((4000000 - y) // 10).astype(int), ((x - 500000) // 10).astype(int)
    row2, col2 = ((4000000 - y) * 3 // 10).astype(int), ((x - 500000) * 3 // 10).astype(int)
    inside = (row >= 2) & (row < 28) & (col >= 2) & (col < 28) & (row2 >= 12) & (row2 < 78) & (col2 >= 12) & (col2 < 78)
    assert kept.tolist() == np.flatnonzero(inside).tolist() and 0 < len(kept) < 40
    np.testing.assert_array_equal(dataset.patches(0), windows(coarse, row[kept] - 2, col[kept] - 2, 5))
    np.testing.assert_array_equal(dataset.patches(1), windows(fine, row2[kept] - 12, col2[kept] - 12, 25))
    assert dataset.places(1)[0].tolist() == row2[kept].tolist()
    assert dataset.scene_of(1).width == 90 and dataset.scene_of(0).width == 30
    reasons = set(pyogrio.read_dataframe(tmp_path / "d" / "patches.gpkg")["reason"]) - {""}
    assert reasons == {"over the edge of source 1", "over the edge of source 2"}


@pytest.mark.parametrize(("times", "given", "size", "before"), [(2, (), 8, 0), (2, (12,), 12, 2), (2, (9,), 9, 0)])
def test_footprints_begin_in_every_source_at_their_corner(tmp_path, times, given, size, before):
    coarse, fine = counting(1, 30, 30), counting(2, 60, 60)
    source, second = write_raster(tmp_path / "a.tif", coarse), finer(tmp_path / "b.tif", fine, times)
    rows, cols = np.array([4, 9, 20]), np.array([3, 14, 6])
    squares = write_squares(tmp_path / "s.gpkg", rows, cols, 4, class_id=[1, 2, 3])
    frame = pyogrio.read_dataframe(squares.path).to_crs(4326)
    pyogrio.write_dataframe(frame, tmp_path / "w.gpkg")
    for layer in (squares, VectorSource(str(tmp_path / "w.gpkg"))):
        job = ExtractPatches(
            source, layer, "class_id", str(tmp_path / "d"), patch_size=4, more_sources=(second,), more_patch_sizes=given
        )
        dataset = PatchDataset(extract_patches(job, Context()).output)
        expected = windows(fine, rows * times - before, cols * times - before, size)
        np.testing.assert_array_equal(dataset.patches(1), expected)


def test_one_source_refuses_a_sample_everywhere(tmp_path):
    coarse, fine = counting(1, 30, 30), counting(1, 60, 60)
    fine[0, 8, 8], coarse[0, 20, 20] = 65535, 65535
    source, second = write_raster(tmp_path / "a.tif", coarse, 65535), finer(tmp_path / "b.tif", fine, 2, 65535)
    squares = write_squares(tmp_path / "s.gpkg", [4, 10, 18, 28], [4, 10, 18, 4], 4, class_id=[1, 2, 3, 4])
    labels = write_raster(tmp_path / "l.tif", counting(1, 30, 30) % 4)
    job = ExtractPatches(source, squares, "", str(tmp_path / "d"), patch_size=4, more_sources=(second,), labels=labels)
    result = extract_patches(job, Context())
    dataset = PatchDataset(result.output)
    assert (result.accepted, result.rejected) == (1, 3)
    np.testing.assert_array_equal(dataset.patches(0)[0], coarse[:, 10:14, 10:14])
    np.testing.assert_array_equal(dataset.patches(1)[0], fine[:, 20:28, 20:28])
    np.testing.assert_array_equal(dataset.dense_labels()[0], counting(1, 30, 30)[0, 10:14, 10:14] % 4)
    table = pyogrio.read_dataframe(tmp_path / "d" / "patches.gpkg")
    assert table["reason"].tolist() == ["no-data in source 2", "", "no-data in source 1", "over the edge of source 1"]


def test_a_source_whose_pixels_do_not_fit_needs_its_own_patch_size(tmp_path):
    source, second = write_raster(tmp_path / "a.tif", counting(1, 30, 30)), tmp_path / "b.tif"
    finer(second, counting(1, 50, 50), 1.5)
    points = write_points(tmp_path / "p.gpkg", [15], [15])
    job = ExtractPatches(
        source, points, "class_id", str(tmp_path / "d"), patch_size=5, more_sources=(RasterSource(str(second)),)
    )
    with pytest.raises(BadInput, match=r"5 x 5 pixels of 'a.tif' covers 7.5 pixels of 'b.tif'.*Give PATCH_SIZE2"):
        extract_patches(job, Context())
    assert extract_patches(dataclasses.replace(job, more_patch_sizes=(7,)), Context()).accepted == 1
    with pytest.raises(BadInput, match=r"A patch of 99 x 99 pixels is larger than 'b.tif' .*PATCH_SIZE2"):
        extract_patches(dataclasses.replace(job, more_patch_sizes=(99,)), Context())
    with pytest.raises(BadInput, match=r"5 sources are given"):
        dataclasses.replace(job, more_sources=(source,) * 4)


def test_two_resolutions_of_landsat_lie_over_each_other(tmp_path):
    folder = Path(__file__).parents[3] / "shared" / "data" / "landsat8_elkton"
    if not folder.exists():
        pytest.skip("shared/data/landsat8_elkton is not beside the checkout")
    red, pan = (RasterSource(str(folder / f"L8-B{band}-Elkton-VA.tiff")) for band in (4, 8))
    selected = str(tmp_path / "s.gpkg")
    select_patches(SelectPatches(red, selected, patch_size=16, step=16, split="chessboard"), Context())
    job = ExtractPatches(
        red, VectorSource(selected), "", str(tmp_path / "d"), patch_size=16, more_sources=(pan,),
        labels=RasterSource(str(folder / "L8-Labels-Elkton-VA.tiff")),
    )  # fmt: skip
    result = extract_patches(job, Context())
    dataset = PatchDataset(result.output)
    assert dataset.patches(1).shape[-1] == 32 and result.accepted > 100
    # The grids have one corner, and 1.9946 and 1.9942 panchromatic pixels lie in one pixel of the red band.
    with rasterio.open(red.path) as coarse, rasterio.open(pan.path) as fine:
        ratio = coarse.transform.e / fine.transform.e, coarse.transform.a / fine.transform.a
    for first, second, times in zip(dataset.places(0), dataset.places(1), ratio):
        assert second.tolist() == (np.floor((first - 8) * times + 0.01) + 16).tolist()
    # Panchromatic light holds the red band's: patches of the same ground vary together.
    means = dataset.patches(1)[:, 0].astype(float).reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4))
    assert np.corrcoef(means.ravel(), dataset.patches(0)[:, 0].astype(float).ravel())[0, 1] > 0.8


@pytest.mark.parametrize(("dtype", "rule", "accepted"), [
    ("uint8", "auto", 1), ("uint8", "any", 0), ("uint16", "auto", 0), ("uint16", "all", 1)
])  # fmt: skip
def test_a_number_in_one_band_of_byte_images_is_data_by_default(tmp_path, dtype, rule, accepted):
    image = np.full((3, 5, 5), 7, dtype)
    image[1, 0, 0] = 0
    source = write_raster(tmp_path / "i.tif", image, nodata=0)
    samples = write_points(tmp_path / "p.gpkg", [2], [2])
    job = ExtractPatches(source, samples, "class_id", str(tmp_path / "d"), patch_size=5, nodata_rule=rule)
    if accepted:
        dataset = PatchDataset(extract_patches(job, Context()).output)
        assert dataset.description.sources[0].nodata_rule == "all"
    else:
        with pytest.raises(BadInput, match=r"1 no-data"):
            extract_patches(job, Context())


def test_a_mask_counts_in_byte_images_whatever_the_rule(tmp_path):
    source = write_raster(tmp_path / "i.tif", np.full((2, 5, 5), 9, "uint8"))
    with rasterio.open(source.path, "r+") as dataset:
        dataset.write_mask(np.where(np.arange(25).reshape(5, 5) == 3, 0, 255).astype("uint8"))
    samples = write_points(tmp_path / "p.gpkg", [2], [2])
    with pytest.raises(BadInput, match=r"1 no-data"):
        extract_patches(ExtractPatches(source, samples, "class_id", str(tmp_path / "d"), patch_size=5), Context())


def test_a_nan_in_one_band_stays_in_that_band(tmp_path):
    image = np.full((2, 5, 5), 2.5, "float32")
    image[0, 0, 0] = np.nan
    source = write_raster(tmp_path / "i.tif", image, nodata=-1)
    samples = write_points(tmp_path / "p.gpkg", [2], [2])
    job = ExtractPatches(
        source, samples, "class_id", str(tmp_path / "d"), patch_size=5, nodata_rule="all", max_nodata=0.5
    )
    dataset = PatchDataset(extract_patches(job, Context()).output)
    assert np.argwhere(np.isnan(dataset.physical(dataset.patches()))).tolist() == [[0, 0, 0, 0]]


def test_jobs_with_several_sources_repeat_from_their_file(tmp_path):
    source = write_raster(tmp_path / "a.tif", counting(1, 30, 30))
    squares = write_squares(tmp_path / "s.gpkg", [4], [4], 4)
    job = ExtractPatches(
        source, squares, "", str(tmp_path / "d"), patch_size=4, more_sources=(source,), labels=source, edge="reflect"
    )
    extract_patches(job, Context())
    path = write_job_file(job)
    assert "./a.tif" in Path(path).read_text() and read_job_file(path) == job


def test_a_fourth_band_called_alpha_is_told(tmp_path):
    path = tmp_path / "naip.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=40, height=40, count=4, dtype="uint8", photometric="rgb", alpha="yes",
        crs="EPSG:32654", transform=from_origin(500000, 4000000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(np.full((4, 40, 40), 7, "uint8"))
    points = write_points(tmp_path / "p.gpkg", [10, 20], [10, 20], class_id=[1, 2])
    context = Context()
    extract_patches(ExtractPatches(RasterSource(str(path)), points, "class_id", str(tmp_path / "d")), context)
    assert [text for text in context.warnings if "choose the BANDS 1, 2, 3, 4" in text]
    assert len(PatchDataset(str(tmp_path / "d")).description.sources[0].bands) == 3
