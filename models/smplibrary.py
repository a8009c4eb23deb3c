"""The package segmentation-models-pytorch, imported with what it needs of torchvision."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch

from ..tasks.errors import BadInput

_SCHEMAS = ("nms", "qnms")


@functools.cache
def library() -> Any:
    """Return the module segmentation_models_pytorch.

    The package index has torchvision's compiled operators for another build of torch than the engine may have: then
    they do not load, and torchvision is not imported for want of two operators that no network here calls. Their
    schemas are declared in their place; where the operators load nothing is done.

    Raises:
        BadInput: it cannot be imported; says why.
    """
    _declare_operators()
    try:
        return importlib.import_module("segmentation_models_pytorch")
    except (ImportError, RuntimeError, OSError) as error:
        raise BadInput(
            f"The packages of the smp networks cannot be imported: {error}.",
            "Choose another network, or repair the engine in the settings.",
        ) from error


@functools.cache
def _declare_operators() -> Any:
    """Declare torchvision's operators where it has none; return what keeps the declaration alive."""
    operators: Any = torch.ops
    operator_library: Any = torch.library
    found = importlib.util.find_spec("torchvision")  # does not import it
    folder = Path(str(found.origin)).parent if found and found.origin else None
    # As torchvision does it itself.
    for file in sorted(folder.glob("_C*")) if folder else ():
        with contextlib.suppress(OSError):
            operators.load_library(file)
    declared = operator_library.Library("torchvision", "FRAGMENT")
    for name in _SCHEMAS:
        if not hasattr(operators.torchvision, name):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return declared
