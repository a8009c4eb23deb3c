"""Model files: weights (or a forest's node arrays) and the card in one ``.safetensors``; no pickle.

A forest is loaded with numpy alone, a network with torch; scikit-learn and Lightning are for training only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from ..models.cards import CARD_KEY, Card, read_card
from ..tasks.errors import BadInput
from .nodearrays import Forest, forest_from_tensors
from .outputfiles import part_name, writing_error

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]
SUFFIX = ".safetensors"
# In the file's metadata: what `_checksum` gives. Files of earlier versions have none.
CHECKSUM_KEY = "deepscape.checksum"
_AGAIN = "Train the model again, or copy the file again from its source."


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to be applied: exactly one of module and forest is set.

    Attributes:
        card: what the model says of itself.
        module: the network on the CPU, in evaluation mode.
        forest: the forest.
    """

    card: Card
    module: Optional[nn.Module] = None
    forest: Optional[Forest] = None


def with_suffix(path: str) -> str:
    """Return the path with the suffix of model files, added where it is missing."""
    return path if path.lower().endswith(SUFFIX) else path + SUFFIX


def save_model(path: str, card: Card, tensors: Mapping[str, Array]) -> None:
    """Write a model file under a temporary name, and give it its own name when it is complete.

    Raises:
        DiskFull: no room left.
        BadInput: the folder does not exist or cannot be written.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    data = safetensors.numpy.save(arrays, metadata={CARD_KEY: card.to_json(), CHECKSUM_KEY: _checksum(arrays)})
    part = part_name(path)
    try:
        with open(part, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError as error:
        raise writing_error(path, error) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)


def _checksum(tensors: Mapping[str, Array]) -> str:
    """Return a hash of arrays and their names: a weight that changed on its way maps without an error, and wrongly."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()[:32]


def module_tensors(module: nn.Module) -> Dict[str, Array]:
    """Return the weights and buffers of a network as arrays, as they are saved."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}


def load_model(path: str) -> LoadedModel:
    """Load a model file.

    Raises:
        BadInput: the file is missing or damaged, or its arrays do not fit its card.
    """
    card = read_card(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            noted = (file.metadata() or {}).get(CHECKSUM_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        raise BadInput(f"The model '{path}' is damaged: {error}.", _AGAIN) from error
    if noted is not None and noted != _checksum(tensors):
        raise BadInput(f"The model '{path}' is damaged: its weights are not those that were saved.", _AGAIN)
    if not card.sources or not card.classes:
        raise BadInput(f"The model card of '{path}' names no bands or no classes.", _AGAIN)
    try:
        if card.kind == "forest":
            return LoadedModel(card, forest=_forest(card, tensors))
        return LoadedModel(card, module=_module(card, tensors))
    except BadInput as error:
        raise BadInput(f"The model '{path}' cannot be used: {error.message}", error.remedy) from error


def _forest(card: Card, tensors: Mapping[str, Array]) -> Forest:
    kind = card.arguments.get("features", "pixel")
    bands = len(card.sources[0].bands)
    return forest_from_tensors(tensors, bands * (3 if kind == "window" else 1), len(card.classes))


def _module(card: Card, tensors: Mapping[str, Array]) -> nn.Module:
    import torch

    from ..models.build import build_network

    source = card.sources[0]
    # The random initial weights are replaced at once: they must not draw from the caller's generator.
    with torch.random.fork_rng(devices=[]):
        try:
            module = build_network(
                card.network, len(source.bands), len(card.classes), source.patch_size, card.arguments, card.binary
            )
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadInput(f"the arguments of '{card.network}' in its card are wrong: {error}.", _AGAIN) from error
    wanted = module.state_dict()
    for name in sorted(set(wanted) ^ set(tensors)):
        raise BadInput(f"the array '{name}' is {'missing' if name in wanted else 'of another network'}.", _AGAIN)
    for name, tensor in wanted.items():
        if tuple(tensor.shape) != tensors[name].shape:
            shape = " x ".join(map(str, tensors[name].shape))
            raise BadInput(f"the array '{name}' has the shape {shape}, which does not fit its card.", _AGAIN)
    # A copy: arrays of the file are read-only, which torch does not know of.
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})
    return module.eval()
