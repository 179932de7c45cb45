"""One optimizer step, and the state it acts on."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from degrain.data.loader import Batch
from degrain.errors import JobFailedError
from degrain.imaging.execution import Execution, choose_execution
from degrain.training.config import TrainingConfig
from degrain.training.ema import WeightAverage
from degrain.training.losses import LOSS_FUNCTIONS, passes_as_clean, tells_apart
from denoisenets import create_model
from denoisenets.discriminator import PatchDiscriminator


class DivergedError(JobFailedError):
    """The loss or the gradient became NaN or infinite; the weights are those of the step before."""


@dataclass
class Learner:
    """A network that is trained, and its optimizer."""

    network: nn.Module
    """The bare network."""
    optimizer: torch.optim.Optimizer
    replica: nn.Module
    """The network, or DistributedDataParallel around it."""
    run: Callable[[Tensor], Tensor]
    """What the forward pass goes through: the replica, or that compiled."""

    @classmethod
    def create(cls, network: nn.Module, config: TrainingConfig) -> "Learner":
        """A network with a fresh optimizer, in this process alone."""
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        optimizer = kind(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        return cls(network, optimizer, network, network)

    def spread(self, replicate: Callable[[nn.Module], nn.Module], execution: Execution) -> None:
        """Send forward passes through `replicate`'s form of the network, compiled if the execution says so."""
        self.replica = replicate(self.network)
        self.run = execution.compile(self.replica)

    def gathering(self, *, last: bool) -> AbstractContextManager[object]:
        """Around the passes of one part of a batch: the workers' gradients are summed once, with the last part."""
        if last or not isinstance(self.replica, DistributedDataParallel):
            return nullcontext()
        return self.replica.no_sync()

    def gradient_norm(self) -> Tensor:
        """The norm of the whole gradient."""
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def update(self, rate: float, scale: Tensor, failed: Tensor) -> None:
        """Move the weights along their gradient over `scale`, unless `failed`.

        Both are looked at by the optimizer's own pass over the gradient, so that neither costs one more, nor a wait for the
        device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.grad_scale = scale  # type: ignore[attr-defined]
        self.optimizer.found_inf = failed.float()  # type: ignore[attr-defined]
        self.optimizer.step()


@dataclass
class TrainingState:
    """What a step changes, and what a checkpoint holds."""

    config: TrainingConfig
    execution: Execution
    denoiser: Learner
    ema: WeightAverage
    adversary: Learner | None
    """The discriminator, in adversarial training."""
    failure: Tensor
    """On the device: the step, from 1, whose loss or gradient was the first that was not finite (0: none), and both."""
    step: int = 0
    """Optimizer steps done."""
    best_psnr: float = -math.inf
    """The best validation so far, dB."""
    stale: int = 0
    """Validations since."""

    @classmethod
    def create(cls, config: TrainingConfig, device: torch.device) -> "TrainingState":
        """A network with seeded random weights on `device`, and its optimizer."""
        execution = choose_execution(device, config.precision, config.compiled)
        torch.manual_seed(config.seed)
        denoiser = Learner.create(execution.place(create_model(config.model, **config.arguments)), config)
        adversary = Learner.create(execution.place(PatchDiscriminator()), config) if config.adversarial else None
        ema = WeightAverage(denoiser.network, config.ema_decay)
        return cls(config, execution, denoiser, ema, adversary, torch.zeros(3, device=device))

    def spread(self, replicate: Callable[[nn.Module], nn.Module]) -> None:
        """Train over several workers: forward passes go through `replicate`'s form of the networks."""
        self.denoiser.spread(replicate, self.execution)
        if self.adversary is not None:
            self.adversary.spread(replicate, self.execution)

    @property
    def done(self) -> bool:
        """Whether the last step is behind, or patience at an end."""
        config = self.config
        return self.step >= config.steps or (config.patience is not None and self.stale >= config.patience)

    def check(self) -> None:
        """Raise DivergedError if a step's loss or gradient was not finite: since then no weight has changed."""
        step, loss, norm = self.failure.tolist()
        if step:
            raise DivergedError(
                f"training diverged at step {step:.0f}: the loss is {loss:.4g} and the gradient's norm {norm:.4g}; the "
                f"weights were not changed. Lower the learning rate (now {self.config.learning_rate:g}), or check the photos"
            )


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The learning rate of step `step` (from 0): a linear rise, then half a cosine down to zero, or halvings."""
    warmup = min(config.warmup_steps, config.steps // 10)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "step":
        return float(config.learning_rate * 0.5 ** (step // (config.decay_steps or max(config.steps // 5, 1))))
    done = (step - warmup) / max(config.steps - warmup, 1)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


def train_step(state: TrainingState, batch: Batch, world_size: int = 1) -> Tensor:
    """Forward, backward, update; gives this rank's part of the loss, on the device: over all ranks they sum up to the mean.

    Whatever the ranks' shares of the batch, and however they are cut into parts, the gradient is that of the mean over the
    whole batch. Weights change by finite gradients alone; `state.check` tells of others, here at once on a CPU, where that
    costs nothing. Under DDP the gradient is that of all ranks when it is checked, so that all stop together where it tells.
    """
    config = state.config
    rate = learning_rate(config, state.step)
    learners = [state.denoiser] + ([state.adversary] if state.adversary else [])
    for learner in learners:
        learner.optimizer.zero_grad(set_to_none=True)
    if state.adversary is not None:
        state.adversary.network.renormalise()  # type: ignore[operator]
    parts = batch.parts(config.parts(world_size))
    losses = [_accumulate(state, part, world_size, last=part is parts[-1]) for part in parts]
    loss = torch.stack(losses).sum()
    norms = [learner.gradient_norm() for learner in learners]
    finite = torch.isfinite(torch.stack([loss, *norms])).all()
    _note_failure(state, finite, loss, norms[0])
    if state.execution.device.type == "cpu":
        state.check()
    for learner, norm in zip(learners, norms, strict=True):
        # A gradient that is longer than the clip is scaled down to it.
        learner.update(rate, (norm / config.gradient_clip).clamp(min=1), state.failure[0] > 0)
    state.step += 1
    state.ema.update(state.denoiser.network, state.step)
    return loss


def _accumulate(state: TrainingState, part: Batch, world_size: int, *, last: bool) -> Tensor:
    """Add the gradient of one part of a batch; gives its share of the batch's loss."""
    config, adversary = state.config, state.adversary
    share = len(part) / config.batch_size
    with state.denoiser.gathering(last=last):
        with state.execution.autocast():
            output = state.denoiser.run(part.noisy).float()
        loss = LOSS_FUNCTIONS[config.loss](output, part.clean)
        total = loss
        if adversary is not None:
            with _frozen(adversary.network), state.execution.autocast():
                total = loss + config.adversarial * passes_as_clean(adversary.network(output).float())
        # DDP takes the mean over ranks: times their number it is the sum of their shares.
        (total * (share * world_size)).backward()  # type: ignore[no-untyped-call]
    if adversary is not None:
        with adversary.gathering(last=last):
            with state.execution.autocast():
                logits = adversary.run(torch.cat([part.clean, output.detach()])).float()
            verdict = tells_apart(*logits.chunk(2))
            (verdict * (share * world_size)).backward()  # type: ignore[no-untyped-call]
    return loss.detach() * share


def _note_failure(state: TrainingState, finite: Tensor, loss: Tensor, norm: Tensor) -> None:
    """Keep the first failure, on the device, so that no step waits for it."""
    now = torch.stack([torch.full_like(loss, state.step + 1), loss, norm])
    state.failure = torch.where(finite | (state.failure[0] > 0), state.failure, now)


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """For the length of a block the network's parameters gather no gradient; what flows through them does."""
    network.requires_grad_(requires_grad=False)
    try:
        yield
    finally:
        network.requires_grad_(requires_grad=True)
