"""One optimizer step, and the state it acts on."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from degrain.data.loader import Batch
from degrain.errors import JobFailedError
from degrain.imaging.execution import Execution, choose_execution
from degrain.training.config import TrainingConfig
from degrain.training.ema import WeightAverage
from degrain.training.losses import LOSS_FUNCTIONS
from denoisenets import create_model


class DivergedError(JobFailedError):
    """The loss or the gradient became NaN or infinite; the weights are those of the step before."""


@dataclass
class TrainingState:
    """What a step changes, and what a checkpoint holds."""

    config: TrainingConfig
    execution: Execution
    network: nn.Module
    """The bare network."""
    replica: Callable[[Tensor], Tensor]
    """What the forward pass goes through: the network itself, DistributedDataParallel around it, or that compiled."""
    ema: WeightAverage
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Optimizer steps done."""

    @classmethod
    def create(cls, config: TrainingConfig, device: torch.device) -> "TrainingState":
        """A network with seeded random weights on `device`, and its optimizer."""
        execution = choose_execution(device, config.precision, config.compiled)
        torch.manual_seed(config.seed)
        network = execution.place(create_model(config.model, **config.arguments))
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        optimizer = kind(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        replica = execution.compile(network)
        return cls(config, execution, network, replica, WeightAverage(network, config.ema_decay), optimizer)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The learning rate of step `step` (from 0): a linear rise, then half a cosine down to zero."""
    warmup = min(config.warmup_steps, config.steps // 10)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(config.steps - warmup, 1)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


def train_step(state: TrainingState, batch: Batch) -> Tensor:
    """Forward, backward, update; gives the loss, a scalar on the device: the mean over this rank's patches.

    Raises DivergedError, before any weight changes, if the loss or the gradient is not finite. Under DDP the gradient is the
    mean over ranks when it is checked, so that all ranks raise together.
    """
    config, step = state.config, state.step
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    with state.execution.autocast():
        output = state.replica(batch.noisy)
    loss = LOSS_FUNCTIONS[config.loss](output.float(), batch.clean)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), config.gradient_clip)
    if not bool(torch.isfinite(norm) & torch.isfinite(loss)):
        raise DivergedError(
            f"training diverged at step {step + 1}: the loss is {loss.item():.4g} and the gradient's norm "
            f"{norm.item():.4g}; the weights were not changed. Lower the learning rate (now "
            f"{config.learning_rate:g}), or check the photos"
        )
    state.optimizer.step()
    state.step += 1
    state.ema.update(state.network, state.step)
    return loss.detach()
