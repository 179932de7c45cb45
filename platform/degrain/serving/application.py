"""The service as a Ray Serve application, and its start on a cluster.

    clients -> Ray's HTTP proxy -> Gateway -> PhotoReplica, PhotoReplica, ...
                                                   |
                                 MLflow <- ModelSource

`degrain serve` starts it with `start`; a RayService of Kubernetes names `build`.
"""

import contextlib
import io
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve._private.constants import SERVE_NAMESPACE, SERVE_PROXY_NAME
from ray.serve.config import AutoscalingConfig, HTTPOptions
from ray.serve.deployment import Application
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from degrain.errors import JobFailedError, UserError
from degrain.inference.config import InferenceConfig
from degrain.serving.config import ServingConfig, is_loopback
from degrain.serving.gateway import PHOTO_REPLICA, Gateway
from degrain.serving.messages import Models
from degrain.serving.replica import AT_ONCE, ModelSource, PhotoReplica
from degrain.serving.settings import Settings, read_settings

APP = "degrain"
"""Name of the application."""
MODEL_SOURCE = "ModelSource"
"""Name of the deployment that follows the registry."""
_OPEN_CONNECTIONS = 2000
"""Requests that the gateway handles at one time; all but those in the queue are answered with 429.
"""
_ON_HEAD = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
"""On the head node, which runs as long as the cluster: the nodes of replicas come and go, and with
the gateway they would end every request and job."""
_READY_SECONDS = 0.1
"""Time between two questions whether the service is ready, or has ended its work."""
_DRAIN_LOOK_SECONDS = 0.5
"""Time between two looks of an ending replica whether its photos are finished."""
_DELIVERY_SECONDS = 5.0
"""Time to send the last answers, the refusals of photos that were not finished."""


def build_application(settings: Settings, *, loopback: bool) -> Application:
    """The application, with its three deployments.

    `loopback` is for a cluster whose processes are all on this machine, see `loopback.py`.
    """
    config = settings.serving
    models = serve.deployment(ModelSource).options(
        name=MODEL_SOURCE,
        num_replicas=1,
        ray_actor_options=_ON_HEAD,
        max_ongoing_requests=100,
    )
    photos = serve.deployment(PhotoReplica).options(
        name=PHOTO_REPLICA,
        ray_actor_options={"num_cpus": config.replica_cpus, "num_gpus": config.replica_gpus},
        max_ongoing_requests=AT_ONCE,
        # The gateway bounds the queue.
        max_queued_requests=-1,
        graceful_shutdown_timeout_s=config.drain_seconds,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK_SECONDS,
        autoscaling_config=AutoscalingConfig(
            min_replicas=config.min_replicas,
            max_replicas=config.max_replicas,
            target_ongoing_requests=1,
            upscale_delay_s=3,
            downscale_delay_s=120,
        ),
    )
    gateway = serve.deployment(Gateway).options(
        num_replicas=1,
        ray_actor_options=_ON_HEAD,
        max_ongoing_requests=_OPEN_CONNECTIONS,
        graceful_shutdown_timeout_s=config.drain_seconds,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOK_SECONDS,
    )
    source = models.bind(
        settings.tracking, settings.storage, config.follow_seconds, loopback=loopback
    )
    replicas = photos.bind(source, settings.inference, config.replica_cpus, loopback=loopback)
    return gateway.bind(replicas, source, config, settings.token, APP, loopback=loopback)


def build(arguments: Mapping[str, Any]) -> Application:
    """The application for a configuration file of Ray Serve: `arguments` has fields of
    `ServingConfig`, `inference` those of `InferenceConfig`, and `mlflow` a path.

    The token is that of the environment, or of `token_file`. Raises UserError without a token.
    """
    fields = dict(arguments)
    inference = InferenceConfig(**fields.pop("inference", {}))
    mlflow = fields.pop("mlflow", None)
    path = None if mlflow is None else Path(mlflow)
    settings = read_settings(ServingConfig(**fields), inference, path)
    return build_application(settings, loopback=False)


