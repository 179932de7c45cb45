"""The catalog: a table with one row per pair that says what is there, in which split, and what was refused and why."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import pyarrow as pa
import pyarrow.parquet as pq

from degrain.data.corpora import Pair
from degrain.errors import UserError

SPLITS = ("train", "val", "test")
HELD_OUT_SHARE = 0.1
"""Share of the scenes that the hash sends to `val`, and again to `test`."""


@dataclass(frozen=True, kw_only=True)
class CatalogRow:
    """One pair after it was looked at."""

    id: str
    corpus: str
    scene: str
    split: str
    noisy: str
    """URI of the noisy photo."""
    clean: str
    noisy_hash: str
    """BLAKE2b of the file's bytes, 128 bits in hexadecimal; empty if it could not be read."""
    clean_hash: str
    height: int | None
    """Pixels; None if refused before decoding."""
    width: int | None
    bit_depth: int | None
    camera: str | None
    iso: int | None
    shutter: str | None
    brightness: str | None
    refused: str | None
    """Why the pair is not in the patch set; None if it is."""
    patches: int
    """Patch pairs that were cut from it."""


_TYPES = {"str": pa.string(), "int": pa.int64()}
SCHEMA = pa.schema(
    [
        pa.field(
            f.name,
            _TYPES[str(f.type if isinstance(f.type, str) else getattr(f.type, "__name__", f.type)).split(" |")[0]],
        )
        for f in fields(CatalogRow)
    ]
)


def write_catalog(rows: Iterable[CatalogRow]) -> bytes:
    """The catalog as a Parquet file; rows sorted by id, so that equal catalogs are equal files."""
    table = pa.Table.from_pylist([asdict(r) for r in sorted(rows, key=lambda r: r.id)], schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def read_catalog(content: bytes) -> list[CatalogRow]:
    """The rows of a catalog file."""
    return [CatalogRow(**row) for row in pq.read_table(io.BytesIO(content)).to_pylist()]


def scene_fraction(scene: str) -> float:
    """A number in [0, 1) that depends on the scene's name alone."""
    return int.from_bytes(hashlib.blake2b(scene.encode(), digest_size=6).digest()) / 2**48


def assign_splits(
    pairs: Sequence[Pair],
    *,
    previous: Mapping[str, str] | None = None,
    val_scenes: Iterable[str] = (),
    test_scenes: Iterable[str] = (),
) -> dict[str, str]:
    """The split of each scene: as named by the user, else as prescribed by the corpus, else as before, else by hash.

    A split for which the user named scenes has these and no others.
    The hash sends a scene to the same split whatever else is there. Where it leaves a split empty, as it does with a
    handful of scenes, a scene moves there; `previous`, the splits of the patch set that this one follows, keeps it there
    when photos are added.
    Raises UserError for a named scene that is not there, or fewer than three scenes.
    """
    named = dict.fromkeys(val_scenes, "val") | dict.fromkeys(test_scenes, "test")
    scenes = sorted({p.scene for p in pairs})
    if both := set(val_scenes) & set(test_scenes):
        raise UserError(f"scene '{min(both)}' is named for both val and test; name it once")
    short = {s.split("/", 1)[1]: s for s in scenes}
    named = {short.get(s, s): split for s, split in named.items()}
    if missing := sorted(set(named) - set(scenes)):
        raise UserError(f"there is no scene '{missing[0]}'; scenes are {_some([s.split('/', 1)[1] for s in scenes])}")
    prescribed = {p.scene: p.split for p in pairs if p.split}
    splits: dict[str, str] = {}
    free: list[str] = []
    for scene in scenes:
        settled = prescribed.get(scene) or (previous or {}).get(scene)
        split = settled or _split_of(scene_fraction(scene))
        # A split for which the user named scenes has these and no others.
        splits[scene] = named.get(scene) or ("train" if split in named.values() else split)
        if settled is None and scene not in named:
            free.append(scene)
    _fill_empty(splits, free)
    if absent := [s for s in SPLITS if s not in splits.values()]:
        raise UserError(
            f"no scene is left for the {absent[0]} split: the corpus has {len(scenes)} scenes "
            f"({_some([s.split('/', 1)[1] for s in scenes])}); at least 3 are needed, "
            "or name others with --val-scenes and --test-scenes"
        )
    return splits


def _fill_empty(splits: dict[str, str], free: Sequence[str]) -> None:
    """Give each empty split one of the `free` scenes, from the split that has most: the one whose hash is nearest."""
    for split in ("train", "test", "val"):
        counts = Counter(splits.values())
        givers = [s for s in free if counts[splits[s]] > 1]
        if not counts[split] and givers:
            most = max(counts[splits[s]] for s in givers)
            rank = scene_fraction if split != "train" else lambda s: -scene_fraction(s)
            splits[min((s for s in givers if counts[splits[s]] == most), key=rank)] = split


def _split_of(fraction: float) -> str:
    if fraction < HELD_OUT_SHARE:
        return "test"
    return "val" if fraction < 2 * HELD_OUT_SHARE else "train"


def _some(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
