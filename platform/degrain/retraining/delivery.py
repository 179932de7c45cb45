"""Measures the traits of new and of known pairs, on Ray."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
import ray
from numpy.typing import NDArray

from degrain.cluster import collect
from degrain.corpora.record import PairRecord
from degrain.imaging.crops import centre_crop
from degrain.imaging.noise_statistics import neighbour_correlation
from degrain.imaging.pixels import Photo, peak
from degrain.inference.denoiser import Denoiser
from degrain.patchsets.photos import PhotoSource
from degrain.retraining.drift import DriftReport, find_drift
from degrain.retraining.traits import PairTraits
from degrain.spacing import evenly_spaced

CROP = 512
"""Side of the centre of a photo that is measured, pixels."""
_MOST_NEW, _MOST_KNOWN = 48, 96


def measure_traits(
    row: PairRecord, noisy: Photo, clean: Photo, champion: Denoiser | None = None
) -> PairTraits:
    """The traits of one aligned pair of (H, W, 3) photos, measured on its centre."""
    noisy, clean = centre_crop(noisy, CROP), centre_crop(clean, CROP)
    difference = _difference(noisy, clean)
    noise = difference - difference.mean(axis=(0, 1))
    left = None if champion is None else _difference(champion(noisy), clean)
    assert row.exposure is not None
    return PairTraits(
        scene=row.scene,
        camera=f"{row.corpus} {row.camera}" if row.camera else row.corpus,
        iso=row.iso,
        noise=float(np.sqrt(np.square(noise).mean())),
        correlation=neighbour_correlation(noisy, clean),
        exposure=row.exposure,
        brightness=255 * float(clean.mean()) / peak(clean),
        noisy_psnr=_psnr(difference),
        champion_psnr=None if left is None else _psnr(left),
    )


def _difference(a: Photo, b: Photo) -> NDArray[np.float32]:
    """A - b, of 255."""
    return np.asarray(255 * (a / np.float32(peak(a)) - b / np.float32(peak(b))))


def _psnr(difference: NDArray[np.float32]) -> float:
    """PSNR of a difference of 255, dB; not rounded to 8 bits, SSIM is not needed."""
    return float(10 * np.log10(255**2 / max(float(np.square(difference).mean()), 1e-9)))


def compare_delivery(
    catalog: Sequence[PairRecord],
    new: Collection[str],
    source: PhotoSource,
    champion: Denoiser | None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> DriftReport | None:
    """Compare the pairs whose ids are `new` with the others of a catalog.

    At most 48 new and 96 known pairs, evenly spaced, are read; of the known ones those of val and
    test first, which the champion was not trained on. None where there are no known pairs, or no
    new ones that were accepted. Needs a running Ray.
    """
    usable = [row for row in catalog if row.refused is None and not row.unpaired]
    delivered = _sample([row for row in usable if row.id in new], _MOST_NEW)
    before = [row for row in usable if row.id not in new]
    unseen = _sample([row for row in before if row.split != "train"], _MOST_KNOWN // 2)
    seen = _sample([row for row in before if row.split == "train"], _MOST_KNOWN - len(unseen))
    if not delivered or not (unseen or seen):
        return None
    task = ray.remote(num_cpus=1)(_measure)
    handle = ray.put(champion)
    pending = {
        task.remote(row, source, handle if row.id in new or row.split != "train" else None): row.id
        for row in (*delivered, *unseen, *seen)
    }
    found: dict[str, PairTraits] = dict(collect(pending, progress))
    return find_drift([found[r.id] for r in (*unseen, *seen)], [found[r.id] for r in delivered])


def _sample(rows: Sequence[PairRecord], most: int) -> list[PairRecord]:
    return [rows[i] for i in evenly_spaced(len(rows), most)]


def _measure(row: PairRecord, source: PhotoSource, champion: Denoiser | None) -> PairTraits:
    return measure_traits(row, *source.load(row), champion)
