"""Losses against their formulas and scikit-image."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from degrain.training.config import LOSSES, Loss
from degrain.training.losses import LOSS_FUNCTIONS


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("mse", lambda d: np.mean(d**2)),
        ("l1", lambda d: np.mean(np.abs(d))),
        ("charbonnier", lambda d: np.mean(np.sqrt(d**2 + 0.001**2))),
        ("psnr", lambda d: np.mean([10 * np.log10(np.mean(e**2)) for e in d])),
    ],
)
def test_losses_equal_their_formulas(
    name: Loss, formula: Callable[[NDArray[np.float64]], float]
) -> None:
    random = np.random.default_rng(0)
    output, clean = random.random((2, 2, 3, 5, 7), dtype=np.float32)
    got = LOSS_FUNCTIONS[name](torch.from_numpy(output), torch.from_numpy(clean))
    assert got.shape == ()
    assert got.item() == pytest.approx(formula(output.astype(np.float64) - clean), rel=1e-6)


def test_ssim_loss_equals_the_weighted_sum_of_scikit_image_ssim_and_l1() -> None:
    random = np.random.default_rng(0)
    clean = random.random((2, 3, 16, 17))
    output = clean + random.normal(0, 0.1, clean.shape)
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1,
        "channel_axis": 0,
    }
    similarity = [
        structural_similarity(a, b, full=True, **options)[1][:, 5:-5, 5:-5].mean()
        for a, b in zip(output, clean, strict=True)
    ]
    expected = 0.84 * (1 - np.mean(similarity)) + 0.16 * np.abs(output - clean).mean()
    got = LOSS_FUNCTIONS["ssim"](torch.from_numpy(output).float(), torch.from_numpy(clean).float())
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_every_loss_has_a_function() -> None:
    assert set(LOSS_FUNCTIONS) == set(LOSSES)
