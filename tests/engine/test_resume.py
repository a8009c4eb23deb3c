"""An interrupted mapping job continues, and ends with the same bytes as one that was not interrupted."""

import errno
import functools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from deepscape.engine import inference, journal, maps
from deepscape.engine.inference import classify
from deepscape.engine.journal import Journal
from deepscape.engine.maps import MapWriter
from deepscape.engine.modelfiles import save_model
from deepscape.engine.nodearrays import Forest
from deepscape.engine.products import products_of
from deepscape.engine.rasters import Grid
from deepscape.engine.tiling import Tiling
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry, palette_colour
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput, DiskFull, JobCancelled
from deepscape.tasks.jobfiles import write_job_file
from deepscape.tasks.jobs import Classify, RasterSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAN = float("nan")
SUFFIXES = (".tif", ".tif.aux.xml", ".qml")


class Log(Context):
    """Notes what it is told, and cancels when as many steps of a stage were told as are given."""

    def __init__(self, scratch, stage="", steps=0):
        super().__init__(str(scratch))
        self.lines, self.told, self._stage, self._steps = [], 0, stage, steps

    def log(self, text):
        self.lines.append(text)

    def progress(self, done, total, stage="", unit=""):
        self.told += stage == "Mapping"
        self._steps -= stage == self._stage
        if stage == self._stage and self._steps <= 0:
            self.cancelled.set()


@pytest.fixture
def job(tmp_path):
    """A job of a forest of one tree, of some twenty windows; its scene has no-data."""
    rng = np.random.default_rng(3)
    values = rng.integers(0, 50, (2, 1000, 1100)).astype(np.float32)
    values[:, 300:560, 10:700] = NAN
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", count=2, height=1000, width=1100, dtype="float32", crs="EPSG:32721",
        transform=Affine(10, 0, 5e5, 0, -10, 9e6), nodata=NAN, tiled=True, blockxsize=256, blockysize=256,
    ) as dataset:  # fmt: skip
        dataset.write(values)
    save(tmp_path / "m.safetensors", 24.5)
    return Classify(
        RasterSource(str(tmp_path / "s.tif")), str(tmp_path / "m.safetensors"), str(tmp_path / "map.tif"),
        confidence=str(tmp_path / "sure.tif"), continue_anyway=True,
    )  # fmt: skip


def save(path, threshold):
    """Write a forest that gives class 4 up to a threshold of the first band, 7 above."""
    source = CardSource(1, tuple(CardBand("", 0.0, 1.0, NAN, NAN) for _ in range(2)))
    classes = tuple(ClassEntry(value, f"name {value}", palette_colour(value)) for value in (4, 7))
    card = Card("forest", "random_forest", (source,), classes, arguments={"features": "pixel"})
    forest = Forest(
        np.array([0, 3]), np.array([0, -1, -1], np.int32), np.array([threshold, 0.0, 0.0]),
        np.array([[1, 2], [0, 0], [1, 0]], np.int32), np.array([[1.0, 0.0], [0.25, 0.75]]),
    )  # fmt: skip
    save_model(str(path), card, forest.tensors())


