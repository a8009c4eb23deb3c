"""Labels burnt from features on an image's grid: as in sampling, and alike in every window and block."""

import threading

import geopandas
import numpy as np
import pytest
import shapely
from deepscape.engine.featurelabels import FeatureLabels
from deepscape.engine.featurepixels import feature_pixels
from deepscape.engine.labelsources import open_labels
from deepscape.tasks.context import Context
from deepscape.tasks.errors import JobCancelled
from deepscape.tasks.jobs import VectorSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .labelsets import GRID, UTM, layer, read_all
from .listening import Log


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


@pytest.mark.parametrize("side", [1024, 7])
@pytest.mark.parametrize("whole", [1, 4_000_000])
@pytest.mark.parametrize("text", [True, False])
def test_only_what_no_feature_holds_is_background(tmp_path, monkeypatch, side, whole, text):
    monkeypatch.setattr("deepscape.engine.featurelabels._WHOLE_FEATURE", whole)
    blocks_of(monkeypatch, side)
    shapes = [
        square(0, 0, 10, 10), square(5, 5, 10, 10),  # two classes
        square(20, 20, 10, 10),  # no class
        square(25, 25, 10, 10), square(20, 25, 5, 2),  # over the one without a class
        square(40.6, 50.6, 0.2, 0.2), square(-90, 0, 2, 2),  # without a class, and on no pixel
    ]  # fmt: skip
    classes = ["wood", "lake", None, "wood", "", None, None] if text else [2, 1, None, 2, None, None, None]
    source = layer(tmp_path / "l.gpkg", shapes, classes)
    context = Context()
    labels, known, opened = read_all(source, context=context, background=True)
    lake, wood = 1, 2
    expected = np.zeros((GRID.height, GRID.width), int)
    expected[0:10, 0:10], expected[5:15, 5:15], expected[5:10, 5:10] = wood, lake, -1
    expected[20:30, 20:30], expected[25:35, 25:35] = -1, wood
    assert (labels[known] == expected[known]).all() and (known == (expected >= 0)).all()
    assert [entry.value for entry in opened.classes] == [0, 1, 2] and opened.ignored == 25
    told = [warning for warning in context.warnings if "ignored" in warning]
    assert told == [
        "25 pixels are claimed by features of two classes of 'l.gpkg'; they are ignored. Correct the overlapping "
        "features to use them.",
        "75 pixels of 'l.gpkg' have no class, or one that is left out; they are ignored, and not taken as background.",
    ]
    # Without a background they are what they were: no label, and no word of it.
    context = Context()
    again, valid, _ = read_all(source, context=context)
    assert (valid == (expected > 0)).all() and (again == np.where(valid, expected, 0)).all()
    assert not any("background" in warning for warning in context.warnings)


def test_what_a_crosswalk_leaves_out_is_no_background_and_what_classes_do_not_ask_for_is(tmp_path):
    source = layer(tmp_path / "l.gpkg", [square(0, 0, 10, 10), square(20, 20, 10, 10)], [1, 2])
    (tmp_path / "c.csv").write_text("from,to\n2,\n")
    labels, known, _ = read_all(source, background=True, crosswalk=str(tmp_path / "c.csv"))
    assert (labels[:10, :10] == 1).all() and not known[20:30, 20:30].any()
    assert known.sum() == known.size - 100 and labels.sum() == 100
    labels, known, _ = read_all(source, background=True, classes=(1,))
    assert (labels[:10, :10] == 1).all() and labels.sum() == 100 and known.all()


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
    monkeypatch.setattr("deepscape.engine.featurelabels._BLOCK", side)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), data=st.data())
@pytest.mark.parametrize("whole", [1, 4_000_000])
def test_features_are_burnt_alike_in_every_window_and_block(tmp_path, monkeypatch, whole, seed, data):
    monkeypatch.setattr("deepscape.engine.featurelabels._WHOLE_FEATURE", whole)
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
        here = slice(max(col, 0), max(min(col + width, 60), 0))  # none of a window beside the image
        there = slice(here.start - col, here.stop - col)
        assert (part[r - row, there] == labels[r, here]).all()
        assert (valid[r - row, there] == known[r, here]).all()


def test_blocks_are_burnt_once_while_they_are_kept(tmp_path, monkeypatch):
    blocks_of(monkeypatch, 16)
    burnt = []
    own = FeatureLabels._pixels_in
    monkeypatch.setattr("deepscape.engine.featurelabels._WHOLE_FEATURE", 1)
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
