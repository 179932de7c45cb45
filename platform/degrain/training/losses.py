"""Losses between the network's output and the clean patch, both (B, 3, H, W) float32.

Each returns a scalar, the mean over patches, so that the loss of a batch is the mean of the losses
of its micro-batches, weighted by their sizes.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss, softplus

from degrain.imaging.metrics import structural_similarity
from degrain.training.config import Loss

_EPSILON = 1e-3
_DARKEST_ERROR = 1e-8
_SSIM_SHARE = 0.84


def charbonnier_loss(output: Tensor, clean: Tensor) -> Tensor:
    """Mean of sqrt(d^2 + 0.001^2), a smooth L1 (Charbonnier et al., ICIP 1994)."""
    return torch.sqrt((output - clean).square() + _EPSILON**2).mean()


def psnr_loss(output: Tensor, clean: Tensor) -> Tensor:
    """Mean over patches of minus the PSNR in dB (HINet, Chen et al., 2021, arXiv:2105.06086)."""
    errors = (output - clean).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(errors + _DARKEST_ERROR).mean()


def ssim_loss(output: Tensor, clean: Tensor) -> Tensor:
    """0.84 (1 - SSIM) + 0.16 L1, with single-scale SSIM.

    The weights are those of Zhao et al., 2017 (IEEE TCI 3(1), arXiv:1511.08861).
    """
    similarity = structural_similarity(output, clean).mean()
    return _SSIM_SHARE * (1 - similarity) + (1 - _SSIM_SHARE) * l1_loss(output, clean)


LOSS_FUNCTIONS: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse_loss,
    "l1": l1_loss,
    "charbonnier": charbonnier_loss,
    "psnr": psnr_loss,
    "ssim": ssim_loss,
}


def generator_loss(logits: Tensor) -> Tensor:
    """Mean of -log sigmoid(logits): the non-saturating loss of Goodfellow et al., 2014."""
    return softplus(-logits).mean()


def discriminator_loss(clean_logits: Tensor, output_logits: Tensor) -> Tensor:
    """Mean of the discriminator's binary cross-entropies over clean patches and over outputs."""
    return (softplus(-clean_logits).mean() + softplus(output_logits).mean()) / 2