def outputs(folder):
    """Return what the job wrote, by name."""
    names = [stem + suffix for stem in ("map", "sure") for suffix in SUFFIXES]
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of 256 make twenty windows of the scene, whatever memory allows."""
    monkeypatch.setattr(inference, "map_scene", functools.partial(inference.map_scene, tile=256))


@pytest.fixture
def whole(job, tmp_path):
    """The files of the uninterrupted job, which are removed again."""
    context = Log(tmp_path / "scratch")
    result = classify(job, context)
    expected = outputs(tmp_path)
    assert set(expected) >= {"map.tif", "map.qml", "sure.tif", "sure.qml"} and context.told == 20
    for name in expected:
        (tmp_path / name).unlink()
    return expected, result, context.told


@pytest.mark.parametrize(("stage", "steps"), [("Mapping", 1), ("Mapping", 3), ("Writing the map", 1)])
def test_a_cancelled_job_continues(job, whole, tmp_path, stage, steps):
    expected, result, windows = whole
    with pytest.raises(JobCancelled, match=r"are kept: run the same job again to continue\.$") as raised:
        classify(job, Log(tmp_path / "scratch", stage, steps))
    assert names(tmp_path) == ["m.safetensors", "map.tif.log", "s.tif"]
    context = Log(tmp_path / "scratch")
    again = classify(job, context)
    assert outputs(tmp_path) == expected and not (tmp_path / "map.tif.log").exists()
    assert (again.pixels, again.class_areas) == (result.pixels, result.class_areas)
    finished = windows - context.told
    assert finished >= (steps if stage == "Mapping" else windows)
    assert f"{finished} of {windows} windows were finished before: continuing." in context.lines
    assert raised.value.remedy.startswith(f"{finished} of {windows} windows are kept")


def test_another_job_begins_again_and_says_why(job, whole, tmp_path, monkeypatch):
    expected, _, windows = whole

    def interrupted():
        with pytest.raises(JobCancelled):
            classify(job, Log(tmp_path / "scratch", "Mapping", 2))

    def again(job=job):
        context = Log(tmp_path / "scratch")
        classify(job, context)
        assert context.told == windows and not list(tmp_path.glob("*.log"))
        return next(line for line in context.lines if "begun" in line)

    interrupted()
    os.utime(tmp_path / "s.tif", ns=(1, 1))
    assert "of no use any more ('s.tif' has changed): the map is begun again" in again()
    assert outputs(tmp_path) == expected
    interrupted()
    monkeypatch.setattr(journal, "plugin_version", lambda: "99.0.0")
    assert "of no use any more (the engine's version was " in again()
    interrupted()
    save(tmp_path / "m.safetensors", 10.5)
    assert "kept (MODEL is another or has changed)" in again() and outputs(tmp_path)["map.tif"] != expected["map.tif"]
    interrupted()
    assert "kept (PROBABILITY_TYPE was float32, is uint8)" in again(replace(job, probability_type="uint8"))
    interrupted()
    assert "kept (the outputs were classes and confidence, are classes)" in again(replace(job, confidence=""))


def test_a_change_of_a_file_below_two_virtual_rasters_begins_again(job, tmp_path):
    rasterio.shutil.copy(str(tmp_path / "s.tif"), str(tmp_path / "inner.vrt"), driver="VRT")
    text = (tmp_path / "inner.vrt").read_text()
    (tmp_path / "outer.vrt").write_text(text.replace(">s.tif<", ">inner.vrt<"))
    job = replace(job, source=RasterSource(str(tmp_path / "outer.vrt")))
    with pytest.raises(JobCancelled):
        classify(job, Log(tmp_path / "scratch", "Mapping", 3))
    with rasterio.open(tmp_path / "s.tif", "r+") as dataset:
        dataset.write(dataset.read() + 5)
    context = Log(tmp_path / "scratch")
    classify(job, context)
    lines = [line for line in context.lines if "finished" in line]
    assert len(lines) == 1 and "of no use any more ('outer.vrt' has changed): the map is begun again" in lines[0]
    assert context.told == 20


def test_a_return_to_an_interrupted_job_continues_it(job, whole, tmp_path):
    """Most of a map, another threshold for a moment, and back: nothing is lost."""
    expected, _, windows = whole

    def run(job, steps=0):
        context = Log(tmp_path / "scratch", "Mapping" if steps else "", steps)
        if steps:
            with pytest.raises(JobCancelled):
                classify(job, context)
        else:
            classify(job, context)
        return context

    other = replace(job, threshold=0.9)
    first = run(job, 15).told
    told = next(line for line in run(other, 2).lines if "begun" in line)
    assert told.startswith(
        f"The map is begun anew. Of another job of it, {first} finished windows are kept (THRESHOLD "
    )
    assert "(THRESHOLD was unset, is 0.9): run that job again before this map is complete" in told
    assert names(tmp_path) == ["m.safetensors", "map.tif.2.log", "map.tif.log", "s.tif"]
    for again in (job, other):
        context = run(again, 1)
        assert any(line.endswith("windows were finished before: continuing.") for line in context.lines)
        assert not any("begun" in line for line in context.lines)
    context = run(job)
    assert context.told <= windows - first and outputs(tmp_path) == expected
    # The map is there: what remains of another one would only lie about.
    assert not list(tmp_path.glob("*.log"))


def test_other_memory_continues_in_the_tiles_that_the_map_was_begun_in(job, whole, tmp_path, monkeypatch):
    planned = Tiling(256, 256, 512, 10_000_000, 300_000_000)
    monkeypatch.setattr(inference, "map_scene", inference.map_scene.func)
    monkeypatch.setattr(inference, "plan", lambda *facts: planned if facts[-1] == 1000 else replace(planned, width=128))
    monkeypatch.setattr(inference, "with_tiles", lambda tiles, *facts: Tiling(*tiles, 10_000_000, 600_000_000))
    with pytest.raises(JobCancelled):
        classify(replace(job, memory=1000), Log(tmp_path / "scratch", "Mapping", 3))
    context = Log(tmp_path / "scratch")
    classify(replace(job, memory=700), context)
    assert context.told <= 17 and not any("begun a" in line for line in context.lines)
    assert any(
        "begun in tiles of 256 x 256 and is continued in them, although MEMORY would now give tiles of 128 x 256"
        in line for line in context.lines
    )  # fmt: skip
    assert outputs(tmp_path) == whole[0]


def test_tiles_that_exceed_a_memory_that_is_given_are_not_continued_but_kept(job, whole, tmp_path, monkeypatch):
    """Whoever gives less MEMORY after the system ended the job for want of it would meet the same end again."""
    planned = Tiling(256, 256, 512, 10_000_000, 900_000_000)
    small = replace(planned, width=128, memory=300_000_000)
    monkeypatch.setattr(inference, "map_scene", inference.map_scene.func)
    monkeypatch.setattr(inference, "plan", lambda *facts: planned if facts[-1] == 1000 else small)
    monkeypatch.setattr(inference, "with_tiles", lambda tiles, *facts: Tiling(*tiles, 10_000_000, 900_000_000))
    first, second, third = (Log(tmp_path / "scratch", "Mapping", steps) for steps in (3, 2, 1))
    for memory, context in ((1000, first), (400, second), (None, third)):
        with pytest.raises(JobCancelled):
            classify(replace(job, memory=memory), context)
    refused = "in tiles of 256 x 256, which take about 900 MB of memory: they are not continued with a MEMORY of 400 MB"
    assert any(refused in line for line in second.lines)
    told = next(line for line in second.lines if "begun anew" in line)
    assert "finished windows are kept (the image is cut into other windows)" in told
    # Without a MEMORY of its own, the job continues in the tiles of the first one.
    assert any("windows were finished before: continuing" in line for line in third.lines)
    classify(replace(job, memory=400), Log(tmp_path / "scratch"))
    assert outputs(tmp_path) == whole[0] and not list(tmp_path.glob("*.log"))


def test_a_folder_that_is_renamed_ends_the_job_and_continues_when_it_is_back(job, whole, tmp_path):
    folder, away = tmp_path / "out", tmp_path / "away"
    folder.mkdir()
    moved = replace(job, output=str(folder / "map.tif"), confidence="")

    class Moves(Log):
        def progress(self, done, total, stage="", unit=""):
            super().progress(done, total, stage, unit)
            if stage == "Mapping" and folder.is_dir() and done > 0:
                folder.rename(away)

    context = Moves(tmp_path / "scratch")
    with pytest.raises(BadInput, match=r"out' was removed or renamed while the job wrote into it.*\('map\.tif\.log'\)"):
        classify(moved, context)
    away.rename(folder)
    context = Log(tmp_path / "scratch")
    classify(moved, context)
    assert any("finished before: continuing" in line for line in context.lines)


def test_room_that_the_journal_has_already_is_not_asked_for_again(job, whole, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(inference, "check_room", lambda sizes: asked.append(sizes[job.output]))
    with pytest.raises(JobCancelled):
        classify(job, Log(tmp_path / "scratch", "Mapping", 5))
    kept = (tmp_path / "map.tif.log").stat().st_size
    classify(job, Log(tmp_path / "scratch"))
    assert kept > 100_000 and asked[0] - asked[1] == kept


def test_room_for_what_is_kept_of_another_job_is_not_counted_on(job, tmp_path, monkeypatch):
    asked, kept, other = [], [], replace(job, threshold=0.9)
    # Neither the room that the disk has at the moment nor an edited metadata.txt is to change what is asked for.
    monkeypatch.setattr(inference, "check_room", lambda sizes: asked.append(sizes[job.output]))
    monkeypatch.setattr(journal, "plugin_version", lambda: "1.0.0")
    for each, steps in ((job, 5), (other, 3), (other, 3)):
        context = Log(tmp_path / "scratch", "Mapping", steps)
        with pytest.raises(JobCancelled):
            classify(each, context)
        kept.append({file: (tmp_path / file).stat().st_size for file in names(tmp_path) if file.endswith(".log")})
        assert len(kept[-1]) == min(len(kept), 2), (kept, context.lines)
    assert asked[0] == asked[1] and kept[0]["map.tif.log"] == kept[1]["map.tif.log"] > 100_000, (asked, kept)
    assert asked[1] - asked[2] == kept[1]["map.tif.2.log"] > 100_000, (asked, kept, context.lines)

    def full(sizes):
        raise DiskFull("The outputs may need much.", "Free space.")

    monkeypatch.setattr(inference, "check_room", full)
    with pytest.raises(
        DiskFull, match=r"Free space\. 'map\.tif\.log' holds [\d.]+ .B of another job of this map: delete"
    ):
        classify(other, Log(tmp_path / "scratch"))


def test_a_temporary_output_leaves_nothing_and_does_not_continue(job, whole, tmp_path):
    temporary = replace(job, resume=False)
    (tmp_path / "scratch").mkdir(exist_ok=True)
    with pytest.raises(JobCancelled) as raised:
        classify(temporary, Log(tmp_path / "scratch", "Mapping", 2))
    assert str(raised.value) == "Cancelled."
    assert names(tmp_path) == ["m.safetensors", "s.tif", "scratch"]
    (tmp_path / "scratch" / "windows.log").unlink()
    classify(temporary, Log(tmp_path / "scratch"))
    assert outputs(tmp_path) == whole[0] and names(tmp_path / "scratch") == []


def test_two_jobs_on_one_output(job, whole, tmp_path):
    """The second is refused in one sentence, and the first ends as if it had been alone."""

    class Meanwhile(Log):
        second = None

        def progress(self, done, total, stage="", unit=""):
            super().progress(done, total, stage, unit)
            if stage == "Mapping" and self.second is None:
                with pytest.raises(BadInput, match="Another job is writing") as raised:
                    classify(job, Log(tmp_path / "scratch"))
                self.second = raised.value

    context = Meanwhile(tmp_path / "scratch")
    classify(job, context)
    assert "Wait until it ends" in context.second.remedy and outputs(tmp_path) == whole[0]


def test_a_disk_that_fills_up_keeps_what_is_finished(job, whole, tmp_path, monkeypatch):
    expected, _, windows = whole
    write, room = os.write, [1_000_000]

    def full(file, data):
        if len(data) > room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= len(data)
        return write(file, data)

    with monkeypatch.context() as patched:
        patched.setattr(journal.os, "write", full)
        with pytest.raises(DiskFull, match="What is finished is kept"):
            classify(job, Log(tmp_path / "scratch"))

    def no_room(path, *arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(maps, "write_sidecars", no_room)
        with pytest.raises(DiskFull, match="run the same job again"):
            classify(job, Log(tmp_path / "scratch"))
    assert names(tmp_path) == ["m.safetensors", "map.tif.log", "s.tif"]
    context = Log(tmp_path / "scratch")
    classify(job, context)
    assert context.told == 0 and outputs(tmp_path) == expected
    assert f"{windows} of {windows} windows were finished before: continuing." in context.lines


# --- kill -9 ---------------------------------------------------------------------------------------------------------

_KILLED = """
import functools, json, os, random, signal, sys, time
from pathlib import Path
from deepscape.engine import inference, journal
from deepscape.tasks import cli

