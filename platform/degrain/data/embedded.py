"""The embedded corpus: photo pairs that need no download, made from photographs inside the scikit-image package.

Seven colour photographs, public domain or CC0 by scikit-image's own notes, their middle 512 pixels at most (so that no large
one outweighs the others), each taken again by the camera of `imaging.noise` at three sensitivities: 21 pairs.

Splits are fixed by photo, so that figures can be compared. The two photos of the strongest colours train: a network learns
how far colours stray from grey, and what it never saw it washes out. Figures on one test photo show that the path works,
not how good a network is; for that there are real corpora.
"""

import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
from skimage import data as skimage_data

from degrain.imaging.codecs import encode_png
from degrain.imaging.noise import ISO_LEVELS, photograph
from degrain.imaging.pixels import Photo
from degrain.storage import Location

NOISY_TEMPLATE = "noisy/{scene}_ISO{iso}.png"
CLEAN_TEMPLATE = "clean/{scene}.png"

SPLITS: dict[str, str] = {
    "astronaut": "train",
    "coffee": "train",
    "hubble": "train",
    "ihc": "train",
    "retina": "train",
    "rocket": "val",
    "chelsea": "test",
}
"""The split of each photograph."""

_PHOTOS: dict[str, Callable[[], Photo]] = {
    "astronaut": skimage_data.astronaut,
    "chelsea": skimage_data.chelsea,
    "coffee": skimage_data.coffee,
    "hubble": skimage_data.hubble_deep_field,
    "ihc": skimage_data.immunohistochemistry,
    "retina": skimage_data.retina,
    "rocket": skimage_data.rocket,
}


LARGEST_SIDE = 512
"""Pixels."""


def middle(photo: Photo, side: int) -> Photo:
    """The middle of a photo, at most `side` pixels high and wide."""
    top, left = (max(extent - side, 0) // 2 for extent in photo.shape[:2])
    return photo[top : top + side, left : left + side]


def write_embedded(folder: Location) -> None:
    """Write the 21 pairs as PNG below `folder`, unless they are there already; a few seconds.

    The noise is seeded by photo and sensitivity, so that the files are the same everywhere.
    """
    recipe = json.dumps({"side": LARGEST_SIDE, "noise": {iso: asdict(n) for iso, n in ISO_LEVELS.items()}}).encode()
    made = folder / "recipe.json"
    if made.exists() and made.read_bytes() == recipe:
        return
    for place, name in enumerate(sorted(_PHOTOS)):
        photo = middle(_PHOTOS[name](), LARGEST_SIDE)
        (folder / CLEAN_TEMPLATE.format(scene=name)).write_bytes(encode_png(photo))
        for iso, noise in ISO_LEVELS.items():
            noisy = photograph(photo, noise, np.random.default_rng([place, iso]))
            (folder / NOISY_TEMPLATE.format(scene=name, iso=iso)).write_bytes(encode_png(noisy))
    made.write_bytes(recipe)
