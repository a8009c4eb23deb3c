"""Patch images in the layout of the reference: what goes in comes out, and what does not fit is told."""

import geopandas
import numpy as np
import pytest
import rasterio
from deepscape.engine.datasets import PatchDataset
from deepscape.engine.forest import train_random_forest
from deepscape.engine.leakage import shared_pixels
from deepscape.engine.patchimages import NO_PLACE, export_patches, import_patches
from deepscape.tasks import jobfiles
from deepscape.tasks.classtable import ClassEntry, Legend, read_legend
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import ExportPatches, ImportPatches, RasterSource, TrainRandomForest
from deepscape.tests.engine import patchsets


def image(path, values, nodata=None, **profile):
    """Write an image ``(C, H, W)`` with no georeference, as the reference does."""
    settings = {"driver": "GTiff", "width": values.shape[2], "height": values.shape[1], "count": len(values)}
    settings.update(dtype=values.dtype, nodata=nodata, **profile)
    with rasterio.open(path, "w", **settings) as raster:
        raster.write(values)
        for band in range(1, len(values) + 1):
            raster.set_band_description(band, f"B{band}")
    return RasterSource(str(path))


def patch_values(count=10, size=4, bands=3, seed=0):
    return np.random.default_rng(seed).integers(1, 200, (bands, count * size, size)).astype(np.uint16)


def class_labels(path, values, **options):
    return image(path, np.array(values, np.uint8).reshape(1, -1, 1), **options)


def as_patches(values, size):
    return values.reshape(len(values), -1, size, values.shape[2]).transpose(1, 0, 2, 3)


@pytest.mark.parametrize(
    "profile", [{"interleave": "band"}, {"interleave": "pixel", "tiled": True, "blockxsize": 16, "blockysize": 16}]
)
def test_a_patch_image_of_any_layout_becomes_a_dataset(tmp_path, profile):
    values = patch_values()
    job = ImportPatches(
        image(tmp_path / "p.tif", values, **profile), class_labels(tmp_path / "l.tif", [3, 1] * 5), str(tmp_path / "d"),
        split="validation", legend=Legend(layer_classes=(ClassEntry(1, "Water", "#0000ff"),)),
    )  # fmt: skip
    context = Context()
    result = import_patches(job, context)
    assert (result.accepted, result.rejected, result.counts) == (10, 0, {"1": 5, "3": 5})
    assert [(entry.value, entry.name) for entry in result.classes] == [(1, "Water"), (3, "Class 3")]
    dataset = PatchDataset(result.output)
    assert np.array_equal(dataset.patches(), as_patches(values, 4))
    assert dataset.labels.tolist() == [3, 1] * 5
    assert set(dataset.splits) == {"validation"}
    assert [band.name for band in dataset.description.sources[0].bands] == ["B1", "B2", "B3"]
    assert not context.warnings
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "l.tif", "p.tif"]


def test_nobody_knows_where_imported_patches_lie(tmp_path):
    source, labels = image(tmp_path / "p.tif", patch_values()), class_labels(tmp_path / "l.tif", [0, 1] * 5)
    dataset = PatchDataset(import_patches(ImportPatches(source, labels, str(tmp_path / "d")), Context()).output)
    assert set(dataset.rows) == set(dataset.cols) == {NO_PLACE}
    scene = dataset.description.scene
    assert (scene.path, scene.crs, scene.res_m) == ("", "", None)
    frame = geopandas.read_file(tmp_path / "d" / "patches.gpkg")
    assert frame.geometry.isna().all() and len(frame) == 10
    half = np.arange(10) < 5
    found = shared_pixels(dataset, half, dataset, ~half)
    assert found.pixels == 0
    assert found.note == "Where the patches of 'p.tif' lie is not known: they were not compared."


def test_what_the_file_says_of_scale_and_no_data_counts_and_what_the_user_says_counts_more(tmp_path):
    source = image(tmp_path / "p.tif", patch_values(), nodata=7)
    with rasterio.open(source.path, "r+") as raster:
        raster.scales, raster.offsets = (0.5, 0.5, 2.0), (1.0, 1.0, 1.0)
    labels = class_labels(tmp_path / "l.tif", [0, 1] * 5)
    job = ImportPatches(source, labels, str(tmp_path / "d"))
    bands = PatchDataset(import_patches(job, Context()).output).description.sources[0].bands
    assert [(band.nodata, band.scale, band.offset, band.explicit) for band in bands] == [
        (7, 0.5, 1, False), (7, 0.5, 1, False), (7, 2, 1, False),
    ]  # fmt: skip
    job = ImportPatches(RasterSource(source.path, nodata=9), labels, str(tmp_path / "d"), scale=3, patch_size=4)
    bands = PatchDataset(import_patches(job, Context()).output).description.sources[0].bands
    assert {(band.nodata, band.scale, band.offset, band.explicit) for band in bands} == {(9, 3, 1, True)}


