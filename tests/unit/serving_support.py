"""A backend of the HTTP interface in this process, and clients of it."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi.testclient import TestClient
from torch import Tensor

from degrain.imaging.pixels import Photo
from degrain.inference.denoiser import Denoiser
from degrain.registry.card import ModelCard
from degrain.serving.config import ServingConfig
from degrain.serving.http_api import create_app
from degrain.serving.messages import Models, PhotoRequest, PhotoResult, Refusal, ServedModel
from degrain.serving.photo import denoise_photo
from degrain.serving.service import Service
from denoisenets import create_model, full_arguments

CARD = {"model": "red10", "scores": {}, "halo": 10, "patch_set": None, "source": None}
STARTER = ServedModel(id="starter", label="starter", card=CARD)
CHAMPION = ServedModel(id="champion", label="m v3", card=CARD)


def untrained(seed: int) -> tuple[dict[str, Tensor], ModelCard]:
    """Weights that differ with the seed, and the card of a model with them."""
    torch.manual_seed(seed)
    arguments = full_arguments("red10", {"width": 4})
    card = ModelCard(
        model="red10",
        arguments=arguments,
        patch_set=None,
        training={},
        crop=32,
        size_multiple=1,
        halo=10,
    )
    return create_model("red10", **arguments).state_dict(), card


class Darker:
    """Halves every value, so that a test sees whether it ran, and with which strength."""

    parameters = 0

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, photo: Photo, window: object = None) -> Photo:
        return np.asarray(photo // 2)


class LocalBackend:
    """Denoises in this process, `seconds` after the request."""

    def __init__(self, *models: ServedModel, registry: str = "reachable") -> None:
        self.models: Models | None = Models(models=models or (CHAMPION, STARTER), registry=registry)
        self.replicas = 1
        self.refusal: Refusal | None = None
        self.requests: list[PhotoRequest] = []
        self.seconds = 0.0
        self.denoiser: Denoiser | None = None

    async def denoise(self, request: PhotoRequest) -> PhotoResult | Refusal:
        self.requests.append(request)
        await asyncio.sleep(self.seconds)
        assert self.models is not None
        found = self.models.find(request.model)
        assert found is not None
        denoiser = self.denoiser or Darker(found.label)
        return self.refusal or await asyncio.to_thread(denoise_photo, request, denoiser)

    async def refresh(self) -> None:
        """Nothing changes."""


@contextlib.contextmanager
def server(
    backend: LocalBackend,
    token: str | None = None,
    **config: Any,  # noqa: ANN401 - fields of any type
) -> Iterator[str]:
    """The interface on a free port for the length of a block; yields its URL."""
    app = create_app(Service(backend, ServingConfig(**config)), token)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        running = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=running.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()


@contextlib.contextmanager
def client(
    backend: LocalBackend | None = None,
    token: str | None = None,
    **config: Any,  # noqa: ANN401 - fields of any type
) -> Iterator[TestClient]:
    """A client of the interface in this process."""
    app = create_app(Service(backend or LocalBackend(), ServingConfig(**config)), token)
    with TestClient(app, base_url="http://127.0.0.1:8000") as made:
        yield made
