"""A replica, and the gateway in front of it, without Ray: work that nobody waits for."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from torch import Tensor, nn
from unit.serving_support import CHAMPION
from unit.support import random_photo

from degrain.imaging.codecs import encode_png
from degrain.inference.config import STARTER, InferenceConfig
from degrain.inference.execution import Execution
from degrain.registry.files import STARTER_FOLDER
from degrain.serving import replica as module
from degrain.serving.follower import ModelFiles
from degrain.serving.gateway import ReplicaBackend
from degrain.serving.messages import Models, PhotoRequest, PhotoResult, Refusal, ServedModel
from degrain.serving.replica import PhotoReplica

SMALL = encode_png(random_photo(24, 32))
LARGE = encode_png(random_photo(300, 300))


def remote(answer: Callable[..., object]) -> Any:  # noqa: ANN401 - stands for Ray's handle
    """A method of a handle."""

    async def call(*arguments: object) -> object:
        return answer(*arguments)

    return SimpleNamespace(remote=call)


def source() -> Any:  # noqa: ANN401 - stands for Ray's handle
    """A `ModelSource` with the starter."""
    starter = ServedModel(id=STARTER, label=STARTER, card={})
    files = {file.name: file.read_bytes() for file in STARTER_FOLDER.iterdir()}
    return SimpleNamespace(
        current=remote(lambda: Models(models=(starter,), registry="reachable")),
        files=remote(lambda _: ModelFiles(files, None)),
    )


class Passes:
    """The passes of every network, which wait for the test."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.begun, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        self.count = 0
        self.priorities: list[int] = []
        patch.setattr(Execution, "compile", lambda _, network: partial(self._wait, network))

    def _wait(self, network: nn.Module, tiles: Tensor) -> Tensor:
        self.count += 1
        self.priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        self.begun.release()
        assert self.gate.acquire(timeout=600)
        found: Tensor = network(tiles)
        return found

    async def wait_for_one(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=600)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    return Passes(monkeypatch)


def play(scene: Callable[[PhotoReplica], Awaitable[None]]) -> None:
    async def run() -> None:
        config = InferenceConfig(tile=64, precision="float32")
        # Ray awaits the constructor, too.
        replica = PhotoReplica.__new__(PhotoReplica)
        await replica.__init__(source(), config, 1, loopback=False)  # type: ignore[misc]
        async with asyncio.timeout(900):
            await scene(replica)
        replica._task.cancel()

    asyncio.run(run())


def photo(content: bytes, *, is_job: bool = False) -> PhotoRequest:
    return PhotoRequest(content=content, largest_megapixels=10, is_job=is_job)


@pytest.mark.parametrize("is_job", [False, True])
def test_cancelled_work_ends_with_its_pass_and_keeps_its_place_until_then(
    passes: Passes, is_job: bool
) -> None:
    async def scene(replica: PhotoReplica) -> None:
        task = asyncio.create_task(replica.denoise(photo(LARGE, is_job=is_job)))
        await passes.wait_for_one()
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=0.2)
        assert not done, "its place was given away while the thread worked"
        passes.gate.release()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert passes.count == 1

    play(scene)


def test_photos_that_nobody_waits_for_do_not_hold_up_the_next(passes: Passes) -> None:
    async def scene(replica: PhotoReplica) -> None:
        left = [asyncio.create_task(replica.denoise(photo(LARGE))) for _ in range(20)]
        await passes.wait_for_one()
        for task in left:
            task.cancel()
        passes.gate.release()
        await asyncio.wait(left)
        assert passes.count == 1
        next_photo = asyncio.create_task(replica.denoise(photo(SMALL)))
        await passes.wait_for_one()
        passes.gate.release()
        assert isinstance(await next_photo, PhotoResult)

    play(scene)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
@pytest.mark.parametrize("is_job", [False, True])
def test_a_small_photo_overtakes_large_ones_which_have_a_lower_priority(
    passes: Passes, monkeypatch: pytest.MonkeyPatch, is_job: bool
) -> None:
    monkeypatch.setattr(module, "SMALL_PIXELS", 24 * 32)

    async def scene(replica: PhotoReplica) -> None:
        large = [asyncio.create_task(replica.denoise(photo(LARGE, is_job=is_job))) for _ in "ab"]
        await passes.wait_for_one()
        small = asyncio.create_task(replica.denoise(photo(SMALL)))
        await passes.wait_for_one()
        low, usual = passes.priorities
        assert low == min(usual + 10, 19)
        for _ in range(1000):
            passes.gate.release()
        for task in (small, *large):
            assert isinstance(await task, PhotoResult)

    play(scene)


class Response:
    """Ray's answer to a call of a handle; only `cancel` ends the work behind it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.cancelled = False
        self._error = error

    def __await__(self) -> Any:  # noqa: ANN401 - a generator of futures
        return self._wait().__await__()

    async def _wait(self) -> object:
        if self._error:
            raise self._error
        return await asyncio.get_running_loop().create_future()

    def cancel(self) -> None:
        self.cancelled = True


def backend(response: Response) -> ReplicaBackend:
    photos: Any = SimpleNamespace(denoise=SimpleNamespace(remote=lambda _: response))
    models: Any = SimpleNamespace(current=remote(lambda: CHAMPION))
    return ReplicaBackend(photos, models, "app")


def test_a_time_limit_reaches_the_replica() -> None:
    async def run() -> None:
        response = Response()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await backend(response).denoise(photo(SMALL))
        assert response.cancelled

    asyncio.run(run())


def test_a_replica_that_ends_is_a_refusal() -> None:
    found = asyncio.run(backend(Response(ActorDiedError())).denoise(photo(SMALL)))
    assert isinstance(found, Refusal)
    assert found.status == 503
