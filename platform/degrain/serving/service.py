"""What the routes share: the backend, the queue, the jobs, and the choices of a client."""

import asyncio
import re
import time
from typing import Annotated, Protocol

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict

from degrain import monitoring
from degrain.inference.config import BlendConfig, OutputConfig, OutputFormat
from degrain.serving import descriptions as text
from degrain.serving.admission import Admission, Place
from degrain.serving.config import ServingConfig
from degrain.serving.ending import Ending
from degrain.serving.jobs import JobStore
from degrain.serving.messages import CHAMPION, Models, PhotoRequest, PhotoResult, Refusal
from degrain.serving.negotiation import choose_format
from degrain.serving.uploads import RefusedError, check_media_type, read_body

SOON = {"Retry-After": "2"}
"""Header of an answer 503."""
_REFRESH_SECONDS = 1.0


class Backend(Protocol):
    """What is behind the interface: replicas that denoise, and the registry."""

    models: Models | None
    """The models that may be named; None while that is not known."""
    replicas: int
    """Processes that can denoise at this moment."""

    async def denoise(self, request: PhotoRequest) -> PhotoResult | Refusal:
        """Denoise a photo."""
        ...

    async def refresh(self) -> None:
        """Bring `models` and `replicas` up to date."""
        ...


def ready_models(backend: Backend) -> Models | None:
    """The models, if a replica can denoise with them at this moment."""
    return backend.models if backend.replicas else None


class Choices(BaseModel):
    """What a client chooses for one photo, in the query."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: Annotated[str, Query(description=text.MODEL, max_length=200)] = CHAMPION
    strength: Annotated[float, Query(description=text.STRENGTH, ge=0, le=1)] = 1.0
    detail: Annotated[float, Query(description=text.DETAIL, ge=0, le=1)] = 0.0
    luma: Annotated[float, Query(description=text.LUMA, ge=0, le=1)] = 1.0
    chroma: Annotated[float, Query(description=text.CHROMA, ge=0, le=1)] = 1.0
    quality: Annotated[int, Query(description=text.QUALITY, ge=1, le=100)] = 95

    def request(
        self,
        content: bytes,
        output: OutputFormat | None,
        largest_megapixels: float,
        *,
        is_job: bool = False,
    ) -> PhotoRequest:
        """The request for a photo."""
        return PhotoRequest(
            content=content,
            model=self.model,
            blend=BlendConfig(
                strength=self.strength, detail=self.detail, luma=self.luma, chroma=self.chroma
            ),
            output=OutputConfig(format=output, quality=self.quality),
            largest_megapixels=largest_megapixels,
            is_job=is_job,
        )


class Service:
    """The state behind the routes: queue, jobs, backend."""

    def __init__(self, backend: Backend, config: ServingConfig) -> None:
        self.backend, self.config = backend, config
        self.admission = Admission(
            places=config.queue + config.max_replicas,
            buffered_bytes=int(config.buffered_megabytes * 1e6),
            workers=config.max_replicas,
        )
        self.jobs = JobStore(most=config.jobs, seconds=config.job_minutes * 60)
        self.ending = Ending()

    def end(self, seconds: float) -> int:
        """Take no more photos; refuse those in work after `seconds`, and jobs at once.

        Returns the number of photos in work.
        """
        self.jobs.end()
        self.ending.begin(seconds)
        return self.admission.taken

    async def read(self, request: Request, place: Place) -> bytes:
        """The photo of a request. Raises RefusedError and BusyError."""
        return await read_body(
            request.stream(),
            stated=request.headers.get("content-length"),
            largest=int(self.config.largest_megabytes * 1e6),
            seconds=self.config.upload_seconds,
            reserve=place.reserve,
        )

    def check(self, request: Request, choices: Choices) -> OutputFormat | None:
        """The output format. Raises RefusedError for what is wrong before the photo is read."""
        check_media_type(request.headers.get("content-type"))
        models = self.backend.models
        if models is None:
            raise RefusedError(503, "no model is loaded yet; send it again later", SOON)
        if models.find(choices.model) is None:
            known = ", ".join(model.id for model in models.models)
            raise RefusedError(
                404, f"there is no model '{choices.model[:80]}'; name one of {known}"
            )
        return choose_format(request.headers.get("accept"))

    async def denoise(self, request: PhotoRequest, seconds: float, remedy: str) -> PhotoResult:
        """Denoise within `seconds`. Raises RefusedError, with `remedy` for a large photo."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(seconds):
                result = await self.backend.denoise(request)
        except TimeoutError:
            raise RefusedError(
                504, f"the photo took more than {seconds:g} seconds; {remedy}"
            ) from None
        if isinstance(result, Refusal):
            reason = f"{result.reason}; {remedy}" if result.status == 413 else result.reason
            raise RefusedError(result.status, reason, SOON if result.status == 503 else {})
        monitoring.record_served_photo(result.model, time.perf_counter() - started)
        return result

    async def refresh(self) -> None:
        """Follow the backend, delete expired jobs, and set gauges, until cancelled."""
        while True:
            await self.backend.refresh()
            self.jobs.expire()
            monitoring.record_waiting_photos(self.admission.taken)
            await asyncio.sleep(_REFRESH_SECONDS)


def photo_headers(result: PhotoResult) -> dict[str, str]:
    """Headers of a photo. The suggested file name is ours, never a client's."""
    headers = {
        "Content-Type": result.media_type,
        "Content-Disposition": f'inline; filename="denoised{result.suffix}"',
        "Degrain-Model": _header_text(result.model),
        "Degrain-Seconds": f"{result.seconds:.3f}",
        "Degrain-Megapixels": f"{result.megapixels:.3f}",
        "Server-Timing": f"network;dur={result.seconds * 1000:.0f}",
        "Cache-Control": "no-store",
    }
    if result.notes:
        headers["Degrain-Notes"] = _header_text("; ".join(result.notes))
    return headers


def _header_text(text: str) -> str:
    """A text in printable ASCII; notes name parts of a file, whose names are the client's."""
    return re.sub(r"[^ -~]", "?", text)