folder, pause_s = Path(sys.argv[1]), 0.01
append = journal.Journal.append

def slowly(self, number, content):
    time.sleep(pause_s)
    append(self, number, content)

journal.Journal.append = slowly
inference.map_scene = functools.partial(inference.map_scene, tile=256)

def start():
    process = os.fork()
    if process == 0:
        code = 99
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            code = cli.main([str(folder / "map.job.json")], null)
        finally:
            os._exit(code)
    return process

def whole():
    status = os.waitpid(start(), 0)[1]
    if status:
        sys.exit(f"the job ended with {status}")
    names = sorted(name for name in os.listdir(folder) if name.startswith(("map.tif", "map.qml", "sure")))
    content = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    return content

began = time.monotonic()
expected = whole()
took_s = time.monotonic() - began
chance, equal, left = random.Random(int(sys.argv[2])), 0, []
for _ in range(10):
    process = start()
    time.sleep(chance.uniform(0.0, took_s))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    left.append((folder / "map.tif.log").stat().st_size if (folder / "map.tif.log").exists() else 0)
    equal += whole() == expected
others = sorted(set(os.listdir(folder)) - {"map.job.json", "m.safetensors", "s.tif"})
print(json.dumps({"equal": equal, "left": left, "others": others, "names": sorted(expected)}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, so that ten starts take no time")
def test_kill_9_at_ten_random_moments(job, tmp_path):
    """Ten processes of one job, each killed at a random moment and run again: the same bytes each time."""
    write_job_file(job)
    path = [p for p in sys.path if (Path(p) / "deepscape").exists()]
    found = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), "5"], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(path), "HOME": str(tmp_path)},
    )  # fmt: skip
    report = json.loads(found.stdout)
    assert report["equal"] == 10 and report["others"] == [] and "map.tif" in report["names"]
    assert len(set(report["left"])) > 2, "the moments were not random"


