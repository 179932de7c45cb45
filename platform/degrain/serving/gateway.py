"""The Ray Serve deployment that clients reach: the HTTP interface in front of the replicas."""

import asyncio
import logging

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from degrain.serving.config import ServingConfig
from degrain.serving.http_api import create_app
from degrain.serving.loopback import keep_replica_port_on_loopback
from degrain.serving.messages import Models, PhotoRequest, PhotoResult, Refusal
from degrain.serving.service import Service, ready_models
from degrain.tracking.client import short_text

PHOTO_REPLICA = "PhotoReplica"
"""Name of the deployment of the replicas."""
_REPLICA_LOST = Refusal(
    status=503, reason="the process that denoised the photo has ended; send the photo again"
)
_log = logging.getLogger(__name__)


class ReplicaBackend:
    """Sends photos to the replicas, and knows their number and models."""

    def __init__(self, photos: DeploymentHandle, models: DeploymentHandle, app: str) -> None:
        self._photos, self._models, self._app = photos, models, app
        self.models: Models | None = None
        self.replicas = 0

    async def denoise(self, request: PhotoRequest) -> PhotoResult | Refusal:
        """Denoise a photo. A photo whose replica ends is not sent to another, which it might end
        too.
        """
        try:
            response = self._photos.denoise.remote(request)
            try:
                result: PhotoResult | Refusal = await response
            except asyncio.CancelledError:
                # Ray does this for a client that leaves, but not for a time limit or a job.
                response.cancel()
                raise
        except RayActorError:
            return _REPLICA_LOST
        return result

    async def refresh(self) -> None:
        """Bring `models` and `replicas` up to date; what is known stays where that fails."""
        try:
            self.models = await self._models.current.remote()
            self.replicas = await asyncio.to_thread(self._count)
        except (RayError, RayServeException) as error:
            _log.warning("the state of the service is not known: %s", short_text(error))

    def _count(self) -> int:
        deployments = serve.status().applications[self._app].deployments
        return int(deployments[PHOTO_REPLICA].replica_states.get("RUNNING", 0))


@serve.ingress()
class Gateway:
    """The interface; there is one, which has the queue and the jobs."""

    def __init__(
        self,
        photos: DeploymentHandle,
        models: DeploymentHandle,
        config: ServingConfig,
        token: str | None,
        app: str,
        *,
        loopback: bool,
    ) -> None:
        if loopback:
            keep_replica_port_on_loopback()
        self._backend = ReplicaBackend(photos, models, app)
        self._service, self._token = Service(self._backend, config), token

    async def is_ready(self) -> bool:
        """Whether a replica can denoise, as `/ready` answers."""
        return ready_models(self._backend) is not None

    async def end(self, seconds: float) -> int:
        """End the service, see `Service.end`; returns the number of photos in work."""
        return self._service.end(seconds)

    async def photos_in_work(self) -> int:
        """The number of photos that wait or are denoised."""
        return self._service.admission.taken

    async def delete_jobs(self) -> None:
        """Delete the photos of jobs."""
        self._service.jobs.close()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application; Ray Serve calls the method by this name."""
        return create_app(self._service, self._token)
