"""The rules that refuse pairs.

Only the standard library is imported here: the command line builds its options from these fields.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from degrain.errors import InvalidFieldError
from degrain.fields import check_choices, check_positive, check_share
from degrain.imaging.limits import LARGEST_MEGAPIXELS, Profiles

Alignment: TypeAlias = Literal["correct", "refuse", "ignore"]
ExposureMatch: TypeAlias = Literal["match", "keep"]
Swapped: TypeAlias = Literal["refuse", "accept"]

LARGEST_TOLERATED = 16
"""Pixels of `max_shift`."""


@dataclass(frozen=True, kw_only=True)
class CheckRules:
    """Rules that refuse pairs; they are part of a patch set's version."""

    alignment: Alignment = "correct"
    """Misaligned pairs are corrected by an integer shift, refused, or left as they are; the first
    two refuse pairs that no shift aligns."""
    max_shift: float = 0.5
    """Shift along rows or columns above which a pair counts as misaligned, pixels."""
    exposure: ExposureMatch = "match"
    """Clean photos of own pairs are given exposure and white balance of the noisy ones, or kept."""
    swapped: Swapped = "refuse"
    """Pairs whose clean photo has more noise than the noisy one are refused, or accepted."""
    max_exposure: float = 2.5
    """Ratio of mean brightness, the brighter photo over the darker, above which a pair is
    refused."""
    max_clipped: float = 0.95
    """Share of black and white values in the clean photo above which a pair is refused."""
    largest_megapixels: float = LARGEST_MEGAPIXELS
    """Larger photos are refused, megapixels."""
    profiles: Profiles = "convert"
    """Colour profiles other than sRGB are converted, or kept: ignored."""

    def __post_init__(self) -> None:
        check_choices(self)
        if not 0.5 <= self.max_shift <= LARGEST_TOLERATED:
            raise InvalidFieldError(
                "max_shift",
                f"must be 0.5 to {LARGEST_TOLERATED} pixels, got {self.max_shift}; to leave all "
                "pairs as they are, ignore `alignment`",
            )
        if not self.max_exposure >= 1:
            raise InvalidFieldError("max_exposure", f"must be at least 1, got {self.max_exposure}")
        check_share(self, "max_clipped")
        check_positive(self, "largest_megapixels")
