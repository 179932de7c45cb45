"""The routes of jobs: large photos that are sent now and fetched later."""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from degrain.serving import descriptions as text
from degrain.serving.jobs import Job
from degrain.serving.service import Choices, Service, photo_headers
from degrain.serving.uploads import RefusedError

_SECONDS_FACTOR = 10
"""By how much longer a job may take than a photo that is answered at once."""
_STARTS = 3
"""How often a job is started, if replicas end before it does; it may be what ends them."""


def add_job_routes(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    _add_creation(app, service)

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
        return Response(await asyncio.to_thread(service.jobs.result, job), headers=job.headers)

    @app.delete("/v1/jobs/{identifier}", tags=["jobs"], summary="End a job", status_code=204)
    async def delete(identifier: str) -> Response:
        service.jobs.delete(service.jobs.find(identifier))
        return Response(status_code=204)


def _add_creation(app: FastAPI, service: Service) -> None:
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
            photo = choices.request(content, output, config.largest_job_megapixels, is_job=True)
            seconds = config.request_seconds * _SECONDS_FACTOR
            for start in range(_STARTS):
                try:
                    result = await service.denoise(photo, seconds, text.SMALLER)
                    break
                except RefusedError as error:
                    if error.status != 503 or start == _STARTS - 1:
                        raise
            return result.content, photo_headers(result)

        with service.admission.place() as place:
            job = await service.jobs.start(await service.read(request, place), work)
        if await request.is_disconnected():
            # The client will never know its identifier.
            service.jobs.delete(job)
        return JSONResponse(_described(service, job), 202, {"Location": f"/v1/jobs/{job.id}"})


def _described(service: Service, job: Job) -> dict[str, Any]:
    state: dict[str, Any] = {"id": job.id, "state": job.state}
    if job.ended:
        state["expires_in_seconds"] = round(service.jobs.seconds_left(job))
    if job.error:
        state["detail"] = job.error
    if job.state == "done":
        state["result"] = f"/v1/jobs/{job.id}/result"
    return state
