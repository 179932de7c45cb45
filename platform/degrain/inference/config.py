"""Configurations of running networks on photos.

Only the standard library is imported here: the command line builds its options from these fields.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, TypeAlias

from degrain.errors import InvalidFieldError
from degrain.fields import check_choices, check_minimum, check_share
from degrain.imaging.limits import LARGEST_MEGAPIXELS, Profiles, check_noise_level

STARTER = "starter"
"""Name of the model in the package."""
Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps", "xpu"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
Compiled: TypeAlias = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a trained network is run on photos."""

    device: Device = "auto"
    """Device of the network; `auto`: the accelerator of this machine, or the CPU."""
    precision: Precision = "auto"
    """`bfloat16` autocast, `float32`, or the faster of both on the device."""
    compiled: Compiled = "auto"
    """Whether `torch.compile` is used; `auto` on CUDA only."""
    memory: int | None = None
    """MiB for the activations of a batch of tiles. None: a share of the free memory."""
    tile: int | None = None
    """Side of a tile's output, pixels. None: as large as the memory allows."""
    noise_level: float | None = None
    """Standard deviation of the noise in (0, 1], for filters and networks with this input. None:
    estimated."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_minimum(self, 1, "memory", "tile")
        if self.noise_level is not None:
            check_noise_level(self.noise_level)


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """Which photo files are read, and how."""

    largest_megapixels: float = LARGEST_MEGAPIXELS
    """Larger photos are refused, megapixels."""
    profiles: Profiles = "convert"
    """Colour profiles other than sRGB are converted, or kept: ignored."""

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.largest_megapixels > 0:
            raise InvalidFieldError(
                "largest_megapixels", f"must be above 0, got {self.largest_megapixels}"
            )


OutputFormat: TypeAlias = Literal["jpeg", "png", "tiff", "webp"]


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """How denoised photos are stored."""

    format: OutputFormat | None = None
    """Type of the files; `tiff` has 16 bits. None: that of each photo, with its bits."""
    quality: int = 95
    """Quality of JPEG and lossy WebP, 1 to 100; JPEG has no chroma subsampling."""
    keep_dates: bool = False
    """Files get the time of change of their photo; for folders of this machine."""

    def __post_init__(self) -> None:
        check_choices(self)
        if not 1 <= self.quality <= 100:
            raise InvalidFieldError("quality", f"must be from 1 to 100, got {self.quality}")


@dataclass(frozen=True, kw_only=True)
class BlendConfig:
    """How much of the noise that a denoiser finds is removed; docs/denoise.md has the formulas."""

    strength: float = 1.0
    """Share of the noise that is removed, 0 to 1."""
    luma: float = 1.0
    """Share of the noise of brightness that is removed, 0 to 1."""
    chroma: float = 1.0
    """Share of the noise of colour that is removed, 0 to 1."""
    detail: float = 0.0
    """How much brightness detail is returned to the photo, 0 (none) to 1 (all, with its noise)."""

    def __post_init__(self) -> None:
        check_share(self, "strength", "luma", "chroma", "detail")


class Crop(tuple[int, int, int, int]):
    """A part of an upright photo: width, height, left and top in pixels, written as WxH+X+Y."""

    METAVAR: ClassVar[str] = "WxH+X+Y"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `600x400+1200+800`. Raises ValueError."""
        found = re.fullmatch(r"(\d+)x(\d+)\+(\d+)\+(\d+)", text)
        if found is None or not (int(found[1]) and int(found[2])):
            raise ValueError(
                f"'{text}' is not WxH+X+Y: width, height, left and top in pixels, "
                "e.g. 600x400+1200+800"
            )
        return cls(map(int, found.groups()))

    def __str__(self) -> str:
        width, height, left, top = self
        return f"{width}x{height}+{left}+{top}"
