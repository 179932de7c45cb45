"""One photo through a network: bytes in, bytes or a reason out."""

import torch

from degrain.imaging.stored_photo import TooManyPixelsError, UnreadablePhotoError
from degrain.inference.blending import Blended
from degrain.inference.config import ReadingConfig
from degrain.inference.denoiser import Denoiser
from degrain.inference.photo_file import denoise_content
from degrain.serving.messages import PhotoRequest, PhotoResult, Refusal


def denoise_photo(request: PhotoRequest, denoiser: Denoiser) -> PhotoResult | Refusal:
    """Denoise a photo; a photo that cannot be denoised is a refusal.

    Raises AbandonedError if `denoiser` does.
    """
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
