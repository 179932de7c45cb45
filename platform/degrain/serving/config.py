"""Configuration of the service: where it listens, and its limits.

Only the standard library is imported here: the command line builds its options from these fields.
"""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from degrain.errors import InvalidFieldError, UserError
from degrain.fields import check_minimum, check_not_negative, check_positive

TOKEN_VARIABLE = "DEGRAIN_SERVE_TOKEN"
"""Environment variable with the token."""


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """Where the service listens, how many processes denoise, and what it refuses."""

    host: str = "127.0.0.1"
    """Address to listen on; one beyond this machine needs a token."""
    port: int = 8000
    """TCP port to listen on."""
    token_file: Path | None = None
    """File with the token that clients send as `Authorization: Bearer TOKEN`. None: the variable
    DEGRAIN_SERVE_TOKEN; if that is not set, there is no token."""
    min_replicas: int = 1
    """Least processes that denoise."""
    max_replicas: int = 2
    """Most processes that denoise; between both it follows the load."""
    replica_cpus: int = 1
    """Cores, and threads, of one of these processes."""
    replica_gpus: float = 0.0
    """GPUs, or a share of one, of one of these processes; for `device` cuda."""
    queue: int = 16
    """Photos that may wait; further ones are answered with status 429."""
    largest_megabytes: float = 200.0
    """Larger uploads are refused, megabytes."""
    buffered_megabytes: float = 1000.0
    """Uploads in memory at one time, megabytes in all; beyond, photos are answered with status
    429."""
    largest_megapixels: float = 60.0
    """Larger photos are refused, megapixels; they may become jobs."""
    largest_job_megapixels: float = 500.0
    """Larger photos are refused as jobs too, megapixels."""
    upload_seconds: float = 60.0
    """Time for a client to send a photo, seconds."""
    request_seconds: float = 300.0
    """Time for a photo to wait and be denoised, seconds; jobs have ten times as much."""
    drain_seconds: float = 300.0
    """Time for photos in work when a replica or the service ends, seconds; what is not finished
    then is answered with status 503, and jobs start again on another replica."""
    jobs: int = 16
    """Most jobs that wait, run, or have a result."""
    job_minutes: float = 60.0
    """Time after its end at which a job and its result are deleted, minutes."""
    metrics_port: int | None = None
    """TCP port of the metrics for Prometheus, if `serve` starts Ray. None: a free one; its address
    is printed."""
    follow_seconds: float = 5.0
    """Time between two looks at the registry, seconds."""

    def __post_init__(self) -> None:
        check_minimum(self, 1, "min_replicas", "max_replicas", "replica_cpus", "queue", "jobs")
        for name, port in (("port", self.port), ("metrics_port", self.metrics_port)):
            if port is not None and not 1 <= port <= 65535:
                raise InvalidFieldError(name, f"must be from 1 to 65535, got {port}")
        if self.max_replicas < self.min_replicas:
            raise InvalidFieldError(
                "max_replicas",
                f"must be at least min_replicas, {self.min_replicas}, got {self.max_replicas}",
            )
        check_positive(self, *_POSITIVE)
        check_not_negative(self, "replica_gpus")

    @property
    def loopback(self) -> bool:
        """Whether only processes of this machine can connect."""
        return is_loopback(self.host)

    def check_token(self, token: str | None) -> None:
        """Raise UserError if others could connect without a token."""
        if token is None and not self.loopback:
            raise UserError(
                f"host '{self.host}' can be reached from other machines, and there is no token; "
                f"name a file with `token_file`, set {TOKEN_VARIABLE}, or listen on 127.0.0.1"
            )


_POSITIVE = (
    "largest_megabytes",
    "buffered_megabytes",
    "largest_megapixels",
    "largest_job_megapixels",
    "upload_seconds",
    "request_seconds",
    "drain_seconds",
    "job_minutes",
    "follow_seconds",
)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is that of this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
