"""The HTTP interface: routes, limits and errors, without Ray.

    GET  /                     the web page
    GET  /health  /ready       for load balancers and Kubernetes
    GET  /v1/models            the models that may be named
    POST /v1/denoise           a photo in, a photo out
    POST /v1/jobs              a large photo in, an identifier out
    GET  /v1/jobs/ID           its state;  /result: the photo;  DELETE: end and forget it

`create_app` takes the part behind it as a `Backend`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from degrain import __version__, monitoring
from degrain.inference.config import BlendConfig, OutputConfig, OutputFormat
from degrain.serving import descriptions as text
from degrain.serving.admission import Admission, BusyError, Place
from degrain.serving.config import ServingConfig
from degrain.serving.jobs import Job, JobStore
from degrain.serving.messages import CHAMPION, Models, PhotoRequest, PhotoResult, Refusal
from degrain.serving.middleware import Guard, RequestCounter
from degrain.serving.negotiation import choose_format
from degrain.serving.page import add_page
from degrain.serving.uploads import RefusedError, check_media_type, read_body

_JOB_SECONDS_FACTOR = 10
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
        self, content: bytes, output: OutputFormat | None, largest_megapixels: float
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
            raise RefusedError(503, "no model is loaded yet; send it again later", _SOON)
        if models.find(choices.model) is None:
            known = ", ".join(model.id for model in models.models)
            raise RefusedError(
                404, f"there is no model '{choices.model[:80]}'; name one of {known}"
            )
        return choose_format(request.headers.get("accept"))

    async def denoise(self, request: PhotoRequest, seconds: float, remedy: str) -> PhotoResult:
        """Denoise within `seconds`. Raises RefusedError, with `remedy` where a photo is too large."""
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
            raise RefusedError(result.status, reason, _SOON if result.status == 503 else {})
        monitoring.record_served_photo(result.model, time.perf_counter() - started)
        return result

    async def refresh(self) -> None:
        """Follow the backend, delete expired jobs, and set gauges, until cancelled."""
        while True:
            await self.backend.refresh()
            self.jobs.expire()
            monitoring.record_waiting_photos(self.admission.taken)
            await asyncio.sleep(_REFRESH_SECONDS)


_SOON = {"Retry-After": "2"}


def create_app(backend: Backend, config: ServingConfig, token: str | None) -> FastAPI:
    """The ASGI application."""
    service = Service(backend, config)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await backend.refresh()
        refresh = asyncio.create_task(service.refresh())
        yield
        refresh.cancel()
        service.jobs.close()

    # FastAPI's pages for the interface load scripts from elsewhere, so they are left out.
    app = FastAPI(
        title="Degrain",
        version=__version__,
        summary=text.SUMMARY,
        description=text.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        openapi_tags=text.TAGS,
    )
    _add_errors(app)
    _add_health(app, service)
    _add_photos(app, service)
    _add_jobs(app, service)
    add_page(app)
    app.add_middleware(Guard, token=token)
    app.add_middleware(RequestCounter)
    return app


def _add_errors(app: FastAPI) -> None:
    """Answer every error with `{"detail": "one line"}`."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return JSONResponse({"detail": error.reason}, error.status, headers=error.headers)

    async def busy(_: Request, error: Exception) -> Response:
        assert isinstance(error, BusyError)
        headers = {"Retry-After": str(error.retry_after), "Connection": "close"}
        return JSONResponse({"detail": str(error)}, 429, headers=headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(BusyError, busy)
    app.add_exception_handler(RequestValidationError, invalid)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["health"], summary="Whether the process answers")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get(
        "/ready", tags=["health"], summary="Whether photos can be denoised", responses=text.READY
    )
    async def ready() -> Response:
        models, replicas = service.backend.models, service.backend.replicas
        if models is None or replicas == 0:
            return JSONResponse({"ready": False, "replicas": replicas}, 503)
        state = {
            "ready": True,
            "replicas": replicas,
            "model": models.champion.label,
            "registry": models.registry,
        }
        if models.is_starter:
            state["note"] = text.STARTER_SERVES
        return JSONResponse(state)

    @app.get("/v1/models", tags=["photos"], summary="The models that a photo may name")
    async def models() -> dict[str, Any]:
        found = service.backend.models
        if found is None:
            raise RefusedError(503, "no model is loaded yet; ask again later", _SOON)
        listed = [{"id": m.id, "label": m.label, "card": m.card} for m in found.models]
        note = text.STARTER_SERVES if found.is_starter else None
        return {"models": listed, "registry": found.registry, "note": note}