# --- any interruptions -----------------------------------------------------------------------------------------------

GRID = Grid(83, 61, Affine(10, 0, 5e5, 0, -10, 9e6), None)
CLASSES = tuple(ClassEntry(value, f"name {value}", palette_colour(value)) for value in (1, 3, 300))
TILES = [
    (row, col, min(26, 61 - row), min(30, 83 - col)) for row in range(0, 61, 26) for col in range(0, 83, 30)
]  # fmt: skip


def score(window):
    """Positions, valid pixels and probabilities of a window, as a runtime gives them."""
    row, col, height, width = window
    everywhere = np.random.default_rng(0).dirichlet(np.ones(3), (61, 83)).astype(np.float32).transpose(2, 0, 1)
    p = everywhere[:, row : row + height, col : col + width]
    positions = p.argmax(axis=0).astype(np.uint8)
    positions[p[0] > 0.95] = 255
    return positions, p[1] < 0.9, p


def write_map(folder, stop=None, kind="float32"):
    """Map what remains, up to ``stop`` windows; return the totals where it was completed."""
    paths = [str(folder / f"{name}.tif") for name in ("map", "p", "c", "e", "m")]
    products = products_of(CLASSES, paths, kind)
    with MapWriter(
        products, GRID, CLASSES, {}, windows=TILES, journal=str(folder / "map.tif.log"), key={}, context=Context()
    ) as writer:
        for count, number in enumerate(writer.todo):
            if count == stop:
                return None
            positions, valid, probabilities = score(TILES[number])
            empty = number == 4
            writer.write(number, None if empty else positions, valid & (not empty), probabilities)
        return writer.finish()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stops=st.lists(st.integers(0, 6), max_size=5), cuts=st.lists(st.floats(0, 1), min_size=5, max_size=5),
    kind=st.sampled_from(["float32", "uint8"]),
)  # fmt: skip
def test_interruptions_and_damage_do_not_change_a_byte(tmp_path_factory, stops, cuts, kind):
    folder, other = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parts")
    expected = write_map(folder, kind=kind)
    totals, log = None, other / "map.tif.log"
    for stop, cut in zip(stops, cuts):
        totals = totals or write_map(other, stop, kind)
        if log.exists():
            log.write_bytes(log.read_bytes()[: int(log.stat().st_size * max(cut, 0.3))])
    totals = totals or write_map(other, kind=kind)
    assert names(other) == names(folder) and "map.tif.log" not in names(folder)
    for name in names(folder):
        assert (other / name).read_bytes() == (folder / name).read_bytes(), name
    assert (totals.counts == expected.counts).all() and totals.undefined == expected.undefined


