"""Every registered network, held to the one contract; numbers against the papers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denoisenets import create_model, describe, list_models, receptive_radius, size_contract
from denoisenets.layers import haar_analysis, haar_synthesis

SMALL = {"mwcnn": {"width": 8, "depth": 2}}


def small(name: str) -> dict[str, int]:
    return SMALL.get(name, {"width": 8})


@pytest.mark.parametrize("name", list_models())
def test_network_contract(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, **small(name))
    side = size_contract(name, **small(name)).padded(17)
    noisy = torch.rand(2, 3, side, side + size_contract(name).multiple, requires_grad=True)
    clean = network(noisy)
    assert clean.shape == noisy.shape
    clean.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert torch.equal(network(noisy), clean)
    for value in (0.0, 1.0):
        assert network(torch.full((1, 3, side, side), value)).isfinite().all()


@pytest.mark.parametrize("name", list_models())
def test_channels_last_equals_contiguous(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, **small(name)).eval()
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = network(x)
        got = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("name", list_models())
def test_an_output_pixel_sees_no_further_than_the_receptive_radius(name: str) -> None:
    torch.manual_seed(0)
    radius = receptive_radius(name, **small(name))
    side = size_contract(name, **small(name)).padded(2 * radius + 40)
    noisy = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    network = create_model(name, **small(name)).double()
    middle = side // 2
    network(noisy)[0, :, middle, middle].sum().backward()
    assert noisy.grad is not None
    rows = noisy.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    columns = noisy.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    seen = max(abs(int(i) - middle) for places in (rows, columns) for i in (places.min(), places.max()))
    assert seen <= radius
    # and the promise is not a wild over-estimate, which would make tiles wasteful
    assert seen >= radius // 2


@pytest.mark.parametrize(
    ("name", "parameters", "gigamacs"),
    [("red10", 0.30e6, 19.6), ("red20", 0.67e6, 43.7), ("red30", 1.04e6, 67.9), ("mwcnn", 16.2e6, 58.2)],
)
def test_published_size(name: str, parameters: float, gigamacs: float) -> None:
    described = describe(name)
    assert described.parameters == pytest.approx(parameters, rel=0.01)
    assert described.macs_per_pixel * 256**2 / 1e9 == pytest.approx(gigamacs, rel=0.01)


def test_each_skip_of_rednet_joins_its_mirror() -> None:
    """With all weights zero but the biases of one encoder layer, only its skip carries anything to the mirror."""
    network = create_model("red30", width=2, residual=False)
    for layer in [*network.encoder, *network.decoder]:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    for number in range(1, 16):
        torch.nn.init.ones_(network.encoder[number - 1].bias)
        inputs: dict[int, torch.Tensor] = {}
        hooks = [
            layer.register_forward_pre_hook(lambda _, x, i=i, inputs=inputs: inputs.__setitem__(i, x[0]))
            for i, layer in enumerate(network.decoder, start=1)
        ]
        network(torch.zeros(1, 3, 4, 4))
        for hook in hooks:
            hook.remove()
        torch.nn.init.zeros_(network.encoder[number - 1].bias)
        reached = {i for i, x in inputs.items() if i > 1 and x.abs().sum() > 0}
        # convolution n is mirrored by the output of transposed convolution 15 - n, the input of the one after
        assert reached == ({16 - number} if number % 2 == 0 else set())


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), channels=st.integers(1, 4), seed=st.integers(0, 99))
def test_haar_is_orthonormal_and_inverts(height: int, width: int, channels: int, seed: int) -> None:
    x = torch.rand(2, channels, 2 * height, 2 * width, generator=torch.Generator().manual_seed(seed))
    bands = haar_analysis(x)
    assert bands.shape == (2, 4 * channels, height, width)
    assert torch.allclose(haar_synthesis(bands), x, atol=1e-6)
    assert torch.allclose(bands.square().sum(), x.square().sum(), rtol=1e-5)


def test_haar_bands_come_in_the_papers_order() -> None:
    rising_along_width = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    assert haar_analysis(rising_along_width).flatten().tolist() == [1.0, 1.0, 0.0, 0.0]


def test_unknown_model_suggests_the_near_one() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'red1O'; did you mean 'red10'\? Known models: mwcnn"):
        create_model("red1O")


def test_unknown_argument_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="takes no argument 'widht'; it takes depth, residual, skips, width"):
        create_model("red10", widht=3)
