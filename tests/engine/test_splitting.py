"""Splitting samples: shares per class, whole polygons and blocks, the guard, and what is refused."""

from pathlib import Path

import geopandas
import numpy as np
import pandas
import pyogrio
import pytest
import rasterio
from deepscape.engine.dealing import portions
from deepscape.engine.splitting import split_samples
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import RasterSource, SplitSamples, VectorSource
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from shapely.geometry import MultiPolygon, box

DEMO = Path(__file__).parents[2] / "demo" / "data"


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "grid.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=200, height=200, count=1, dtype="uint8", crs="EPSG:32654",
        transform=from_origin(1000, 3000, 10, 10),
    ):  # fmt: skip
        pass
    return RasterSource(str(path))


def points(path, rows, cols, **fields):
    x, y = 1005 + 10 * np.asarray(cols), 2995 - 10 * np.asarray(rows)
    frame = geopandas.GeoDataFrame(fields, geometry=geopandas.points_from_xy(x, y), crs="EPSG:32654")
    pyogrio.write_dataframe(frame, path)
    return VectorSource(str(path))


def split(source, output, context=None, field="class_id", **fields):
    result = split_samples(SplitSamples(source, field, str(output), **fields), context or Context())
    return result, pyogrio.read_dataframe(result.output)


def place(table):
    return ((2995 - table.geometry.y) / 10).to_numpy(), ((table.geometry.x - 1005) / 10).to_numpy()


@given(st.integers(0, 500), st.integers(1, 100), st.integers(0, 100))
def test_portions_sum_up_and_leave_no_part_empty(count, train, validation):
    validation = min(validation, 100 - train)
    shares = {"train": train / 100, "validation": validation / 100, "test": 1 - train / 100 - validation / 100}
    shares = {part: share for part, share in shares.items() if share > 1e-9}
    given_out = portions(count, shares)
    assert sum(given_out.values()) == count
    if count >= len(shares):
        assert min(given_out.values()) >= 1
    if count * min(shares.values()) >= 1:
        assert all(abs(given_out[part] - count * share) < 1 for part, share in shares.items())


def test_portions_of_the_usual_shares():
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    assert portions(10, shares) == {"train": 6, "validation": 2, "test": 2}
    assert portions(3, shares) == {"train": 1, "validation": 1, "test": 1}
    assert portions(9, {"train": 0.5, "test": 0.5}) == {"train": 5, "test": 4}


@pytest.mark.parametrize("seed", range(10))
def test_half_of_the_demo_polygons_trains_by_class(tmp_path, seed):
    parts = [pyogrio.read_dataframe(DEMO / f"{name}_polygons.gpkg") for name in ("train", "validation")]
    pyogrio.write_dataframe(pandas.concat(parts, ignore_index=True), tmp_path / "all.gpkg")
    result, table = split(
        VectorSource(str(tmp_path / "all.gpkg")), tmp_path / "s.gpkg", train_share=0.5, validation_share=0, seed=seed
    )
    assert result.counts == {
        "train": {"1": 5, "2": 4, "3": 2, "4": 2},
        "test": {"1": 4, "2": 4, "3": 2, "4": 2},
    }
    assert result.dropped == 0 and len(table) == 25
    again = split(
        VectorSource(str(tmp_path / "all.gpkg")), tmp_path / "t.gpkg", train_share=0.5, validation_share=0, seed=seed
    )[1]
    assert table["split"].tolist() == again["split"].tolist()


def test_points_of_a_polygon_stay_together_and_all_fields_are_kept(tmp_path):
    origin = np.repeat(np.arange(12), 5)
    source = points(
        tmp_path / "p.gpkg", np.zeros(60), np.arange(60), kind=np.where(origin < 6, "wood", "lake"),
        originfid=origin, Split=["old"] * 60, note=["n"] * 60,
    )  # fmt: skip
    result, table = split(source, tmp_path / "s.gpkg", field="kind", seed=3)
    assert list(table.columns) == ["kind", "originfid", "note", "split", "geometry"]
    assert table.groupby("originfid")["split"].nunique().tolist() == [1] * 12
    polygons = table.drop_duplicates("originfid").groupby(["kind", "split"]).size()
    assert polygons.to_dict() == {
        (kind, part): number
        for kind in ("lake", "wood")
        for part, number in (("train", 4), ("validation", 1), ("test", 1))
    }
    assert result.counts["train"] == {"1": 20, "2": 20}
    other = split(source, tmp_path / "o.gpkg", field="kind", seed=4)[1]
    assert other["split"].tolist() != table["split"].tolist()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), guard=st.sampled_from([1.0, 4.0, 9.0]))
