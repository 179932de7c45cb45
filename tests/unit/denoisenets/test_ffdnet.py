"""FFDNet's noise level, and its layers against cszn/KAIR."""

import pytest
import torch
from unit.small_networks import network, recorded, state_shapes


def test_layers_have_the_references_names_and_shapes() -> None:
    assert state_shapes("ffdnet", width=8, depth=3) == {
        "model.0.weight": (8, 13, 3, 3),
        "model.0.bias": (8,),
        "model.2.weight": (8, 8, 3, 3),
        "model.2.bias": (8,),
        "model.4.weight": (12, 8, 3, 3),
        "model.4.bias": (12,),
    }


def test_uses_the_noise_level_and_estimates_a_missing_one() -> None:
    """The noise level is a channel beside the sub-images; a missing one is estimated."""
    made = network("ffdnet")
    clean = torch.full((1, 3, 256, 256), 0.5)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noise_level = torch.full((1, 1, 1, 1), 0.1)
    with torch.no_grad():
        assert made.estimate_noise_level(noisy).item() == pytest.approx(0.1, rel=0.03)
        assert not torch.allclose(made(noisy, noise_level), made(noisy, 3 * noise_level))
        assert torch.allclose(made(noisy, made.estimate_noise_level(noisy)), made(noisy))
    inputs = recorded(made, noisy)
    assert inputs["model.0"].shape == (1, 13, 128, 128)
    assert torch.allclose(inputs["model.0"][:, 12], made.estimate_noise_level(noisy))
