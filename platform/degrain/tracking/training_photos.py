"""Which photos a model was trained on, by their contents: so that a test on one of them is noticed.

A card holds the first eight bytes of each clean photo's content hash, of a noisy photo's where it
has no clean partner. Photos of the models that training started from or learnt from are among them.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from degrain.corpora.record import PairRecord

_DIGITS = 16
"""Hexadecimal digits of a hash that are kept: one of 10 million photos agrees by chance with one of
10 million others once in 180,000 times.
"""


@dataclass(frozen=True)
class TrainingPhotos:
    """A set of photos by their content hashes."""

    hashes: frozenset[str] = field(default_factory=frozenset)
    """First hexadecimal digits of the hashes."""

    @classmethod
    def of(cls, rows: Iterable[PairRecord]) -> "TrainingPhotos":
        """The photos of pairs."""
        return cls(frozenset(row.clean_hash[:_DIGITS] for row in rows))

    def __contains__(self, row: PairRecord) -> bool:
        return row.clean_hash[:_DIGITS] in self.hashes

    def __or__(self, other: "TrainingPhotos") -> "TrainingPhotos":
        return TrainingPhotos(self.hashes | other.hashes)

    def to_text(self) -> str:
        """Base64 of the sorted hashes, eight bytes each."""
        joined = b"".join(bytes.fromhex(h) for h in sorted(self.hashes))
        return base64.b64encode(joined).decode()

    @classmethod
    def from_text(cls, text: str) -> "TrainingPhotos":
        """Read `to_text`'s form. Raises ValueError for another."""
        content = base64.b64decode(text, validate=True)
        if len(content) % (_DIGITS // 2):
            raise ValueError("the hashes of training photos are cut off")
        rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, _DIGITS // 2)
        return cls(frozenset(bytes(row).hex() for row in rows))


def union_of(parts: Iterable[TrainingPhotos | None]) -> TrainingPhotos | None:
    """All photos of several models; None if those of one are not known."""
    together = TrainingPhotos()
    for part in parts:
        if part is None:
            return None
        together |= part
    return together
