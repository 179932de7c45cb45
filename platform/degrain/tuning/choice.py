"""Which trials of a study are refitted."""

from collections.abc import Callable, Sequence

from degrain.tuning.config import StudyConfig
from degrain.tuning.suggest import METRICS, pareto_front
from degrain.tuning.trial import Trial

LARGEST_LOSS_DB = 1.0
"""PSNR that the fastest refitted network may lose to the best one on the val split."""


def chosen_trials(
    trials: Sequence[Trial], config: StudyConfig, log: Callable[[str], None]
) -> dict[str, Trial]:
    """Return the trials to refit by name: the best of each network, by val PSNR or SSIM.

    By PSNR and speed, they are the ends of the Pareto front over all networks: the best, and the
    fastest that loses at most LARGEST_LOSS_DB.
    """
    usable = [trial for trial in trials if trial.usable]
    if config.objective == "psnr+speed":
        return _ends(front_of(trials), log)
    (metric,) = METRICS[config.objective]
    chosen: dict[str, Trial] = {}
    for model in config.tuned:
        own = [trial for trial in usable if trial.draw.model == model]
        if own:
            chosen[model] = max(own, key=lambda trial: trial.best[metric])
        else:
            log(f"refit: skipping {model}, all its trials failed")
    return chosen


def front_of(trials: Sequence[Trial]) -> list[Trial]:
    """Return the Pareto front of val PSNR and seconds per megapixel, the best PSNR first; empty
    where speeds were not measured.
    """
    psnr, speed = METRICS["psnr+speed"]
    usable = [t for t in trials if t.usable and speed in t.best]
    keys = pareto_front({i: (t.best[psnr], t.best[speed]) for i, t in enumerate(usable)})
    return [usable[key] for key in keys]


def _ends(front: Sequence[Trial], log: Callable[[str], None]) -> dict[str, Trial]:
    log("Pareto front of val PSNR and speed:")
    for trial in front:
        seconds = trial.best["seconds_per_megapixel"]
        log(f"  {trial.name:<24} {trial.best['val_psnr']:.2f} dB  {seconds:.3f} s per megapixel")
    best = front[0]
    fastest = [t for t in front if best.best["val_psnr"] - t.best["val_psnr"] <= LARGEST_LOSS_DB][
        -1
    ]
    if fastest is best:
        return {best.draw.model: best}
    same = fastest.draw.model == best.draw.model
    name = f"{fastest.draw.model}-fastest" if same else fastest.draw.model
    return {best.draw.model: best, name: fastest}
