"""Noisy photos without clean partners, for training with a teacher; all are in the train split."""

from collections.abc import Iterable

from degrain.corpora.config import CorpusOptions
from degrain.corpora.listing import Listing
from degrain.corpora.record import PairRecord


def list_noisy(
    names: Iterable[str],
    options: CorpusOptions,  # noqa: ARG001
    root: str = "",  # noqa: ARG001
) -> Listing:
    """Pair each photo with itself; `PairRecord.unpaired` tells such pairs from real ones."""
    pairs = [
        PairRecord(
            id=f"noisy/{name}",
            corpus="noisy",
            scene=f"noisy/{name}",
            noisy=name,
            clean=name,
            split="train",
        )
        for name in sorted(names)
    ]
    return pairs, []
