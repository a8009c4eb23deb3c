"""Splitting samples: shares per class, whole polygons and blocks, the guard, and what is refused."""

from pathlib import Path

import geopandas
import numpy as np
import pandas
import pyogrio
import pytest
import rasterio
from deepscape.engine.splitting import portions, split_samples
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
