"""Image-denoising networks as a library: torch only, one contract for all."""

from denoisenets.catalog import (
    Description,
    SizeContract,
    create_model,
    describe,
    full_arguments,
    list_models,
    receptive_radius,
    size_contract,
)

__all__ = [
    "Description",
    "SizeContract",
    "create_model",
    "describe",
    "full_arguments",
    "list_models",
    "receptive_radius",
    "size_contract",
]
