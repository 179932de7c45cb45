"""The record of a trial, and the messages between the driver and the trial's process."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeAlias

from degrain.training.config import TrainingConfig
from degrain.training.session import Metrics
from degrain.tuning.space import Draw

ENDED = ("finished", "stopped", "failed")


@dataclass
class Trial:
    """One configuration of a study, and its progress."""

    number: int
    draw: Draw
    config: TrainingConfig
    parameters: int
    status: str = "waiting"
    """`waiting`, `running`, then `finished`, `stopped` (early) or `failed`."""
    best: Metrics = field(default_factory=dict)
    """The reported metrics with the best score by the study's objective; of two, by PSNR."""
    error: str | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    """Progress in percent and that score of each validation."""
    halved: bool = False
    """Whether the batch was halved because memory ran out."""
    inherited: list[Mapping[str, float]] = field(default_factory=list)
    """Where the trial went on from another one's checkpoint (population-based training): `number`
    of that one, `progress` in percent, `factor` of the learning rate from there on."""
    run_id: str | None = None
    """Id of its run in MLflow."""

    def inherit(self, message: "Inherited") -> None:
        """Take over the hyperparameters of another trial."""
        taken = {"number": message.number, "progress": message.progress, "factor": message.factor}
        self.inherited.append(taken)
        self.draw = Draw(**message.draw)
        self.config = TrainingConfig(**message.training)
        # The next validation is that of the checkpoint it went on from, or better.
        self.best = {}

    @property
    def usable(self) -> bool:
        """Whether the trial can be refitted: it was validated and did not fail."""
        return bool(self.best) and self.status != "failed"

    @property
    def stopped_at(self) -> float | None:
        """Progress in percent where early stopping ended the trial; None if it did not."""
        return self.curve[-1][0] if self.status == "stopped" else None

    @property
    def name(self) -> str:
        """Name of the trial's run."""
        return f"trial-{self.number:02d}-{self.draw.model}"

    def to_dict(self) -> dict[str, object]:
        """Return the trial's entry of the summary file."""
        speed = self.best.get("seconds_per_megapixel")
        return {
            "model": self.draw.model,
            "params": {**self.draw.to_dict(), "batch_size": self.config.batch_size},
            "val_psnr": self.best.get("val_psnr"),
            "val_ssim": self.best.get("val_ssim"),
            **({} if speed is None else {"seconds_per_megapixel": speed}),
            "status": self.status,
            "error": self.error,
        }

    def to_state(self) -> dict[str, Any]:
        """Return all fields as values that JSON can represent."""
        return {**asdict(self), "config": self.config.to_dict()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Trial":
        """Return the trial of which `to_state` returned `state`."""
        read = {
            "draw": Draw(**state["draw"]),
            "config": TrainingConfig(**state["config"]),
            "curve": [(p, s) for p, s in state["curve"]],
        }
        return cls(**{**state, **read})


@dataclass(frozen=True)
class Task:
    """What the process of a trial is told."""

    number: int
    name: str
    """Its checkpoints are below a folder of this name."""
    halved: bool
    """Whether memory ran out before, and the batch is the smaller one."""
    inherited: int
    """How often it went on from another trial's checkpoint."""
    draw: Mapping[str, Any]
    """Fields of its `Draw`."""
    training: Mapping[str, Any]
    """Fields of its TrainingConfig."""

    @classmethod
    def for_trial(cls, trial: Trial) -> "Task":
        """The task of a trial, also of one that was interrupted."""
        return cls(
            number=trial.number,
            name=trial.name,
            halved=trial.halved,
            inherited=len(trial.inherited),
            draw=asdict(trial.draw),
            training=trial.config.to_dict(),
        )

    def arguments(self) -> dict[str, Any]:
        """The configuration that Ray Tune hands to the process."""
        return {"task": asdict(self)}

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "Task":
        """The task in what `arguments` returned."""
        return cls(**arguments["task"])


@dataclass(frozen=True)
class Failed:
    """The trial failed in a way that would recur."""

    error: str


@dataclass(frozen=True)
class Halved:
    """Memory ran out; the trial starts anew with a smaller batch."""

    batch_size: int


@dataclass(frozen=True, kw_only=True)
class Inherited:
    """The trial goes on from the checkpoint of another one, see `stopping.Population`."""

    number: int
    """The other trial."""
    progress: float
    """Where it was replaced, percent."""
    factor: float
    """Factor of the learning rate from there on."""
    draw: Mapping[str, Any]
    training: Mapping[str, Any]


Message: TypeAlias = Failed | Halved | Inherited
_MESSAGES = {kind.__name__: kind for kind in (Failed, Halved, Inherited)}
_KEY = "message"


def to_report(message: Message) -> dict[str, str]:
    """A message as what Ray Tune takes for metrics: its loggers expect plain values."""
    return {_KEY: json.dumps([type(message).__name__, asdict(message)])}


def message_of(report: Mapping[str, Any]) -> Message | None:
    """The message in a report; None for the metrics of a validation."""
    if _KEY not in report:
        return None
    kind, fields = json.loads(report[_KEY])
    return _MESSAGES[kind](**fields)


class Observer(Protocol):
    """Callbacks on the trials, in the driver."""

    def started(self, trial: Trial) -> None:
        """Called when the trial starts."""
        ...

    def reported(self, trial: Trial, metrics: Metrics) -> None:
        """Called after each validation."""
        ...

    def ended(self, trial: Trial) -> None:
        """Called when the trial has finished, stopped or failed."""
        ...
