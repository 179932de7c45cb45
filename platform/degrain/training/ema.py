"""An exponential moving average of a network's weights, used for validation and stored."""

import copy

import torch
from torch import nn


class WeightAverage:
    """Updates average = decay * average + (1 - decay) * weights after each step.

    The decay is at most (1 + step) / (10 + step), so that the random initial weights fade quickly.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int, decay: float) -> None:
        """Update the average with the weights after optimizer step `step` (from 1)."""
        weight = 1 - min(decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), weight)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
