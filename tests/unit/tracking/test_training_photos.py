"""Photos that a model was trained on are recognised by their contents."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.patchset_support import ROW

from degrain.tracking.training_photos import TrainingPhotos, union_of

HASHES = st.frozensets(st.text("0123456789abcdef", min_size=16, max_size=16), max_size=20)


@given(HASHES)
def test_the_text_holds_all(hashes: frozenset[str]) -> None:
    photos = TrainingPhotos(hashes)
    assert TrainingPhotos.from_text(photos.to_text()) == photos


def test_a_photo_is_found_by_its_content_alone() -> None:
    seen = replace(ROW, clean_hash="ab" * 16)
    photos = TrainingPhotos.from_text(TrainingPhotos.of([seen]).to_text())
    assert replace(seen, id="another/name", noisy_hash="cd" * 16) in photos
    assert replace(seen, clean_hash="ac" * 16) not in photos


def test_a_union_with_unknown_photos_is_unknown() -> None:
    one, two = TrainingPhotos(frozenset({"a" * 16})), TrainingPhotos(frozenset({"b" * 16}))
    assert union_of([one, two]) == TrainingPhotos(one.hashes | two.hashes)
    assert union_of([one, None]) is None


@pytest.mark.parametrize("text", ["AAAA", "not base64!"])
def test_a_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"cut off|base64"):
        TrainingPhotos.from_text(text)
