"""Every registered network, held to the one contract; numbers against the papers."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from unit.support import natural_photo

from degrain.imaging.metrics import to_float
from degrain.imaging.tiling import pad_to_contract
from denoisenets import PatchDiscriminator, bytes_per_pixel, create_model, describe, list_models, model_contract
from denoisenets.layers import CELLS, FrameMean, haar_analysis, haar_synthesis
from denoisenets.restormer import ChannelAttention

SMALL: dict[str, dict[str, Any]] = {
    "dncnn": {"width": 8, "depth": 6},
    "ffdnet": {"width": 8, "depth": 5},
    "mwcnn": {"width": 8, "depth": 2},
    "mwcnn_article": {"width": 4, "depth": 1},
    "pridnet": {"width": 4, "depth": 2, "levels": 2, "scales": 3},
    "pridnet_article": {"width": 6, "depth": 2, "levels": 1, "scales": 3},
    "nafnet16": {"width": 4, "depth": 1, "levels": 3},
    "nafnet32": {"width": 6, "depth": 1, "levels": 2},
    "restormer": {"width": 4},
    "unet": {"width": 4, "levels": 3},
}
NOISE = 0.15
every_model = pytest.mark.parametrize("name", list_models())


def small(name: str) -> dict[str, Any]:
    return SMALL.get(name, {"width": 8})


@cache
def network(name: str) -> nn.Module:
    """A small one with random values also where zeros are set: NAFNet's blocks begin as the identity."""
    torch.manual_seed(0)
    made = create_model(name, **small(name)).eval()
    with torch.no_grad():
        for parameter_name, parameter in made.named_parameters():
            if parameter_name.endswith(("beta", "gamma")):
                parameter.normal_(std=0.3)
            elif parameter_name.endswith("bias"):
                parameter.normal_(std=0.02)
    return made


@cache
def learnt(name: str) -> nn.Module:
    """A small network after its first steps on noisy crops of a photo: random weights round worse than trained ones."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        torch.manual_seed(0)
        made = create_model(name, **small(name))
        clean = photo(64, 64).unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5).reshape(4, 3, 32, 32)
        optimizer = torch.optim.Adam(made.parameters(), lr=2e-3)
        for _ in range(12):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(made(noisy_of(clean)), clean).backward()
            optimizer.step()
    return made.eval()


def noisy_of(clean: Tensor) -> Tensor:
    return clean + NOISE * torch.randn_like(clean)


def photo(height: int, width: int) -> Tensor:
    return to_float(torch.from_numpy(natural_photo(height, width)).permute(2, 0, 1)[None])


def fitted(name: str, x: Tensor) -> Tensor:
    """The network's output for a photo of any size: padded outside, cropped again."""
    return network(name)(pad_to_contract(x, model_contract(name, **small(name)).size))[..., : x.shape[-2], : x.shape[-1]]


