"""Steps that a training tries out beforehand, on a copy of its network that is thrown away."""

from __future__ import annotations

import copy

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..models.cards import Card
from .losses import loss_function
from .optimising import Optimising
from .segmentationsettings import Settings


class Rehearsal:
    """A copy of a network and the recipe's optimiser; the network itself stays as it is."""

    def __init__(self, fabric: Fabric, network: nn.Module, card: Card, settings: Settings) -> None:
        """Copy the network to the training's device."""
        self._fabric = fabric
        self._network = copy.deepcopy(network).to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network.train()
        self._optimizer = Optimising(self._network, settings.optimising, 1, 1).optimizer
        self._loss = loss_function(settings.loss, len(card.classes), None, settings.binary)

    def step(self, values: Tensor, targets: Tensor, rate: float = 0.0) -> Tensor:
        """Do one step of training; returns its loss.

        Args:
            values: standardised ``(N, C, p, p)``.
            targets: class positions ``(N, p, p)``.
            rate: learning rate.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        with self._fabric.autocast():
            logits = self._network(values.to(self._fabric.device, memory_format=torch.channels_last))
        loss = self._loss(logits.float(), targets.to(self._fabric.device))
        self._fabric.backward(loss)
        self._optimizer.step()
        return loss.detach()
