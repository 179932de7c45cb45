"""Denoise one photo file in memory: bytes in, bytes of the same type and look out.

The steps are apart, so that files can be read and written while the network computes:
`open_photo` decodes, `OpenPhoto.denoise` computes, `OpenPhoto.encode` encodes. `denoise_content`
does all three.
"""

import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from degrain.imaging.codecs import read_stored
from degrain.imaging.colour_profiles import apply_change, convert_to_srgb, is_srgb
from degrain.imaging.limits import FileType
from degrain.imaging.pixels import Photo, add_change, channel_mean, is_float, sixteen_bits
from degrain.imaging.stored_photo import StoredPhoto
from degrain.imaging.writers import MEDIA_TYPES, PhotoWriter, choose_writer
from degrain.inference.config import OutputConfig, ReadingConfig
from degrain.inference.denoiser import Denoiser
from degrain.inference.tiling import Window


@dataclass(frozen=True)
class DenoisedContent:
    """A denoised photo as a file."""

    content: bytes
    file_type: FileType
    megapixels: float
    seconds: float
    """Time of the denoiser."""
    notes: tuple[str, ...]
    """What the file lacks of the input, and how its pixels are stored otherwise."""

    @property
    def media_type(self) -> str:
        """`image/png` and the like."""
        return MEDIA_TYPES[self.file_type]

    @property
    def suffix(self) -> str:
        """`.png` and the like."""
        return SUFFIX_OF[self.file_type]


SUFFIX_OF: dict[FileType, str] = {
    "bmp": ".bmp",
    "jpeg": ".jpg",
    "png": ".png",
    "tiff": ".tif",
    "webp": ".webp",
}
"""File name suffix of each type."""


def denoise_content(
    content: bytes, denoiser: Denoiser, *, output: OutputConfig, reading: ReadingConfig
) -> DenoisedContent:
    """Denoise a photo file.

    Orientation, alpha and metadata are those of the input; pixels stay in its orientation and
    colour profile. Raises UnreadablePhotoError for a file that cannot be read, or a photo that the
    type named by `output` cannot hold.
    """
    photo = open_photo(content, output, reading)
    started = time.perf_counter()
    clean = photo.denoise(denoiser)
    seconds = time.perf_counter() - started
    return DenoisedContent(
        photo.encode(clean), photo.file_type, photo.megapixels, seconds, photo.notes
    )


@dataclass(frozen=True)
class OpenPhoto:
    """A decoded photo, and what the file of its denoised form needs beside pixels."""

    stored: StoredPhoto
    writer: PhotoWriter
    file_type: FileType
    notes: tuple[str, ...]
    converts: bool
    """Whether its colours have a profile that the denoiser does not know."""

    @property
    def megapixels(self) -> float:
        """Its size."""
        height, width = self.stored.colours.shape[:2]
        return int(height) * int(width) / 1e6

    def denoise(self, denoiser: Denoiser, window: Window | None = None) -> Photo:
        """The denoised colours, (H, W, 1) or (H, W, 3), as stored: turned, in their profile.

        The denoiser sees sRGB of 16 bits in place of another profile, and in place of floats, to
        which the change is added. With a `window` only these pixels need be right. Raises
        UnreadablePhotoError for a profile that cannot be converted.
        """
        # Without a window any function of a photo is a denoiser.
        network = denoiser if window is None else partial(denoiser, window=window)
        colours = np.ascontiguousarray(self.stored.colours)
        seen = sixteen_bits(colours) if self.converts or is_float(colours) else colours
        if self.converts:
            profile = self.stored.profile
            assert profile is not None
            srgb = convert_to_srgb(seen, profile)
            return apply_change(colours, srgb, network(srgb), profile)
        if colours.shape[2] == 1:
            clean = channel_mean(network(np.repeat(seen, 3, axis=2)))
        else:
            clean = network(seen)
        return add_change(colours, seen, clean) if is_float(colours) else clean

    def encode(self, colours: Photo) -> bytes:
        """The file with these colours. Raises UnreadablePhotoError."""
        return self.writer.encode(colours, self.stored.alpha)


def open_photo(content: bytes, output: OutputConfig, reading: ReadingConfig) -> OpenPhoto:
    """Decode a photo file. Raises UnreadablePhotoError as `denoise_content`."""
    stored = read_stored(content, reading.largest_megapixels)
    file_type = output.format or stored.file_type
    if output.format == "tiff" and not is_float(stored.colours):
        stored = _with_sixteen_bits(stored)
    elif file_type != "tiff" and is_float(stored.colours):
        note = "floats became 16 bits, clipped to black and white"
        stored = replace(_with_sixteen_bits(stored), changes=(*stored.changes, note))
    grey = stored.colours.shape[2] == 1
    converts = bool(stored.profile) and not grey and reading.profiles == "convert"
    writer, notes = choose_writer(stored, content, file_type, output.quality)
    return OpenPhoto(
        stored, writer, file_type, tuple(notes), converts and not is_srgb(stored.profile or b"")
    )


def _with_sixteen_bits(stored: StoredPhoto) -> StoredPhoto:
    alpha, others = stored.alpha, stored.selections
    return replace(
        stored,
        colours=sixteen_bits(stored.colours),
        alpha=None if alpha is None else sixteen_bits(alpha),
        selections=others and replace(others, planes=sixteen_bits(others.planes)),
    )
