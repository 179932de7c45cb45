"""DRUNet's noise level, and its layers against cszn/KAIR."""

import pytest
import torch
from unit.small_networks import network, recorded, state_shapes

from denoisenets import create_model, use_local_statistics


def test_layers_have_the_references_names_and_shapes() -> None:
    shapes = state_shapes("drunet", width=4, depth=1)
    blocks = {"m_down1.0": 4, "m_down2.0": 8, "m_down3.0": 16, "m_body.0": 32}
    blocks |= {"m_up3.1": 16, "m_up2.1": 8, "m_up1.1": 4}
    convolutions = {
        f"{name}.res.{index}.weight": (features, features, 3, 3)
        for name, features in blocks.items()
        for index in (0, 2)
    }
    assert shapes == {
        "m_head.weight": (4, 4, 3, 3),
        "m_down1.1.weight": (8, 4, 2, 2),
        "m_down2.1.weight": (16, 8, 2, 2),
        "m_down3.1.weight": (32, 16, 2, 2),
        "m_up3.0.weight": (32, 16, 2, 2),
        "m_up2.0.weight": (16, 8, 2, 2),
        "m_up1.0.weight": (8, 4, 2, 2),
        "m_tail.weight": (3, 4, 3, 3),
        **convolutions,
    }


def test_uses_the_noise_level_and_estimates_a_missing_one() -> None:
    made = network("drunet")
    clean = torch.full((1, 3, 256, 256), 0.5)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noise_level = torch.full((1, 1, 1, 1), 0.1)
    with torch.no_grad():
        assert made.estimate_noise_level(noisy).item() == pytest.approx(0.1, rel=0.03)
        assert not torch.allclose(made(noisy, noise_level), made(noisy, 3 * noise_level))
        assert torch.equal(made(noisy, made.estimate_noise_level(noisy)), made(noisy))
    level_map = recorded(made, noisy)["m_head"][:, 3]
    assert torch.equal(level_map.unique(), made.estimate_noise_level(noisy).unique())


@torch.no_grad()
def test_local_noise_level_follows_the_noise_of_the_photo() -> None:
    torch.manual_seed(0)
    made = create_model("drunet", width=4, depth=1).eval()
    use_local_statistics(made, 128)
    noisy = torch.full((1, 3, 512, 512), 0.5)
    noisy[..., :256] += 0.02 * torch.randn(1, 3, 512, 256)
    noisy[..., 256:] += 0.2 * torch.randn(1, 3, 512, 256)
    level = made.estimate_noise_level(noisy)
    assert level.shape == (1, 1, 512, 512)
    assert level[..., :128].mean().item() == pytest.approx(0.02, rel=0.05)
    assert level[..., -128:].mean().item() == pytest.approx(0.2, rel=0.05)


@torch.no_grad()
@pytest.mark.parametrize("residual", [True, False])
def test_residual_adds_the_input(residual: bool) -> None:
    made = create_model("drunet", width=4, depth=1, residual=residual)
    torch.nn.init.zeros_(made.m_tail.weight)
    noisy = torch.rand(1, 3, 16, 16)
    assert torch.equal(made(noisy), noisy if residual else torch.zeros_like(noisy))


@torch.no_grad()
@pytest.mark.parametrize("residual", [True, False])
def test_untrained_output_has_the_scale_of_the_input(residual: bool) -> None:
    torch.manual_seed(0)
    made = create_model("drunet", width=16, depth=2, residual=residual)
    noisy = torch.rand(1, 3, 64, 64)
    clean = made(noisy)
    if residual:
        assert (clean - noisy).std() < noisy.std()
    else:
        assert 0.2 < clean.std() / noisy.std() < 10
