"""Windows read from a raster while a network learns: the pixels of the files, each in one role alone."""

import threading
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from deepscape.engine.denseparts import IGNORED, card_source
from deepscape.engine.densesets import open_dense_roles
from deepscape.engine.trainingground import coverage
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import RasterSource, TrainSegmenter, VectorSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

UTM = CRS.from_epsg(32654)
HEIGHT, WIDTH = 150, 130
TRANSFORM = Affine(10, 0, 380000, 0, -10, 3950000)
CLASSES = (2, 5, 9)


def write(path, bands, transform=TRANSFORM, crs=UTM, nodata=None):
    bands = np.asarray(bands)
    bands = bands[None] if bands.ndim == 2 else bands
    with rasterio.open(
        path, "w", driver="GTiff", width=bands.shape[2], height=bands.shape[1], count=len(bands), dtype=bands.dtype,
        crs=crs, transform=transform, nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(bands)
    return RasterSource(str(path))


def layer(path, geometries, crs=UTM, to=None, **fields):
    frame = geopandas.GeoDataFrame(fields, geometry=list(geometries), crs=crs)
    (frame if to is None else frame.to_crs(to)).to_file(path, driver="GPKG")
    return VectorSource(str(path))


def box(top, left, bottom, right):
    """Return the polygon of whole pixels."""
    (x0, y0), (x1, y1) = TRANSFORM * (left, top), TRANSFORM * (right, bottom)
    return shapely.box(x0, y1, x1, y0)


@pytest.fixture
def image():
    # Every value tells its place.
    pixels = np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    return np.stack([pixels, pixels * 2 + 1])


@pytest.fixture
def truth():
    return np.random.default_rng(1).choice(np.array(CLASSES, np.int32), (HEIGHT, WIDTH))


@pytest.fixture
def job(tmp_path, image, truth):
    folder = tmp_path / "Straße 北"
    folder.mkdir()
    return TrainSegmenter(
        str(tmp_path / "model"), source=write(folder / "bild.tif", image), labels=write(folder / "klassen.tif", truth),
        patch_size=16,
    )  # fmt: skip


def positions(values):
    """Return row and column of the pixels of a window ``(2, p, p)``."""
    return np.divmod(values[0].astype(np.int64), WIDTH)


def marked(part, epochs=1):
    """Return how often each pixel of the raster is in a window, and how often it is scored."""
    seen, scored = np.zeros((HEIGHT, WIDTH), int), np.zeros((HEIGHT, WIDTH), int)
    for epoch in range(epochs):
        for values, targets in zip(*part.read(range(len(part)), epoch)):
            rows, cols = positions(values)
            np.add.at(seen, (rows, cols), 1)
            np.add.at(scored, (rows, cols), targets != IGNORED)
    return seen, scored


def test_windows_hold_the_pixels_of_the_files(job, image, truth):
    with open_dense_roles(job, Context()) as roles:
        assert [entry.value for entry in roles.classes] == list(CLASSES)
        for part in roles.parts.values():
            values, targets = part.read(range(12))
            assert values.shape == (12, 2, 16, 16) and values.dtype == np.float32
            assert targets.shape == (12, 16, 16) and targets.dtype == np.int64
            for window, target in zip(values, targets):
                rows, cols = positions(window)
                assert (window == image[:, rows, cols]).all()
                known = target != IGNORED
                assert (np.array(CLASSES)[target[known]] == truth[rows, cols][known]).all()


@pytest.mark.parametrize("background", [False, True])
def test_labels_where_the_image_has_no_data_are_told_by_class(job, tmp_path, image, background):
    image[:, :, :13] = -1
    roofs = layer(
        tmp_path / "roofs.gpkg", [box(0, 0, 20, 30), box(40, 0, 60, 100), box(70, 50, 90, 90)], code=[2, 2, 5]
    )
    source = write(tmp_path / "cut.tif", image, nodata=-1)
    fields = {"labels": None, "label_features": roofs, "label_field": "code", "source": source}
    context = Context()
    with open_dense_roles(replace(job, **fields, background=background), context) as roles:
        counts = sum(part.pixels for part in roles.parts.values())
    assert counts[-2:].tolist() == [20 * 17 + 20 * 87, 800]
    assert [text for text in context.warnings if "no data" in text] == [
        "520 of 3400 labelled pixels lie where 'cut.tif' has no data and are left out: 520 of 2600 of class 2 "
        "'Class 2'. Check that labels and image cover the same place, and NODATA and NODATA_RULE."
    ]


def test_a_fourth_band_called_alpha_is_told(job, tmp_path):
    path = tmp_path / "photograph.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=4, dtype="uint8", photometric="rgb", alpha="yes",
        crs=UTM, transform=TRANSFORM,
    ) as dataset:  # fmt: skip
        dataset.write(np.full((4, HEIGHT, WIDTH), 255, np.uint8))
    for bands, told in (((), 1), ((1, 2, 3, 4), 0)):
        context = Context()
        with open_dense_roles(replace(job, source=RasterSource(str(path), bands=bands)), context) as roles:
            assert roles.training.read([0])[0].shape[1] == 4 - told
        warnings = [text for text in context.warnings if "choose the BANDS 1, 2, 3, 4" in text]
        assert len(warnings) == told


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.sampled_from([8, 13, 16, 24]), share=st.floats(0.1, 0.5), seed=st.integers(0, 99))
def test_blocks_are_scored_once_and_never_trained_on(job, truth, size, share, seed):
    with open_dense_roles(replace(job, patch_size=size, validation_share=share, seed=seed), Context()) as roles:
        trained, _ = marked(roles.training, epochs=2)
        _, scored = marked(roles.validation)
        assert scored.max() == 1
        assert not (trained[scored > 0]).any()
        assert roles.shared_pixels == 0
        counts = np.array([(truth[scored > 0] == value).sum() for value in CLASSES])
        assert (roles.validation.pixels == counts).all() and counts.all()
        assert (roles.training.pixels + counts == [(truth == value).sum() for value in CLASSES]).all()
        assert 0.3 * share < scored.mean() < 1.7 * share


