"""Weights that balance corpora, and the cameras and ISOs within each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def balanced_weights(
    patches: ArrayLike, corpora: Sequence[str], balance: float
) -> NDArray[np.float64]:
    """Return how often to draw a patch of each group: (G,), 1 on average over patches.

    A group is the patches of one camera and ISO of a corpus; `patches` and `corpora` have the
    number of patches and the corpus of each. A corpus of P patches is drawn in proportion to P **
    (1 - balance), and within it a group of p patches in proportion to p ** (1 - balance): 0 draws
    all patches equally often, 1 all corpora, and all groups of a corpus.
    """
    sizes = np.asarray(patches, dtype=np.float64)
    names, corpus = np.unique(np.asarray(corpora), return_inverse=True)
    within = sizes ** (1 - balance)
    within /= np.bincount(corpus, within, len(names))[corpus]
    among = np.bincount(corpus, sizes, len(names)) ** (1 - balance)
    weights: NDArray[np.float64] = (among / among.sum())[corpus] * within / sizes * sizes.sum()
    return weights
