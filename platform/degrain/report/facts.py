"""Facts of each pair, measured on Ray: one task per pair."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

from degrain.cluster import collect
from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.imaging.codecs import decode
from degrain.imaging.crops import centre_crop, most_detailed_crops
from degrain.imaging.limits import LARGEST_MEGAPIXELS
from degrain.imaging.metrics import Score, score_photo
from degrain.imaging.noise_statistics import neighbour_correlation, noise_by_level
from degrain.imaging.pixels import Photo, eight_bits, peak
from degrain.imaging.stored_photo import UnreadablePhotoError
from degrain.patchsets.photos import PhotoSource

BINS = 64
"""Bins of an intensity histogram."""
LAGS = (1, 2, 3, 4)
"""Distances in pixels at which noise is correlated with itself."""
_NOISE_SIDE = 2048
"""Side of the central crop that noise is measured on, pixels."""
_THUMBNAIL_SIDE = 160
_SMALLEST_SCORED = 11


@dataclass(frozen=True)
class PairFacts:
    """Measurements of the pixels of one pair."""

    row: PairRecord
    mean: NDArray[np.float64]
    """(2, 3): of noisy and clean, per channel, in 0..255."""
    deviation: NDArray[np.float64]
    """(2, 3): standard deviations, likewise."""
    histogram: NDArray[np.int64]
    """(2, 3, BINS): intensities of noisy and clean, per channel."""
    score: Score | None
    """Score of the noisy photo by `rgb8`; None for photos too small for SSIM."""
    level_count: NDArray[np.int64]
    """(LEVELS,): values at each level of the clean photo."""
    level_variance: NDArray[np.float64]
    """(LEVELS,): noise variance there, in [0, 1] squared."""
    correlation: NDArray[np.float64]
    """(len(LAGS),): autocorrelation of the noise."""
    thumbnails: tuple[Photo, Photo]
    """The most detailed crop of both photos, unscaled."""


def measure_pair(row: PairRecord, source: PhotoSource) -> PairFacts:
    """Read and measure one pair. Raises UserError if its photos are missing or changed."""
    photos = noisy, clean = source.load(row)
    parts = centre_crop(noisy, _NOISE_SIDE), centre_crop(clean, _NOISE_SIDE)
    count, _, variance = noise_by_level(*parts)
    scored = min(clean.shape[:2]) >= _SMALLEST_SCORED
    return PairFacts(
        row=row,
        mean=np.array([p.mean(axis=(0, 1)) * 255 / peak(p) for p in photos]),
        deviation=np.array([p.std(axis=(0, 1)) * 255 / peak(p) for p in photos]),
        histogram=np.array([_histogram(p) for p in photos]),
        score=score_photo(noisy, clean) if scored else None,
        level_count=count,
        level_variance=variance,
        correlation=np.array([neighbour_correlation(*parts, lag) for lag in LAGS]),
        thumbnails=_thumbnails(noisy, clean),
    )


def gather(
    rows: Sequence[PairRecord],
    source: PhotoSource,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[PairFacts]:
    """Measure pairs in parallel; facts are sorted by id.

    Needs a running Ray. Raises UserError if photos are missing or changed.
    """
    task = ray.remote(num_cpus=1)(measure_pair)
    found = collect({task.remote(row, source): row.id for row in rows}, progress)
    return [facts for _, facts in sorted(found, key=lambda item: item[0])]


@dataclass(frozen=True)
class RefusedFacts:
    """A refused pair and its thumbnails."""

    row: PairRecord
    thumbnails: list[Photo | None]
    """Of noisy and clean; None where the file does not decode."""


def gather_refused(rows: Sequence[PairRecord], source: PhotoSource) -> list[RefusedFacts]:
    """Read thumbnails of refused pairs. Needs a running Ray."""
    task = ray.remote(num_cpus=1)(_measure_pair_refused)
    return [facts for _, facts in collect({task.remote(row, source): row.id for row in rows})]


def _measure_pair_refused(row: PairRecord, source: PhotoSource) -> RefusedFacts:
    shown: list[Photo | None] = []
    for uri in (row.noisy, row.clean):
        try:
            photo = decode(
                source.storage.locate(uri).read_bytes(), largest_megapixels=LARGEST_MEGAPIXELS
            )
        except (UnreadablePhotoError, OSError, UserError):
            shown.append(None)
        else:
            step = max(1, max(photo.shape[:2]) // _THUMBNAIL_SIDE)
            shown.append(eight_bits(np.ascontiguousarray(photo[::step, ::step])))
    return RefusedFacts(row, shown)


def _histogram(photo: Photo) -> NDArray[np.int64]:
    values = eight_bits(photo) // (256 // BINS)
    return np.array(
        [np.bincount(values[:, :, channel].ravel(), minlength=BINS) for channel in range(3)]
    )


def _thumbnails(noisy: Photo, clean: Photo) -> tuple[Photo, Photo]:
    side = min(_THUMBNAIL_SIDE, *clean.shape[:2])
    top, left = most_detailed_crops(clean, side, 1)[0]
    crops = (eight_bits(photo[top : top + side, left : left + side]) for photo in (noisy, clean))
    return next(crops), next(crops)
