"""Reads the files of a patch set; the only place where they are read, and where they are checked.

A file is checked against its digest when a process reads it for the first time.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.imaging.pixels import Photo
from degrain.patchsets.catalog import catalog_tables
from degrain.patchsets.manifest import Manifest, Shard
from degrain.patchsets.packed import pack
from degrain.patchsets.shards import column_patches
from degrain.storage.location import Location
from degrain.storage.retry import retry
from degrain.storage.sealed import DamagedFileError, FileDigest, content_digest, unseal

_checked: set[str] = set()
"""URIs of the shards that this process has found whole."""


class DamagedSetError(UserError):
    """A file of a patch set is missing or damaged."""


def pointer_file(root: Location) -> Location:
    """The file that names the newest version below the folder that ingest writes to."""
    return root / "current.json"


def manifest_file(folder: Location) -> Location:
    """The manifest in the folder of a version."""
    return folder / "manifest.json"


def catalog_file(folder: Location, digest: str) -> Location:
    """A catalog in the folder of a version, named by its content."""
    return folder / f"catalog-{digest}.parquet"


def shard_file(root: Location, key: str) -> Location:
    """A shard below the folder that ingest writes to."""
    return root / "shards" / f"{key}.parquet"


def read_pointer(root: Location) -> str | None:
    """The newest version below `root`; None if there is none. Raises DamagedSetError."""
    file = pointer_file(root)
    with contextlib.suppress(FileNotFoundError), _naming(file):
        return str(unseal(file.read_bytes())["version"])
    return None


def read_manifest(folder: Location) -> Manifest | None:
    """The manifest of a version; None if there is none. Raises DamagedSetError."""
    file = manifest_file(folder)
    with contextlib.suppress(FileNotFoundError), _naming(file):
        return Manifest.from_json(file.read_bytes())
    return None


def open_catalog(folder: Location, expected: FileDigest) -> Sequence[PairRecord]:
    """The catalog of a version, packed if it is long. Raises DamagedSetError."""
    file = catalog_file(folder, expected.digest)
    try:
        with _naming(file):
            # Of a file on disk, only the rows that are being packed are in memory.
            if file.remote:
                content = file.read_bytes()
                expected.check(FileDigest.of(content))
                return pack(catalog_tables(io.BytesIO(content)))
            expected.check(FileDigest.read(file))
            return pack(catalog_tables(pa.OSFile(file.path)))
    except FileNotFoundError:
        raise _damaged(file, "there is no such file") from None


@dataclass(frozen=True)
class ShardReader:
    """Reads shards; small, so that it can be sent to other processes with each of them."""

    root: Location
    """The folder that ingest wrote to."""
    side: int
    """Of a patch, pixels."""

    def read(self, shard: Shard) -> tuple[Photo, Photo]:
        """Noisy and clean patches of one shard, each (N, P, P, 3) uint8 or uint16.

        Raises DamagedSetError if it is missing or damaged.
        """
        table = self._read(shard, "noisy", "clean")
        return column_patches(table["noisy"], self.side, shard.bits), column_patches(
            table["clean"], self.side, shard.bits
        )

    def pairs(self, shard: Shard) -> list[str]:
        """The ids of the pairs of a shard. Raises DamagedSetError if it is missing or damaged."""
        ids: list[str] = self._read(shard, "pair")["pair"].unique().to_pylist()
        return ids

    def _read(self, shard: Shard, *columns: str) -> pa.Table:
        file = shard_file(self.root, shard.key)
        try:
            with _naming(file):
                return retry(lambda: _read_columns(file, shard, columns))
        except FileNotFoundError:
            raise _damaged(file, "there is no such file") from None


def _read_columns(file: Location, shard: Shard, columns: Sequence[str]) -> pa.Table:
    """Columns of a shard. Raises DamagedFileError."""
    content = _read_whole(file)
    try:
        _check_shard(file, content, shard)
    except DamagedFileError:
        if not file.remote:
            raise
        # What was damaged on its way from a bucket is whole the second time.
        content = _read_whole(file)
        _check_shard(file, content, shard)
    table = pq.read_table(pa.BufferReader(content), columns=list(columns), pre_buffer=False)
    if table.num_rows != shard.patches:
        raise DamagedFileError(
            f"it has {table.num_rows} patches, and the manifest names {shard.patches}"
        )
    return table


def _read_whole(file: Location) -> pa.Buffer:
    """The bytes of a file: of one on disk mapped, so that they are copied once, by Parquet; from a
    bucket with one request.
    """
    if file.remote:
        return pa.py_buffer(file.read_bytes())
    with pa.memory_map(file.path) as mapped:
        return mapped.read_buffer()


def _check_shard(file: Location, content: pa.Buffer, shard: Shard) -> None:
    """Check the size at each reading, and the digest at the first one of this process."""
    known = file.uri in _checked and content.size == shard.bytes
    digest = shard.key if known else content_digest(memoryview(content))
    shard.file.check(FileDigest(digest=digest, size=content.size))
    _checked.add(file.uri)


@contextlib.contextmanager
def _naming(file: Location) -> Iterator[None]:
    """Raise DamagedSetError, which names the file, for whatever is wrong with its content.

    A missing file, and a bucket that does not answer, stay errors of storage.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        if file.remote and isinstance(error, OSError):
            raise
        raise _damaged(file, str(error).splitlines()[0]) from None


def _damaged(file: Location, problem: str) -> DamagedSetError:
    return DamagedSetError(
        f"cannot read '{file}': {problem}; ingest the corpus again with `reread`"
    )
