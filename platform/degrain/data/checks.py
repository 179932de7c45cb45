"""What a pair must be to be trusted: readable, of one size, aligned, of like exposure, not clipped away, and two photos.

A pair that fails is refused with its reason; one that is shifted is put right by whole pixels, if the rules say so.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from degrain.imaging.alignment import LARGEST_SHIFT, estimate_shift
from degrain.imaging.codecs import LARGEST_MEGAPIXELS, PROFILES, Profiles, UnreadablePhotoError, decode
from degrain.imaging.pixels import Photo, peak
from degrain.imaging.synthesis import add_noise

Alignment: TypeAlias = Literal["correct", "refuse", "ignore"]
ALIGNMENTS: tuple[Alignment, ...] = ("correct", "refuse", "ignore")
WORTH_MOVING = 0.1
"""Gain (see `imaging.alignment`) from which a shift is believed.

Of 251 real pairs the ten that are known to be shifted have 0.125 and more, all others 0.074 and less.
"""
_SAMPLES = 100_000


@dataclass(frozen=True, kw_only=True)
class CheckRules:
    """What makes a pair be refused."""

    alignment: Alignment = "correct"
    """What becomes of a shifted pair: corrected by whole pixels, refused, or left as it is."""
    max_shift: float = 0.5
    """Shift in pixels, along the rows or columns, above which a pair counts as misaligned."""
    max_exposure: float = 2.5
    """Ratio of the photos' mean brightness, the brighter over the darker, above which a pair is refused."""
    max_clipped: float = 0.95
    """Share of the clean photo's values that are black or white above which a pair is refused."""
    largest_megapixels: float = LARGEST_MEGAPIXELS
    """Photos that claim more are not decoded."""
    profiles: Profiles = "convert"
    """Whether colour profiles other than sRGB are converted."""

    def __post_init__(self) -> None:
        if self.alignment not in ALIGNMENTS:
            raise ValueError(f"unknown alignment '{self.alignment}'; known: {', '.join(ALIGNMENTS)}")
        if self.profiles not in PROFILES:
            raise ValueError(f"unknown profiles '{self.profiles}'; known: {', '.join(PROFILES)}")
        if not 0.5 <= self.max_shift <= LARGEST_SHIFT:
            raise ValueError(f"max_shift must be 0.5 to {LARGEST_SHIFT} pixels, got {self.max_shift}")
        if not self.max_exposure >= 1:
            raise ValueError(f"max_exposure must be at least 1, got {self.max_exposure}")
        if not 0 <= self.max_clipped <= 1:
            raise ValueError(f"max_clipped must be a share between 0 and 1, got {self.max_clipped}")
        if not self.largest_megapixels > 0:
            raise ValueError(f"largest_megapixels must be positive, got {self.largest_megapixels}")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the checks measured on a pair."""

    shift_y: float
    """Pixels by which the noisy photo must be moved down to lie on the clean one."""
    shift_x: float
    """The same to the right."""
    shift_gain: float
    """What moving it would gain; below `WORTH_MOVING` the shift is a guess."""
    move_y: int
    """Whole pixels by which it was moved."""
    move_x: int
    exposure: float
    """Mean brightness of the clean photo over that of the noisy one."""
    clipped: float
    """Share of the clean photo's values that are black or white."""


class PairOfFiles(Protocol):
    """What `decode_pair` needs to know of a pair: a `Pair` or a `CatalogRow`."""

    @property
    def id(self) -> str:
        """Seeds the noise of a pair that is made."""
        ...

    @property
    def noisy(self) -> str:
        """URI of the noisy photo."""
        ...

    @property
    def clean(self) -> str:
        """URI of the clean photo."""
        ...

    @property
    def noise(self) -> str | None:
        """The noise that makes the noisy photo of the clean one."""
        ...


def decode_pair(pair: PairOfFiles, noisy: bytes | None, clean: bytes | None, rules: CheckRules) -> tuple[Photo, Photo]:
    """Both photos, the noisy one made of the clean one where the pair says so.

    Raises UnreadablePhotoError, naming the file, if a file is gone or bad, or if the two have unequal sizes.
    """
    b = _decode_named(pair.clean, clean, rules)
    a = _decode_named(pair.noisy, noisy, rules) if pair.noise is None else add_noise(b, pair.noise, pair.id)
    if a.shape != b.shape:
        sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (a, b))
        raise UnreadablePhotoError(f"{pair.noisy} and its clean photo have unequal sizes, {sizes}")
    return a, b