def test_what_is_replayed_is_what_was_written(tmp_path):
    totals = write_map(tmp_path)
    positions, valid, p = score((0, 0, 61, 83))
    row, col, height, width = TILES[4]
    valid[row : row + height, col : col + width] = False
    scored = valid & (positions != 255)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        found = dataset.read(1)
        assert dataset.dtypes == ("uint16",) and dataset.nodata == 65535
    values = np.array([1, 3, 300])
    assert (found == np.where(scored, values[np.minimum(positions, 2)], 65535)).all()
    for position, value in enumerate(values):
        assert (totals.counts[:, position] == (found == value).sum(axis=1)).all()
    assert totals.undefined == (valid & (positions == 255)).sum() > 0
    for name, expected in (("p", p), ("c", p.max(axis=0)[None])):
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            assert np.array_equal(dataset.read(), np.where(scored, expected, np.nan), equal_nan=True)


def test_bytes_say_what_they_mean(tmp_path):
    write_map(tmp_path, kind="uint8")
    _, _, p = score((0, 0, 61, 83))
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert dataset.dtypes == ("uint8",) * 3 and dataset.nodata == 255 and dataset.offsets == (0, 0, 0)
        assert dataset.scales == (0.004, 0.004, 0.004)
        raw = dataset.read()
        assert np.abs(raw * 0.004 - p)[raw != 255].max() <= 0.0021