def test_patches_without_a_label_are_left_out(tmp_path):
    values = patch_values(4)
    labels = class_labels(tmp_path / "l.tif", [0, 255, 1, 255], nodata=255)
    context = Context()
    job = ImportPatches(image(tmp_path / "p.tif", values), labels, str(tmp_path / "d"))
    result = import_patches(job, context)
    assert (result.accepted, result.rejected) == (2, 2)
    assert context.warnings == ["2 of 4 patches have no label and are left out."]
    dataset = PatchDataset(result.output)
    assert np.array_equal(dataset.patches(), as_patches(values, 4)[[0, 2]])
    assert dataset.labels.tolist() == [0, 1]


def test_dense_labels_and_several_sources(tmp_path):
    values, fine = patch_values(), patch_values(size=8, bands=1)
    classes = np.random.default_rng(1).integers(0, 3, (1, 40, 4)).astype(np.uint8)
    classes[0, :4], classes[0, 4:8] = 9, 2
    job = ImportPatches(
        image(tmp_path / "p.tif", values), image(tmp_path / "l.tif", classes, nodata=9), str(tmp_path / "d"),
        (image(tmp_path / "q.tif", fine),),
    )  # fmt: skip
    result = import_patches(job, Context())
    dataset = PatchDataset(result.output)
    assert dataset.dense and dataset.description.label_nodata == 9
    assert np.array_equal(dataset.dense_labels(), as_patches(classes, 4)[:, 0])
    assert np.array_equal(dataset.patches(0), as_patches(values, 4))
    assert np.array_equal(dataset.patches(1), as_patches(fine, 8))
    assert dataset.labels[:2].tolist() == [-1, 2]
    assert result.counts == {str(value): int((classes == value).sum()) for value in range(3)}


def test_what_does_not_fit_is_told(tmp_path):
    source, labels = image(tmp_path / "p.tif", patch_values()), class_labels(tmp_path / "l.tif", [0, 1] * 5)
    other = image(tmp_path / "o.tif", patch_values(9))
    ragged = image(tmp_path / "r.tif", patch_values()[:, :-1])
    blank = class_labels(tmp_path / "b.tif", [255] * 10, nodata=255)
    floats = image(tmp_path / "f.tif", np.full((1, 10, 1), 0.5, np.float32))
    output = str(tmp_path / "d")
    for job, message in (
        (ImportPatches(source, labels, output, patch_size=9), "PATCH_SIZE is 9, but INPUT 'p.tif' is 4 pixels wide"),
        (ImportPatches(ragged, labels, output), r"'r.tif' \(4 x 39 pixels\) does not hold whole square patches"),
        (ImportPatches(source, labels, output, (other,)), "INPUT2 'o.tif' holds 9 patches, INPUT holds 10"),
        (ImportPatches(source, other, output), r"'o.tif' is 4 x 36 pixels large, .* \(1 x 10\) nor .* \(4 x 40\)"),
        (ImportPatches(source, blank, output), "'b.tif' labels no patch"),
        (ImportPatches(source, floats, output), r"'f.tif' holds 0\.5"),
        (ImportPatches(source, RasterSource(str(tmp_path / "x.tif")), output), "does not exist"),
    ):
        with pytest.raises(BadInput, match=message):
            import_patches(job, Context())
    with pytest.raises(BadInput, match="SPLIT 'training' is not a valid choice"):
        ImportPatches(source, labels, output, split="training")
    assert not (tmp_path / "d").exists()
    assert not list(tmp_path.glob(".*"))


# --- export ----------------------------------------------------------------------------------------------------------


