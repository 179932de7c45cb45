"""Facts of each pair, gathered on Ray: one task a pair, one photo pair in memory at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

from degrain.data.catalog import CatalogRow
from degrain.data.photos import PhotoSource
from degrain.data.tasks import collect
from degrain.errors import UserError
from degrain.imaging.codecs import LARGEST_MEGAPIXELS, UnreadablePhotoError, decode
from degrain.imaging.metrics import Score, score_photo
from degrain.imaging.pixels import Photo, eight_bits, peak
from degrain.imaging.statistics import neighbour_correlation, noise_by_level

BINS = 64
"""Of an intensity histogram."""
LAGS = (1, 2, 3, 4)
"""Distances in pixels at which noise is correlated with itself."""
_NOISE_SIDE = 2048
"""Noise is measured on the middle of a photo, at most so many pixels wide and high."""
_THUMBNAIL_SIDE = 160
_SMALLEST_SCORED = 11


@dataclass(frozen=True)
class PairFacts:
    """What a look at the pixels of one pair tells."""

    row: CatalogRow
    mean: NDArray[np.float64]
    """(2, 3): of noisy and clean, per channel, in 0..255."""
    deviation: NDArray[np.float64]
    """Standard deviations, the same way."""
    histogram: NDArray[np.int64]
    """(2, 3, BINS): intensities of noisy and clean, per channel."""
    score: Score | None
    """Of the noisy photo against the clean one, by `rgb8`; None for photos too small for SSIM."""
    level_count: NDArray[np.int64]
    """(LEVELS,): values at each level of the clean photo."""
    level_variance: NDArray[np.float64]
    """(LEVELS,): noise variance there, in [0, 1] squared."""
    correlation: NDArray[np.float64]
    """Of the noise with itself at `LAGS`."""
    thumbnails: tuple[Photo, Photo]
    """The busiest part of both photos, unscaled."""


def look_at(row: CatalogRow, source: PhotoSource) -> PairFacts:
    """Read one pair and gather its facts. Raises UserError if its photos are gone or changed."""
    photos = noisy, clean = source.load(row)
    parts = _middle(noisy, _NOISE_SIDE), _middle(clean, _NOISE_SIDE)
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
    rows: Sequence[CatalogRow], source: PhotoSource, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> list[PairFacts]:
    """The facts of each pair, by id. Needs a running Ray. Raises UserError if photos are gone or changed."""
    task = ray.remote(num_cpus=1)(look_at)
    found = collect({task.remote(row, source): row.id for row in rows}, progress)
    return [facts for _, facts in sorted(found, key=lambda item: item[0])]


@dataclass(frozen=True)
class RefusedFacts:
    """A pair that was refused, with what can be shown of it."""

    row: CatalogRow
    thumbnails: list[Photo | None]
    """Of noisy and clean; None where the file does not decode."""


def gather_refused(rows: Sequence[CatalogRow], source: PhotoSource) -> list[RefusedFacts]:
    """What can be shown of refused pairs. Needs a running Ray."""
    task = ray.remote(num_cpus=1)(_look_at_refused)
    return [facts for _, facts in collect({task.remote(row, source): row.id for row in rows})]


def _look_at_refused(row: CatalogRow, source: PhotoSource) -> RefusedFacts:
    shown: list[Photo | None] = []
    for uri in (row.noisy, row.clean):
        try:
            photo = decode(source.storage.locate(uri).read_bytes(), largest_megapixels=LARGEST_MEGAPIXELS)
        except (UnreadablePhotoError, OSError, UserError):
            shown.append(None)
        else:
            step = max(1, max(photo.shape[:2]) // _THUMBNAIL_SIDE)
            shown.append(eight_bits(np.ascontiguousarray(photo[::step, ::step])))
    return RefusedFacts(row, shown)


def _middle(photo: Photo, side: int) -> Photo:
    height, width = photo.shape[:2]
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    return photo[top : top + side, left : left + side]


def _histogram(photo: Photo) -> NDArray[np.int64]:
    values = eight_bits(photo) // (256 // BINS)
    return np.array([np.bincount(values[:, :, channel].ravel(), minlength=BINS) for channel in range(3)])


def _thumbnails(noisy: Photo, clean: Photo) -> tuple[Photo, Photo]:
    side = min(_THUMBNAIL_SIDE, *clean.shape[:2])
    height, width = clean.shape[:2]
    places = [(y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
    top, left = max(places, key=lambda p: float(np.var(clean[p[0] : p[0] + side : 4, p[1] : p[1] + side : 4])))
    cropped = (eight_bits(photo[top : top + side, left : left + side]) for photo in (noisy, clean))
    return next(cropped), next(cropped)
