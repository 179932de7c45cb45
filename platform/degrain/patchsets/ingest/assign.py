"""The splits of an ingest: by names of scenes before photos are read, then by what they show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.memory import SplitMemory
from degrain.patchsets.ingest.subjects import distinct_photos, group_scenes
from degrain.patchsets.packed import transform
from degrain.patchsets.splits import assign_splits

_SHOWN = 5
"""Scenes that an error names."""


@dataclass(frozen=True)
class Splits:
    """The splits of an ingest."""

    of: Mapping[str, str]
    """By scene."""
    alike: int
    """Scenes that show what another scene shows."""
    moves: list[str]
    """Scenes that are in another split than is remembered, in words."""
    photos: Sequence[PairRecord]
    """What the scenes show, see `distinct_photos`."""


def split_by_name(
    pairs: Sequence[PairRecord], config: IngestConfig, memory: SplitMemory
) -> dict[str, str]:
    """The split of each scene by its name. Raises UserError for wrong names of scenes."""
    return assign_splits(
        pairs,
        previous=memory.scenes,
        val_scenes=config.val_scenes,
        test_scenes=config.test_scenes,
        shares={"val": config.val_share, "test": config.test_share},
    )


def split_by_look(
    records: Sequence[PairRecord],
    config: IngestConfig,
    memory: SplitMemory,
    prescribed: Mapping[str, str],
) -> Splits:
    """The split of each scene by what its photos show; `prescribed` are those of the corpora.

    Raises UserError if a scene would leave the test split and `release_test` is not set.
    """
    records = [replace(record, split=prescribed[record.scene]) for record in records]
    photos = distinct_photos(records)
    remembered = memory.splits_of(records, photos)
    kept = records if config.val_scenes or config.test_scenes else _usable(records, remembered)
    subjects = group_scenes(kept, photos if kept is records else distinct_photos(kept))
    splits = {scene: split or "train" for scene, split in prescribed.items()}
    splits |= assign_splits(
        kept,
        subjects=subjects,
        previous=remembered,
        val_scenes=config.val_scenes,
        test_scenes=config.test_scenes,
        shares={"val": config.val_share, "test": config.test_share},
    )
    moved = {scene: was for scene, was in remembered.items() if splits[scene] != was}
    released = sorted(scene for scene, was in moved.items() if was == "test")
    if released and not config.release_test:
        more = f" and {len(released) - _SHOWN} more" if len(released) > _SHOWN else ""
        raise UserError(
            f"{len(released)} scenes would leave the test split ({', '.join(released[:_SHOWN])}"
            f"{more}), by which models are compared; name them in `test_scenes`, or set "
            "`release_test` to let them go"
        )
    moves = [f"{scene}: {was} to {splits[scene]}" for scene, was in sorted(moved.items())]
    return Splits(splits, len(subjects) - len(set(subjects.values())), moves, photos)


def _usable(records: Sequence[PairRecord], remembered: Mapping[str, str]) -> Sequence[PairRecord]:
    """The pairs of scenes that have photos, of their own or as duplicates, or a remembered split: a
    scene whose pairs are all bad must not be chosen to score by. All pairs, if nothing is left.
    """
    usable = {r.scene for r in records if r.refused is None or r.duplicate_of} | set(remembered)
    kept = [record for record in records if record.scene in usable]
    return kept if 0 < len(kept) < len(records) else records


def with_splits(pairs: Sequence[PairRecord], splits: Mapping[str, str]) -> Sequence[PairRecord]:
    """The pairs with their splits. Raises UserError for a scene that cannot be in its split."""
    return transform(pairs, partial(_set_split, splits=splits))


def _set_split(table: pa.Table, splits: Mapping[str, str]) -> pa.Table:
    place = table.schema.get_field_index("split")
    values = [splits[scene] for scene in table["scene"].to_pylist()]
    table = table.set_column(place, table.schema.field(place), pa.array(values, pa.string()))
    # `PairRecord.unpaired`, but not in train.
    unpaired = pc.and_(pc.equal(table["noisy"], table["clean"]), pc.is_null(table["noise"]))
    wrong = table.filter(pc.and_(unpaired, pc.not_equal(table["split"], "train")))
    for pair in wrong.slice(0, 1).to_pylist():
        raise UserError(
            f"scene '{pair['scene']}' cannot be in {pair['split']}: its photo has no clean partner "
            "to score by; name another with `val_scenes` and `test_scenes`"
        )
    return table
