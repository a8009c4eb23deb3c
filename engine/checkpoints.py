"""The state of a training, kept beside its model until it is complete, so that the same job continues.

One ``.safetensors`` file: the tensors of network, best network and optimiser, and as JSON everything else. It is
replaced as a whole: what a crash leaves behind is the state before, never half of one.

A second file stands beside it where another job writes the same model: with one parameter changed and changed back,
neither of the two trainings is lost. There are never more than two, and none beside a model that is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..tasks.errors import BadInput
from ..tasks.jobfiles import input_paths
from ..tasks.jobs import Job
from ..tasks.protocol import plugin_version
from ..tasks.serial import to_plain
from .journal import input_state, without
from .keychanges import lasting_changes, training_changes
from .outputfiles import part_name, writing_error
from .wording import many

SUFFIX = ".state"
SECOND_SUFFIX = ".2.state"
_KEY = "deepscape-training"
# What the weights do not depend on: where they go, what messages call things, on what they are computed.
_NOT_IN_KEY = ("label", "resume", "report", "device_choice")


class Checkpoint:
    """The state file of one training.

    Attributes:
        path: the file.
        state: the plain values of what was saved last, here or by the interrupted training that continues; None
            where there is nothing of the kind.
    """

    def __init__(self, output: str, key: Mapping[str, Any]) -> None:
        """Look for the state of a training.

        Args:
            output: the model file that it will write.
            key: what the weights depend on (`training_key`).
        """
        self._places = (Path(output + SUFFIX), Path(output + SECOND_SUFFIX))
        self._key = json.loads(json.dumps(dict(key), default=str))
        there = sorted(filter(Path.is_file, self._places), key=lambda place: place.stat().st_mtime_ns)
        held = {place: _read(place) for place in there}  # the oldest first
        mine = next((place for place, data in held.items() if data and data["key"] == self._key), None)
        lasting = [place for place, data in held.items() if data and not lasting_changes(data["key"], self._key)]
        self._found = held[mine] if mine is not None else None
        self._told = () if mine else tuple(self._sentence(place, held[place], place in lasting[-1:]) for place in there)
        self.state: Optional[Dict[str, Any]] = self._found["state"] if self._found else None
        # The place of its own state, else one that is of no use, else that of the older of two trainings.
        free = [place for place in self._places if place not in lasting]
        self.path = mine or [*free, *lasting][0]

    def _sentence(self, place: Path, data: Optional[Mapping[str, Any]], stays: bool) -> str:
        """Return what there is to say of a file that is not of this job; it stays, or gives way to this one's."""
        if data is None:
            return f"'{place.name}' is damaged: its training is begun again."
        changed = ", ".join(training_changes(data["key"], self._key))
        text = f"An interrupted training of this model ({_epochs(data['state'])}) was of another job ({changed}): "
        if not stays:
            return f"{text}it gives way to this one, which begins anew."
        return (
            f"{text}this one begins anew. The other one is kept until a training of this model is complete: run it as "
            "it was to continue it."
        )

    def told(self) -> Tuple[str, ...]:
        """Return what there is to say of the states of other trainings; nothing where this one continues."""
        return self._told

    def kept(self) -> str:
        """Return how much of the training is kept, and what continues it; empty where there is nothing."""
        if self.state is None:
            return ""
        what, verb = _epochs(self.state), "are" if len(self.state["history"]) > 1 else "is"
        return f"{what[:1].upper()}{what[1:]} {verb} kept: run the same job again to continue."

    def load(self) -> Optional[Tuple[Dict[str, Any], Dict[str, Tensor]]]:
        """Return what was saved by an interrupted training of this job; None where there is none.

        Raises:
            BadInput: the file cannot be read.
        """
        if self._found is None:
            return None
        try:
            return self._found["state"], load_file(str(self.path))
        except (OSError, safetensors.SafetensorError) as error:
            raise BadInput(
                f"The interrupted training in '{self.path}' cannot be read: {error}.",
                "Remove the file: training then begins anew.",
            ) from error

    def save(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replace the file.

        Args:
            state: plain values; numbers keep every bit.
            tensors: by name.

        Raises:
            DiskFull: no room is left.
            BadInput: the folder cannot be written.
        """
        text = json.dumps({"key": self._key, "state": state})
        part = part_name(str(self.path))
        # Own memory for each: weights that two names share, or channels-last ones, cannot be written as they are.
        held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        try:
            save_file(held, part, {_KEY: text})
            os.replace(part, self.path)
        except (OSError, safetensors.SafetensorError) as error:
            failure = error if isinstance(error, OSError) else OSError(str(error))
            raise writing_error(str(self.path), failure) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(part)
        self.state = dict(state)

    def remove(self) -> None:
        """Remove the file, and the other one where there is one: a training of this model is complete."""
        for place in self._places:
            place.unlink(missing_ok=True)


def training_key(job: Job, facts: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what names a training: equal for jobs that end with the same weights.

    Args:
        job: where its outputs go does not count.
        facts: what the data says of itself: hashes of patch datasets, numbers of a raster's labels.
    """
    return {
        "job": {"kind": job.kind, **without(to_plain(job), (*_NOT_IN_KEY, *job.outputs))},
        # A folder is a patch dataset, whose content the data tells of.
        "files": {path: [] if os.path.isdir(path) else input_state(path) for path in input_paths(job)},
        "data": dict(facts),
        "versions": {"Deepscape": plugin_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def _read(place: Path) -> Optional[Dict[str, Any]]:
    """Return key and plain values of a state file; None where it is damaged, or of a version that had others."""
    try:
        with safetensors.safe_open(str(place), "pt") as file:
            data = json.loads((file.metadata() or {}).get(_KEY, "{}"))
        if isinstance(data["key"], dict) and {"history", "epochs"} <= set(data["state"]):
            return {"key": data["key"], "state": data["state"]}
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
        pass
    return None


def _epochs(state: Mapping[str, Any]) -> str:
    """Return how far a training is."""
    if not state["history"]:
        return f"the beginning of the first of {many(state['epochs'], 'epoch')}"
    return f"{len(state['history'])} of {many(state['epochs'], 'epoch')}"
