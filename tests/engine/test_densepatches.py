"""Dense patch datasets as what a network of one class per pixel learns from."""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from deepscape.engine.datasets import PatchDataset
from deepscape.engine.denseparts import IGNORED, card_source
from deepscape.engine.densesets import open_dense_roles
from deepscape.engine.patches import extract_patches
from deepscape.engine.trainingground import coverage
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import ExtractPatches, RasterSource, TrainSegmenter, VectorSource
from rasterio.crs import CRS

UTM = CRS.from_epsg(32654)
SIDE, SIZE = 128, 8
TRANSFORM = Affine(10, 0, 380000, 0, -10, 3950000)


def write(path, bands, nodata=None):
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=SIDE, count=len(bands), dtype=bands.dtype, crs=UTM,
        transform=TRANSFORM, nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(bands)
    return RasterSource(str(path))


@pytest.fixture
def extracted(tmp_path):
    """Return what extracts a dataset around points 4 pixels apart, whose patches overlap."""
    chance = np.random.default_rng(0)
    image = chance.integers(1, 200, (2, SIDE, SIDE)).astype(np.uint8)
    image[:, 100:, 100:] = 0
    truth = chance.choice(np.array([1, 4, 7, 255], np.uint8), (1, SIDE, SIDE))
    source, labels = write(tmp_path / "bild ü.tif", image, 0), write(tmp_path / "klassen.tif", truth, 255)

    def extract(name, dense=True, splits=None, size=SIZE, only=None):
        rows, cols = (part.reshape(-1) for part in np.mgrid[8:120:4, 8:120:4])
        points = shapely.points(*(TRANSFORM * (cols + 0.5, rows + 0.5)))
        fields = {"class": np.ones(len(rows), int)}
        if splits is not None:
            fields["split"] = np.where(rows < 60, *splits)
        path = tmp_path / f"{name}.gpkg"
        geopandas.GeoDataFrame(fields, geometry=points, crs=UTM).to_file(path, driver="GPKG")
        extract_patches(
            ExtractPatches(
                source, VectorSource(str(path)), "class", str(tmp_path / name), patch_size=size, max_nodata=0.5,
                labels=labels if dense else None, classes=() if only is None else (only,),
            ),
            Context(),
        )  # fmt: skip
        return str(tmp_path / name)

    return extract


def check_windows(part, dataset, numbers):
    values, targets = part.read(range(len(part)))
    labels = dataset.dense_labels()[numbers].astype(int)
    expected = np.full(labels.shape, IGNORED)
    for position, value in enumerate((1, 4, 7)):
        expected[labels == value] = position
    assert values.dtype == np.float32 and targets.dtype == np.int64
    assert (targets == expected).all()
    np.testing.assert_array_equal(values, dataset.physical(dataset.patches()[numbers]))
    assert (part.pixels == np.bincount(targets[targets >= 0], minlength=3)).all()


def test_own_splits_give_the_roles(extracted):
    folder = extracted("own", splits=("train", "test"))
    dataset = PatchDataset(folder)
    with open_dense_roles(TrainSegmenter("m", training=folder, validation_share=0.0), Context()) as roles:
        assert [entry.value for entry in roles.classes] == [1, 4, 7]
        check_windows(roles.training, dataset, np.flatnonzero(dataset.splits == "train"))
        check_windows(roles.test, dataset, np.flatnonzero(dataset.splits == "test"))
        assert roles.validation is None
        assert roles.source.patch_size == SIZE and len(roles.source.bands) == 2
        assert roles.scenes == ("bild ü.tif",) and roles.scene.res_m == pytest.approx(10, rel=0.01)
        assert sum(roles.counts()["test"].values()) == roles.test.pixels.sum()
        values, _ = roles.training.read(range(len(roles.training)))
        assert np.isnan(values).any() or not np.isnan(values).all()
        bands = card_source(roles, Context()).bands
        np.testing.assert_allclose([b.mean for b in bands], np.nanmean(values, axis=(0, 2, 3)), rtol=0.02)
        np.testing.assert_allclose([b.std for b in bands], np.nanstd(values, axis=(0, 2, 3)), rtol=0.05)


def test_blocks_validate_and_share_no_pixel_with_what_trains(extracted):
    folder = extracted("blocks")
    with open_dense_roles(TrainSegmenter("m", training=folder), Context()) as roles:
        assert 0 < len(roles.validation) < len(roles.training)
        assert roles.shared_pixels == 0
        assert roles.training.pixels.all() and roles.validation.pixels.all()
        # The ground is that of the patches: no pixel of it trains and validates.
        kept = []
        for part in (roles.training, roles.validation):
            (ground,) = part.ground(Context().check)
            assert ground.scene.label == "bild ü.tif" and len(ground.boxes) == len(part)
            assert (ground.boxes[:, 2:] - ground.boxes[:, :2] == SIZE).all()
            kept.append(coverage(ground.boxes, (ground.scene.height, ground.scene.width)))
        assert not (kept[0] & kept[1]).any()


def test_an_ignored_class_is_no_class(extracted):
    folder = extracted("ignored")
    with open_dense_roles(TrainSegmenter("m", training=folder, ignore_class=4), Context()) as roles:
        assert [entry.value for entry in roles.classes] == [1, 7]
        _, targets = roles.training.read(range(len(roles.training)))
        assert set(np.unique(targets)) == {IGNORED, 0, 1}


def test_datasets_that_do_not_fit_are_refused(extracted):
    folder, single, wide = extracted("one"), extracted("single", dense=False), extracted("wide", size=12)
    for job, words in (
        (TrainSegmenter("m", training=single), "holds one class per patch; this training needs one for every pixel"),
        (TrainSegmenter("m", training=extracted("poor", only=4)), "Only class 4 .* is labelled where the network"),
        (TrainSegmenter("m", training=folder, validation=single), "holds one class per patch"),
        (TrainSegmenter("m", training=folder, test=wide), "The test patches have 12 pixels on a side"),
        (TrainSegmenter("m", training=folder, more_datasets=(wide,)), "have 12 pixels on a side"),
    ):
        with pytest.raises(BadInput, match=words), open_dense_roles(job, Context()):
            pass


def test_windows_are_the_callers_own(extracted):
    with open_dense_roles(TrainSegmenter("m", training=extracted("kept")), Context()) as roles:
        values, targets = roles.training.read([3, 1, 3])
        expected = values.copy()
        values[:], targets[:] = -1, 77
        again, classes = roles.training.read([3, 1, 3])
        np.testing.assert_array_equal(again, expected)
        assert classes.max() < 3
