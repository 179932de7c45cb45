"""The pairs of the corpora that a command names, before any photo is read."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from degrain.corpora.base import Corpus
from degrain.corpora.config import LIKE, CorpusOptions
from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.patchsets.noise import fit_noises, noise_values
from degrain.patchsets.packed import columns, sorted_by_id
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Location, Storage


def list_corpora(
    corpora: Sequence[str], options: CorpusOptions, storage: Storage
) -> tuple[Sequence[PairRecord], list[str]]:
    """All pairs of the corpora NAME=URI by id, and the photos that belong to none.

    Raises UserError for a missing folder, a corpus without pairs, or two pairs with one id.
    """
    unplaced: list[str] = []
    options = _with_fitted_noise(options, storage)

    def listed() -> Iterator[PairRecord]:
        for text in corpora:
            for found, left in Corpus.parse(text, storage).list_parts(options):
                yield from found
                unplaced.extend(left)

    pairs = sorted_by_id(listed())
    for (one, _), (other, _) in itertools.pairwise(columns(pairs, "id", "scene")):
        if one == other:
            raise UserError(
                f"pair '{one}' exists twice; name a corpus once, and two of one kind apart with "
                "NAME:LABEL=URI"
            )
    return pairs, unplaced


def check_outside(corpora: Sequence[str], out: Location) -> None:
    """Raise UserError if the output folder is inside a corpus."""
    for corpus in _folders(corpora, out.storage):
        if _inside(out, corpus):
            raise UserError(f"`out` '{out}' is inside the corpus '{corpus}'; name a folder outside")


def check_apart(corpora: Sequence[str], out: Location) -> None:
    """Raise UserError if the output folder is inside a corpus, or a corpus inside of it."""
    check_outside(corpora, out)
    for corpus in _folders(corpora, out.storage):
        if _inside(corpus, out):
            raise UserError(
                f"the corpus '{corpus}' is inside `out` '{out}'; name another folder for patch sets"
            )


def _folders(corpora: Sequence[str], storage: Storage) -> list[Location]:
    """The folders of the corpora that are no tables."""
    parsed = [Corpus.parse(text, storage) for text in corpora]
    return [corpus.folder for corpus in parsed if not corpus.is_table]


def _inside(place: Location, folder: Location) -> bool:
    inner, outer = place.identity.rstrip("/") + "/", folder.identity.rstrip("/") + "/"
    return inner.startswith(outer)


def _with_fitted_noise(options: CorpusOptions, storage: Storage) -> CorpusOptions:
    """Replace the noise `like:PATCHSET` by noise fitted to that set: a fit per camera and ISO."""
    if not options.noise.startswith(LIKE):
        return options
    measured = PatchSet.open(options.noise.removeprefix(LIKE), storage)
    # Noise of test pairs would reach train.
    fits = fit_noises(measured, "train")
    if not fits:
        raise UserError(
            f"patch set {measured.uri} has no real pairs in train whose noise could be measured; "
            "name another"
        )
    return replace(options, noise=f"fitted:{';'.join(map(noise_values, fits))}")
