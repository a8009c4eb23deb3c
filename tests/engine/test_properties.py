"""For every input: patches equal their windows, totals the request, parts share no pixel, and blocks do not matter."""

import importlib
import sys
from types import SimpleNamespace

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import threadpoolctl
from deepscape.engine.datasets import PatchDataset
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import (
    ExtractPatches,
    RasterSource,
    SelectPatches,
    SelectSamples,
    SelectVectorSamples,
    SplitSamples,
    VectorSource,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from shapely.geometry import Point, shape

SAMPLERS = ["spread", "random", "periodic"]
# What the engine reads, burns or writes at once, by the names of its modules' constants.
AMOUNTS = ("_STRIP_PIXELS", "_BLOCK_VALUES", "_SMALL_PIXELS", "_CHUNK_PIXELS", "_CHUNK_FEATURES")


def run(job):
    """Do a job as the worker does it."""
    module, name = job.runner.split(":")
    return getattr(importlib.import_module(f"deepscape.{module}"), name)(job, Context())


def run_in_pieces(job, amount, threads):
    """Do a job with other amounts at once and other numbers of threads."""
    importlib.import_module(f"deepscape.{job.runner.split(':')[0]}")
    modules = [module for name, module in sys.modules.items() if name.startswith("deepscape.engine.") and module]
    with (
        pytest.MonkeyPatch.context() as patch,
        rasterio.Env(GDAL_NUM_THREADS=str(threads)),
        threadpoolctl.threadpool_limits(threads),
    ):
        patch.setenv("OMP_NUM_THREADS", str(threads))
        found = [(module, name) for module in modules for name in AMOUNTS if hasattr(module, name)]
        assert found
        for module, name in found:
            patch.setattr(module, name, amount)
        return run(job)


def write_raster(path, values, **options):
    """Write values ``(C, H, W)`` with pixels of 10 m from (1000, 2000) on."""
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype=values.dtype, crs="EPSG:32654",
        transform=from_origin(1000, 2000, 10, 10), **options,
    ) as dataset:  # fmt: skip
        dataset.write(values)
    return RasterSource(str(path))


def write_points(path, rows, cols, **fields):
    """Write points at indices of the raster, whole numbers being edges of pixels."""
    places = [Point(1000 + 10 * col, 2000 - 10 * row) for row, col in zip(rows, cols)]
    pyogrio.write_dataframe(geopandas.GeoDataFrame(fields, geometry=places, crs="EPSG:32654"), path)
    return VectorSource(str(path))


def table_of(path):
    """Return the points of an output: rows, columns and classes, in their order."""
    frame = pyogrio.read_dataframe(path)
    rows, cols = (2000 - frame.geometry.y.to_numpy()) / 10 - 0.5, (frame.geometry.x.to_numpy() - 1000) / 10 - 0.5
    assert np.allclose(rows, np.rint(rows)) and np.allclose(cols, np.rint(cols))
    return SimpleNamespace(rows=np.rint(rows).astype(int), cols=np.rint(cols).astype(int), classes=frame["class_id"])


# --- patches ---------------------------------------------------------------------------------------------------------


def windows(path, rows, cols, size, edge, nodata):
    """Return the patch of each point by rasterio alone, None where it is to be refused."""
    with rasterio.open(path) as dataset:
        image = dataset.read()
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (size, size), (size, size)), mode="reflect")
    found = []
    for row, col in zip(np.floor(rows).astype(int), np.floor(cols).astype(int)):
        top, left = row - size // 2, col - size // 2
        inside = 0 <= row < height and 0 <= col < width
        whole = top >= 0 and left >= 0 and top + size <= height and left + size <= width
        if not inside or (edge == "reject" and not whole):
            found.append(None)
            continue
        patch = padded[:, size + top : 2 * size + top, size + left : 2 * size + left]
        missing = np.isnan(patch) if patch.dtype.kind == "f" else np.zeros(patch.shape, dtype=bool)
        if nodata is not None:
            missing |= patch == nodata
        found.append(None if missing.any() else patch)
    return found


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 10),
    bands=st.integers(1, 3),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "int32", "float32", "float64"]),
    nodata=st.sampled_from([None, 0, 7]),
    edge=st.sampled_from(["reject", "reflect"]),
    tiled=st.booleans(),
    interleave=st.sampled_from(["pixel", "band"]),
    amount=st.sampled_from([100, 3000, 10**7]),
    threads=st.sampled_from([1, 3]),
)
def test_accepted_patches_equal_their_windows(
    tmp_path_factory, seed, size, bands, dtype, nodata, edge, tiled, interleave, amount, threads
):
    folder = tmp_path_factory.mktemp("patches")
    generator = np.random.default_rng(seed)
    height, width = generator.integers(11, 40, 2)
    image = generator.integers(1, 250, (bands, height, width)).astype(dtype)
    image[:, generator.integers(0, height, 4), generator.integers(0, width, 4)] = 7
    if image.dtype.kind == "f":
        image[0, generator.integers(0, height), generator.integers(0, width)] = np.nan
    layout = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
    source = write_raster(folder / "i.tif", image, nodata=nodata, interleave=interleave, **layout)
    # Quarters of pixels: a fourth of the coordinates lies on an edge between two pixels.
    rows, cols = (generator.integers(-8, 4 * length + 8, 30) / 4 for length in (height, width))
    points = write_points(folder / "p.gpkg", rows, cols, code=generator.integers(1, 4, 30))
    job = ExtractPatches(
        source, points, "code", str(folder / "d"), patch_size=size, edge=edge, nodata_rule="any",
    )  # fmt: skip
    expected = windows(source.path, rows, cols, size, edge, nodata)
    accepted = [patch for patch in expected if patch is not None]
    if not accepted:
        with pytest.raises(BadInput, match="No patch is accepted"):
            run_in_pieces(job, amount, threads)
        return
    result = run_in_pieces(job, amount, threads)
    assert (result.accepted, result.rejected) == (len(accepted), 30 - len(accepted))
    dataset = PatchDataset(result.output)
    kept = [place for place, patch in enumerate(expected) if patch is not None]
    assert dataset.rows.tolist() == np.floor(rows[kept]).tolist()
    assert dataset.cols.tolist() == np.floor(cols[kept]).tolist()
    for found, patch in zip(dataset.patches(), accepted):
        assert found.tobytes() == patch.tobytes()


