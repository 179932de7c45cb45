"""A small training run for the unit tests."""

import torch
from torch import Tensor
from unit.support import smooth_patches

from degrain.training.config import TrainingConfig
from degrain.training.loop import make_loader
from degrain.training.session import LocalSession
from degrain.training.step import TrainingState, train_step

CPU = torch.device("cpu")


CONFIG = TrainingConfig(
    model="red10",
    arguments={"width": 4},
    steps=12,
    batch_size=4,
    crop=16,
    precision="float32",
    validate_every=5,
    validation_patches=8,
)


def session(validation_patches: int = 5, deviation: float = 15) -> LocalSession:
    return LocalSession(
        smooth_patches(7, 20, 0, deviation), smooth_patches(validation_patches, 20, 1, deviation)
    )


class OneOfMany(LocalSession):
    """One of several workers; records the values that it would sum over them."""

    def __init__(self, rank: int, world_size: int, validation_patches: int) -> None:
        shared = session(validation_patches)
        super().__init__(shared.train, shared.val)
        self.rank, self.world_size = rank, world_size
        self.sums: list[Tensor] = []

    def sum(self, values: Tensor) -> Tensor:
        self.sums.append(values)
        return values


def losses(config: TrainingConfig, steps: int) -> list[float]:
    state = TrainingState.create(config, CPU)
    loader = make_loader(config, session())
    return [train_step(state, loader.batch(step)).item() for step in range(steps)]


def snapshot(state: TrainingState) -> list[Tensor]:
    moments = [
        t for per in state.denoiser.optimizer.state_dict()["state"].values() for t in per.values()
    ]
    return [
        t.clone()
        for t in (*state.denoiser.network.parameters(), *state.ema.network.parameters(), *moments)
    ]