@every_model
class TestEveryNetwork:
    def test_gradients_reach_every_parameter(self, name: str) -> None:
        side = model_contract(name, **small(name)).size.padded(33)
        noisy = torch.rand(2, 3, side, side)
        made = network(name)
        made.zero_grad()
        clean = made(noisy)
        assert clean.shape == noisy.shape
        (clean - 0.5).square().mean().backward()
        for parameter_name, parameter in made.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
            assert parameter.grad.abs().max() > 0, parameter_name

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (17, 31), (255, 257)])
    @torch.no_grad()
    def test_photos_of_any_size(self, name: str, height: int, width: int) -> None:
        x = photo(height, width)
        clean = fitted(name, x)
        assert clean.shape == x.shape
        assert clean.isfinite().all()

    @torch.no_grad()
    def test_is_deterministic(self, name: str) -> None:
        side = model_contract(name, **small(name)).size.padded(32)
        x = photo(side, side)
        assert torch.equal(network(name)(x), network(name)(x))

    def test_weights_survive_safetensors(self, name: str) -> None:
        made = network(name)
        content = safetensors.torch.save(made.state_dict())
        again = create_model(name, **small(name))
        again.load_state_dict(safetensors.torch.load(content))
        x = photo(64, 64)
        with torch.no_grad():
            assert torch.equal(again.eval()(x), made(x))

    @pytest.mark.slow
    def test_bfloat16_is_within_two_steps_of_eight_bits(self, name: str) -> None:
        made = learnt(name)
        torch.manual_seed(0)
        x = noisy_of(photo(64, 96))
        with torch.no_grad():
            expected = made(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                low = made(x)
        assert (low.float() - expected).abs().max() <= 2 / 255
        assert (expected - x).std() > 0.25 / 255

    @pytest.mark.parametrize("value", [0.0, 1.0, 4.0], ids=["black", "white", "over-exposed"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_flat_input_gives_numbers_and_gradients(self, name: str, value: float, dtype: torch.dtype) -> None:
        side = model_contract(name, **small(name)).size.padded(16)
        made = network(name)
        made.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            clean = made(torch.full((1, 3, side, side), value))
        clean.float().square().mean().backward()
        assert clean.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())

    @torch.no_grad()
    def test_channels_last_equals_contiguous(self, name: str) -> None:
        x = photo(64, 64).contiguous()
        again = create_model(name, **small(name))
        again.load_state_dict(network(name).state_dict())
        again.eval().to(memory_format=torch.channels_last)
        got = again(x.contiguous(memory_format=torch.channels_last))
        assert torch.allclose(got, network(name)(x), atol=1e-5)

    def test_does_not_change_its_input(self, name: str) -> None:
        x = photo(64, 64)
        before = x.clone()
        with torch.no_grad():
            network(name)(x)
        assert torch.equal(x, before)

    def test_description_equals_the_built_network(self, name: str) -> None:
        made, described = network(name), describe(name, **small(name))
        assert described.parameters == sum(p.numel() for p in made.parameters())
        side = described.contract.size.padded(64)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            made(torch.rand(1, 3, side, side))
        assert described.macs_per_pixel == pytest.approx(counter.get_total_flops() / 2 / side**2)
        assert set(small(name)) <= set(described.arguments)

    def test_size_contract_is_what_the_network_needs(self, name: str) -> None:
        """Sides of the contract work; half the minimum, where there is one, does not give the same shape back."""
        size = model_contract(name, **small(name)).size
        for side in (size.padded(1), size.padded(1) + size.multiple):
            assert network(name)(torch.rand(1, 3, side, side)).shape == (1, 3, side, side)
        if size.multiple > 1:
            # without the check that stands before it, the network fails or gives another size
            with pytest.raises(ValueError, match=f"takes sides that are multiples of {size.multiple} and at least"):
                network(name)(torch.rand(1, 3, size.multiple // 2, size.multiple))
            assert not takes(network(name).forward, size.multiple // 2)

    @pytest.mark.slow
    def test_an_output_pixel_sees_as_far_as_promised(self, name: str) -> None:
        contract = model_contract(name, **small(name))
        made = create_model(name, **small(name))
        made.load_state_dict(network(name).state_dict())
        radius = contract.receptive_radius
        if contract.global_statistics:
            assert contract.receptive_field == "global"
            side = contract.size.padded(64)
            assert radius_seen(made, side) >= side // 2 - 1
            for module in made.modules():
                if isinstance(module, FrameMean):
                    module.forward = lambda x: torch.zeros_like(x[..., :1, :1])  # type: ignore[method-assign]
                elif isinstance(module, ChannelAttention):
                    module._alike = lambda products, *_: torch.ones_like(products)  # type: ignore[method-assign]
        else:
            assert contract.receptive_field == str(2 * radius + 1)
        seen = radius_seen(made, contract.size.padded(2 * radius + 10))
        assert seen <= radius
        # and the promise is no wild over-estimate, which would make tiles wasteful
        assert seen >= radius // 2

    def test_refuses_what_is_no_frame(self, name: str) -> None:
        side = model_contract(name, **small(name)).size.padded(16)
        for wrong, message in (
            (torch.rand(1, 4, side, side), "takes .B, 3, H, W., got the shape"),
            (torch.rand(3, side, side), "takes .B, 3, H, W., got the shape"),
            (torch.zeros(1, 3, side, side, dtype=torch.uint8), r"takes floats in \[0, 1\], got torch.uint8; divide"),
            (torch.rand(1, 3, 0, side), "pixels, got 0x"),
        ):
            with pytest.raises(ValueError, match=message):
                network(name)(wrong)

    def test_refuses_arguments_that_make_no_network(self, name: str) -> None:
        for value in (0, -1, 2.5, True, "8"):
            with pytest.raises(ValueError, match=r"width must be a whole number of at least 1, got"):
                create_model(name, width=value)
        with pytest.raises(ValueError, match="takes no argument 'widht'"):
            create_model(name, widht=3)

    @pytest.mark.slow
    def test_runs_at_its_published_size(self, name: str) -> None:
        """On the meta device, which has shapes and no numbers."""
        contract = model_contract(name)
        side = contract.size.padded(48)
        with torch.device("meta"):
            clean = create_model(name)(torch.empty(2, 3, side, side + contract.size.multiple))
        assert clean.shape == (2, 3, side, side + contract.size.multiple)


def takes(made: Callable[[Tensor], Tensor], side: int) -> bool:
    """Whether a network gives a square of this side back in its size."""
    try:
        return bool(made(torch.rand(1, 3, side, side)).shape == (1, 3, side, side))
    except RuntimeError:
        return False


def radius_seen(made: nn.Module, side: int) -> int:
    """How far from an output pixel in the middle a photo of random numbers has an influence on it."""
    middle = side // 2
    noisy = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0), requires_grad=True)
    made(noisy)[0, :, middle, middle].sum().backward()
    assert noisy.grad is not None
    rows = noisy.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    columns = noisy.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    return max(abs(int(i) - middle) for places in (rows, columns) for i in (places.min(), places.max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "parameters", "gigamacs"),
    [
        ("red10", {}, 0.30e6, 19.6),
        ("red20", {}, 0.67e6, 43.7),
        ("red30", {}, 1.04e6, 67.9),
        ("mwcnn", {}, 16.2e6, 58.2),
        ("pridnet", {}, 74.2e6, 31.8),
        ("dncnn", {}, 668_227, None),
        ("ffdnet", {}, 852_108, None),
        ("unet", {"width": 64}, 31.03e6, None),
        ("nafnet32", {}, 29.16e6, 16.23),
        ("nafnet32", {"width": 64}, 115.98e6, 63.6),
        ("restormer", {"width": 48, "depth": 2}, 26.13e6, None),
    ],
)
def test_published_size(name: str, arguments: dict[str, int], parameters: float, gigamacs: float | None) -> None:
    described = describe(name, **arguments)
    assert described.parameters == pytest.approx(parameters, rel=0.01)
    if gigamacs is not None:
        assert described.macs_per_pixel * 256**2 / 1e9 == pytest.approx(gigamacs, rel=0.01)


def test_memory_is_what_lives_at_the_same_time() -> None:
    """Of RED10 a layer's input, its output, and that after the ReLU, 64 features of four bytes each; and the photo."""
    assert bytes_per_pixel("red10") == (3 * 64 + 3) * 4
    assert bytes_per_pixel("red10", width=32) == (3 * 32 + 3) * 4


@pytest.mark.slow
def test_the_articles_pridnet_is_about_four_times_the_papers() -> None:
    assert describe("pridnet_article").parameters == pytest.approx(290e6, rel=0.03)


def test_convolutions_of_mwcnn() -> None:
    def convolutions(name: str) -> int:
        with torch.device("meta"):
            return sum(isinstance(m, nn.Conv2d) for m in create_model(name).modules())

    assert (convolutions("mwcnn"), convolutions("mwcnn_article")) == (24, 32)


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


def recorded(made: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each module of a network gets as its first input."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, arguments: inputs.__setitem__(name, arguments[0])

    hooks = [module.register_forward_pre_hook(keep(name)) for name, module in made.named_modules()]
    with torch.no_grad():
        made(x)
    for hook in hooks:
        hook.remove()
    return inputs


def test_branches_of_pridnet_see_the_average_over_squares_of_1_to_16_pixels() -> None:
    made = create_model("pridnet", width=2).eval()
    x = photo(256, 256)
    inputs = recorded(made, x)
    for branch, pooling in enumerate((1, 2, 4, 8, 16)):
        seen = inputs[f"branches.{branch}.pyramid"]
        side = 256 // pooling
        assert seen.shape == (1, 6, side, side)
        averages = x.reshape(1, 3, side, pooling, side, pooling).mean(dim=(3, 5))
        assert torch.allclose(seen[:, :3], averages, atol=1e-6)
    # and all of it meets in the fusion: noisy, noise, and three maps of each branch
    assert inputs["fuse"].shape == (1, 6 + 5 * 3, 256, 256)
    assert torch.equal(inputs["fuse"][:, :3], x)
    assert [kernel.kernel_size for kernel in made.fuse.kernels] == [(3, 3), (5, 5), (7, 7)]


def test_ffdnet_does_what_it_is_told() -> None:
    """The told level goes in beside the sub-photos; left out, it is what the photo's own noise is."""
    made = network("ffdnet")
    clean = torch.full((1, 3, 256, 256), 0.5)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    told = torch.full((1, 1, 1, 1), 0.1)
    with torch.no_grad():
        assert made.estimate(noisy).item() == pytest.approx(0.1, rel=0.03)
        assert not torch.allclose(made(noisy, told), made(noisy, 3 * told))
        assert torch.allclose(made(noisy, made.estimate(noisy)), made(noisy))
    inputs = recorded(made, noisy)
    assert inputs["layers"].shape == (1, 13, 128, 128)
    assert torch.allclose(inputs["layers"][:, 12], made.estimate(noisy))


@torch.no_grad()
@pytest.mark.parametrize("scale", [1, 4, 16])
def test_restormers_local_attention_is_the_frames_where_all_cells_are_alike(scale: int) -> None:
    torch.manual_seed(0)
    attention = ChannelAttention(8, heads=2, scale=scale)
    without_neighbours(attention)
    cell = 128 // CELLS // scale
    x = torch.rand(2, 8, cell, cell).repeat(1, 1, 12, 15)
    whole = attention(x)
    attention.mean.window = 128
    assert torch.allclose(attention(x), whole, atol=1e-5)
    # of a photo that ends within a cell less of the texture is seen, but no zeros are
    cut = attention(x[..., : x.shape[-2] - cell // 2, : x.shape[-1] - cell // 2])
    assert torch.allclose(cut, whole[..., : cut.shape[-2], : cut.shape[-1]], atol=0.05 * whole.abs().max().item())


def without_neighbours(attention: ChannelAttention) -> None:
    """So that what is cut out of the frame is not different at its border."""
    kernels = attention.ask[1].weight
    kernels[:, :, :, [0, 2]] = 0
    kernels[:, :, [0, 2]] = 0


@torch.no_grad()
def test_restormers_local_attention_weighs_by_what_is_near() -> None:
    """At a cell's centre the weights are those of the 7x7 cells around it, by the formula of the frame."""
    torch.manual_seed(0)
    attention = ChannelAttention(4, heads=1, scale=1)
    without_neighbours(attention)
    x = torch.rand(1, 4, 256, 256) * torch.linspace(0.1, 1, 256)
    expected = attention(x[..., 120 - 56 : 120 + 56, 120 - 56 : 120 + 56])[..., 55:57, 55:57].mean(dim=(2, 3))
    whole = attention(x)[..., 119:121, 119:121].mean(dim=(2, 3))
    attention.mean.window = 128
    local = attention(x)[..., 119:121, 119:121].mean(dim=(2, 3))
    assert torch.allclose(local, expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(local, whole, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_local_mean_is_the_mean_over_the_window() -> None:
    mean = FrameMean()
    x = torch.rand(1, 2, 256, 256, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mean.spread(mean(x), x), x.mean(dim=(2, 3), keepdim=True))
    mean.window = 128
    local = mean.spread(mean(x), x)
    assert local.shape == x.shape
    # at the centre of a cell nothing is interpolated: seven cells of sixteen pixels
    centre = local[..., 120 - 1 : 120 + 1, 120 - 1 : 120 + 1].mean(dim=(2, 3))
    assert torch.allclose(mean(torch.ones(1, 2, 250, 300)), torch.ones(1, 2, 16, 19), atol=1e-6)
    assert torch.allclose(centre, x[..., 120 - 56 : 120 + 56, 120 - 56 : 120 + 56].mean(dim=(2, 3)), atol=2e-4)


@torch.no_grad()
def test_local_mean_of_features_at_a_quarter_of_the_sides_spans_the_same_photo() -> None:
    fine, coarse = FrameMean(scale=1), FrameMean(scale=4)
    fine.window = coarse.window = 128
    x = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    quarter = torch.nn.functional.avg_pool2d(x, 4)
    assert torch.allclose(fine(x), coarse(quarter), atol=1e-6)
    assert coarse(quarter).shape[-1] == 256 // (128 // CELLS)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), channels=st.integers(1, 4), seed=st.integers(0, 99))
def test_haar_is_orthonormal_and_inverts(height: int, width: int, channels: int, seed: int) -> None:
    x = torch.rand(2, channels, 2 * height, 2 * width, generator=torch.Generator().manual_seed(seed))
    bands = haar_analysis(x)
    assert bands.shape == (2, 4 * channels, height, width)
    assert torch.allclose(haar_synthesis(bands), x, rtol=0, atol=1e-6)
    assert torch.allclose(bands.square().sum(), x.square().sum(), rtol=1e-5)


def test_haar_bands_come_in_the_papers_order() -> None:
    rising_along_width = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    assert haar_analysis(rising_along_width).flatten().tolist() == [1.0, 1.0, 0.0, 0.0]


def test_haar_matrix_is_orthonormal() -> None:
    identity = torch.eye(16).reshape(16, 1, 4, 4)
    matrix = haar_analysis(identity).reshape(16, 16)
    assert torch.allclose(matrix @ matrix.T, torch.eye(16), rtol=0, atol=1e-6)


def test_unknown_model_suggests_the_near_one() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'red1O'; did you mean 'red10'\? Known models: dncnn, ffdnet"):
        create_model("red1O")


@pytest.mark.parametrize("call", [create_model, model_contract, describe])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": -3}, "depth must be a whole number of at least 1, got -3"),
        ({"depth": "x"}, "depth must be a whole number of at least 1, got 'x'"),
        ({"skips": "no"}, "skips must be true or false, got 'no'"),
        ({"residual": 2}, "residual must be true or false, got 2"),
    ],
)
def test_arguments_of_a_wrong_kind(call: Callable[..., object], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call("red10", **arguments)


def test_unknown_argument_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="takes no argument 'widht'; it takes depth, residual, skips, width"):
        create_model("red10", widht=3)


def test_discriminator_judges_squares_of_70_pixels() -> None:
    made = PatchDiscriminator(width=4).double().eval()
    x = torch.rand(1, 3, 200, 200, dtype=torch.float64, requires_grad=True)
    logits = made(x)
    assert logits.shape == (1, 1, 23, 23)
    logits[0, 0, 11, 11].backward()
    assert x.grad is not None
    for axis in (2, 3):
        seen = x.grad.abs().sum(dim=tuple({0, 1, 2, 3} - {axis})).nonzero().flatten()
        assert int(seen.max() - seen.min()) + 1 == 70
    assert sum(p.numel() for p in PatchDiscriminator().parameters()) == pytest.approx(2.76e6, rel=0.01)


def test_discriminator_learns_to_tell_noise_from_none() -> None:
    torch.manual_seed(0)
    made = PatchDiscriminator(width=8)
    optimizer = torch.optim.Adam(made.parameters(), lr=2e-3)
    clean = photo(64, 64).repeat(4, 1, 1, 1)
    noisy = clean + 0.1 * torch.randn_like(clean)
    for _ in range(60):
        loss = torch.nn.functional.softplus(-made(clean)).mean() + torch.nn.functional.softplus(made(noisy)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        made.renormalise()
    assert made(clean).mean() > 0 > made(noisy).mean()
    assert made(clean).mean() > made(noisy).mean() + 0.5


@pytest.mark.parametrize("side", [1, 23])
def test_discriminator_says_what_is_too_small(side: int) -> None:
    with pytest.raises(ValueError, match=f"at least 24x24 pixels, got {side}x64"):
        PatchDiscriminator(width=4)(torch.zeros(1, 3, side, 64))
    assert PatchDiscriminator(width=4)(torch.zeros(1, 3, 24, 24)).numel() >= 1
