"""Selecting patches: the reference's grid and counts, no-data and labels, random windows, splits, what is refused."""

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from deepscape.engine import patchscan
from deepscape.engine.gridding import grid_starts, select_patches
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, JobCancelled
from deepscape.tasks.jobs import RasterSource, SelectPatches, VectorSource
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from shapely.geometry import box


def raster(path, values=None, shape=None, nodata=None, origin=(1000, 3000), dtype="uint8", **options):
    """Write values ``(H, W)`` or ``(C, H, W)``, or an empty file that takes no room."""
    bands = None if values is None else np.asarray(values).reshape(-1, *np.shape(values)[-2:])
    count, height, width = (1, *shape) if bands is None else bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype=dtype, crs="EPSG:32654",
        transform=from_origin(*origin, 10, 10), nodata=nodata, sparse_ok=True, **options,
    ) as dataset:  # fmt: skip
        if bands is not None:
            dataset.write(bands.astype(dtype))
    return RasterSource(str(path))


def select(source, folder, context=None, **fields):
    job = SelectPatches(source, str(folder / "patches.gpkg"), **fields)
    result = select_patches(job, context or Context())
    return result, pyogrio.read_dataframe(result.output)


def places(table):
    return list(zip(table["row"], table["col"]))


@pytest.fixture
def image(tmp_path):
    return raster(tmp_path / "image.tif", shape=(101, 121))


# --- the grid --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """As large as the reference's example, and empty."""
    return raster(tmp_path_factory.mktemp("large") / "large.tif", shape=(5824, 6616), tiled=True)


def test_grid_of_the_reference(large, tmp_path):
    result, table = select(large, tmp_path, patch_size=64, step=64)
    assert (result.patch_count, result.counts) == (9270, {"": 9270})
    assert (table["row"].nunique(), table["col"].nunique()) == (90, 103)
    assert places(table)[:2] == [(1, 1), (1, 65)]


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"split": "chessboard"}, {"train": 4635, "validation": 4635}),
        (
            {"split": "proportions", "train_share": 0.5, "validation_share": 0.25},
            {"train": 4635, "validation": 2318, "test": 2317},
        ),
        (
            {"split": "proportions", "train_share": 0.8, "validation_share": 0.1},
            {"train": 7416, "validation": 927, "test": 927},
        ),
    ],
)
def test_splits_of_the_reference(large, tmp_path, fields, counts):
    result, table = select(large, tmp_path, patch_size=64, step=64, **fields)
    assert result.counts == counts == table["split"].value_counts().to_dict()
    assert result.warnings == ()


def test_starts_of_the_grid():
    assert grid_starts(5824, 64, 64, 0)[[0, -1]].tolist() == [1, 5697]
    assert grid_starts(20, 5, 3, 2).tolist() == [3, 6, 9, 12, 15]
    assert grid_starts(8, 4, 4, 0).tolist() == [1]
    assert grid_starts(8, 4, 4, -1).tolist() == [0, 4]
    assert grid_starts(8, 8, 4, 0).tolist() == [0]
    assert grid_starts(9, 8, 4, 0).tolist() == [1]
    assert grid_starts(9, 8, 4, 5).tolist() == []


def test_a_grid_that_loses_many_patches_to_the_first_pixel_says_so(tmp_path):
    source = raster(tmp_path / "i.tif", shape=(64, 64))
    result, _ = select(source, tmp_path, patch_size=32, step=32)
    assert result.patch_count == 1
    assert result.warnings == (
        "The grid begins at the second pixel, as the reference's; OFFSET -1 would give 4 patches.",
    )
    result, table = select(source, tmp_path, patch_size=32, step=32, offset=-1)
    assert places(table) == [(0, 0), (0, 32), (32, 0), (32, 32)] and result.warnings == ()


def test_too_many_patches_are_refused(large, tmp_path):
    with pytest.raises(BadInput, match=r"^STEP 1 gives 37739520 patches on 'large.tif', more than 20000000\. Give a"):
        select(large, tmp_path, patch_size=64, step=1)


