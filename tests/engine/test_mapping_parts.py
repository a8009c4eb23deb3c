"""What of a scene is mapped: threads, tiles and parts, masks, borders, least confidence, damage, room and skipping."""

import itertools
import shutil
import threading
import time
from collections import namedtuple
from types import SimpleNamespace

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from deepscape.engine import inference
from deepscape.engine.inference import map_scene
from deepscape.engine.runtimes import Geometry, no_class
from deepscape.engine.runtimes.base import first_largest, softmax
from deepscape.engine.tiling import Tiling
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry, palette_colour
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, DiskFull, JobCancelled
from deepscape.tasks.jobs import Classify, RasterSource, VectorSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .listening import Log

NAN = float("nan")
BANDS = 3
NODATA = 255


class Centres:
    """A runtime whose scores are the bands of the pixel itself; it sees only windows that begin on its grid."""

    name, device, precision = "centres", "cpu", "full"
    bytes_per_pixel = 100.0

    def __init__(self, before=0, after=0, stride=1, beside=1, exact=False):
        self.geometry = Geometry(before, after, stride)
        self.beside, self.exact = beside, exact
        self.calls, self.threads, self.pixels = 0, set(), 0

    def scores(self, values, wanted, whole=False):
        before = self.geometry.before
        assert values.dtype == np.float32 and values.shape[1] == wanted.shape[0] + before + self.geometry.after
        assert whole == (not np.isnan(values).any())
        self.calls += 1
        self.pixels += wanted.size
        self.threads.add(threading.current_thread().name)
        return np.nan_to_num(values)[:, before : before + wanted.shape[0], before : before + wanted.shape[1]]

    def best(self, values, wanted, whole=False):
        return first_largest(self.scores(values, wanted, whole))

    def probabilities(self, scores):
        return softmax(scores)


def write(path, values, nodata=None, **options):
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, nodata=nodata, crs="EPSG:32654", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6),
        **options,
    ) as dataset:  # fmt: skip
        dataset.write(values)
    return RasterSource(str(path))


def scene(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 900, (BANDS, height, width)).astype(np.uint16)


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    """Maps with a runtime of the test's own; gives the map and the result."""

    def run(source, runtime=None, tile=16, patch=1, context=None, **job):
        runtime = runtime or Centres()
        monkeypatch.setattr(inference, "create_combined", lambda *_: runtime)
        card = Card(
            "network", "stub", (CardSource(patch, tuple(CardBand("", 0, 1, NAN, NAN) for _ in range(BANDS))),),
            tuple(ClassEntry(v, f"name {v}", palette_colour(v)) for v in range(BANDS)),
        )  # fmt: skip
        job = Classify(source, "m.safetensors", str(tmp_path / "map.tif"), continue_anyway=True, **job)
        result = map_scene(inference.Model(card), job, context or Context(), tile=tile)
        return read(result.output), result

    return run


# --- the same map however it is made ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.sampled_from([1, 2, 15, 16, 17, 40]), width=st.sampled_from([1, 3, 15, 16, 17, 33]),
    margins=st.sampled_from([(0, 0, 1), (2, 1, 1), (8, 7, 1), (16, 16, 8)]), tile=st.sampled_from([8, 16, 32, None]),
    beside=st.integers(1, 4), exact=st.booleans(), data=st.data(),
)  # fmt: skip
def test_a_network_that_sees_the_pixel_gives_back_the_scene(
    mapped, tmp_path, height, width, margins, tile, beside, exact, data
):
    values = scene(height, width, height * 100 + width)
    source = write(tmp_path / "s.tif", values)
    expected = values.argmax(axis=0)
    whole, result = mapped(source, Centres(*margins, beside, exact), tile)
    assert (whole == expected).all() and result.pixels == height * width
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, cols = data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col))
    part, _ = mapped(source, Centres(*margins, beside, exact), tile, box=(col, row, cols, rows))
    assert (part == expected[row : row + rows, col : col + cols]).all()


