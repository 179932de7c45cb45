"""The embedded corpus: pairs that need no download, made from photographs inside scikit-image.

Seven colour photographs, public domain or CC0 by scikit-image's own metadata, cropped to their
central 512 pixels at most so that no large one dominates, each with the noise of
`imaging.camera_noise` at three ISO values: 21 pairs.

The split of each photograph is fixed, so that scores can be compared. The two photographs with the
most saturated colours are in the train split, because networks desaturate colours that training
did not contain. Scores on one test photograph show that the pipeline works, not how good a network
is; use a real corpus for that.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
from skimage import data as skimage_data

from degrain.corpora.listing import FolderNames, Listing
from degrain.corpora.pairs import list_templates
from degrain.errors import UserError
from degrain.imaging.camera_noise import ISO_LEVELS, photograph
from degrain.imaging.codecs import encode_png
from degrain.imaging.crops import centre_crop
from degrain.imaging.pixels import Photo
from degrain.storage.location import Location

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


def write_embedded(folder: Location) -> None:
    """Write the 21 pairs as PNG below `folder`, unless they exist; takes a few seconds.

    The noise is seeded by photograph and ISO, so that the files are equal on all machines. Raises
    UserError if the folder holds other files of these names.
    """
    recipe = json.dumps(
        {"side": LARGEST_SIDE, "noise": {iso: asdict(n) for iso, n in ISO_LEVELS.items()}}
    ).encode()
    made = folder / "recipe.json"
    if made.exists() and made.read_bytes() == recipe:
        return
    ours = made.exists()
    for place, name in enumerate(sorted(_PHOTOS)):
        photo = embedded_photo(name)
        files = {CLEAN_TEMPLATE.format(scene=name): photo}
        for iso, noise in ISO_LEVELS.items():
            noisy = photograph(photo, noise, np.random.default_rng([place, iso]))
            files[NOISY_TEMPLATE.format(scene=name, iso=iso)] = noisy
        for file, pixels in files.items():
            _write(folder / file, encode_png(pixels), replaces=ours)
    made.write_bytes(recipe)


def _write(file: Location, content: bytes, *, replaces: bool) -> None:
    """Write a file; one that is there may only be replaced if an earlier version wrote it."""
    if not replaces and file.exists():
        if file.read_bytes() == content:
            return  # the call before was interrupted
        raise UserError(
            f"'{file}' is not a photo of the embedded corpus, which is written to the folder that "
            "is named; name an empty one"
        )
    file.write_bytes(content)


def embedded_photo(name: str) -> Photo:
    """One of the clean photographs, by its name in SPLITS."""
    return centre_crop(_PHOTOS[name](), LARGEST_SIDE)


def list_embedded(folder: FolderNames) -> Listing:
    """Pair the embedded photos by templates of their own, with the split fixed by photograph."""
    options = replace(folder.options, noisy_name=NOISY_TEMPLATE, clean_name=CLEAN_TEMPLATE)
    pairs, _ = list_templates(replace(folder, options=options), corpus="embedded")
    ours = [
        replace(pair, split=SPLITS[photo])
        for pair in pairs
        if (photo := pair.scene.removeprefix("embedded/")) in SPLITS
    ]
    placed = {name for pair in ours for name in (pair.noisy, pair.clean)}
    return ours, sorted(set(folder.names) - placed)