@pytest.mark.parametrize("size", [4, 5])
def test_footprints_are_squares_of_whole_pixels(image, tmp_path, size):
    _, table = select(image, tmp_path, patch_size=size, step=50, offset=9)
    assert places(table) == [(10, 10), (10, 60), (10, 110), (60, 10), (60, 60), (60, 110)]
    assert table.geometry[1].equals(box(1600, 2900 - 10 * size, 1600 + 10 * size, 2900))
    assert table.crs == "EPSG:32654"
    assert list(table.columns) == ["split", "row", "col", "geometry"]


def test_squares_of_the_chessboard(image, tmp_path):
    _, table = select(image, tmp_path, patch_size=10, step=10, split="chessboard")
    black = ((table["row"] - 1) // 10 + (table["col"] - 1) // 10) % 2 == 0
    assert (table["split"] == np.where(black, "train", "validation")).all()


# --- no-data and labels ----------------------------------------------------------------------------------------------


def expected(invalid, size, step):
    """The grid's places without a true pixel, one by one."""
    height, width = invalid.shape
    return [
        (row, col)
        for row in range(1, height - size + 1, step)
        for col in range(1, width - size + 1, step)
        if not invalid[row : row + size, col : col + size].any()
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 100),
    size=st.integers(1, 12),
    step=st.integers(1, 12),
    values=st.sampled_from([150, 900, 10**6]),
)
def test_patches_with_nodata_are_left_out_whatever_is_read_at_once(tmp_path_factory, seed, size, step, values):
    tmp_path = tmp_path_factory.mktemp("grid")
    generator = np.random.default_rng(seed)
    invalid = np.zeros((40, 47), dtype=bool)
    invalid.ravel()[generator.integers(0, invalid.size, 12)] = True
    # In one band the number alone is a value.
    other = np.where(generator.random(invalid.shape) < 0.2, 7, 1)
    source = raster(tmp_path / "i.tif", [np.where(invalid, 7, 3), np.where(invalid, 7, other)], nodata=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patchscan, "_BLOCK_VALUES", values)
        result, table = select(source, tmp_path, patch_size=size, step=step)
    assert places(table) == expected(invalid, size, step)
    assert result.patch_count == len(table)


def test_nodata_is_the_users_own_number(tmp_path):
    values = np.ones((40, 40))
    values[5, 5] = 9
    source = raster(tmp_path / "i.tif", values, nodata=1)
    _, table = select(RasterSource(source.path, nodata=9), tmp_path, patch_size=10, step=10)
    assert places(table) == [(r, c) for r in (1, 11, 21) for c in (1, 11, 21) if (r, c) != (1, 1)]


def test_nan_in_one_band_is_nodata(tmp_path):
    values = np.ones((2, 21, 41))
    values[1, 20, 20] = np.nan
    source = raster(tmp_path / "i.tif", values, dtype="float32")
    _, table = select(source, tmp_path, patch_size=20, step=20)
    assert places(table) == [(1, 21)]


def test_patches_need_labels(image, tmp_path):
    values = np.zeros((101, 121))
    values[1:11, 1:3] = 1  # 20 % of the first patch
    values[1, 11] = 2  # 1 % of the second
    labels = raster(tmp_path / "labels.tif", values, nodata=0)
    _, table = select(image, tmp_path, patch_size=10, step=10, labels=labels)
    assert places(table) == [(1, 1)]
    assert table["labelled"].tolist() == [pytest.approx(0.2)]
    _, table = select(image, tmp_path, patch_size=10, step=10, labels=labels, min_labelled=0.01)
    assert places(table) == [(1, 1), (1, 11)]
    result, _ = select(image, tmp_path, patch_size=10, step=10, labels=labels, min_labelled=0)
    assert result.patch_count == 10 * 12


# --- at random -------------------------------------------------------------------------------------------------------


