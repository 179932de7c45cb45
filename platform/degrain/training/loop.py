"""The training loop; a `Session` connects it to the process or cluster it runs on."""

import math
from dataclasses import replace

import torch

from degrain.errors import OutOfMemoryError, UserError
from degrain.loading.batches import BatchLoader, BatchPlan
from degrain.training.budget import Pace, adjust_steps, with_planned_steps
from degrain.training.checkpoint import restore, take_snapshot
from degrain.training.config import TrainingConfig
from degrain.training.session import Session
from degrain.training.step import TrainingState, learning_rate, train_step
from degrain.training.step_timer import StepTimer
from degrain.training.validation import sample_crops, validate

_EARLY_STEP = 10


def train(config: TrainingConfig, session: Session) -> TrainingState:
    """Train to the last step, or until `patience` is exhausted, with validations and checkpoints.

    Returns the final state. Raises UserError for a configuration that does not match patches,
    workers or checkpoint, DivergedError for a loss that is not finite, OutOfMemoryError if the
    GPU runs out of memory, JobFailedError if the last checkpoint cannot be written.
    """
    loader = make_loader(config, session)
    state = initial_state(config, session)
    try:
        if config.budget is not None and state.step == 0:
            state.config = with_planned_steps(state, session, loader)
        if session.start is not None and state.best_psnr == -math.inf:
            # The starting weights compete, so that training never ends below them.
            first = {"step": 0, "progress": 0.0, "seconds": 0.0, "workers": session.world_size}
            validate_and_report(state, session, first)
        _train(state, session, loader)
    except torch.OutOfMemoryError:
        share = -(-config.batch_size // session.world_size)
        crops = -(-share // config.micro_batches(session.world_size))
        raise OutOfMemoryError(
            f"the GPU ran out of memory training {config.model} on {crops} crops of "
            f"{loader.plan.crop} pixels; set `micro_batch` to {max(crops // 2, 1)} or less, "
            "which does not change the gradient, or lower `crop`"
        ) from None
    session.finish()
    return state


def _train(state: TrainingState, session: Session, loader: BatchLoader) -> None:
    timer, pace = StepTimer(state.step, state.seconds), Pace(state.step)
    for batch in timer.timed(loader.batches(state.step, state.config.steps_at_most)):
        if state.done:
            break
        timer.loss(train_step(state, batch, session.world_size))
        config = state.config
        validates = state.step % config.validation_interval == 0 or state.step == config.steps
        if validates or state.step % config.log_interval == 0 or _is_early(state):
            progress = measure(state, session, timer)
            session.progress(progress)
        if validates:
            pace.end_steps(state.step)
            validate_and_report(state, session, progress)
            if config.budget is not None and not state.done:
                adjust_steps(state, session, pace)
            pace = Pace(state.step)
            timer.restart(state.step)
        if session.rank == 0 and session.preempted():
            state.check()
            session.save_checkpoint_now(take_snapshot(state))


def _is_early(state: TrainingState) -> bool:
    """Whether a line of progress is due out of turn: the first would take minutes on a CPU."""
    return state.step == _EARLY_STEP and state.config.log_every is None


def initial_state(config: TrainingConfig, session: Session) -> TrainingState:
    """Create the initial state: from a checkpoint, the session's weights, or random weights."""
    snapshot = session.restored()
    if snapshot is not None and config.budget is not None:
        # These were planned when the run began.
        planned = ("steps", "validate_every", "compiled")
        config = replace(config, **{name: snapshot["config"][name] for name in planned})
        session.planned(config.steps)
    state = TrainingState.create(config, session.device)
    if session.teacher is not None:
        state.teacher = session.teacher.on(session.device, config)
    if snapshot is not None:
        restore(state, snapshot)
    elif session.start is not None:
        for network in (state.denoiser.network, state.ema.network):
            network.load_state_dict(dict(session.start))
    state.wrap_ddp(session.wrap_ddp)
    return state


def make_loader(config: TrainingConfig, session: Session) -> BatchLoader:
    """Create the loader of this rank's batches.

    Raises UserError if the configuration does not match the patches or the workers.
    """
    if config.batch_size < session.world_size:
        raise UserError(
            f"a batch of {config.batch_size} leaves some of {session.world_size} workers without a "
            "patch; raise `batch_size` or lower `workers`"
        )
    if config.batch_size > len(session.train):
        raise UserError(
            f"the train split has {len(session.train)} patches, fewer than a batch of "
            f"{config.batch_size}; lower `batch_size` or ingest more photos"
        )
    try:
        crop = config.crop_of(session.train.side)
    except ValueError as error:
        raise UserError(str(error)) from None
    plan = BatchPlan(
        seed=config.seed,
        order=session.train.order(config.seed, balance=config.balance),
        side=session.train.side,
        batch_size=config.batch_size,
        crop=crop,
        synthetic_share=config.synthetic_share,
        clean_share=config.clean_share,
        teacher_share=None if session.teacher is None else config.teacher_share,
    )
    return BatchLoader(
        session.train,
        plan,
        rank=session.rank,
        world_size=session.world_size,
        device=session.device,
        on_the_fly_noise=config.noise == "on-the-fly",
    )


def measure(state: TrainingState, session: Session, timer: StepTimer) -> dict[str, float]:
    """Compute the metrics of the steps since the last interval, over all workers.

    Memory is the maximum over workers, all else the mean. Raises DivergedError.
    """
    state.check()
    loss, seconds, waited, steps = timer.interval(state.step)
    state.seconds = timer.seconds
    usage = session.usage()
    shares = torch.zeros(session.world_size, 1 + len(usage), dtype=torch.float64)
    shares[session.rank] = torch.tensor([waited / seconds, *usage.values()], dtype=torch.float64)
    totals = session.sum(torch.cat([torch.tensor([loss], dtype=torch.float64), shares.flatten()]))
    waits, *used = totals[1:].view_as(shares).T
    rate = steps / seconds
    return {
        "step": state.step,
        "progress": 100 * state.progress,
        "seconds": state.seconds,
        "train_loss": totals[0].item(),
        "learning_rate": learning_rate(state.config, state.step - 1, state.anchor),
        "patches_per_second": rate * state.config.batch_size,
        "data_wait_share": waits.mean().item(),
        "seconds_left": (state.config.steps - state.step) / rate,
        "workers": session.world_size,
        **{
            name: (values.max() if name.endswith("_mib") else values.mean()).item()
            for name, values in zip(usage, used, strict=True)
        },
    }


def validate_and_report(state: TrainingState, session: Session, progress: dict[str, float]) -> None:
    """Validate, and report the score, a snapshot and sample crops to the session."""
    score = validate(state, session)
    improved = score.psnr > state.best_psnr
    state.validations_since_best = 0 if improved else state.validations_since_best + 1
    state.best_psnr = max(score.psnr, state.best_psnr)
    metrics = {**progress, "val_psnr": score.psnr, "val_ssim": score.ssim}
    session.report(
        metrics, lambda: take_snapshot(state, metrics), lambda: sample_crops(state, session)
    )
