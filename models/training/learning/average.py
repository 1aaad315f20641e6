"""An exponential moving average of what trains: steadier than where the last step happens to be."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.training.learning.sharding import share_of


class Average:
    """Of `weights`, with `decay`; with 0 it is the weights themselves.

    Among the first steps it forgets sooner, or it would long remember where they began.
    """

    def __init__(self, weights: Sequence[nn.Parameter], decay: float):
        self.weights, self.on = list(weights), decay > 0

        def mean(old: Tensor, new: Tensor, steps: Tensor | int) -> Tensor:
            return old.lerp(new, 1 - min(decay, (int(steps) + 1) / (int(steps) + 10)))

        if self.on:
            self.kept = AveragedModel(nn.ParameterList(self.weights), avg_fn=mean)

    def update(self) -> None:
        """After every step of the optimiser."""
        if self.on:
            self.kept.update_parameters(nn.ParameterList(self.weights))

    @contextmanager
    def in_place(self) -> Iterator[list[Tensor]]:
        """Within it, the weights are the average, where there is one; it gives what they are
        else."""
        if not self.on:
            yield []
            return
        own = [weight.detach().clone() for weight in self.weights]
        self._set(list(self.kept.module.parameters()))
        yield own
        self._set(own)

    @property
    def updates(self) -> int:
        """How many it is of."""
        return int(self.kept.n_averaged) if self.on else 0

    def restore(self, own: Sequence[Tensor], updates: int) -> None:
        """From a checkpoint whose average is in place already: what the weights were, and of how
        many updates it is."""
        self.kept.n_averaged.fill_(updates)
        self._set([share_of(*each) for each in zip(own, self.weights, strict=True)])

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        for weight, value in zip(self.weights, values, strict=True):
            weight.copy_(value)