def test_random_windows_are_as_many_as_wanted_and_repeat_with_the_seed(tmp_path):
    values = np.ones((200, 300))
    values[:, :150] = 0
    source = raster(tmp_path / "i.tif", values, nodata=0)
    result, table = select(source, tmp_path, mode="random", count=300, patch_size=16, seed=2)
    assert result.patch_count == 300 == len(set(places(table)))
    assert table["col"].min() >= 150 and table["col"].max() <= 300 - 16
    assert (table["row"].min(), table["row"].max()) == (pytest.approx(0, abs=8), pytest.approx(184, abs=8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patchscan, "_BLOCK_VALUES", 1000)
        assert places(select(source, tmp_path, mode="random", count=300, patch_size=16, seed=2)[1]) == places(table)
    assert places(select(source, tmp_path, mode="random", count=300, patch_size=16, seed=3)[1]) != places(table)


def test_fewer_random_windows_than_wanted_are_all_there_are(tmp_path):
    source = raster(tmp_path / "i.tif", shape=(12, 13))
    result, table = select(source, tmp_path, mode="random", count=100, patch_size=10)
    assert sorted(places(table)) == [(row, col) for row in range(3) for col in range(4)]
    assert result.warnings[0].startswith("Only 12 of 100 patches were found in 12 random places.")


def test_random_windows_that_share_pixels_are_counted_or_left_out(image, tmp_path):
    fields = {"mode": "random", "count": 60, "patch_size": 16, "split": "proportions"}
    result, _ = select(image, tmp_path, **fields)
    assert result.counts == {"train": 36, "validation": 12, "test": 12}
    assert "of 60 patches share pixels with a patch of another part" in result.warnings[0]
    result, table = select(image, tmp_path, guard=0, **fields)
    assert "that share pixels with a patch of another part were left out" in result.warnings[0]
    assert claims(table, 16).max() == 1 and result.counts["test"] == 12


# --- splits ----------------------------------------------------------------------------------------------------------


def claims(table, size, shape=(101, 121)):
    """How many parts claim each pixel."""
    found = {part: np.zeros(shape, dtype=bool) for part in table["split"].unique()}
    for row, col, part in zip(table["row"], table["col"], table["split"]):
        found[part][row : row + size, col : col + size] = True
    return np.sum(list(found.values()), axis=0)


@settings(max_examples=25, deadline=None)
@given(
    split=st.sampled_from(["blocks", "subtiles"]),
    mode=st.sampled_from(["grid", "random"]),
    size=st.integers(1, 12),
    step=st.integers(3, 20),
    more=st.integers(0, 10),
    guard=st.sampled_from([None, 0, 1, 2]),
    seed=st.integers(0, 30),
)
def test_parts_of_blocks_share_no_pixel_and_keep_the_guard(
    tmp_path_factory, split, mode, size, step, more, guard, seed
):
    tmp_path = tmp_path_factory.mktemp("blocks")
    source = raster(tmp_path / "i.tif", shape=(101, 121))
    try:
        _, table = select(
            source, tmp_path, mode=mode, count=150, patch_size=size, step=step, split=split, block_size=size + more,
            guard=guard, seed=seed, train_share=0.5, validation_share=0,
        )  # fmt: skip
    except BadInput as error:
        # Where no block is wider than a patch, every training patch may touch one of the test part.
        assert guard and more < 2 * guard and "No patch is left in the part 'train'" in str(error)
        return
    assert claims(table, size).max() == 1
    if guard:
        rows, cols = table["row"].to_numpy(), table["col"].to_numpy()
        gap = np.maximum(np.abs(rows[:, None] - rows), np.abs(cols[:, None] - cols)) - size
        other = table["split"].to_numpy()[:, None] != table["split"].to_numpy()
        assert gap[other].size == 0 or gap[other].min() >= guard


@pytest.mark.parametrize(
    ("split", "mode", "size"), [("blocks", "grid", "100 x 60"), ("subtiles", "random", "100 x 50")]
)
def test_blocks_and_guard_in_metres_on_a_geographic_image(tmp_path, split, mode, size):
    # At 60 degrees north a pixel of 0.001 degrees is 111.4 m high and 55.8 m wide, in the middle; 55.2 m at the top.
    path = tmp_path / "north.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=1000, height=700, count=1, dtype="uint8", crs="EPSG:4326",
        transform=from_origin(20, 60.35, 0.001, 0.001), sparse_ok=True,
    ):  # fmt: skip
        pass
    context = Context()
    said = []
    context.log = said.append
    result, table = select(
        RasterSource(str(path)), tmp_path, context, mode=mode, patch_size=8, step=20, count=1500, split=split,
        block_size=5_580, guard=1_000, unit="metres", offset=-1,
    )  # fmt: skip
    assert f"Blocks of {size} pixels, measured in the middle of 'north.tif'." in said
    assert "patches less than 1000 metres from a patch of another part were left out" in result.warnings[-1]
    assert claims(table, 8, (700, 1000)).max() == 1
    rows, cols = table["row"].to_numpy(), table["col"].to_numpy()
    other = table["split"].to_numpy()[:, None] != table["split"].to_numpy()
    down, across = (np.abs(part[:, None] - part)[other] - 8 for part in (rows, cols))
    assert np.all((down >= 9) | (across >= 19))
    # No patch of a grid lies across a border: blocks are whole steps.
    assert not any("across the border" in text for text in result.warnings)
    assert set(table["split"]) == {"train", "validation", "test"}


