"""A Ray of this machine for the process of a benchmark."""

import ray

from degrain.cluster import silence_libraries


def start_local_ray(*, cpus: int) -> None:
    """Start a small Ray that prints nothing and ends with this process."""
    silence_libraries()
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
