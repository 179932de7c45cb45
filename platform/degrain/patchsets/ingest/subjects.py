"""Which scenes show the same, by the pixels of their clean photos, so that they share a split."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from degrain.corpora.record import PairRecord
from degrain.imaging.looks import ALIKE, alike, thumbnail_vectors


def distinct_photos(records: Iterable[PairRecord]) -> list[PairRecord]:
    """The pairs that were not refused, less those whose clean photo shows what another of their
    scene shows; so a burst of a thousand photos counts once.
    """
    by_scene: dict[str, dict[str, PairRecord]] = defaultdict(dict)
    for record in records:
        if record.refused is None:
            by_scene[record.scene].setdefault(record.look or record.clean_pixels, record)
    return [record for photos in by_scene.values() for record in _distinct(list(photos.values()))]


def _distinct(photos: Sequence[PairRecord]) -> list[PairRecord]:
    """The photos of one scene without those that show what an earlier one shows."""
    found = [photo for photo in photos if not photo.look]
    left = [photo for photo in photos if photo.look]
    vectors = thumbnail_vectors([photo.look for photo in left])
    while left:
        found.append(left[0])
        differs = vectors @ vectors[0] < ALIKE
        # A photo is alike to itself, also if rounding makes it a little less.
        differs[0] = False
        left = [left[i] for i in np.flatnonzero(differs)]
        vectors = vectors[differs]
    return found


def group_scenes(records: Sequence[PairRecord], distinct: Sequence[PairRecord]) -> dict[str, str]:
    """The subject of each scene: of the scenes that show the same, the first by name.

    `distinct` are the `distinct_photos` of the records.
    """
    groups = _Groups(record.scene for record in records)
    scenes = {record.id: record.scene for record in records}
    by_pixels: dict[str, str] = {}
    for record in records:
        if record.refused is None:
            groups.join(record.scene, by_pixels.setdefault(record.clean_pixels, record.scene))
        elif record.duplicate_of is not None:
            groups.join(record.scene, scenes[record.duplicate_of])
    photos = [photo for photo in distinct if photo.look]
    vectors = thumbnail_vectors([photo.look for photo in photos])
    for one, other in alike(vectors, vectors):
        groups.join(photos[one].scene, photos[other].scene)
    return groups.first()


class _Groups:
    """Names in disjoint groups."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def _root(self, name: str) -> str:
        while (parent := self._parent[name]) != name:
            self._parent[name] = name = self._parent[parent]
        return name

    def join(self, one: str, other: str) -> None:
        """Join the groups of two names."""
        first, last = sorted((self._root(one), self._root(other)))
        self._parent[last] = first

    def first(self) -> dict[str, str]:
        """For each name, the first of its group."""
        return {name: self._root(name) for name in self._parent}
