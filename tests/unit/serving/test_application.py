"""The options of the deployments: how long a replica may finish its photos, and where they run."""

from typing import Any

import pytest

from degrain.inference.config import InferenceConfig
from degrain.serving.application import MODEL_SOURCE, build_application
from degrain.serving.config import ServingConfig
from degrain.serving.gateway import PHOTO_REPLICA
from degrain.serving.settings import Settings
from degrain.storage.location import Storage
from degrain.tracking.config import TrackingConfig

GATEWAY = "Gateway"


@pytest.fixture
def deployments() -> dict[str, Any]:
    """The deployments of an application with `drain_seconds` 77, by name."""
    settings = Settings(
        serving=ServingConfig(drain_seconds=77),
        inference=InferenceConfig(),
        tracking=TrackingConfig(),
        storage=Storage(),
        token=None,
    )
    waiting = [build_application(settings, loopback=True)]
    found = {}
    while waiting:
        deployment = waiting.pop()._bound_deployment
        found[deployment.name] = deployment
        arguments = (*deployment.init_args, *deployment.init_kwargs.values())
        waiting += [each for each in arguments if hasattr(each, "_bound_deployment")]
    return found


@pytest.mark.parametrize("name", [PHOTO_REPLICA, GATEWAY])
def test_an_ending_replica_has_the_stated_time_for_its_photos(
    deployments: dict[str, Any], name: str
) -> None:
    assert deployments[name]._deployment_config.graceful_shutdown_timeout_s == 77


@pytest.mark.parametrize("name", [MODEL_SOURCE, GATEWAY])
def test_what_all_photos_pass_through_runs_where_the_cluster_does(
    deployments: dict[str, Any], name: str
) -> None:
    """On another node it would end with that node, and every photo and job with it."""
    options = deployments[name].ray_actor_options
    assert options["resources"] == {"node:__internal_head__": 0.001}
    assert options["num_cpus"] == 0
