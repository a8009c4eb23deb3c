"""Labels of a raster on an image's grid: every pixel the same in whichever window it is read, on any grid and CRS."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from deepscape.engine.labelsources import open_labels
from deepscape.engine.rasters import Grid
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from .labelsets import GRID, UTM, random_labels, raster, read_all
from .listening import Log


def test_a_raster_of_the_same_grid_is_read_as_it_is(tmp_path):
    truth = random_labels(50, 60, values=(-3, 0, 70_000, 9))
    source = raster(tmp_path / "labels.tif", truth, GRID.transform, nodata=9)
    labels, valid, opened = read_all(source)
    assert (valid == (truth != 9)).all()
    assert (labels[valid] == truth[valid]).all()
    assert (labels[~valid] == 0).all()
    assert opened.rule == "direct"
    assert [entry.value for entry in opened.classes] == [-3, 0, 70_000]


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


def test_only_what_holds_no_label_is_background(tmp_path):
    # Pixels of 2 x 5 label pixels: of class 1, of two classes, hardly of one, of one that is left out, of none.
    (tmp_path / "c.csv").write_text("from,to\n3,\n1,1\n2,2\n")
    left_out = {"background": True, "crosswalk": str(tmp_path / "c.csv")}
    grid = Grid(5, 1, Affine(10, 0, 0, 0, -10, 0), UTM)
    pixels = [[1] * 10, [1] * 5 + [2] * 5, [1] + [0] * 9, [3] * 7 + [0] * 3, [0] * 10]
    truth = np.concatenate([np.array(pixel, np.uint8).reshape(2, 5) for pixel in pixels], axis=1)
    source = raster(tmp_path / "l.tif", truth, Affine(2, 0, 0, 0, -5, 0), nodata=0)
    context = Context()
    labels, known, opened = read_all(source, grid, context=context, **left_out)
    assert known[0].tolist() == [True, False, True, False, True] and labels[0].tolist() == [1, 0, 0, 0, 0]
    assert opened.ignored == 1
    assert [text.split(";")[0] for text in context.warnings if "ignored" in text] == [
        "1 pixels of 'image' hold several labels of the finer 'l.tif', none of them on 0.6 of the pixel",
        "1 pixels of 'l.tif' have no class, or one that is left out",
    ]
    coarse = raster(tmp_path / "c.tif", np.array([[1, 3, 0]], np.uint8), Affine(10, 0, 0, 0, -10, 0), nodata=0)
    for cell in (10, 5):
        grid = Grid(30 // cell, 10 // cell, Affine(cell, 0, 0, 0, -cell, 0), UTM)
        labels, known, _ = read_all(coarse, grid, **left_out)
        third = grid.width // 3
        assert (known == np.repeat([True, False, True], third)).all() and (labels[:, third:] == 0).all()
        labels, known, _ = read_all(coarse, grid, background=True, classes=(1,))
        assert known.all() and (labels[:, :third] == 1).all() and (labels[:, third:] == 0).all()


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
    monkeypatch.setattr("deepscape.engine.rasterlabels._MOST_PIXELS", 3000)
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
