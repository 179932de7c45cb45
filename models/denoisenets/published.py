"""Conversion of published weights: names and kernels of a reference implementation to ours.

`published_layouts.LAYOUTS` describes the reference of each network. A conversion folds batch
normalisation into the convolution before it, renames layers, turns the kernels of transposed
convolutions that are plain ones here, and infers the arguments of the network from names and
shapes. Every tensor of the file is used and every weight of the network is set; otherwise the
conversion fails.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from denoisenets.factory import create_model, full_arguments
from denoisenets.published_layouts import EXCLUDED, LAYOUTS, Layout, Weights, listed


def convert(
    name: str, published: Mapping[str, Tensor], arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert published weights of the network `name`: all its arguments, and its state dict.

    `arguments` are those that the user gives. Raises ValueError if the network has no layout, or
    weights and network do not fit.
    """
    layout = LAYOUTS.get(name)
    if layout is None:
        why = EXCLUDED.get(name, "nobody published weights of this variant")
        known = ", ".join(LAYOUTS)
        raise ValueError(f"weights of '{name}' cannot be converted: {why}; known: {known}")
    full_arguments(name, arguments)
    folded = _fold_batch_norms(Weights(published), layout.batch_norm_epsilon)
    full = full_arguments(name, _arguments(layout, folded, arguments))
    with torch.device("meta"):
        network = create_model(name, **full)
    origins = _origins(folded, layout.layers(folded))
    shown = ", ".join(f"{key}={value}" for key, value in full.items())
    try:
        _check_names(network.state_dict(), origins)
        weights = _turned_kernels(network, folded, origins, layout.transposed)
        _check_shapes(network.state_dict(), weights, origins)
    except ValueError as error:
        raise ValueError(f"{error} ({name} with {shown})") from None
    return full, {key: value.to(torch.float32, copy=True) for key, value in weights.items()}


def _arguments(layout: Layout, weights: Weights, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that follow from the file, and those given. Raises ValueError where they
    differ.
    """
    inferred = layout.inferred(weights)
    for argument, value in given.items():
        if argument in inferred and value != inferred[argument]:
            raise ValueError(
                f"its {argument} is {inferred[argument]}, not {value}; leave {argument} out of "
                "`arguments`"
            )
    return {**layout.assumed, **given, **inferred}


def _fold_batch_norms(weights: Weights, epsilon: float) -> Weights:
    """Fold each batch normalisation into the convolution directly before it.

    Both are layers of one sequence: the convolution has the number before.
    """
    folded = Weights(weights)
    for name in [name for name in weights if name.endswith(".running_var")]:
        norm = name.removesuffix(".running_var")
        sequence, _, number = norm.rpartition(".")
        layer = f"{sequence}.{int(number) - 1}" if number.isdigit() else ""
        kernel = weights.get(f"{layer}.weight")
        mean = folded.pop(f"{norm}.running_mean", None)
        variance = folded.pop(name)
        if kernel is None or kernel.ndim != 4 or mean is None or len(mean) != len(kernel):
            raise ValueError(f"its batch normalisation '{norm}' does not follow a convolution")
        if (f"{norm}.weight" in weights) != (f"{norm}.bias" in weights):
            raise ValueError(f"its batch normalisation '{norm}' lacks its scale or its shift")
        folded.pop(f"{norm}.num_batches_tracked", None)
        scale = folded.pop(f"{norm}.weight", torch.ones_like(mean)).double()
        scale = scale / (variance.double() + epsilon).sqrt()
        shift = folded.pop(f"{norm}.bias", torch.zeros_like(mean)) - mean.double() * scale
        bias = weights.get(f"{layer}.bias", torch.zeros_like(mean))
        folded[f"{layer}.weight"] = (kernel.double() * scale[:, None, None, None]).float()
        folded[f"{layer}.bias"] = (bias.double() * scale + shift).float()
    return folded


def _origins(weights: Weights, layers: Mapping[str, str]) -> dict[str, str]:
    """The reference's name of each tensor, by ours. Raises ValueError for two of one name."""
    origins: dict[str, str] = {}
    for old in weights:
        layer, _, tensor = old.rpartition(".")
        new = f"{layers[layer]}.{tensor}" if layer in layers else old
        if new in origins:
            raise ValueError(f"its tensors '{origins[new]}' and '{old}' are one weight of ours")
        origins[new] = old
    return origins


def _check_names(expected: Mapping[str, Tensor], origins: Mapping[str, str]) -> None:
    if unused := [old for new, old in origins.items() if new not in expected]:
        raise ValueError(f"the network does not use its tensors {listed(unused)}")
    if missing := [name for name in expected if name not in origins]:
        raise ValueError(f"it lacks tensors of the network: {listed(missing)}")


def _turned_kernels(
    network: nn.Module, weights: Weights, origins: Mapping[str, str], transposed: str
) -> dict[str, Tensor]:
    """The weights by our names; kernels of transposed convolutions of stride 1 are turned by 180
    degrees where the network has a plain one, which then computes the same.
    """
    turned: dict[str, Tensor] = {}
    for new, old in origins.items():
        value = weights[old]
        plain = isinstance(network.get_submodule(new.rpartition(".")[0]), nn.Conv2d)
        if plain and value.ndim == 4 and re.fullmatch(transposed, old):
            value = value.transpose(0, 1).flip(2, 3)  # (I, O, 3, 3) -> (O, I, 3, 3)
        turned[new] = value.contiguous()
    return turned


def _check_shapes(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], origins: Mapping[str, str]
) -> None:
    wrong = [
        f"'{origins[name]}' has the shape {tuple(weights[name].shape)} instead of "
        f"{tuple(value.shape)}"
        for name, value in expected.items()
        if weights[name].shape != value.shape
    ]
    if wrong:
        raise ValueError(f"its tensor {listed(wrong)}")
