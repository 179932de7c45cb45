"""The geometry of patches: where they lie on a photo.

Only the standard library is imported here: the command line builds its options from these fields.
"""

from dataclasses import dataclass

from degrain.errors import InvalidFieldError

CHANNELS = 3
SMALLEST_PATCH, LARGEST_PATCH = 16, 8192
"""Pixels; Arrow's values have at most 2 GiB."""


@dataclass(frozen=True, kw_only=True)
class PatchGeometry:
    """Where patches lie on a photo."""

    patch_size: int = 128
    """Side of a patch, pixels."""
    stride: int | None = None
    """Distance between neighbouring patches, pixels. None: the patch size, so that patches overlap
    at the far borders only."""

    def __post_init__(self) -> None:
        if self.stride is None:
            object.__setattr__(self, "stride", self.patch_size)
        if not SMALLEST_PATCH <= self.patch_size <= LARGEST_PATCH:
            raise InvalidFieldError(
                "patch_size",
                f"must be from {SMALLEST_PATCH} to {LARGEST_PATCH} pixels, got {self.patch_size}",
            )
        if not 1 <= self.distance <= self.patch_size:
            raise InvalidFieldError(
                "stride",
                f"must be between 1 and the patch size ({self.patch_size}), so that every pixel is "
                f"covered, got {self.distance}",
            )

    @property
    def distance(self) -> int:
        """The stride, resolved."""
        assert self.stride is not None, "None became the patch size"
        return self.stride

    def patch_bytes(self, bits: int) -> int:
        """Bytes of one RGB patch of 8 or 16 bits."""
        return self.patch_size**2 * CHANNELS * bits // 8

    def starts(self, side: int) -> list[int]:
        """Where patches start along a side of `side` pixels.

        Multiples of the stride; one more flush with the far border where these leave pixels
        uncovered.
        """
        last = side - self.patch_size
        starts = list(range(0, last + 1, self.distance))
        if starts and starts[-1] != last:
            starts.append(last)
        return starts

    def covered_pixels(self, height: int, width: int) -> int:
        """Pixels of a photo that lie in at least one patch."""
        return self._covered(height) * self._covered(width)

    def patched_pixels(self, height: int, width: int) -> int:
        """Pixels of all patches of a photo; those in several patches count several times."""
        return len(self.starts(height)) * len(self.starts(width)) * self.patch_size**2

    def _covered(self, side: int) -> int:
        ends = [start + self.patch_size for start in self.starts(side)]
        return ends[-1] if ends else 0
