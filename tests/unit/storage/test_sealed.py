"""Sealed files: whatever is changed in one is found."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from degrain.storage.location import Storage
from degrain.storage.sealed import (
    DamagedFileError,
    DigestWriter,
    FileDigest,
    content_digest,
    seal,
    unseal,
)

CONTENT = {"version": "ä1", "shards": [{"key": "00ff", "patches": 3}], "pixels": 0.5, "none": None}
SEALED = seal(CONTENT)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # JSON has no half of a character.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc{}\\n"), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text("abc", min_size=1), values, min_size=1))
def test_a_sealed_file_is_read_back_and_is_json(content: dict[str, object]) -> None:
    assert unseal(seal(content)) == {**content}
    assert json.loads(seal(content)) == {**content, "digest": json.loads(seal(content))["digest"]}


def test_every_changed_bit_and_every_cut_is_found() -> None:
    assert unseal(SEALED) == CONTENT
    for place in range(len(SEALED)):
        for bit in range(8):
            changed = bytearray(SEALED)
            changed[place] ^= 1 << bit
            with pytest.raises(DamagedFileError):
                unseal(bytes(changed))
        with pytest.raises(DamagedFileError):
            unseal(SEALED[:place])
        with pytest.raises(DamagedFileError):
            unseal(SEALED[place + 1 :])
    with pytest.raises(DamagedFileError):
        unseal(SEALED + b"\n")


def test_a_file_without_a_digest_is_refused() -> None:
    with pytest.raises(DamagedFileError, match="it is damaged, or of another version of degrain"):
        unseal(json.dumps(CONTENT).encode())


def test_the_digest_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 2**17  # two pieces
    (tmp_path / "file").write_bytes(content)
    found = FileDigest.read(Storage().locate(tmp_path / "file"))
    assert found == FileDigest.of(content)
    assert found.digest == content_digest(memoryview(content))
    writer = DigestWriter()
    for start in range(0, len(content), 999_999):
        writer.write(content[start : start + 999_999])
    assert writer.result() == found


def test_a_file_of_another_size_or_content_is_damaged() -> None:
    known = FileDigest.of(b"content")
    known.check(FileDigest.of(b"content"))
    with pytest.raises(DamagedFileError, match="it is damaged: 6 bytes instead of 7"):
        known.check(FileDigest.of(b"conten"))
    with pytest.raises(DamagedFileError, match="its content is not what was written"):
        known.check(FileDigest.of(b"Content"))