def start(settings: Settings) -> Models:
    """Start the application on the cluster of this process; returns the models that it serves.

    Raises UserError for a cluster that is too small, JobFailedError if it does not start.
    """
    config = settings.serving
    check_cluster(config, ray.cluster_resources())
    if not logging.getLogger("degrain").isEnabledFor(logging.DEBUG):
        # Ray Serve sets its own logger up when it is imported.
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    serve.start(http_options=HTTPOptions(host=config.host, port=config.port), logging_config=quiet)
    application = build_application(settings, loopback=_is_on_loopback())
    try:
        gateway = serve.run(application, name=APP, route_prefix="/", logging_config=quiet)
    except RuntimeError as error:
        raise JobFailedError(
            f"the service did not start: {' '.join(str(error).split())[:300]}"
        ) from error
    # It may have counted the replicas before they ran, and counts them each second.
    while not gateway.is_ready.remote().result():
        time.sleep(_READY_SECONDS)
    models: Models = serve.get_deployment_handle(MODEL_SOURCE, APP).current.remote().result()
    return models


def check_cluster(config: ServingConfig, present: Mapping[str, float]) -> None:
    """Raise UserError if a cluster with these resources is too small for the least replicas."""
    for field, each, kind, unit, remedy in (
        ("replica_cpus", config.replica_cpus, "CPU", "cores", "set smaller ones"),
        (
            "replica_gpus",
            config.replica_gpus,
            "GPU",
            "GPUs",
            "set smaller ones, or start Ray where PyTorch and the driver find them",
        ),
    ):
        needed, found = config.min_replicas * each, present.get(kind, 0)
        if needed > found:
            raise UserError(
                f"min_replicas {config.min_replicas} of {field} {each:g} need {needed:g} {unit}, "
                f"but Ray has {found:g}; {remedy}"
            )


def metrics_addresses() -> list[str]:
    """Where Prometheus reads the metrics: of each node of the cluster."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [f"http://{n['NodeManagerAddress']}:{n['MetricsExportPort']}/metrics" for n in nodes]


def _is_on_loopback() -> bool:
    """Whether Ray is on the loopback interface, as `start_ray` starts it with `loopback`."""
    return is_loopback(ray.util.get_node_ip_address())


def end_work(seconds: float, tell: Callable[[int], None]) -> None:
    """Take no more photos, and wait until those in work are answered: within `seconds` with the
    photo, then with status 503. `tell` receives their number.
    """
    gateway = serve.get_app_handle(APP)
    tell(gateway.end.remote(seconds).result())
    deadline = time.monotonic() + seconds + _DELIVERY_SECONDS
    # A gateway that has ended has no photos any more.
    with contextlib.suppress(RayError, RayServeException):
        while time.monotonic() < deadline and gateway.photos_in_work.remote().result():
            time.sleep(_READY_SECONDS)
    proxies = _proxies()
    while time.monotonic() < deadline and proxies:
        proxies = [proxy for proxy in proxies if not _close(proxy)]
        time.sleep(_READY_SECONDS)


def _proxies() -> list[Any]:
    """The actors that have the connections of clients."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return [
        ray.get_actor(actor["name"], actor["namespace"])
        for actor in named
        if actor["namespace"] == SERVE_NAMESPACE and actor["name"].startswith(SERVE_PROXY_NAME)
    ]


def _close(proxy: Any) -> bool:  # noqa: ANN401 - Ray has no type for actor handles
    """Let the HTTP server of a proxy end; returns whether it has delivered all its answers.

    Ray 2.60 ends proxies without a look at their connections, which would cut an answer off that a
    client reads slowly.
    """

    def end(actor: Any) -> bool:  # noqa: ANN401 - a class of Ray's own
        running, server = actor._start_http_server_task.result()
        server.should_exit = True
        return bool(running.done())

    try:
        return bool(ray.get(proxy.__ray_call__.remote(end)))
    except RayActorError:
        return True


def stop() -> None:
    """End the application and Ray Serve."""
    # While its controller ends, Ray prints that calls to it fail.
    unread = io.StringIO()
    with contextlib.redirect_stdout(unread), contextlib.redirect_stderr(unread):
        # Ray ends their processes without a goodbye.
        with contextlib.suppress(RayError, RayServeException):
            serve.get_deployment_handle(MODEL_SOURCE, APP).end.remote().result()
            serve.get_app_handle(APP).delete_jobs.remote().result()
        serve.shutdown()
