"""Small photos and patches for the unit tests."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import data as skimage_data

from degrain.corpora.record import PairRecord
from degrain.imaging.codecs import encode_png
from degrain.imaging.pixels import Photo
from degrain.loading.patches import ResidentPatches


def random_photo(height: int, width: int, seed: int = 0) -> Photo:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth_photo(height: int, width: int, seed: int = 0) -> Photo:
    """Slow waves in each channel."""
    phase = np.random.default_rng(seed).uniform(0, 6, (3, 2))
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + a) + np.cos(y / 7 + b) for a, b in phase]
    return np.asarray(np.stack(waves, axis=2) * 60 + 128).astype(np.uint8)


def natural_photo(height: int, width: int) -> Photo:
    """A part of a photograph, with edges and texture."""
    photo: Photo = skimage_data.astronaut()[100 : 100 + height, 150 : 150 + width]
    return photo


def with_noise(clean: NDArray[np.uint8], seed: int = 0, deviation: float = 15) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, deviation, clean.shape)
    return np.clip(np.round(clean + noise), 0, 255).astype(np.uint8)


def smooth_patches(count: int, side: int, seed: int = 0, deviation: float = 15) -> ResidentPatches:
    """Noisy and clean patches of slow waves, in two blocks where there are several."""
    clean = np.stack([smooth_photo(side, side, seed * 1000 + i) for i in range(count)])
    noisy = with_noise(clean, seed, deviation)
    half = count // 2
    return ResidentPatches(
        [(noisy[a:b], clean[a:b]) for a, b in ((0, half), (half, count)) if b > a]
    )


def write_png(path: Path, photo: Photo) -> str:
    """Write a photo; gives its path as a URI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(photo))
    return str(path)


def pair_record(**known: Any) -> PairRecord:  # noqa: ANN401 - a field of any type
    """The record of a pair that was accepted, with the fields that are `known`."""
    usual: dict[str, Any] = {
        "id": "pairs/a",
        "corpus": "pairs",
        "scene": "pairs/a",
        "split": "train",
        "noisy": "/a/noisy.png",
        "clean": "/a/clean.png",
        "noisy_hash": "1",
        "clean_hash": "2",
        "noisy_pixels": "1",
        "clean_pixels": "2",
        "height": 16,
        "width": 16,
        "bit_depth": 8,
        "patches": 1,
    }
    return PairRecord(**{**usual, **known})
