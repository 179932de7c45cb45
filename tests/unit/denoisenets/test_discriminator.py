"""The patch discriminator against the paper."""

import pytest
import torch
from unit.small_networks import photo

from denoisenets import PatchDiscriminator


def test_receptive_field_is_70_pixels() -> None:
    made = PatchDiscriminator(width=4).double().eval()
    x = torch.rand(1, 3, 200, 200, dtype=torch.float64, requires_grad=True)
    logits = made(x)
    assert logits.shape == (1, 1, 23, 23)
    logits[0, 0, 11, 11].backward()
    assert x.grad is not None
    for axis in (2, 3):
        covered = x.grad.abs().sum(dim=tuple({0, 1, 2, 3} - {axis})).nonzero().flatten()
        assert int(covered.max() - covered.min()) + 1 == 70
    assert sum(p.numel() for p in PatchDiscriminator().parameters()) == pytest.approx(
        2.76e6, rel=0.01
    )


def test_learns_to_separate_clean_from_noisy() -> None:
    torch.manual_seed(0)
    made = PatchDiscriminator(width=8)
    optimizer = torch.optim.Adam(made.parameters(), lr=2e-3)
    clean = photo(64, 64).repeat(4, 1, 1, 1)
    noisy = clean + 0.1 * torch.randn_like(clean)
    for _ in range(60):
        loss = (
            torch.nn.functional.softplus(-made(clean)).mean()
            + torch.nn.functional.softplus(made(noisy)).mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        made.update_spectral_norms()
    assert made(clean).mean() > 0 > made(noisy).mean()
    assert made(clean).mean() > made(noisy).mean() + 0.5


@pytest.mark.parametrize("side", [1, 23])
def test_refuses_photos_that_are_too_small(side: int) -> None:
    with pytest.raises(ValueError, match=f"at least 24x24 pixels, got {side}x64"):
        PatchDiscriminator(width=4)(torch.zeros(1, 3, side, 64))
    assert PatchDiscriminator(width=4)(torch.zeros(1, 3, 24, 24)).numel() >= 1
