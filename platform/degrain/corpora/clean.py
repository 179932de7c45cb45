"""Clean photos alone: each is a scene, made noisy by synthetic noise."""

from degrain.corpora.listing import FolderNames, Listing
from degrain.corpora.record import PairRecord
from degrain.imaging.noise_synthesis import expand_noise


def list_clean(folder: FolderNames) -> Listing:
    """Pair each photo with itself, once for each level of `folder.options.noise`."""
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
        for name in sorted(folder.names)
        for noise, iso in expand_noise(folder.options.noise, name)
    ]
    return pairs, []
