"""The end of the service: what is in work is answered, what is new is refused."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from unit.serving_support import LocalBackend
from unit.support import random_photo

from degrain.imaging.codecs import encode_png
from degrain.serving.config import ServingConfig
from degrain.serving.http_api import create_app
from degrain.serving.messages import PhotoRequest, PhotoResult, Refusal
from degrain.serving.service import Service

CONTENT = encode_png(random_photo(24, 32))
PNG = {"Content-Type": "image/png"}


class GatedBackend(LocalBackend):
    """Denoises when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self.abandoned = asyncio.Event()

    async def denoise(self, request: PhotoRequest) -> PhotoResult | Refusal:
        self.begun.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.abandoned.set()
            raise
        return await super().denoise(request)


Scene = Callable[[httpx2.AsyncClient, Service, GatedBackend], Awaitable[None]]


def play(scene: Scene, **config: float) -> None:
    async def run() -> None:
        backend = GatedBackend()
        service = Service(backend, ServingConfig(**config))  # type: ignore[arg-type]
        transport = httpx2.ASGITransport(create_app(service, None))
        async with (
            asyncio.timeout(60),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
        ):
            await scene(http, service, backend)
        service.jobs.close()

    asyncio.run(run())


def send(http: httpx2.AsyncClient, path: str = "/v1/denoise") -> "asyncio.Task[httpx2.Response]":
    return asyncio.create_task(http.post(path, content=CONTENT, headers=PNG))


def test_photos_in_work_are_finished_and_new_ones_are_refused() -> None:
    async def scene(http: httpx2.AsyncClient, service: Service, backend: GatedBackend) -> None:
        in_work = send(http)
        await backend.begun.wait()
        assert service.end(300) == 1
        refused = await send(http)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        assert refused.json()["detail"] == "the service ends; send the photo again later"
        assert (await send(http, "/v1/jobs")).status_code == 503
        assert (await http.get("/ready")).status_code == 503
        assert (await http.get("/health")).status_code == 200
        backend.gate.set()
        assert (await in_work).status_code == 200

    play(scene)


def test_a_photo_that_is_not_finished_in_time_is_refused_and_its_work_ends() -> None:
    async def scene(http: httpx2.AsyncClient, service: Service, backend: GatedBackend) -> None:
        in_work = send(http)
        await backend.begun.wait()
        service.end(0.01)
        answer = await in_work
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        await backend.abandoned.wait()

    play(scene)


def test_jobs_end_with_the_service_and_say_so() -> None:
    async def scene(http: httpx2.AsyncClient, service: Service, backend: GatedBackend) -> None:
        path = (await send(http, "/v1/jobs")).headers["location"]
        await backend.begun.wait()
        assert service.end(300) == 0
        await backend.abandoned.wait()
        state = (await http.get(path)).json()
        assert state["state"] == "failed"
        assert state["detail"] == "the service ends; send the photo again later"

    play(scene)


@pytest.mark.parametrize("ends", ["deleted", "too slow"])
def test_work_that_nobody_waits_for_is_ended(ends: str) -> None:
    async def scene(http: httpx2.AsyncClient, _: Service, backend: GatedBackend) -> None:
        if ends == "deleted":
            path = (await send(http, "/v1/jobs")).headers["location"]
            await backend.begun.wait()
            assert (await http.delete(path)).status_code == 204
        else:
            assert (await send(http)).status_code == 504
        await backend.abandoned.wait()

    play(scene, request_seconds=1 if ends == "too slow" else 60)


def test_a_job_whose_replica_ends_starts_again_but_not_for_ever() -> None:
    async def scene(http: httpx2.AsyncClient, _: Service, backend: GatedBackend) -> None:
        backend.refusal = Refusal(status=503, reason="the process has ended")
        path = (await send(http, "/v1/jobs")).headers["location"]
        await backend.begun.wait()
        backend.gate.set()
        while (state := (await http.get(path)).json())["state"] not in ("done", "failed"):
            await asyncio.sleep(0)
        assert "the process has ended" in state["detail"]
        assert len(backend.requests) == 3
        assert all(request.is_job for request in backend.requests)

    play(scene)


def test_the_time_to_live_of_a_job_counts_from_its_end() -> None:
    async def scene(http: httpx2.AsyncClient, service: Service, backend: GatedBackend) -> None:
        path = (await send(http, "/v1/jobs")).headers["location"]
        waiting = (await send(http, "/v1/jobs")).headers["location"]
        await backend.begun.wait()
        await asyncio.sleep(0.02)
        service.jobs.expire()
        assert (await http.get(path)).json() == {"id": path[9:], "state": "running"}
        assert (await http.get(waiting)).json()["state"] == "waiting"
        backend.gate.set()
        for each in (path, waiting):
            while (await http.get(each)).status_code != 404:
                await asyncio.sleep(0)
        # Expired jobs would have been ended, and not denoised.
        assert len(backend.requests) == 2

    play(scene, job_minutes=0.01 / 60)
