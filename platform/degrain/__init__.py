"""Degrain trains, tunes and ships image-denoising networks on a Ray cluster."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from degrain.inference.denoiser import NetworkDenoiser

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(model: str | None = None, *, mlflow: Path | None = None) -> "NetworkDenoiser":
    """Load a model that denoises photos: call it with an (H, W, 3) array of uint8 or uint16.

    `model` is models:/NAME@ALIAS, models:/NAME/VERSION, `starter` or a folder, by default the
    champion of the registry in `mlflow` (by default mlflow.yaml in the working folder), or the
    starter model where there is no champion. Raises UserError for a model that does not exist.
    """
    # Imported here, so that `import degrain` takes no time.
    from degrain.registry.resolver import Resolver
    from degrain.storage.location import Storage

    return Resolver(mlflow, Storage.from_environment()).load(model)[0]
