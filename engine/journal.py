"""The log of a long job's finished windows: what makes it impossible to lose.

A GeoTIFF that is killed in the middle holds nothing, for its index is written at the end. So finished windows go to an
append-only file beside the output, each with its checksum; the longest valid beginning of that file is what is done,
whatever happened to its end. The rasters are made from it alone (maps.py), so that an interrupted job ends with the
same bytes as one that was not.

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
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

import rasterio
from rasterio.errors import RasterioError

from ..tasks.errors import BadInput, DiskFull
from ..tasks.jobfiles import input_paths
from ..tasks.jobs import Job
from ..tasks.protocol import plugin_version
from ..tasks.serial import to_plain
from .rasters import writing_error

SUFFIX = ".log"

_MAGIC = b"deepscape windows 1\n"
_HEAD = struct.Struct("<III")
_KEY = 0xFFFFFFFF
# What a power cut may cost; each costs the disk some milliseconds.
_SYNC_S = 5.0
# Windows locks bytes, which nobody else may read then: one that the file never reaches.
_LOCKED_BYTE = 1 << 40

# Parts of the key, and what is said where one is another than in the journal that is found.
_CHANGES = {
    "engine": "another engine version",
    "model": "the model changed since",
    "inputs": "the scene changed since",
    "job": "other parameters",
    "products": "other outputs",
    "runtime": "another runtime",
    "precision": "another precision",
    "windows": "another window grid",
}
# How the work is done, what messages call things, and what becomes of windows later or is told by the products.
_NOT_IN_KEY = ("memory", "device_choice", "runtime", "precision", "resume", "label", "format", "probability_type")


class Journal:
    """The finished windows of one job; a context manager that holds the file's lock.

    Attributes:
        path: of the file.
        windows: number of each finished window -> where its content lies (offset, length).
        changed: what differs from the job whose journal was found and begun again, in words; empty otherwise.
    """

    def __init__(self, path: str, key: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> None:
        """Prepare.

        Args:
            path: of the file, beside the output.
            key: what the windows depend on (`job_key`); a journal of another key is begun again.
            check: called between the windows that are read.
        """
        self.path = path
        self.windows: Dict[int, Tuple[int, int]] = {}
        self.changed: Tuple[str, ...] = ()
        self._key = json.loads(json.dumps(dict(key)))
        self._check = check
        self._file = -1
        self._end = 0
        self._synced = time.monotonic()

    def __enter__(self) -> Journal:
        """Open the journal, or begin one.

        Raises:
            BadInput: the file cannot be written, or another job is writing it.
            DiskFull: no room left.
        """
        try:
            self._file = _open_locked(self.path)
            if not self._read():
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
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def append(self, number: int, content: bytes) -> None:
        """Note a finished window.

        Raises:
            DiskFull: no room left; what was noted before is kept.
            BadInput: the file cannot be written.
        """
        record = _record(number, content)
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
        """Remove the file: the job is complete."""
        if os.name == "nt":
            self.close()  # an open file cannot be removed there
        Path(self.path).unlink(missing_ok=True)
        self.close()

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
        key = json.loads(_read_at(self._file, found[1], found[2]))
        if key != self._key:
            self.changed = _changes(key, self._key)
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
    """Return the tiles of the windows that a journal holds of the same job; none where it is not of that job.

    Args:
        path: of the journal.
        key: the job's, whose window grid does not count.
    """
    try:
        with open(path, "rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return ()
            number, length, crc = _HEAD.unpack(file.read(_HEAD.size).ljust(_HEAD.size, b"\0"))
            content = file.read(min(length, os.fstat(file.fileno()).st_size))
    except OSError:
        return ()  # what is wrong with it is told when it is opened for writing
    if number != _KEY or _checksum(number, content) != crc:
        return ()
    found, own = json.loads(content), json.loads(json.dumps(dict(key)))
    tiles = found["windows"]["tiles"] if isinstance(found.get("windows"), Mapping) else []
    same = all(found.get(part) == own[part] for part in own if part != "windows")
    whole = len(tiles) == 3 and all(isinstance(side, int) and side > 0 for side in tiles)
    return tuple(tiles) if same and whole else ()


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
        files = [name for name in dataset.files if not name.lower().endswith((".aux.xml", ".ovr"))] or files
        bands = zip(dataset.descriptions, dataset.nodatavals, dataset.scales, dataset.offsets)
        facts = [[name or "", str(nodata), scale, offset] for name, nodata, scale, offset in bands]
    found = [(name, os.stat(name)) for name in sorted(files) if os.path.exists(name)]
    return [[name, status.st_size, status.st_mtime_ns] for name, status in found] + facts


def _changes(before: Any, now: Mapping[str, Any]) -> Tuple[str, ...]:
    if not isinstance(before, Mapping):
        return ()
    return tuple(text for part, text in _CHANGES.items() if before.get(part) != now.get(part))


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
