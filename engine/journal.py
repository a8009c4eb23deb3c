"""The log of a long job's finished windows: what makes it impossible to lose.

A GeoTIFF that is killed in the middle holds nothing, for its index is written at the end. So finished windows go to an
append-only file beside the output, each with its checksum; the longest valid beginning of that file is what is done,
whatever happened to its end. The rasters are made from it alone (maps.py), so that an interrupted job ends with the
same bytes as one that was not.

A job that finds the finished windows of another one of the same output leaves them where they are and uses a second
file beside them, so that a return to that job continues it: of each output there are two files at most.

Layout: the magic number, then records of a number, a length and a CRC-32 (little-endian, 4 bytes each) and the
content. The first record is the job's key as JSON, the others are windows by their number in the plan.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import rasterio
from rasterio.errors import RasterioError

from ..tasks.errors import BadInput, DiskFull
from ..tasks.jobfiles import input_paths
from ..tasks.jobs import Job
from ..tasks.protocol import plugin_version
from ..tasks.serial import to_plain
from ..tasks.virtualrasters import files_read_by
from .keychanges import changes
from .outputfiles import writing_error

SUFFIX = ".log"
# Of the second file: "map.tif.2.log" beside "map.tif.log".
_SECOND = ".2" + SUFFIX

_MAGIC = b"deepscape windows 1\n"
_HEAD = struct.Struct("<III")
_KEY = 0xFFFFFFFF
# What a power cut may cost; each costs the disk some milliseconds.
_SYNC_S = 5.0
# Windows locks bytes, which nobody else may read then: one that the file never reaches.
_LOCKED_BYTE = 1 << 40

# How the work is done, what messages call things, and what becomes of windows later or is told by the products.
_NOT_IN_KEY = ("memory", "device_choice", "runtime", "precision", "resume", "label", "format", "probability_type")


@dataclass(frozen=True)
class OtherJob:
    """What a journal holds of a job that is not this one.

    Attributes:
        windows: that it finished.
        changed: what differs, in words.
        usable: that job may be run again, since engine and inputs are what they were.
        kept: the windows stay, so that it continues then.
    """

    windows: int
    changed: Tuple[str, ...]
    usable: bool
    kept: bool


class Journal:
    """The finished windows of one job; a context manager that holds the output's lock.

    Attributes:
        path: of the file; once it is open, of the one of the two that this job uses.
        windows: number of each finished window -> where its content lies (offset, length).
        others: jobs whose windows were found when this one was begun; none where it continues.
    """

    def __init__(self, path: str, key: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> None:
        """Prepare.

        Args:
            path: of the file, beside the output.
            key: what the windows depend on (`job_key`); windows of another key are not used.
            check: called between the windows that are read.
        """
        self.path = self._first = path
        self.windows: Dict[int, Tuple[int, int]] = {}
        self.others: Tuple[OtherJob, ...] = ()
        self._key = json.loads(json.dumps(dict(key)))
        self._check = check
        # The lock is that of the first file, whichever of them is used.
        self._lock = self._file = -1
        self._end = 0
        self._synced = time.monotonic()

    def __enter__(self) -> Journal:
        """Open the journal, or begin one.

        Raises:
            BadInput: the file cannot be written, or another job is writing it.
            DiskFull: no room left.
        """
        try:
            self._lock = _open_locked(self._first)
            found = [_found(path) for path in _files(self._first)]
            chosen = _choice(found, self._key)
            self.path, self._file = chosen.path, self._lock
            if self.path != self._first:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
            if not self._read():
                self.others = tuple(
                    OtherJob(each.windows, changes(each.key, self._key), each.usable, each.usable and each != chosen)
                    for each in found if each.windows
                )  # fmt: skip
                for each in found:
                    if each.windows and not each.usable and each.path not in (self.path, self._first):
                        Path(each.path).unlink(missing_ok=True)
                self._begin()
        except OSError as error:
            self.close()
            raise writing_error(self.path, error) from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what is finished is kept."""
        self._close([])

    def _close(self, removed: Sequence[str]) -> None:
        """Close what is open, and remove files."""
        paths = list(removed)
        # The first file is no journal where it was made for the lock alone.
        if self._file not in (-1, self._lock) and os.fstat(self._lock).st_size == 0 and self._first not in paths:
            paths.append(self._first)
        if os.name == "nt":
            self._close_files()  # an open file cannot be removed there
        for path in paths:
            Path(path).unlink(missing_ok=True)
        self._close_files()

    def _close_files(self) -> None:
        for file in {self._file, self._lock} - {-1}:
            os.close(file)
        self._lock = self._file = -1

    def append(self, number: int, content: bytes) -> None:
        """Note a finished window.

        Raises:
            DiskFull: no room left; what was noted before is kept.
            BadInput: the file cannot be written, or its folder is gone, and with it the outputs' place.
        """
        record = _record(number, content)
        folder = os.path.dirname(os.path.abspath(self.path))
        if not os.path.isdir(folder):
            raise BadInput(
                f"The folder '{folder}' was removed or renamed while the job wrote into it.",
                f"It holds what is finished ('{os.path.basename(self.path)}'): put it back, and the job continues.",
            )
        try:
            _write_all(self._file, record)
            if time.monotonic() - self._synced >= _SYNC_S:
                self.sync()
        except OSError as error:
            self._cut(self._end)
            known = writing_error(self.path, error)
            if isinstance(known, DiskFull):
                known = DiskFull(
                    known.message, "What is finished is kept: free space and run the same job again, it continues."
                )
            raise known from error
        self.windows[number] = (self._end + _HEAD.size, len(content))
        self._end += len(record)

    def content(self, number: int, start: int, length: int) -> bytes:
        """Return ``length`` bytes, from ``start`` on, of what was noted for a finished window.

        Raises:
            BadInput: the file cannot be read any more.
        """
        try:
            found = _read_at(self._file, self.windows[number][0] + start, length)
        except OSError as error:
            raise writing_error(self.path, error) from error
        finally:
            os.lseek(self._file, self._end, os.SEEK_SET)
        if len(found) < length:
            raise BadInput(f"'{self.path}' was cut off while it was read.", "Run the job again: it continues.")
        return found

    def sync(self) -> None:
        """Have the system write to the disk itself what it holds of the file."""
        os.fsync(self._file)
        self._synced = time.monotonic()

    def remove(self) -> None:
        """Remove the files of the output, of whatever job: its map is complete."""
        # The first one last: its lock keeps others from beginning a file that would be removed.
        self._close([path for path in reversed(_files(self._first)) if path == self.path or _is_journal(path)])

    def discard(self) -> None:
        """Remove this job's file: it has finished nothing. That of another job stays."""
        self._close([self.path])

    # --- opening ---

    def _begin(self) -> None:
        self._cut(0)
        text = json.dumps(self._key, ensure_ascii=False, sort_keys=True).encode()
        beginning = _MAGIC + _record(_KEY, text)
        _write_all(self._file, beginning)
        self._end = len(beginning)

    def _read(self) -> bool:
        """Read the journal that is there; tell whether it is this job's."""
        size = os.fstat(self._file).st_size
        magic = _read_all(self._file, len(_MAGIC))
        if magic != _MAGIC:
            # Beginnings of ours, and zeros, are what a power cut leaves; anything else is a file of the user's own.
            if not _MAGIC.startswith(magic.rstrip(b"\0")):
                raise BadInput(
                    f"'{self.path}', where finished windows are to be kept, is another file.",
                    "Rename or move it, or choose another output file.",
                )
            return False
        records = self._records(len(_MAGIC), size)
        found = next(records, None)
        if found is None or found[0] != _KEY:
            return False
        if json.loads(_read_at(self._file, found[1], found[2])) != self._key:
            return False
        self._end = found[1] + found[2]
        for number, offset, length in records:
            self._check()
            self.windows[number] = (offset, length)
            self._end = offset + length
        # What a crash left of one more window; appending behind it would hide what follows.
        self._cut(self._end)
        return True

    def _records(self, offset: int, size: int) -> Iterator[Tuple[int, int, int]]:
        """Yield number, offset and length of the content of each record up to the first that is not whole."""
        while offset + _HEAD.size <= size:
            head = _read_at(self._file, offset, _HEAD.size)
            number, length, crc = _HEAD.unpack(head)
            offset += _HEAD.size
            if offset + length > size or _checksum(number, _read_at(self._file, offset, length)) != crc:
                return
            yield number, offset, length
            offset += length

    def _cut(self, size: int) -> None:
        os.ftruncate(self._file, size)
        os.lseek(self._file, size, os.SEEK_SET)


