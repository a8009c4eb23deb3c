"""From an entry of the registry to a torch module."""

from __future__ import annotations

import importlib
from typing import Any, Mapping, Type

from torch import nn

from ..tasks.errors import BadInput
from .registry import network_entry
from .two_classes import TwoClasses


def network_class(network: str) -> Type[nn.Module]:
    """Return the class that the registry names for a network.

    Raises:
        BadInput: there is no such network; lists the valid ones.
    """
    module, _, name = network_entry(network).target.partition(":")
    package = __name__.rpartition(".models.")[0]
    found: Type[nn.Module] = getattr(importlib.import_module(f"{package}.{module}"), name)
    return found


def build_network(
    network: str, bands: int, classes: int, patch_size: int, arguments: Mapping[str, Any] = {}, binary: bool = False
) -> nn.Module:
    """Build a network of the registry; its weights are random, from torch's current generator.

    Args:
        network: id in the registry.
        bands: input channels.
        classes: outputs.
        patch_size: pixels on a side; a pixel network takes images of any size and needs none.
        arguments: constructor arguments that differ from the registry's defaults.
        binary: give the network one logit for its two classes.

    Raises:
        BadInput: the network or an argument is unknown, or the patch is too small; names the valid ones.
    """
    entry = network_entry(network)
    unknown = sorted(set(arguments) - set(entry.arguments))
    if unknown:
        valid = ", ".join(entry.arguments) or "none"
        raise BadInput(f"The network '{network}' has no argument '{unknown[0]}'.", f"Its arguments: {valid}.")
    size = () if entry.output == "pixels" else (patch_size,)
    build = network_class(network)
    settings = {**entry.arguments, **arguments}
    return TwoClasses(build(bands, 1, *size, **settings)) if binary else build(bands, classes, *size, **settings)


def parameter_count(module: nn.Module) -> int:
    """Return the number of parameters that training sets, by steps or once before them."""
    return sum(parameter.numel() for parameter in module.parameters())
