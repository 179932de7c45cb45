"""Ingest without Ray: the tasks of a real ingest run one after the other in this process."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from unit.support import random_photo, with_noise, write_png

from degrain.corpora.config import CorpusOptions
from degrain.corpora.record import PairRecord
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.ingest import run
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.cut import CutShard, cut_chunk
from degrain.storage.location import Location, Storage

STORAGE = Storage()
GEOMETRY = PatchGeometry(patch_size=16)
OPTIONS = CorpusOptions(
    noisy_name="noisy/{scene}_{name}.png", clean_name="clean/{scene}_{name}.png"
)
"""The names of `write_pair`."""
SIDE = 32
"""Of the photos of `write_pair`, pixels: four patches of GEOMETRY."""


def serial_ingest(
    corpus: Path | str | Sequence[str],
    out: Path | str,
    *,
    storage: Storage = STORAGE,
    before_publishing: Callable[[], None] = lambda: None,
    **fields: Any,  # noqa: ANN401 - fields of a configuration
) -> run.IngestResult:
    """Ingest a folder of pairs, or corpora by their names; `fields` are those of IngestConfig."""
    if isinstance(corpus, Path):
        corpus = f"pairs={corpus}"
    corpora = [corpus] if isinstance(corpus, str) else corpus
    usual = {"geometry": GEOMETRY, "options": OPTIONS, "max_refused": 0.5}
    with patch.object(run, "cut_in_parallel", _cut_in_turn):
        config = IngestConfig(corpus=corpora, out=str(out), **{**usual, **fields})
        return run.ingest(config, storage, before_publishing=before_publishing)


def _cut_in_turn(
    chunks: Sequence[Sequence[PairRecord]],
    root: Location,
    geometry: PatchGeometry,
    rules: CheckRules,
) -> Iterator[CutShard]:
    for chunk in chunks:
        yield cut_chunk(chunk, root, geometry, rules)


def write_pair(folder: Path, scene: str, name: str = "0", seed: int = 0) -> None:
    """Write a pair of photos; its content depends on all but the folder."""
    clean = _clean_photo(f"{scene}/{name}/{seed}")
    write_png(folder / f"clean/{scene}_{name}.png", clean)
    write_png(folder / f"noisy/{scene}_{name}.png", with_noise(clean, seed))


def write_pairs(folder: Path, scenes: int = 6, shots: int = 1) -> Path:
    """Write `shots` pairs of each of several scenes; three are the least that can be split."""
    for number in range(scenes):
        for shot in range(shots):
            write_pair(folder, f"s{number}", str(shot))
    return folder


def _clean_photo(content: str) -> NDArray[np.uint8]:
    """Blocks of random colours."""
    blocks = random_photo(SIDE // 4, SIDE // 4, zlib.crc32(content.encode())) // 2 + 64
    return np.asarray(np.kron(blocks, np.ones((4, 4, 1), np.uint8)))