def test_map_units_are_those_of_the_image(image, tmp_path):
    result, table = select(image, tmp_path, patch_size=5, step=5, split="blocks", block_size=200, unit="map")
    blocks = table.assign(block=(table["row"] - 1) // 20 * 10 + (table["col"] - 1) // 20)
    assert (blocks.groupby("block")["split"].nunique() == 1).all()
    assert blocks["block"].nunique() == 30 and result.warnings == ()


def test_default_blocks_cut_no_patch_of_the_grid(image, tmp_path):
    context = Context()
    result, table = select(image, tmp_path, context, patch_size=5, step=5, split="blocks")
    assert result.warnings == () and result.patch_count == 20 * 24
    blocks = table.assign(block=(table["row"] - 1) // 20 * 10 + (table["col"] - 1) // 20)
    assert (blocks.groupby("block")["split"].nunique() == 1).all()
    assert blocks["block"].nunique() == 30
    assert table["split"].value_counts(normalize=True)["train"] == pytest.approx(0.6, abs=0.03)


def test_random_windows_lie_in_one_block(image, tmp_path):
    result, table = select(
        image, tmp_path, mode="random", count=200, patch_size=8, split="blocks", block_size=20, guard=None
    )
    assert result.patch_count == 200 and result.warnings == ()
    inside = table[(table["row"] < 80) & (table["col"] < 80)]
    assert ((inside["row"] % 20 <= 12) & (inside["col"] % 20 <= 12)).all()


def test_patches_are_split_in_each_stratum(image, tmp_path):
    west, east = box(1000, 1990, 1605, 3000), box(1605, 1990, 1805, 3000)
    strata = geopandas.GeoDataFrame({"name": ["west", "east"]}, geometry=[west, east], crs="EPSG:32654")
    pyogrio.write_dataframe(strata.to_crs("EPSG:4326"), tmp_path / "strata.gpkg")
    result, table = select(
        image, tmp_path, patch_size=10, step=10, split="strata", strata=VectorSource(str(tmp_path / "strata.gpkg"))
    )
    in_west = table.geometry.centroid.x < 1605
    assert table["split"][in_west].value_counts().to_dict() == {"train": 36, "validation": 12, "test": 12}
    assert table["split"][~in_west].value_counts().to_dict() == {"train": 12, "validation": 4, "test": 4}
    assert result.warnings == ("40 patches outside the polygons of 'strata.gpkg' were left out.",)


def test_balance_brings_the_classes_nearer(image, tmp_path):
    values = np.ones((101, 121))
    values[1:31, 1:21] = 2  # 6 of 120 patches
    values[91:101, 91:121] = 5  # 3 of 120
    labels = raster(tmp_path / "labels.tif", values, nodata=0)
    result, table = select(image, tmp_path, patch_size=10, step=10, split="balanced", labels=labels)
    rare = (table["row"] < 31) & (table["col"] < 21), (table["row"] >= 91) & (table["col"] >= 91)
    assert [int(part.sum()) for part in rare] == [6, 3]
    # A quarter of the 120 for their place, one of them rare, and the eight other rare ones.
    assert len(table) == result.patch_count == 38
    assert set(table["split"][rare[0]]) == set(table["split"][rare[1]]) == {"train", "validation", "test"}


# --- labels of another grid ------------------------------------------------------------------------------------------


def test_coarse_labels_in_another_crs_are_taken_by_nearest_neighbour(image, tmp_path):
    # Six degrees of longitude further the image's rows run aslant; 0.001 degrees are about 100 m, ten pixels.
    with rasterio.open(
        tmp_path / "labels.tif", "w", driver="GTiff", width=40, height=40, count=1, dtype="uint8", crs="EPSG:4326",
        transform=from_origin(136.505, 0.032, 0.001, 0.001), nodata=0,
    ) as dataset:  # fmt: skip
        dataset.write(np.tile(np.repeat([1, 0], 20), (40, 1)).astype("uint8"), 1)
    context = Context()
    said = []
    context.log = said.append
    labels = RasterSource(str(tmp_path / "labels.tif"))
    _, table = select(image, tmp_path, context, patch_size=10, step=10, labels=labels, min_labelled=0)
    assert "'labels.tif' is brought onto the grid of 'image.tif' by nearest neighbour." in said
    # What a label raster that was warped onto the image by GDAL would say.
    from rasterio.warp import reproject

    with rasterio.open(image.path) as grid, rasterio.open(labels.path) as source:
        warped = np.zeros(grid.shape, "uint8")
        reproject(
            source.read(1), warped, src_transform=source.transform, src_crs=source.crs, dst_transform=grid.transform,
            dst_crs=grid.crs, src_nodata=0, dst_nodata=0, tolerance=0,
        )  # fmt: skip
    wanted = [(warped[row : row + 10, col : col + 10] > 0).mean() for row, col in places(table)]
    assert 0 < np.mean(wanted) < 1
    assert np.abs(table["labelled"] - wanted).max() <= 0.02


@pytest.mark.parametrize("values", [6_000_000, 900])
def test_finer_labels_are_taken_by_majority(image, tmp_path, monkeypatch, values):
    monkeypatch.setattr(patchscan, "_BLOCK_VALUES", values)
    # Five by five labels in each pixel: class 1 on 15 of them, which is enough, or on 14, which is not.
    fine = np.full((505, 605), 2)
    cells = fine.reshape(101, 5, 121, 5).transpose(0, 2, 1, 3).reshape(101, 121, 25)
    cells[:, :, :15] = 1
    cells[:, 61:, 14] = 2
    fine = cells.reshape(101, 121, 5, 5).transpose(0, 2, 1, 3).reshape(505, 605)
    with rasterio.open(
        tmp_path / "fine.tif", "w", driver="GTiff", width=605, height=505, count=1, dtype="uint8", crs="EPSG:32654",
        transform=from_origin(1000, 3000, 2, 2),
    ) as dataset:  # fmt: skip
        dataset.write(fine.astype("uint8"), 1)
    result, table = select(
        image, tmp_path, patch_size=10, step=10, labels=RasterSource(str(tmp_path / "fine.tif")), min_labelled=0
    )
    assert table["labelled"][table["col"] < 51].tolist() == [1.0] * 50
    assert table["labelled"][table["col"] > 61].tolist() == [0.0] * 50
    assert any("hold several labels of the finer 'fine.tif'" in text for text in result.warnings)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"patch_size": 102}, "A patch of 102 x 102 pixels is larger than 'image.tif' (121 x 101)."),
        ({"patch_size": 50, "offset": 60}, "No patch of 50 pixels in 'image.tif' is free of no-data."),
        ({"split": "blocks", "patch_size": 20, "block_size": 19}, "BLOCK_SIZE 19 is less than PATCH_SIZE 20"),
        (
            {"split": "blocks", "patch_size": 20, "block_size": 150, "unit": "map"},
            "BLOCK_SIZE 150 (15.0 pixels) is less than PATCH_SIZE 20",
        ),
        ({"split": "chessboard", "patch_size": 20, "step": 20, "guard": 1}, "No patch is left in the part 'train'"),
    ],
)
def test_what_cannot_be(image, tmp_path, fields, said):
    with pytest.raises(BadInput, match="^" + said.replace("(", r"\(").replace(")", r"\)")):
        select(image, tmp_path, **fields)
    assert not (tmp_path / "patches.gpkg").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mode": "hexagons"}, "MODE 'hexagons' is not a valid choice."),
        ({"split": "blocs"}, "Valid choices: none, chessboard, proportions, blocks, subtiles, strata, balanced."),
        ({"split": "strata"}, "SPLIT strata needs STRATA."),
        ({"split": "balanced"}, "SPLIT balanced needs LABELS."),
        ({"split": "chessboard", "mode": "random"}, "SPLIT chessboard has no squares in MODE random."),
        ({"split": "blocks", "train_share": 0}, "TRAIN_SHARE is 0."),
        ({"train_share": 0.7, "validation_share": 0.4}, "TRAIN_SHARE + VALIDATION_SHARE is 1.1"),
        ({"offset": -2}, "OFFSET is -2, less than -1."),
        ({"step": 0}, "STEP is 0, less than 1."),
    ],
)
def test_what_the_job_itself_refuses(fields, said):
    with pytest.raises(BadInput) as error:
        SelectPatches(RasterSource("i.tif"), "o.gpkg", **fields)
    assert said in str(error.value)


