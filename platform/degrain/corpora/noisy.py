"""Noisy photos without clean partners, for training with a teacher; all are in the train split."""

from degrain.corpora.listing import FolderNames, Listing
from degrain.corpora.record import PairRecord


def list_noisy(folder: FolderNames) -> Listing:
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
        for name in sorted(folder.names)
    ]
    return pairs, []
