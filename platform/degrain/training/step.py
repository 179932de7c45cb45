"""One optimizer step, and the state it acts on."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from degrain.errors import JobFailedError
from degrain.inference.execution import Execution, choose_execution
from degrain.loading.batches import Batch
from degrain.training.config import TrainingConfig
from degrain.training.ema import WeightAverage
from degrain.training.losses import LOSS_FUNCTIONS, discriminator_loss, generator_loss
from denoisenets import create_model
from denoisenets.discriminator import PatchDiscriminator


class DivergedError(JobFailedError):
    """The loss or the gradient became NaN or infinite; the weights were not changed."""


@dataclass
class TrainedNetwork:
    """A network and its optimizer."""

    network: nn.Module
    """The network without wrappers."""
    optimizer: torch.optim.Optimizer
    replica: nn.Module
    """The network, or DistributedDataParallel around it."""
    forward: Callable[[Tensor], Tensor]
    """The forward pass: the replica, or its compiled form."""

    @classmethod
    def create(cls, network: nn.Module, config: TrainingConfig) -> "TrainedNetwork":
        """Create the optimizer of a network that is not yet wrapped in DDP."""
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        optimizer = kind(
            network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        return cls(network, optimizer, network, network)

    def wrap_ddp(self, wrap: Callable[[nn.Module], nn.Module], execution: Execution) -> None:
        """Run forward passes through `wrap(network)`, compiled if the execution compiles."""
        self.replica = wrap(self.network)
        self.forward = execution.compile(self.replica)

    def gradient_sync(self, *, enabled: bool) -> AbstractContextManager[object]:
        """Context of one micro-batch: DDP averages gradients over workers only if `enabled`."""
        if enabled or not isinstance(self.replica, DistributedDataParallel):
            return nullcontext()
        return self.replica.no_sync()

    def gradient_norm(self) -> Tensor:
        """L2 norm over the gradients of all parameters."""
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def update(self, rate: float, scale: Tensor, failed: Tensor) -> None:
        """Take an optimizer step with the gradient divided by `scale`, unless `failed`.

        The optimizer's fused kernel applies both, which avoids another pass over the
        gradient and a synchronisation with the device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.grad_scale = scale  # type: ignore[attr-defined]
        self.optimizer.found_inf = failed.float()  # type: ignore[attr-defined]
        self.optimizer.step()


Anchor: TypeAlias = tuple[int, float, float]
"""A step, and the shares of the learning rate's schedule and of the run that were done before."""


