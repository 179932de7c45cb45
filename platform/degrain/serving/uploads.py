"""Reads the photo of a request: the type it states, and its bytes within limits of size and time.

The body is the photo itself. Forms (multipart) are not accepted, so nothing parses them and a
client's file name reaches no code.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from degrain.imaging.writers import MEDIA_TYPES

SLOWEST_BYTES_PER_SECOND = 16_000
"""A phone in a bad network sends more."""
FIRST_SECONDS = 20.0
"""Time that every upload has."""
_ANY = "application/octet-stream"
ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/tif": "image/tiff",
    "image/x-tif": "image/tiff",
    "image/x-tiff": "image/tiff",
    "image/x-webp": "image/webp",
    "image/x-bmp": "image/bmp",
    "image/x-ms-bmp": "image/bmp",
    "image/x-windows-bmp": "image/bmp",
}
"""Names that clients use to the registered media type."""


class RefusedError(Exception):
    """A request that cannot be answered with a photo: status and one line for the client."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})


def check_media_type(content_type: str | None) -> None:
    """Raise RefusedError unless the header `Content-Type` is that of a photo, or unspecific.

    The decoder looks at the content, not at this header.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if ALIASES.get(media_type, media_type) in (*MEDIA_TYPES.values(), _ANY):
        return
    stated = f"'{media_type[:80]}'" if media_type else "missing"
    raise RefusedError(
        415,
        f"Content-Type is {stated}; send the photo itself as the body, with one of "
        f"{', '.join(MEDIA_TYPES.values())}",
    )


async def read_body(
    chunks: AsyncIterator[bytes],
    *,
    stated: str | None,
    largest: int,
    seconds: float,
    reserve: Callable[[int], None],
) -> bytes:
    """Read a body of at most `largest` bytes within `seconds`, and no slower than
    SLOWEST_BYTES_PER_SECOND after the first seconds: who stalls does not keep a place from others.

    `stated` is the header `Content-Length`. `reserve` is called with the size of each chunk before
    it is kept, and may raise. Raises RefusedError.
    """
    if stated is not None and stated.isdecimal() and int(stated) > largest:
        raise _too_large(largest)
    body = bytearray()
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(min(seconds, FIRST_SECONDS)) as limit:
            async for chunk in chunks:
                slowest = FIRST_SECONDS + (len(body) + len(chunk)) / SLOWEST_BYTES_PER_SECOND
                limit.reschedule(began + min(seconds, slowest))
                if len(body) + len(chunk) > largest:
                    raise _too_large(largest)
                reserve(len(chunk))
                body += chunk
    except TimeoutError:
        raise RefusedError(
            408,
            f"the photo did not arrive within {seconds:g} seconds, or at less than "
            f"{SLOWEST_BYTES_PER_SECOND / 1000:g} kB per second; send it faster",
        ) from None
    if not body:
        raise RefusedError(422, "the body is empty; send the photo as the body")
    return bytes(body)


def _too_large(largest: int) -> RefusedError:
    return RefusedError(
        413,
        f"the photo has more than {largest / 1e6:g} megabytes; send a smaller one, or one with "
        "lossless compression",
        # The rest of the body is not read, so the connection cannot be used again.
        {"Connection": "close"},
    )