def test_blocks_stay_whole_and_the_guard_keeps_the_parts_apart(tmp_path_factory, seed, guard):
    tmp_path = tmp_path_factory.mktemp("blocks")
    raster = tmp_path / "grid.tif"
    with rasterio.open(
        raster, "w", driver="GTiff", width=200, height=200, count=1, dtype="uint8", crs="EPSG:32654",
        transform=from_origin(1000, 3000, 10, 10),
    ):  # fmt: skip
        pass
    generator = np.random.default_rng(seed)
    rows, cols = generator.integers(0, 200, 800), generator.integers(0, 200, 800)
    source = points(tmp_path / "p.gpkg", rows, cols, class_id=generator.integers(0, 4, 800))
    result, table = split(
        source, tmp_path / "s.gpkg", raster=RasterSource(str(raster)), block_size=40, guard=guard, seed=seed
    )
    rows, cols = place(table)
    block = rows // 40 * 5 + cols // 40
    assert table.groupby(block)["split"].nunique().max() == 1
    assert result.dropped == 800 - len(table)
    assert {part: set(counts) for part, counts in result.counts.items()} == {
        part: set("0123") for part in ("train", "validation", "test")
    }
    distance = np.maximum(np.abs(rows[:, None] - rows), np.abs(cols[:, None] - cols))
    apart = table["split"].to_numpy()[:, None] != table["split"].to_numpy()
    assert distance[apart].min() >= guard


