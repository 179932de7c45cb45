"""Listings: names of photos below a corpus folder, paired by an adapter."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from degrain.corpora.config import CorpusOptions
from degrain.corpora.record import PairRecord

Listing: TypeAlias = tuple[list[PairRecord], list[str]]
"""Pairs, and the photos that belong to none."""


@dataclass(frozen=True)
class FolderNames:
    """The photos of a corpus folder, or of one below it, by their names relative to the corpus."""

    names: Sequence[str]
    options: CorpusOptions
    root: str = ""
    """The corpus folder's own name."""


class PhotoNames:
    """Names of photos; one that differs in case, or in how accents are encoded, is found if it is
    the only one.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._known = {name: name for name in names}

    @cached_property
    def _folded(self) -> dict[str, list[str]]:
        """Names by their case-folded form; made when needed, because a listing can be very long."""
        alike: dict[str, list[str]] = defaultdict(list)
        for name in self._known:
            alike[folded(name)].append(name)
        return alike

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._known))

    def find(self, name: str) -> str | None:
        """The name itself if it is listed, else the only one that differs in case."""
        if name in self._known:
            return self._known[name]
        alike = self._folded.get(folded(name), [])
        return alike[0] if len(alike) == 1 else None

    def listing(self, pairs: Sequence[PairRecord], used: Iterable[str] = ()) -> Listing:
        """The pairs, and the names that are neither in one nor in `used`."""
        placed = {name for pair in pairs for name in (pair.noisy, pair.clean)} | set(used)
        return list(pairs), sorted(self._known.keys() - placed)


def pair_each(
    names: Iterable[str], pair: Callable[[str, PhotoNames], PairRecord | None]
) -> Listing:
    """Call `pair` with each name that could be noisy; it returns the pair, or None."""
    photos = PhotoNames(names)
    return photos.listing([made for name in photos if (made := pair(name, photos)) is not None])


def find_counterpart(photos: PhotoNames, name: str, start: int, stop: int, kind: str) -> str | None:
    """The listed name that has `kind` in place of the characters from `start` to `stop`."""
    return photos.find(f"{name[:start]}{kind}{name[stop:]}")


def folded(name: str) -> str:
    """A name as those that differ in case, or in how accents are encoded, have in common.

    macOS decomposes accents in names (NFD), others do not (NFC).
    """
    return unicodedata.normalize("NFC", name.casefold())
