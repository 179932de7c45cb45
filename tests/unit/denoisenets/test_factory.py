"""Every registered network against the one contract; costs against the papers."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from unit.small_networks import add_noise, network, photo, small, trained

from degrain.inference.tiling import pad_to_contract
from denoisenets import (
    count_parameters,
    create_model,
    describe,
    factory,
    list_models,
    model_contract,
)
from denoisenets.catalog import NETWORKS
from denoisenets.layers import GlobalAveragePool
from denoisenets.restormer import Attention

every_model = pytest.mark.parametrize("name", list_models())


def test_model_names_are_the_keys_of_the_registry() -> None:
    assert sorted(NETWORKS) == list_models()


def test_importing_the_package_and_its_names_does_not_import_torch() -> None:
    modules = "denoisenets, denoisenets.catalog, denoisenets.suggestions"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def apply_padded(name: str, x: Tensor) -> Tensor:
    """The network's output for a photo of any size, padded before and cropped after."""
    return network(name)(pad_to_contract(x, model_contract(name, **small(name)).size))[
        ..., : x.shape[-2], : x.shape[-1]
    ]


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
        clean = apply_padded(name, x)
        assert clean.shape == x.shape
        assert clean.isfinite().all()

    @torch.no_grad()
    def test_is_deterministic(self, name: str) -> None:
        side = model_contract(name, **small(name)).size.padded(32)
        x = photo(side, side)
        assert torch.equal(network(name)(x), network(name)(x))

    def test_safetensors_round_trip_preserves_the_output(self, name: str) -> None:
        made = network(name)
        content = safetensors.torch.save(made.state_dict())
        again = create_model(name, **small(name))
        again.load_state_dict(safetensors.torch.load(content))
        x = photo(64, 64)
        with torch.no_grad():
            assert torch.equal(again.eval()(x), made(x))

    @pytest.mark.slow
    def test_bfloat16_is_within_two_steps_of_eight_bits(self, name: str) -> None:
        made = trained(name)
        torch.manual_seed(0)
        x = add_noise(photo(64, 96))
        with torch.no_grad():
            expected = made(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                low = made(x)
        assert (low.float() - expected).abs().max() <= 2 / 255
        assert (expected - x).std() > 0.25 / 255

    @pytest.mark.parametrize("value", [0.0, 1.0, 4.0], ids=["black", "white", "over-exposed"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_flat_input_has_finite_output_and_gradients(
        self, name: str, value: float, dtype: torch.dtype
    ) -> None:
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

    def test_size_contract_is_necessary_and_sufficient(self, name: str) -> None:
        """Sides within the contract work; half the minimum does not preserve the shape."""
        size = model_contract(name, **small(name)).size
        for side in (size.padded(1), size.padded(1) + size.multiple):
            assert network(name)(torch.rand(1, 3, side, side)).shape == (1, 3, side, side)
        if size.multiple > 1:
            # Without the input check the network fails or returns another size.
            with pytest.raises(
                ValueError, match=f"takes sides that are multiples of {size.multiple} and at least"
            ):
                network(name)(torch.rand(1, 3, size.multiple // 2, size.multiple))
            assert not preserves_shape(network(name).forward, size.multiple // 2)

    @pytest.mark.slow
    def test_receptive_field_is_within_the_contract(self, name: str) -> None:
        contract = model_contract(name, **small(name))
        made = create_model(name, **small(name))
        made.load_state_dict(network(name).state_dict())
        radius = contract.receptive_radius
        if contract.global_statistics:
            assert contract.receptive_field == "global"
            side = contract.size.padded(64)
            assert measured_radius(made, side) >= side // 2 - 1
            for module in made.modules():
                if isinstance(module, GlobalAveragePool):
                    module.forward = lambda x: torch.zeros_like(x[..., :1, :1])  # type: ignore[method-assign]
                elif isinstance(module, Attention):
                    module._attention_weights = lambda products, *_: torch.ones_like(products)  # type: ignore[method-assign]
        else:
            assert contract.receptive_field == str(2 * radius + 1)
        seen = measured_radius(made, contract.size.padded(2 * radius + 10))
        assert seen <= radius
        # A wide over-estimate would waste computation on halos.
        assert seen >= radius // 2

    def test_refuses_inputs_of_wrong_shape_or_dtype(self, name: str) -> None:
        side = model_contract(name, **small(name)).size.padded(16)
        for wrong, message in (
            (torch.rand(1, 4, side, side), "takes .B, 3, H, W., got the shape"),
            (torch.rand(3, side, side), "takes .B, 3, H, W., got the shape"),
            (
                torch.zeros(1, 3, side, side, dtype=torch.uint8),
                r"takes floats in \[0, 1\], got torch.uint8; divide",
            ),
            (torch.rand(1, 3, 0, side), "pixels, got 0x"),
        ):
            with pytest.raises(ValueError, match=message):
                network(name)(wrong)

    def test_refuses_invalid_arguments(self, name: str) -> None:
        for value in (0, -1, 2.5, True, "8"):
            with pytest.raises(
                ValueError, match=r"width must be a whole number of at least 1, got"
            ):
                create_model(name, width=value)
        with pytest.raises(ValueError, match="takes no argument 'widht'"):
            create_model(name, widht=3)

    @pytest.mark.slow
    def test_runs_at_its_published_size(self, name: str) -> None:
        """On the meta device, which computes shapes alone."""
        contract = model_contract(name)
        side = contract.size.padded(48)
        with torch.device("meta"):
            clean = create_model(name)(torch.empty(2, 3, side, side + contract.size.multiple))
        assert clean.shape == (2, 3, side, side + contract.size.multiple)


def preserves_shape(made: Callable[[Tensor], Tensor], side: int) -> bool:
    """Whether a network preserves the shape of a square of this side."""
    try:
        return bool(made(torch.rand(1, 3, side, side)).shape == (1, 3, side, side))
    except RuntimeError:
        return False


def measured_radius(made: nn.Module, side: int) -> int:
    """Largest distance in pixels at which an input pixel has a gradient to the central output
    pixel.
    """
    middle = side // 2
    noisy = torch.rand(
        1, 3, side, side, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    made(noisy)[0, :, middle, middle].sum().backward()
    assert noisy.grad is not None
    rows = noisy.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    columns = noisy.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    return max(
        abs(int(i) - middle) for places in (rows, columns) for i in (places.min(), places.max())
    )


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
        ("drunet", {}, 32_640_960, None),
        ("unet", {"width": 64}, 31.03e6, None),
        ("nafnet32", {}, 29.16e6, 16.23),
        ("nafnet32", {"width": 64}, 115.98e6, 63.6),
        ("restormer", {"width": 48, "depth": 2}, 26.13e6, None),
    ],
)
def test_published_size(
    name: str, arguments: dict[str, int], parameters: float, gigamacs: float | None
) -> None:
    described = describe(name, **arguments)
    assert described.parameters == pytest.approx(parameters, rel=0.01)
    if gigamacs is not None:
        assert described.macs_per_pixel * 256**2 / 1e9 == pytest.approx(gigamacs, rel=0.01)


@pytest.mark.slow
def test_pridnet_article_has_about_four_times_the_parameters() -> None:
    assert describe("pridnet_article").parameters == pytest.approx(290e6, rel=0.03)


def test_unknown_model_suggests_the_nearest_name() -> None:
    with pytest.raises(
        ValueError,
        match=r"unknown model 'red1O'; did you mean 'red10'\? Known models: dncnn, drunet, fast16",
    ):
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
def test_refuses_arguments_of_wrong_type(
    call: Callable[..., object], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call("red10", **arguments)


def test_unknown_argument_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError,
        match="takes no argument 'widht'; it takes depth, residual, skips, strided, width",
    ):
        create_model("red10", widht=3)


def test_parameters_are_counted_without_weights_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_model("red10", width=5)
    assert count_parameters("red10", width=5) == sum(p.numel() for p in network.parameters())
    built: list[str] = []

    def count_builds(name: str, **arguments: int) -> torch.nn.Module:
        built.append(name)
        return create_model(name, **arguments)

    monkeypatch.setattr(factory, "create_model", count_builds)
    counts = {count_parameters("red10", width=width) for width in (6, 6, 7, 6)}
    assert (len(counts), len(built)) == (2, 2)
    with pytest.raises(ValueError, match="width"):
        count_parameters("red10", width=0)
