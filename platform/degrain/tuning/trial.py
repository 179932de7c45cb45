"""The record of one trial of a study."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

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

    def inherit(self, content: Mapping[str, Any]) -> None:
        """Take over the hyperparameters of another trial, from an `Inheritance.to_dict`."""
        self.inherited.append({k: content[k] for k in ("number", "progress", "factor")})
        self.draw = Draw(**content["draw"])
        self.config = TrainingConfig(**content["training"])
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
