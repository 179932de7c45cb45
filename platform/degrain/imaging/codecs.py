"""Photo files to pixels and back: RGB arrays of shape (H, W, 3), 8 or 16 bits, and what a file may hold beside them.

All files take one way, `decode_layers`; `decode` is the strict view of it for those who want nothing but colours.

PNG goes through imagecodecs, measured nearly twice as fast as Pillow; so does TIFF (with tifffile), because Pillow would
make 8 bits of 16-bit colour without a word. The rest is Pillow's: it alone is strict about a JPEG that was cut short.
"""

import io
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from degrain.imaging.pixels import Photo, Plane, peak

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".mpo", ".bmp", ".tif", ".tiff", ".webp"})
"""File name endings that are taken for photos, in lower case."""

LARGEST_MEGAPIXELS = 500.0
"""Photos above are refused unless another limit is given: a small file can claim to be a huge photo."""

Profiles: TypeAlias = Literal["convert", "keep"]
PROFILES: tuple[Profiles, ...] = ("convert", "keep")

_PLAIN_MODES = frozenset({"RGB", "RGBA", "L", "LA", "1"})
_EIGHT_BIT_MODES = frozenset({"RGB", "L", "P", "1", "RGBA", "LA", "PA"})
_ORIENTATION_TAG = 274
_PROFILE_TAG = 34675
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""All that Pillow may try: some of the formats it knows run other programs."""
_TIFF_GREYS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class UnreadablePhotoError(ValueError):
    """The bytes are not a photo that Degrain reads; the message says why, without the file's name."""


@dataclass(frozen=True)
class PhotoLayers:
    """All that is read of a photo file, upright and in sRGB; `encode_png` writes the same."""

    rgb: Photo
    """The colours, of a grey photo three equal channels. They are not multiplied by alpha: below transparent places lies
    whatever the file has there, often black, and it counts as colour like the rest."""
    alpha: Plane | None
    """Opacity in as many bits as the colours; None if the file says nothing of it."""
    grey: bool
    """Whether the file has one channel of brightness instead of colours."""


def is_photo(name: str) -> bool:
    """Whether a file name ends like a photo's, in any case."""
    return Path(name).suffix.lower() in SUFFIXES


def decode(content: bytes, *, largest_megapixels: float = LARGEST_MEGAPIXELS, profiles: Profiles = "convert") -> Photo:
    """Decode a whole photo file into RGB, (H, W, 3): the colours of `decode_layers`, for who has no use for the rest.

    Raises UnreadablePhotoError as that does, and for transparency, which would be lost. Opaque alpha is left out.
    """
    layers = decode_layers(content, largest_megapixels=largest_megapixels, profiles=profiles)
    if layers.alpha is not None and layers.alpha.min() != peak(layers.alpha):
        raise UnreadablePhotoError("it is transparent in places; flatten it first")
    return layers.rgb


def decode_layers(
    content: bytes, *, largest_megapixels: float = LARGEST_MEGAPIXELS, profiles: Profiles = "convert"
) -> PhotoLayers:
    """Decode a whole photo file: uint16 where the file has more than 8 bits, else uint8.

    EXIF orientation is applied, a colour profile other than sRGB converted (or kept, that is: ignored), that of a grey
    photo ignored. Float TIFF in [0, 1] becomes 16 bits. Colours that a TIFF has multiplied by its alpha are divided by it
    (multiplied again they are the same), an unspecified fourth channel is taken for alpha, a transparent colour becomes
    alpha. Raises UnreadablePhotoError for what is empty, damaged, no photo, too large, or would lose something: CMYK,
    several pages, other number types.
    """
    if not content:
        raise UnreadablePhotoError("the file is empty")
    # Pillow's own limit is a warning and lies below what cameras make today; ours follows.
    Image.MAX_IMAGE_PIXELS = None
    _silence_codecs()
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged EXIF and the like; the pixels are what counts, and these it checks.
            warnings.simplefilter("ignore")
            if content[:4] in _TIFF_STARTS:
                return _decode_tiff(content, largest_megapixels, profiles)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                return _decode_opened(image, content, largest_megapixels, profiles)
    except UnidentifiedImageError:
        raise UnreadablePhotoError("it is not a photo in a known format, or damaged at its start") from None
    except UnreadablePhotoError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, imagecodecs.PngError) as error:
        raise UnreadablePhotoError(f"it is damaged ({_first_line(error)})") from None


def _decode_opened(image: Image.Image, content: bytes, largest_megapixels: float, profiles: Profiles) -> PhotoLayers:
    _check_size(image.width, image.height, largest_megapixels)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise UnreadablePhotoError(f"it has {frames} pages or frames; store one photo per file")
    profile = image.info.get("icc_profile") if profiles == "convert" else None
    by_imagecodecs = image.format == "PNG" and (_is_deep(image) or image.mode in _PLAIN_MODES)
    orientation = _orientation(image, content)
    pixels: NDArray[Any] = imagecodecs.png_decode(content) if by_imagecodecs else _decode_with_pillow(image)
    return _layers(*_split(pixels), profile, orientation)