def test_windows_are_mapped_in_threads(mapped, tmp_path):
    runtime = Centres(beside=2)
    mapped(write(tmp_path / "s.tif", scene(64, 64)), runtime)
    assert runtime.calls == 16 and all(name.startswith("map") for name in runtime.threads)


def test_a_part_is_computed_in_cells_only_where_that_cannot_change_it(mapped, tmp_path):
    source = write(tmp_path / "s.tif", scene(300, 300))
    for exact, pixels in ((False, 256 * 256), (True, 64 * 64)):
        runtime = Centres(exact=exact)
        mapped(source, runtime, tile=256, box=(70, 70, 5, 9))
        assert runtime.pixels == pixels


def test_scale_and_offset_of_a_band_give_the_same_numbers_by_table(mapped, tmp_path):
    values = scene(20, 20)
    source = write(tmp_path / "s.tif", values)
    with rasterio.open(source.path, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4, 2e-4, 1e-4), (-0.1, -0.12, 0.0)
    seen = []

    class Seeing(Centres):
        def scores(self, values, wanted, whole=False):
            seen.append(values)
            return super().scores(values, wanted, whole)

    mapped(source, Seeing(), tile=None)
    scales, offsets = np.array([1e-4, 2e-4, 1e-4])[:, None, None], np.array([-0.1, -0.12, 0.0])[:, None, None]
    np.testing.assert_array_equal(seen[0], (values.astype(np.float64) * scales + offsets).astype(np.float32))


# --- what is left out ------------------------------------------------------------------------------------------------


def test_windows_without_a_valid_pixel_cost_no_computing(mapped, tmp_path):
    values = scene(64, 64) + 1
    values[:, :32] = 0
    expected = np.where(values[0] == 0, NODATA, values.argmax(axis=0))
    runtime = Centres()
    found, result = mapped(write(tmp_path / "s.tif", values, nodata=0), runtime)
    assert (found == expected).all() and runtime.calls == 8 and result.pixels == 32 * 64
    # The same scene, written without the blocks that hold nothing, is not even read there.
    blocks = dict(tiled=True, blockxsize=16, blockysize=16, sparse_ok=True)
    sparse, runtime = write(tmp_path / "sparse.tif", values, nodata=0, **blocks), Centres()
    found, _ = mapped(sparse, runtime)
    assert (found == expected).all() and runtime.calls == 8
    with inference.reading(sparse) as reader:
        assert reader.absent((0, 0, 32, 64), (0, 1, 2)) and not reader.absent((0, 0, 33, 64), (0, 1, 2))
    with inference.reading(RasterSource(sparse.path, nodata=7.0)) as reader:
        assert not reader.absent((0, 0, 32, 64), (0, 1, 2))


def test_only_what_a_mask_covers_is_mapped(mapped, tmp_path):
    values = scene(64, 64)
    inside = np.zeros((1, 64, 64), np.uint8)
    inside[0, 20:30, 5:60] = 1
    expected = np.where(inside[0] > 0, values.argmax(axis=0), NODATA)
    source, mask = write(tmp_path / "s.tif", values), write(tmp_path / "m.tif", inside)
    runtime = Centres(beside=2)
    found, result = mapped(source, runtime, mask=mask)
    assert (found == expected).all() and runtime.calls == 4 and result.pixels == 550
    box = shapely.box(5e5 + 50, 4e6 - 300, 5e5 + 600, 4e6 - 200)
    frame = geopandas.GeoDataFrame(geometry=[box], crs="EPSG:32654")
    frame.to_crs("EPSG:4326").to_file(tmp_path / "m.gpkg")
    runtime = Centres(beside=2)
    found, _ = mapped(source, runtime, mask_layer=VectorSource(str(tmp_path / "m.gpkg")))
    assert (found == expected).all() and runtime.calls == 4
    part, _ = mapped(source, mask=mask, box=(10, 10, 30, 15))
    assert (part == expected[10:25, 10:40]).all()


