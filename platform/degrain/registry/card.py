"""The card of a model: what it is, what it was trained on, and its scores."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from degrain.tracking.provenance import git_commit
from degrain.tracking.training_photos import TrainingPhotos
from denoisenets import model_contract

CARD_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Name, training data and scores of a trained network."""

    model: str
    """Name of the network in `denoisenets`."""
    arguments: Mapping[str, Any]
    """All its arguments."""
    patch_set: str | None
    """Version of the patch set it was trained on; None for imported weights."""
    training: Mapping[str, Any]
    """The training configuration; empty for imported weights."""
    crop: int
    """Side of the training crops, pixels; global means are computed over windows of this size."""
    size_multiple: int
    """The network accepts sides that are multiples of this, pixels."""
    halo: int
    """Pixels of context that a tile needs on each side."""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Protocol to psnr in dB, ssim, and the number of photos."""
    code: str | None = None
    """Git commit of the code that trained or imported it."""
    training_photos: str | None = None
    """Which photos it was trained on, in the form of `TrainingPhotos`; None if that is not
    known."""
    source: Mapping[str, str] | None = None
    """Of imported weights: `file`, its `sha256`, `licence` and, where known, `origin`."""
    format: int = CARD_FORMAT

    @property
    def photos(self) -> TrainingPhotos | None:
        """The photos it was trained on; None if they are not known."""
        text = self.training_photos
        return None if text is None else TrainingPhotos.from_text(text)


def provenance_tags(card: ModelCard) -> dict[str, str]:
    """The tags that tell what the weights were trained on, or where they were published."""
    patch_set = {} if card.patch_set is None else {"patch_set": card.patch_set}
    return patch_set | {f"source.{key}": value for key, value in (card.source or {}).items()}


def imported_card(
    model: str,
    arguments: Mapping[str, Any],
    file: Path,
    *,
    crop: int,
    licence: str,
    origin: str | None,
) -> ModelCard:
    """Create the card of the network `model` with converted weights of `file`.

    `arguments` are all arguments of the network, `crop` the side of the training crops in pixels.
    """
    contract = model_contract(model, **arguments)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    source = {"file": file.name, "sha256": digest, "licence": licence}
    return ModelCard(
        model=model,
        arguments=arguments,
        patch_set=None,
        training={},
        crop=crop,
        size_multiple=contract.size.multiple,
        halo=contract.receptive_radius,
        code=git_commit(),
        source=source if origin is None else {**source, "origin": origin},
    )
