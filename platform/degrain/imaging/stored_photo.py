"""A photo as its file stores it, before orientation and colour profile are applied."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from degrain.imaging.limits import FileType
from degrain.imaging.pixels import Photo, Plane


class UnreadablePhotoError(ValueError):
    """The bytes are not a supported photo; the message is the reason without a file name."""


class TooManyPixelsError(UnreadablePhotoError):
    """The photo is larger than the limit."""

    def __init__(self, width: int, height: int, largest_megapixels: float) -> None:
        super().__init__(
            f"its size is {width}x{height} pixels, over the limit of {largest_megapixels:g} "
            "megapixels; raise `largest_megapixels` to read it"
        )
        self.width, self.height, self.largest_megapixels = width, height, largest_megapixels


@dataclass(frozen=True)
class Selections:
    """Channels of a TIFF that are neither colours nor opacity, such as an editor's selections."""

    planes: NDArray[Any]
    """(H, W, n), with the type of the colours."""
    kinds: tuple[int, ...]
    """Their values of the tag ExtraSamples."""
    before_alpha: int
    """How many are stored before opacity, if there is one."""


@dataclass(frozen=True)
class StoredPhoto:
    """Pixels and metadata of a file."""

    colours: Photo
    """(H, W, 1) for a grey photo, else (H, W, 3): uint8, uint16, or the floats of a TIFF, of which
    values below 0 or above 1, NaN and infinities may be some.
    """
    alpha: Plane | None
    profile: bytes | None
    """ICC colour profile."""
    orientation: int
    """EXIF orientation, 1 to 8; other values count as 1."""
    file_type: FileType
    changes: tuple[str, ...] = ()
    """How `colours` differ from the stored values, which a file with these pixels shows."""
    selections: Selections | None = None


def check_size(width: int, height: int, largest_megapixels: float) -> None:
    """Raise UnreadablePhotoError for a size of 0 or above the limit."""
    if width < 1 or height < 1:
        raise UnreadablePhotoError(f"it is damaged (its size is {width}x{height} pixels)")
    if width * height > largest_megapixels * 1e6:
        raise TooManyPixelsError(width, height, largest_megapixels)


def refuse_pages(count: int) -> None:
    """Raise UnreadablePhotoError for more than one page or frame."""
    if count > 1:
        raise UnreadablePhotoError(f"it has {count} pages or frames; store one photo per file")


def split_alpha(pixels: NDArray[Any]) -> tuple[Photo, Plane | None]:
    """(H, W) or (H, W, 1..4) -> colours, (H, W, 1 or 3), and alpha, if there is one.

    Raises UnreadablePhotoError for other shapes.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] > 4:
        raise UnreadablePhotoError(
            f"its shape is {pixels.shape}, not RGB or grey; convert it first"
        )
    if pixels.shape[2] in (2, 4):
        return pixels[:, :, :-1], pixels[:, :, -1]
    return pixels, None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where the message does not explain it."""
    text = str(error).strip().splitlines()
    # The message of a LookupError is the key alone.
    return text[0] if text and not isinstance(error, LookupError) else type(error).__name__
