"""How fast a runtime maps, found in a process of its own: what it takes of memory is given back whole.

The process is the engine's Python with ``run_worker.py trial FILE``; the request is a folder with a description and a
tile, the answer a file in it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess  # nosec B404 - fixed arguments, no shell
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np

from ...models.cards import read_card
from ...tasks.context import Context
from ...tasks.processes import start_process
from .base import Floats, Mask, Model, Wishes

if TYPE_CHECKING:
    from ..graphs import Graphs

RUN_WORKER = Path(__file__).resolve().parents[2] / "tasks" / "run_worker.py"
_REQUEST, _TILE, _ANSWER, _LOG = "request.json", "tile.npz", "answer.json", "log.txt"
_POLL_S = 0.1
_LONGEST_S = 300.0


@dataclass(frozen=True)
class _Request:
    """What is tried: ``module`` and ``name`` of the runtime's class in this package, and what it is made of."""

    module: str
    name: str
    model: str
    patch: str
    dense: Optional[str]
    reason: str
    wishes: Wishes
    threads: Optional[int]


def rate_apart(
    module: str, name: str, model: Model, graphs: Graphs, wishes: Wishes, values: Floats, wanted: Mask, context: Context
) -> float:  # fmt: skip
    """Return the million pixels per second of a runtime; 0 where it does not work on this machine, which is told.

    Args:
        module: with the runtime's class, which takes what `GraphRuntime` takes; in full.
        name: of the class.
        model: with a file.
        graphs: of the model.
        wishes: what the user said.
        values: of a tile, see `Runtime`.
        wanted: its wanted pixels.
        context: for the log, the threads and a folder; a cancel ends the process.
    """
    folder = Path(context.scratch("trial"))
    folder.mkdir(exist_ok=True)
    (folder / _ANSWER).unlink(missing_ok=True)
    dense = None if graphs.dense is None else str(graphs.dense)
    request = _Request(
        module, name, model.path, str(graphs.patch), dense, graphs.reason, wishes, context.threads()
    )  # fmt: skip
    (folder / _REQUEST).write_text(json.dumps(asdict(request)), encoding="utf-8")
    np.savez(folder / _TILE, values=values, wanted=wanted)
    with open(folder / _LOG, "wb") as log:
        # In the job's own group of processes: who ends the job ends it too.
        process = start_process(
            [sys.executable, RUN_WORKER, "trial", folder], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=False,
        )  # fmt: skip
        try:
            code = _waited(process, context)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    try:
        return float(json.loads((folder / _ANSWER).read_text(encoding="utf-8"))["rate"])
    except (OSError, ValueError, LookupError, TypeError):
        lines = (folder / _LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        context.log(f"{name} could not be tried: {lines[-1] if lines else f'its process ended with {code}'}.")
        return 0.0


def _waited(process: subprocess.Popen[bytes], context: Context) -> Optional[int]:
    """Return the exit code of a process; None where it takes too long. A cancel does not wait for it."""
    waited = 0.0
    while waited < _LONGEST_S:
        context.check()
        try:
            return process.wait(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            waited += _POLL_S
    return None


def main(folder: str) -> int:
    """Do what a request says; this is the other process."""
    from ..graphs import Graphs
    from .timing import rate_of

    plain = json.loads(Path(folder, _REQUEST).read_text(encoding="utf-8"))
    request = _Request(**{**plain, "wishes": Wishes(**plain["wishes"])})
    with np.load(Path(folder, _TILE), allow_pickle=False) as tile:
        values, wanted = tile["values"], tile["wanted"]
    context = _Threads(request.threads)
    graphs = Graphs(Path(request.patch), Path(request.dense) if request.dense else None, request.reason)
    make = getattr(importlib.import_module(request.module), request.name)
    model = Model(read_card(request.model), request.model)
    runtime = make(model, graphs, request.wishes, context, [(values, wanted)])
    part = Path(folder, f"{_ANSWER}.part")
    part.write_text(json.dumps({"rate": rate_of(runtime, values, wanted, context)}), encoding="utf-8")
    os.replace(part, Path(folder, _ANSWER))
    return 0


class _Threads(Context):
    """A job's context in another process: it knows its threads."""

    def __init__(self, threads: Optional[int]) -> None:
        super().__init__()
        self._own = threads

    def threads(self) -> Optional[int]:
        """Return them."""
        return self._own
