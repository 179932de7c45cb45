"""A folder of photo files of many kinds, each with the outcome that it must have."""

import io
import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image
from unit.photofiles import (
    ALPHA,
    DEEP,
    DEEP_ALPHA,
    DEEP_GREY,
    GREY,
    PALETTE,
    PHOTO,
    STRAIGHT,
    encoded,
    png,
    profile,
    saved,
    tiff,
)

EXIFTOOL = shutil.which("exiftool")
CANON_NOTE = 37500
DISPLAY_P3 = bytes(
    imagecodecs.cms_profile(
        "rgb",
        whitepoint=[0.3127, 0.3290, 1.0],
        primaries=[0.680, 0.320, 1.0, 0.265, 0.690, 1.0, 0.150, 0.060, 1.0],
        gamma=2.2,
    )
)
ADOBE_RGB = profile("adobergb")


def canon_exif(orientation: int, *, note_at: int = 0) -> bytes:
    """A TIFF block with camera, exposure, position, and a maker note with absolute addresses.

    Canon's notes hold addresses from the start of the block, so the note is written twice: the
    second time with the address that the first one got.
    """
    exif = Image.Exif()
    exif[271], exif[272], exif[274] = "Canon", "Canon EOS 5D", orientation
    exif[305], exif[33432] = "Firmware 1.1.1", "A. Photographer"
    below = exif.get_ifd(34665)
    below[33434], below[34855], below[36867] = 0.008, 6400, "2024:05:06 07:08:09"
    below[CANON_NOTE] = canon_note(note_at)
    gps = exif.get_ifd(34853)
    gps[1], gps[2], gps[3], gps[4] = "N", (47.0, 22.0, 30.0), "E", (8.0, 32.0, 15.0)
    block: bytes = exif.tobytes()[6:]
    found = block.index(canon_note(note_at))
    return block if found == note_at else canon_exif(orientation, note_at=found)


def canon_note(address: int) -> bytes:
    """A folder of tags with image type, firmware and owner, which lie behind it."""
    texts = {6: b"Canon EOS 5D\0\0\0\0", 7: b"Firmware Version 1.1.1\0\0", 9: b"A. Photographer\0"}
    start = address + 2 + 12 * len(texts) + 4
    entries, values = b"", b""
    for number, text in texts.items():
        place = (start + len(values)).to_bytes(4, "little")
        head = number.to_bytes(2, "little") + (2).to_bytes(2, "little")
        entries += head + len(text).to_bytes(4, "little") + place
        values += text
    return len(texts).to_bytes(2, "little") + entries + b"\0\0\0\0" + values


@dataclass(frozen=True)
class MixedPhoto:
    """A file of the folder."""

    name: str
    content: bytes
    reason: str | None = None
    """Why it is refused; None for a photo that is denoised."""
    same_bits: bool = True
    """Whether equal pixels are stored as equal values: not in a JPEG."""


def mixed_photos(count: int) -> list[MixedPhoto]:
    """`count` photos of all kinds, in turns; files of a kind differ in their pixels."""
    made: list[MixedPhoto] = []
    for number in itertools.count():
        for photo in _one_of_each(number):
            made.append(photo)
            if len(made) == count:
                return made
    raise AssertionError


def _one_of_each(number: int) -> Iterator[MixedPhoto]:
    rolled = {
        name: np.roll(pixels, 7 * number, axis=1)
        for name, pixels in {
            "rgb": PHOTO,
            "grey": GREY,
            "deep": DEEP,
            "deep_grey": DEEP_GREY,
            "alpha": ALPHA,
            "deep_alpha": DEEP_ALPHA,
        }.items()
    }
    rgb, grey, deep, deep_grey, alpha, deep_alpha = rolled.values()
    folder = f"group{number}"
    yield from _good(folder, rgb, grey, deep, deep_grey, alpha, deep_alpha)
    yield from _with_metadata(folder, rgb, deep)
    yield from _bad(folder, rgb)


def _good(
    folder: str,
    rgb: np.ndarray,
    grey: np.ndarray,
    deep: np.ndarray,
    deep_grey: np.ndarray,
    alpha: np.ndarray,
    deep_alpha: np.ndarray,
) -> Iterator[MixedPhoto]:
    rgba, deep_rgba = np.dstack([rgb, alpha]), np.dstack([deep, deep_alpha])
    for name, pixels in (
        ("rgb", rgb),
        ("rgb16", deep),
        ("grey", grey),
        ("grey16", deep_grey),
        ("alpha", rgba),
        ("alpha16", deep_rgba),
        ("grey-alpha", np.dstack([grey, alpha])),
        ("grey-alpha16", np.dstack([deep_grey, deep_alpha])),
    ):
        straight = STRAIGHT if "alpha" in name else {}
        kind = "minisblack" if "grey" in name else "rgb"
        yield MixedPhoto(f"{folder}/{name}.png", png(pixels))
        compression = "zlib" if "16" in name else None
        content = tiff(pixels, photometric=kind, compression=compression, **straight)
        yield MixedPhoto(f"{folder}/{name}.tif", content)
    yield MixedPhoto(f"{folder}/big-endian.tif", tiff(deep, byteorder=">", compression="lzw"))
    yield MixedPhoto(f"{folder}/bigtiff.tif", tiff(deep, bigtiff=True))
    yield MixedPhoto(f"{folder}/rgb.bmp", saved(rgb, "BMP"))
    yield MixedPhoto(f"{folder}/grey.bmp", saved(grey, "BMP"))
    yield MixedPhoto(f"{folder}/lossless.webp", saved(rgb, "WEBP", lossless=True))
    lossless = encoded(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)
    yield MixedPhoto(f"{folder}/alpha.webp", lossless)
    yield MixedPhoto(f"{folder}/lossy.webp", saved(rgb, "WEBP"), same_bits=False)
    yield MixedPhoto(f"{folder}/grey.jpg", saved(grey, "JPEG", quality=95), same_bits=False)
    yield MixedPhoto(f"{folder}/progressive.JPEG", saved(rgb, "JPEG", progressive=True),
                     same_bits=False)  # fmt: skip
    yield MixedPhoto(f"{folder}/palette.png", encoded(PALETTE, "PNG"))
    clear = encoded(PALETTE, "PNG", transparency=bytes(range(16)))
    yield MixedPhoto(f"{folder}/palette-alpha.png", clear)


