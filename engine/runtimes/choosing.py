"""Which runtime maps: what the user wished, what the model is, what is installed, and which is the fastest here."""

from __future__ import annotations

from typing import Iterable, Tuple

from ...tasks.context import Context
from .base import Floats, Mask, Model, Runtime, Wishes


def create_runtime(
    model: Model, wishes: Wishes, context: Context, tiles: Iterable[Tuple[Floats, Mask]] = (), pixels: int = 0
) -> Runtime:
    """Return the runtime for a model.

    Args:
        model: what is to be mapped with; its weights are read only where the runtime needs them.
        wishes: what the user said about it.
        context: for the log, and asked between batches whether the job was cancelled.
        tiles: values and wanted pixels (see `Runtime`) of the scene's first tiles, with the margins of `geometry_of`;
            read one by one, as many as are needed to compare the forms of the network, and to time runtimes.
        pixels: that are to be mapped, for the estimate of the time that it takes.
    """
    if model.card.kind == "forest":
        from .forest import ForestRuntime

        return ForestRuntime(model, context)
    from .torch_runtime import TorchRuntime, choose_device

    return TorchRuntime(model, choose_device(wishes.device, context), wishes, context, tiles)
