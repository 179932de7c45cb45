"""Photos of a patch set are read only while they are those that were checked."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from unit.support import pair_record

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.photos import PhotoSource
from degrain.storage import sealed
from degrain.storage.location import Storage

SOURCE = PhotoSource(Storage(), CheckRules())


def stored(folder: Path, size: int) -> PairRecord:
    names = ("noisy", "clean")
    contents = [np.random.default_rng(n).bytes(size) for n in range(2)]
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    noisy, clean = map(sealed.content_digest, contents)
    places = {name: str(folder / name) for name in names}
    return pair_record(**places, noisy_hash=noisy, clean_hash=clean)


def test_unchanged_files_pass_and_large_ones_are_hashed_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed, "_PIECE_BYTES", 2**16)
    row = stored(tmp_path, 2**22)
    tracemalloc.start()
    try:
        SOURCE.check([row])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2**21


@pytest.mark.parametrize("name", ["noisy", "clean"])
def test_changed_and_missing_files_are_named(tmp_path: Path, name: str) -> None:
    row = stored(tmp_path, 1000)
    (tmp_path / name).write_bytes(bytes(1000))
    message = (
        f"'{tmp_path}/{name}' has changed since its pair was checked; "
        "ingest the corpus again with `reread`"
    )
    for read in (lambda: SOURCE.check([row]), lambda: SOURCE.load(row)):
        with pytest.raises(UserError, match=message):
            read()
    (tmp_path / name).unlink()
    for read in (lambda: SOURCE.check([row]), lambda: SOURCE.load(row)):
        with pytest.raises(UserError, match=f"cannot read '{tmp_path}/{name}': .+; ingest"):
            read()


def test_the_noisy_file_of_a_synthetic_pair_is_not_looked_for(tmp_path: Path) -> None:
    row = stored(tmp_path, 1000)
    made = pair_record(
        noisy="/nowhere", clean=row.clean, clean_hash=row.clean_hash, noise="gaussian:9"
    )
    SOURCE.check([made])
