"""What is kept beside an output: the job file that repeats it; and what must not stay: half-written files.

A job file is written after the job has succeeded, never before: beside an output of an earlier run it would tell a
story that is not that output's. So ``map.job.json`` always says how the ``map.tif`` beside it was made. A failed job
is in the algorithm's log, as JSON, to be saved by hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import json
import os
import re
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from .classtable import Legend
from .errors import BadInput, DeepscapeError
from .jobs import Job, RasterSource, VectorSource, job_from_plain, job_to_plain
from .protocol import plugin_version
from .serial import to_plain
from .virtualrasters import files_read_by

SUFFIX = ".job.json"
FORMAT = "deepscape-job"
_LONGEST_SCENE = 60  # in characters, of a scene in a file's name
_LONGEST_NAME = 255  # in bytes, of a file on all the usual file systems
# Of a file that is being written, beside its name: ".map.1a2b3c4d.part.5e6f7a8b.part.tif.aux.xml".
_WHILE_WRITTEN = 45


def job_file_name(output: str) -> str:
    """Return an output's job file: ``map.tif`` -> ``map.job.json``, the folder ``patches/`` -> ``patches.job.json``.

    Where that is the job file of another output that is still there (``map.gpkg``), it is ``map.tif.job.json``.
    """
    path = Path(output)
    usual = path.with_name((path.name if path.is_dir() else path.stem) + SUFFIX)
    return str(_full_name(path) if _is_of_another(usual, path) else usual)


def _full_name(output: Path) -> Path:
    return output.with_name(output.name + SUFFIX)


def _is_of_another(file: Path, output: Path) -> bool:
    """Tell whether a job file tells how another output was made, which is still there."""
    if not file.is_file():
        return False
    try:
        made = [os.path.realpath(path) for path in output_paths(read_job_file(str(file))).values()]
    except DeepscapeError:  # no job file, or of a newer plugin: it is replaced as ever
        return False
    return os.path.realpath(output) not in made and any(os.path.exists(path) for path in made)


def is_temporary(path: str, temporary_folders: Sequence[str]) -> bool:
    """Tell whether a path lies in one of the temporary folders (QGIS's own; a chosen file below /tmp is no such)."""
    parents = Path(os.path.realpath(path)).parents
    return any(folder and Path(os.path.realpath(folder)) in parents for folder in temporary_folders)


def write_job_file(job: Job, result: Any = None, temporary_folders: Sequence[str] = ()) -> str:
    """Save a job that has succeeded beside its first output, and return the file's path.

    Paths are written relative to the file where they lie on the same drive, so that the folder can move as a whole.

    Args:
        job: the job.
        result: its result; an output that it names (with the suffix that the writer added) replaces the job's.
        temporary_folders: where outputs are temporary (QgsProcessingUtils.tempFolder()).

    Returns:
        The file's path; empty when the job has no output on disk or a temporary one: those get no job file.
    """
    real = {name: str(getattr(result, name, "") or getattr(job, name)) for name in job.outputs}
    job = dataclasses.replace(job, **{name: path for name, path in real.items() if path})
    first = next((getattr(job, name) for name in job.outputs if getattr(job, name)), "")
    if not first or is_temporary(first, temporary_folders):
        return ""
    path = job_file_name(first)
    folder = os.path.dirname(os.path.abspath(path))
    portable = map_paths(job, lambda text, output: _relative(folder, text, output))
    content = {
        "format": FORMAT,
        "deepscape": plugin_version(),
        "written": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **job_to_plain(portable),
    }
    try:
        replace_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise BadInput(
            f"The job file '{path}' cannot be written: {error.strerror}.", "Choose a folder that you may write to."
        ) from error
    longer = _full_name(Path(first))
    if str(longer) != path and longer.is_file() and not _is_of_another(longer, Path(first)):
        longer.unlink()  # of an earlier run: two files must not tell how one output was made
    return path


def read_job_file(path: str) -> Job:
    """Read a job file; relative paths are taken from its folder.

    Raises:
        BadInput: the file cannot be read, is no job file, or a field is wrong.
    """
    content = _content(path)
    folder = os.path.dirname(os.path.abspath(path))
    return map_paths(job_from_plain(content), lambda text, output: _absolute(folder, text, output))


def written_at(path: str) -> str:
    """Return when a job file was written (UTC, ISO 8601); empty where it does not say: one that is written by hand.

    Raises:
        BadInput: the file cannot be read, or is no job file.
    """
    return str(_content(path).get("written", ""))


def _content(path: str) -> Mapping[str, Any]:
    """Return what a job file holds, as it is written."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadInput(f"The job file '{path}' cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise BadInput(f"The job file '{path}' is not JSON: {error}.") from error
    if not isinstance(content, Mapping) or content.get("format", FORMAT) != FORMAT:
        raise BadInput(f"'{path}' is not a job file.", f"Give a file that Deepscape has saved (*{SUFFIX}).")
    return content


def map_paths(job: Job, change: Callable[[str, bool], str]) -> Job:
    """Return the job with every path replaced by ``change(path, is_output)``; empty paths are left alone."""
    fields: Dict[str, Any] = {}
    for field in dataclasses.fields(job):
        value = getattr(job, field.name)
        if field.name in job.outputs and value:
            fields[field.name] = change(value, True)
        elif isinstance(value, str) and field.name in job.inputs and value:
            fields[field.name] = change(value, False)
        elif isinstance(value, tuple) and field.name in job.inputs:
            fields[field.name] = tuple(
                change(item, False) if isinstance(item, str) else _map_source(item, change) for item in value
            )
        else:
            fields[field.name] = _map_source(value, change)
    return dataclasses.replace(job, **fields)


def _map_source(value: Any, change: Callable[[str, bool], str]) -> Any:
    if isinstance(value, RasterSource):
        stack = tuple(change(path, False) for path in value.stack)
        return dataclasses.replace(value, path=change(value.path, False), stack=stack)
    if isinstance(value, (VectorSource, Legend)) and value.path:
        return dataclasses.replace(value, path=change(value.path, False))
    return value


def input_paths(job: Job) -> List[str]:
    """Return every path that the job reads."""
    found: List[str] = []

    def note(path: str, is_output: bool) -> str:
        if not is_output:
            found.append(path)
        return path

    map_paths(job, note)
    return found


def output_paths(job: Job) -> Dict[str, str]:
    """Return the job's outputs that are not empty: name of the field -> path."""
    return {name: str(getattr(job, name)) for name in job.outputs if getattr(job, name)}


def _relative(folder: str, text: str, is_output: bool) -> str:
    """Return a path relative to ``folder`` as ./... with forward slashes; what is no file (a GDAL name) as it is."""
    if not os.path.isabs(text) or not (is_output or os.path.exists(text)):
        return text
    try:
        relative = os.path.relpath(text, folder)
        shared = os.path.commonpath([text, folder])
    except ValueError:  # another drive
        return text
    if os.path.dirname(shared) == shared:
        return text
    relative = relative.replace(os.sep, "/")
    return relative if relative.startswith("../") else "./" + relative


def _absolute(folder: str, text: str, is_output: bool) -> str:
    if os.path.isabs(text):
        return text
    candidate = os.path.normpath(os.path.join(folder, text))
    # A name that starts otherwise may be a GDAL data source such as NETCDF:...; a hand-written file name exists.
    if is_output or text.startswith(("./", "../")) or os.path.exists(candidate):
        return candidate
    return text


# --- outputs ---------------------------------------------------------------------------------------------------------


def check_outputs(job: Job) -> None:
    """Make sure, before any work, that every output can be written.

    The missing parents of a folder output are created (a data set is a thing of its own); a file goes into a folder
    that exists: a misspelt one must not come into being.

    Raises:
        BadInput: a folder is missing, is a file or cannot be written, an output is a folder where a file is meant or
            the other way round, would overwrite an input or another output, or has too long a name.
    """
    check_inputs_stay(job, {name.upper(): path for name, path in output_paths(job).items()})
    seen: Dict[str, str] = {}
    for name, path in output_paths(job).items():
        label = name.upper()
        real = os.path.realpath(path)
        if real in seen:
            raise BadInput(f"{label} and {seen[real]} are the same file '{path}'.", "Choose another name for one.")
        seen[real] = label
        is_folder = name in job.folders
        if is_folder and os.path.exists(path) and not os.path.isdir(path):
            raise BadInput(f"{label} '{path}' is a file, not a folder.", "Choose another name.")
        if not is_folder and os.path.isdir(path):
            raise BadInput(f"{label} '{path}' is a folder, not a file.", "Choose a file name.")
        most, long = _LONGEST_NAME - _WHILE_WRITTEN, len(os.fsencode(os.path.basename(path.rstrip("/"))))
        if long > most:
            raise BadInput(
                f"The name of {label} takes {long} bytes; while it is written, it may take {most}.",
                "Choose a shorter name.",
            )
        check_folder(label, os.path.dirname(os.path.abspath(path)), create=is_folder)


def check_inputs_stay(job: Job, outputs: Mapping[str, str]) -> None:
    """Make sure that no output takes the place of what the job reads: an input, or a file that an input reads (a VRT).

    Args:
        job: the job.
        outputs: label -> path of each output.

    Raises:
        BadInput: an output would overwrite such a file.
    """
    labels = {os.path.realpath(path): label for label, path in outputs.items()}
    # Only a file that is there can be lost: else a mosaic of many files need not be looked through.
    replaces = any(os.path.isfile(path) for path in outputs.values())
    for given in input_paths(job):
        for path in itertools.chain([given], files_read_by(given) if replaces else ()):
            label = labels.get(os.path.realpath(path))
            if label is not None:
                reader = "" if path == given else f": the VRT '{given}' reads it"
                raise BadInput(
                    f"{label} '{outputs[label]}' is also an input and would be overwritten{reader}.",
                    "Choose another name.",
                )


def check_folder(label: str, folder: str, create: bool = False) -> None:
    """Make sure that files can be written into the folder of the output ``label``; ``create`` makes a missing one.

    Raises:
        BadInput: the folder is missing or cannot be written.
    """
    try:
        if create:
            os.makedirs(folder, exist_ok=True)
        # A real file: permissions alone do not tell on Windows and on network drives. No name of it stays.
        with tempfile.TemporaryFile(dir=folder, prefix=".deepscape-"):
            return
    except OSError as error:
        # Folders that the system makes, such as /proc, say of new files that there is no such one.
        unknown = isinstance(error, (FileNotFoundError, NotADirectoryError, FileExistsError))
        if unknown and not os.path.isdir(folder):
            raise BadInput(
                f"The folder '{folder}' of {label} does not exist.", "Create it or choose another folder."
            ) from None
        why = "" if unknown else f": {error.strerror}"
        raise BadInput(
            f"The folder '{folder}' of {label} cannot be written{why}.",
            "Choose a folder that you may write to.",
        ) from error


def remove_parts(job: Job) -> Tuple[str, ...]:
    """Remove what a killed worker left half-written beside the job's outputs; returns the paths that were removed.

    The engine writes ``map.tif`` as ``.map.<8 hexadecimal digits>.part.tif`` and renames it when it is complete (the
    rasters of one job together: theirs are parts of parts); a worker that is killed cannot clean up after itself.
    """
    return tuple(removed for path in output_paths(job).values() for removed in remove_parts_of(path))


def remove_parts_of(path: str) -> Tuple[str, ...]:
    """Remove what is half-written of one output and its style; returns the paths that were removed."""
    removed = []
    target = Path(path)
    part = re.compile(rf"\.+{re.escape(target.stem)}(\.[0-9a-f]{{8}}\.part)+({re.escape(target.suffix)}.*|\.qml)")
    try:
        names = sorted(os.listdir(target.parent))
    except OSError:  # the folder itself is gone, and all that was in it
        return ()
    for leftover in [target.parent / name for name in names if part.fullmatch(name)]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
        removed.append(str(leftover))
    return tuple(removed)


# --- model store -----------------------------------------------------------------------------------------------------


def keep_model(path: str, store: str, name: str) -> str:
    """Copy a model that was written to a temporary path into the model store, and return the copy's path.

    Hours of training are not lost with a temporary file, whose own name is that of a parameter. Copies are named after
    their training, the day and the time, and never replaced.

    Args:
        path: the .safetensors file.
        store: the folder of kept models; it is created.
        name: of the training, as `training_name` returns it.
    """
    os.makedirs(store, exist_ok=True)
    source = Path(path)
    moment = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    target = Path(store) / f"{name}-{moment}{source.suffix}"
    number = 1
    while target.exists():
        number += 1
        target = Path(store) / f"{name}-{moment}-{number}{source.suffix}"
    part = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.part{target.suffix}")
    try:
        shutil.copyfile(source, part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return str(target)


def training_name(job: Job) -> str:
    """Return a file name (without suffix) for a training: its algorithm, and the scene that it learns from."""
    source, folder = getattr(job, "source", None), str(getattr(job, "training", ""))
    scene = source.label if isinstance(source, RasterSource) else ""
    if folder:
        scene = Path(folder).name
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # what is wrong with it, the engine tells
            scene = str(json.loads((Path(folder) / "dataset.json").read_text(encoding="utf-8"))["scene"]["label"])
    scene = re.sub(r"\.[a-zA-Z]{3,4}$", "", scene)  # of a file's name
    plain = re.sub(r"[^\w.-]+", "_", scene)[:_LONGEST_SCENE].strip("._")
    return "-".join(filter(None, (job.kind, plain)))


def kept_models(store: str) -> Tuple[int, int]:
    """Return how many models a store holds, and their bytes."""
    sizes = [path.stat().st_size for path in Path(store).glob("*.safetensors")]
    return len(sizes), sum(sizes)


def replace_text(path: str, text: str) -> None:
    """Write a text file under a temporary name, and put it in the place of an older one.

    Raises:
        OSError: it cannot be written; nothing is left, and the older file stays.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def describe(job: Job) -> str:
    """Return a job as one line of JSON, for the log (QGIS's shows no indentation)."""
    return json.dumps({"kind": job.kind, "job": to_plain(job)}, ensure_ascii=False)
