"""Optimisers and schedules whose state is plain numbers and tensors: a training continues to the bit."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Callable, ContextManager, Dict, List, Mapping, Optional, Tuple

import torch
from torch import Tensor, nn

from .averaging import AveragedWeights
from .muon import Muon, decay_groups


@dataclass(frozen=True)
class OptimiserSettings:
    """How weights are moved, and averaged; see `models.recipes.Preset` for the names."""

    optimizer: str = "adamw"
    schedule: str = "onecycle"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    momentum: float = 0.0
    factor: float = 0.1
    plateau: int = 5
    steps: Tuple[int, ...] = ()
    warm_up: float = 0.3
    averaging: float = 0.0


# A rise and fall that begins at 1/25 of the highest rate and ends at 1/10,000 of that (Smith, 2018).
_FIRST, _LAST = 25.0, 1e4


_AVERAGED = "averaged."


class Optimising:
    """An optimiser, its schedule, and the mean of the weights that it went through.

    Attributes:
        optimizer: torch's; not wrapped.
    """

    def __init__(self, network: nn.Module, settings: OptimiserSettings, steps: int, epochs: int) -> None:
        """Build them.

        Args:
            network: whose trained weights are moved.
            settings: what is built.
            steps: of an epoch.
            epochs: that the schedule is laid out for.
        """
        self._network, self._settings = network, settings
        self._average: Optional[AveragedWeights] = None
        self._total = max(steps * epochs, 1)
        self._step = self._epoch = self._waiting = 0
        self._best, self._scale = math.inf, 1.0
        self.optimizer = _optimizer(network, settings)
        self._set_rate()

    @property
    def rate(self) -> float:
        """Return the learning rate of the next step."""
        settings = self._settings
        if settings.schedule == "onecycle":
            return settings.learning_rate * _one_cycle(self._step, self._total, settings.warm_up)
        if settings.schedule == "cosine":
            return settings.learning_rate * _between(1.0, 0.0, min(self._step / self._total, 1.0))
        if settings.schedule == "steps":
            return settings.learning_rate * settings.factor ** sum(self._epoch >= end for end in settings.steps)
        return settings.learning_rate * self._scale

    def after_step(self) -> None:
        """Go on to the next step."""
        self._step += 1
        if self._settings.averaging:
            # Not before: then the network is where it is trained, and as it lies in memory there.
            self._average = self._average or self._new_average()
            self._average.after_step()
        self._set_rate()

    def after_epoch(self, loss: float) -> None:
        """Go on to the next epoch.

        Args:
            loss: the monitored one, of the validation part where there is one.
        """
        self._epoch += 1
        if self._settings.schedule == "plateau":
            # As torch's and Keras': "better" means by more than 1e-4 of the best.
            if loss < self._best * (1 - 1e-4):
                self._best, self._waiting = loss, 0
            else:
                self._waiting += 1
            if self._waiting > self._settings.plateau:
                self._scale *= self._settings.factor
                self._waiting = 0
        self._set_rate()

    def state(self) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        """Return all that a later `load` needs: numbers, and tensors by name."""
        numbers = {"step": self._step, "epoch": self._epoch, "waiting": self._waiting, "scale": self._scale}
        best = {} if math.isinf(self._best) else {"best": self._best}
        tensors = {}
        for number, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"{number}.{name}"] = torch.as_tensor(value).detach().clone()
        if self._average is not None:
            tensors.update({_AVERAGED + name: tensor for name, tensor in self._average.state().items()})
        return {**numbers, **best}, tensors

    def load(self, numbers: Mapping[str, float], tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        self._step, self._epoch = int(numbers["step"]), int(numbers["epoch"])
        self._waiting, self._scale = int(numbers["waiting"]), float(numbers["scale"])
        self._best = float(numbers.get("best", math.inf))
        averaged = {key.removeprefix(_AVERAGED): value for key, value in tensors.items() if key.startswith(_AVERAGED)}
        if averaged:
            self._average = self._new_average()
            self._average.load(averaged)
        parameters = self._parameters()
        for key, value in tensors.items():
            if key.startswith(_AVERAGED):
                continue
            number, _, name = key.partition(".")
            parameter = parameters[int(number)]
            # Counters stay on the CPU, as the optimisers have them.
            held = value if name == "step" else value.to(parameter.device)
            if held.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
                held = held.contiguous(memory_format=torch.channels_last)
            self.optimizer.state[parameter][name] = held.clone(memory_format=torch.preserve_format)
        self._set_rate()

    def averaged(self) -> ContextManager[None]:
        """Let the network have the mean of its weights for a time, where one is wanted."""
        return contextlib.nullcontext() if self._average is None else self._average.in_use()

    def keep_average(self) -> None:
        """Let the network keep the mean of its weights, where one is wanted."""
        if self._average is not None:
            self._average.give()

    def _new_average(self) -> AveragedWeights:
        return AveragedWeights(self._network, self._settings.averaging * self._total)

    def _parameters(self) -> List[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _set_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate


def _optimizer(network: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(decay_groups(trained, settings.weight_decay), lr=settings.learning_rate)
    if settings.optimizer == "muon":
        return Muon(trained, settings.learning_rate, settings.weight_decay)
    if settings.optimizer == "adam":
        return torch.optim.Adam(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        trained, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def _one_cycle(step: int, total: int, warm_up: float) -> float:
    """Return the share of the highest rate in a step: torch's OneCycleLR, with momentum left as it is."""
    top, last = warm_up * total - 1, total - 1
    if step < top:
        return _between(1 / _FIRST, 1.0, step / top)
    return _between(1.0, 1 / (_FIRST * _LAST), min((step - top) / max(last - top, 1e-9), 1.0))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


# --- the range test --------------------------------------------------------------------------------------------------

_DIVERGED = 4.0
_SMOOTHING = 0.7


def find_learning_rate(
    step: Callable[[float], float], lowest: float = 1e-6, highest: float = 1.0, steps: int = 60
) -> Tuple[float, List[Tuple[float, float]]]:
    """Return a good learning rate, and the curve that it was read from: (rate, smoothed loss).

    The rate rises by a constant factor from step to step; the one at which the smoothed loss falls most steeply is
    taken, and no more than a tenth of that at which it is smallest. The test ends where the loss has grown to four
    times its minimum (L. N. Smith, 2017 and 2018).

    Args:
        step: does one step at a rate and returns its loss.
        lowest: the first rate.
        highest: the last.
        steps: at most.
    """
    growth = (highest / lowest) ** (1 / max(steps - 1, 1))
    curve: List[Tuple[float, float]] = []
    mean, best = 0.0, math.inf
    for number in range(steps):
        rate = lowest * growth**number
        loss = step(rate)
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        smooth = mean / (1 - _SMOOTHING ** (number + 1))
        if not math.isfinite(smooth) or smooth > _DIVERGED * best:
            break
        best = min(best, smooth)
        curve.append((rate, smooth))
    if len(curve) < 3:
        return lowest, curve
    lowest_loss = min(range(len(curve)), key=lambda index: curve[index][1])
    falls = [curve[index + 1][1] - curve[index - 1][1] for index in range(1, len(curve) - 1)]
    steepest = 1 + min(range(len(falls)), key=falls.__getitem__)
    return min(curve[steepest][0], curve[lowest_loss][0] / 10), curve
