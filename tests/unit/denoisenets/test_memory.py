"""Peak activation memory of a forward pass."""

import pytest
import torch
from unit.small_networks import ONE_PER_CLASS, small

from denoisenets import (
    bytes_per_pixel,
    create_model,
    model_contract,
    use_local_statistics,
)
from denoisenets.memory import PeakMemory


def test_peak_counts_tensors_that_are_live_at_once() -> None:
    """RED10 holds a layer's input, its output and the ReLU's output, 64 features of four bytes
    each, and the photo.
    """
    assert bytes_per_pixel("red10") == (3 * 64 + 3) * 4
    assert bytes_per_pixel("red10", width=32) == (3 * 32 + 3) * 4


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ONE_PER_CLASS)
def test_estimate_is_the_peak_of_a_real_forward_pass(name: str, dtype: torch.dtype) -> None:
    """Local statistics and real tensors of the CPU; networks with parts in float32 under autocast
    are the reason.
    """
    arguments = small(name)
    side = model_contract(name, **arguments).size.padded(512)
    made = create_model(name, **arguments).eval()
    use_local_statistics(made, 128)
    autocast = torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32)
    with torch.inference_mode(), PeakMemory() as memory, autocast:
        made(torch.zeros(1, 3, side, side).to(memory_format=torch.channels_last))
    ratio = memory.peak / side**2 / bytes_per_pixel(name, dtype=dtype, **arguments)
    assert 0.9 < ratio < 1.1


@pytest.mark.parametrize("name", ["drunet", "ffdnet", "pridnet", "red10"])
def test_networks_that_do_not_add_to_the_photo_are_estimated_too(name: str) -> None:
    arguments = small(name) | {"residual": False}
    assert bytes_per_pixel(name, **arguments) > 0
