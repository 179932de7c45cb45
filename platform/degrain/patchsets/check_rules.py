"""The rules that refuse pairs.

Only the standard library is imported here: the command line builds its options from these fields.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from degrain.errors import InvalidFieldError
from degrain.fields import check_choices, check_positive, check_share
from degrain.imaging.limits import LARGEST_MEGAPIXELS, LARGEST_SHIFT, Profiles

Alignment: TypeAlias = Literal["correct", "refuse", "ignore"]


@dataclass(frozen=True, kw_only=True)
class CheckRules:
    """Rules that refuse pairs; they are part of a patch set's version."""

    alignment: Alignment = "correct"
    """Misaligned pairs are corrected by an integer shift, refused, or left as they are."""
    max_shift: float = 0.5
    """Shift along rows or columns above which a pair counts as misaligned, pixels."""
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
        if not 0.5 <= self.max_shift <= LARGEST_SHIFT:
            raise InvalidFieldError(
                "max_shift", f"must be 0.5 to {LARGEST_SHIFT} pixels, got {self.max_shift}"
            )
        if not self.max_exposure >= 1:
            raise InvalidFieldError("max_exposure", f"must be at least 1, got {self.max_exposure}")
        check_share(self, "max_clipped")
        check_positive(self, "largest_megapixels")
