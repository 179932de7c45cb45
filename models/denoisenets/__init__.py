"""Image-denoising networks as a library that depends on torch alone.

Importing the package does not import torch, so that a command line can validate model names
(`catalog.NETWORKS`) at once; the first use of a name below does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from denoisenets.contract import Contract, SizeContract
    from denoisenets.discriminator import PatchDiscriminator
    from denoisenets.factory import (
        Description,
        bytes_per_pixel,
        count_parameters,
        create_model,
        describe,
        full_arguments,
        list_models,
        model_contract,
    )
    from denoisenets.layers import use_local_statistics

__all__ = [
    "Contract",
    "Description",
    "PatchDiscriminator",
    "SizeContract",
    "bytes_per_pixel",
    "count_parameters",
    "create_model",
    "describe",
    "full_arguments",
    "list_models",
    "model_contract",
    "use_local_statistics",
]

_MODULES = {
    "Contract": "contract",
    "PatchDiscriminator": "discriminator",
    "SizeContract": "contract",
    "use_local_statistics": "layers",
}
"""The module of each public name; `factory` for those not listed."""


def __getattr__(name: str) -> object:
    """Import a public name on its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value: object = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'factory')}"), name)
    globals()[name] = value
    return value