def _decode_named(uri: str, content: bytes | None, rules: CheckRules) -> Photo:
    if content is None:
        raise UnreadablePhotoError(f"{uri}: there is no such file, or it went away after it was listed")
    try:
        return decode(content, largest_megapixels=rules.largest_megapixels, profiles=rules.profiles)
    except UnreadablePhotoError as error:
        raise UnreadablePhotoError(f"{uri}: {error}") from None


def measure(pair: PairOfFiles, noisy: Photo, clean: Photo, rules: CheckRules) -> Measured:
    """Measure a pair of photos of one size. Raises UnreadablePhotoError, with the reason, if the rules refuse it."""
    if _equal(noisy, clean):
        raise UnreadablePhotoError(f"{pair.noisy} and its clean photo are the same picture")
    exposure, clipped = _exposure(noisy, clean), _clipped(clean)
    if (apart := max(exposure, 1 / exposure)) > rules.max_exposure:
        raise UnreadablePhotoError(
            f"{pair.noisy} and its clean photo differ in exposure by a factor of {apart:.2f}, over "
            f"{rules.max_exposure:g} (--max-exposure)"
        )
    if clipped > rules.max_clipped:
        raise UnreadablePhotoError(
            f"{pair.clean}: {clipped:.0%} of its values are black or white, over {rules.max_clipped:.0%} (--max-clipped)"
        )
    if rules.alignment == "ignore" or pair.noise is not None:
        return Measured(shift_y=0, shift_x=0, shift_gain=0, move_y=0, move_x=0, exposure=exposure, clipped=clipped)
    shift = estimate_shift(noisy, clean)
    misaligned = shift.gain >= WORTH_MOVING and shift.distance > rules.max_shift
    if misaligned and rules.alignment == "refuse":
        raise UnreadablePhotoError(
            f"{pair.noisy} is shifted against its clean photo by {shift.y:+.1f} down, {shift.x:+.1f} right, over "
            f"{rules.max_shift:g} pixels (--max-shift); --alignment correct puts it right by whole pixels"
        )
    move_y, move_x = shift.whole if misaligned else (0, 0)
    return Measured(
        shift_y=shift.y,
        shift_x=shift.x,
        shift_gain=shift.gain,
        move_y=move_y,
        move_x=move_x,
        exposure=exposure,
        clipped=clipped,
    )


def aligned(noisy: Photo, clean: Photo, move_y: int, move_x: int) -> tuple[Photo, Photo]:
    """The parts that both photos show once the noisy one is moved down and right by whole pixels, as views."""
    if not (move_y or move_x):
        return noisy, clean
    rows, columns = _overlap(clean.shape[0], move_y), _overlap(clean.shape[1], move_x)
    return noisy[rows[0], columns[0]], clean[rows[1], columns[1]]


def _overlap(side: int, move: int) -> tuple[slice, slice]:
    """Of the moved photo and of the other."""
    return slice(max(-move, 0), side - max(move, 0)), slice(max(move, 0), side - max(-move, 0))


def _equal(noisy: Photo, clean: Photo) -> bool:
    """Whether both have the same pixels; most pairs differ in the first rows."""
    return noisy.dtype == clean.dtype and np.array_equal(noisy[:8], clean[:8]) and np.array_equal(noisy, clean)


def _sample(photo: Photo) -> Photo:
    step = max(1, int((photo.shape[0] * photo.shape[1] / _SAMPLES) ** 0.5))
    return photo[::step, ::step]


def _exposure(noisy: Photo, clean: Photo) -> float:
    means = [float(_sample(photo).mean()) / peak(photo) for photo in (clean, noisy)]
    return (means[0] + 1e-3) / (means[1] + 1e-3)


def _clipped(clean: Photo) -> float:
    values = _sample(clean)
    return float(((values == 0) | (values == peak(clean))).mean())
