"""What one training run is told."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import torch

from degrain.imaging.execution import COMPILED, PRECISIONS, Compiled, Precision
from denoisenets import create_model, model_contract
from denoisenets.discriminator import MINIMUM_SIDE

Loss: TypeAlias = Literal["mse", "l1", "charbonnier", "psnr", "ssim"]
LOSSES: tuple[Loss, ...] = ("mse", "l1", "charbonnier", "psnr", "ssim")
Batches: TypeAlias = Literal["auto", "resident", "streaming"]
BATCHES: tuple[Batches, ...] = ("auto", "resident", "streaming")
Noise: TypeAlias = Literal["stored", "fresh"]
NOISES: tuple[Noise, ...] = ("stored", "fresh")
Schedule: TypeAlias = Literal["cosine", "step"]
SCHEDULES: tuple[Schedule, ...] = ("cosine", "step")
Mix: TypeAlias = Literal["natural", "even"]
MIXES: tuple[Mix, ...] = ("natural", "even")
Optimizer: TypeAlias = Literal["adam", "adamw"]
OPTIMIZERS: tuple[Optimizer, ...] = ("adam", "adamw")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run; the defaults are a sound start on a GPU."""

    model: str = "red10"
    """Name of the network, see `denoisenets.list_models()`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the network that differ from its defaults."""
    steps: int = 20_000
    """Optimizer steps; one step sees `batch_size` patches over all workers together."""
    batch_size: int = 16
    """Patches per step over all workers, however many they are; each takes its part."""
    micro_batch: int | None = None
    """Most patches that a worker takes through the network at once; the gradients of a larger share are accumulated."""
    batches: Batches = "auto"
    """`resident`: the split is in memory whole; `streaming`: in windows; `auto`: resident if it fits."""
    window_megabytes: int = 1024
    """Megabytes of patches that a streamed split shuffles at once."""
    noise: Noise = "stored"
    """For corpora of clean photos: the noise that ingest made, or `fresh` noise of the same kind for each step."""
    crop: int | None = None
    """Side in pixels of the random crop that is taken from each stored patch; None takes the whole patch."""
    mix: Mix = "natural"
    """`natural` shows each patch once an epoch; `even` shows all cameras and ISOs of the corpora equally often."""
    loss: Loss = "mse"
    """`mse` (the seed article's), `l1`, `charbonnier`, `psnr` (minus it, in dB), or `ssim` (a mix of it with L1)."""
    adversarial: float = 0.0
    """Weight of a patch discriminator's verdict beside the loss; for fine-tuning a network that denoises already."""
    optimizer: Optimizer = "adamw"
    """Adam, or Adam with decoupled weight decay."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after warm-up."""
    schedule: Schedule = "cosine"
    """After warm-up the rate falls to zero as half a cosine, or is halved every `decay_steps` steps."""
    decay_steps: int | None = None
    """Steps between halvings of the schedule `step`; None: a fifth of `steps`."""
    weight_decay: float = 0.0
    """Decay of the weights per step and unit of learning rate."""
    warmup_steps: int = 20
    """Steps over which the learning rate rises linearly; at most a tenth of `steps` is used."""
    gradient_clip: float = 1.0
    """Largest norm of the whole gradient; larger ones are scaled down to it."""
    ema_decay: float = 0.999
    """Decay of the moving average of the weights, which is what is validated and shipped."""
    precision: Precision = "auto"
    """`bfloat16` autocast, `float32`, or what the device is fastest with."""
    compiled: Compiled = "auto"
    """Whether the network is compiled for training; `auto` on CUDA alone."""
    validate_every: int = 1000
    """Steps between validations; a checkpoint is written with each, and with the last step."""
    validation_patches: int = 64
    """Patches that a validation scores, spread evenly over the val split."""
    patience: int | None = None
    """Validations without a better val PSNR after which training ends early; None: never."""
    log_every: int | None = None
    """Steps between lines of progress; None: a hundredth of `steps`, at most 100."""
    start: str | None = None
    """Name of the model whose weights training starts from; None: random weights."""
    seed: int = 0
    """Seeds the weights, the order of patches, and how they are cropped and turned."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "window_megabytes", "validate_every", "validation_patches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("micro_batch", "decay_steps", "patience", "log_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "gradient_clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a positive number, got {getattr(self, name)}")
        for name in ("weight_decay", "adversarial", "warmup_steps", "seed"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number that is not negative, got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")
        for name, known in (
            ("mix", MIXES),
            ("batches", BATCHES),
            ("noise", NOISES),
            ("loss", LOSSES),
            ("schedule", SCHEDULES),
            ("optimizer", OPTIMIZERS),
            ("precision", PRECISIONS),
            ("compiled", COMPILED),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} '{getattr(self, name)}'; known: {', '.join(known)}")
        if self.decay_steps is not None and self.schedule != "step":
            raise ValueError(f"decay_steps {self.decay_steps} is for the schedule 'step', and this one is '{self.schedule}'")
        _check_buildable(self.model, self.arguments)
        if self.crop is not None and self.crop < 16:
            raise ValueError(f"crop must be at least 16 pixels, got {self.crop}")

    def crop_of(self, patch_side: int) -> int:
        """The side of what a step sees, for patches of `patch_side` pixels.

        Raises ValueError if the patches are smaller, or the network does not take the size.
        """
        crop = self.crop or patch_side
        if crop > patch_side:
            raise ValueError(f"crop {crop} is larger than the patches of the set ({patch_side})")
        size = model_contract(self.model, **self.arguments).size
        if size.padded(crop) != crop:
            raise ValueError(f"crop {crop} does not suit {self.model}, which takes multiples of {size.multiple}")
        if self.adversarial and crop < MINIMUM_SIDE:
            raise ValueError(f"crop {crop} is too small for a discriminator, which needs {MINIMUM_SIDE} pixels")
        return crop

    def parts(self, world_size: int) -> int:
        """In how many parts each of so many workers takes its share through the network: the same number for all.

        They pass as often as each other because DDP's exchanges are matched by their order. So where some share has fewer
        patches than `micro_batch` would make parts, parts of other shares are larger by one.
        """
        largest, smallest = -(-self.batch_size // world_size), self.batch_size // world_size
        return min(-(-largest // (self.micro_batch or largest)), smallest)

    @property
    def progress_steps(self) -> int:
        """Steps between lines of progress."""
        return self.log_every or min(max(self.steps // 100, 1), 100)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can say them."""
        return asdict(self)


def _check_buildable(model: str, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError unless the network can be built, which takes neither memory nor time on the meta device."""
    if not isinstance(arguments, Mapping):
        raise ValueError(f"a network's arguments are a mapping of names to values, got {arguments!r}")
    try:
        with torch.device("meta"):
            create_model(model, **arguments)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"model '{model}' cannot be built with {dict(arguments)}: {str(error).splitlines()[0]}") from None