@pytest.mark.parametrize("crs", [UTM, CRS.from_epsg(3857), CRS.from_epsg(4326)])
def test_areas_are_obeyed_to_the_pixel_whatever_their_crs(job, tmp_path, crs):
    parts = [box(0, 0, 70, WIDTH), box(75, 3, 150, 60), box(80, 70, 149, 128)]
    areas = layer(tmp_path / "areas.gpkg", parts, to=crs, split=["Train", "VALIDATION", "test"])
    with open_dense_roles(replace(job, areas=areas), Context()) as roles:
        trained, _ = marked(roles.training, epochs=3)
        assert trained[:68].any() and not trained[70 if crs == UTM else 71 :].any()
        shapes = geopandas.GeoSeries(parts, crs=UTM)
        for role, shape in (("validation", shapes[1]), ("test", shapes[2])):
            _, scored = marked(roles.parts[role])
            burnt = rasterio.features.rasterize([shape], (HEIGHT, WIDTH), transform=TRANSFORM)
            assert scored.max() == 1
            assert (scored != burnt).sum() <= (0 if crs == UTM else 4)
            assert roles.parts[role].pixels.sum() == scored.sum()


def held(part):
    """Return which pixels of the raster the part's ground tells."""
    (ground,) = part.ground(Context().check)
    assert (ground.scene.width, ground.scene.height, ground.scene.transform) == (WIDTH, HEIGHT, tuple(TRANSFORM[:6]))
    return coverage(ground.boxes, (HEIGHT, WIDTH))


def test_the_ground_is_that_of_the_areas(job, tmp_path):
    shapes = [
        box(0, 0, 70, WIDTH),
        shapely.Polygon([TRANSFORM * p for p in ((3.2, 75.1), (60.3, 80.4), (50, 148.3), (9, 120))]),
    ]
    areas = layer(tmp_path / "areas.gpkg", [*shapes, box(80, 70, 149, 128)], split=["train", "validation", "test"])
    with open_dense_roles(replace(job, areas=areas), Context()) as roles:
        for part, shape in ((roles.training, shapes[0]), (roles.validation, shapes[1])):
            burnt = rasterio.features.rasterize([shape], (HEIGHT, WIDTH), transform=TRANSFORM)
            assert (held(part) == burnt).all()
    # Where nothing is labelled no window lies.
    with rasterio.open(job.labels.path, "r+") as labels:
        labels.nodata = 0
        values = labels.read(1)
        values[:, 40:] = 0
        labels.write(values, 1)
    with open_dense_roles(replace(job, areas=areas), Context()) as roles:
        trained, _ = marked(roles.training, epochs=4)
        ground = held(roles.training)
        assert not (trained.astype(bool) & ~ground).any()
        assert ground[:70, :54].all() and not ground[:, 58:].any() and not ground[70:].any()