def parts(row, col):
    return ("train", "validation", "")[(row // 3) % 3]


def test_an_export_has_the_references_layout_and_comes_back_equal(tmp_path):
    folder = patchsets.dataset(tmp_path, splits=parts)
    dataset = PatchDataset(folder)
    result = export_patches(ExportPatches(folder, str(tmp_path / "images")), Context())
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [
        "labels.csv", "labels.tif", "patches_source1.tif",
    ]  # fmt: skip
    count = len(dataset)
    with rasterio.open(tmp_path / "images" / "patches_source1.tif") as raster:
        assert (raster.count, raster.width, raster.height) == (3, 5, 5 * count)
        assert raster.crs is None and raster.transform.is_identity
        assert raster.descriptions == ("B1", "B2", "B3")
    with rasterio.open(tmp_path / "images" / "labels.tif") as raster:
        assert (raster.count, raster.width, raster.height) == (1, 1, count)
        assert raster.read(1)[:, 0].tolist() == dataset.labels.tolist()
    assert result.patch_count == count and result.counts == dataset.description.counts
    job = ImportPatches(
        RasterSource(str(tmp_path / "images" / "patches_source1.tif")),
        RasterSource(str(tmp_path / "images" / "labels.tif")),
        str(tmp_path / "again"),
        legend=Legend(str(tmp_path / "images" / "labels.csv")),
    )
    again = PatchDataset(import_patches(job, Context()).output)
    assert np.array_equal(again.patches(), dataset.patches())
    assert np.array_equal(again.labels, dataset.labels)
    assert again.description.classes == dataset.description.classes


def test_one_part_with_the_classes_numbered_from_0(tmp_path):
    folder = patchsets.dataset(tmp_path, splits=parts)
    dataset = PatchDataset(folder)
    job = ExportPatches(folder, str(tmp_path / "images"), "validation", True)
    result = export_patches(job, Context())
    chosen = dataset.splits == "validation"
    with rasterio.open(tmp_path / "images" / "labels.tif") as raster:
        values = raster.read(1)[:, 0]
    assert values.tolist() == np.searchsorted([3, 7, 300], dataset.labels[chosen]).tolist()
    assert result.counts == {str(n): int((values == n).sum()) for n in range(3)}
    assert (tmp_path / "images" / "labels.csv").read_text() == (
        "value,name,colour,class_id\n0,water,#4393c3,3\n1,forest,#1b7837,7\n2,town,#d7301f,300\n"
    )
    assert [entry.value for entry in read_legend(str(tmp_path / "images" / "labels.csv"))] == [0, 1, 2]
    with rasterio.open(tmp_path / "images" / "patches_source1.tif") as raster:
        assert np.array_equal(as_patches(raster.read(), 5), dataset.patches()[chosen])


@pytest.mark.parametrize("renumber", [False, True])
def test_dense_labels_come_back(tmp_path, renumber):
    classes = np.random.default_rng(1).choice([5, 7, 1], (1, 40, 4)).astype(np.uint8)
    source = image(tmp_path / "p.tif", patch_values(), nodata=7)
    job = ImportPatches(source, image(tmp_path / "l.tif", classes, nodata=1), str(tmp_path / "d"))
    import_patches(job, Context())
    export_patches(ExportPatches(str(tmp_path / "d"), str(tmp_path / "images"), renumber=renumber), Context())
    with rasterio.open(tmp_path / "images" / "labels.tif") as raster:
        assert (raster.width, raster.height) == (4, 40)
        assert raster.nodata == (255 if renumber else 1)
        expected = np.select([classes == 5, classes == 7], [0, 1], 255) if renumber else classes
        assert np.array_equal(raster.read(), expected)
    with rasterio.open(tmp_path / "images" / "patches_source1.tif") as raster:
        assert raster.nodata == 7


def test_exports_that_cannot_be(tmp_path):
    folder = patchsets.dataset(tmp_path, splits=lambda row, col: "train")
    with pytest.raises(BadInput, match=r"No patch of .* has the 'split' value test"):
        export_patches(ExportPatches(folder, str(tmp_path / "images"), "test"), Context())
    with pytest.raises(BadInput, match=r"is a patch dataset, whose labels\.tif would be overwritten"):
        export_patches(ExportPatches(folder, folder), Context())
    with pytest.raises(BadInput, match="is not a patch dataset"):
        export_patches(ExportPatches(str(tmp_path), str(tmp_path / "images")), Context())
    assert not (tmp_path / "images").exists()
    # An export of two sources into which one of a single source would be mixed.
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "patches_source2.tif").write_text("older")
    with pytest.raises(BadInput, match=r"holds 'patches_source2\.tif' of an earlier export, and .* 1 source only"):
        export_patches(ExportPatches(folder, str(tmp_path / "two")), Context())
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["patches_source2.tif"]


def test_a_job_file_carries_all_images(tmp_path):
    source, labels = image(tmp_path / "p.tif", patch_values()), class_labels(tmp_path / "l.tif", [0, 1] * 5)
    job = ImportPatches(source, labels, str(tmp_path / "d"), (image(tmp_path / "q.tif", patch_values()),))
    path = jobfiles.write_job_file(job)
    assert '"./q.tif"' in open(path, encoding="utf-8").read()
    assert jobfiles.read_job_file(path) == job


# --- training --------------------------------------------------------------------------------------------------------


def test_training_on_patches_of_unknown_places_says_so(tmp_path):
    folder = patchsets.dataset(tmp_path)
    export_patches(ExportPatches(folder, str(tmp_path / "images")), Context())
    job = ImportPatches(
        RasterSource(str(tmp_path / "images" / "patches_source1.tif")),
        RasterSource(str(tmp_path / "images" / "labels.tif")),
        str(tmp_path / "again"),
    )
    import_patches(job, Context())
    context, logged = Context(), []
    context.log = logged.append
    result = train_random_forest(TrainRandomForest(str(tmp_path / "again"), str(tmp_path / "m.safetensors")), context)
    assert "84 of 420 training patches (at random) are held back for validation." in logged
    assert result.overall_accuracy > 0.9
    assert any("shared pixels were not looked for" in text for text in context.warnings)
    assert not any("pixels are shared" in text for text in logged)
