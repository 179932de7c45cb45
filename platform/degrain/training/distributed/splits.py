"""The splits of a training run: resident or streamed train patches, and a sample of val."""

from dataclasses import dataclass, replace

from degrain.errors import UserError
from degrain.imaging.metrics import PATCH_PROTOCOL
from degrain.loading.resident import (
    ResidentSplit,
    Split,
    StreamedSplit,
    fits,
    make_resident,
    make_sample,
    make_streamed,
    window_megabytes,
)
from degrain.patchsets.noise import fit_noises, noise_values
from degrain.patchsets.patch_set import PatchSet
from degrain.training.config import TrainingConfig


@dataclass(frozen=True)
class TrainingSplits:
    """The patches for training and for validation."""

    train: Split
    val: Split


def patch_set_tags(patch_set: PatchSet) -> dict[str, str]:
    """The tags of an MLflow run that uses a patch set."""
    return {
        "patch_set": patch_set.manifest.version,
        "patch_set.uri": patch_set.uri,
        "val_protocol": PATCH_PROTOCOL,
    }


def open_splits(
    config: TrainingConfig, patch_set: PatchSet
) -> tuple[TrainingConfig, TrainingSplits]:
    """Open the splits of a patch set; the returned configuration has `batches` and
    `window_megabytes` as they were chosen.

    Raises UserError if a split is empty or too small for a batch, or `noise` does not apply to it.
    """
    patches = patch_set.manifest.patches("train")
    if patches < config.batch_size:
        raise UserError(
            f"the train split of {patch_set.uri} has {patches} patches, fewer than a batch of "
            f"{config.batch_size}; lower `batch_size` or ingest more photos"
        )
    if config.noise == "on-the-fly" and all(row.noise is None for row in patch_set.catalog):
        raise UserError(
            f"`noise` is 'on-the-fly', but {patch_set.uri} has no patches of clean-only corpora; "
            "leave `noise` out, or ingest a corpus of clean photos"
        )
    if config.teacher is None and any(
        row.unpaired and row.refused is None for row in patch_set.catalog
    ):
        raise UserError(
            f"{patch_set.uri} has noisy photos without clean partners, whose targets a teacher "
            "makes; name a model with `teacher`, or ingest without the corpus 'noisy'"
        )
    if config.batches == "auto":
        in_memory = fits(patch_set, "train")
        config = replace(config, batches="resident" if in_memory else "streaming")
    if config.batches == "streaming":
        window = config.window_megabytes or window_megabytes(patch_set, "train")
        # A resumed run has the same windows, whatever store there is then.
        config = replace(config, window_megabytes=window)
        train: ResidentSplit | StreamedSplit = make_streamed(patch_set, "train", window * 10**6)
    else:
        train = make_resident(patch_set, "train")
    if config.synthetic_share and train.metadata is not None:
        fitted = tuple(f"near:{noise_values(fit)}" for fit in fit_noises(patch_set, "train"))
        train = replace(train, metadata=replace(train.metadata, fitted=fitted))
    val = make_sample(patch_set, "val", config.validation_patches)
    return config, TrainingSplits(train, val)
