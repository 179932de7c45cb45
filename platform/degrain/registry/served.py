"""A model as MLflow's Python function, for `mlflow.pyfunc.load_model` and `mlflow models serve`."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from degrain.inference.denoiser import NetworkDenoiser
from degrain.registry.files import read_model


class ServedDenoiser:
    """Denoises batches of photos, each as `degrain denoise` does."""

    def __init__(self, denoiser: NetworkDenoiser) -> None:
        self._denoiser = denoiser

    def predict(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Denoise photos of one size, (B, H, W, 3) uint8."""
        # One by one, because sums are rounded differently in a batch.
        return np.stack([self._denoiser(photo) for photo in photos])


def _load_pyfunc(path: str) -> ServedDenoiser:
    """Load a model folder; MLflow calls the function by this name."""
    return ServedDenoiser(read_model(Path(path))[0])
