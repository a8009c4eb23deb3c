"""Labels on an image's grid: every pixel the same in whichever window it is read, and what the rules say of it."""

import threading

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from deepscape.engine.denselabels import FeatureLabels, open_labels
from deepscape.engine.featurepixels import feature_pixels
from deepscape.engine.rasters import Grid
from deepscape.tasks.classtable import ClassEntry, Legend
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, JobCancelled
from deepscape.tasks.jobs import RasterSource, VectorSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

UTM = CRS.from_epsg(32654)
GRID = Grid(60, 50, Affine(10, 0, 380000, 0, -10, 3950000), UTM)


class Log(Context):
    """Keeps the log as well."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def log(self, text):
        self.lines.append(text)


def raster(path, labels, transform, crs=UTM, nodata=None, **options):
    labels = np.asarray(labels)
    with rasterio.open(
        path, "w", driver="GTiff", width=labels.shape[1], height=labels.shape[0], count=1, dtype=labels.dtype,
        crs=crs, transform=transform, nodata=nodata, **options,
    ) as dataset:  # fmt: skip
        dataset.write(labels, 1)
    return RasterSource(str(path))


def layer(path, geometries, classes, crs=UTM):
    frame = geopandas.GeoDataFrame({"class": classes}, geometry=list(geometries), crs=crs)
    frame.to_file(path, driver="GPKG")
    return VectorSource(str(path))


def read_all(source, grid=GRID, field="class", context=None, **options):
    vector = isinstance(source, VectorSource)
    context = context or Context()
    with open_labels(
        None if vector else source, source if vector else None, field, grid, "image", context, **options
    ) as o:
        labels, valid = o.read(0, 0, grid.height, grid.width)
        o.finish(context)
        return labels, valid, o


def random_labels(height, width, values=(1, 2, 7), shares=None):
    return np.random.default_rng(0).choice(np.array(values, np.int32), (height, width), p=shares)


# --- rasters ---------------------------------------------------------------------------------------------------------


def test_a_raster_of_the_same_grid_is_read_as_it_is(tmp_path):
    truth = random_labels(50, 60, values=(-3, 0, 70_000, 9))
    source = raster(tmp_path / "labels.tif", truth, GRID.transform, nodata=9)
    labels, valid, opened = read_all(source)
    assert (valid == (truth != 9)).all()
    assert (labels[valid] == truth[valid]).all()
    assert (labels[~valid] == 0).all()
    assert opened.rule == "direct"
    assert [entry.value for entry in opened.classes] == [-3, 0, 70_000]


def test_windows_over_the_edge_are_not_labelled_there(tmp_path):
    truth = random_labels(50, 60)
    with open_labels(raster(tmp_path / "l.tif", truth, GRID.transform), None, "", GRID, "image", Context()) as opened:
        labels, valid = opened.read(-3, -4, 10, 12)
        assert not valid[:3].any() and not valid[:, :4].any() and valid[3:, 4:].all()
        assert (labels[3:, 4:] == truth[:7, :8]).all()
        assert not opened.read(45, 55, 20, 20)[1][5:].any()
        assert not opened.read(500, 500, 4, 4)[1].any()


def test_floats_of_whole_numbers_are_labels_and_others_are_refused(tmp_path):
    truth = random_labels(50, 60).astype(np.float32)
    truth[0, 0] = np.nan
    labels, valid, _ = read_all(raster(tmp_path / "whole.tif", truth, GRID.transform))
    assert not valid[0, 0] and valid.sum() == valid.size - 1
    assert labels.dtype == np.int64
    truth[3, 3] = 1.5
    with pytest.raises(BadInput, match=r"'parts.tif' holds the value 1.5, which is no class"):
        read_all(raster(tmp_path / "parts.tif", truth, GRID.transform))


def test_coarser_labels_come_by_nearest_neighbour(tmp_path):
    truth = random_labels(10, 12)
    context = Log()
    source = raster(tmp_path / "l.tif", truth, GRID.transform * Affine.scale(5))
    labels, valid, opened = read_all(source, context=context)
    assert valid.all()
    assert (labels == np.kron(truth, np.ones((5, 5), int))).all()
    assert opened.ignored == 0
    assert context.lines == ["'l.tif' is brought onto the grid of 'image' by nearest neighbour."]


def test_a_shifted_raster_of_the_same_pixel_comes_by_nearest_neighbour(tmp_path):
    truth = random_labels(30, 40)
    labels, valid, _ = read_all(raster(tmp_path / "l.tif", truth, GRID.transform * Affine.translation(7.3, 12.4)))
    assert valid.sum() == 30 * 40
    assert (labels[12:42, 7:47] == truth).all()


def test_finer_labels_come_by_majority_of_six_tenths(tmp_path):
    # Blocks of 2 x 5 label pixels per pixel: 6 of 10 is a majority, 5 of 10 is none; no-data is a pixel, but no vote.
    grid = Grid(4, 1, Affine(10, 0, 0, 0, -10, 0), UTM)
    truth = np.array(
        [
            [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            [1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 0, 0, 0, 0, 0],
        ],
        np.uint8,
    )
    truth[1, 5:10] = 3
    context = Context()
    source = raster(tmp_path / "l.tif", truth, Affine(2, 0, 0, 0, -5, 0), nodata=0)
    labels, valid, opened = read_all(source, grid, context=context)
    assert valid.tolist() == [[True, False, False, False]]
    assert labels[0, 0] == 1
    assert opened.ignored == 2
    assert [entry.value for entry in opened.classes] == [1]
    assert context.warnings == [
        "2 pixels of 'image' hold several labels of the finer 'l.tif', none of them on 0.6 of the pixel; they are "
        "ignored."
    ]


def test_unclear_pixels_count_once_however_often_they_are_read(tmp_path):
    truth = np.tile(np.array([[1, 2], [1, 2]], np.uint8), (50, 60))
    with open_labels(
        raster(tmp_path / "l.tif", truth, GRID.transform * Affine.scale(0.5)), None, "", GRID, "image", Context()
    ) as opened:
        opened.read(0, 0, 10, 10)
        opened.read(5, 5, 10, 10)
        opened.read(-5, -5, 10, 10)
        assert opened.ignored == 175
        with pytest.raises(BadInput, match="labels no pixel of 'image' where it was read"):
            opened.finish(Context())


def test_crosswalk_and_classes_come_before_the_majority(tmp_path):
    truth = np.tile(np.array([[1, 2], [3, 9]], np.uint8), (50, 60))
    source = raster(tmp_path / "l.tif", truth, GRID.transform * Affine.scale(0.5))
    table = tmp_path / "to.csv"
    table.write_text("from,to,name,colour\n1,5,Forest,#00ff00\n2,5,,\n3,5,,\n9,,,\n")
    labels, valid, opened = read_all(source, crosswalk=str(table))
    assert valid.all() and (labels == 5).all()
    assert opened.classes == (ClassEntry(5, "Forest", "#00ff00"),)
    with pytest.raises(BadInput, match="No class of CLASSES \\(4\\) occurs"):
        read_all(source, classes=(4,))


def test_names_come_from_the_legend(tmp_path):
    source = raster(tmp_path / "l.tif", random_labels(50, 60), GRID.transform)
    legend = Legend(layer_classes=(ClassEntry(7, "Water", "#0000ff"), ClassEntry(8, "Other", "#ff0000")))
    assert [entry.name for entry in read_all(source, legend=legend)[2].classes] == ["Class 1", "Class 2", "Water"]


def test_labels_elsewhere_are_refused(tmp_path):
    source = raster(tmp_path / "l.tif", random_labels(50, 60), GRID.transform * Affine.translation(1000, 0))
    with pytest.raises(BadInput, match=r"The labels 'l.tif' \(EPSG:32654\) lie outside 'image' \(EPSG:32654\)"):
        read_all(source)
    points = layer(tmp_path / "p.gpkg", [shapely.Point(0, 0)], [1])
    with pytest.raises(BadInput, match=r"No feature of 'p.gpkg' lies on 'image' \(EPSG:32654\)"):
        read_all(points)


def test_a_small_label_raster_inside_the_image_is_found(tmp_path):
    grid = Grid(5000, 5000, GRID.transform, UTM)
    truth = random_labels(3, 4)
    source = raster(tmp_path / "l.tif", truth, grid.transform * Affine.translation(2001, 3003))
    with open_labels(source, None, "", grid, "image", Context()) as opened:
        labels, valid = opened.read(3000, 2000, 10, 10)
        assert valid.sum() == 12 and (labels[3:6, 1:5] == truth).all()


def other_crs(tmp_path, size):
    """Return a label raster in degrees over GRID; ``size`` is the side of its pixels in pixels of the image."""
    step = size * 1e-4
    return raster(
        tmp_path / "degrees.tif", random_labels(int(0.012 / step), int(0.014 / step), shares=(0.2, 0.2, 0.6)),
        Affine(step, 0, 139.667, 0, -step, 35.688), CRS.from_epsg(4326), nodata=2,
    )  # fmt: skip


@pytest.mark.parametrize("size", [0.2, 0.7, 1, 4])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_pixel_is_labelled_alike_in_every_window(tmp_path, size, data):
    source = other_crs(tmp_path, size)
    whole, known, _ = read_all(source)
    assert 0.05 < known.mean() < 0.95
    row, col = data.draw(st.integers(-5, 49)), data.draw(st.integers(-5, 59))
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    with open_labels(source, None, "", GRID, "image", Context()) as again:
        assert again.rule == ("majority" if size < 1 else "nearest")
        labels, valid = again.read(row, col, height, width)
    top, left = max(row, 0), max(col, 0)
    part = slice(top, max(top, row + height)), slice(left, max(left, col + width))
    here = slice(top - row, top - row + whole[part].shape[0]), slice(left - col, left - col + whole[part].shape[1])
    assert (labels[here] == whole[part]).all()
    assert (valid[here] == known[part]).all()
    assert valid.sum() == known[part].sum()


def test_large_windows_are_cut_without_a_trace(tmp_path, monkeypatch):
    source = other_crs(tmp_path, 0.2)
    whole = read_all(source)[0]
    monkeypatch.setattr("deepscape.engine.denselabels._MOST_PIXELS", 3000)
    assert (read_all(source)[0] == whole).all()


def test_majority_agrees_with_a_count_by_hand_in_another_crs(tmp_path):
    import pyproj

    source = other_crs(tmp_path, 0.25)
    labels, valid, _ = read_all(source)
    with rasterio.open(source.path) as dataset:
        truth = dataset.read(1)
        rows, cols = np.indices(truth.shape)
        lon, lat = 139.667 + (cols + 0.5) * 2.5e-5, 35.688 - (rows + 0.5) * 2.5e-5
    x, y = pyproj.Transformer.from_crs(4326, 32654, always_xy=True).transform(lon, lat)
    r, c = np.floor((3950000 - y) / 10).astype(int), np.floor((x - 380000) / 10).astype(int)
    assert valid.sum() > 100
    for row, col in [(0, 0), (10, 20), (25, 33), (49, 59), (30, 7)]:
        inside = truth[(r == row) & (c == col)]
        share = {value: (inside == value).sum() / len(inside) for value in (1, 7)}
        best = max(share, key=share.get)
        assert valid[row, col] == (share[best] >= 0.6)
        assert labels[row, col] == (best if valid[row, col] else 0)


def test_a_turned_label_raster_leaves_no_hole(tmp_path):
    turned = GRID.transform * Affine.translation(30, -20) * Affine.rotation(40) * Affine.scale(0.97)
    labels, valid, opened = read_all(raster(tmp_path / "l.tif", np.full((90, 90), 4, np.uint8), turned))
    assert opened.rule == "majority"
    inner = valid[10:40, 15:45]
    assert inner.all() and (labels[10:40, 15:45] == 4).all()


# --- around the globe ------------------------------------------------------------------------------------------------


def globe(path, step, west=-180.0):
    """Return a raster of the whole globe; its classes are 1 + the octant of longitude from 0 eastward."""
    cols = np.arange(round(360 / step))
    octant = ((west + (cols + 0.5) * step) % 360 // 45).astype(np.uint8) + 1
    labels = np.tile(octant, (round(180 / step), 1))
    return raster(path, labels, Affine(step, 0, west, 0, -step, 90), CRS.from_epsg(4326), compress="deflate")


def octants(grid):
    import pyproj

    rows, cols = np.indices((grid.height, grid.width))
    lon, _ = pyproj.Transformer.from_crs(grid.crs.to_wkt(), 4326, always_xy=True).transform(
        *grid.centres_of(rows, cols)
    )
    return (lon % 360 // 45).astype(int) + 1, np.abs((lon + 22.5) % 45 - 22.5)


@pytest.mark.parametrize("west", [-180.0, 0.0])
@pytest.mark.parametrize("rule", ["nearest", "majority"])
def test_an_image_over_the_antimeridian(tmp_path, west, rule):
    side = 2_000 if rule == "nearest" else 200_000
    grid = Grid(40, 30, Affine(side, 0, 3339584.724 - 20 * side, 0, -side, 15 * side), CRS.from_epsg(3832))
    labels, valid, opened = read_all(globe(tmp_path / "globe.tif", 0.25, west), grid)
    expected, _ = octants(grid)
    assert opened.rule == rule
    assert valid.mean() > 0.9
    assert set(np.unique(expected)) >= {4, 5}
    assert (labels[valid] == expected[valid]).all()


@pytest.mark.parametrize("epsg", [3031, 3413])
@pytest.mark.parametrize("side", [5_000, 150_000])
def test_an_image_around_a_pole(tmp_path, epsg, side):
    grid = Grid(41, 41, Affine(side, 0, -20.5 * side, 0, -side, 20.5 * side), CRS.from_epsg(epsg))
    labels, valid, _ = read_all(globe(tmp_path / "globe.tif", 0.25), grid)
    expected, from_edge = octants(grid)
    rows, cols = np.indices(labels.shape)
    clear = np.hypot(rows - 20, cols - 20) * np.sin(np.radians(from_edge)) > 1.5
    clear &= from_edge > 0.25
    assert clear.sum() > 1000
    assert valid[clear].all()
    assert (labels[clear] == expected[clear]).all()
    parts = []
    with open_labels(globe(tmp_path / "globe.tif", 0.25), None, "", grid, "image", Context()) as again:
        parts = [again.read(row, 0, 7, 41)[0] for row in range(0, 42, 7)]
    assert (np.concatenate(parts)[:41] == labels).all()


# --- features --------------------------------------------------------------------------------------------------------


def square(row, col, height, width, grid=GRID):
    (left, right), (top, bottom) = grid.corners_of(np.array([row, row + height]), np.array([col, col + width]))
    return shapely.box(left, bottom, right, top)


def test_polygons_lines_and_points_are_burnt_as_in_sampling(tmp_path):
    rng = np.random.default_rng(3)
    at = rng.uniform([380000, 3949500], [380600, 3950000], (12, 2))
    shapes = [shapely.Point(p).buffer(40) for p in at[:6]]
    shapes += [shapely.LineString(at[6:8]), shapely.LineString(at[8:10]), shapely.MultiPoint(at[10:])]
    classes = [5] * len(shapes)
    labels, valid, opened = read_all(layer(tmp_path / "l.gpkg", shapes, classes))
    expected = np.zeros(GRID.height * GRID.width, bool)
    for shape in shapes:
        expected[feature_pixels(shape, GRID)] = True
    assert (valid == expected.reshape(valid.shape)).all()
    assert (labels == 5 * valid).all()
    assert opened.ignored == 0


def test_pixels_of_two_classes_are_ignored_and_counted_once(tmp_path):
    source = layer(
        tmp_path / "l.gpkg", [square(0, 0, 10, 10), square(5, 5, 10, 10), square(8, 8, 4, 4)], ["wood", "lake", "lake"]
    )
    context = Context()
    with open_labels(None, source, "class", GRID, "image", context) as opened:
        labels, valid = opened.read(0, 0, 20, 20)
        opened.read(3, 3, 20, 20)
        opened.finish(context)
        assert not valid[5:10, 5:10].any()
        assert valid.sum() == 100 + 100 - 50
        names = {entry.value: entry.name for entry in opened.classes}
        assert names[labels[0, 0]] == "wood" and names[labels[12, 12]] == "lake"
        assert opened.ignored == 25
    assert context.warnings == [
        "25 pixels are claimed by features of two classes of 'l.gpkg'; they are ignored. Correct the overlapping "
        "features to use them."
    ]


def test_polygons_without_a_pixel_centre_are_listed(tmp_path):
    shapes = [square(0, 0, 3, 3), square(10.1, 10.1, 0.2, 0.2), square(20.6, 20.6, 0.3, 0.3), square(-90, 0, 2, 2)]
    context = Log()
    read_all(layer(tmp_path / "l.gpkg", shapes, [1, 1, 2, 2]), context=context)
    assert context.lines == ["1 of 4 features of 'l.gpkg' lie outside 'image'."]
    assert context.warnings == [
        "2 features of 'l.gpkg' hold no pixel centre and give no label: id 2, 3.",
    ]


def test_a_layer_of_which_hardly_anything_lies_on_the_image_is_warned_of(tmp_path):
    far = [square(-90 - 3 * number, 0, 2, 2) for number in range(60)]
    for inside, told in ((1, "60 of 61"), (2, "")):
        context = Log()
        read_all(
            layer(tmp_path / f"{inside}.gpkg", [square(0, 0, 3, 3)] * inside + far, [1] * (60 + inside)),
            context=context,
        )
        assert [text[:8] for text in context.warnings if "outside" in text] == [told] * bool(told)


def blocks_of(monkeypatch, side):
    monkeypatch.setattr("deepscape.engine.denselabels._BLOCK", side)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), data=st.data())
@pytest.mark.parametrize("whole", [1, 4_000_000])
def test_features_are_burnt_alike_in_every_window_and_block(tmp_path, monkeypatch, whole, seed, data):
    monkeypatch.setattr("deepscape.engine.denselabels._WHOLE_FEATURE", whole)
    blocks_of(monkeypatch, 1024)
    rng = np.random.default_rng(seed)
    corners = np.round(rng.uniform(-50, [650, 550], (12, 3, 2)) / 5) * 5 + [380000, 3949500]
    shapes = [shapely.Polygon(c) if rng.random() < 0.7 else shapely.LineString(c) for c in corners]
    shapes = [shape if shape.is_valid and not shape.is_empty else square(1, 1, 5, 5) for shape in shapes]
    source = layer(tmp_path / "l.gpkg", shapes, rng.integers(1, 4, len(shapes)))
    labels, known, opened = read_all(source)
    blocks_of(monkeypatch, data.draw(st.sampled_from([7, 16, 33])))
    row, col = data.draw(st.integers(-5, 49)), data.draw(st.integers(-5, 59))
    height, width = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    with open_labels(None, source, "class", GRID, "image", Context()) as again:
        part, valid = again.read(row, col, height, width)
        assert again.ignored <= opened.ignored
        again.read(0, 0, 50, 60)
        assert again.ignored == opened.ignored
    for r in range(max(row, 0), min(row + height, 50)):
        here = slice(max(col, 0), min(col + width, 60))
        there = slice(here.start - col, here.stop - col)
        assert (part[r - row, there] == labels[r, here]).all()
        assert (valid[r - row, there] == known[r, here]).all()


def test_blocks_are_burnt_once_while_they_are_kept(tmp_path, monkeypatch):
    blocks_of(monkeypatch, 16)
    burnt = []
    own = FeatureLabels._pixels_in
    monkeypatch.setattr("deepscape.engine.denselabels._WHOLE_FEATURE", 1)
    monkeypatch.setattr(FeatureLabels, "_pixels_in", lambda self, *a: burnt.append(a) or own(self, *a))
    source = layer(tmp_path / "l.gpkg", [square(0, 0, 40, 40)], [1])
    with open_labels(None, source, "class", GRID, "image", Context()) as opened:
        for _ in range(3):
            assert opened.read(0, 0, 32, 32)[1].all()
    assert len(burnt) == 4


def test_reprojected_features_and_threads(tmp_path):
    frame = geopandas.GeoDataFrame({"class": [3]}, geometry=[square(10, 10, 20, 20)], crs=UTM).to_crs(4326)
    frame.to_file(tmp_path / "l.gpkg", driver="GPKG")
    found = []
    with open_labels(None, VectorSource(str(tmp_path / "l.gpkg")), "class", GRID, "image", Context()) as opened:
        threads = [threading.Thread(target=lambda: found.append(opened.read(5, 5, 30, 30))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [int(valid.sum()) for _, valid in found] == [400] * 4


def test_burning_ends_with_a_cancel(tmp_path):
    context = Context()
    source = layer(tmp_path / "l.gpkg", [square(0, 0, 4, 4)], [1])
    with open_labels(None, source, "class", GRID, "image", context) as opened:
        context.cancelled.set()
        with pytest.raises(JobCancelled):
            opened.read(0, 0, 5, 5)
