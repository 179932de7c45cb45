"""Which version of the registered model gets which alias after an evaluation.

    best-psnr, best-ssim   the best mean of each metric
    fastest-within         the fastest within `fastest_within_db` of the best PSNR
    champion               the best by the metric that mlflow.yaml names that passes all gates
    challenger             the best new version that did not become champion
    previous               the champion before; `degrain rollback` returns to it

All candidates must beat the baselines and must not have seen a test photo. The first three aliases
are facts of the evaluation; `champion`, which ships, has the gates of `gates.py` before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from degrain.evaluation.scores import DenoiserScores, Evaluation
from degrain.inference.config import STARTER
from degrain.registry.gates import UNITS, Check, Contest, check_gates
from degrain.tracking.config import Metric, TrackingConfig

ALIASES = ("best-psnr", "best-ssim", "fastest-within", "champion")
CHALLENGER, PREVIOUS = "challenger", "previous"
_CLEARLY_FASTER = 0.9
"""Share of the holder's time below which another model is clearly faster; measured times vary."""


@dataclass(frozen=True)
class Decision:
    """The decision on one alias."""

    alias: str
    version: str | None
    """The version that holds the alias after the decision, or None."""
    moved: bool
    reason: str
    checks: Mapping[str, Sequence[Check]] = field(default_factory=dict)
    """Outcomes of the gates by version, of the alias `champion`."""

    @property
    def passed(self) -> list[str]:
        """Versions that passed all gates."""
        return [v for v, checks in self.checks.items() if all(c.passed for c in checks)]


@dataclass(frozen=True)
class Entrants:
    """New versions, and those that hold aliases now."""

    candidates: Mapping[str, str]
    """Version to its name in the evaluation."""
    holders: Mapping[str, str]
    """Alias to version."""
    names: Mapping[str, str]
    """Holding version to its name in the evaluation; without those whose files are lost."""

    def holder(self, alias: str) -> str | None:
        """The version that holds an alias."""
        return self.holders.get(alias)


def decide(evaluation: Evaluation, entrants: Entrants, config: TrackingConfig) -> list[Decision]:
    """Decide every alias of ALIASES. Raises KeyError if a version, or the starter where it is the
    champion, was not scored.
    """
    champion = _champion_row(evaluation, entrants, config)
    checks = {
        version: check_gates(
            Contest(
                evaluation,
                evaluation.of(name),
                champion,
                config.promotion,
                config.champion,
                candidates=len(entrants.candidates),
            )
        )
        for version, name in entrants.candidates.items()
    }
    scored = {v: evaluation.of(n) for v, n in entrants.candidates.items() if _allowed(checks[v])}
    held = {v: evaluation.of(n) for v, n in entrants.names.items()}
    return [
        _best("best-psnr", "psnr", scored, held, entrants, config),
        _best("best-ssim", "ssim", scored, held, entrants, config),
        _fastest(scored, held, entrants, config),
        _champion(evaluation, checks, entrants, config),
    ]


def _champion_row(
    evaluation: Evaluation, entrants: Entrants, config: TrackingConfig
) -> DenoiserScores | None:
    """What a new champion must be better than: the starter where there is no champion, or none
    that can be read any more.
    """
    version = entrants.holder("champion")
    if version is not None and version in entrants.names:
        return evaluation.of(entrants.names[version])
    return evaluation.of(STARTER) if config.promotion.beat_starter else None


def _allowed(checks: Sequence[Check]) -> bool:
    """Whether a version may hold an alias at all."""
    return all(c.passed for c in checks if c.gate in ("unseen photos", "floor"))


def _nobody(alias: str, kept: str | None, config: TrackingConfig) -> Decision:
    floor = " and ".join(config.promotion.must_beat)
    return Decision(alias, kept, False, f"no new model beats {floor} on photos it has not seen")


def _best(
    alias: str,
    metric: Metric,
    scored: Mapping[str, DenoiserScores],
    held: Mapping[str, DenoiserScores],
    entrants: Entrants,
    config: TrackingConfig,
) -> Decision:
    holder = entrants.holder(alias)
    if not scored:
        return _nobody(alias, holder, config)
    best = max(scored, key=lambda v: getattr(scored[v].mean, metric))
    value = getattr(scored[best].mean, metric)
    text = f"{metric} {value:.5g}{UNITS[metric]}"
    if holder is None:
        return Decision(alias, best, True, f"{text}, the first to hold the alias")
    if holder not in held:
        return Decision(alias, best, True, f"{text}; the files of version {holder} are lost")
    before = getattr(held[holder].mean, metric)
    text += f" against {before:.5g}{UNITS[metric]} of version {holder}"
    return Decision(alias, best if value > before else holder, value > before, text)


def _fastest(
    scored: Mapping[str, DenoiserScores],
    held: Mapping[str, DenoiserScores],
    entrants: Entrants,
    config: TrackingConfig,
) -> Decision:
    alias = "fastest-within"
    holder = entrants.holder(alias)
    everyone = {**held, **scored}
    if not everyone:
        return _nobody(alias, holder, config)
    best = max(d.mean.psnr for d in everyone.values())
    within = config.promotion.fastest_within_db
    close = {v: d for v, d in everyone.items() if d.mean.psnr >= best - within}
    fastest = min(close, key=lambda v: close[v].seconds_per_megapixel)
    seconds = close[fastest].seconds_per_megapixel
    if holder in close and seconds >= _CLEARLY_FASTER * close[holder].seconds_per_megapixel:
        fastest, seconds = holder, close[holder].seconds_per_megapixel
    psnr = close[fastest].mean.psnr
    text = f"{seconds:.3g} s per megapixel, {psnr:.2f} dB; the best has {best:.2f} dB"
    return Decision(alias, fastest, fastest != holder, text)


def _champion(
    evaluation: Evaluation,
    checks: Mapping[str, Sequence[Check]],
    entrants: Entrants,
    config: TrackingConfig,
) -> Decision:
    holder = entrants.holder("champion")
    if not checks:
        return Decision("champion", holder, False, "there is no new model")

    def score(version: str) -> float:
        mean = evaluation.of(entrants.candidates[version]).mean
        return mean.psnr if config.champion == "psnr" else mean.ssim

    passed = [v for v, found in checks.items() if all(c.passed for c in found)]
    if passed:
        best = max(passed, key=score)
        reason = next(c.text for c in checks[best] if c.gate == "gain")
        return Decision("champion", best, True, reason, checks)
    best = max(checks, key=score)
    failed = [f"{c.gate}: {c.text}" for c in checks[best] if not c.passed]
    return Decision("champion", holder, False, f"version {best}: {'; '.join(failed)}", checks)


def champion_of(decisions: Sequence[Decision]) -> Decision:
    """The decision on the alias `champion`."""
    return next(d for d in decisions if d.alias == "champion")


def with_check(champion: Decision, check: Check, before: str | None) -> Decision:
    """The decision on `champion` after one more gate of the version that it moves to; `before` is
    the version that keeps the alias if the gate fails.
    """
    assert champion.version is not None
    checks = {**champion.checks, champion.version: [*champion.checks[champion.version], check]}
    if check.passed:
        return Decision("champion", champion.version, True, champion.reason, checks)
    reason = f"version {champion.version}: {check.gate}: {check.text}"
    return Decision("champion", before, False, reason, checks)