def test_a_mask_that_does_not_fit_is_refused(mapped, tmp_path):
    source, other = write(tmp_path / "s.tif", scene(8, 8)), write(tmp_path / "m.tif", scene(8, 9))
    with pytest.raises(
        BadInput, match=r"'m\.tif' does not lie on the grid of the raster: its size in pixels is 9 x 8, not 8 x 8\."
    ):
        mapped(source, mask=other)
    # What was made in degrees: the CRS explains the numbers.
    with rasterio.open(
        tmp_path / "d.tif", "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8", crs="EPSG:4326",
        transform=rasterio.Affine(1e-4, 0, 141, 0, -9e-5, 36.1),
    ):  # fmt: skip
        pass
    with pytest.raises(
        BadInput, match=r"'d\.tif' .*: its pixel size is .*, not .*; its CRS is EPSG:4326, not EPSG:32654\."
    ):
        mapped(source, mask=RasterSource(str(tmp_path / "d.tif")))
    points = geopandas.GeoDataFrame(geometry=shapely.points([5e5], [4e6]), crs="EPSG:32654")
    points.to_file(tmp_path / "p.gpkg")
    with pytest.raises(BadInput, match="no polygons"):
        mapped(source, mask_layer=VectorSource(str(tmp_path / "p.gpkg")))
    far = geopandas.GeoDataFrame(geometry=[shapely.box(6e5, 3e6, 7e5, 3.1e6)], crs="EPSG:32654")
    far.to_file(tmp_path / "f.gpkg")
    with pytest.raises(BadInput, match="lie beside"):
        mapped(source, mask_layer=VectorSource(str(tmp_path / "f.gpkg")))


@pytest.mark.parametrize("box", [None, (2, 1, 30, 30)])
def test_border_nodata_leaves_out_patches_that_reach_over_the_edge(mapped, tmp_path, box):
    values = scene(40, 33)
    expected = np.full((40, 33), NODATA)
    expected[3:38, 3:31] = values.argmax(axis=0)[3:38, 3:31]
    found, _ = mapped(
        write(tmp_path / "s.tif", values), Centres(3, 2, beside=2), patch=6, border="nodata", box=box
    )  # fmt: skip
    assert (found == (expected if box is None else expected[1:31, 2:32])).all()


def test_pixels_of_little_confidence_are_nodata(mapped, tmp_path):
    values = np.zeros((BANDS, 1, 3), np.uint16)
    values[1, 0] = 0, 1, 3
    source = write(tmp_path / "s.tif", values)
    context = Log()
    found, result = mapped(source, min_confidence=0.5, context=context)  # 1/3, 0.58 and 0.91
    assert "MIN_CONFIDENCE 0.5 leaves out 1 of 3 pixels (33.3%)." in context.lines
    assert found.tolist() == [[NODATA, 1, 1]] and result.pixels == 2
    mapped(source, min_confidence=0.9999999, context=context)
    assert "MIN_CONFIDENCE 0.9999999 leaves out 3 of 3 pixels (100.0%)." in context.lines
    found, result = mapped(source, min_confidence=0.6, confidence=str(tmp_path / "c.tif"))
    assert found.tolist() == [[NODATA, NODATA, 1]] and np.isnan(read(result.confidence)).tolist() == [
        [True, True, False]
    ]


