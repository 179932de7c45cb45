"""Digests of files: what was damaged on a disk or on its way is not taken for what was written.

A digest is the first 128 bits of SHA-256 in hexadecimal; processors of today compute it at 1.5 to 2
GB/s. A sealed file holds its own: it is a JSON object whose last entry is the digest of all bytes
before that entry. That of another file is named by a sealed one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from degrain.storage.json_file import json_bytes
from degrain.storage.location import Location

_DIGITS = 32
_PIECE_BYTES = 16 * 2**20
"""Bytes of a file that are read at once to compute its digest."""
_END = b"\n}\n"
_SEAL = b',\n "digest": "%s"' + _END
_SEAL_BYTES = len(_SEAL) - len(b"%s") + _DIGITS


class DamagedFileError(ValueError):
    """The content of a file is not what was written."""


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    """What a file must be to be whole."""

    digest: str
    size: int
    """Bytes."""

    @classmethod
    def of(cls, content: bytes) -> "FileDigest":
        """The digest of a content in memory."""
        return cls(digest=content_digest(content), size=len(content))

    @classmethod
    def read(cls, file: Location) -> "FileDigest":
        """The digest of a file, which is not held in memory."""
        found = DigestWriter()
        with file.filesystem.open_input_file(file.path) as opened:
            while piece := opened.read(_PIECE_BYTES):
                found.write(piece)
        return found.result()

    def check(self, found: "FileDigest") -> None:
        """Raise DamagedFileError unless a file has this size and digest."""
        if found.size != self.size:
            raise DamagedFileError(f"it is damaged: {found.size} bytes instead of {self.size}")
        if found.digest != self.digest:
            raise DamagedFileError("it is damaged: its content is not what was written")


class Writable(Protocol):
    """A file as a writer sees it."""

    def write(self, content: bytes, /) -> int:
        """Append bytes."""
        ...


class DigestWriter:
    """A file that computes the digest of what is written, and passes it on to another, if any."""

    def __init__(self, file: Writable | None = None) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0
        self.closed = False
        """Asked for by pyarrow."""

    def write(self, content: bytes) -> int:
        """Append bytes."""
        self._hash.update(content)
        self._size += len(content)
        return len(content) if self._file is None else self._file.write(content)

    def result(self) -> FileDigest:
        """The digest of all that was written."""
        return FileDigest(digest=self._hash.hexdigest()[:_DIGITS], size=self._size)


def content_digest(content: bytes | memoryview) -> str:
    """The digest of a content in memory."""
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def seal(content: Mapping[str, object]) -> bytes:
    """A sealed file; `content` must not be empty."""
    text = json_bytes(content).removesuffix(_END)
    return text + _SEAL % content_digest(text).encode()


def unseal(file: bytes) -> dict[str, Any]:
    """The content of a sealed file. Raises DamagedFileError if it is not what was written."""
    text, end = file[:-_SEAL_BYTES], file[-_SEAL_BYTES:]
    if end != _SEAL % content_digest(text).encode():
        raise DamagedFileError("it is damaged, or of another version of degrain")
    content: dict[str, Any] = json.loads(text + _END)
    return content
