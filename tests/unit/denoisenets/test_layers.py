"""Local statistics, and the Haar transform."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denoisenets.layers import CELLS_PER_WINDOW, GlobalAveragePool, haar_analysis, haar_synthesis


@torch.no_grad()
def test_local_mean_is_the_mean_over_the_window() -> None:
    pool = GlobalAveragePool()
    x = torch.rand(1, 2, 256, 256, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pool.upsample(pool(x), x), x.mean(dim=(2, 3), keepdim=True))
    pool.window = 128
    local = pool.upsample(pool(x), x)
    assert local.shape == x.shape
    # The centre of a cell needs no interpolation: its window is seven cells of sixteen pixels.
    centre = local[..., 120 - 1 : 120 + 1, 120 - 1 : 120 + 1].mean(dim=(2, 3))
    assert torch.allclose(pool(torch.ones(1, 2, 250, 300)), torch.ones(1, 2, 16, 19), atol=1e-6)
    assert torch.allclose(
        centre, x[..., 120 - 56 : 120 + 56, 120 - 56 : 120 + 56].mean(dim=(2, 3)), atol=2e-4
    )


@torch.no_grad()
def test_local_mean_of_downsampled_features_has_the_same_window() -> None:
    fine, coarse = GlobalAveragePool(scale=1), GlobalAveragePool(scale=4)
    fine.window = coarse.window = 128
    x = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    quarter = torch.nn.functional.avg_pool2d(x, 4)
    assert torch.allclose(fine(x), coarse(quarter), atol=1e-6)
    assert coarse(quarter).shape[-1] == 256 // (128 // CELLS_PER_WINDOW)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_haar_is_orthonormal_and_inverts(height: int, width: int, channels: int, seed: int) -> None:
    x = torch.rand(
        2, channels, 2 * height, 2 * width, generator=torch.Generator().manual_seed(seed)
    )
    bands = haar_analysis(x)
    assert bands.shape == (2, 4 * channels, height, width)
    assert torch.allclose(haar_synthesis(bands), x, rtol=0, atol=1e-6)
    assert torch.allclose(bands.square().sum(), x.square().sum(), rtol=1e-5)


def test_haar_bands_have_the_papers_order() -> None:
    rising_along_width = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    assert haar_analysis(rising_along_width).flatten().tolist() == [1.0, 1.0, 0.0, 0.0]


def test_haar_matrix_is_orthonormal() -> None:
    identity = torch.eye(16).reshape(16, 1, 4, 4)
    matrix = haar_analysis(identity).reshape(16, 16)
    assert torch.allclose(matrix @ matrix.T, torch.eye(16), rtol=0, atol=1e-6)