def _orientation(image: Image.Image, content: bytes) -> int:
    """The EXIF orientation of an opened image; 1 where EXIF is damaged, as viewers show it."""
    # To look for EXIF after the pixels, Pillow would decode the whole PNG.
    only_before = image.format == "PNG" and not _has_png_chunk(content, b"eXIf")
    try:
        exif = Image.Image.getexif(image) if only_before else image.getexif()
    except SyntaxError:
        return 1
    value = exif.get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) else 1


def _has_png_chunk(content: bytes, name: bytes) -> bool:
    """Whether a PNG file has a chunk of that name; looks at the chunks' headers alone."""
    place = 8
    while place + 8 <= len(content):
        if content[place + 4 : place + 8] == name:
            return True
        place += 12 + int.from_bytes(content[place : place + 4])
    return False


def _decode_with_pillow(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W) if the image is grey, (H, W, 4) if it has alpha or a palette with transparent colours, else (H, W, 3)."""
    if image.mode not in _EIGHT_BIT_MODES:
        raise UnreadablePhotoError(f"its mode is {image.mode}, not RGB or grey; convert it first")
    image.load()
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("L" if image.mode in ("L", "1") else "RGB"))


def _check_size(width: int, height: int, largest_megapixels: float) -> None:
    if width < 1 or height < 1:
        raise UnreadablePhotoError(f"it is damaged (it claims {width}x{height} pixels)")
    if width * height > largest_megapixels * 1e6:
        raise UnreadablePhotoError(
            f"it claims {width}x{height} pixels, over the limit of {largest_megapixels:g} megapixels (--largest-megapixels)"
        )


def is_deep(content: bytes) -> bool:
    """Whether the file has more than 8 bits, by its header alone; False if it cannot be read."""
    if content[:4] in _TIFF_STARTS:
        return _is_deep_tiff(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                return _is_deep(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return False


def _is_deep(image: Image.Image) -> bool:
    """Whether an opened, not yet loaded, image has more than 8 bits; of colour only PNG's raw mode tells."""
    raw_modes = [tile.args[0] if isinstance(tile.args, tuple) else tile.args for tile in getattr(image, "tile", [])]
    return image.format == "PNG" and (image.mode.startswith("I") or any(";16" in str(raw) for raw in raw_modes))


def _is_deep_tiff(content: bytes) -> bool:
    _silence_codecs()
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = file.pages.first
            return page.bitspersample > 8 and page.photometric != tifffile.PHOTOMETRIC.PALETTE
    except Exception:  # noqa: BLE001 - tifffile raises whatever a damaged file leads to
        return False


def _decode_tiff(content: bytes, largest_megapixels: float, profiles: Profiles) -> PhotoLayers:
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = file.pages.first
            _check_size(page.imagewidth, page.imagelength, largest_megapixels)
            if len(file.pages) > 1:
                raise UnreadablePhotoError(f"it has {len(file.pages)} pages or frames; store one photo per file")
            colours, alpha = _split(_tiff_pixels(page, len(content)))
            if alpha is not None and tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
                colours = _divided(colours, alpha)
            if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
                colours = np.invert(colours)
            orientation = page.tags.valueof(_ORIENTATION_TAG, 1)
            profile = page.tags.valueof(_PROFILE_TAG) if profiles == "convert" else None
    except UnreadablePhotoError:
        raise
    except MemoryError:
        # Damage can make a small file ask for any size.
        raise UnreadablePhotoError("it is damaged, or too large for the memory of this machine") from None
    except Exception as error:  # noqa: BLE001 - tifffile raises whatever a damaged file leads to
        raise UnreadablePhotoError(f"it is damaged ({_first_line(error)})") from None
    return _layers(colours, alpha, profile, orientation)


def _tiff_pixels(page: tifffile.TiffPage, size: int) -> NDArray[Any]:
    """The pixels of a TIFF of `size` bytes: (H, W) or (H, W, C), uint8 or uint16, as bright as they are stored."""
    colours, bits = tifffile.PHOTOMETRIC(page.photometric), page.bitspersample
    by_jpeg = colours == tifffile.PHOTOMETRIC.YCBCR and page.compression == tifffile.COMPRESSION.JPEG
    if not (by_jpeg or colours in (*_TIFF_GREYS, tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.PALETTE)):
        raise UnreadablePhotoError(f"its colours are {colours.name}, not RGB or grey; convert it first")
    if page.samplesperpixel > 4 or page.imagedepth > 1:
        raise UnreadablePhotoError(f"its shape is {page.shape}, not RGB or grey; convert it first")
    # What a compressed strip lacks, tifffile makes up.
    if max(start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)) > size:
        raise UnreadablePhotoError("it is damaged (the file ends before its pixels)")
    pixels = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if colours == tifffile.PHOTOMETRIC.PALETTE:
        return np.asarray(np.asarray(page.colormap).T[pixels] >> 8, dtype=np.uint8)
    if pixels.dtype.kind == "f":
        return _sixteen_of_floats(pixels)
    if pixels.dtype.kind not in "bu" or bits > 16:
        raise UnreadablePhotoError(f"its pixels are {pixels.dtype}, not 8 or 16 bits or floats; convert it first")
    white, kind = 2**bits - 1, np.uint8 if bits <= 8 else np.uint16
    if bits not in (8, 16):
        pixels = np.round(pixels * (np.iinfo(kind).max / white))
    return np.asarray(pixels, dtype=kind)


