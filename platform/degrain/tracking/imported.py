"""Models that come as files: their card, and their version in the registry."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from degrain.tracking.card import ModelCard, provenance_tags
from degrain.tracking.registry import ModelVersion, register
from degrain.tracking.runs import Tracker
from degrain.tracking.versions import git_commit
from denoisenets import model_contract


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


def register_import(
    tracker: Tracker, weights: Mapping[str, Tensor], card: ModelCard
) -> ModelVersion:
    """Register a network as a new version, under a run of its own."""
    with tracker.run(f"import {card.model}", "import", tags=provenance_tags(card)) as run:
        run.params({"model": card.model, "arguments": card.arguments})
        return register(tracker, run, weights, card)