# --- two files of one output -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A journal as it lies there.

    Attributes:
        path: where it is, or would be.
        key: its job's; None where there is no journal, or none that is whole.
        windows: that seem to be finished, by their lengths alone.
        usable: its job may be run again, since engine and inputs are what they were.
    """

    path: str
    key: Optional[Any] = None
    windows: int = 0
    usable: bool = False


def journal_file(path: str, key: Mapping[str, Any]) -> str:
    """Return the file that a job's windows will be kept in, of the two that belong to an output.

    Args:
        path: of the first of them.
        key: the job's.
    """
    return _choice([_found(file) for file in _files(path)], json.loads(json.dumps(dict(key)))).path


def journal_files(path: str) -> List[str]:
    """Return those of the two files that are there, given the path of the first."""
    return [file for file in _files(path) if os.path.isfile(file) and _is_journal(file)]


def _files(path: str) -> List[str]:
    return [path, path[: -len(SUFFIX)] + _SECOND if path.endswith(SUFFIX) else path + _SECOND]


def _choice(found: Sequence[_Found], key: Mapping[str, Any]) -> _Found:
    """Return the file of a job: its own; else one without windows that anybody may want; else that of the fewest."""
    own = [each for each in found if each.key == key]
    return own[0] if own else min(found, key=lambda each: each.windows if each.usable else 0)


def _is_journal(path: str) -> bool:
    """Tell whether a file that can be read is one of ours; an empty one is."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return _MAGIC.startswith(file.read(len(_MAGIC)))
    return False