def test_auto_takes_blocks_for_plain_points_with_the_default_block_and_guard(tmp_path, raster):
    rows, cols = (part.ravel() for part in np.mgrid[0:200:4, 0:200:4])
    source = points(tmp_path / "p.gpkg", rows, cols, class_id=(rows // 4 + cols // 4) % 2)
    result, table = split(source, tmp_path / "s.gpkg", raster=raster)
    rows, cols = place(table)
    assert table.groupby(rows // 40 * 5 + cols // 40)["split"].nunique().max() == 1  # a fifth of 200 pixels
    distance = np.maximum(np.abs(rows[:, None] - rows), np.abs(cols[:, None] - cols))
    assert distance[table["split"].to_numpy()[:, None] != table["split"].to_numpy()].min() >= 9
    assert result.dropped > 0


def test_guard_between_polygons_is_that_of_their_bounds(tmp_path, raster):
    # Eight polygons of one class, 10 px apart from the next.
    shapes = [box(1000 + 200 * i, 2900, 1100 + 200 * i, 3000) for i in range(8)]
    pyogrio.write_dataframe(
        geopandas.GeoDataFrame({"class_id": [1] * 8}, geometry=shapes, crs="EPSG:32654"), tmp_path / "v.gpkg"
    )
    source = VectorSource(str(tmp_path / "v.gpkg"))
    fields = {"raster": raster, "train_share": 0.5, "validation_share": 0}
    assert split(source, tmp_path / "s.gpkg", guard=10, **fields)[0].dropped == 0
    result, table = split(source, tmp_path / "s.gpkg", guard=10.5, **fields)
    assert result.dropped == 8 - len(table) > 0
    assert result.counts["test"] == {"1": 4}  # training gives way


class Logging(Context):
    def __init__(self):
        super().__init__()
        self.lines = []

    def log(self, text):
        self.lines.append(text)


def distances_told(context):
    texts = [text for text in (*context.lines, *context.warnings) if "come as near as" in text]
    assert all("larger patches share pixels" in text and "GUARD" in text for text in texts)
    return [text.split(":")[0] for text in texts]


@pytest.mark.parametrize("step", [2, 8, 9])
def test_how_near_training_comes_to_the_test_is_told(tmp_path, raster, step):
    # Pairs of points, one polygon each, in a column; the polygons lie that many pixels apart.
    origin = np.repeat(np.arange(8), 2)
    source = points(
        tmp_path / "p.gpkg", origin * (step + 1) + np.tile([0, 1], 8), np.zeros(16), class_id=[1] * 16,
        originfid=origin,
    )  # fmt: skip
    for options, unit, told in (
        ({"raster": raster}, "pixels of 'grid.tif'", step < 9),
        ({}, "m", True),
        ({"guard": 1.0, "raster": raster}, "", False),
    ):
        context = Logging()
        result, table = split(source, tmp_path / "s.gpkg", context, validation_share=0, **options)
        rows = {part: place(table[table["split"] == part])[0] for part in ("train", "test")}
        least = np.abs(rows["train"][:, None] - rows["test"]).min()
        assert least == step
        # There, at the end of its zone, UTM is 0.27 % longer than the ground.
        number = f"{least:g}" if "raster" in options else f"{10 * least / 1.0027:.3g}"
        assert distances_told(context) == [f"Training and test samples come as near as {number} {unit}"] * bool(told)
        assert any("come as near" in text for text in result.warnings) == (bool(told) and "raster" in options)
    context = Logging()
    split(source, tmp_path / "f.gpkg", context, folds=4, raster=raster)
    expected = [f"Samples of two folds come as near as {step} pixels of 'grid.tif'"] * (step < 9)
    assert distances_told(context) == expected


def test_how_near_polygons_come_is_told_on_the_globe(tmp_path):
    boxes = [box(20 + 0.01 * n, 60, 20.008 + 0.01 * n, 60.005) for n in range(6)]
    frame = geopandas.GeoDataFrame({"class_id": [1] * 6}, geometry=boxes, crs="EPSG:4326")
    pyogrio.write_dataframe(frame, tmp_path / "p.gpkg")
    context = Logging()
    source = VectorSource(str(tmp_path / "p.gpkg"))
    split(source, tmp_path / "s.gpkg", context, train_share=0.5, validation_share=0.5)
    # 0.002 degrees of longitude at 60 degrees north.
    (told,) = distances_told(context)
    assert told.startswith("Training and validation samples come as near as 112 m (measured between the rectangles")
    pyogrio.write_dataframe(frame.set_crs(None, allow_override=True), tmp_path / "q.gpkg")
    context = Logging()
    split(VectorSource(str(tmp_path / "q.gpkg")), tmp_path / "t.gpkg", context)
    assert distances_told(context) == []


def test_random_and_no_test_part(tmp_path):
    source = points(tmp_path / "p.gpkg", np.zeros(30), np.arange(30), class_id=[1] * 20 + [2] * 10)
    result, _ = split(source, tmp_path / "s.gpkg", method="random", train_share=0.7, validation_share=0.3)
    assert result.counts == {"train": {"1": 14, "2": 7}, "validation": {"1": 6, "2": 3}}


def test_mixed_single_and_multiple_polygons_make_a_layer_of_multiple_ones(tmp_path):
    shapes = [box(0, 0, 1, 1), MultiPolygon([box(2, 2, 3, 3), box(4, 4, 5, 5)])] * 3
    frame = geopandas.GeoDataFrame({"class_id": [1, 1, 1, 2, 2, 2]}, geometry=shapes, crs=32654)
    pyogrio.write_dataframe(frame, tmp_path / "v.geojson")
    _, table = split(VectorSource(str(tmp_path / "v.geojson")), tmp_path / "s.gpkg")
    assert set(table.geom_type) == {"MultiPolygon"} and len(table) == 6


def test_what_cannot_be_split_is_refused(tmp_path, raster):
    def refused(source, **fields):
        with pytest.raises(BadInput) as caught:
            split(source, tmp_path / "s.gpkg", **fields)
        assert not (tmp_path / "s.gpkg").exists()
        return str(caught.value)

    few = points(
        tmp_path / "p.gpkg", [0, 0, 0, 0, 0], [0, 1, 2, 3, 4], class_id=[1, 1, 1, 2, 2], originfid=[1, 2, 3, 4, 4]
    )
    text = refused(few)
    assert "Class 2 (Class 2) has 1 polygons, fewer than the 3 parts (train, validation, test)" in text
    assert "VALIDATION_SHARE 0" in text
    assert "Class 1 (Class 1) has 1 blocks" in refused(few, method="blocks", raster=raster)
    assert "METHOD blocks needs RASTER" in refused(few, method="blocks")
    assert "GUARD 3 needs RASTER" in refused(few, guard=3, train_share=0.5, validation_share=0.5)
    assert "TRAIN_SHARE is 0" in refused(few, train_share=0)
    assert "no field 'klass'" in refused(few, field="klass")
    plain = points(tmp_path / "q.gpkg", [0, 0], [0, 1], class_id=[1, 1])
    assert "METHOD polygons cannot be used" in refused(plain, method="polygons")
    near = points(tmp_path / "n.gpkg", [0] * 4, range(4), class_id=[1] * 4)
    assert "no feature left in the part 'train' at GUARD 50" in refused(near, method="random", guard=50, raster=raster)


# --- scenes, and what a column says ----------------------------------------------------------------------------------


def four_cities(path, field="layer", per=30):
    city = np.repeat(["Paris", "Lyon", "Nice", "Metz"], per)
    return points(path, np.zeros(4 * per), np.arange(4 * per), class_id=np.arange(4 * per) % 3, **{field: city})


def test_scenes_go_whole_to_one_part(tmp_path):
    context = Context()
    said = []
    context.log = said.append
    result, table = split(
        four_cities(tmp_path / "p.gpkg"), tmp_path / "s.gpkg", context, method="scene", train_share=0.5,
        validation_share=0.25,
    )  # fmt: skip
    assert table.groupby("layer")["split"].nunique().tolist() == [1] * 4
    assert table.groupby("split")["layer"].nunique().to_dict() == {"train": 2, "validation": 1, "test": 1}
    assert result.counts["test"] == {"0": 10, "1": 10, "2": 10}
    assert "4 scenes by the field 'layer': 'Lyon', 'Metz', 'Nice', 'Paris'." in said


def test_leaving_one_scene_out(tmp_path):
    result, table = split(four_cities(tmp_path / "p.gpkg"), tmp_path / "s.gpkg", method="scene", folds=4)
    assert "split" not in table
    assert table.groupby("layer")["fold"].nunique().tolist() == [1] * 4
    assert sorted(table["fold"].unique().tolist()) == [1, 2, 3, 4]
    assert table["near"].tolist() == [0] * 120 and (result.dropped, result.marked) == (0, 0)
    assert result.counts == {str(fold): {"0": 10, "1": 10, "2": 10} for fold in range(1, 5)}


def test_the_scene_field_is_the_first_of_the_known_ones_or_the_one_that_is_named(tmp_path):
    source = points(
        tmp_path / "p.gpkg", [0] * 6, range(6), class_id=[1] * 6, Tile=[1.0, 1, 2, 2, 3, 3], year=[1, 2, 3, 1, 2, 3]
    )
    by_tile = split(source, tmp_path / "s.gpkg", method="scene")[1]
    assert by_tile.groupby("Tile")["split"].nunique().tolist() == [1, 1, 1]
    by_year = split(source, tmp_path / "t.gpkg", method="scene", column="year")[1]
    assert by_year.groupby("year")["split"].nunique().tolist() == [1, 1, 1]


def test_a_column_of_parts_is_taken_as_it_is(tmp_path):
    source = points(
        tmp_path / "p.gpkg", [0] * 6, range(6), class_id=[1, 1, 1, 2, 2, 2],
        split=["Training", "val", "testing", "train", "VALID", None],
    )  # fmt: skip
    context = Context()
    result, table = split(source, tmp_path / "s.gpkg", context, method="column", column="split", near="mark")
    assert table["split"].tolist() == ["train", "validation", "test", "train", "validation", ""]
    assert result.counts == {
        "train": {"1": 1, "2": 1}, "validation": {"1": 1, "2": 1}, "test": {"1": 1},
    }  # fmt: skip
    assert "Class 2 (Class 2) has no feature left in the part 'test'" in context.warnings[0]
    assert "1 features without a part in the column stay without one." in context.warnings[1]
    dropped, table = split(source, tmp_path / "t.gpkg", method="column", column="split")
    assert len(table) == 5 and dropped.dropped == 1


def test_any_other_column_holds_groups(tmp_path):
    source = points(tmp_path / "p.gpkg", [0] * 12, range(12), class_id=[1, 2] * 6, owner=np.repeat([5, 6, 7], 4))
    result, table = split(source, tmp_path / "s.gpkg", method="column", column="owner")
    assert table.groupby("owner")["split"].nunique().tolist() == [1, 1, 1]
    assert result.counts["validation"] == {"1": 2, "2": 2}


def test_columns_that_cannot_be_read_are_refused(tmp_path):
    source = points(
        tmp_path / "p.gpkg", [0] * 4, range(4), class_id=[1, 1, 2, 2], mixed=["train", "north", "test", "south"],
        parts=["train", "test"] * 2, empty=[None] * 4, scene=["a", "a", "b", "b"],
    )  # fmt: skip

    def refused(**fields):
        with pytest.raises(BadInput) as caught:
            split(source, tmp_path / "s.gpkg", **fields)
        return str(caught.value)

    text = refused(method="column", column="mixed")
    assert "holds parts and other values: 'north', 'south', 'test', 'train'" in text and "COLUMN of groups" in text
    assert "METHOD column needs COLUMN" in refused(method="column")
    assert "has no field 'klass'" in refused(method="scene", column="klass")
    assert "is empty in every feature" in refused(method="column", column="empty")
    assert "FOLDS 2 cannot be made: the field 'parts' holds the parts" in refused(
        method="column", column="parts", folds=2
    )
    assert "Class 1 (Class 1) has 1 scenes, fewer than the 3 parts" in refused(method="scene")
    assert "Class 1 (Class 1) has 1 scenes, fewer than the 2 folds" in refused(method="scene", folds=2)
    plain = points(tmp_path / "q.gpkg", [0] * 4, range(4), class_id=[1, 1, 2, 2])
    with pytest.raises(BadInput, match=r"finds no field scene, layer, image or tile in 'q\.gpkg'"):
        split(plain, tmp_path / "s.gpkg", method="scene")
    with pytest.raises(BadInput, match="FOLDS is 1"):
        SplitSamples(plain, "class_id", "x.gpkg", folds=1)
    with pytest.raises(BadInput, match="UNIT 'miles' is not a valid choice"):
        SplitSamples(plain, "class_id", "x.gpkg", unit="miles")


def test_a_column_that_is_not_used_is_told(tmp_path):
    context = Context()
    split(four_cities(tmp_path / "p.gpkg"), tmp_path / "s.gpkg", context, method="random", column="layer")
    assert context.warnings == ["COLUMN 'layer' is not used: METHOD random does not read it."]


# --- folds and marks -------------------------------------------------------------------------------------------------


def test_folds_are_of_one_size_and_stratified(tmp_path):
    source = points(tmp_path / "p.gpkg", np.zeros(64), np.arange(64), class_id=np.repeat(np.arange(8), 8))
    result, table = split(source, tmp_path / "s.gpkg", method="random", folds=5, train_share=0)
    # Eight of each class in five folds: three of them get two, in turn.
    assert table.groupby(["class_id", "fold"]).size().max() == 2
    assert sorted(table.groupby("fold").size().tolist()) == [12, 13, 13, 13, 13]
    assert list(result.counts) == ["1", "2", "3", "4", "5"]


def test_folds_mark_what_is_near_to_another_fold_and_drop_nothing(tmp_path, raster):
    rows, cols = (part.ravel() for part in np.mgrid[0:200:4, 0:200:4])
    source = points(tmp_path / "p.gpkg", rows, cols, class_id=(rows // 4 + cols // 4) % 2, Fold=np.zeros(2500))
    result, table = split(source, tmp_path / "s.gpkg", raster=raster, method="blocks", folds=3, block_size=40)
    assert len(table) == 2500 and list(table.columns) == ["class_id", "fold", "near", "geometry"]
    rows, cols = place(table)
    distance = np.maximum(np.abs(rows[:, None] - rows), np.abs(cols[:, None] - cols))
    fold = table["fold"].to_numpy()
    apart = np.where(fold[:, None] != fold, distance, np.inf).min(axis=1)
    assert (table["near"] == (apart < 9)).all()
    assert result.marked == table["near"].sum() > 0 and result.dropped == 0


def test_marked_features_stay_with_an_empty_split(tmp_path, raster):
    rows, cols = (part.ravel() for part in np.mgrid[0:200:4, 0:200:4])
    source = points(tmp_path / "p.gpkg", rows, cols, class_id=(rows // 4 + cols // 4) % 2)
    dropped, short = split(source, tmp_path / "s.gpkg", raster=raster, block_size=40)
    marked, table = split(source, tmp_path / "t.gpkg", raster=raster, block_size=40, near="mark")
    assert len(table) == 2500 and marked.marked == dropped.dropped == (table["near"] == 1).sum()
    assert (table["split"] == "").tolist() == (table["near"] == 1).tolist()
    kept = table[table["near"] == 0]
    assert kept["split"].tolist() == short["split"].tolist() and "near" not in short
    assert marked.counts == dropped.counts


# --- what holds for every split --------------------------------------------------------------------------------------


def claims(table, size):
    """How many parts claim each pixel by the patches of their samples."""
    found = np.zeros((4, 260, 260), dtype=bool)
    for row, col, part in zip(*place(table), table["split"]):
        top, left = int(row) - size // 2 + 30, int(col) - size // 2 + 30
        found[["train", "validation", "test", ""].index(part), top : top + size, left : left + size] = True
    return found[:3].sum(axis=0)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    guard=st.integers(1, 16),
    method=st.sampled_from(["blocks", "random", "polygons", "column"]),
    near=st.sampled_from(["drop", "mark"]),
)
def test_no_two_parts_share_a_pixel_and_nothing_is_lost(tmp_path_factory, seed, guard, method, near):
    tmp_path = tmp_path_factory.mktemp("shared")
    with rasterio.open(
        tmp_path / "grid.tif", "w", driver="GTiff", width=200, height=200, count=1, dtype="uint8", crs="EPSG:32654",
        transform=from_origin(1000, 3000, 10, 10),
    ):  # fmt: skip
        pass
    generator = np.random.default_rng(seed)
    rows, cols = generator.integers(0, 200, 120), generator.integers(0, 200, 120)
    rows[:6], cols[:6] = [0, 0, 199, 199, 100, 100], [0, 199, 0, 199, 40, 160]
    source = points(
        tmp_path / "p.gpkg", rows, cols, class_id=[1] * 120, originfid=rows // 20 * 10 + cols // 20,
        district=rows // 50 * 4 + cols // 50,
    )  # fmt: skip
    result, table = split(
        source, tmp_path / "s.gpkg", method=method, column="district" if method == "column" else "",
        raster=RasterSource(str(tmp_path / "grid.tif")), guard=guard, seed=seed, near=near, train_share=0.6,
        block_size=50 if method == "blocks" else None,
    )  # fmt: skip
    assert claims(table, guard).max() <= 1
    assert len(table) + result.dropped == 120
    assert sum(sum(part.values()) for part in result.counts.values()) + result.dropped + result.marked == 120
    assert result.dropped == 0 if near == "mark" else result.marked == 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), method=st.sampled_from(["blocks", "random", "polygons", "scene"]))
def test_the_order_of_the_features_decides_nothing(tmp_path_factory, seed, method):
    tmp_path = tmp_path_factory.mktemp("order")
    generator = np.random.default_rng(seed)
    places = generator.choice(40_000, 200, replace=False)
    shuffled = generator.permutation(200)
    found = []
    for name, order in (("a", np.arange(200)), ("b", shuffled)):
        rows, cols = places[order] // 200, places[order] % 200
        source = points(
            tmp_path / f"{name}.gpkg", rows, cols, class_id=places[order] % 2, originfid=rows // 20 * 10 + cols // 20,
            scene=rows // 40, key=order,
        )  # fmt: skip
        table = split(
            source, tmp_path / f"{name}_s.gpkg", method=method, unit="map", block_size=300, guard=30, seed=seed,
            near="mark", validation_share=0.4,
        )[1]  # fmt: skip
        found.append(table.set_index("key")["split"].sort_index().tolist())
    assert found[0] == found[1]


def test_threads_decide_nothing(tmp_path, raster):
    from concurrent.futures import ThreadPoolExecutor

    rows, cols = (part.ravel() for part in np.mgrid[0:200:4, 0:200:4])
    source = points(tmp_path / "p.gpkg", rows, cols, class_id=(rows // 4 + cols // 4) % 2)

    def parts(number):
        return split(source, tmp_path / f"{number}.gpkg", raster=raster, block_size=40, near="mark")[1][
            "split"
        ].tolist()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(parts, range(4)))
    assert all(other == found[0] for other in [parts("alone"), *found])


# --- lengths ---------------------------------------------------------------------------------------------------------


def cloud(path, lon, lat, crs=4326, **fields):
    frame = geopandas.GeoDataFrame(fields, geometry=geopandas.points_from_xy(lon, lat), crs=4326).to_crs(crs)
    pyogrio.write_dataframe(frame, path)
    return VectorSource(str(path))


def ground_distance(table):
    """The geodesic distance of each sample of a part to the nearest of another part, in metres."""
    from pyproj import Geod

    places = table.to_crs(4326).geometry
    lon, lat, part = places.x.to_numpy(), places.y.to_numpy(), table["split"].to_numpy()
    first, second = (index.ravel() for index in np.mgrid[: len(lon), : len(lon)])
    distance = Geod(ellps="WGS84").inv(lon[first], lat[first], lon[second], lat[second])[2]
    return distance[part[first] != part[second]]


@pytest.mark.parametrize(
    ("lon", "lat", "crs"),
    [
        (10, 60, 3857),  # map units are twice the metres
        (10, 60, 4326),
        (180, -17, 4326),  # Fiji, on both sides of the antimeridian
        (180, -17, 32701),
        (30, -89.7, 3031),  # around the pole
        (45, 88, 3413),
        (45, 78, 3413),
    ],
)
def test_blocks_and_guard_in_metres_without_an_image(tmp_path, lon, lat, crs):
    generator = np.random.default_rng(1)
    # About 60 km wide and high.
    wide = min(0.3 / np.cos(np.radians(lat)), 179)
    lon = (lon + generator.uniform(-wide, wide, 500) + 180) % 360 - 180
    source = cloud(tmp_path / "p.gpkg", lon, np.clip(lat + generator.uniform(-0.3, 0.3, 500), -90, 90), crs,
                   class_id=np.arange(500) % 3)  # fmt: skip
    result, table = split(
        source, tmp_path / "s.gpkg", method="blocks", unit="metres", block_size=12_000, guard=1_500, near="drop"
    )
    # By max(|dx|, |dy|) the guard is the distance along the axes; the diagonal is longer.
    assert ground_distance(table).min() >= 1_500 * (1 - 2e-3)
    assert 0 < result.dropped < 350
    assert {part: set(counts) for part, counts in result.counts.items()} == {
        part: set("012") for part in ("train", "validation", "test")
    }


def test_a_raster_across_the_antimeridian_finds_samples_on_both_sides(tmp_path):
    with rasterio.open(
        tmp_path / "fiji.tif", "w", driver="GTiff", width=400, height=400, count=1, dtype="uint8", crs="EPSG:4326",
        transform=from_origin(179, -16, 0.005, 0.005),
    ):  # fmt: skip
        pass
    generator = np.random.default_rng(2)
    lon = (180 + generator.uniform(-1, 1, 400) + 180) % 360 - 180
    source = cloud(tmp_path / "p.gpkg", lon, generator.uniform(-18, -16, 400), class_id=np.arange(400) % 2)
    result, table = split(
        source, tmp_path / "s.gpkg", raster=RasterSource(str(tmp_path / "fiji.tif")), block_size=100, guard=9
    )
    col = np.floor((table.geometry.x % 360 - 179) / 0.005)
    row = np.floor((-16 - table.geometry.y) / 0.005)
    assert 0 <= col.min() and col.max() < 400
    assert table.groupby(row // 100 * 4 + col // 100)["split"].nunique().max() == 1
    distance = np.maximum(
        np.abs(row.to_numpy()[:, None] - row.to_numpy()), np.abs(col.to_numpy()[:, None] - col.to_numpy())
    )
    assert distance[table["split"].to_numpy()[:, None] != table["split"].to_numpy()].min() >= 9
    assert 0 < result.dropped < 200


def test_the_edges_of_a_world_map_are_neighbours(tmp_path):
    with rasterio.open(
        tmp_path / "world.tif", "w", driver="GTiff", width=3600, height=1800, count=1, dtype="uint8", crs="EPSG:4326",
        transform=from_origin(-180, 90, 0.1, 0.1),
    ):  # fmt: skip
        pass
    shapes = [box(-179.95, 0, -179.0, 1), box(179.0, 0, 179.95, 1), box(0, 0, 1, 1), box(90, 0, 91, 1)]
    # The last one crosses the antimeridian, cut into two parts as the GeoJSON specification asks for.
    shapes.append(MultiPolygon([box(179.5, 20, 180, 21), box(-180, 20, -179.5, 21)]))
    shapes.append(box(-179.4, 20, -179.0, 21))
    frame = geopandas.GeoDataFrame({"class_id": [1] * 6, "split": ["train", "test"] * 3}, geometry=shapes, crs=4326)
    pyogrio.write_dataframe(frame, tmp_path / "v.gpkg")
    table = split(
        VectorSource(str(tmp_path / "v.gpkg")), tmp_path / "s.gpkg", method="column", column="split", near="mark",
        raster=RasterSource(str(tmp_path / "world.tif")), guard=1.5,
    )[1]  # fmt: skip
    assert table["near"].tolist() == [1, 0, 0, 0, 1, 0]
    assert table["split"].tolist() == ["", "test", "train", "test", "", "test"]


def test_metres_of_a_mercator_image_are_those_of_the_ground(tmp_path):
    with rasterio.open(
        tmp_path / "m.tif", "w", driver="GTiff", width=100, height=100, count=1, dtype="uint8", crs="EPSG:3857",
        transform=from_origin(1_113_195, 8_400_000, 10, 10),
    ):  # fmt: skip
        pass
    x = 1_113_200 + 10 * np.array([0, 15, 17, 40])
    frame = geopandas.GeoDataFrame(
        {"class_id": [1] * 4, "split": ["test", "train", "train", "train"]},
        geometry=geopandas.points_from_xy(x, [8_399_505] * 4), crs=3857,
    )  # fmt: skip
    pyogrio.write_dataframe(frame, tmp_path / "p.gpkg")
    table = split(
        VectorSource(str(tmp_path / "p.gpkg")), tmp_path / "s.gpkg", method="column", column="split", near="mark",
        raster=RasterSource(str(tmp_path / "m.tif")), unit="metres", guard=80,
    )[1]  # fmt: skip
    # At 60 degrees a pixel of 10 map units is 5 m wide: 80 m are 16 pixels.
    assert table["near"].tolist() == [0, 1, 0, 0]


def test_the_computed_block_is_the_range_of_the_variogram(tmp_path):
    values = np.random.default_rng(0).normal(size=(10, 10))
    with rasterio.open(
        tmp_path / "g.tif", "w", driver="GTiff", width=1200, height=1200, count=1, dtype="float32", crs="EPSG:32654",
        transform=from_origin(1000, 3000, 10, 10),
    ) as out:  # fmt: skip
        out.write(np.kron(values, np.ones((120, 120))).astype("float32"), 1)
    rows, cols = (part.ravel() for part in np.mgrid[0:1200:24, 0:1200:24])
    source = points(tmp_path / "p.gpkg", rows, cols, class_id=(rows // 24 + cols // 24) % 2)
    context = Context()
    said = []
    context.log = said.append
    _, table = split(source, tmp_path / "s.gpkg", context, raster=RasterSource(str(tmp_path / "g.tif")))
    text = next(text for text in said if text.startswith("Blocks of"))
    side = int(text.split()[2])
    assert 100 <= side < 240 and "ten patches are 90; pixels resemble each other up to" in text
    rows, cols = place(table)
    assert table.groupby(rows // side * 50 + cols // side)["split"].nunique().max() == 1


def test_a_computed_block_leaves_enough_blocks_and_warns(tmp_path, raster):
    # All samples in a corner of 40 x 40 pixels: one block of the usual side.
    rows, cols = (part.ravel() for part in np.mgrid[0:40:2, 0:40:2])
    source = points(tmp_path / "p.gpkg", rows, cols, class_id=[1] * 400)
    table = split(source, tmp_path / "s.gpkg", raster=raster, guard=3)[1]
    rows, cols = place(table)
    assert table.groupby(rows // 20 * 10 + cols // 20)["split"].nunique().max() == 1
    assert set(table["split"]) == {"train", "validation", "test"}


def test_lengths_that_cannot_be_measured_are_refused(tmp_path, raster):
    source = points(tmp_path / "p.gpkg", [0] * 4, range(4), class_id=[1] * 4)

    def refused(**fields):
        with pytest.raises(BadInput) as caught:
            split(source, tmp_path / "s.gpkg", method="blocks", **fields)
        return str(caught.value)

    assert "METHOD blocks needs RASTER or BLOCK_SIZE" in refused(unit="metres")
    assert "BLOCK_SIZE is 3 metres, less than a pixel" in refused(unit="metres", block_size=3, raster=raster)
    assert "BLOCK_SIZE is 0 map units, less than a pixel" in refused(unit="map", block_size=0)
    frame = pyogrio.read_dataframe(tmp_path / "p.gpkg").set_crs(None, allow_override=True)
    pyogrio.write_dataframe(frame, tmp_path / "n.gpkg")
    with pytest.raises(BadInput, match=r"UNIT metres cannot be used: 'n\.gpkg' has no CRS"):
        split(VectorSource(str(tmp_path / "n.gpkg")), tmp_path / "s.gpkg", method="blocks", unit="metres", block_size=9)
