"""Whole photos of pairs that were read before, checked against the hashes of their records."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.imaging.codecs import UnreadablePhotoError
from degrain.imaging.pixels import Photo
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.checks import correct, decode_pair
from degrain.storage.location import Storage
from degrain.storage.sealed import FileDigest, content_digest

_READERS = 8


@dataclass(frozen=True)
class PhotoSource:
    """Reads pairs of whole photos by their records; can be sent to other processes."""

    storage: Storage
    rules: CheckRules
    remedy: str = "ingest the corpus again with `reread`"
    """What to do if a file is missing or changed."""

    def load(self, row: PairRecord) -> tuple[Photo, Photo]:
        """Noisy and clean photo, aligned and exposed alike.

        Raises UserError if a file is missing or changed.
        """
        noisy, clean = self._read(row)
        try:
            return correct(*decode_pair(row, noisy, clean, self.rules), row)
        except UnreadablePhotoError as error:
            raise UserError(f"cannot read a photo: {error}; {self.remedy}") from None

    def check(self, rows: Sequence[PairRecord]) -> None:
        """Raise UserError if a photo of the rows is missing or changed."""
        with ThreadPoolExecutor(max_workers=_READERS) as pool:
            for _ in pool.map(self._check, rows):
                pass

    def _check(self, row: PairRecord) -> None:
        self._check_one(row.clean, row.clean_hash)
        if row.noise is None:
            self._check_one(row.noisy, row.noisy_hash)

    def _check_one(self, uri: str, expected: str) -> None:
        with self._named(uri):
            found = FileDigest.read(self.storage.locate(uri))
        self._compare(uri, found.digest, expected)

    def _read(self, row: PairRecord) -> tuple[bytes, bytes]:
        clean = self._read_one(row.clean, row.clean_hash)
        return (clean if row.noise else self._read_one(row.noisy, row.noisy_hash)), clean

    def _read_one(self, uri: str, expected: str) -> bytes:
        with self._named(uri):
            content = self.storage.locate(uri).read_bytes()
        self._compare(uri, content_digest(content), expected)
        return content

    @contextlib.contextmanager
    def _named(self, uri: str) -> Iterator[None]:
        """Errors of reading a file name it."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"cannot read '{uri}': {reason}; {self.remedy}") from None

    def _compare(self, uri: str, found: str, expected: str) -> None:
        if found != expected:
            raise UserError(f"'{uri}' has changed since its pair was checked; {self.remedy}")
