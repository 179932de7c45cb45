"""The result of a training run, and the card of its model."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from degrain.imaging.metrics import PATCH_PROTOCOL
from degrain.patchsets.manifest import Manifest
from degrain.registry.card import ModelCard
from degrain.tracking.provenance import git_commit
from degrain.tracking.training_photos import TrainingPhotos
from degrain.training.config import TrainingConfig
from degrain.training.session import Metrics
from denoisenets import full_arguments, model_contract


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a training run."""

    config: TrainingConfig
    weights: Mapping[str, Tensor]
    """The averaged weights with the highest val PSNR: a state dict on the CPU."""
    metrics: Metrics
    """Metrics of their validation."""


def describe_result(result: TrainingResult) -> str:
    """One sentence on how a training run ended, for its description in MLflow."""
    metrics = result.metrics
    if metrics["step"] == 0:
        return (
            f"None of {result.config.steps} steps was better on the val split than the model that "
            f"training started from ({metrics['val_psnr']:.2f} dB), whose weights are kept: train "
            "longer, on more photos, or at a lower learning rate."
        )
    return (
        f"The best weights, of step {metrics['step']:.0f} of {result.config.steps}, have "
        f"{metrics['val_psnr']:.2f} dB and SSIM {metrics['val_ssim']:.3f} on the val split."
    )


def model_card(
    result: TrainingResult,
    patches: Manifest,
    photos: TrainingPhotos | None,
    scores: Mapping[str, Mapping[str, float]] | None = None,
) -> ModelCard:
    """Create the card of a network trained on `patches`.

    `photos` are all that it was trained on, None if they are not known. `scores`, by protocol, are
    added to those of its validation.
    """
    config, metrics = result.config, result.metrics
    contract = model_contract(config.model, **config.arguments)
    validation = {"psnr": metrics["val_psnr"], "ssim": metrics["val_ssim"]}
    return ModelCard(
        model=config.model,
        arguments=full_arguments(config.model, config.arguments),
        patch_set=patches.version,
        training=config.to_dict(),
        crop=config.crop_of(patches.geometry.patch_size),
        size_multiple=contract.size.multiple,
        halo=contract.receptive_radius,
        scores={PATCH_PROTOCOL: validation, **(scores or {})},
        code=git_commit(),
        training_photos=None if photos is None else photos.to_text(),
    )
