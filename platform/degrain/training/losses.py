"""Losses between the network's output and the clean patch, both (B, 3, H, W) float32; each gives a scalar."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from degrain.training.config import Loss

_EPSILON = 1e-3


def charbonnier_loss(output: Tensor, clean: Tensor) -> Tensor:
    """Mean of sqrt(d^2 + 0.001^2), a smooth L1 (Charbonnier et al., ICIP 1994)."""
    return torch.sqrt((output - clean).square() + _EPSILON**2).mean()


LOSS_FUNCTIONS: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse_loss,
    "l1": l1_loss,
    "charbonnier": charbonnier_loss,
}
