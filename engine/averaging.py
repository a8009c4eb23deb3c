"""The mean of a network's weights over the steps of a training."""

from __future__ import annotations

import contextlib
import copy
from typing import Dict, Iterator, Mapping, Sequence, Union

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class AveragedWeights:
    """The mean of a network's weights, and of its normalisations' numbers, over steps: the latest weigh most.

    The weights of a network that learns from few samples are another at every step, and each errs in its own way; their
    mean lies between them, where the loss is flatter, and errs less (P. Izmailov et al., Averaging Weights Leads to
    Wider Optima and Better Generalization, 2018; exponentially weighted as in A. Tarvainen and H. Valpola, 2017).
    """

    def __init__(self, network: nn.Module, horizon: float) -> None:
        """Begin with nothing.

        Args:
            network: whose weights are averaged; moved by others.
            horizon: steps after which a step weighs 1/e of the latest.
        """
        self._network = network
        self._decay = 1 - 1 / max(horizon, 1.0)
        self._averaged = AveragedModel(network, multi_avg_fn=self._mix, use_buffers=True)

    def _mix(self, means: Sequence[Tensor], values: Sequence[Tensor], steps: Union[Tensor, int]) -> None:
        # The weights of all steps add up to 1 from the first on: what the network began with leaves no trace.
        share = (1 - self._decay) / (1 - self._decay ** (int(steps) + 1))
        for mean, value in zip(means, values):
            if mean.is_floating_point():
                mean.lerp_(value, share)
            else:  # counters
                mean.copy_(value)

    def after_step(self) -> None:
        """Take the network's weights into the mean."""
        self._averaged.update_parameters(self._network)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the network have the mean for a time."""
        own = copy.deepcopy(self._network.state_dict())
        self.give()
        try:
            yield
        finally:
            self._network.load_state_dict(own)

    def give(self) -> None:
        """Let the network have the mean; the weights of its latest step are lost."""
        self._network.load_state_dict(self._averaged.module.state_dict())

    def state(self) -> Dict[str, Tensor]:
        """Return all that a later `load` needs."""
        return {name: tensor.clone() for name, tensor in self._averaged.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        self._averaged.load_state_dict(dict(tensors))
