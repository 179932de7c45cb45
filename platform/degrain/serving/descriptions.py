"""The texts of the OpenAPI description."""

from typing import Any

from degrain.imaging.writers import MEDIA_TYPES

SUMMARY = "Removes noise from photos."
DESCRIPTION = """\
Send a photo as the body of `POST /v1/denoise`; the answer is the denoised photo in the same format,
with its metadata. Where the service has a token, `/v1` needs `Authorization: Bearer TOKEN`. Errors
are JSON: `{"detail": "what is wrong, and what to do"}`.
"""
TAGS = [
    {"name": "photos", "description": "Photos that are answered at once."},
    {"name": "jobs", "description": "Large photos: sent now, fetched later."},
    {"name": "health", "description": "For load balancers, Kubernetes and people."},
]
MODEL = (
    "`champion`, `starter`, another alias of the registry, or `NAME vVERSION`; see `/v1/models`."
)
STRENGTH = "How much of the estimated noise is removed: 0 is the photo itself, 1 all of it."
DETAIL = "How much brightness detail is returned to the photo: 0 is none, 1 all, with its noise."
LUMA = "How much of the brightness of the noise is removed, 0 to 1."
CHROMA = "How much of the colour of the noise is removed, 0 to 1."
QUALITY = "Quality of a JPEG or lossy WebP answer, 1 to 100."
DENOISE = """\
The body is the photo: JPEG, PNG, TIFF, WebP or BMP, 8 or 16 bits. `Accept` chooses the format of
the answer; without it, or with `*/*`, it is that of the photo. EXIF, XMP and the colour profile are
kept; `Degrain-Notes` names what was dropped.
"""
JOB = """\
The same as `/v1/denoise`, for photos that are larger or take longer. The answer is 202 with an
identifier. Jobs run one after another; a job and its result are deleted when it expires.
"""
STARTER_SERVES = (
    "the registry has no champion, so the starter model of the package serves; it was trained on "
    "synthetic noise alone"
)
TO_A_JOB = "send a smaller one, or send it to /v1/jobs"
SMALLER = "send a smaller one"
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["detail"],
    "properties": {"detail": {"type": "string", "description": "One line for a person."}},
}


def _error(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": _ERROR_SCHEMA}},
    }


def _headers(**descriptions: str) -> dict[str, Any]:
    return {
        name.replace("_", "-"): {"description": text, "schema": {"type": "string"}}
        for name, text in descriptions.items()
    }


_BINARY = {"schema": {"type": "string", "format": "binary"}}
PHOTO_BODY = {
    "requestBody": {
        "required": True,
        "description": "The photo itself.",
        "content": dict.fromkeys(MEDIA_TYPES.values(), _BINARY),
    }
}
_RETRY = _headers(Retry_After="Seconds after which to send the photo again.")
_ERRORS: dict[int | str, dict[str, Any]] = {
    401: _error("The token is missing or wrong."),
    404: _error("There is no such model or job."),
    406: _error("`Accept` names no type that can be written."),
    408: _error("The photo did not arrive in time."),
    413: _error("The photo has too many bytes or pixels."),
    415: _error("`Content-Type` is not that of a photo."),
    422: _error("The body is not a photo that can be read, or the query is wrong."),
    429: {**_error("Too many photos are waiting."), "headers": _RETRY},
    503: {**_error("No process can denoise at this moment."), "headers": _RETRY},
    504: _error("It took too long."),
}
PHOTO_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The denoised photo.",
        "content": dict.fromkeys(MEDIA_TYPES.values(), _BINARY),
        "headers": _headers(
            Degrain_Model="The model that denoised it: `NAME vVERSION` or `starter`.",
            Degrain_Seconds="Time of the network.",
            Degrain_Megapixels="Size of the photo.",
            Degrain_Notes="What of the file was dropped.",
        ),
    },
    **_ERRORS,
}
JOB_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The job waits.",
        "headers": _headers(Location="Where the state of the job is."),
    },
    **_ERRORS,
}
READY: dict[int | str, dict[str, Any]] = {503: {"description": "No process can denoise yet."}}
