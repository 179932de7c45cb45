"""Clean photos alone: each is a scene, made noisy by synthetic noise."""

from collections.abc import Iterable

from degrain.corpora.config import CorpusOptions
from degrain.corpora.listing import Listing
from degrain.corpora.record import PairRecord
from degrain.imaging.noise_synthesis import expand_noise


def list_clean(
    names: Iterable[str],
    options: CorpusOptions,
    root: str = "",  # noqa: ARG001
) -> Listing:
    """Pair each photo with itself, once for each level of `options.noise`."""
    pairs = [
        PairRecord(
            id=f"clean/{name}#{noise}",
            corpus="clean",
            scene=f"clean/{name}",
            noisy=name,
            clean=name,
            camera="synthetic",
            iso=iso,
            noise=noise,
        )
        for name in sorted(names)
        for noise, iso in expand_noise(options.noise, name)
    ]
    return pairs, []
