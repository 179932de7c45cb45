"""Choice of precision, compilation and memory limit, and its log messages."""

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from degrain.errors import UserError
from degrain.inference import execution
from degrain.inference.config import Device
from degrain.inference.execution import choose_execution, find_device
from denoisenets import create_model

CPU = torch.device("cpu")


@pytest.mark.parametrize(("supported", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_bfloat16_on_processors_that_support_it(
    supported: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with caplog.at_level(logging.INFO):
        chosen = choose_execution(CPU)
    assert chosen.precision == expected
    assert ("float32 on cpu: it has no bfloat16 instructions" in caplog.text) is not supported
    assert choose_execution(CPU, "float32").precision == "float32"
    assert choose_execution(CPU, "bfloat16").precision == "bfloat16"
    assert chosen.memory_format == torch.channels_last
    assert not chosen.compiled


def test_network_runs_in_the_requested_precision_and_memory_format() -> None:
    chosen = choose_execution(CPU, "bfloat16")
    network = chosen.place(create_model("red10", width=8))
    assert all(
        p.is_contiguous(memory_format=torch.channels_last)
        for p in network.parameters()
        if p.ndim == 4
    )
    seen: list[torch.dtype] = []
    network.deconv_layers[0].register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    with chosen.autocast(), torch.no_grad():
        chosen.compile(network)(torch.rand(1, 3, 16, 16))
    assert seen == [torch.bfloat16]


def test_missing_compiler_is_logged_and_disables_compilation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    chosen = choose_execution(CPU, compiled="on")
    assert not chosen.compiled
    assert (
        "the network is not compiled: there is no C++ compiler (g++ or clang++); install one"
        in caplog.text
    )


@pytest.mark.soak
def test_failed_compilation_is_logged_and_the_network_runs_uncompiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch.compiler.reset()
    network = nn.Conv2d(3, 3, kernel_size=1)
    chosen = execution.Execution(CPU, torch.float32, torch.contiguous_format, compiled=True)
    run = chosen.compile(network)

    def refuses(*_: object, **__: object) -> None:
        raise OSError("cannot run the compiler")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", refuses)
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(run(x), network(x))
    assert "the network is not compiled: backend='inductor' raised" in caplog.text
    assert caplog.text.count("is not compiled") == 1
    assert torch.equal(run(x), network(x))
    assert caplog.text.count("is not compiled") == 1


def test_every_network_of_a_process_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a study's trials, which share their code: the compiler counts them."""
    compiled = 0

    def count(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        nonlocal compiled
        compiled += 1
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    chosen = execution.Execution(CPU, torch.float32, torch.contiguous_format, compiled=True)
    for width in range(2, 14):
        run = chosen.compile(create_model("red10", width=width))
        run(torch.rand(1, 3, 16, 16))
    assert compiled == 12


def test_errors_of_the_network_are_not_hidden() -> None:
    chosen = execution.Execution(CPU, torch.float32, torch.contiguous_format, compiled=True)

    def wrong(x: Tensor) -> Tensor:
        raise ZeroDivisionError(str(x.ndim))

    network = nn.Conv2d(3, 3, kernel_size=1)
    network.forward = wrong  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        chosen.compile(network)(torch.rand(1, 3, 8, 8))


@pytest.mark.soak
@pytest.mark.slow
def test_compiled_network_equals_uncompiled() -> None:
    chosen = choose_execution(CPU, "float32", "on")
    if not chosen.compiled:
        pytest.skip("needs a program: apt-get install g++")
    network = chosen.place(create_model("red10", width=4, depth=1).eval())
    x = torch.rand(1, 3, 24, 32)
    with torch.no_grad():
        assert torch.allclose(chosen.compile(network)(x), network(x), atol=1e-5)


@pytest.mark.parametrize("name", ["cuda", "mps", "xpu"])
def test_a_device_that_is_not_there_is_an_error(name: Device) -> None:
    present = find_device("auto").type
    if name == present:
        pytest.skip(f"there is a device {name} here")
    with pytest.raises(UserError, match=f"there is no device {name} here, but {present}; set"):
        find_device(name)


def test_auto_is_the_accelerator_and_the_cpu_is_always_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert find_device("cpu") == CPU
    found = torch.device("xpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: found)
    assert find_device("auto") == find_device("xpu") == found


def test_memory_limit_is_a_share_of_free_memory() -> None:
    assert 0 < choose_execution(CPU).free_memory() <= 512 * 2**20
