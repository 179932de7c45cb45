"""The one training loop; where it runs is the session's affair."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from degrain.data.loader import BatchLoader, BatchPlan, Patches
from degrain.errors import UserError
from degrain.imaging.metrics import Score, psnr, ssim, to_eight_bits, to_float
from degrain.imaging.tiling import pad_to_contract
from degrain.training.checkpoint import restore, save_checkpoint
from degrain.training.config import TrainingConfig
from degrain.training.session import Session
from degrain.training.step import TrainingState, learning_rate, train_step
from denoisenets import model_contract

_VALIDATION_BATCH = 8


def train(config: TrainingConfig, session: Session) -> TrainingState:
    """Train to the last step, validating and saving on the way; gives the final state.

    Raises UserError for a batch that the workers cannot share, DivergedError for a loss that is not finite.
    """
    state = TrainingState.create(config, session.device)
    if (checkpoint := session.restored()) is not None:
        restore(state, checkpoint)
    state.replica = state.execution.compile(session.replicate(state.network))
    loader = make_loader(config, session)
    pace = Pace(state.step)
    while state.step < config.steps:
        with pace.waiting():
            batch = loader.batch(state.step)
        pace.loss(train_step(state, batch))
        if state.step % config.validate_every == 0 or state.step == config.steps:
            report(state, session, pace)
    return state


def make_loader(config: TrainingConfig, session: Session) -> BatchLoader:
    """This rank's batches. Raises UserError if the configuration does not fit the patches or the workers."""
    if config.batch_size % session.world_size:
        raise UserError(
            f"a batch of {config.batch_size} cannot be shared evenly by {session.world_size} workers; "
            f"make --batch-size a multiple of {session.world_size}"
        )
    try:
        crop = config.crop_of(session.train.side)
    except ValueError as error:
        raise UserError(str(error)) from None
    plan = BatchPlan(
        seed=config.seed,
        patches=len(session.train),
        side=session.train.side,
        batch_size=config.batch_size,
        crop=crop,
        weights=session.train.weights if config.mix == "even" else None,
    )
    return BatchLoader(session.train, plan, rank=session.rank, world_size=session.world_size, device=session.device)


def report(state: TrainingState, session: Session, pace: "Pace") -> None:
    """Validate, and hand metrics and a checkpoint to the session."""
    loss = pace.mean_loss()
    seconds, waited, steps = pace.interval(state.step)
    score = validate(state, session)
    metrics = {
        "step": state.step,
        "train_loss": (session.sum(loss) / session.world_size).item(),
        "val_psnr": score.psnr,
        "val_ssim": score.ssim,
        "learning_rate": learning_rate(state.config, state.step - 1),
        "patches_per_second": steps * state.config.batch_size / seconds,
        "data_wait_share": waited / seconds,
    }
    session.report(metrics, save_checkpoint(state) if session.rank == 0 else None)
    pace.restart(state.step)


@torch.inference_mode()
def validate(state: TrainingState, session: Session) -> Score:
    """Score the averaged weights on patches of the val split by `rgb8-patches`, shared out over the workers."""
    chosen = spread(len(session.val), state.config.validation_patches)[session.rank :: session.world_size]
    size = model_contract(state.config.model, **state.config.arguments).size
    totals = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(chosen), _VALIDATION_BATCH):
        noisy, clean = stack(session.val, chosen[start : start + _VALIDATION_BATCH], session.device)
        height, width = noisy.shape[-2:]
        with state.execution.autocast():
            output = state.ema.network(pad_to_contract(to_float(noisy), size))
        rounded = to_eight_bits(output[..., :height, :width])
        clean = to_eight_bits(to_float(clean))
        totals += torch.stack(
            [
                psnr(rounded, clean).sum(),
                ssim(rounded, clean).sum(),
                torch.tensor(len(noisy), dtype=torch.float64),
            ]
        ).cpu()
    sum_psnr, sum_ssim, count = session.sum(totals).tolist()
    return Score(sum_psnr / count, sum_ssim / count)


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices 0..count, evenly spread."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, wanted)).tolist()})


def stack(patches: Patches, indices: list[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy and clean patches, each (B, 3, P, P) uint8 or uint16 on the device."""
    pairs = [patches[i] for i in indices]
    noisy, clean = (torch.from_numpy(np.stack([p[k] for p in pairs])).to(device).permute(0, 3, 1, 2) for k in (0, 1))
    return noisy, clean


class Pace:
    """The loss and the time of the steps since the last report; the loss stays on the device."""

    def __init__(self, step: int) -> None:
        self.restart(step)

    def restart(self, step: int) -> None:
        """Begin a new interval at `step`."""
        self._step = step
        self._began = time.perf_counter()
        self._waited = 0.0
        self._losses: list[torch.Tensor] = []

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around waiting for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def loss(self, value: torch.Tensor) -> None:
        """Keep the loss of one step."""
        self._losses.append(value)

    def mean_loss(self) -> torch.Tensor:
        """The mean loss of the interval's steps on this rank, float64 on the CPU."""
        return torch.stack(self._losses).mean(dtype=torch.float64).cpu()

    def interval(self, step: int) -> tuple[float, float, int]:
        """Seconds since the interval began, those spent waiting for data, and the steps done."""
        return time.perf_counter() - self._began, self._waited, step - self._step
