"""How long a training will take: three batches are timed before it begins."""

from __future__ import annotations

import math
import time
from typing import Any, Callable, List, Optional

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..models.build import build_network
from ..models.cards import Card
from ..models.registry import network_entry
from ..tasks.context import Context
from .denseparts import DenseRoles
from .loading import batches_of
from .rehearsal import Rehearsal
from .segmentationsettings import Settings
from .wording import duration

TIMED = 3
_LEAST_S = 1.5  # of timed batches; where they are quick, more than three
_MOST_TIMED = 20
LONG_S = 3600.0
# The compact network that a long training is compared with.
_COMPACT, _COMPACT_ARGUMENTS = "unet", {"width": 16}


def tell_time(
    fabric: Fabric, network: nn.Module, card: Card, settings: Settings, roles: DenseRoles, context: Context
) -> float:
    """Time some batches, tell how long the training takes at most, and return that in seconds.

    Of a training of more than an hour it is also told how long a compact U-Net would take, and how to run the job
    elsewhere. The network stays as it is.
    """
    values, targets = _one_batch(card, settings, roles, context)
    step = _step_s(fabric, network, card, settings, values, targets, context)
    look = _look_s(fabric, network, values, context)
    windows = 0 if roles.validation is None else len(roles.validation)
    epoch = math.ceil(len(roles.training) / settings.batch_size) * step + windows / settings.batch_size * look
    seconds = epoch * settings.epochs
    epochs = "1 epoch takes" if settings.epochs == 1 else f"{settings.epochs} epochs take"
    text = f"{epochs} about {duration(seconds)} on this computer"
    if settings.patience and roles.validation is not None:
        text += ", less where the best epoch comes early"
    if seconds > LONG_S:
        bands, classes = len(card.sources[0].bands), len(card.classes)
        compact = build_network(_COMPACT, bands, classes, 0, _COMPACT_ARGUMENTS)
        other = _step_s(fabric, compact, card, settings, values, targets, context) / step * seconds
        title = network_entry(_COMPACT).title
        if other < seconds / 2:
            text += f"; a compact {title} (width 16) would take about {duration(other)}"
        text += "; or run the job file elsewhere with 'deepscape run'"
    context.log(text + ".")
    return seconds


def _one_batch(card: Card, settings: Settings, roles: DenseRoles, context: Context) -> Any:
    numbers = list(range(min(settings.batch_size, len(roles.training))))
    return next(iter(batches_of(roles.training, card, [(0, numbers)], 1, None, settings.seed, context)))


def _step_s(
    fabric: Fabric, network: nn.Module, card: Card, settings: Settings, values: Tensor, targets: Tensor,
    context: Context,
) -> float:  # fmt: skip
    """Return the seconds of one step: forward, backward and the optimiser's."""
    trial = Rehearsal(fabric, network, card, settings)
    values, targets = values.to(fabric.device), targets.to(fabric.device)
    return _timed(lambda: trial.step(values, targets), fabric.device, context)


@torch.no_grad()
def _look_s(fabric: Fabric, network: nn.Module, values: Tensor, context: Context) -> float:
    """Return the seconds of evaluating one batch."""
    was = network.training
    network.to(fabric.device).eval()
    values = values.to(fabric.device, memory_format=torch.channels_last)

    def look() -> None:
        with fabric.autocast():
            network(values)

    seconds = _timed(look, fabric.device, context)
    network.train(was)
    return seconds


def _timed(work: Callable[[], Any], device: torch.device, context: Context) -> float:
    """Return the median seconds of some runs, after one that warms up."""
    found: List[float] = []
    first: Optional[float] = None
    while first is None or len(found) < TIMED or (sum(found) < _LEAST_S and len(found) < _MOST_TIMED):
        context.check()
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
        if first is None:
            first = seconds
        else:
            found.append(seconds)
    return float(np.median(found))