# --- samples ---------------------------------------------------------------------------------------------------------


def targets(strategy, available, count):
    """Return how many samples of each class a strategy asks of a label raster."""
    step = max(1, sum(available.values()) // count)
    smallest = min(available.values())
    return {
        "upto": {value: min(count, number) for value, number in available.items()},
        "constant": dict.fromkeys(available, min(count, smallest)),
        "smallest": dict.fromkeys(available, smallest),
        "total": {value: number // step for value, number in available.items()},
        "all": available,
    }[strategy]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    strategy=st.sampled_from(["upto", "constant", "smallest", "total", "all"]),
    sampler=st.sampled_from(SAMPLERS),
    count=st.integers(1, 200),
    amount=st.integers(20, 500),
    threads=st.sampled_from([1, 3]),
)
def test_samples_of_a_label_raster(tmp_path_factory, seed, strategy, sampler, count, amount, threads):
    folder = tmp_path_factory.mktemp("samples")
    generator = np.random.default_rng(seed)
    shape_px = tuple(generator.integers(3, 30, 2))
    labels = generator.choice([0, 3, 9, 200], size=shape_px, p=[0.2, 0.5, 0.25, 0.05]).astype("uint8")
    assume((labels > 0).any())
    source = write_raster(folder / "l.tif", labels[None], nodata=0)
    job = SelectSamples(source, str(folder / "p.gpkg"), strategy=strategy, sampler=sampler, count=count, seed=seed)
    values, numbers = np.unique(labels[labels > 0], return_counts=True)
    wanted = targets(strategy, dict(zip(values.tolist(), numbers.tolist())), count)
    if not any(wanted.values()):
        with pytest.raises(BadInput, match="gives no sample"):
            run_in_pieces(job, amount, threads)
        return
    result = run_in_pieces(job, amount, threads)
    found = table_of(result.output)
    assert result.counts == {str(value): number for value, number in wanted.items() if number}
    assert len(found.rows) == result.sample_count == sum(wanted.values())
    assert labels[found.rows, found.cols].tolist() == found.classes.tolist()
    keys = found.rows * shape_px[1] + found.cols
    assert len(np.unique(keys)) == len(keys)
    if sampler == "spread":
        for value, number in wanted.items():
            own = np.flatnonzero(labels.ravel() == value)
            # The k-th of n is the floor((k + 0.5) N / n)-th of N, in whole numbers.
            kept = [own[(2 * k + 1) * len(own) // (2 * number)] for k in range(number)]
            assert keys[found.classes == value].tolist() == kept
    again = table_of(run(job).output)
    assert (again.rows.tolist(), again.cols.tolist()) == (found.rows.tolist(), found.cols.tolist())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    strategy=st.sampled_from(["upto", "smallest", "constant", "percent", "total", "byclass", "all"]),
    sampler=st.sampled_from(SAMPLERS),
    count=st.integers(1, 120),
    amount=st.sampled_from([20, 70, 10**6]),
    threads=st.sampled_from([1, 3]),
)
def test_samples_of_polygons(tmp_path_factory, seed, strategy, sampler, count, amount, threads):
    folder = tmp_path_factory.mktemp("polygons")
    generator = np.random.default_rng(seed)
    labels = np.kron(generator.integers(1, 4, (4, 5)), np.ones((4, 3))).astype("uint8")
    grid = write_raster(folder / "g.tif", labels[None])
    areas = rasterio.features.shapes(labels, transform=from_origin(1000, 2000, 10, 10))
    parts, codes = zip(*((shape(outline), int(value)) for outline, value in areas))
    frame = geopandas.GeoDataFrame({"code": codes}, geometry=list(parts), crs="EPSG:32654")
    pyogrio.write_dataframe(frame, folder / "v.gpkg")
    (folder / "wanted.csv").write_text(f"1;{count}\n2;3\n3;1000\n")
    job = SelectVectorSamples(
        VectorSource(str(folder / "v.gpkg")), "code", grid, str(folder / "p.gpkg"), strategy=strategy, sampler=sampler,
        count=count, percent=count / 120, seed=seed, rates_file=str(folder / "wanted.csv"),
    )  # fmt: skip
    values, numbers = (part.tolist() for part in np.unique(labels, return_counts=True))
    available = dict(zip(values, numbers))
    share = float(np.float32(count / 120))
    asked = {
        "smallest": lambda value: min(numbers), "percent": lambda value: int(0.5 + share * available[value]),
        "total": lambda value: int(0.5 + count * available[value] / labels.size), "all": lambda value: available[value],
        "byclass": lambda value: {1: count, 2: 3, 3: 1000}[value],
    }.get(strategy, lambda value: count)  # fmt: skip
    wanted = {value: min(asked(value), available[value]) for value in values}
    if not any(wanted.values()):
        with pytest.raises(BadInput, match="gives no sample"):
            run_in_pieces(job, amount, threads)
        return
    result = run_in_pieces(job, amount, threads)
    found = table_of(result.output)
    assert labels[found.rows, found.cols].tolist() == found.classes.tolist()
    assert len(set(zip(found.rows.tolist(), found.cols.tolist()))) == len(found.rows) == result.sample_count
    for value, number in wanted.items():
        # The reference's periodic sampler may give one more than asked.
        extra = [number + 1] if sampler == "periodic" and 0 < number < available[value] else []
        assert result.counts.get(str(value), 0) in [number, *extra]
        assert np.count_nonzero(found.classes == value) == result.counts.get(str(value), 0)
    again = table_of(run(job).output)
    assert (again.rows.tolist(), again.cols.tolist()) == (found.rows.tolist(), found.cols.tolist())


# --- splits ----------------------------------------------------------------------------------------------------------


def claims(rows, cols, parts, size, shape_px):
    """Return by how many parts each pixel is claimed, ``(H, W)``; rows and columns are the first ones of patches."""
    held = {part: np.zeros(shape_px, dtype=bool) for part in set(parts)}
    for row, col, part in zip(rows, cols, parts):
        held[part][row : row + size, col : col + size] = True
    return np.sum(list(held.values()), axis=0)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    split=st.sampled_from(["blocks", "subtiles"]),
    mode=st.sampled_from(["grid", "random"]),
    size=st.integers(1, 12),
    step=st.integers(2, 20),
    amount=st.sampled_from([1000, 5000, 10**7]),
    threads=st.sampled_from([1, 3]),
)
def test_parts_of_selected_patches_share_no_pixel(tmp_path_factory, seed, split, mode, size, step, amount, threads):
    folder = tmp_path_factory.mktemp("tiles")
    height, width = np.random.default_rng(seed).integers(60, 140, 2)
    source = write_raster(folder / "i.tif", np.ones((1, height, width), "uint8"), nodata=0)
    job = SelectPatches(
        source, str(folder / "f.gpkg"), mode=mode, count=80, patch_size=size, step=step, split=split, seed=seed,
    )  # fmt: skip
    first = pyogrio.read_dataframe(run_in_pieces(job, amount, threads).output)
    assert claims(first["row"], first["col"], first["split"], size, (height, width)).max() == 1
    again = pyogrio.read_dataframe(run(job).output)
    assert first.equals(again)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), block=st.integers(9, 30), number=st.integers(100, 400), side=st.integers(60, 140))
