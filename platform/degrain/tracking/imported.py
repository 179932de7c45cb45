"""The card of a model whose weights others published."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from degrain.tracking.card import ModelCard
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
