"""One photo through a network: bytes in, bytes or a reason out."""

import threading

import torch

from degrain.imaging.pixels import Photo
from degrain.imaging.stored_photo import TooManyPixelsError, UnreadablePhotoError
from degrain.inference.blending import Blended
from degrain.inference.config import ReadingConfig
from degrain.inference.denoiser import Denoiser
from degrain.inference.photo_file import denoise_content
from degrain.inference.tiling import Window
from degrain.serving.messages import PhotoRequest, PhotoResult, Refusal


class OneAtATime:
    """A denoiser that several threads use, and that runs on one photo at a time.

    So the next photo is decoded, and the last one encoded, while the network computes.
    """

    def __init__(self, denoiser: Denoiser, lock: threading.Lock) -> None:
        self._denoiser, self._lock = denoiser, lock
        self.name, self.parameters = denoiser.name, denoiser.parameters

    def __call__(self, photo: Photo, window: Window | None = None) -> Photo:
        """Denoise one photo."""
        with self._lock:
            return self._denoiser(photo, window)


def denoise_photo(request: PhotoRequest, denoiser: Denoiser) -> PhotoResult | Refusal:
    """Denoise a photo; a photo that cannot be denoised is a refusal."""
    try:
        result = denoise_content(
            request.content,
            Blended(denoiser, request.blend),
            output=request.output,
            reading=ReadingConfig(largest_megapixels=request.largest_megapixels),
        )
    except TooManyPixelsError as error:
        return Refusal(status=413, reason=_too_many_pixels(error))
    except UnreadablePhotoError as error:
        # The option `format` of the command is a header here.
        reason = str(error).replace("`format`", "`Accept`")
        return Refusal(status=422, reason=f"the photo cannot be read: {reason}")
    except (MemoryError, torch.OutOfMemoryError):
        return Refusal(status=413, reason="the photo needs more memory than this machine has")
    return PhotoResult(
        content=result.content,
        media_type=result.media_type,
        suffix=result.suffix,
        model=denoiser.name,
        megapixels=result.megapixels,
        seconds=result.seconds,
        notes=result.notes,
    )


def _too_many_pixels(error: TooManyPixelsError) -> str:
    return (
        f"the photo has {error.width}x{error.height} pixels, over the limit of "
        f"{error.largest_megapixels:g} megapixels"
    )