def _found(path: str) -> _Found:
    """Return what lies at a path; what is wrong with it is told when it is opened for writing."""
    key, windows = _key_of(path), 0
    if key is None:
        return _Found(path)
    with contextlib.suppress(OSError), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(len(_MAGIC))
        while file.tell() + _HEAD.size <= size:
            number, length, crc = _HEAD.unpack(file.read(_HEAD.size))
            # Zeros, which some file systems leave after a power cut, are no windows.
            if file.tell() + length > size or (length == 0 and _checksum(number, b"") != crc):
                break
            windows += number != _KEY
            file.seek(length, os.SEEK_CUR)
    return _Found(path, key, windows, windows > 0 and _usable(key))


def _usable(key: Any) -> bool:
    if not isinstance(key, Mapping) or key.get("engine") != plugin_version():
        return False
    inputs = key.get("inputs")
    return isinstance(inputs, Mapping) and all(
        json.loads(json.dumps(input_state(path))) == state for path, state in inputs.items()
    )


def _key_of(path: str) -> Optional[Any]:
    """Return the key of the journal at a path; None where there is none that is whole."""
    try:
        with open(path, "rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return None
            number, length, crc = _HEAD.unpack(file.read(_HEAD.size).ljust(_HEAD.size, b"\0"))
            content = file.read(min(length, os.fstat(file.fileno()).st_size))
    except OSError:
        return None
    return json.loads(content) if number == _KEY and _checksum(number, content) == crc else None


# --- the key ---------------------------------------------------------------------------------------------------------


def job_key(
    job: Job,
    *,
    models: Sequence[str],
    runtime: str,
    precision: str,
    windows: Sequence[Tuple[int, int, int, int]],
    products: Sequence[str],
    tiles: Sequence[int] = (),
) -> Dict[str, Any]:
    """Return what a job's windows depend on, part by part.

    Args:
        job: the job; where it writes to, and how much memory and which device it may use, do not count.
        models: paths of the model files, which count by their content alone.
        runtime: name and version of the runtime, and its device.
        precision: of the runtime.
        windows: the plan: row, col, height and width of each window.
        products: what is kept of a window.
        tiles: that the plan is made of, for `tiles_of`: height, width, and columns of a column band.
    """
    plain = {name: value for name, value in to_plain(job).items() if name not in job.outputs}
    inputs = [path for path in input_paths(job) if path not in models]
    plan = hashlib.sha256(json.dumps([list(window) for window in windows]).encode())
    return {
        "engine": plugin_version(),
        "model": [file_hash(path) for path in models],
        "inputs": {path: input_state(path) for path in inputs},
        "job": {"kind": job.kind, **without(plain, _NOT_IN_KEY, models)},
        "products": list(products),
        "runtime": runtime,
        "precision": precision,
        "windows": {"plan": "sha256:" + plan.hexdigest(), "tiles": list(tiles)},
    }


def tiles_of(path: str, key: Mapping[str, Any]) -> Tuple[int, ...]:
    """Return the tiles of the windows that an output's journals hold of the same job; none where neither is of it.

    Args:
        path: of the first of its two files.
        key: the job's, whose window grid does not count.
    """
    own = json.loads(json.dumps(dict(key)))
    for file in _files(path):
        found = _key_of(file)
        if not isinstance(found, Mapping) or not isinstance(found.get("windows"), Mapping):
            continue
        tiles = found["windows"].get("tiles", [])
        whole = len(tiles) == 3 and all(isinstance(side, int) and side > 0 for side in tiles)
        if whole and all(found.get(part) == own[part] for part in own if part != "windows"):
            return tuple(tiles)
    return ()


def file_hash(path: str) -> str:
    """Return "sha256:..." of a file's content; empty where there is no such file."""
    if not os.path.isfile(path):
        return ""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return "sha256:" + digest.hexdigest()


def without(plain: Mapping[str, Any], names: Sequence[str], values: Sequence[str] = ()) -> Dict[str, Any]:
    """Return the plain form of a job without the fields of these names, at any depth, nor those of these values.

    A field that holds the list of all values counts as one of them.
    """
    dropped = [*values, list(values)] if values else []
    return {
        name: without(value, names, values) if isinstance(value, Mapping) else value
        for name, value in plain.items()
        if name not in names and value not in dropped
    }


def input_state(path: str) -> List[Any]:
    """Return size and time of an input's files, and of a raster what else its pixels are read by.

    Sidecars do not count: QGIS writes statistics into them when it shows the scene.
    """
    files, facts = [path], []
    with contextlib.suppress(RasterioError), rasterio.open(path) as dataset:
        files = [name for name in dataset.files if not _is_sidecar(name)] or files
        bands = zip(dataset.descriptions, dataset.nodatavals, dataset.scales, dataset.offsets)
        facts = [[name or "", str(nodata), scale, offset] for name, nodata, scale, offset in bands]
    # The list of a VRT ends at its sources: of those that are VRTs, it lacks the files with the pixels.
    names = sorted({*files, *(name for name in files_read_by(path) if not _is_sidecar(name))})
    found = [(name, os.stat(name)) for name in names if os.path.exists(name)]
    return [[name, status.st_size, status.st_mtime_ns] for name, status in found] + facts


def _is_sidecar(name: str) -> bool:
    return name.lower().endswith((".aux.xml", ".ovr"))


# --- the file --------------------------------------------------------------------------------------------------------


def _record(number: int, content: bytes) -> bytes:
    return _HEAD.pack(number, len(content), _checksum(number, content)) + content


def _checksum(number: int, content: bytes) -> int:
    # With number and length: else zeros, which some file systems leave after a power cut, would be a valid record.
    return zlib.crc32(content, zlib.crc32(struct.pack("<II", number, len(content))))


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _read_all(file: int, length: int) -> bytes:
    parts = []
    while length > 0:
        part = os.read(file, min(length, 1 << 24))
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _read_at(file: int, offset: int, length: int) -> bytes:
    os.lseek(file, offset, os.SEEK_SET)
    return _read_all(file, length)


def _open_locked(path: str) -> int:
    """Open a file for reading and writing and lock it for this process, as long as it is open.

    The system gives the lock back when the process ends, however it ends.

    Raises:
        BadInput: another job holds the lock.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            _lock(file, path)
        except BaseException:
            os.close(file)
            raise
        # The job that held the lock may have completed meanwhile: then this is a file without a name.
        if os.path.exists(path) and os.path.samestat(os.fstat(file), os.stat(path)):
            return file
        os.close(file)


def _lock(file: int, path: str) -> None:
    try:
        if os.name == "nt":
            import msvcrt

            windows: Any = msvcrt
            os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
            windows.locking(file, windows.LK_NBLCK, 1)
            os.lseek(file, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        output = path[: -len(SUFFIX)] if path.endswith(SUFFIX) else path
        raise BadInput(
            f"Another job is writing '{output}' right now.", "Wait until it ends, or choose another output file."
        ) from error
    except OSError as error:
        # Some network drives know no locks; there the user alone sees to it that one job writes an output.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
