"""The gates between a new model and the alias `champion`: each one passes or says why not.

All figures come from one evaluation, in which the new model, the champion and the baselines were
scored on the same whole test photos by the same protocol. Several candidates share the probability
of a wrong promotion: each one's interval has the confidence 1 - (1 - confidence) / candidates
(Bonferroni), so that one of many equal models is not promoted for its luck. `gain_rule` tells what
decides where there are too few scenes for an interval.
"""

from collections.abc import Callable
from dataclasses import dataclass

from degrain.evaluation.intervals import FEWEST_SCENES, scene_interval
from degrain.evaluation.scores import DenoiserScores, Evaluation
from degrain.evaluation.slices import slice_losses
from degrain.tracking.config import Metric, PromotionRules, TrackingConfig
from degrain.words import counted

UNITS = {"psnr": " dB", "ssim": ""}
_SLICED_BY = ("camera", "ISO", "scenes")
_CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True)
class Check:
    """The outcome of one gate."""

    gate: str
    passed: bool
    text: str
    """The figure and its bound."""


@dataclass(frozen=True)
class GainRule:
    """What the gain over the champion must show."""

    least: float
    """The mean gain must be above 0 and reach this; the interval of the gain must be above it."""
    confidence: float | None
    """Of that interval; None: the mean counts."""
    most_slice_loss_db: float
    text: str


def gain_rule(scenes: int, rules: PromotionRules, metric: Metric, candidates: int = 1) -> GainRule:
    """The rule for a number of test scenes, and of candidates that share the level."""
    unit, least, loss = UNITS[metric], rules.least_improvement(metric), rules.max_slice_loss_db
    if rules.confidence == 0:
        text = f"the mean must be above 0 and at least {least:g}{unit}"
        return GainRule(least, None, loss, text)
    if scenes >= FEWEST_SCENES:
        confidence = 1 - (1 - rules.confidence) / candidates
        text = f"the {confidence:.4g} interval must be above {least:g}{unit}"
        return GainRule(least, confidence, loss, text)
    least = max(least, rules.least_gain_of_few_scenes(metric))
    text = f"with fewer than {FEWEST_SCENES} test scenes the mean must be at least {least:g}{unit}"
    return GainRule(least, None, 0.0, f"{text}, and no slice worse")


def describe_rule(scenes: int, config: TrackingConfig) -> str:
    """What a model must show to become champion, before there is one to judge."""
    rule = gain_rule(scenes, config.promotion, config.champion)
    return f"{counted(scenes, 'test scene')}; gain over the champion: {rule.text}"


@dataclass(frozen=True)
class Contest:
    """One candidate, the champion if there is one, and what counts between them.

    The champion of an empty registry is the starter, unless `beat_starter` is false.
    """

    evaluation: Evaluation
    candidate: DenoiserScores
    champion: DenoiserScores | None
    rules: PromotionRules
    metric: Metric
    candidates: int = 1
    """Number of candidates of the same decision."""

    @property
    def scenes(self) -> int:
        """Number of test scenes."""
        return len(set(self.evaluation.scenes))

    @property
    def gain_rule(self) -> GainRule:
        """What the gain must show."""
        return gain_rule(self.scenes, self.rules, self.metric, self.candidates)

    @property
    def noisy(self) -> DenoiserScores:
        """The scores of the noisy photos."""
        return self.evaluation.denoisers[0]


def check_gates(contest: Contest) -> list[Check]:
    """The outcome of each gate, all of them also where one fails."""
    return [gate(contest) for gate in GATES]


def _unseen(contest: Contest) -> Check:
    leaked = contest.candidate.leaked
    if leaked:
        text = f"it was trained on {len(leaked)} of the test photos, e.g. {leaked[0]}"
        return Check("unseen photos", False, text)
    if not contest.candidate.origin_known:
        return Check("unseen photos", True, "its training photos are not known")
    return Check("unseen photos", True, "no test photo is among its training photos")


def _floor(contest: Contest) -> Check:
    score = contest.candidate.mean
    below: list[str] = []
    for name in contest.rules.must_beat:
        base = contest.evaluation.of(name).mean
        if not (score.psnr > base.psnr and score.ssim > base.ssim):
            below.append(f"{name} ({base.psnr:.2f} dB, {base.ssim:.3f})")
    own = f"{score.psnr:.2f} dB, {score.ssim:.3f}"
    if below:
        return Check("floor", False, f"{own} does not beat {' and '.join(below)} on both metrics")
    return Check("floor", True, f"{own} beats {' and '.join(contest.rules.must_beat) or 'nothing'}")


