"""Encode photos as TIFF, with the tags of the file that they were read from."""

from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from degrain.imaging import tiff_tags
from degrain.imaging.metadata import Metadata, descriptive_tags, tiff_tags_of
from degrain.imaging.pixels import Photo, Plane, is_float
from degrain.imaging.stored_photo import Selections, StoredPhoto, UnreadablePhotoError
from degrain.imaging.tiff import is_compressed
from degrain.imaging.tiff_tags import ByteOrder, Strip, TagFolder, integers

_DEFLATE, _UNCOMPRESSED, _HORIZONTAL_DIFFERENCES = 8, 1, 2
_OF_FLOATS = 3
"""Predictor of floats: differences of their bytes. Adobe Photoshop TIFF Technical Note 3."""
_NOT_PREMULTIPLIED, _IEEE_FLOAT = 2, 3
_DEFLATE_LEVEL = 4
_STRIP_BYTES = 2**20


@dataclass(frozen=True)
class TiffWriter:
    """TIFF with 8 or 16 bits or floats in strips, uncompressed or Deflate."""

    order: ByteOrder
    tags: TagFolder
    compressed: bool
    selections: Selections | None = None

    def encode(self, colours: Photo, alpha: Plane | None) -> bytes:
        """Encode colours, or grey, with or without alpha. Raises UnreadablePhotoError."""
        pixels, kinds = self._with_others(colours, alpha)
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
            262: (short, [2 if colours.shape[2] == 3 else 1]),  # RGB, or grey where 0 is black
            277: (short, [channels]),
            278: (long, [rows]),
            279: (long, [len(strip) for strip in strips]),
            284: (short, [1]),
        }
        if self.compressed:
            shape[317] = (short, [_OF_FLOATS if is_float(pixels) else _HORIZONTAL_DIFFERENCES])
        if kinds:
            shape[338] = (short, kinds)
        if is_float(pixels):
            shape[339] = (short, [_IEEE_FLOAT] * channels)
        structure = {n: integers(self.order, kind, v) for n, (kind, v) in shape.items()}
        tags = TagFolder({**self.tags.tags, **structure}, self.tags.folders)
        try:
            return tiff_tags.write_tags(self.order, tags, strips).block
        except tiff_tags.DamagedTagsError as error:
            raise UnreadablePhotoError(str(error)) from None

    def _with_others(self, colours: Photo, alpha: Plane | None) -> tuple[NDArray[Any], list[int]]:
        """The colours with the other channels in the order of the source, and their kinds."""
        others = self.selections
        planes = [] if others is None else list(np.moveaxis(others.planes, 2, 0))
        kinds = [] if others is None else list(others.kinds)
        if alpha is not None:
            place = 0 if others is None else others.before_alpha
            planes.insert(place, alpha)
            kinds.insert(place, _NOT_PREMULTIPLIED)
        return (np.dstack([colours, *planes]) if planes else colours), kinds

    def _strip(self, pixels: NDArray[Any]) -> Strip:
        if self.compressed and is_float(pixels):
            differences = imagecodecs.floatpred_encode(np.ascontiguousarray(pixels), axis=-2)
            return bytes(imagecodecs.deflate_encode(differences.tobytes(), _DEFLATE_LEVEL))
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
            order, (tags, dropped) = tiff_tags.byte_order(content), descriptive_tags(content)
        except tiff_tags.DamagedTagsError:
            order, tags, dropped = "<", TagFolder(), list(metadata.other)
    if stored.orientation in range(2, 9):
        tags.tags[tiff_tags.ORIENTATION] = integers(order, 3, [stored.orientation])
    return TiffWriter(order, tags, compressed, stored.selections), dropped