def test_the_ground_of_blocks_is_all_that_windows_read(job):
    with open_dense_roles(job, Context()) as roles:
        trained, _ = marked(roles.training, epochs=3)
        _, scored = marked(roles.validation)
        assert not (trained.astype(bool) & ~held(roles.training)).any()
        assert (held(roles.validation) == (scored > 0)).all()
        assert not (held(roles.training) & held(roles.validation)).any()


def test_other_words_in_the_areas_field_are_refused(job, tmp_path):
    areas = layer(tmp_path / "areas.gpkg", [box(0, 0, 70, 70), box(80, 0, 140, 70)], split=["train", "nord"])
    with pytest.raises(BadInput, match=r"'split' of 'areas\.gpkg' holds 'nord'"):
        with open_dense_roles(replace(job, areas=areas), Context()):
            pass
    small = layer(tmp_path / "small.gpkg", [box(0, 0, 12, 70), box(80, 0, 140, 70)], split=["train", "test"])
    with pytest.raises(BadInput, match="No window of 16 pixels lies inside a training area"):
        with open_dense_roles(replace(job, areas=small), Context()):
            pass


def test_areas_beside_the_image_and_without_labels_are_told(job, truth, tmp_path):
    def told(*shapes):
        areas = layer(tmp_path / "areas.gpkg", shapes, split=["train", "validation", "test"][: len(shapes)])
        context = Context()
        with open_dense_roles(replace(job, areas=areas), context) as roles:
            assert set(roles.parts) == {"training"} | ({"test"} if len(shapes) == 3 else set())
        return context.warnings

    whole, beside = box(0, 0, 70, WIDTH), box(200, 0, 260, 60)
    beside_text = (
        "The area for validation of 'areas.gpkg' lies beside 'bild.tif': no epoch is chosen, and the last one is kept."
    )
    assert told(whole, beside, box(80, 0, HEIGHT, WIDTH)) == [beside_text]
    # As near as it may be: the bounds touch.
    assert told(whole, box(HEIGHT, 0, 260, 60)) == [beside_text]
    with rasterio.open(job.labels.path, "r+") as labels:
        labels.nodata = 0
        labels.write(np.where(np.arange(HEIGHT)[:, None] < 75, truth, 0), 1)
    assert told(whole, box(80, 0, HEIGHT, WIDTH)) == [
        "The area for validation of 'areas.gpkg' holds no labelled pixel of 'klassen.tif': no epoch is chosen, and the "
        "last one is kept."
    ]
    with pytest.raises(BadInput, match=r"No area for training of 'areas\.gpkg' lies on 'bild\.tif'"):
        told(beside, whole)


def test_features_are_burnt_and_those_across_a_border_are_not_scored(job, tmp_path):
    houses = [box(5, 5, 20, 25), box(60, 40, 90, 50), box(100, 30, 120, 44), box(140, 120, 170, 160)]
    features = layer(tmp_path / "Häuser.gpkg", houses, to=CRS.from_epsg(3857), kind=[1, 1, 1, 1])
    areas = layer(
        tmp_path / "areas.gpkg", [box(0, 0, 72, WIDTH), box(80, 0, HEIGHT, WIDTH)], split=["train", "validation"]
    )
    own = replace(job, labels=None, label_features=features, areas=areas, background=True)
    with open_dense_roles(own, Context()) as roles:
        assert [(entry.value, entry.name) for entry in roles.classes] == [(0, "background"), (1, "Häuser")]
        assert any("2 label features cross" in note for note in roles.notes)
        values, targets = roles.validation.read(range(len(roles.validation)))
        found = np.full((HEIGHT, WIDTH), IGNORED)
        for window, target in zip(values, targets):
            rows, cols = positions(window)
            found[rows, cols] = np.where(target == IGNORED, found[rows, cols], target)
        assert (found[100:120, 30:44] == 1).all()
        assert (found[80:90, 40:50] == IGNORED).all() and (found[140:, 120:] == IGNORED).all()
        assert (found[130:138, :100] == 0).all()
        assert (np.bincount(found[found >= 0]) == roles.validation.pixels).all()
    with pytest.raises(BadInput, match="Only class 1 'Häuser' is labelled"):
        with open_dense_roles(replace(own, background=False), Context()):
            pass


