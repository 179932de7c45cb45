"""Whole photos of pairs that were read before, checked against the hashes of their records."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.imaging.codecs import UnreadablePhotoError
from degrain.imaging.pixels import Photo
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.checks import apply_shift, decode_pair
from degrain.storage.location import Storage

_READERS = 8


def content_hash(content: bytes | None) -> str:
    """SHA-256 of a file's bytes, its first 128 bits in hexadecimal; empty if there is no file."""
    return "" if content is None else hashlib.sha256(content).hexdigest()[:32]


def synthetic_hash(clean_hash: str, noise: str, seed: str) -> str:
    """Content hash of a noisy photo that is synthesised from a clean one."""
    return content_hash(f"{clean_hash} {noise} {seed}".encode())


@dataclass(frozen=True)
class PhotoSource:
    """Reads pairs of whole photos by their records; can be sent to other processes."""

    storage: Storage
    rules: CheckRules
    remedy: str = "ingest the corpus again"
    """What to do if a file is missing or changed."""

    def load(self, row: PairRecord) -> tuple[Photo, Photo]:
        """Noisy and clean photo, aligned. Raises UserError if a file is missing or changed."""
        noisy, clean = self._read(row)
        try:
            return apply_shift(
                *decode_pair(row, noisy, clean, self.rules), row.move_y or 0, row.move_x or 0
            )
        except UnreadablePhotoError as error:
            raise UserError(f"cannot read a photo: {error}; {self.remedy}") from None

    def check(self, rows: Sequence[PairRecord]) -> None:
        """Raise UserError if a photo of the rows is missing or changed."""
        with ThreadPoolExecutor(max_workers=_READERS) as pool:
            for _ in pool.map(lambda row: len(self._read(row)), rows):
                pass

    def _read(self, row: PairRecord) -> tuple[bytes, bytes]:
        clean = self._read_one(row.clean, row.clean_hash)
        return (clean if row.noise else self._read_one(row.noisy, row.noisy_hash)), clean

    def _read_one(self, uri: str, expected: str) -> bytes:
        try:
            content = self.storage.locate(uri).read_bytes()
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"cannot read '{uri}': {reason}; {self.remedy}") from None
        if content_hash(content) != expected:
            raise UserError(f"'{uri}' has changed since its pair was checked; {self.remedy}")
        return content
