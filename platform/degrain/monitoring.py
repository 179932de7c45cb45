"""The metrics that Ray exports to Prometheus: one list, and the functions that set them.

Prometheus reads them from each Ray node, as `ray_` and the metric's name. Drivers set them:
trials and workers send their numbers there. Without a running Ray nothing is recorded.

Ray's agent on the node keeps counters until the cluster ends, and drops a gauge 20 seconds after
the process that set it has ended.
"""

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge, Histogram


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric that Prometheus reads."""

    name: str
    """Name in Ray; that of a counter ends in `_total`."""
    kind: Literal["gauge", "counter", "histogram"]
    """Prometheus has `_bucket`, `_sum` and `_count` of a histogram."""
    unit: str
    labels: tuple[str, ...]
    description: str

    @property
    def exported_name(self) -> str:
        """Name in Prometheus."""
        return f"ray_{self.name}"


_RUN = ("model", "run")
"""Labels of a training: the network, and the name of the run, trial or refit."""

PATCHES_PER_SECOND = Metric(
    name="degrain_patches_per_second",
    kind="gauge",
    unit="patches/s",
    labels=_RUN,
    description="Training throughput over all workers of a run; 0 after its end.",
)
DATA_WAIT_SHARE = Metric(
    name="degrain_data_wait_share",
    kind="gauge",
    unit="share, 0 to 1",
    labels=_RUN,
    description="Share of the time that workers wait for batches; 0 after the end of the run.",
)
TRAIN_LOSS = Metric(
    name="degrain_train_loss",
    kind="gauge",
    unit="of the loss",
    labels=_RUN,
    description="Mean training loss since the last measurement.",
)
VAL_PSNR = Metric(
    name="degrain_val_psnr_db",
    kind="gauge",
    unit="dB",
    labels=_RUN,
    description="PSNR on the val split, at the last validation.",
)
VAL_SSIM = Metric(
    name="degrain_val_ssim",
    kind="gauge",
    unit="SSIM, up to 1",
    labels=_RUN,
    description="SSIM on the val split, at the last validation.",
)
TRIALS = Metric(
    name="degrain_trials_total",
    kind="counter",
    unit="trials",
    labels=("model", "status"),
    description="Trials of studies that have ended: finished, stopped (early) or failed.",
)
RETRAININGS = Metric(
    name="degrain_retrainings_total",
    kind="counter",
    unit="retrainings",
    labels=("decision",),
    description="Retrainings that have decided: promoted or kept.",
)
DRIFT = Metric(
    name="degrain_drift",
    kind="gauge",
    unit="of the trait",
    labels=("trait",),
    description="Difference of new pairs from the known ones in a trait, see docs/retraining.md.",
)
SERVED_REQUESTS = Metric(
    name="degrain_served_requests_total",
    kind="counter",
    unit="requests",
    labels=("status",),
    description="Answers of `degrain serve` to photos, by HTTP status.",
)
SERVED_SECONDS = Metric(
    name="degrain_served_seconds",
    kind="histogram",
    unit="s",
    labels=("version",),
    description="Time from a photo's last byte to its answer, waiting included.",
)
WAITING_PHOTOS = Metric(
    name="degrain_waiting_photos",
    kind="gauge",
    unit="photos",
    labels=(),
    description="Photos that `degrain serve` receives, keeps waiting or denoises.",
)

METRICS = (
    PATCHES_PER_SECOND,
    DATA_WAIT_SHARE,
    TRAIN_LOSS,
    VAL_PSNR,
    VAL_SSIM,
    TRIALS,
    RETRAININGS,
    DRIFT,
    SERVED_REQUESTS,
    SERVED_SECONDS,
    WAITING_PHOTOS,
)
"""All metrics; `docs/deployment.md` has the same table, and the dashboard shows each of them."""

_SECONDS_BOUNDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0)
"""Upper bounds of the histogram's buckets, in seconds."""
_OF_A_TRAINING = {
    "patches_per_second": PATCHES_PER_SECOND,
    "data_wait_share": DATA_WAIT_SHARE,
    "train_loss": TRAIN_LOSS,
    "val_psnr": VAL_PSNR,
    "val_ssim": VAL_SSIM,
}
"""The gauge of each metric of the training loop."""


class TrainingGauges:
    """The gauges of one training; used as a context manager, it ends them."""

    def __init__(self, model: str, run: str) -> None:
        self._labels = {"model": model, "run": run}

    def set(self, metrics: Mapping[str, float]) -> None:
        """Set the gauges of metrics of the training loop; those without a gauge are left out."""
        for name, metric in _OF_A_TRAINING.items():
            if name in metrics:
                _set(metric, metrics[name], self._labels)

    def end(self) -> None:
        """Set the rates to 0. Losses and scores keep their last value until the driver ends."""
        self.set({"patches_per_second": 0.0, "data_wait_share": 0.0})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()


def record_trial(model: str, status: str) -> None:
    """Count a trial that has ended with a status."""
    _increase(TRIALS, {"model": model, "status": status})


def record_retraining(decision: str) -> None:
    """Count a retraining that has ended with a decision."""
    _increase(RETRAININGS, {"decision": decision})


def record_drift(trait: str, difference: float) -> None:
    """Set how far new pairs are from the known ones in a trait, e.g. `noise`."""
    _set(DRIFT, difference, {"trait": trait})


def record_request(status: int) -> None:
    """Count an answer of the service."""
    _increase(SERVED_REQUESTS, {"status": str(status)})


def record_served_photo(version: str, seconds: float) -> None:
    """Record the time that a photo waited and was denoised."""
    if _ray_runs():
        _histogram(SERVED_SECONDS).observe(seconds, tags={"version": version})


def record_waiting_photos(count: int) -> None:
    """Set the number of photos in the service."""
    _set(WAITING_PHOTOS, count, {})


def _ray_runs() -> bool:
    """Whether this process is connected to a Ray cluster; does not import Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _set(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
    if _ray_runs():
        _gauge(metric).set(value, tags=dict(labels))


def _increase(metric: Metric, labels: Mapping[str, str]) -> None:
    if _ray_runs():
        _counter(metric).inc(tags=dict(labels))


@functools.cache
def _gauge(metric: Metric) -> "Gauge":
    from ray.util.metrics import Gauge

    assert metric.kind == "gauge"
    return Gauge(metric.name, metric.description, metric.labels)


@functools.cache
def _counter(metric: Metric) -> "Counter":
    from ray.util.metrics import Counter

    assert metric.kind == "counter"
    return Counter(metric.name, metric.description, metric.labels)


@functools.cache
def _histogram(metric: Metric) -> "Histogram":
    from ray.util.metrics import Histogram

    assert metric.kind == "histogram"
    return Histogram(metric.name, metric.description, list(_SECONDS_BOUNDS), metric.labels)
