"""Encode photos as TIFF, with the tags of the file that they were read from."""

from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from degrain.imaging import tiff_tags
from degrain.imaging.metadata import Metadata, descriptive_tags, tiff_tags_of
from degrain.imaging.pixels import Photo, Plane
from degrain.imaging.stored_photo import StoredPhoto, UnreadablePhotoError
from degrain.imaging.tiff import is_compressed
from degrain.imaging.tiff_tags import ByteOrder, Strip, TagFolder, integers

_DEFLATE, _UNCOMPRESSED, _HORIZONTAL_DIFFERENCES = 8, 1, 2
_DEFLATE_LEVEL = 4
_STRIP_BYTES = 2**20


@dataclass(frozen=True)
class TiffWriter:
    """TIFF with 8 or 16 bits in strips, uncompressed or Deflate."""

    order: ByteOrder
    tags: TagFolder
    compressed: bool

    def encode(self, colours: Photo, alpha: Plane | None) -> bytes:
        """Encode colours, or grey, with or without alpha. Raises UnreadablePhotoError."""
        pixels = colours if alpha is None else np.dstack([colours, alpha])
        height, width, channels = pixels.shape
        rows = min(max(_STRIP_BYTES // max(pixels[0].nbytes, 1), 1), height)
        strips = [self._strip(pixels[top : top + rows]) for top in range(0, height, rows)]
        bits = 8 * pixels.dtype.itemsize
        short, long = 3, 4
        shape = {
            256: (long, [width]),
            257: (long, [height]),
            258: (short, [bits] * channels),
            259: (short, [_DEFLATE if self.compressed else _UNCOMPRESSED]),
            262: (short, [2 if channels >= 3 else 1]),  # RGB, or grey where 0 is black
            277: (short, [channels]),
            278: (long, [rows]),
            279: (long, [len(strip) for strip in strips]),
            284: (short, [1]),
        }
        if self.compressed:
            shape[317] = (short, [_HORIZONTAL_DIFFERENCES])
        if alpha is not None:
            shape[338] = (short, [2])  # not premultiplied
        structure = {n: integers(self.order, kind, v) for n, (kind, v) in shape.items()}
        tags = TagFolder({**self.tags.tags, **structure}, self.tags.folders)
        try:
            return tiff_tags.write_tags(self.order, tags, strips).block
        except tiff_tags.DamagedTagsError as error:
            raise UnreadablePhotoError(str(error)) from None

    def _strip(self, pixels: NDArray[Any]) -> Strip:
        if self.compressed:
            differences = pixels.copy()
            differences[:, 1:] -= pixels[:, :-1]
            pixels = differences
        stored = pixels.astype(pixels.dtype.newbyteorder(self.order), copy=False)
        if self.compressed:
            return bytes(imagecodecs.deflate_encode(stored.tobytes(), _DEFLATE_LEVEL))
        return np.ascontiguousarray(stored).view(np.uint8).data.cast("B")


def tiff_writer(
    stored: StoredPhoto, content: bytes, metadata: Metadata, _quality: int
) -> tuple[TiffWriter, list[str]]:
    """The writer for a photo, and what of the metadata TIFF cannot hold."""
    if stored.file_type != "tiff":
        compressed = True
        order, tags, dropped = tiff_tags_of(metadata)
    else:
        compressed = is_compressed(content)
        try:
            order, tags, dropped = tiff_tags.byte_order(content), descriptive_tags(content), []
        except tiff_tags.DamagedTagsError:
            order, tags, dropped = "<", TagFolder(), list(metadata.other)
    if stored.orientation in range(2, 9):
        tags.tags[tiff_tags.ORIENTATION] = integers(order, 3, [stored.orientation])
    return TiffWriter(order, tags, compressed), dropped