def _gain(contest: Contest) -> Check:
    metric, unit, champion = contest.metric, UNITS[contest.metric], contest.champion
    value = getattr(contest.candidate.mean, metric)
    if champion is None:
        return Check("gain", True, f"{metric} {value:.5g}{unit}, there is no champion yet")
    before, rule = getattr(champion.mean, metric), contest.gain_rule
    pairs = zip(contest.candidate.scores, champion.scores, strict=True)
    gains = [getattr(new, metric) - getattr(old, metric) for new, old in pairs]
    found = scene_interval(gains, contest.evaluation.scenes, confidence=rule.confidence or 0.95)
    text = f"{metric} {value:.5g}{unit} against {before:.5g}{unit} of {champion.name}: gain "
    text += f"{found.mean:+.3g}"
    if rule.confidence is None:
        passed = found.mean > 0 and found.mean >= rule.least
    else:
        passed = found.low > rule.least
        text += f", {rule.confidence:.4g} interval from {found.low:+.3g},"
    if passed and value <= before:
        # Each scene counts once in the gain, and each photo in the scores that people see.
        return Check("gain", False, f"{text} over scenes, but none over photos")
    over = counted(contest.scenes, "test scene")
    return Check("gain", passed, f"{text} over {over}; {rule.text}")


def _other_metric(contest: Contest) -> Check:
    other: Metric = "ssim" if contest.metric == "psnr" else "psnr"
    gate = f"no loss of {other.upper()}"
    if contest.champion is None:
        return Check(gate, True, "there is no champion yet")
    loss = getattr(contest.champion.mean, other) - getattr(contest.candidate.mean, other)
    most = contest.rules.most_loss(other)
    text = f"{other} changes by {-loss:+.3g}{UNITS[other]}; {most:g} less is allowed"
    return Check(gate, loss <= most, text)


def _slices(contest: Contest) -> Check:
    if contest.champion is None:
        return Check("slices", True, "there is no champion yet")
    names = contest.champion.name, contest.candidate.name
    losses = slice_losses(contest.evaluation, *names, _SLICED_BY)
    if not losses:
        return Check("slices", True, "no camera and no ISO is known")
    most = contest.gain_rule.most_slice_loss_db
    worst, loss = max(losses, key=lambda found: found[1])
    text = f"{worst.name} ({len(worst.photos)} photos) changes by {-loss:+.2f} dB, the worst of "
    return Check("slices", loss <= most, f"{text}{len(losses)}; {most:g} dB less is allowed")


def _cost(contest: Contest) -> Check:
    own, rules = contest.candidate, contest.rules
    figures = [
        (own.seconds_per_megapixel, rules.max_seconds_per_megapixel, "seconds per megapixel"),
        (own.model_bytes / 1e6, rules.max_model_megabytes, "MB of weights"),
        (own.memory_bytes_per_pixel, rules.max_memory_megabytes, "MB of memory per megapixel"),
    ]
    over = [f"{v:.3g} {what}, over {most:g}" for v, most, what in figures if v > most]
    fine = ", ".join(f"{value:.3g} {what}" for value, _, what in figures)
    return Check("time, size, memory", not over, "; ".join(over) or fine)


def _colour(contest: Contest) -> Check:
    """The colours of a photo must not move further than the champion moves them."""
    reference = contest.champion or contest.noisy
    excess = [
        abs(new) - abs(old)
        for new, old in zip(contest.candidate.colour_shift, reference.colour_shift, strict=True)
    ]
    worst = max(range(3), key=excess.__getitem__)
    most = contest.rules.max_colour_shift
    text = (
        f"{_CHANNELS[worst]} is off by {contest.candidate.colour_shift[worst]:+.2f} of 255 on "
        f"average, with {reference.name} by {reference.colour_shift[worst]:+.2f}; {most:g} more is "
        "allowed"
    )
    return Check("colours", excess[worst] <= most, text)


def _cast(contest: Contest) -> Check:
    """In absolute terms: scores cannot show what pairs of unlike exposures have taught."""
    cast = contest.candidate.colour_cast
    worst = max(range(3), key=lambda channel: abs(cast[channel]))
    most = contest.rules.max_colour_cast
    text = (
        f"{_CHANNELS[worst]} of clean photos with noise changes by {cast[worst]:+.2f} of 255 on "
        f"average; {most:g} is allowed"
    )
    return Check("colour cast", abs(cast[worst]) <= most, text)


def _clean_input(contest: Contest) -> Check:
    worst, least = contest.candidate.worst_clean_psnr, contest.rules.min_clean_psnr_db
    if worst is None:
        return Check("clean photos", least == 0, "not measured")
    text = f"the worst output for a clean photo has {worst:.1f} dB; {least:g} are needed"
    return Check("clean photos", worst >= least, text)


GATES: tuple[Callable[[Contest], Check], ...] = (
    _unseen,
    _floor,
    _gain,
    _other_metric,
    _slices,
    _cost,
    _colour,
    _cast,
    _clean_input,
)
