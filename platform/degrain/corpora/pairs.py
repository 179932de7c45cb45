"""A folder of the user's own pairs, with names that two templates or regular expressions match."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from degrain.corpora.config import CorpusOptions
from degrain.corpora.listing import FolderNames, Listing, PhotoNames, pair_each
from degrain.corpora.record import PairRecord
from degrain.corpora.templates import clean_name_finder, compile_template, matching_names


def list_templates(folder: FolderNames, corpus: str = "pairs") -> Listing:
    """Match noisy names by one template, and find each one's clean name by the other.

    Several noisy photos may share a clean one. Without `{scene}` in the template each clean photo
    is a scene.
    """
    pattern = compile_template(folder.options.noisy_name)
    find_clean = clean_name_finder(folder.names, folder.options.clean_name, pattern)

    def pair(noisy: str, _: PhotoNames) -> PairRecord | None:
        match = pattern.fullmatch(noisy)
        clean = find_clean(match.groupdict()) if match else None
        if match is None or clean is None or clean == noisy:
            return None
        fields: dict[str, str | None] = match.groupdict()
        iso = fields.get("iso")
        return PairRecord(
            id=f"{corpus}/{noisy}",
            corpus=corpus,
            scene=unicodedata.normalize("NFC", f"{corpus}/{fields.get('scene') or clean}"),
            noisy=noisy,
            clean=clean,
            camera=fields.get("camera"),
            iso=int(iso) if iso and iso.isdecimal() else None,
        )

    return pair_each(folder.names, pair)


def describe_unpaired(
    unplaced: Sequence[str], names: Iterable[str], options: CorpusOptions
) -> dict[str, str]:
    """How the templates read names that belong to no pair, in words: a noisy and a clean one."""
    pattern, clean = compile_template(options.noisy_name), compile_template(options.clean_name)
    described: dict[str, str] = {}
    for name in unplaced:
        if match := pattern.fullmatch(name):
            values = match.groupdict()
            found = [other for other in matching_names(names, clean, values) if other != name]
            partners = f"several clean photos have these: {', '.join(found[:2])}"
            partners = partners if found else "no clean photo has these"
            described[name] = f"noisy, {_shown(values)}; {partners}"
            break
    for name in unplaced:
        if name not in described and (match := clean.fullmatch(name)):
            described[name] = f"clean, {_shown(match.groupdict())}"
            break
    return described or dict.fromkeys(unplaced[:1], "neither template matches")


def _shown(values: Mapping[str, str | None]) -> str:
    return ", ".join(f"{field}={value}" for field, value in values.items() if value is not None)