def test_the_bytes_of_a_raster_do_not_change_from_one_writing_to_the_next(tmp_path):
    """GDAL compresses floats in threads; twenty repeats give one file."""
    seen = set()
    for _ in range(20):
        write_map(tmp_path)
        seen.add(tuple((tmp_path / f"{name}.tif").read_bytes() for name in ("map", "p", "c", "e", "m")))
    assert len(seen) == 1


def test_a_window_that_was_never_mapped_is_no_map(tmp_path):
    products = products_of(CLASSES, [str(tmp_path / "map.tif")])
    with pytest.raises(ValueError, match="window 0 of 9"), MapWriter(
        products, GRID, CLASSES, {}, windows=TILES[:9], journal=str(tmp_path / "l.log"), key={}, context=Context()
    ) as writer:  # fmt: skip
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_parts_of_a_dead_job_are_removed_and_others_are_not(tmp_path):
    stale = [".map.0123abcd.part.tif", "..map.0123abcd.part.89abcdef.part.tif", ".map.0123abcd.part.qml"]
    own = [".map.part.tif", ".map2.0123abcd.part.tif", "map.0123abcd.part.tif", ".map.0123abcd.part.gpkg"]
    for name in stale + own:
        (tmp_path / name).write_text("x")
    write_map(tmp_path)
    assert not set(stale) & set(names(tmp_path)) and set(own) <= set(names(tmp_path))


def test_the_journal_is_closed_when_the_folder_is_missing(tmp_path):
    with pytest.raises(BadInput, match="does not exist"), Journal(str(tmp_path / "no" / "a.log"), {}):
        pass


# --- forms of the rasters --------------------------------------------------------------------------------------------


