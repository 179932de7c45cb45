"""What is remembered of splits, beside the patch sets: `splits.parquet`.

A scene that was held out must stay held out under another name or label, after the newest patch set
was removed, and after an ingest without its corpus: models were trained on the others. So the split
of each scene is kept by its name and, which counts more, by what its clean photos show. Nothing is
ever forgotten.
"""

import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.imaging.looks import alike, thumbnail_vectors
from degrain.patchsets.splits import SPLITS
from degrain.storage.location import Location
from degrain.storage.sealed import DamagedFileError, DigestWriter

FILE = "splits.parquet"
_SCHEMA = pa.schema([(name, pa.string()) for name in ("scene", "pixels", "look", "split")])
_DIGEST = b"digest"
"""The digest of the rows, among the metadata of the schema."""


@dataclass(frozen=True)
class SplitMemory:
    """The splits of scenes by name, and of clean photos by their pixels."""

    scenes: Mapping[str, str] = field(default_factory=dict)
    photos: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Thumbnail and split of clean photos that show different things, by digests of pixels."""

    @classmethod
    def read(cls, root: Location) -> "SplitMemory":
        """Read what is remembered below `root`. Raises UserError for a damaged file."""
        try:
            content = (root / FILE).read_bytes()
        except FileNotFoundError:
            return cls()
        try:
            table = pq.read_table(io.BytesIO(content))
            known = (table.schema.metadata or {}).get(_DIGEST)
            if not table.schema.equals(_SCHEMA) or known != _digest(table):
                raise DamagedFileError("its rows are not what was written")
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(
                f"'{root / FILE}' is damaged ({str(error).splitlines()[0]}); restore it, or remove "
                "it: splits are then chosen anew, and models may have been trained on what is "
                "held out"
            ) from None
        rows = list(zip(*(table[name].to_pylist() for name in _SCHEMA.names), strict=True))
        return cls(
            {scene: split for scene, _, _, split in rows if scene is not None},
            {pixels: (look, split) for scene, pixels, look, split in rows if scene is None},
        )

    def write(self, root: Location) -> None:
        """Write it below `root`."""
        rows: list[tuple[str | None, ...]] = [
            (scene, None, None, split) for scene, split in sorted(self.scenes.items())
        ]
        rows += [(None, pixels, *known) for pixels, known in sorted(self.photos.items())]
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        table = pa.Table.from_arrays(columns, schema=_SCHEMA)
        buffer = io.BytesIO()
        pq.write_table(
            table.replace_schema_metadata({_DIGEST: _digest(table)}), buffer, compression="zstd"
        )
        (root / FILE).write_bytes(buffer.getvalue())

    def splits_of(
        self, records: Sequence[PairRecord], photos: Sequence[PairRecord]
    ) -> dict[str, str]:
        """The remembered split of each scene: of what it shows, or else of its name.

        `photos` are the `distinct_photos` of the records.
        """
        shown = self._splits_by_look(records, photos)
        names = {record.scene for record in records}
        return {scene: self.scenes[scene] for scene in names & self.scenes.keys()} | shown

    def _splits_by_look(
        self, records: Sequence[PairRecord], photos: Sequence[PairRecord]
    ) -> dict[str, str]:
        found: dict[str, list[str]] = defaultdict(list)
        for record in records:
            if record.clean_pixels in self.photos:
                found[record.scene].append(self.photos[record.clean_pixels][1])
        ours = [photo for photo in photos if photo.look]
        known = [(look, split) for look, split in self.photos.values() if look]
        for one, other in alike(
            thumbnail_vectors([photo.look for photo in ours]),
            thumbnail_vectors([look for look, _ in known]),
        ):
            found[ours[one].scene].append(known[other][1])
        return {scene: max(splits, key=SPLITS.index) for scene, splits in found.items()}

    def with_splits(self, splits: Mapping[str, str], photos: Sequence[PairRecord]) -> "SplitMemory":
        """With these splits by scene, too, and what the scenes show: their `distinct_photos`."""
        shown = {p.clean_pixels: (p.look, splits[p.scene]) for p in photos}
        return SplitMemory({**self.scenes, **splits}, {**self.photos, **shown})


def _digest(table: pa.Table) -> bytes:
    """The digest of the rows of a table."""
    found = DigestWriter()
    for column in table.columns:
        found.write(json.dumps(column.to_pylist()).encode())
    return found.result().digest.encode()
