"""The log of finished windows: its longest valid beginning counts, and one job alone writes it."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from deepscape.engine import journal as journals
from deepscape.engine.journal import Journal, OtherJob, job_key, journal_file, journal_files, tiles_of
from deepscape.tasks.errors import BadInput, DiskFull, JobCancelled
from deepscape.tasks.jobs import Classify, RasterSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEY = {"model": "a", "inputs": {"s.tif": [1, 2]}}


def contents(journal):
    return {number: journal.content(number, 0, length) for number, (_, length) in journal.windows.items()}


def filled(path, windows, key=KEY):
    with Journal(path, key) as journal:
        for number, content in windows.items():
            journal.append(number, content)


WINDOWS = {0: b"first", 1: b"", 7: bytes(range(256)) * 9, 3: b"last"}


def test_what_was_noted_is_found_again(tmp_path):
    path = str(tmp_path / "map.tif.log")
    filled(path, WINDOWS)
    with Journal(path, KEY) as journal:
        assert contents(journal) == WINDOWS and journal.others == ()
        assert journal.content(7, 255, 3) == b"\xff\x00\x01"
        journal.append(4, b"more")
        assert contents(journal) == {**WINDOWS, 4: b"more"}
        journal.remove()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_of_a_damaged_file_the_valid_beginning_counts(tmp_path, data):
    path = tmp_path / "map.tif.log"
    path.unlink(missing_ok=True)
    filled(str(path), WINDOWS)
    whole = bytearray(path.read_bytes())
    with Journal(str(path), KEY) as journal:
        ends = {number: start + length for number, (start, length) in journal.windows.items()}
    at = data.draw(st.integers(0, len(whole) - 1))
    damage = data.draw(st.sampled_from(["cut", "flip", "zeros"]))
    if damage == "cut":
        del whole[at:]
    elif damage == "flip":
        whole[at] ^= 0x40
    else:
        whole[at:] = bytes(len(whole) - at + 5000)
    path.write_bytes(whole)
    if damage == "flip" and at < len(journals._MAGIC):
        with pytest.raises(BadInput, match="is another file"), Journal(str(path), KEY):
            pass
        return
    with Journal(str(path), KEY) as journal:
        kept = {number for number, end in ends.items() if end <= at}
        # Zeros in place of zeros change nothing.
        assert kept <= set(journal.windows)
        assert contents(journal) == {number: WINDOWS[number] for number in journal.windows}
        journal.append(9, b"after")
    with Journal(str(path), KEY) as journal:
        assert journal.content(9, 0, 5) == b"after" and kept <= set(journal.windows)


def test_zeros_behind_any_byte_are_no_window(tmp_path):
    path = tmp_path / "map.tif.log"
    filled(str(path), WINDOWS)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes(200))
        with Journal(str(path), KEY) as journal:
            assert contents(journal).items() <= WINDOWS.items()


ENGINE = journals.plugin_version()
OWN, OTHER, THIRD = ({"engine": ENGINE, "inputs": {}, "job": {"threshold": value}} for value in (0.5, 0.6, 0.7))
TWO = {0: b"a", 1: b"b"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"engine": "0.0.9"}, f"the engine's version was 0.0.9, is {ENGINE}"),
        ({"inputs": {"s.tif": [1, 2]}}, "'s.tif' has changed"),
    ],
)
def test_what_can_never_be_continued_makes_room(tmp_path, changed, words):
    path = str(tmp_path / "map.tif.log")
    filled(path, WINDOWS, {**OWN, **changed})
    with Journal(path, {**OWN, "inputs": {"s.tif": [1, 3]}} if "inputs" in changed else OWN) as journal:
        assert journal.others == (OtherJob(4, (words,), False, False),) and journal.windows == {}
        journal.append(0, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif.log"]


def test_the_windows_of_one_other_job_are_kept(tmp_path):
    path = str(tmp_path / "map.tif.log")
    filled(path, WINDOWS, OWN)
    with Journal(path, OTHER) as journal:
        assert journal.others == (OtherJob(4, ("THRESHOLD was 0.5, is 0.6",), True, True),)
        assert journal.windows == {} and journal.path == str(tmp_path / "map.tif.2.log")
        journal.append(5, b"other")
    for key, windows in ((OWN, WINDOWS), (OTHER, {5: b"other"}), (OWN, WINDOWS)):
        with Journal(path, key) as journal:
            assert contents(journal) == windows and journal.others == ()
    # Of two other jobs, that which has finished more stays.
    with Journal(path, THIRD) as journal:
        assert [(other.windows, other.kept) for other in journal.others] == [(4, True), (1, False)]
        journal.append(0, b"third")
    with Journal(path, OWN) as journal:
        assert contents(journal) == WINDOWS
        journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_finishes_nothing_costs_no_other_its_windows(tmp_path):
    path = str(tmp_path / "map.tif.log")
    filled(path, WINDOWS, OWN)
    with Journal(path, OTHER) as journal:
        journal.discard()
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif.log"]
    filled(path, TWO, OTHER)
    with Journal(path, OWN) as journal:
        assert contents(journal) == WINDOWS
        journal.discard()
    # What is left lies in the second file: the first is there for its lock alone while it is used.
    with Journal(path, OTHER) as journal:
        assert contents(journal) == TWO and len(list(tmp_path.iterdir())) == 2
        with pytest.raises(BadInput, match="Another job is writing"), Journal(path, THIRD):
            pass
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif.2.log"]
    with Journal(path, OTHER) as journal:
        journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_second_file_of_the_user_s_own_is_not_touched(tmp_path):
    path, own = str(tmp_path / "map.tif.log"), tmp_path / "map.tif.2.log"
    own.write_text("the second run said nothing\n")
    filled(path, WINDOWS, OWN)
    with pytest.raises(BadInput, match=r"map\.tif\.2\.log', where finished windows .* is another file"):
        filled(path, TWO, OTHER)
    with Journal(path, OWN) as journal:
        assert contents(journal) == WINDOWS
        journal.remove()
    assert own.read_text() == "the second run said nothing\n" and [file.name for file in tmp_path.iterdir()] == [
        own.name
    ]


def test_the_file_of_a_job_is_known_before_it_is_opened(tmp_path):
    path, second = str(tmp_path / "map.tif.log"), str(tmp_path / "map.tif.2.log")
    assert journal_file(path, OWN) == path and journal_files(path) == []
    filled(path, WINDOWS, OWN)
    assert (journal_file(path, OWN), journal_file(path, OTHER)) == (path, second)
    filled(path, TWO, OTHER)
    assert (journal_file(path, OTHER), journal_file(path, THIRD)) == (second, second)
    assert journal_files(path) == [path, second]
    # Zeros that a power cut left behind are no windows.
    with open(second, "ab") as file:
        file.write(bytes(100_000))
    filled(second, {}, OTHER)
    assert journal_file(path, THIRD) == second


def test_a_file_of_the_user_s_own_is_not_touched(tmp_path):
    (tmp_path / "map.tif.log").write_text("gdalwarp said nothing\n")
    with pytest.raises(BadInput, match="is another file"), Journal(str(tmp_path / "map.tif.log"), KEY):
        pass
    assert (tmp_path / "map.tif.log").read_text() == "gdalwarp said nothing\n"


def test_one_job_at_a_time(tmp_path):
    path = str(tmp_path / "map.tif.log")
    with Journal(path, KEY) as first:
        first.append(0, b"x")
        with pytest.raises(BadInput, match=r"Another job is writing '.*map\.tif' right now"), Journal(path, KEY):
            pass
        first.append(1, b"y")
    with Journal(path, KEY) as again:
        assert contents(again) == {0: b"x", 1: b"y"}


def test_a_file_that_was_removed_while_the_lock_was_waited_for_is_begun_again(tmp_path, monkeypatch):
    path = tmp_path / "map.tif.log"
    lock, calls = journals._lock, []

    def late(file, name):
        lock(file, name)
        if not calls:
            calls.append(path.unlink())

    monkeypatch.setattr(journals, "_lock", late)
    with Journal(str(path), KEY) as journal:
        journal.append(0, b"x")
    monkeypatch.undo()
    with Journal(str(path), KEY) as journal:
        assert contents(journal) == {0: b"x"}


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(code):
        def flock(file, how):
            raise OSError(code, os.strerror(code))

        return flock

    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    filled(str(tmp_path / "map.tif.log"), WINDOWS)
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        filled(str(tmp_path / "map.tif.log"), WINDOWS)


def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch):
    path, write, room = str(tmp_path / "map.tif.log"), os.write, [20]

    def full(file, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    with Journal(path, KEY) as journal:
        journal.append(0, b"first")
        monkeypatch.setattr(journals.os, "write", full)
        with pytest.raises(DiskFull, match="What is finished is kept") as raised:
            journal.append(1, b"x" * 40)
        assert str(tmp_path) in raised.value.message
        monkeypatch.undo()
        journal.append(2, b"third")
    with Journal(path, KEY) as journal:
        assert contents(journal) == {0: b"first", 2: b"third"}


def test_reading_can_be_cancelled_and_a_missing_folder_is_named(tmp_path):
    path = str(tmp_path / "map.tif.log")
    filled(path, WINDOWS)

    def cancel():
        raise JobCancelled

    with pytest.raises(JobCancelled), Journal(path, KEY, cancel):
        pass
    with Journal(path, KEY) as journal:  # the lock was given back
        assert len(journal.windows) == 4
    with pytest.raises(BadInput, match="does not exist"), Journal(str(tmp_path / "no" / "map.tif.log"), KEY):
        pass


def test_the_disk_is_told_now_and_then(tmp_path, monkeypatch):
    synced, now = [], [0.0]
    monkeypatch.setattr(journals.os, "fsync", synced.append)
    monkeypatch.setattr(journals.time, "monotonic", lambda: now[0])
    with Journal(str(tmp_path / "map.tif.log"), KEY) as journal:
        for second in range(21):
            now[0] = second / 2
            journal.append(second, b"")
    assert len(synced) == 2


# --- the key ---------------------------------------------------------------------------------------------------------


def test_the_key_holds_what_the_windows_depend_on_and_nothing_else(tmp_path):
    scene, model = tmp_path / "s.tif", tmp_path / "m.safetensors"
    model.write_bytes(b"weights")
    with rasterio.open(scene, "w", driver="GTiff", width=3, height=2, count=1, dtype="uint8") as dataset:
        dataset.write(np.ones((1, 2, 3), "uint8"))
    job = Classify(RasterSource(str(scene)), str(model), str(tmp_path / "map.tif"))

    def key(job=job, **changes):
        facts = {"models": [job.model], "runtime": "r", "precision": "full", "windows": [(0, 0, 2, 3)]}
        return job_key(job, **{**facts, "products": ["classes uint8"], **changes})

    first = key()
    source = replace(job.source, label="another name of the layer")
    for same in (
        replace(job, output="elsewhere.tif"), replace(job, device_choice="cpu"), replace(job, source=source),
        replace(job, resume=False),
    ):  # fmt: skip
        assert key(same) == first
    (tmp_path / "s.tif.aux.xml").write_text("<PAMDataset/>")  # QGIS notes statistics there when it shows the scene
    os.utime(model)
    assert key() == first

    def parts(other):
        return [part for part in first if other[part] != first[part]]

    assert parts(key(replace(job, box=(0, 0, 1, 1)))) == ["job"]
    assert parts(key(windows=[(0, 0, 2, 2), (0, 2, 2, 1)])) == ["windows"]
    assert parts(key(products=["classes uint8", "entropy uint8"])) == ["products"]
    assert parts(key(runtime="another")) == ["runtime"] and parts(key(precision="fast")) == ["precision"]
    model.write_bytes(b"weightS")
    assert parts(key()) == ["model"]
    model.write_bytes(b"weights")
    assert key() == first
    os.utime(scene, ns=(1, 1))
    assert parts(key()) == ["inputs"]


def test_the_tiles_of_the_same_job_are_found_again(tmp_path):
    path = tmp_path / "map.tif.log"
    key = {**KEY, "windows": {"plan": "a", "tiles": [512, 256, 1024]}}
    other = {**KEY, "windows": {"plan": "b", "tiles": []}}
    assert tiles_of(str(path), other) == ()
    filled(str(path), WINDOWS, key)
    assert tiles_of(str(path), other) == (512, 256, 1024)
    assert tiles_of(str(path), {**other, "model": "b"}) == ()
    whole = path.read_bytes()
    for damaged in (whole[:25], whole[:60], whole[:40] + b"?" + whole[41:], b"a text of the user's own", b""):
        path.write_bytes(damaged)
        assert tiles_of(str(path), other) == ()
    for tiles in ([512, 256], [512, 0, 9], "abc"):
        path.unlink()
        filled(str(path), {}, {**KEY, "windows": {"plan": "a", "tiles": tiles}})
        assert tiles_of(str(path), other) == ()


def test_the_files_of_a_mosaic_count(tmp_path):
    tile = tmp_path / "t.tif"
    with rasterio.open(tile, "w", driver="GTiff", width=3, height=2, count=1, dtype="uint8") as dataset:
        dataset.write(np.ones((1, 2, 3), "uint8"))
    (tmp_path / "s.vrt").write_text(
        '<VRTDataset rasterXSize="3" rasterYSize="2"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">t.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    before = journals.input_state(str(tmp_path / "s.vrt"))
    assert len(before) == 3  # two files, each once, and a band
    (tmp_path / "outer.vrt").write_text((tmp_path / "s.vrt").read_text().replace("t.tif", "s.vrt"))
    (tmp_path / "t.tif.ovr").write_bytes(b"")
    outer = journals.input_state(str(tmp_path / "outer.vrt"))
    assert [name for name, *_ in outer[:-1]] == [str(tmp_path / name) for name in ("outer.vrt", "s.vrt", "t.tif")]
    os.utime(tile, ns=(1, 1))
    assert journals.input_state(str(tmp_path / "s.vrt")) != before
    assert journals.input_state(str(tmp_path / "outer.vrt")) != outer
