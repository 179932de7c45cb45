"""The configuration of one training run.

Only the standard library is imported here: the command line builds its options from these fields.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

from degrain.durations import Duration
from degrain.errors import InvalidFieldError, UserError
from degrain.fields import (
    check_choices,
    check_minimum,
    check_not_negative,
    check_positive,
    check_share,
)
from degrain.inference.config import Compiled, Precision
from degrain.presets import preset
from degrain.training.rate_changes import NO_CHANGES, RateChanges
from denoisenets.catalog import NETWORKS
from denoisenets.suggestions import unknown_name

Loss: TypeAlias = Literal["mse", "l1", "charbonnier", "psnr", "ssim"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
Batches: TypeAlias = Literal["auto", "resident", "streaming"]
Noise: TypeAlias = Literal["stored", "on-the-fly"]
Schedule: TypeAlias = Literal["cosine", "step"]
Optimizer: TypeAlias = Literal["adam", "adamw"]

RESUMABLE_CHANGES = frozenset(
    {"validate_every", "validation_patches", "micro_batch", "log_every", "patience"}
)
"""Fields that may differ between the run that wrote a checkpoint and the one that resumes it."""
SMALLEST_CROP = 16
"""Pixels."""
COMPILED_FROM = Duration(600)
"""Budget from which on a CPU tries a compiled network; docs/performance.md has the figures."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run; what is not given follows the recipe of the network, if it has one."""

    model: str = "red10"
    """Name of the network; docs/models.md lists them. On the command line the starter is trained on
    if neither this nor `start` is given."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the network that differ from its defaults, e.g. {"width": 32}."""
    start: str | None = None
    """Model to fine-tune, which also sets `model`: `starter` for the one in the package,
    models:/NAME@ALIAS, models:/NAME/VERSION or a folder. None: random weights."""
    steps: int = 20_000
    """Optimizer steps; one step sees `batch_size` patches over all workers together."""
    budget: Duration | None = None
    """Time from the command to the model, e.g. 90s, 15m, 2h. The number of steps then follows from
    their measured rate. None: `steps`."""
    batch_size: int = 16
    """Patches per step over all workers; each worker takes its share."""
    micro_batch: int | None = None
    """Patches per forward pass of a worker at most; gradients are accumulated over its share. None:
    the whole share."""
    batches: Batches = "auto"
    """Where patches are held: `resident` in memory, `streaming` in windows, `auto` in memory if
    they fit.
    """
    window_megabytes: int | None = None
    """Megabytes of patches that a streamed split shuffles at once. None: 1024, or what Ray's object
    store has room for."""
    noise: Noise = "stored"
    """Noise of clean-only corpora: as ingest stored it, or drawn `on-the-fly` for each step."""
    synthetic_share: float = 0.0
    """Share of the patches of which the clean half with synthetic noise replaces the noisy half: a
    noise around that of one of the cameras and ISOs of the pairs, or of any camera."""
    clean_share: float = 0.0
    """Share of the patches of which the clean half is the input too, so that clean photos stay as
    they are."""
    teacher: str | None = None
    """Model whose output for a noisy patch is a part of the target (distillation), and the whole
    target of photos without clean partners; written as `start`. None: no teacher."""
    teacher_share: float = 0.5
    """Weight of the teacher's output in the target of a pair, between 0 and 1."""
    crop: int | None = None
    """Side of the random crop from each patch, pixels. None: 64, or 96 for `fast*`, or the
    least that the network accepts, or the whole patch where that is smaller."""
    balance: float = 0.0
    """Between 0, each patch once an epoch, and 1, all corpora equally often, and within a corpus
    all its cameras and ISOs."""
    loss: Loss = "mse"
    """Loss between output and clean patch: `psnr` is minus the PSNR in dB, `ssim` a mix with L1."""
    adversarial: float = 0.0
    """Weight of the loss of a patch discriminator, for fine-tuning a trained network; 0: none."""
    optimizer: Optimizer = "adamw"
    """Adam, or Adam with decoupled weight decay."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after warm-up."""
    schedule: Schedule = "cosine"
    """Decay of the learning rate after warm-up: half a cosine to zero, or halved every
    `decay_steps`."""
    decay_steps: int | None = None
    """Steps between halvings of the schedule `step`. None: a fifth of `steps`."""
    rate_changes: RateChanges = NO_CHANGES
    """Shares of the run and factors, e.g. 0.25:1.25,0.5:0.8: from each share on the learning rate
    of the schedule is multiplied by its factor. A search with `pbt` finds them."""
    weight_decay: float = 0.0
    """Weight decay per step and unit of learning rate."""
    warmup_steps: int = 20
    """Steps of linear warm-up; at most a tenth of `steps`."""
    gradient_clip: float = 1.0
    """Largest norm of the whole gradient."""
    ema_decay: float | None = None
    """Decay of the exponential moving average of the weights, which is validated and stored. None:
    a time constant of a fiftieth of the run, at least 100 steps."""
    precision: Precision = "auto"
    """`bfloat16` autocast, `float32`, or `auto`: the faster one on the device."""
    compiled: Compiled = "auto"
    """Whether the network is compiled for training; `auto` on CUDA, and on a CPU for a budget of at
    least ten minutes if its steps are then measured to be faster."""
    validate_every: int | None = None
    """Steps between validations, each of which writes a checkpoint. None: a tenth of `steps`."""
    validation_patches: int = 64
    """Patches that a validation scores, evenly spaced over the val split."""
    patience: int | None = None
    """Validations without a better val PSNR after which training stops early. None: never."""
    log_every: int | None = None
    """Steps between lines of progress. None: a hundredth of `steps`, at most 100."""
    seed: int = 0
    """Seed of weights, order of patches, crops and augmentation."""

    def __post_init__(self) -> None:
        check_minimum(self, 1, "steps", "batch_size", "window_megabytes", "validate_every")
        check_minimum(self, 1, "validation_patches", "micro_batch", "decay_steps", "patience")
        check_minimum(self, 1, "log_every")
        check_positive(self, "learning_rate", "gradient_clip", "budget")
        check_not_negative(self, "weight_decay", "adversarial", "warmup_steps", "seed")
        if self.budget is not None:
            object.__setattr__(self, "budget", Duration(self.budget))
        object.__setattr__(self, "rate_changes", RateChanges.parse(self.rate_changes))
        check_choices(self)
        check_share(self, "balance", "synthetic_share", "clean_share", "teacher_share")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise InvalidFieldError(
                "ema_decay", f"must be at least 0 and below 1, got {self.ema_decay}"
            )
        if self.decay_steps is not None and self.schedule != "step":
            raise InvalidFieldError(
                "decay_steps",
                f"{self.decay_steps} needs the schedule 'step', got '{self.schedule}'",
            )
        if self.crop is not None and self.crop < SMALLEST_CROP:
            raise InvalidFieldError(
                "crop", f"must be at least {SMALLEST_CROP} pixels, got {self.crop}"
            )
        if self.model not in NETWORKS:
            raise UserError(unknown_name("model", self.model, NETWORKS))
        if not isinstance(self.arguments, Mapping):
            raise InvalidFieldError(
                "arguments", f"must be a mapping of names to values, got {self.arguments!r}"
            )
        if self.arguments:
            _check_buildable(self.model, self.arguments)

    def crop_of(self, patch_side: int) -> int:
        """Side in pixels of the crop that a step sees, for patches of `patch_side` pixels.

        Raises InvalidFieldError if the patches are smaller, or the network does not take the size.
        """
        from denoisenets import model_contract
        from denoisenets.discriminator import MINIMUM_SIDE

        size = model_contract(self.model, **self.arguments).size
        usual = size.padded(preset(self.model).recipe.crop)
        crop = self.crop or min(usual, patch_side)
        if crop > patch_side:
            raise InvalidFieldError(
                "crop", f"{crop} is larger than the patches of the set ({patch_side})"
            )
        if size.padded(crop) != crop:
            raise InvalidFieldError(
                "crop",
                f"{crop} does not suit {self.model}, which takes multiples of {size.multiple}",
            )
        if self.adversarial and crop < MINIMUM_SIDE:
            raise InvalidFieldError(
                "crop",
                f"{crop} is too small for a discriminator, which needs {MINIMUM_SIDE} pixels",
            )
        return crop

    def micro_batches(self, world_size: int) -> int:
        """Number of micro-batches into which each of `world_size` workers splits its share.

        It is the same for all workers, because DDP matches collective operations by their order.
        It never exceeds the smallest share, so micro-batches may have one patch more than
        `micro_batch`.
        """
        largest, smallest = -(-self.batch_size // world_size), self.batch_size // world_size
        return min(-(-largest // (self.micro_batch or largest)), smallest)

    @property
    def validation_interval(self) -> int:
        """Steps between validations."""
        return self.validate_every or max(self.steps // 10, 1)

    @property
    def steps_at_most(self) -> int:
        """Optimizer steps, or a number that is never reached where a budget decides."""
        return self.steps if self.budget is None else sys.maxsize

    @property
    def log_interval(self) -> int:
        """Steps between lines of progress."""
        return self.log_every or min(max(self.steps // 100, 1), 100)

    @property
    def length(self) -> str:
        """The length of the run in words, for logs."""
        return f"{self.steps} steps" if self.budget is None else str(self.budget)

    def tries_compiled(self, device: str) -> bool:
        """Whether to measure if compilation pays, on a device type, `cpu` or `cuda`."""
        long = self.budget is not None and self.budget >= COMPILED_FROM
        return self.compiled == "auto" and device == "cpu" and long

    @property
    def average_decay(self) -> float:
        """Decay of the average of the weights."""
        return max(0.99, 1 - 50 / self.steps) if self.ema_decay is None else self.ema_decay

    def tracked_parameters(self) -> dict[str, Any]:
        """The fields that MLflow shows; without `steps` where a budget decides their number, and
        without `rate_changes` where there are none.
        """
        fields = self.to_dict()
        if self.budget is not None:
            del fields["steps"]
        if not self.rate_changes:
            del fields["rate_changes"]
        return fields

    def to_dict(self) -> dict[str, Any]:
        """All fields as values that JSON can represent; the budget in seconds."""
        plain = {"budget": None if self.budget is None else float(self.budget)}
        return {**asdict(self), **plain, "rate_changes": str(self.rate_changes)}


def _check_buildable(model: str, arguments: Mapping[str, Any]) -> None:
    """Raise UserError unless the network can be built."""
    from denoisenets import count_parameters

    try:
        count_parameters(model, **arguments)
    except ValueError as error:
        raise UserError(str(error)) from None
    except (TypeError, RuntimeError) as error:
        short = str(error).splitlines()[0]
        raise UserError(
            f"model '{model}' cannot be built with {dict(arguments)}: {short}; change `arguments`"
        ) from None


def by_recipe(config: TrainingConfig) -> TrainingConfig:
    """Return the configuration with the fields that its network's recipe sets."""
    recipe = preset(config.model).recipe
    return replace(config, **recipe.fields(fine_tuning=config.start is not None))