@dataclass
class TrainingState:
    """The state that a training step updates and a checkpoint stores."""

    config: TrainingConfig
    execution: Execution
    denoiser: TrainedNetwork
    ema: WeightAverage
    adversary: TrainedNetwork | None
    """The discriminator, in adversarial training."""
    failure: Tensor
    """(3,) on the device: number (from 1), loss and gradient norm of the first step whose loss or
    gradient was not finite; number 0 if all were finite."""
    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Training time at the last measurement, over all processes of the run."""
    best_psnr: float = -math.inf
    """Highest val PSNR so far, dB."""
    validations_since_best: int = 0
    anchor: Anchor | None = None
    """Where the number of steps was last changed; None: it was not."""
    teacher: Callable[[Tensor], Tensor] | None = None
    """Maps noisy patches to the teacher's outputs."""

    @classmethod
    def create(cls, config: TrainingConfig, device: torch.device) -> "TrainingState":
        """Create networks with seeded random weights on `device`, and their optimizers."""
        execution = choose_execution(device, config.precision, config.compiled)
        torch.manual_seed(config.seed)
        denoiser = TrainedNetwork.create(
            execution.place(create_model(config.model, **config.arguments)), config
        )
        adversary = (
            TrainedNetwork.create(execution.place(PatchDiscriminator()), config)
            if config.adversarial
            else None
        )
        ema = WeightAverage(denoiser.network)
        return cls(config, execution, denoiser, ema, adversary, torch.zeros(3, device=device))

    def wrap_ddp(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        """Wrap the networks for several workers; `wrap` returns DDP around a network."""
        self.denoiser.wrap_ddp(wrap, self.execution)
        if self.adversary is not None:
            self.adversary.wrap_ddp(wrap, self.execution)

    def set_compiled(self, *, compiled: bool) -> None:
        """Compile the network's forward pass, or return to the uncompiled one."""
        self.execution = replace(self.execution, compiled=compiled)
        self.denoiser.forward = self.execution.compile(self.denoiser.replica)

    def set_steps(self, steps: int) -> None:
        """Change the last step; the learning rate continues from its present value to its end."""
        done = schedule_done(self.config, self.step, self.anchor)
        anchor = (self.step, done, self.progress)
        self.config, self.anchor = replace(self.config, steps=steps), anchor

    @property
    def done(self) -> bool:
        """Whether the last step is done, or `patience` is exhausted."""
        config = self.config
        return self.step >= config.steps or (
            config.patience is not None and self.validations_since_best >= config.patience
        )

    @property
    def progress(self) -> float:
        """Share of the run that is done; it never falls when the number of steps changes."""
        return run_done(self.config, self.step, self.anchor)

    def check(self) -> None:
        """Raise DivergedError if a loss or gradient was not finite."""
        step, loss, norm = self.failure.tolist()
        if step:
            raise DivergedError(
                f"training diverged at step {step:.0f}: the loss is {loss:.4g} and the gradient "
                f"norm {norm:.4g}; the weights were not changed. Lower `learning_rate` (now "
                f"{self.config.learning_rate:g}), or check the photos"
            )


def learning_rate(config: TrainingConfig, step: int, anchor: Anchor | None = None) -> float:
    """Learning rate of step `step` (from 0): linear warm-up, then half a cosine, or halvings; all
    times the factors of `rate_changes`.
    """
    factor = config.rate_changes.factor(run_done(config, step, anchor))
    return factor * _scheduled_rate(config, step, anchor)


def _scheduled_rate(config: TrainingConfig, step: int, anchor: Anchor | None) -> float:
    warmup = _warmup(config)
    if step < warmup and anchor is None:
        return config.learning_rate * (step + 1) / warmup
    done = schedule_done(config, step, anchor)
    if config.schedule == "cosine":
        return config.learning_rate * (1 + math.cos(math.pi * done)) / 2
    if config.decay_steps is None and anchor is not None:
        return float(config.learning_rate * 0.5 ** int(5 * done))
    halving = config.decay_steps or max(config.steps // 5, 1)
    return float(config.learning_rate * 0.5 ** (step // halving))


def run_done(config: TrainingConfig, step: int, anchor: Anchor | None = None) -> float:
    """Share of the run that is done before step `step`."""
    first, _, done = anchor or (0, 0.0, 0.0)
    return done + (1 - done) * (step - first) / max(config.steps - first, 1)


def schedule_done(config: TrainingConfig, step: int, anchor: Anchor | None = None) -> float:
    """Share of the schedule after warm-up that is done before step `step`."""
    first, done, _ = anchor or (_warmup(config), 0.0, 0.0)
    return done + (1 - done) * (step - first) / max(config.steps - first, 1)


def _warmup(config: TrainingConfig) -> int:
    return min(config.warmup_steps, config.steps // 10)


def train_step(state: TrainingState, batch: Batch, world_size: int = 1) -> Tensor:
    """Forward, backward, update; returns this rank's share of the mean loss, on the device.

    The shares of all ranks sum to the mean over the batch. The gradient is that of this mean,
    whatever the number of ranks and micro-batches. A gradient that is not finite changes no weight:
    the next `state.check` raises DivergedError. On a CPU, where it needs no synchronisation, the
    check runs in every step. Under DDP all ranks have the same gradient and stop at the same step.
    """
    config = state.config
    rate = learning_rate(config, state.step, state.anchor)
    networks = [state.denoiser] + ([state.adversary] if state.adversary else [])
    for trained in networks:
        trained.optimizer.zero_grad(set_to_none=True)
    if state.adversary is not None:
        state.adversary.network.update_spectral_norms()  # type: ignore[operator]
    micro_batches = batch.parts(config.micro_batches(world_size))
    losses = [
        _accumulate(state, part, world_size, last=part is micro_batches[-1])
        for part in micro_batches
    ]
    loss = torch.stack(losses).sum()
    norms = [trained.gradient_norm() for trained in networks]
    finite = torch.isfinite(torch.stack([loss, *norms])).all()
    _record_failure(state, finite, loss, norms[0])
    if state.execution.device.type == "cpu":
        state.check()
    for trained, norm in zip(networks, norms, strict=True):
        # A gradient whose norm exceeds gradient_clip is scaled down to it.
        trained.update(rate, (norm / config.gradient_clip).clamp(min=1), state.failure[0] > 0)
    state.step += 1
    state.ema.update(state.denoiser.network, state.step, config.average_decay)
    return loss


def _accumulate(state: TrainingState, part: Batch, world_size: int, *, last: bool) -> Tensor:
    """Accumulate the gradient of one micro-batch; returns its share of the batch's loss."""
    config, adversary = state.config, state.adversary
    share = len(part) / config.batch_size
    with state.denoiser.gradient_sync(enabled=last):
        with state.execution.autocast():
            output = state.denoiser.forward(part.noisy).float()
        loss = LOSS_FUNCTIONS[config.loss](output, _target(state, part))
        total = loss
        if adversary is not None:
            with _frozen(adversary.network), state.execution.autocast():
                total = loss + config.adversarial * generator_loss(
                    adversary.network(output).float()
                )
        # DDP averages over ranks; multiplied by world_size this is the sum of the shares.
        (total * (share * world_size)).backward()  # type: ignore[no-untyped-call]
    if adversary is not None:
        with adversary.gradient_sync(enabled=last):
            with state.execution.autocast():
                logits = adversary.forward(torch.cat([part.clean, output.detach()])).float()
            adversary_loss = discriminator_loss(*logits.chunk(2))
            (adversary_loss * (share * world_size)).backward()  # type: ignore[no-untyped-call]
    return loss.detach() * share


def _target(state: TrainingState, part: Batch) -> Tensor:
    """The clean patches, or their weighted mean with the teacher's outputs."""
    if state.teacher is None:
        return part.clean
    assert part.teacher_weight is not None, "the loader weighs the teacher's outputs"
    return torch.lerp(part.clean, state.teacher(part.noisy), part.teacher_weight)


def _record_failure(state: TrainingState, finite: Tensor, loss: Tensor, norm: Tensor) -> None:
    """Record the first failure on the device, without a synchronisation."""
    now = torch.stack([torch.full_like(loss, state.step + 1), loss, norm])
    state.failure = torch.where(finite | (state.failure[0] > 0), state.failure, now)


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Context in which the network's parameters accumulate no gradient, but its inputs do."""
    network.requires_grad_(requires_grad=False)
    try:
        yield
    finally:
        network.requires_grad_(requires_grad=True)