def _sixteen_of_floats(pixels: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    values = pixels.astype(np.float32, copy=False)
    if not (values.min() >= 0 and values.max() <= 1):
        raise UnreadablePhotoError(f"its floats are {values.min():.3g} to {values.max():.3g}, not in [0, 1]; scale it first")
    return np.round(values * 65535).astype(np.uint16)


def _divided(colours: Photo, alpha: Plane) -> Photo:
    """What colours were before they were multiplied by alpha, (H, W, C); where that is 0, nobody knows."""
    white, opacity = np.uint32(peak(colours)), alpha[:, :, None].astype(np.uint32)
    straight = (colours * white + opacity // 2) // np.maximum(opacity, 1)
    return np.asarray(np.minimum(straight, white), dtype=colours.dtype)


def _split(pixels: NDArray[Any]) -> tuple[Photo, Plane | None]:
    """(H, W) or (H, W, 1..4) -> colours, (H, W, 1 or 3), and alpha, if there is. Raises UnreadablePhotoError for others."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] > 4:
        raise UnreadablePhotoError(f"its shape is {pixels.shape}, not RGB or grey; convert it first")
    if pixels.shape[2] in (2, 4):
        return pixels[:, :, :-1], pixels[:, :, -1]
    return pixels, None


def _layers(colours: Photo, alpha: Plane | None, profile: bytes | None, orientation: int) -> PhotoLayers:
    """Colours, (H, W, 1 or 3), and alpha as they are stored -> in sRGB and upright; a grey photo's profile is ignored."""
    grey = colours.shape[2] == 1
    rgb = np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))
    return PhotoLayers(
        rgb=_upright(rgb if grey else _in_srgb(rgb, profile), orientation),
        alpha=None if alpha is None else _upright(alpha, orientation),
        grey=grey,
    )


def _upright(layer: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply EXIF orientation to (H, W) or (H, W, 3): 2-4 flip, 5-8 flip and transpose, others leave it as it is."""
    if orientation in (5, 6, 7, 8):
        layer = layer.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        # After transposing, what was the left side is the top.
        layer = layer[::-1]
    if orientation in (2, 3, 6, 7):
        layer = layer[:, ::-1]
    return np.ascontiguousarray(layer)


def _in_srgb(photo: Photo, profile: bytes | None) -> Photo:
    """Convert colours from `profile`, if there is one. Raises UnreadablePhotoError if it is damaged, or not of RGB."""
    if not profile:
        return photo
    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        name, space = ImageCms.getProfileDescription(opened), opened.profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError):
        raise UnreadablePhotoError("its colour profile is damaged; ignore profiles with --profiles keep") from None
    if space != "RGB":
        raise UnreadablePhotoError(f"its colour profile is for {space}, not RGB; ignore profiles with --profiles keep")
    if "srgb" in name.lower():
        return photo
    try:
        converted: Photo = imagecodecs.cms_transform(
            photo, profile, imagecodecs.cms_profile("srgb"), colorspace="rgb", outcolorspace="rgb"
        )
    except imagecodecs.CmsError as error:
        reason = _first_line(error)
        raise UnreadablePhotoError(f"its colour profile is of no use ({reason}); ignore it with --profiles keep") from None
    return converted


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    # A LookupError says nothing but the key.
    return text[0] if text and not isinstance(error, LookupError) else type(error).__name__


def _silence_codecs() -> None:
    """What imagecodecs and tifffile would log of a damaged file is in the reason, or of no matter to the pixels."""
    for name in ("imagecodecs", "tifffile"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def encode_png(photo: Photo, *, alpha: Plane | None = None, grey: bool = False) -> bytes:
    """Encode (H, W, 3) uint8 or uint16 as PNG of as many bits, with `alpha` if given; `grey` writes the channels' mean."""
    channels = _mean(photo) if grey else photo
    pixels = channels if alpha is None else np.dstack([channels, alpha])
    if photo.dtype == np.uint16:
        # A copy, because imagecodecs refuses the strides that a view of a single pixel may have.
        return bytes(imagecodecs.png_encode(pixels.copy(), level=4))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def _mean(photo: Photo) -> Plane:
    """(H, W, 3) -> (H, W), rounded: a third is never half-way, so adding one before dividing is enough."""
    total = photo.sum(axis=2, dtype=np.uint32)
    return np.asarray((total + 1) // 3, dtype=photo.dtype)
