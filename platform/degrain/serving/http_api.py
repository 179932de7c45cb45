"""The HTTP interface: routes, limits and errors, without Ray.

    GET  /                     the web page
    GET  /health  /ready       for load balancers and Kubernetes
    GET  /v1/models            the models that may be named
    POST /v1/denoise           a photo in, a photo out
    POST /v1/jobs              a large photo in, an identifier out
    GET  /v1/jobs/ID           its state;  /result: the photo;  DELETE: end and forget it

`create_app` takes the part behind it as a `Service`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from degrain import __version__
from degrain.serving import descriptions as text
from degrain.serving.ending import EndingMiddleware
from degrain.serving.error_answers import add_errors
from degrain.serving.job_routes import add_job_routes
from degrain.serving.middleware import Guard, HeadAsGet, RequestCounter
from degrain.serving.page import add_page
from degrain.serving.service import (
    SOON,
    Choices,
    Service,
    photo_headers,
    ready_models,
)
from degrain.serving.uploads import RefusedError


def create_app(service: Service, token: str | None) -> FastAPI:
    """The ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.backend.refresh()
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
    add_errors(app)
    _add_health(app, service)
    _add_photos(app, service)
    add_job_routes(app, service)
    add_page(app)
    app.add_middleware(EndingMiddleware, ending=service.ending)
    app.add_middleware(Guard, token=token)
    app.add_middleware(RequestCounter)
    app.add_middleware(HeadAsGet)
    return app


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["health"], summary="Whether the process answers")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get(
        "/ready", tags=["health"], summary="Whether photos can be denoised", responses=text.READY
    )
    async def ready() -> Response:
        models, replicas = ready_models(service.backend), service.backend.replicas
        if models is None or service.ending.begun:
            return JSONResponse({"ready": False, "replicas": replicas}, 503)
        state = {
            "ready": True,
            "replicas": replicas,
            "model": models.champion.label,
            "registry": models.registry,
        }
        if models.is_starter:
            state["note"] = models.lost_champion or text.STARTER_SERVES
        return JSONResponse(state)

    @app.get("/v1/models", tags=["photos"], summary="The models that a photo may name")
    async def models() -> dict[str, Any]:
        found = service.backend.models
        if found is None:
            raise RefusedError(503, "no model is loaded yet; ask again later", SOON)
        listed = [{"id": m.id, "label": m.label, "card": m.card} for m in found.models]
        note = (found.lost_champion or text.STARTER_SERVES) if found.is_starter else None
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
        return Response(result.content, headers=photo_headers(result))
