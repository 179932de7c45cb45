"""Reading shards: what is damaged is found at the first reading, and named."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from documented import ROOT
from ray import cloudpickle
from unit.ingest_support import serial_ingest, write_pairs

from degrain.errors import UserError
from degrain.patchsets.manifest import Shard
from degrain.patchsets.patch_set import PatchSet

PATHS = [str(ROOT / folder) for folder in ("platform", "models")]


@pytest.fixture
def patch_set(tmp_path: Path) -> PatchSet:
    return serial_ingest(write_pairs(tmp_path / "photos"), tmp_path / "out").patch_set


def file_of(patch_set: PatchSet, shard: Shard) -> Path:
    return Path(patch_set.root.path, "shards", f"{shard.key}.parquet")


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 16
    file.write_bytes(content)


def test_a_changed_a_cut_and_a_missing_shard_are_named(patch_set: PatchSet) -> None:
    for shard, damage, problem in zip(
        patch_set.manifest.shards,
        (
            lambda file: flip(file, 999),
            lambda file: file.write_bytes(file.read_bytes()[:-1]),
            lambda file: file.write_bytes(b""),
            lambda file: file.unlink(),
        ),
        (
            "it is damaged: its content is not what was written",
            f"it is damaged: .* bytes instead of {patch_set.manifest.shards[1].bytes}",
            "it is damaged: 0 bytes instead of",
            "there is no such file",
        ),
        strict=False,
    ):
        file = file_of(patch_set, shard)
        damage(file)
        with pytest.raises(
            UserError,
            match=f"cannot read '{file}': {problem}.*; ingest the corpus again with `reread`",
        ):
            patch_set.read_shard(shard)


def test_size_and_rows_are_checked_at_each_reading(patch_set: PatchSet) -> None:
    shard = patch_set.manifest.shards[0]
    noisy, _ = patch_set.read_shard(shard)
    assert len(noisy) == shard.patches
    with pytest.raises(UserError, match="it has 4 patches, and the manifest names 5"):
        patch_set.read_shard(replace(shard, patches=5))
    file = file_of(patch_set, shard)
    table = pq.read_table(file)
    pq.write_table(table.slice(0, 2), file, compression="none", use_dictionary=["pair"])
    with pytest.raises(UserError, match=f"{file.name}': it is damaged: .* bytes instead of"):
        patch_set.read_shard(shard)


def test_the_digest_is_computed_once_in_a_process(patch_set: PatchSet) -> None:
    """So that reading a split again costs nothing more; another process computes it again."""
    shard = patch_set.manifest.shards[0]
    noisy, _ = patch_set.read_shard(shard)
    file = file_of(patch_set, shard)
    content = file.read_bytes()
    flip(file, content.index(noisy[0].tobytes()))
    assert np.count_nonzero(patch_set.read_shard(shard)[0] != noisy) == 1
    command = (
        f"import sys; sys.path[:0] = {PATHS}\n"
        "from degrain.patchsets.patch_set import PatchSet\n"
        "from degrain.storage.location import Storage\n"
        f"patch_set = PatchSet.open({patch_set.uri!r}, Storage())\n"
        "patch_set.read_shard(patch_set.manifest.shards[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert f"cannot read '{file}': it is damaged" in done.stderr


def test_what_is_sent_with_each_shard_does_not_grow_with_the_set(patch_set: PatchSet) -> None:
    _ = patch_set.catalog
    many = replace(patch_set.manifest, shards=[*patch_set.manifest.shards] * 1000)
    sets = [patch_set, PatchSet(patch_set.root, many)]
    small, large = (len(cloudpickle.dumps(each.reader)) for each in sets)
    assert small == large < 1000


def test_the_ids_of_a_shard_s_pairs_are_read(patch_set: PatchSet) -> None:
    rows = {row.shard: row.id for row in patch_set.catalog}
    for shard in patch_set.manifest.shards:
        assert patch_set.reader.pairs(shard) == [rows[shard.key]]
