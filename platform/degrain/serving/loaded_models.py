"""The networks of one replica: the champion, and a few others that clients have named.

A new champion is loaded beside the old one, which serves until the new one is ready; photos in work
keep the network that they began with.
"""

import asyncio
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

from degrain.errors import UserError
from degrain.inference.config import InferenceConfig
from degrain.inference.denoiser import NetworkDenoiser
from degrain.registry.files import read_model
from degrain.serving.follower import ModelFiles
from degrain.serving.messages import CHAMPION, Models

MOST = 3
"""Networks in memory, the champion included."""


class Source(Protocol):
    """Where models come from."""

    async def current(self) -> Models | None:
        """The models that clients may name; None while that is not known."""
        ...

    async def files(self, label: str) -> ModelFiles | None:
        """The files of a model; None for one that is not among `current`."""
        ...


class UnknownModelError(Exception):
    """No model has this name."""


class LoadedModels:
    """Networks by label, loaded when they are needed."""

    def __init__(self, source: Source, config: InferenceConfig) -> None:
        self._source, self._config = source, config
        self._networks: OrderedDict[str, NetworkDenoiser] = OrderedDict()
        self._loading = asyncio.Lock()
        self._models: Models | None = None
        self.champion: str | None = None
        """Label of the model that serves unless a client names another; None before the first."""

    async def follow(self) -> None:
        """Take over what the source has: load a new champion, then serve it."""
        models = await self._source.current()
        if models is None:
            return
        self._models = models
        if models.champion.label != self.champion:
            await self._load(models.champion.label)
            self.champion = models.champion.label
        self._forget()

    async def get(self, name: str) -> NetworkDenoiser:
        """The network of an alias or label. Raises UnknownModelError."""
        if name == CHAMPION:
            assert self.champion is not None
            return self._networks[self.champion]
        found = self._models.find(name) if self._models else None
        if found is None:
            raise UnknownModelError(name)
        network = await self._load(found.label)
        self._forget()
        return network

    async def _load(self, label: str) -> NetworkDenoiser:
        async with self._loading:
            if label not in self._networks:
                files = await self._source.files(label)
                if files is None:
                    raise UnknownModelError(label)
                self._networks[label] = await asyncio.to_thread(_read, files, label, self._config)
            self._networks.move_to_end(label)
            return self._networks[label]

    def _forget(self) -> None:
        """Drop the networks that were not used for longest, never the champion."""
        others = [label for label in self._networks if label != self.champion]
        for label in others[: max(0, len(self._networks) - MOST)]:
            del self._networks[label]


def _read(found: ModelFiles, label: str, config: InferenceConfig) -> NetworkDenoiser:
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in found.files.items():
            file = Path(temporary) / name
            if not file.resolve().is_relative_to(Path(temporary).resolve()):
                raise UserError(f"model '{label}' has a file outside its folder; it is not loaded")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return read_model(Path(temporary), config, name=label, digest=found.digest)[0]