def _with_metadata(folder: str, rgb: np.ndarray, deep: np.ndarray) -> Iterator[MixedPhoto]:
    image = Image.fromarray(rgb)
    writers: dict[str, Callable[[bytes, bytes | None], bytes]] = {
        "jpg": lambda exif, icc: encoded(image, "JPEG", exif=exif, icc_profile=icc, quality=95),
        "png": lambda exif, icc: encoded(image, "PNG", exif=exif, icc_profile=icc),
        "webp": lambda exif, icc: encoded(image, "WEBP", lossless=True, exif=exif, icc_profile=icc),
        "tif": lambda exif, icc: _tiff_with_exif(image, exif, icc),
    }
    for orientation in range(1, 9):
        for suffix, write in writers.items():
            content = write(canon_exif(orientation), None)
            name = f"{folder}/turned{orientation}.{suffix}"
            yield MixedPhoto(name, content, same_bits=suffix != "jpg")
    for gamut, icc in (("p3", DISPLAY_P3), ("adobe", ADOBE_RGB)):
        for suffix, write in writers.items():
            content = write(canon_exif(1), icc)
            yield MixedPhoto(f"{folder}/{gamut}.{suffix}", content, same_bits=suffix != "jpg")
        tag = [(34675, 7, len(icc), icc, True)]
        yield MixedPhoto(f"{folder}/{gamut}-16.tif", tiff(deep, extratags=tag))


def _tiff_with_exif(image: Image.Image, block: bytes, icc: bytes | None) -> bytes:
    """A TIFF whose maker note has the addresses of its place in this file."""
    exif = Image.Exif()
    exif.load(block)
    note: bytes = exif.get_ifd(34665)[CANON_NOTE]
    while True:
        content = encoded(image, "TIFF", exif=exif, icc_profile=icc)
        placed = canon_note(content.index(note))
        if placed == note:
            return content
        exif.get_ifd(34665)[CANON_NOTE] = note = placed


def _bad(folder: str, rgb: np.ndarray) -> Iterator[MixedPhoto]:
    image, second = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    frames = {"save_all": True, "append_images": [second]}
    pages = io.BytesIO()
    image.save(pages, "TIFF", **frames)
    cmyk = image.convert("CMYK")
    for name, content, reason in (
        ("cmyk.jpg", encoded(cmyk, "JPEG"), "its mode is CMYK"),
        ("cmyk.tif", encoded(cmyk, "TIFF"), "its colours are SEPARATED"),
        ("animated.png", encoded(image, "PNG", **frames), "it has 2 pages or frames"),
        ("animated.webp", encoded(image, "WEBP", **frames), "it has 2 pages or frames"),
        ("pages.tif", pages.getvalue(), "it has 2 pages or frames"),
        ("broken.jpg", saved(rgb, "JPEG")[:900], "it is damaged"),
        ("broken.png", png(rgb)[:900], "it is damaged"),
        ("broken.tif", tiff(rgb)[:900], "it is damaged"),
        ("broken.webp", saved(rgb, "WEBP", lossless=True)[:900], "it is damaged"),
        ("empty.png", b"", "the file is empty"),
        ("text.jpg", b"not a photo at all", "it is not a photo"),
        ("bad-profile.png", saved(rgb, "PNG", icc_profile=b"garbage" * 30), "its colour profile"),
    ):
        yield MixedPhoto(f"{folder}/{name}", content, reason=reason)


def write_mixed(folder: Path, photos: list[MixedPhoto]) -> None:
    """Write the files; where ExifTool is installed, it adds XMP and IPTC to those with EXIF."""
    for photo in photos:
        file = folder / photo.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo.content)
    described = [folder / photo.name for photo in photos if photo.name.startswith("group0/turned")]
    if EXIFTOOL is not None and described:
        tags = ["-XMP-dc:Title=A title with ü", "-XMP-dc:Subject=one", "-XMP-xmp:Rating=4"]
        iptc = ["-IPTC:Keywords=noise", "-IPTC:City=Zürich", "-codedcharacterset=utf8"]
        for files, options in (
            (described, tags),
            ([f for f in described if f.suffix in (".jpg", ".tif")], iptc),
            ([f for f in described if f.suffix == ".png"], ["-PNG:Comment=a comment"]),
        ):
            subprocess.run(
                [EXIFTOOL, "-q", "-overwrite_original", *options, *map(str, files)],
                check=True,
                capture_output=True,
            )
