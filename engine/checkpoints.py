"""The state of a training, kept beside its model until it is complete, so that the same job continues.

One ``.safetensors`` file: the tensors of network, best network and optimiser, and as JSON everything else. It is
replaced as a whole: what a crash leaves behind is the state before, never half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..tasks.jobfiles import input_paths
from ..tasks.jobs import Job
from ..tasks.protocol import plugin_version
from ..tasks.serial import to_plain
from .journal import input_state, without
from .rasters import part_name, writing_error

SUFFIX = ".state"
_KEY = "deepscape-training"
# What the weights do not depend on: where they go, what messages call things, on what they are computed.
_NOT_IN_KEY = ("label", "resume", "report", "device_choice")


class Checkpoint:
    """The state file of one training.

    Attributes:
        path: the file.
        changed: a file of another training was found: other data, other parameters or another version.
    """

    def __init__(self, output: str, key: str) -> None:
        """Name the state of a training.

        Args:
            output: the model file that it will write.
            key: what the weights depend on (`training_key`).
        """
        self.path = Path(output + SUFFIX)
        self.changed = False
        self._key = key

    def load(self) -> Optional[Tuple[Dict[str, Any], Dict[str, Tensor]]]:
        """Return what was saved, or None: there is nothing, it is damaged, or of another training."""
        if not self.path.is_file():
            return None
        try:
            with safetensors.safe_open(str(self.path), "pt") as file:
                data = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            if data.get("key") != self._key:
                self.changed = True
                return None
            return data["state"], load_file(str(self.path))
        except (OSError, ValueError, KeyError, safetensors.SafetensorError):
            self.changed = True
            return None

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

    def remove(self) -> None:
        """Remove the file: the training is complete."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def training_key(job: Job, facts: Mapping[str, Any]) -> str:
    """Return what names a training: equal for jobs that end with the same weights.

    Args:
        job: where its outputs go does not count.
        facts: what the data says of itself: hashes of patch datasets, numbers of a raster's labels.
    """
    plain = without(to_plain(job), (*_NOT_IN_KEY, *job.outputs))
    # A folder is a patch dataset, whose content the data tells of.
    files = [[path, [] if os.path.isdir(path) else input_state(path)] for path in input_paths(job)]
    versions = [plugin_version(), torch.__version__, np.__version__]
    text = json.dumps([job.kind, plain, files, facts, versions], sort_keys=True, default=str)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
