"""Encoders that start from weights which were learned from photographs, where this machine can fetch them.

Building a network never fetches: a model that is loaded has all its weights. `start_pretrained` is a step of training.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from .smplibrary import library
from .two_classes import TwoClasses

_TIMEOUT_S = 5.0


class UnavailableError(Exception):
    """Weights cannot be had; the message is a phrase that says why."""


def start_pretrained(network: nn.Module, log: Callable[[str], None], warn: Callable[[str], None]) -> bool:
    """Give a new network's encoder its pretrained weights, where it was built with ``pretrained``.

    What cannot be fetched is warned of in one sentence, and the start stays random.

    Args:
        network: as `build_network` returns it, before training.
        log: gets the sentence where there are weights.
        warn: gets it where there are none.

    Returns:
        Whether the weights are pretrained.
    """
    inner = network.network if isinstance(network, TwoClasses) else network
    load: Any = getattr(inner, "load_pretrained", None)
    if load is None or not getattr(inner, "pretrained", False):
        return False
    try:
        source = load()
    except UnavailableError as error:
        warn(f"The encoder's pretrained weights cannot be had ({error}): training starts from random weights.")
        return False
    log(f"The encoder starts from weights that were learned from photographs ({source}).")
    return True


def fetched(repository: str, revision: Optional[str], name: str = "model.safetensors") -> str:
    """Return the path of a file of the Hugging Face Hub, from its cache or else downloaded.

    Raises:
        UnavailableError: it is not in the cache, and the hub cannot be reached within some seconds.
    """
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return huggingface_hub.hf_hub_download(repository, name, revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        pass
    try:
        # The library itself would try six times. Any answer will do.
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S)
        return huggingface_hub.hf_hub_download(repository, name, revision=revision, etag_timeout=_TIMEOUT_S)
    except Exception as error:  # of its network library, of the hub, of the disk: training goes on without
        raise UnavailableError(f"'{repository}' cannot be downloaded: {_first_line(error)}") from error


def pretrained_file(encoder: str) -> Tuple[Dict[str, Tensor], str]:
    """Return the weights of an encoder of segmentation-models-pytorch, and the name of their repository.

    Raises:
        UnavailableError: they cannot be had.
    """
    from safetensors.torch import load_file

    settings = library().encoders.encoders[encoder]["pretrained_settings"].get("imagenet")
    if settings is None:
        raise UnavailableError(f"there are none for '{encoder}'")
    path = fetched(settings["repo_id"], settings["revision"])
    return load_file(path), settings["repo_id"]


def conv_layers(module: nn.Module) -> List[nn.Conv2d]:
    """Return a module's convolutions in the order of their definition."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def start_convolutions(layers: List[nn.Conv2d], weights: Dict[str, Tensor]) -> None:
    """Give convolutions the weights of those of VGG16, in their order; the first for any number of bands.

    Args:
        layers: convolutions with biases.
        weights: name (``features.NUMBER.weight``) to array, normalisations between them.
    """
    names = [name for name, array in weights.items() if array.ndim == 4]
    names.sort(key=lambda name: int(name.split(".")[1]))
    with torch.no_grad():
        for layer, name in zip(layers, names, strict=True):
            layer.weight.copy_(for_bands(weights[name], layer.in_channels))
            if layer.bias is not None:
                layer.bias.copy_(weights[name.replace("weight", "bias")])


def for_bands(weight: Tensor, bands: int) -> Tensor:
    """Return the weights ``(K, bands, h, w)`` of a first convolution for another number of bands than its own.

    The bands take red, green and blue in turn, and the sum over bands keeps its size; a single band takes their sum,
    as if it were a grey photograph. As segmentation-models-pytorch does it.
    """
    own = weight.shape[1]
    if own == bands:
        return weight
    if bands == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, [band % own for band in range(bands)]] * (own / bands)


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"^\[Errno -?\d+\] ", "", text)
