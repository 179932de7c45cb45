"""What the parts of the service send each other: photos, answers, and the state of the registry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from degrain.inference.config import BlendConfig, OutputConfig

CHAMPION = "champion"
"""Name of the model that serves unless a client names another."""


@dataclass(frozen=True, kw_only=True)
class PhotoRequest:
    """A photo to denoise."""

    content: bytes
    model: str = CHAMPION
    """Alias, `NAME vVERSION` or `starter`: an `id` or `label` of `Models.models`."""
    blend: BlendConfig = field(default_factory=BlendConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    largest_megapixels: float
    is_job: bool = False
    """Whether nobody waits for it, so that it gives way to all other photos."""


@dataclass(frozen=True, kw_only=True)
class PhotoResult:
    """A denoised photo."""

    content: bytes
    media_type: str
    suffix: str
    """`.jpg` and the like."""
    model: str
    """The label of the model that denoised it."""
    megapixels: float
    seconds: float
    """Time of the network, without waiting, reading and writing."""
    notes: tuple[str, ...] = ()
    """What of the file was dropped."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The reason why a photo was not denoised."""

    status: int
    """HTTP status."""
    reason: str
    """One line."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that clients may name."""

    id: str
    """Alias in the registry, or `starter`; what clients write."""
    label: str
    """`NAME vVERSION`, or `starter`: the same label is the same weights."""
    card: Mapping[str, Any]
    """Network, its arguments, training data, scores."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models of the registry at one moment."""

    models: tuple[ServedModel, ...]
    """The first is the champion: of the registry, or the starter model where it has none."""
    registry: str
    """`reachable`, or why the registry does not answer."""
    lost_champion: str | None = None
    """The champion that was, if the starter model serves in its place, and what to do."""

    @property
    def champion(self) -> ServedModel:
        """The model that serves unless a client names another."""
        return self.models[0]

    @property
    def is_starter(self) -> bool:
        """Whether the registry has no champion, so that the starter model serves."""
        return self.champion.id != CHAMPION

    def find(self, name: str) -> ServedModel | None:
        """The model of an alias or label; `champion` is the first."""
        if name == CHAMPION:
            return self.champion
        return next((model for model in self.models if name in (model.id, model.label)), None)
