"""Metadata of photo files, in the forms that every file type can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from degrain.imaging import (
    bmp_header,
    exif,
    jpeg_extras,
    jpeg_segments,
    png_chunks,
    resolution,
    tiff_tags,
)
from degrain.imaging.limits import FileType
from degrain.imaging.png import is_png
from degrain.imaging.png_colours import interpreted_chunks
from degrain.imaging.resolution import Resolution
from degrain.imaging.stored_photo import UnreadablePhotoError
from degrain.imaging.webp_chunks import held_by_webp_alone, is_webp, webp_chunks

_PHOTOSHOP_IPTC = 0x0404
_CLASSIC_TIFF = (b"II*\0", b"MM\0*")
_STRUCTURE = frozenset(
    {
        *range(254, 260), *(262, 266, 273, 277, 278, 279, 284, 288, 289, 317, 320),
        *(322, 323, 324, 325, 330, 332, 338, 339, 340, 341, 347, *range(512, 522)),
        *(529, 530, 531, 532),
    }
)  # fmt: skip
"""Tags of TIFF that describe how pixels are stored."""
_LAYERS = frozenset({37724, 50784, 52545})
"""Photoshop's layers, those of Alias, and content credentials: true of the photo before only."""
_CARRIED_APART = frozenset({tiff_tags.XMP, tiff_tags.IPTC, tiff_tags.PHOTOSHOP, tiff_tags.PROFILE})


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a file holds beside its pixels."""

    exif: bytes | None = None
    """A TIFF block with camera, exposure, position, maker notes and thumbnail."""
    xmp: bytes | None = None
    photoshop: bytes | None = None
    """Photoshop's image resources, with IPTC inside."""
    profile: bytes | None = None
    """ICC colour profile."""
    resolution: Resolution | None = None
    """Where it is stated apart from EXIF."""
    other: tuple[str, ...] = ()
    """Names of what only this type of file can hold."""

    def without_profile(self) -> "Metadata":
        """The same without a colour profile."""
        return replace(self, profile=None)


def read_camera(content: bytes) -> tuple[str | None, int | None]:
    """Model of the camera and ISO of a photo file; None for what is damaged or absent."""
    try:
        return exif.read_camera(_exif_block(content))
    except UnreadablePhotoError:
        return None, None


def _exif_block(content: bytes) -> bytes | None:
    """EXIF as a file of any type holds it; a TIFF is itself such a block."""
    if is_png(content):
        return png_chunks.read_exif(content)
    if is_webp(content):
        return _exif_of_webp(dict(webp_chunks(content)))
    if content.startswith(_CLASSIC_TIFF):
        return content
    return jpeg_segments.read_exif(content)


def _exif_of_webp(chunks: Mapping[bytes, bytes]) -> bytes | None:
    block = chunks.get(b"EXIF")
    return None if block is None else block.removeprefix(jpeg_segments.EXIF_HEADER)


def read_metadata(content: bytes, file_type: FileType, profile: bytes | None) -> Metadata:
    """Read the metadata of a file whose pixels were decoded; damaged EXIF is kept as it is."""
    if file_type == "jpeg":
        return _metadata_of_jpeg(content, profile)
    if file_type == "png":
        return _metadata_of_png(content, profile)
    if file_type == "webp":
        found = dict(webp_chunks(content))
        other = tuple(held_by_webp_alone(content))
        xmp = found.get(b"XMP ")
        return Metadata(exif=_exif_of_webp(found), xmp=xmp, profile=profile, other=other)
    if file_type == "tiff":
        return _metadata_of_tiff(content, profile)
    return Metadata(
        profile=profile,
        resolution=bmp_header.read_resolution(content),
        other=tuple(bmp_header.lost_colours(content)),
    )


def _metadata_of_jpeg(content: bytes, profile: bytes | None) -> Metadata:
    kept, dropped = jpeg_extras.copied_segments(content)
    xmp = jpeg_segments.body_after(kept, jpeg_segments.XMP_HEADER)
    return Metadata(
        exif=jpeg_segments.body_after(kept, jpeg_segments.EXIF_HEADER),
        xmp=jpeg_extras.without_extension(xmp) if xmp else None,
        photoshop=jpeg_segments.read_photoshop(content),
        profile=profile,
        resolution=resolution.of_jpeg(kept),
        other=(*dropped, *jpeg_extras.held_by_jpeg_alone(kept)),
    )


