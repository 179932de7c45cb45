"""The Ray Serve deployments behind the interface: replicas that denoise, and the registry's models.

A replica holds its networks and takes two small and two large photos at a time, so that one is
decoded or encoded while the network runs on the other; large photos and jobs give way, see
`turns.py`. Whole photos are the unit of work: docs/performance.md has the measurement against
batches.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor, wait

import torch
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from degrain.errors import UserError
from degrain.imaging.codecs import pixels_by_header
from degrain.inference.config import InferenceConfig
from degrain.inference.execution import find_device
from degrain.serving.follower import ModelFiles, RegistryFollower
from degrain.serving.loaded_models import LoadedModels, UnknownModelError
from degrain.serving.loopback import keep_replica_port_on_loopback
from degrain.serving.messages import Models, PhotoRequest, PhotoResult, Refusal
from degrain.serving.photo import denoise_photo
from degrain.serving.private_folder import PrivateFolder
from degrain.serving.turns import (
    SMALL_PIXELS,
    Abandonment,
    InTurns,
    Rank,
    Turns,
    lower_priority,
)
from degrain.storage.location import Storage
from degrain.tracking.client import short_text
from degrain.tracking.config import TrackingConfig

FOLLOW_SECONDS = 1.0
"""Time between two looks of a replica at the models; a look is a call inside the cluster."""
_OF_A_RANK = 2
"""Photos of a replica, of each rank: one in the network, one being read or written."""
AT_ONCE = 2 * _OF_A_RANK
"""Photos of a replica. Jobs take the place of large ones."""
_log = logging.getLogger(__name__)


class ModelSource:
    """The deployment that follows the registry; there is one."""

    def __init__(
        self, tracking: TrackingConfig, storage: Storage, seconds: float, *, loopback: bool
    ) -> None:
        if loopback:
            keep_replica_port_on_loopback()
        self._folder = PrivateFolder("degrain-models-")
        self._follower = RegistryFollower(tracking, storage, self._folder.path)
        self._seconds = seconds
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            await asyncio.to_thread(self._follower.look)
            await asyncio.sleep(self._seconds)

    async def end(self) -> None:
        """Delete the downloaded models, because the service ends."""
        self._task.cancel()
        self._folder.close()

    async def current(self) -> Models | None:
        """The models that clients may name; None before the registry has answered."""
        return self._follower.current

    async def files(self, label: str) -> ModelFiles | None:
        """The files of a model; None for one that is not among `current`."""
        return await asyncio.to_thread(self._follower.files, label)


class RemoteSource:
    """The `ModelSource` of another process."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def current(self) -> Models | None:
        """The models that clients may name; None while that is not known."""
        models: Models | None = await self._handle.current.remote()
        return models

    async def files(self, label: str) -> ModelFiles | None:
        """The files of a model; None for one that is not among `current`."""
        files: ModelFiles | None = await self._handle.files.remote(label)
        return files


class PhotoReplica:
    """The deployment whose replicas denoise."""

    # Ray Serve awaits it.
    async def __init__(  # type: ignore[misc]
        self, models: DeploymentHandle, inference: InferenceConfig, threads: int, *, loopback: bool
    ) -> None:
        if loopback:
            keep_replica_port_on_loopback()
        torch.set_num_threads(threads)
        self._models = LoadedModels(RemoteSource(models), inference)
        self._turns = Turns(exclusive=find_device(inference.device).type != "cpu")
        self._threads = {
            Rank.SMALL: ThreadPoolExecutor(_OF_A_RANK),
            Rank.LARGE: ThreadPoolExecutor(_OF_A_RANK, initializer=lower_priority),
            Rank.JOB: ThreadPoolExecutor(1, initializer=lower_priority),
        }
        while self._models.champion is None:
            await self._models.follow()
            await asyncio.sleep(0 if self._models.champion else FOLLOW_SECONDS)
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        """Take over new champions. An error leaves the present one in place."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                await self._models.follow()
            except (UserError, UnknownModelError, RayError, RayServeException) as error:
                _log.warning("the new champion cannot be loaded: %s", short_text(error))

    async def denoise(self, request: PhotoRequest) -> PhotoResult | Refusal:
        """Denoise a photo."""
        try:
            network = await self._models.get(request.model)
        except UnknownModelError:
            return Refusal(status=404, reason=f"there is no model '{request.model}' any more")
        except UserError as error:
            return Refusal(status=503, reason=f"the model cannot be loaded: {short_text(error)}")
        abandonment = Abandonment()
        rank = await asyncio.to_thread(_rank, request)
        denoiser = InTurns(network, self._turns, abandonment, rank)
        work = self._threads[rank].submit(denoise_photo, request, denoiser)
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            # Nobody waits any more, but a thread that has begun works on for a while. Until it is
            # done the replica stays taken: clients that come and go do not fill its memory.
            self._turns.abandon(abandonment)
            await asyncio.to_thread(wait, [work])
            raise


def _rank(request: PhotoRequest) -> Rank:
    """The rank of a photo, by its header; a damaged one is small, since it is refused at once."""
    if request.is_job:
        return Rank.JOB
    return Rank.LARGE if pixels_by_header(request.content) > SMALL_PIXELS else Rank.SMALL