@pytest.mark.parametrize(
    ("height", "first", "job", "told"),
    [
        (100, 1, {}, "PROBABILITIES show how near"), (100, 1, {"min_confidence": 0.4}, "MIN_CONFIDENCE leaves out"),
        (99, 1, {}, ""), (100, 0, {}, ""),
    ],
)  # fmt: skip
def test_a_map_of_one_class_is_told_of_where_it_is_not_tiny(mapped, tmp_path, height, first, job, told):
    values = np.zeros((BANDS, height, 100), np.uint16)
    values[1] = 5
    values[:, 0, 0] = 0, first, 0
    context = Log()
    mapped(write(tmp_path / "s.tif", values), context=context, tile=64, **job)
    found = [line for line in context.lines if line.startswith("The whole map is 'name 1', one of the 3 classes")]
    assert len(found) == bool(told) and all(told in line and "threshold" not in line for line in found)
    assert not any("whole map" in text for text in context.warnings)


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [16, 64, None])
def test_damaged_blocks_are_an_error_or_nodata_and_counted(mapped, tmp_path, tile):
    values = scene(100, 120)
    source = write(tmp_path / "s.tif", values, tiled=True, blockxsize=32, blockysize=32, compress="deflate")
    with rasterio.open(source.path) as dataset:
        place = int(dataset.get_tag_item("BLOCK_OFFSET_3_1", "TIFF", bidx=2))
    with open(source.path, "r+b") as file:
        file.seek(place)
        file.write(b"\0" * 300)
    with pytest.raises(BadInput, match=r"'s\.tif' is damaged in rows 32 to 63, columns 96 to 119"):
        mapped(source, tile=tile)
    expected = values.argmax(axis=0)
    expected[32:64, 96:120] = NODATA
    found, result = mapped(source, Centres(2, 2, beside=2), tile=tile, damaged="nodata")
    assert (found == expected).all() and result.pixels == 100 * 120 - 32 * 24
    assert "damaged in 1 block, the first in rows 32 to 63, columns 96 to 119: 768 pixels" in result.warnings[-1]


def test_a_disk_that_is_too_small_is_told_before_the_work_begins(mapped, tmp_path, monkeypatch):
    source, runtime = write(tmp_path / "s.tif", scene(64, 64)), Centres()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(5000))
    with pytest.raises(DiskFull, match=r"may need 102 kB, and '.*' has 5 kB free") as raised:
        mapped(source, runtime, probabilities=str(tmp_path / "p.tif"))
    assert runtime.calls == 0 and "smaller part" in raised.value.remedy


def test_what_the_job_takes_is_told(mapped, tmp_path):
    context = Log()
    mapped(write(tmp_path / "s.tif", scene(64, 64)), context=context)
    told = next(line for line in context.lines if line.startswith("Mapping"))
    assert "64 x 64 pixels" in told and "with centres on cpu, in tiles of 16 x 16" in told and "on the disk" in told


def test_sizes_are_told_as_width_by_height(mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "plan", lambda *_: Tiling(16, 32, 96, 10_000_000, 20_000_000))
    context = Log()
    mapped(write(tmp_path / "s.tif", scene(40, 70)), tile=None, context=context, box=(3, 5, 60, 30))
    told = next(line for line in context.lines if line.startswith("Mapping"))
    assert told.startswith("Mapping 60 x 30 pixels with centres on cpu, in tiles of 32 x 16: about 20 MB of memory")


def test_the_remaining_time_is_told_by_the_progress_alone(mapped, tmp_path, monkeypatch):
    seconds = itertools.count(0, 10)
    slow = SimpleNamespace(monotonic=lambda: float(next(seconds)), perf_counter=time.perf_counter)
    monkeypatch.setattr(inference, "time", slow)
    context = Log()
    mapped(write(tmp_path / "s.tif", scene(64, 64)), context=context)
    assert context.lines and not [line for line in context.lines if " a second" in line or " more" in line]


def test_a_cancelled_job_does_not_wait_for_the_windows_under_way(mapped, tmp_path):
    release, context = threading.Event(), Context()

    class Slow(Centres):
        def scores(self, values, wanted, whole=False):
            context.cancelled.set()
            assert release.wait(30)
            return super().scores(values, wanted, whole)

    with pytest.raises(JobCancelled):
        mapped(write(tmp_path / "s.tif", scene(64, 64)), Slow(beside=2), context=context)
    assert not release.is_set()
    release.set()


def test_an_error_of_the_runtime_reaches_the_caller_as_it_is(mapped, tmp_path):
    class Failing(Centres):
        def scores(self, values, wanted, whole=False):
            raise ArithmeticError("of the network")

    with pytest.raises(ArithmeticError, match="of the network"):
        mapped(write(tmp_path / "s.tif", scene(64, 64)), Failing(beside=2))


def test_no_class_is_what_a_runtime_says_where_no_score_is_finite():
    assert no_class(first_largest(np.full((2, 1, 1), NAN, np.float32))) == NODATA
