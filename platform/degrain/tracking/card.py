"""The card of a model: what it is, what it was trained on, and its scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from degrain.tracking.training_photos import TrainingPhotos

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
