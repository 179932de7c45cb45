"""Patch sets and corpora as inputs of MLflow runs, which the UI shows in the column Dataset."""

import json
from collections.abc import Iterable, Sequence

from mlflow.entities import Dataset, DatasetInput, InputTag

from degrain.corpora.config import split_name
from degrain.corpora.record import PairRecord
from degrain.patchsets.manifest import digest
from degrain.patchsets.patch_set import PatchSet

_COLUMNS = {"noisy": "binary", "clean": "binary", "pair": "string", "y": "long", "x": "long"}
"""Columns of a shard and their types in MLflow."""


def patch_set_inputs(patch_set: PatchSet, splits: Iterable[str]) -> list[DatasetInput]:
    """The splits of a patch set as inputs of a run: `train` for training, others for evaluation.

    Each split is a dataset, because MLflow stores one use of a dataset per run.
    """
    return [
        DatasetInput(
            _split(patch_set, split),
            [InputTag("mlflow.data.context", "training" if split == "train" else "evaluation")],
        )
        for split in splits
    ]


def pair_inputs(pairs: Sequence[PairRecord], corpora: Sequence[str]) -> list[DatasetInput]:
    """The whole pairs of corpora NAME=URI as the input of an evaluation; its digest is that of the
    photos' contents.
    """
    parsed = [split_name(text) for text in corpora]
    uris = [uri for _, _, uri in parsed]
    dataset = Dataset(
        name=", ".join(dict.fromkeys(label for _, label, _ in parsed)),
        digest=digest(sorted([pair.noisy_hash, pair.clean_hash] for pair in pairs)),
        source_type="s3" if any(uri.startswith("s3://") for uri in uris) else "local",
        source=json.dumps({"uris": uris}),
        profile=json.dumps({"pairs": len(pairs), "scenes": len({pair.scene for pair in pairs})}),
    )
    return [DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")])]


def _split(patch_set: PatchSet, split: str) -> Dataset:
    pairs, scenes = patch_set.counts[split]
    schema = [{"name": k, "type": v, "required": True} for k, v in _COLUMNS.items()]
    profile = {
        "pairs": pairs,
        "scenes": scenes,
        "patches": patch_set.manifest.patches(split),
        "patch_size": patch_set.manifest.geometry.patch_size,
    }
    name = patch_set.root.uri.rstrip("/").rpartition("/")[2]
    return Dataset(
        name=f"{name} {split}",
        digest=patch_set.manifest.version,
        source_type="s3" if patch_set.root.remote else "local",
        source=json.dumps({"uri": patch_set.uri}),
        schema=json.dumps({"mlflow_colspec": schema}),
        profile=json.dumps(profile),
    )