def _add_photos(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/denoise",
        tags=["photos"],
        summary="Denoise a photo",
        description=text.DENOISE,
        response_class=Response,
        responses=text.PHOTO_RESPONSES,
        openapi_extra=text.PHOTO_BODY,
    )
    async def denoise(request: Request, choices: Annotated[Choices, Query()]) -> Response:
        output = service.check(request, choices)
        with service.admission.place() as place:
            content = await service.read(request, place)
            photo = choices.request(content, output, service.config.largest_megapixels)
            started = time.perf_counter()
            result = await service.denoise(photo, service.config.request_seconds, text.TO_A_JOB)
            service.admission.finished(time.perf_counter() - started)
        return Response(result.content, headers=_photo_headers(result))


def _add_jobs(app: FastAPI, service: Service) -> None:
    config = service.config

    @app.post(
        "/v1/jobs",
        tags=["jobs"],
        summary="Denoise a large photo later",
        description=text.JOB,
        status_code=202,
        responses=text.JOB_RESPONSES,
        openapi_extra=text.PHOTO_BODY,
    )
    async def create(request: Request, choices: Annotated[Choices, Query()]) -> Response:
        output = service.check(request, choices)
        service.jobs.check_room()

        async def work(content: bytes) -> tuple[bytes, dict[str, str]]:
            photo = choices.request(content, output, config.largest_job_megapixels)
            seconds = config.request_seconds * _JOB_SECONDS_FACTOR
            result = await service.denoise(photo, seconds, text.SMALLER)
            return result.content, _photo_headers(result)

        with service.admission.place() as place:
            job = await service.jobs.start(await service.read(request, place), work)
        return JSONResponse(_described(service, job), 202, {"Location": f"/v1/jobs/{job.id}"})

    @app.get("/v1/jobs/{identifier}", tags=["jobs"], summary="The state of a job")
    async def state(identifier: str) -> dict[str, Any]:
        return _described(service, service.jobs.find(identifier))

    @app.get(
        "/v1/jobs/{identifier}/result",
        tags=["jobs"],
        summary="The photo of a job that is done",
        response_class=Response,
        responses=text.PHOTO_RESPONSES,
    )
    async def result(identifier: str) -> Response:
        job = service.jobs.find(identifier)
        return Response(service.jobs.result(job), headers=job.headers)

    @app.delete("/v1/jobs/{identifier}", tags=["jobs"], summary="End a job", status_code=204)
    async def delete(identifier: str) -> Response:
        service.jobs.delete(service.jobs.find(identifier))
        return Response(status_code=204)


def _described(service: Service, job: Job) -> dict[str, Any]:
    seconds = round(service.jobs.seconds_left(job))
    state = {"id": job.id, "state": job.state, "expires_in_seconds": seconds}
    if job.error:
        state["detail"] = job.error
    if job.state == "done":
        state["result"] = f"/v1/jobs/{job.id}/result"
    return state


def _photo_headers(result: PhotoResult) -> dict[str, str]:
    """Headers of a photo. The suggested file name is ours, never a client's."""
    headers = {
        "Content-Type": result.media_type,
        "Content-Disposition": f'inline; filename="denoised{result.suffix}"',
        "Degrain-Model": result.model,
        "Degrain-Seconds": f"{result.seconds:.3f}",
        "Degrain-Megapixels": f"{result.megapixels:.3f}",
        "Server-Timing": f"network;dur={result.seconds * 1000:.0f}",
        "Cache-Control": "no-store",
    }
    if result.notes:
        headers["Degrain-Notes"] = "; ".join(result.notes)
    return headers
