"""Finding the learning rate of a training by a range test on its own batches."""

from __future__ import annotations

from lightning_fabric import Fabric
from torch import nn

from ..models.cards import Card
from ..tasks.context import Context
from .augmentation import augmentation_of, augmented
from .denseparts import DenseRoles
from .loading import batches_of
from .optimising import find_learning_rate
from .rehearsal import Rehearsal
from .segmentationsettings import Settings

STEPS = 60


def search_rate(
    fabric: Fabric, network: nn.Module, card: Card, settings: Settings, roles: DenseRoles, context: Context
) -> float:
    """Return the learning rate that a range test finds; the network stays as it is.

    Every step takes another batch, as training would, with the recipe's optimiser.
    """
    trial = Rehearsal(fabric, network, card, settings)
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
        loss = trial.step(values, targets, rate)
        context.check()
        return float(loss)

    try:
        rate, _ = find_learning_rate(step, steps=STEPS)
    finally:
        flowing.close()
    own = settings.optimising.learning_rate
    context.log(f"The range test finds a learning rate of {rate:.2g}, in place of {own:g}.")
    return rate