def test_parts_of_split_samples_share_no_pixel_of_their_patches(tmp_path_factory, seed, block, number, side):
    folder = tmp_path_factory.mktemp("split")
    generator = np.random.default_rng(seed)
    source = write_raster(folder / "i.tif", generator.integers(0, 9, (1, side, side)).astype("uint8"))
    rows, cols = (generator.integers(0, 4 * side, number) / 4 for _ in range(2))
    points = write_points(folder / "p.gpkg", rows, cols, code=generator.integers(1, 3, number))
    try:
        split = run(
            SplitSamples(
                points, "code", str(folder / "s.gpkg"), "blocks", source, block_size=block, seed=seed,
                train_share=0.5, validation_share=0.25,
            )
        )  # fmt: skip
    except BadInput:
        # Too few blocks for three parts, or nothing left for training: told, and covered by the tests of splitting.
        assume(False)
    job = ExtractPatches(source, VectorSource(split.output), "code", str(folder / "d"), edge="reflect")
    dataset = PatchDataset(run(job).output)
    assert len(set(dataset.splits)) > 1 and "" not in dataset.splits
    starts = [places - 4 + 9 for places in (dataset.rows, dataset.cols)]
    # Beyond the raster's edge there is nothing to share: the frame of 9 pixels holds what is mirrored.
    found = claims(*starts, dataset.splits, 9, (side + 18, side + 18))
    assert found.max() == 1
