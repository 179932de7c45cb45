"""Cut one chunk: read, check and cut pairs of one scene into a shard, or find that shard.

A shard is named by its content. Beside it, a file that is named by a hash of the photos' contents
stores the measurements of its pairs and the name of the shard, so that photos that were cut before
are not cut again.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow.parquet as pq

from degrain.corpora.record import PairRecord
from degrain.imaging.codecs import is_deep
from degrain.imaging.pixels import Photo
from degrain.imaging.stored_photo import UnreadablePhotoError
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.manifest import Shard, cutter, digest
from degrain.patchsets.pair_files import PairFiles, check_pair, read_files
from degrain.patchsets.reading import shard_file
from degrain.patchsets.shards import pair_tables, shard_schema
from degrain.storage.atomic import AtomicWrite
from degrain.storage.location import Location
from degrain.storage.sealed import DamagedFileError, DigestWriter, FileDigest, seal, unseal


@dataclass(frozen=True)
class CutShard:
    """The records of a chunk, and the shard with the patches of those that were not refused."""

    records: Sequence[PairRecord]
    shard: Shard | None
    """None if every pair was refused."""
    written: bool = False
    """Whether the shard was written now; it was found otherwise."""

    def with_split(self, splits: Mapping[str, str]) -> "CutShard":
        """With the split of its scene."""
        records = [replace(record, split=splits[record.scene]) for record in self.records]
        shard = self.shard and replace(self.shard, split=records[0].split)
        return replace(self, records=records, shard=shard)


def cut_chunk(
    chunk: Sequence[PairRecord], root: Location, geometry: PatchGeometry, rules: CheckRules
) -> CutShard:
    """Read, check and cut pairs of one scene into a shard below `root`, or find the shard there."""
    files = [read_files(pair, root.storage) for pair in chunk]
    measured = root / "shards" / f"{_chunk_key(chunk, files, geometry, rules)}.json"
    if (found := _read_measured(chunk, measured, root)) is not None:
        return found
    contents = (content for pair in files for content in (pair.noisy, pair.clean))
    bits = 16 if any(content is not None and is_deep(content) for content in contents) else 8
    records: list[PairRecord] = []
    with AtomicWrite(root / "shards", "shard") as file:
        digest = DigestWriter(file)
        with _writer(digest, geometry, bits) as writer:
            for number, pair in enumerate(chunk):
                # The files of a large pair need not stay in memory while its patches are cut.
                content, files[number] = files[number], PairFiles(None, None, "", "")
                records.append(_cut_pair(pair, content, writer, geometry, rules, bits))
        made, patches = digest.result(), sum(record.patches for record in records)
        if patches:
            file.publish(f"{made.digest}.parquet")
    if not patches:
        return CutShard(records, None)
    shard = Shard(
        key=made.digest, split=chunk[0].split, patches=patches, bits=bits, bytes=made.size
    )
    records = [r if r.refused is not None else replace(r, shard=shard.key) for r in records]
    # Refused pairs are read again, so the measurements of their chunk must not be found.
    if all(record.refused is None for record in records):
        measured.write_bytes(_measured_bytes(records, shard))
    return CutShard(records, shard, written=True)


def _writer(file: DigestWriter, geometry: PatchGeometry, bits: int) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file,
        shard_schema(geometry, bits),
        compression="none",
        use_dictionary=["pair"],
        write_statistics=False,
        # Arrow counts values, and a patch is a large one.
        write_batch_size=16,
    )


def _cut_pair(
    pair: PairRecord,
    files: PairFiles,
    writer: pq.ParquetWriter,
    geometry: PatchGeometry,
    rules: CheckRules,
    bits: int,
) -> PairRecord:
    """Check one pair and write its patches; the record is refused if a check fails."""
    pair = files.described(pair)
    try:
        photos, pair = _check_pair(pair, files, geometry, rules)
    except UnreadablePhotoError as error:
        return replace(pair, refused=str(error))
    del files
    patches = 0
    for table in pair_tables(pair.id, *photos, geometry, bits):
        writer.write_table(table)
        patches += table.num_rows
    return replace(pair, patches=patches)


def _check_pair(
    pair: PairRecord, files: PairFiles, geometry: PatchGeometry, rules: CheckRules
) -> tuple[tuple[Photo, Photo], PairRecord]:
    """See `check_pair`; a pair that is smaller than a patch is refused too."""
    photos, pair = check_pair(pair, files, rules)
    height, width = photos[0].shape[:2]
    if min(height, width) < geometry.patch_size:
        raise UnreadablePhotoError(
            f"{pair.noisy} is {width}x{height}, smaller than a patch of {geometry.patch_size}; "
            "lower `patch_size`"
        )
    return photos, pair


def _chunk_key(
    chunk: Sequence[PairRecord],
    files: Sequence[PairFiles],
    geometry: PatchGeometry,
    rules: CheckRules,
) -> str:
    hashes = [[p.id, p.own, f.noisy_hash, f.clean_hash] for p, f in zip(chunk, files, strict=True)]
    return digest([cutter(), asdict(geometry), asdict(rules), hashes])


def _measured_bytes(records: Sequence[PairRecord], shard: Shard) -> bytes:
    pairs = [record.measurements() for record in records]
    return seal({"pairs": pairs, "shard": asdict(shard)})


def _read_measured(
    chunk: Sequence[PairRecord], measured: Location, root: Location
) -> CutShard | None:
    """The result of the former cut of a chunk; None if there was none, or a file is damaged."""
    with contextlib.suppress(FileNotFoundError, DamagedFileError):
        content = unseal(measured.read_bytes())
        shard = Shard(**{**content["shard"], "split": chunk[0].split})
        shard.file.check(FileDigest.read(shard_file(root, shard.key)))
        pairs = zip(chunk, content["pairs"], strict=True)
        return CutShard([pair.measured(values) for pair, values in pairs], shard)
    return None
