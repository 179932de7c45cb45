"""Image-denoising networks as a library: torch only, one contract for all."""

from denoisenets.catalog import (
    Description,
    bytes_per_pixel,
    create_model,
    describe,
    full_arguments,
    list_models,
    model_contract,
)
from denoisenets.contract import Contract, SizeContract
from denoisenets.discriminator import PatchDiscriminator
from denoisenets.layers import use_local_statistics

__all__ = [
    "Contract",
    "Description",
    "PatchDiscriminator",
    "SizeContract",
    "bytes_per_pixel",
    "create_model",
    "describe",
    "full_arguments",
    "list_models",
    "model_contract",
    "use_local_statistics",
]