def test_labels_elsewhere_and_of_no_class(image, tmp_path):
    other = raster(tmp_path / "other.tif", np.ones((101, 121)), origin=(900_000, 3000))
    with pytest.raises(BadInput, match=r"The labels 'other\.tif' .* lie outside 'image\.tif'"):
        select(image, tmp_path, patch_size=10, labels=other)
    with pytest.raises(BadInput, match=r"'nothing\.tif' labels no pixel of 'image\.tif' where it was read"):
        nothing = raster(tmp_path / "nothing.tif", np.zeros((101, 121)), origin=(1005, 3000), nodata=0)
        select(image, tmp_path, patch_size=10, labels=nothing)
    halves = raster(tmp_path / "halves.tif", np.full((101, 121), 0.5), dtype="float32")
    with pytest.raises(BadInput, match=r"LABELS holds the value 0\.5, which is no class"):
        select(image, tmp_path, patch_size=10, labels=halves, split="balanced")
    empty = raster(tmp_path / "empty.tif", np.zeros((101, 121)), nodata=0)
    with pytest.raises(BadInput, match="is free of no-data and has 10% of labelled pixels"):
        select(image, tmp_path, patch_size=10, labels=empty)


def test_strata_elsewhere(image, tmp_path):
    frame = geopandas.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs="EPSG:32654")
    pyogrio.write_dataframe(frame, tmp_path / "strata.gpkg")
    with pytest.raises(BadInput, match=r"No patch lies in a polygon of 'strata.gpkg'"):
        select(image, tmp_path, patch_size=10, split="strata", strata=VectorSource(str(tmp_path / "strata.gpkg")))


def test_a_part_that_stays_empty_is_told(tmp_path):
    source = raster(tmp_path / "i.tif", shape=(11, 21))
    result, _ = select(source, tmp_path, patch_size=10, step=10, split="proportions")
    assert result.counts == {"train": 1, "validation": 1}
    assert result.warnings[0].startswith("No patch is left in the part 'test' of SPLIT proportions.")


def test_cancelling_leaves_nothing(large, tmp_path):
    context = Context()
    context.cancelled.set()
    with pytest.raises(JobCancelled):
        select(RasterSource(large.path, nodata=7), tmp_path, context, patch_size=64, step=64)
    assert not [path for path in tmp_path.iterdir() if "gpkg" in path.name]