def _metadata_of_png(content: bytes, profile: bytes | None) -> Metadata:
    keys = png_chunks.text_keys(content)
    return Metadata(
        exif=png_chunks.read_exif(content),
        xmp=png_chunks.read_xmp(content),
        photoshop=png_chunks.read_photoshop(content),
        profile=profile,
        resolution=resolution.of_png(png_chunks.chunks(content)),
        other=(
            *(f"the PNG text '{key}'" for key in keys),
            *png_chunks.chunks_of_png_alone(content, interpreted_chunks(content)),
        ),
    )


def descriptive_tags(block: bytes) -> tuple[tiff_tags.TagFolder, list[str]]:
    """The tags of a TIFF block that are true of a denoised photo too, and what is left out beside
    the tags that describe how pixels are stored. Raises DamagedTagsError.
    """
    tags = tiff_tags.read_tags(block)
    layers = ["layers or content credentials, true of the photo before only"]
    left_out = layers if tags.tags.keys() & _LAYERS else []
    return tags.without(_STRUCTURE | _LAYERS), left_out


def _metadata_of_tiff(content: bytes, profile: bytes | None) -> Metadata:
    try:
        order, (tags, left_out) = tiff_tags.byte_order(content), descriptive_tags(content)
    except tiff_tags.DamagedTagsError as error:
        return Metadata(profile=profile, other=(f"the tags of the TIFF ({error})",))
    xmp, photoshop = (tags.tags.get(n) for n in (tiff_tags.XMP, tiff_tags.PHOTOSHOP))
    iptc = tags.tags.get(tiff_tags.IPTC)
    resources = photoshop.value if photoshop else _as_photoshop(iptc.value) if iptc else None
    rest = tags.without(_CARRIED_APART)
    written = tiff_tags.write_tags(order, rest) if rest.tags or rest.folders else None
    moved = written is not None and written.moved_maker_note
    return Metadata(
        exif=written.block if written else None,
        xmp=xmp.value if xmp else None,
        photoshop=resources,
        profile=profile,
        resolution=resolution.of_tags(order, tags),
        other=(*left_out, *(("addresses inside the maker notes",) if moved else ())),
    )


def _as_photoshop(iptc: bytes) -> bytes:
    """IPTC as an image resource. Adobe Photoshop File Formats Specification."""
    body = iptc + b"\0" * (len(iptc) % 2)
    return b"8BIM" + _PHOTOSHOP_IPTC.to_bytes(2) + b"\0\0" + len(iptc).to_bytes(4) + body


def tiff_tags_of(metadata: Metadata) -> tuple[tiff_tags.ByteOrder, tiff_tags.TagFolder, list[str]]:
    """Byte order and tags for a TIFF of metadata from another file type, and what is left out."""
    order: tiff_tags.ByteOrder = "<"
    dropped: list[str] = []
    tags = tiff_tags.TagFolder()
    if metadata.exif:
        try:
            order = tiff_tags.byte_order(metadata.exif)
            tags, _ = descriptive_tags(metadata.exif)
            if has_thumbnail(metadata.exif, order):
                dropped.append("the thumbnail inside EXIF")
        except tiff_tags.DamagedTagsError as error:
            dropped.append(f"EXIF ({error})")
    if metadata.resolution and resolution.of_tags(order, tags) is None:
        tags.tags.update(resolution.as_tags(order, metadata.resolution))
    for number, value, kind in (
        (tiff_tags.XMP, metadata.xmp, 1),
        (tiff_tags.PHOTOSHOP, metadata.photoshop, 7),
        (tiff_tags.PROFILE, metadata.profile, 7),
    ):
        if value:
            tags.tags[number] = tiff_tags.opaque(value, kind)
    return order, tags, dropped


def has_thumbnail(exif: bytes, order: tiff_tags.ByteOrder) -> bool:
    """Whether a block has a second folder."""
    endian: Literal["little", "big"] = "little" if order == "<" else "big"
    start = int.from_bytes(exif[4:8], endian)
    link = start + 2 + 12 * int.from_bytes(exif[start : start + 2], endian)
    return any(exif[link : link + 4])
