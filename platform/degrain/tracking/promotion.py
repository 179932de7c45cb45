"""Promotion: which version holds which alias.

`best-psnr` and `best-ssim` point to the best model by each metric, `champion` to the best by the
metric that mlflow.yaml configures. All scores come from one comparison: challengers and holders on
the same whole test photos by the same protocol. An alias moves only to a model that beats the
baselines on both metrics and the current holder on the alias's metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from degrain.imaging.metrics import Score
from degrain.tracking.config import TrackingConfig

ALIASES = ("best-psnr", "best-ssim", "champion")


@dataclass(frozen=True)
class Scored:
    """A registered version and its score in the comparison."""

    version: str
    score: Score


@dataclass(frozen=True)
class Decision:
    """The decision on one alias."""

    alias: str
    version: str | None
    """The version that holds the alias after the decision, or None."""
    moved: bool
    reason: str


def metric_of(alias: str, config: TrackingConfig) -> str:
    """The metric that an alias follows: `psnr` or `ssim`."""
    return config.champion if alias == "champion" else alias.removeprefix("best-")


def decide(
    challengers: Sequence[Scored],
    present: Mapping[str, Scored],
    baselines: Mapping[str, Score],
    config: TrackingConfig,
) -> list[Decision]:
    """Decide every alias.

    `present` maps aliases to their current holders, `baselines` maps baselines to scores.
    """
    eligible = [
        c for c in challengers if _beats_baselines(c.score, baselines, config.promotion.must_beat)
    ]
    return [_decide_alias(alias, eligible, present.get(alias), config) for alias in ALIASES]


def _decide_alias(
    alias: str, eligible: Sequence[Scored], holder: Scored | None, config: TrackingConfig
) -> Decision:
    metric = metric_of(alias, config)
    kept = holder.version if holder else None
    if not eligible:
        return Decision(
            alias, kept, False, f"no new model beats {' and '.join(config.promotion.must_beat)}"
        )
    best = max(eligible, key=lambda c: getattr(c.score, metric))
    value = getattr(best.score, metric)
    unit = " dB" if metric == "psnr" else ""
    if holder is None:
        return Decision(
            alias, best.version, True, f"{metric} {value:.4g}{unit}, the alias had no holder"
        )
    least = {
        "psnr": config.promotion.min_psnr_improvement_db,
        "ssim": config.promotion.min_ssim_improvement,
    }[metric]
    before = getattr(holder.score, metric)
    scores = f"{metric} {value:.5g}{unit} against {before:.5g}{unit} of version {holder.version}"
    if value > before and value - before >= least:
        return Decision(alias, best.version, True, scores)
    required = f"; an improvement of {least:g}{unit} is required" if value > before else ""
    return Decision(alias, kept, False, scores + required)


def _beats_baselines(score: Score, baselines: Mapping[str, Score], names: Sequence[str]) -> bool:
    return all(score.psnr > baselines[n].psnr and score.ssim > baselines[n].ssim for n in names)