def test_cloud_optimised_rasters_have_overviews_of_classes_that_are_there(job, whole, tmp_path):
    classify(replace(job, format="cog"), Log(tmp_path / "scratch"))
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and dataset.overviews(1) == [2, 4]
        assert dataset.nodata == 255 and dataset.colormap(1)[4][:3] != (0, 0, 0)
        assert dataset.tags()["DEEPSCAPE_NETWORK"] == "random_forest"
        values = dataset.read(1)
    with rasterio.open(tmp_path / "map.tif", overview_level=1) as dataset:
        assert set(np.unique(dataset.read(1))) == {4, 7, 255}
    with rasterio.open(tmp_path / "sure.tif", overview_level=0) as dataset:
        small = dataset.read(1)
    # 1.0 and 0.75 become what lies between.
    assert ((small > 0.76) & (small < 0.99)).any()
    cog = outputs(tmp_path)
    classify(job, Log(tmp_path / "scratch"))
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert (dataset.read(1) == values).all()
    assert outputs(tmp_path) == whole[0] and cog["map.tif"] != whole[0]["map.tif"]
    for _ in range(3):
        classify(replace(job, format="cog"), Log(tmp_path / "scratch"))
        assert outputs(tmp_path) == cog


def test_measures_are_styled_by_a_sidecar(job, tmp_path):
    paths = {kind: str(tmp_path / f"{kind}.tif") for kind in ("entropy", "margin")}
    result = classify(replace(job, **paths), Log(tmp_path / "scratch"))
    assert {kind: getattr(result, kind) for kind in paths} == paths
    with rasterio.open(result.entropy) as dataset:
        found = dataset.read(1)
        assert dataset.descriptions == ("entropy",) and np.isnan(dataset.nodata)
    expected = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert np.unique(found[~np.isnan(found)]) == pytest.approx([0, expected], abs=1e-6)
    for kind, first in (("entropy", "#ffea46"), ("margin", "#00204d")):
        text = (tmp_path / f"{kind}.qml").read_text()
        assert 'type="singlebandpseudocolor"' in text and text.index(first) < text.index("#7c7b78")


@pytest.mark.parametrize(("threshold", "sure", "ahead"), [(0.8, 0.25, 0.0), (0.75, 0.75, 0.5)])
def test_confidence_is_that_of_the_class_that_a_threshold_chose(job, tmp_path, threshold, sure, ahead):
    """The tree gives class 7 a probability of 0 or 0.75: from a threshold of 0.8 on it is mapped nowhere."""
    asked = replace(job, threshold=threshold, margin=str(tmp_path / "margin.tif"), probability_type="uint8")
    classify(asked, Log(tmp_path / "scratch"))

    def read(name):
        with rasterio.open(tmp_path / name) as dataset:
            return dataset.read(1) * dataset.scales[0]

    with rasterio.open(tmp_path / "s.tif") as dataset:
        values = dataset.read(1)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.tags()["DEEPSCAPE_THRESHOLD"] == str(threshold)
    many, few = values > 24.5, values < 24.5
    assert set(np.unique(read("map.tif")[many])) == {4 if threshold == 0.8 else 7}
    for name, expected in (("sure.tif", sure), ("margin.tif", ahead)):
        assert np.unique(read(name)[many]) == pytest.approx([expected], abs=0.0021), name
        assert np.unique(read(name)[few]) == pytest.approx([1])
    result = classify(replace(asked, min_confidence=0.5), Log(tmp_path / "scratch"))
    assert result.pixels == np.count_nonzero(few) + (np.count_nonzero(many) if sure > 0.5 else 0)


def test_a_threshold_that_leaves_one_class_is_named(job, tmp_path):
    context = Log(tmp_path / "scratch")
    classify(replace(job, threshold=0.8), context)
    told = [line for line in context.lines if line.startswith("The whole map is 'name 4', one of the 2 classes")]
    assert len(told) == 1 and "perhaps the threshold of 0.8 is too high for this image" in told[0]
