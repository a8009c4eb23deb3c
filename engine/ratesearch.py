"""Finding the learning rate of a training by a range test on its own batches."""

from __future__ import annotations

import copy

import torch
from lightning_fabric import Fabric
from torch import nn

from ..models.cards import Card
from ..tasks.context import Context
from .augmentation import augmentation_of, augmented
from .denseparts import DenseRoles
from .loading import batches_of
from .losses import loss_function
from .optimising import Optimising, find_learning_rate
from .segmentationsettings import Settings

STEPS = 60


def search_rate(
    fabric: Fabric, network: nn.Module, card: Card, settings: Settings, roles: DenseRoles, context: Context
) -> float:
    """Return the learning rate that a range test finds; the network stays as it is.

    Every step takes another batch, as training would, with the recipe's optimiser.
    """
    trial = copy.deepcopy(network).to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trial.train()
    optimizer = Optimising(trial, settings.optimising, STEPS, 1).optimizer
    loss_of = loss_function(settings.loss, len(card.classes), None, settings.binary)
    size, count = settings.batch_size, len(roles.training)
    plan = [(step, [(step * size + place) % count for place in range(size)]) for step in range(STEPS)]
    kind = augmentation_of(settings.augmentation)
    # Epoch 0 is one that no training has.
    flowing = batches_of(
        roles.training, card, plan, 0, lambda values, targets, generator: augmented(values, targets, kind, generator),
        settings.seed, context,
    )  # fmt: skip

    def step(rate: float) -> float:
        values, targets = next(flowing)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        with fabric.autocast():
            logits = trial(values.to(fabric.device, memory_format=torch.channels_last))
        loss = loss_of(logits.float(), targets.to(fabric.device))
        fabric.backward(loss)
        optimizer.step()
        context.check()
        return float(loss.detach())

    try:
        rate, _ = find_learning_rate(step, steps=STEPS)
    finally:
        flowing.close()
    own = settings.optimising.learning_rate
    context.log(f"The range test finds a learning rate of {rate:.2g}, in place of {own:g}.")
    return rate