def test_polygons_whose_class_is_not_known_teach_nothing_where_the_rest_is_background(job, tmp_path):
    houses = [box(5, 5, 45, 45), box(60, 40, 90, 70), box(80, 60, 110, 90), box(120, 20, 140, 50)]
    features = layer(tmp_path / "houses.gpkg", houses, kind=["roof", "roof", "shed", None])
    own = replace(job, labels=None, label_features=features, label_field="kind", background=True, validation_share=0.0)
    with open_dense_roles(own, Context()) as roles:
        truth = np.zeros((HEIGHT, WIDTH), int)
        truth[5:45, 5:45], truth[60:90, 40:70], truth[80:110, 60:90] = 1, 1, 2
        truth[80:90, 60:70], truth[120:140, 20:50] = IGNORED, IGNORED
        values, targets = roles.training.read(range(64))
        for window, target in zip(values, targets):
            rows, cols = positions(window)
            assert (target == truth[rows, cols]).all()
        assert roles.training.pixels.tolist() == np.bincount(truth[truth >= 0]).tolist()


def test_sparse_polygons_draw_windows_around_themselves(job, tmp_path):
    spots = [box(10, 10, 13, 14), box(100, 90, 104, 95)]
    features = layer(tmp_path / "spots.gpkg", spots, kind=[3, 4])
    own = replace(job, labels=None, label_features=features, label_field="kind", validation_share=0.0)
    with open_dense_roles(own, Context()) as roles:
        assert len(roles.training) == 64 and roles.validation is None
        _, targets = roles.training.read(range(64), 1)
        assert (targets != IGNORED).any(axis=(1, 2)).all()
        assert set(np.unique(targets)) == {IGNORED, 0, 1}


def test_no_data_has_neither_value_nor_target(job, tmp_path, image, truth):
    image[1, 40:80, 20:100] = -7
    own = replace(job, source=write(tmp_path / "holes.tif", image, nodata=-7))
    with open_dense_roles(own, Context()) as roles:
        for part in roles.parts.values():
            values, targets = part.read(range(len(part)))
            missing = np.isnan(values).any(axis=1)
            assert missing.any() and (targets[missing] == IGNORED).all()
        total = np.array([(truth[image[1] != -7] == value).sum() for value in CLASSES])
        assert (roles.training.pixels + roles.validation.pixels == total).all()
        values, _ = roles.training.read(range(len(roles.training)))
        bands = card_source(roles, Context()).bands
        np.testing.assert_allclose([band.mean for band in bands], np.nanmean(values, axis=(0, 2, 3)), rtol=1e-4)
        np.testing.assert_allclose([band.std for band in bands], np.nanstd(values, axis=(0, 2, 3)), rtol=1e-4)


def test_labels_of_another_grid_and_crs_are_brought_onto_the_image(job, tmp_path):
    coarse = np.kron(np.array([[1, 2], [2, 1]], np.uint8), np.ones((40, 40), np.uint8))
    labels = write(tmp_path / "coarse.tif", coarse, TRANSFORM * Affine.scale(2, 2))
    with open_dense_roles(replace(job, labels=labels), Context()) as roles:
        values, targets = roles.training.read(range(20))
        for window, target in zip(values, targets):
            rows, cols = positions(window)
            assert (target == coarse[rows // 2, cols // 2].astype(int) - 1).all()


def test_background_needs_class_0_and_ignored_classes_are_no_class(job, tmp_path, truth):
    zero = np.where(truth == 2, 0, truth)
    taken = replace(job, labels=write(tmp_path / "zero.tif", zero), background=True)
    with pytest.raises(BadInput, match=r"BACKGROUND is class 0, which 'zero\.tif' has"):
        with open_dense_roles(taken, Context()):
            pass
    with open_dense_roles(replace(job, ignore_class=5), Context()) as roles:
        assert [entry.value for entry in roles.classes] == [2, 9]
    with pytest.raises(BadInput, match="IGNORE_CLASS is 4, which is no class"):
        with open_dense_roles(replace(job, ignore_class=4), Context()):
            pass


def test_threads_read_what_one_reads(job):
    with open_dense_roles(job, Context()) as roles:
        part, found = roles.training, {}

        def work(numbers):
            for number in numbers:
                found[number] = part.read([number], 3)

        threads = [threading.Thread(target=work, args=(range(start, 40, 4),)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        values, targets = part.read(range(40), 3)
        assert all((found[i][0][0] == values[i]).all() and (found[i][1][0] == targets[i]).all() for i in range(40))
        assert (part.read(range(40), 4)[0] != values).any()
