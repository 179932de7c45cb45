"""The manifest of a patch set: its shards, its groups, and the hash that is its version."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import version

from degrain.balance import balanced_weights
from degrain.corpora.record import PairRecord
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.geometry import CHANNELS, PatchGeometry
from degrain.storage.sealed import FileDigest, seal, unseal

CUTTER_VERSION = 5
"""Raise it when the same photos and geometry would give other bytes or measurements."""
FORMAT_VERSION = 3
_LIBRARIES = ("imagecodecs", "numpy", "pillow", "pyarrow", "scipy", "tifffile")
"""They decode photos, synthesise noise and write shards."""
_NOT_READ_BY_TRAINING = frozenset(
    # Places, sizes and times of the photos, and the reason of a refusal, which names a place.
    {"noisy", "clean", "stamp", "encoded_bytes", "refused"}
    # Where camera and ISO come from.
    | {"exif_camera", "exif_iso"}
    # Figures whose last bits differ between processors.
    | {"look", "shift_y", "shift_x", "shift_gain", "exposure", "clipped"}
    | {"gain_red", "gain_green", "gain_blue", "gain_error"}
)
"""Fields of a record that are not part of a version."""


def cutter() -> dict[str, str]:
    """What decides the bytes of a shard, beside its photos, the geometry and the checks."""
    return {"degrain": str(CUTTER_VERSION), **_versions()}


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in _LIBRARIES}


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One Parquet file of patches, as the manifest names it."""

    key: str
    """Digest of the file, which is also its name."""
    split: str
    patches: int
    bits: int
    """8 or 16 per channel; a shard with a 16-bit photo is 16-bit throughout."""
    bytes: int
    """Size of the file."""

    @property
    def file(self) -> FileDigest:
        """What the file must be."""
        return FileDigest(digest=self.key, size=self.bytes)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The pairs of a split that one camera of one corpus took at one ISO."""

    split: str
    corpus: str
    camera: str | None
    iso: int | None
    pairs: int
    patches: int
    weight: float
    """How often to draw each of its patches so that the corpora of the split, and the groups of
    each corpus, count the same; 1 on average over patches.
    """


def groups_of(rows: Iterable[PairRecord]) -> list[Group]:
    """The groups of a catalog, with the weights that balance them."""
    counts: dict[tuple[str, str, str | None, int | None], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        if row.refused is None:
            count = counts[row.split, row.corpus, row.camera, row.iso]
            count[0] += 1
            count[1] += row.patches
    groups: list[Group] = []
    for wanted in sorted({split for split, *_ in counts}):
        found = sorted(
            ((k, c) for k, c in counts.items() if k[0] == wanted), key=lambda f: str(f[0])
        )
        weights = balanced_weights([c[1] for _, c in found], [k[1] for k, _ in found], balance=1)
        groups += [
            Group(
                split=split,
                corpus=corpus,
                camera=camera,
                iso=iso,
                pairs=pairs,
                patches=number,
                weight=weight,
            )
            for ((split, corpus, camera, iso), (pairs, number)), weight in zip(
                found, weights.tolist(), strict=True
            )
        ]
    return groups


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a patch set holds."""

    version: str
    cutter: Mapping[str, str]
    """See `cutter`; of the ingest that made the set."""
    geometry: PatchGeometry
    rules: CheckRules
    """What made a pair be refused."""
    corpora: Sequence[Sequence[str]]
    """Adapter and folder of each corpus, as the user named them."""
    shards: Sequence[Shard]
    """In the order in which a training sees them."""
    catalog: FileDigest
    pairs: int
    """Pairs seen, refused ones included."""
    refused: int
    covered: float
    """Share of the photos' pixels that lies in at least one patch."""
    overlap: float
    """Patches' pixels over those of the photos: 1 where every pixel lies in one patch."""
    groups: Sequence[Group] = ()

    @property
    def border(self) -> str:
        """How photos end whose sides are no multiple of the stride."""
        return "the last row and column of patches lie flush with the photo's far border"

    def patches(self, split: str | None = None) -> int:
        """Number of patch pairs, in one split or in all."""
        return sum(s.patches for s in self.shards if split in (None, s.split))

    def to_json(self) -> bytes:
        """The manifest as a file."""
        content = {
            "format": FORMAT_VERSION,
            "channels": CHANNELS,
            "border": self.border,
            "patches": {s: self.patches(s) for s in sorted({shard.split for shard in self.shards})},
            **asdict(self),
        }
        return seal(content)

    @classmethod
    def from_json(cls, content: bytes) -> "Manifest":
        """Read a manifest file.

        Raises ValueError if it is damaged or has a format that this version does not know.
        """
        raw = unseal(content)
        if raw.get("format") != FORMAT_VERSION:
            raise ValueError(
                f"format {raw.get('format')}, but this version of degrain reads {FORMAT_VERSION}"
            )
        return cls(
            version=raw["version"],
            cutter=raw["cutter"],
            geometry=PatchGeometry(**raw["geometry"]),
            rules=CheckRules(**raw["rules"]),
            corpora=raw["corpora"],
            shards=[Shard(**s) for s in raw["shards"]],
            catalog=FileDigest(**raw["catalog"]),
            pairs=raw["pairs"],
            refused=raw["refused"],
            covered=raw["covered"],
            overlap=raw["overlap"],
            groups=[Group(**g) for g in raw["groups"]],
        )


def digest(content: object) -> str:
    """A short hash of anything that JSON can say: 128 bits in hexadecimal."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def set_version(
    rows: Iterable[PairRecord], shards: Iterable[Shard], geometry: PatchGeometry, rules: CheckRules
) -> str:
    """The version of a patch set: a hash of its shards in their order, of its pairs but for the
    places of their photos, of the geometry, the checks and the cutter.

    So what a training reads of two sets of one version is equal, and comes in the same order.
    """
    names = [f.name for f in fields(PairRecord) if f.name not in _NOT_READ_BY_TRAINING]
    found = hashlib.blake2b(digest_size=6)
    for part in (
        [cutter(), asdict(geometry), asdict(rules)],
        *([shard.split, shard.key] for shard in shards),
        *([r.refused is None, r.unpaired, *(getattr(r, n) for n in names)] for r in rows),
    ):
        found.update(json.dumps(part, sort_keys=True).encode() + b"\n")
    return found.hexdigest()


def split_chunks(shards: Sequence[Shard], most_bytes: int) -> Iterator[list[Shard]]:
    """Shards in runs of at most `most_bytes`, at least one each, in order."""
    run: list[Shard] = []
    for shard in shards:
        if run and sum(s.bytes for s in run) + shard.bytes > most_bytes:
            yield run
            run = []
        run.append(shard)
    if run:
        yield run
