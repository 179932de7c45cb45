"""The workers of a training run: their number, their resources, and checks of the cluster.

Only the standard library is imported here: the command line builds its options from these fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from degrain.errors import InvalidFieldError, UserError
from degrain.fields import check_not_negative, check_positive
from degrain.words import counted

if TYPE_CHECKING:
    import ray.train

_RESIZE_SECONDS = 20.0
"""Seconds between an elastic run's checks for new nodes."""


@dataclass(frozen=True)
class WorkerRange:
    """A number of workers, or the range of an elastic run: `4`, `2:8`."""

    METAVAR: ClassVar[str] = "N|MIN:MAX"

    minimum: int = 1
    """Training waits until this many workers are available."""
    maximum: int = 1
    """Most workers that an elastic run uses."""

    def __post_init__(self) -> None:
        if self.minimum < 1:
            raise InvalidFieldError("workers", f"must be at least 1, got {self.minimum}")
        if self.maximum < self.minimum:
            raise InvalidFieldError(
                "workers", f"must be a range MIN:MAX with MIN <= MAX, got {self}"
            )

    @classmethod
    def parse(cls, text: str) -> "WorkerRange":
        """Read `4` or `2:8`. Raises InvalidFieldError for anything else."""
        minimum, colon, maximum = text.partition(":")
        if not minimum.isdecimal() or (colon and not maximum.isdecimal()):
            raise InvalidFieldError(
                "workers", f"must be a number, or a range such as 2:8, got '{text}'"
            )
        return cls(int(minimum), int(maximum or minimum))

    def describe(self) -> str:
        """`1 worker`, `4 workers`, `2 to 8 workers`."""
        most = counted(self.maximum, "worker")
        return f"{self.minimum} to {most}" if self.elastic else most

    def __str__(self) -> str:
        return f"{self.minimum}:{self.maximum}" if self.elastic else str(self.maximum)

    @property
    def elastic(self) -> bool:
        """Whether the number may change during a run."""
        return self.maximum != self.minimum


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The Ray Train workers of a run; these options may change when it is resumed."""

    workers: WorkerRange = WorkerRange()
    """Ray Train workers; MIN:MAX grows and shrinks with the cluster."""
    cpus_per_worker: float | None = None
    """CPUs of each worker. None: those of the smallest node, shared out among its workers."""
    gpus_per_worker: float = 0.0
    """GPUs of each worker."""
    restarts: int = 10
    """Most restarts after a loss of workers; announced preemptions are not counted."""

    def __post_init__(self) -> None:
        check_positive(self, "cpus_per_worker")
        check_not_negative(self, "gpus_per_worker")
        if self.workers.maximum > 1 and self.gpus_per_worker != int(self.gpus_per_worker):
            raise InvalidFieldError(
                "gpus_per_worker",
                f"must be whole where there are several workers, got {self.gpus_per_worker:g}",
            )
        if self.restarts < 0:
            raise InvalidFieldError("restarts", f"must not be negative, got {self.restarts}")

    def fit_to_cluster(self) -> "Workers":
        """Return the workers with a number of CPUs. Needs a running Ray."""
        import ray

        nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        return self.fit_to([cpus for cpus in nodes if cpus >= 1])

    def fit_to(self, nodes: Sequence[float]) -> "Workers":
        """Return the workers with a number of CPUs, for nodes with these CPUs."""
        if self.cpus_per_worker is not None or not nodes:
            return replace(self, cpus_per_worker=self.cpus_per_worker or 1)
        on_one_node = -(-self.workers.maximum // len(nodes))
        return replace(self, cpus_per_worker=max(min(nodes) // on_one_node, 1))

    def check_batch(self, batch_size: int) -> None:
        """Raise InvalidFieldError if the batch has fewer patches than workers."""
        if batch_size < self.workers.maximum:
            raise InvalidFieldError(
                "batch_size",
                f"{batch_size} leaves some of {self.workers.maximum} workers without a patch; "
                "raise it or use fewer workers",
            )

    def check_cluster(self) -> None:
        """Raise UserError if the cluster is too small for `minimum` workers.

        Ray would wait for ever.
        """
        import ray

        total, free = ray.cluster_resources(), ray.available_resources()
        minimum = self.workers.minimum
        for kind, each in self.resources.items():
            needed = minimum * each
            if needed > total.get(kind, 0):
                raise UserError(
                    f"{minimum} workers need {needed:g} {kind}s, but the cluster has "
                    f"{total.get(kind, 0):g}, of which {free.get(kind, 0):g} are free; lower "
                    "`workers` or start more nodes"
                )

    def shortage(self) -> str | None:
        """Describe the CPUs and GPUs that `minimum` workers lack now; None if they lack none."""
        import ray

        total, free = ray.cluster_resources(), ray.available_resources()
        minimum = self.workers.minimum
        lacking = [
            f"{minimum * each:g} {kind}s for {minimum} workers; {free.get(kind, 0):g} of "
            f"{total.get(kind, 0):g} {kind}s are free"
            for kind, each in self.resources.items()
            if minimum * each > free.get(kind, 0)
        ]
        return " and ".join(lacking) or None

    def scaling(self) -> "ray.train.ScalingConfig":
        """Convert to Ray's ScalingConfig."""
        import ray.train

        count = self.workers
        return ray.train.ScalingConfig(
            num_workers=(count.minimum, count.maximum) if count.elastic else count.maximum,
            use_gpu=self.gpus_per_worker > 0,
            resources_per_worker=self.resources,
            elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
        )

    @property
    def resources(self) -> dict[str, float]:
        """Resources of one worker, by Ray's names."""
        assert self.cpus_per_worker is not None, "call fit_to_cluster first"
        needs = {"CPU": self.cpus_per_worker, "GPU": self.gpus_per_worker}
        return {kind: each for kind, each in needs.items() if each}


def has_gpu() -> bool:
    """Whether Ray has assigned a GPU to this process: others see those of the machine, too."""
    import ray

    # Asked without a running Ray it would start one, or join one that another user runs.
    if not ray.is_initialized():
        return False
    return bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))
