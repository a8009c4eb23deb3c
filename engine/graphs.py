"""The ONNX graphs of a model, which are made once and kept in the cache; torch is imported only to make them.

They are made when training ends, or when a model is first mapped with on this machine. A graph takes physical values
``values`` float32 ``(N, C, H, W)``, in which no-data was replaced by the bands' training means, and gives ``logits``
``(N, K, H', W')`` and ``classes`` uint8 or uint16 ``(N, H', W')``, positions in the model's class table. H' and W' are
1 for the patch graph, H - p + 1 and W - p + 1 for the dense graph of a patch network, and H and W for a network of one
class per pixel; of such a network with a finite margin H - 2 margin and W - 2 margin, where it has that form.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

from ..models.cards import Card
from ..tasks.context import Context
from ..tasks.environment.places import graphs_dir
from ..tasks.errors import BadInput, EngineSetupFailed
from .outputfiles import part_name

if TYPE_CHECKING:
    from torch import nn

    from .graphexport import Exported

# Part of the cache's key: another number where the graphs' content changes.
GRAPH_FORMAT = 9
MOST_FILES = 200
MOST_BYTES = 2 * 10**9
_CHUNK = 2**20


@dataclass(frozen=True)
class Graphs:
    """The graph files of a model.

    Attributes:
        patch: for patches; for a network of one class per pixel the same file as ``dense``.
        dense: for whole blocks; None where the network has no dense form.
        reason: a phrase that says why there is no dense graph.
        live: values that a network of one class per pixel holds at a time for each pixel of its window; None = not
            known.
        convolved: the dense graph as ONNX Runtime takes it, where that is another one.
    """

    patch: Path
    dense: Optional[Path] = None
    reason: str = ""
    live: Optional[float] = None
    convolved: Optional[Path] = None

    @classmethod
    def of(cls, files: Mapping[str, Path], reason: str, live: Optional[float]) -> Graphs:
        """Return the graphs of files by their form."""
        dense = files.get("dense")
        return cls(files.get("patch") or files["dense"], dense, reason, live, files.get("convolved"))


def graphs_of(path: str, card: Card, context: Context) -> Graphs:
    """Return the graphs of a model file, made where the cache lacks them.

    Args:
        path: the model file.
        card: its card.
        context: for the log, and for a folder where the cache cannot be written.

    Raises:
        BadInput: the model file cannot be read, holds no network, or torch cannot write it as a graph.
    """
    key = _key(path, card)
    folder = _cache_folder()
    found = _kept(folder, key) if folder else None
    if found is not None:
        return found
    context.log(
        "The network's graphs are made, which takes some seconds and a few hundred megabytes of memory beside what the "
        "job is told to take; they are kept for the next time."
    )
    from .modelfiles import load_model

    module = load_model(path).module
    if module is None:
        raise BadInput(f"The model '{path}' holds no network.", "Choose a model of a network.")
    return _made(module, card, key, context)


def export_graphs(module: nn.Module, card: Card, model_path: str, context: Context) -> None:
    """Make the graphs of a model that was just saved, so that mapping with it need not; never fails.

    Args:
        module: its network; stays as it is.
        card: its card.
        model_path: the model file, complete.
        context: for the log.
    """
    try:
        key, folder = _key(model_path, card), _cache_folder()
        if folder is None or _kept(folder, key) is None:
            _made(module, card, key, context)
    except Exception as error:  # the training is done and saved: what could not be made now is made when mapping
        context.log(f"The network's graphs could not be made now ({error}); mapping will try again.")


# --- the cache -------------------------------------------------------------------------------------------------------


def _key(path: str, card: Card) -> str:
    """Return what names a model's graphs: a hash of its file and of what the graphs' content depends on.

    The margins are cut within the graph, and a job may ask for others than the file's card tells (OVERLAP).
    """
    digest = hashlib.sha256(f"graphs {GRAPH_FORMAT}\n".encode())
    if card.output == "pixels":
        digest.update(f"{card.context} {card.margin}\n".encode())
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise BadInput(f"The model '{path}' cannot be read: {error.strerror}.", "Choose a model file.") from error
    return digest.hexdigest()[:32]


def _cache_folder() -> Optional[Path]:
    """Return the cache's folder, or None where it cannot be made."""
    try:
        return graphs_dir()
    except EngineSetupFailed:
        return None


def _kept(folder: Path, key: str) -> Optional[Graphs]:
    """Return a model's graphs where the cache holds all of them, undamaged."""
    try:
        index = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        files = {form: folder / name for form, name in index["files"].items()}
        if any(file.name != _name(key, form, file.read_bytes()) for form, file in files.items()):
            return None
        found = Graphs.of(files, str(index["reason"]), index["live"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    # What was used last is kept longest. Access times are not kept everywhere.
    with contextlib.suppress(OSError):
        os.utime(folder / f"{key}.json")
    return found


def _made(module: nn.Module, card: Card, key: str, context: Context) -> Graphs:
    """Make the graphs, in the cache, or in the job's scratch folder where the cache cannot be written."""
    from .graphexport import export_network

    exported = export_network(module, card, context)
    folder = _cache_folder()
    if folder is not None:
        try:
            found = _written(exported, folder, key)
        except OSError as error:
            context.log(f"The network's graphs cannot be kept in '{folder}' ({error.strerror or error}).")
        else:
            _prune(folder, key)
            return found
    scratch = Path(context.scratch("graphs"))
    scratch.mkdir(exist_ok=True)
    return _written(exported, scratch, key)


def _written(exported: Exported, folder: Path, key: str) -> Graphs:
    """Write the graphs and, last, the index that makes them count."""
    files: Dict[str, Path] = {}
    for form in ("patch", "dense", "convolved"):
        content = getattr(exported, form)
        if content is not None:
            files[form] = folder / _name(key, form, content)
            _write(files[form], content)
    names = {form: file.name for form, file in files.items()}
    index: Dict[str, Any] = {
        "format": GRAPH_FORMAT, "reason": exported.reason, "live": exported.live, "files": names,
    }  # fmt: skip
    _write(folder / f"{key}.json", json.dumps(index).encode())
    return Graphs.of(files, exported.reason, exported.live)


def _write(path: Path, content: bytes) -> None:
    """Write a file under a temporary name; processes that write the same do not meet."""
    part = part_name(str(path))
    try:
        Path(part).write_bytes(content)
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)


def _name(key: str, form: str, content: bytes) -> str:
    """Return a graph's file name, which holds its checksum: the exporter may write the same graph in several ways."""
    return f"{key}-{form}-{hashlib.sha256(content).hexdigest()[:16]}.onnx"


def _prune(folder: Path, newest: str) -> None:
    """Remove the graphs that were not used for longest, so that the cache stays small."""
    models: Dict[str, List[os.DirEntry[str]]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            # A model's files begin with its key: the index, the graphs, and what runtimes measured of them.
            models.setdefault(entry.name.lstrip(".").split(".")[0].split("-")[0], []).append(entry)
    with contextlib.suppress(FileNotFoundError):  # another process removes them too
        used = {key: max(entry.stat().st_mtime for entry in files) for key, files in models.items()}
        sizes = {key: sum(entry.stat().st_size for entry in files) for key, files in models.items()}
        count, size = sum(map(len, models.values())), sum(sizes.values())
        for key in sorted(set(models) - {newest}, key=lambda each: used[each]):
            if count <= MOST_FILES and size <= MOST_BYTES:
                break
            for entry in models[key]:
                # Windows keeps files that another process has open.
                with contextlib.suppress(PermissionError):
                    os.remove(entry.path)
            count, size = count - len(models[key]), size - sizes[key]
