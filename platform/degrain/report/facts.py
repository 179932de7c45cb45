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
from degrain.imaging.metrics import Score, score_photo
from degrain.imaging.noise_statistics import neighbour_correlation, noise_by_level
from degrain.imaging.pixels import Photo, eight_bits, peak
from degrain.imaging.stored_photo import TooManyPixelsError, UnreadablePhotoError
from degrain.patchsets.photos import PhotoSource

BINS = 64
"""Bins of an intensity histogram."""
LAGS = (1, 2, 3, 4)
"""Distances in pixels at which noise is correlated with itself."""
_NOISE_SIDE = 2048
"""Side of the central crop that noise is measured on, pixels."""
_ROWS = 256
"""Rows of a photo that are counted at once."""
_THUMBNAIL_SIDE = 160
_LARGEST_THUMBNAILED = 50.0
"""Refused photos of more megapixels have no thumbnail: a page is not worth gigabytes."""
_LARGEST_FILE = 256 * 10**6
"""Nor have larger files, bytes."""
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
    noisy, clean = source.load(row)
    parts = centre_crop(noisy, _NOISE_SIDE), centre_crop(clean, _NOISE_SIDE)
    count, _, variance = noise_by_level(*parts)
    scored = min(clean.shape[:2]) >= _SMALLEST_SCORED
    intensities = [_intensities(photo) for photo in (noisy, clean)]
    return PairFacts(
        row=row,
        mean=np.array([i.mean for i in intensities]),
        deviation=np.array([i.deviation for i in intensities]),
        histogram=np.array([i.histogram for i in intensities]),
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
    thumbnails: list[Photo | str]
    """Of noisy and clean; why there is none where the file is not decoded."""


def gather_refused(rows: Sequence[PairRecord], source: PhotoSource) -> list[RefusedFacts]:
    """Read thumbnails of refused pairs. Needs a running Ray."""
    task = ray.remote(num_cpus=1)(_measure_pair_refused)
    return [facts for _, facts in collect({task.remote(row, source): row.id for row in rows})]


def _measure_pair_refused(row: PairRecord, source: PhotoSource) -> RefusedFacts:
    return RefusedFacts(row, [_thumbnail(uri, source) for uri in (row.noisy, row.clean)])


def _thumbnail(uri: str, source: PhotoSource) -> Photo | str:
    """A small copy of a photo, or why there is none. The photo may have been refused because it is
    too large for the memory of this machine.
    """
    most = min(source.rules.largest_megapixels, _LARGEST_THUMBNAILED)
    try:
        stamp = source.storage.stamps([uri]).get(uri)
        if stamp is None:
            return "there is no such file"
        if stamp.size > _LARGEST_FILE:
            return f"{stamp.size / 1e6:,.0f} MB, not read"
        photo = decode(source.storage.locate(uri).read_bytes(), largest_megapixels=most)
    except TooManyPixelsError as error:
        return f"{error.width} x {error.height} pixels, not decoded"
    except (UnreadablePhotoError, OSError, UserError):
        return "does not decode"
    step = max(1, max(photo.shape[:2]) // _THUMBNAIL_SIDE)
    return eight_bits(np.ascontiguousarray(photo[::step, ::step]))


@dataclass(frozen=True)
class _Intensities:
    """Statistics of one photo, per channel, on the scale 0..255; see `PairFacts`."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    histogram: NDArray[np.int64]


def _intensities(photo: Photo) -> _Intensities:
    """All from the number of pixels of each value, so that no copy of a large photo is made."""
    values = np.arange(peak(photo) + 1, dtype=photo.dtype)
    counts = np.zeros((3, len(values)), np.int64)
    for top in range(0, len(photo), _ROWS):
        for channel in range(3):
            rows = photo[top : top + _ROWS, :, channel]
            counts[channel] += np.bincount(rows.ravel(), minlength=len(values))
    scale = values * (255 / peak(photo))
    pixels = photo.shape[0] * photo.shape[1]
    mean = counts @ scale / pixels
    square = [c @ np.square(scale - m) / pixels for c, m in zip(counts, mean, strict=True)]
    bins = eight_bits(values) // (256 // BINS)
    histogram = [np.bincount(bins, c, BINS).astype(np.int64) for c in counts]
    return _Intensities(mean, np.sqrt(square), np.array(histogram))


def _thumbnails(noisy: Photo, clean: Photo) -> tuple[Photo, Photo]:
    side = min(_THUMBNAIL_SIDE, *clean.shape[:2])
    top, left = most_detailed_crops(clean, side, 1)[0]
    crops = (eight_bits(photo[top : top + side, left : left + side]) for photo in (noisy, clean))
    return next(crops), next(crops)
