"""The one training loop; where it runs is the session's affair."""

import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from degrain.data.loader import Batch, BatchLoader, BatchPlan, Patches
from degrain.data.order import Order, Permuted, Windowed
from degrain.data.spread import spread
from degrain.data.streamed import StreamedPatches
from degrain.errors import JobFailedError, UserError
from degrain.imaging.metrics import Score, psnr, ssim, to_eight_bits, to_float
from degrain.imaging.tiling import pad_to_contract
from degrain.training.checkpoint import restore, take_snapshot
from degrain.training.config import TrainingConfig
from degrain.training.session import Session
from degrain.training.step import TrainingState, learning_rate, train_step
from denoisenets import model_contract

_VALIDATION_BATCH = 8
_SAMPLES = 4
_HIGHEST_PSNR = 100.0


def train(config: TrainingConfig, session: Session) -> TrainingState:
    """Train to the last step, or until patience ends, validating and saving on the way; gives the final state.

    Raises UserError for a configuration that does not fit patches, workers or checkpoint, DivergedError for a loss that is
    not finite, JobFailedError if the GPU's memory is too small or the last checkpoint cannot be kept.
    """
    loader = make_loader(config, session)
    state = begin(config, session)
    try:
        _train(state, session, loader)
    except torch.OutOfMemoryError:
        at_once = -(-config.batch_size // session.world_size // config.parts(session.world_size))
        raise JobFailedError(
            f"the GPU has no room to train {config.model} on {at_once} crops of {loader.plan.crop} pixels at once; set "
            f"--micro-batch to {max(at_once // 2, 1)} or less, which changes nothing else, or lower --crop"
        ) from None
    session.finish()
    return state


def _train(state: TrainingState, session: Session, loader: BatchLoader) -> None:
    config = state.config
    pace = Pace(state.step)
    for batch in pace.timed(loader.batches(state.step, config.steps)):
        if state.done:
            break
        pace.loss(train_step(state, batch, session.world_size))
        validates = state.step % config.validate_every == 0 or state.step == config.steps
        if validates or state.step % config.progress_steps == 0:
            progress = measure(state, session, pace)
            session.progress(progress)
        if validates:
            report(state, session, progress)
            pace.restart(state.step)
        if session.rank == 0 and session.must_go():
            state.check()
            session.rescue(take_snapshot(state))


def begin(config: TrainingConfig, session: Session) -> TrainingState:
    """The state that training goes on from: random or given weights, or those of the checkpoint."""
    state = TrainingState.create(config, session.device)
    if (snapshot := session.restored()) is not None:
        restore(state, snapshot)
    elif session.start is not None:
        for network in (state.denoiser.network, state.ema.network):
            network.load_state_dict(dict(session.start))
    state.spread(session.replicate)
    return state


def make_loader(config: TrainingConfig, session: Session) -> BatchLoader:
    """This rank's batches. Raises UserError if the configuration does not fit the patches or the workers."""
    if config.batch_size < session.world_size:
        raise UserError(
            f"a batch of {config.batch_size} leaves some of {session.world_size} workers without a patch; raise "
            "--batch-size or lower --workers"
        )
    if config.batch_size > len(session.train):
        raise UserError(
            f"the train split has {len(session.train)} patches, fewer than a batch of {config.batch_size}; lower "
            "--batch-size or ingest more photos"
        )
    try:
        crop = config.crop_of(session.train.side)
    except ValueError as error:
        raise UserError(str(error)) from None
    plan = BatchPlan(
        seed=config.seed,
        order=_order(config, session.train),
        side=session.train.side,
        batch_size=config.batch_size,
        crop=crop,
    )
    return BatchLoader(
        session.train,
        plan,
        rank=session.rank,
        world_size=session.world_size,
        device=session.device,
        fresh_noise=config.noise == "fresh",
    )


def _order(config: TrainingConfig, patches: Patches) -> Order:
    weights = patches.notes.weights if config.mix == "even" and patches.notes else None
    if isinstance(patches, StreamedPatches):
        return Windowed(seed=config.seed, shards=patches.shards, window=patches.window, weights=weights)
    return Permuted(seed=config.seed, patches=len(patches), weights=weights)


def measure(state: TrainingState, session: Session, pace: "Pace") -> dict[str, float]:
    """What a user watches, over the steps since the last time, of all workers together. Raises DivergedError.

    Of memory, it is that of the worker that takes most; of all else, the mean.
    """
    state.check()
    loss, seconds, waited, steps = pace.interval(state.step)
    usage = session.usage()
    shares = torch.zeros(session.world_size, 1 + len(usage), dtype=torch.float64)
    shares[session.rank] = torch.tensor([waited / seconds, *usage.values()], dtype=torch.float64)
    totals = session.sum(torch.cat([torch.tensor([loss], dtype=torch.float64), shares.flatten()]))
    waits, *used = totals[1:].view_as(shares).T
    rate = steps / seconds
    return {
        "step": state.step,
        "train_loss": totals[0].item(),
        "learning_rate": learning_rate(state.config, state.step - 1),
        "patches_per_second": rate * state.config.batch_size,
        "data_wait_share": waits.mean().item(),
        "seconds_left": (state.config.steps - state.step) / rate,
        "workers": session.world_size,
        **{
            name: (values.max() if name.endswith("_mib") else values.mean()).item()
            for name, values in zip(usage, used, strict=True)
        },
    }


def report(state: TrainingState, session: Session, progress: dict[str, float]) -> None:
    """Validate, and hand the score, a snapshot and sample crops to the session."""
    score = validate(state, session)
    state.stale = 0 if score.psnr > state.best_psnr else state.stale + 1
    state.best_psnr = max(score.psnr, state.best_psnr)
    metrics = {**progress, "val_psnr": score.psnr, "val_ssim": score.ssim}
    session.report(metrics, lambda: take_snapshot(state, metrics), lambda: samples(state, session))


@torch.inference_mode()
def validate(state: TrainingState, session: Session) -> Score:
    """Score the averaged weights on patches of the val split by `rgb8-patches`, shared out over the workers."""
    chosen = spread(len(session.val), state.config.validation_patches)[session.rank :: session.world_size]
    totals = torch.zeros(3, dtype=torch.float64)
    size = min(state.config.micro_batch or _VALIDATION_BATCH, _VALIDATION_BATCH)
    for start in range(0, len(chosen), size):
        _, rounded, clean = denoised(state, session, chosen[start : start + size])
        # A flat patch that is met exactly has an infinite PSNR, which would outweigh all others.
        sums = [
            psnr(rounded, clean).clamp(max=_HIGHEST_PSNR).sum(),
            ssim(rounded, clean).sum(),
            torch.tensor(len(clean), dtype=torch.float64),
        ]
        totals += torch.stack([value.cpu() for value in sums])
    sum_psnr, sum_ssim, count = session.sum(totals).tolist()
    return Score(sum_psnr / count, sum_ssim / count)


@torch.inference_mode()
def samples(state: TrainingState, session: Session) -> bytes:
    """A few patches of the val split as a PNG: a row each of noisy, denoised and clean."""
    from degrain.imaging.codecs import encode_png

    shown = denoised(state, session, spread(len(session.val), _SAMPLES))
    rows = torch.cat([image.permute(0, 2, 3, 1) for image in shown], dim=2)
    return encode_png(rows.reshape(-1, *rows.shape[2:]).cpu().numpy())


def denoised(state: TrainingState, session: Session, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy patches of the val split, what the averaged weights make of them, and clean ones: (B, 3, P, P) uint8 each."""
    size = model_contract(state.config.model, **state.config.arguments).size
    noisy, clean = (to_float(pixels) for pixels in stack(session.val, indices, session.device))
    height, width = noisy.shape[-2:]
    with state.execution.autocast():
        output = state.ema.network(pad_to_contract(noisy, size))[..., :height, :width]
    return to_eight_bits(noisy), to_eight_bits(output), to_eight_bits(clean)


def stack(patches: Patches, indices: list[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy and clean patches, each (B, 3, P, P) uint8 or uint16 on the device."""
    pairs = [patches[i] for i in indices]
    noisy, clean = (torch.from_numpy(np.stack([p[k] for p in pairs])).to(device).permute(0, 3, 1, 2) for k in (0, 1))
    return noisy, clean


class Pace:
    """The loss and the time of the steps since the last interval; the loss stays on the device."""

    def __init__(self, step: int) -> None:
        self.restart(step)

    def restart(self, step: int) -> None:
        """Begin a new interval at `step`."""
        self._step = step
        self._began = time.perf_counter()
        self._waited = 0.0
        self._losses: list[torch.Tensor] = []

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; waiting for them counts."""
        coming = iter(batches)
        while True:
            began = time.perf_counter()
            batch = next(coming, None)
            self._waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def loss(self, value: torch.Tensor) -> None:
        """Keep the loss of one step."""
        self._losses.append(value)

    def interval(self, step: int) -> tuple[float, float, float, int]:
        """Of the interval that ends here: mean loss, seconds, those of them spent waiting for data, and steps."""
        loss = torch.stack(self._losses).mean(dtype=torch.float64).item()
        measured = (loss, time.perf_counter() - self._began, self._waited, step - self._step)
        self.restart(step)
        return measured
