"""What a JPEG holds beside one picture, and what of its metadata does not hold for other pixels.

Further pictures: CIPA DC-007 (MPF). Gain maps: Ultra HDR 1.1, ISO 21496-1. Motion photos: Android's
Motion Photo format 1.0, with a video behind the picture. Content credentials: C2PA 2.1, which sign
the pixels. Extended XMP: Adobe XMP Specification, part 3, section 1.1.3.1.
"""

import re

from degrain.imaging.jpeg_segments import Segment, end_of_picture, segments

XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED_XMP_HEADER = b"http://ns.adobe.com/xmp/extension/\0"
_PICTURES_HEADER = b"MPF\0"
_GAIN_MAP_HEADER = b"urn:iso:std:iso:ts:21496:-1\0"
_BOX_HEADER = b"JP"
_APP1, _APP2, _APP11, _APP14 = 0xE1, 0xE2, 0xEB, 0xEE
_GAIN_MAP = "the gain map of high dynamic range"
_VIDEO = "the video of a motion photo"
_PICTURES = "further pictures in the file (MPF)"
CREDENTIALS = "content credentials (C2PA), which do not hold for other pixels"
_MOTION = re.compile(rb"(:(?:MotionPhoto|MicroVideo)\s*(?:=\s*[\"']|>))1")
_GAIN_MAP_VERSION = re.compile(rb"\shdrgm:Version\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_DIRECTORY = re.compile(rb"<(\w{1,40}:Directory)>")
_EXTENSION = re.compile(rb"\sxmpNote:HasExtendedXMP\s*=\s*(?:\"[^\"]*\"|'[^']*')")


def copied_segments(jpeg: bytes) -> tuple[list[Segment], list[str]]:
    """The segments that a JPEG with other pixels shares, and what of the file it lacks.

    The colour transform of the stored pixels (Adobe's APP14) is the encoder's.
    """
    kept: list[Segment] = []
    dropped: list[str] = []
    signed = _signed_boxes(jpeg)
    for segment in segments(jpeg):
        body = segment.body
        if segment.marker == _APP2 and body.startswith(_PICTURES_HEADER):
            dropped.append(_PICTURES)
        elif segment.marker == _APP2 and body.startswith(_GAIN_MAP_HEADER):
            dropped.append(_GAIN_MAP)
        elif segment.marker == _APP11 and body[:4] in signed:
            dropped.append(CREDENTIALS)
        elif segment.marker == _APP1 and body.startswith(XMP_HEADER):
            xmp, lost = _of_one_picture(body)
            kept.append(Segment(_APP1, xmp))
            dropped += lost
        elif segment.is_metadata and segment.marker != _APP14:
            kept.append(segment)
    dropped += _behind_picture(jpeg, dropped)
    return kept, list(dict.fromkeys(dropped))


def without_extension(xmp: bytes) -> bytes:
    """An XMP packet that does not refer to an extension."""
    return _blanked(_EXTENSION, xmp)


def held_by_jpeg_alone(kept: list[Segment]) -> list[str]:
    """The names of segments that no other type of file holds."""
    names: list[str] = []
    for segment in kept:
        if segment.marker == 0xFE:
            names.append("the JPEG comment")
        elif segment.body.startswith(_EXTENDED_XMP_HEADER):
            names.append("the extension of XMP, which a JPEG alone holds")
        elif not _is_carried(segment):
            label = re.match(rb"[ -~]{0,24}", segment.body)
            text = f" ({label[0].decode()})" if label and label[0] else ""
            names.append(f"the JPEG segment APP{segment.marker - 0xE0}{text}")
    return list(dict.fromkeys(names))


def _is_carried(segment: Segment) -> bool:
    """Whether EXIF, XMP, IPTC, the profile or the resolution are in a segment."""
    headers: dict[int, tuple[bytes, ...]] = {
        0xE0: (b"JFIF\0",),
        0xE1: (b"Exif\0\0", XMP_HEADER),
        0xE2: (b"ICC_PROFILE\0",),
        0xED: (b"Photoshop 3.0\0",),
    }
    return segment.body.startswith(headers.get(segment.marker, ()))


def _signed_boxes(jpeg: bytes) -> set[bytes]:
    """The starts of segments with boxes of C2PA; a box may go through several segments."""
    return {
        s.body[:4]
        for s in segments(jpeg)
        if s.marker == _APP11 and s.body.startswith(_BOX_HEADER) and b"c2pa" in s.body
    }


def _of_one_picture(xmp: bytes) -> tuple[bytes, list[str]]:
    """XMP of the same length without statements about other parts of the file, and these parts."""
    lost = [_VIDEO] if _MOTION.search(xmp) else []
    if _GAIN_MAP_VERSION.search(xmp):
        lost.append(_GAIN_MAP)
    still = _MOTION.sub(rb"\g<1>0", xmp)
    return _without_directories(_blanked(_GAIN_MAP_VERSION, still)), lost


def _without_directories(xmp: bytes) -> bytes:
    """XMP of the same length without lists of the parts of the file."""
    position = 0
    while (start := _DIRECTORY.search(xmp, position)) is not None:
        closing = b"</" + start[1] + b">"
        position = xmp.find(closing, start.end()) + len(closing)
        if position < start.end():
            break
        xmp = xmp[: start.start()] + b" " * (position - start.start()) + xmp[position:]
    return xmp


def _blanked(pattern: re.Pattern[bytes], text: bytes) -> bytes:
    return pattern.sub(lambda match: b" " * len(match[0]), text)


def _behind_picture(jpeg: bytes, known: list[str]) -> list[str]:
    """What lies behind the picture, unless it is known already."""
    rest = jpeg[end_of_picture(jpeg)[0] :]
    if b"ftyp" in rest:
        return [_VIDEO]
    meaningful = len(rest.strip(b"\0\xff"))
    return [f"{meaningful} bytes behind the picture"] if meaningful and not known else []
