"""Drift: whether new pairs differ from the known ones, and whether the champion does worse on them.

Each trait of a pair (its noise, its exposure, ...) is predicted from its camera and, for some
traits, from its ISO and brightness, by ridge regression over the known pairs; a camera without
known pairs is predicted as the mean camera. Photos of one scene are alike, so the unit is the
scene: the mean residual of the new scenes is compared with the spread of the residuals of known
scenes, each predicted from the others, by Student's t. A trait drifts if such a difference is
unlikely between scenes of one kind (`Trait.significance`, about 5% over all traits together) and
large enough to matter (`Trait.least`).

A camera or a range of ISOs without known pairs is drift by itself. The mix of cameras drifts if it
is farther from the known mix, in total variation, than 99% of random choices of as many scenes.

tests/benchmarks/drift.py measures how often deliveries of the same kind and of other kinds are
flagged.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

FEWEST_SCENES = 5
"""With fewer known scenes nothing is said about a trait."""
_RIDGE = 1.0
"""Penalty of a camera's deviation from the mean camera, and of each slope, in photos."""
_LEAST_MIX, _MIX_SIGNIFICANCE = 0.5, 0.005
"""Total variation between mixes of cameras from which on a difference matters."""
_ISO_FACTOR = 2.0
"""An ISO beyond the known ones by more than this factor is new."""
_SHUFFLES = 999


@dataclass(frozen=True, kw_only=True)
class PairTraits:
    """What is measured on one pair."""

    scene: str
    camera: str
    """`<corpus> <camera>`, or the corpus where the camera is not known."""
    iso: int | None
    noise: float
    """Root mean square of noisy less clean photo, without the means of channels, of 255."""
    correlation: float
    """Correlation of the noise of neighbouring pixels."""
    exposure: float
    """Mean brightness of the clean photo over that of the noisy one."""
    brightness: float
    """Mean of the clean photo, of 255."""
    noisy_psnr: float
    """PSNR of the noisy photo, dB."""
    champion_psnr: float | None = None
    """PSNR of the output of the champion, dB; None if it was trained on the scene."""

    @property
    def corpus(self) -> str:
        """The corpus of its scene."""
        return self.scene.partition("/")[0]


Predictor = Callable[[PairTraits], float]


@dataclass(frozen=True)
class Trait:
    """A trait that may drift."""

    name: str
    value: Callable[[PairTraits], float | None]
    """On a scale on which differences are comparable; None where it was not measured."""
    text: Callable[[float], str]
    """A difference in words."""
    least: float
    """Least difference that matters."""
    significance: float
    """Probability of a difference by chance below which it is believed."""
    predictors: tuple[Predictor, ...] = ()
    """Beside the camera."""
    only_below: bool = False
    """Whether only a decrease is drift."""


def _stops(pair: PairTraits) -> float:
    return float(np.log2(max(pair.brightness, 1.0)))


def _iso(pair: PairTraits) -> float:
    return float(np.log2(pair.iso)) if pair.iso else float("nan")


def _gain(pair: PairTraits) -> float | None:
    return None if pair.champion_psnr is None else pair.champion_psnr - pair.noisy_psnr


TRAITS = (
    Trait(
        "noise",
        lambda p: float(np.log2(max(p.noise, 0.1))),
        lambda d: f"{2**d:.2f} times as much noise as expected",
        least=float(np.log2(1.25)),
        significance=0.02,
        predictors=(_iso, _stops, lambda p: _stops(p) ** 2),
    ),
    Trait(
        "noise correlation",
        lambda p: p.correlation,
        lambda d: f"correlation of neighbouring noise {d:+.2f}",
        least=0.1,
        significance=0.005,
    ),
    Trait(
        "exposure",
        lambda p: float(np.log2(p.exposure)),
        lambda d: f"clean photos {2**d:.2f} times as bright against noisy ones",
        least=0.1,
        significance=0.005,
    ),
    Trait(
        "brightness",
        _stops,
        lambda d: f"scenes {d:+.1f} stops brighter",
        least=1.5,
        significance=0.005,
    ),
    Trait(
        "champion",
        _gain,
        lambda d: f"the champion gains {d:+.2f} dB relative to known test photos of this noise",
        least=0.5,
        significance=0.01,
        predictors=(lambda p: p.noisy_psnr,),
        only_below=True,
    ),
)


@dataclass(frozen=True)
class Finding:
    """What was found out about one trait."""

    trait: str
    drifted: bool
    text: str
    difference: float | None = None
    """New scenes less known ones, on the trait's scale; None if it was not compared."""
    probability: float | None = None
    """Of a difference as large between scenes of one kind."""


@dataclass(frozen=True)
class DriftReport:
    """How new pairs compare with known ones."""

    new: int
    """Number of new pairs that were measured."""
    known: int
    findings: tuple[Finding, ...]

    @property
    def drifted(self) -> list[str]:
        """Names of the traits that drifted."""
        return [f.trait for f in self.findings if f.drifted]

    def describe(self) -> str:
        """One line."""
        if not self.drifted:
            return "no drift"
        return "drift: " + "; ".join(f.text for f in self.findings if f.drifted)

    def to_dict(self) -> dict[str, Any]:
        """The content of drift.json."""
        return {**asdict(self), "drifted": self.drifted}

    def to_markdown(self) -> str:
        """The report as Markdown."""
        lines = [
            f"{self.new} new pairs against {self.known} known ones.",
            "",
            "| trait | drift | p | |",
            "|---|---|---:|---|",
        ]
        for found in self.findings:
            p = "" if found.probability is None else f"{found.probability:.3g}"
            lines.append(
                f"| {found.trait} | {'yes' if found.drifted else 'no'} | {p} | {found.text} |"
            )
        return "\n".join(lines) + "\n"


def find_drift(known: Sequence[PairTraits], new: Sequence[PairTraits]) -> DriftReport:
    """Compare new pairs with known ones. Raises ValueError without either."""
    if not known or not new:
        raise ValueError("drift needs known and new pairs")
    corpora = {p.corpus for p in new}
    same = [p for p in known if p.corpus in corpora]
    # Other corpora have another spread; they are compared with only where there is nothing else.
    reference = same if len({p.scene for p in same}) >= FEWEST_SCENES else known
    findings = [_compare(trait, reference, new) for trait in TRAITS]
    findings += [_new_cameras(known, new), _new_isos(known, new), _mix(reference, new)]
    return DriftReport(len(new), len(reference), tuple(findings))


def _compare(trait: Trait, known: Sequence[PairTraits], new: Sequence[PairTraits]) -> Finding:
    """Compare the residuals of new scenes with those of known ones."""
    before = [p for p in known if trait.value(p) is not None]
    after = [p for p in new if trait.value(p) is not None]
    scenes = sorted({p.scene for p in before})
    if not after or len(scenes) < FEWEST_SCENES:
        few = f"not compared: {len(scenes)} known scenes, at least {FEWEST_SCENES} are needed"
        return Finding(trait.name, drifted=False, text=few if after else "not measured")
    spread: list[NDArray[np.float64]] = []
    for scene in scenes:
        others = [p for p in before if p.scene != scene]
        spread += _residuals(trait, others, [p for p in before if p.scene == scene])
    residuals = _residuals(trait, before, after)
    difference = fmean(r.mean() for r in residuals)
    statistic = difference / _standard_error(spread, [len(r) for r in residuals])
    probability = 2 * float(t.sf(abs(statistic), len(spread) - 1))
    large = -difference >= trait.least if trait.only_below else abs(difference) >= trait.least
    drifted = bool(large and probability < trait.significance)
    return Finding(trait.name, drifted, trait.text(difference), difference, probability)


def _residuals(
    trait: Trait, known: Sequence[PairTraits], pairs: Sequence[PairTraits]
) -> list[NDArray[np.float64]]:
    """Trait less its prediction, of the pairs of each scene."""
    predicted = _predict(trait, known, pairs)
    by_scene: dict[str, list[float]] = defaultdict(list)
    for pair, expected in zip(pairs, predicted, strict=True):
        value = trait.value(pair)
        assert value is not None
        by_scene[pair.scene].append(value - expected)
    return [np.array(values) for values in by_scene.values()]


def _standard_error(known: Sequence[NDArray[np.float64]], counts: Sequence[int]) -> float:
    """Standard error of the mean over scenes with these numbers of pairs, of the kind of `known`.

    The variance of a scene's mean is that between scenes plus that within scenes over the number
    of its pairs (variance components by the method of moments).
    """
    squares = sum(float(np.square(r - r.mean()).sum()) for r in known)
    within = squares / max(sum(len(r) - 1 for r in known), 1)
    of_means = fmean(float(r.mean()) ** 2 for r in known)
    between = max(of_means - within * fmean(1 / len(r) for r in known), 0.0)
    variance = sum(between + within / count for count in counts) / len(counts) ** 2
    return float(max(variance**0.5, 1e-6))


def _predict(
    trait: Trait, known: Sequence[PairTraits], pairs: Sequence[PairTraits]
) -> NDArray[np.float64]:
    """Ridge regression of the trait on camera and predictors; the intercept is not penalised."""
    values = np.array([trait.value(p) for p in known], dtype=np.float64)
    cameras = sorted({p.camera for p in known})
    design, wanted = _design(trait, known, cameras), _design(trait, pairs, cameras)
    numbers = slice(len(cameras), None)
    centre = _finite_mean(design[:, numbers])
    design[:, numbers] = _filled(design[:, numbers], centre)
    scale = np.maximum(design[:, numbers].std(axis=0), 1e-9)
    # A line through the known pairs is not believed beyond them.
    low, high = design[:, numbers].min(axis=0), design[:, numbers].max(axis=0)
    wanted[:, numbers] = np.clip(_filled(wanted[:, numbers], centre), low, high)
    for matrix in (design, wanted):
        matrix[:, numbers] /= scale
    penalty = _RIDGE * np.eye(design.shape[1])
    middle, mean = design.mean(axis=0), values.mean()
    centred = design - middle
    weights = np.linalg.solve(centred.T @ centred + penalty, centred.T @ (values - mean))
    # A new camera has the deviation of no camera, not that of "none of the known ones".
    offsets = wanted - middle
    unknown = np.array([p.camera not in cameras for p in pairs])
    offsets[unknown, : len(cameras)] = 0
    return np.asarray(mean + offsets @ weights)


def _design(
    trait: Trait, pairs: Sequence[PairTraits], cameras: Sequence[str]
) -> NDArray[np.float64]:
    rows = [
        [float(p.camera == c) for c in cameras] + [predict(p) for predict in trait.predictors]
        for p in pairs
    ]
    return np.array(rows, dtype=np.float64)


def _filled(columns: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """An unknown ISO is taken for the mean ISO."""
    return np.where(np.isnan(columns), centre, columns)


def _finite_mean(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(columns)
    return np.asarray(np.where(known, columns, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def _new_cameras(known: Sequence[PairTraits], new: Sequence[PairTraits]) -> Finding:
    counts = Counter(p.camera for p in new)
    unseen = sorted(set(counts) - {p.camera for p in known})
    if not unseen:
        return Finding("new camera", drifted=False, text="all cameras are known")
    named = ", ".join(f"{counts[camera]} pairs of {camera}" for camera in unseen)
    return Finding("new camera", drifted=True, text=f"no known pairs of this camera: {named}")


def _new_isos(known: Sequence[PairTraits], new: Sequence[PairTraits]) -> Finding:
    before, after = ([p.iso for p in pairs if p.iso] for pairs in (known, new))
    if not before or not after:
        return Finding("new ISO", drifted=False, text="ISOs are not known")
    low, high = min(before) / _ISO_FACTOR, max(before) * _ISO_FACTOR
    unseen = sorted({iso for iso in after if not low <= iso <= high})
    if not unseen:
        return Finding("new ISO", drifted=False, text=f"ISO {min(after)} to {max(after)}")
    named = ", ".join(map(str, unseen))
    text = f"ISO {named}, where the known ones are {min(before)} to {max(before)}"
    return Finding("new ISO", drifted=True, text=text)


def _mix(known: Sequence[PairTraits], new: Sequence[PairTraits]) -> Finding:
    """Compare the shares of cameras by a permutation test over scenes."""
    cameras = sorted({p.camera for p in (*known, *new)})
    places = {camera: place for place, camera in enumerate(cameras)}
    counts: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(len(cameras)))
    for kind, pairs in (("known", known), ("new", new)):
        for pair in pairs:
            counts[f"{kind} {pair.scene}"][places[pair.camera]] += 1
    scenes = np.array(list(counts.values()))
    held = len({p.scene for p in new})
    if len(scenes) - held < FEWEST_SCENES:
        return Finding("camera mix", drifted=False, text="not compared: too few known scenes")
    first = _variation(scenes[:-held], scenes[-held:])
    random = np.random.default_rng(0)
    farther = 0
    for _ in range(_SHUFFLES):
        shuffled = random.permutation(scenes)
        farther += _variation(shuffled[:-held], shuffled[-held:]) >= first - 1e-9
    probability = (farther + 1) / (_SHUFFLES + 1)
    drifted = bool(first >= _LEAST_MIX and probability <= _MIX_SIGNIFICANCE)
    text = f"{first:.0%} of the pairs are of other cameras than the known mix has"
    return Finding("camera mix", drifted, text, first, probability)


def _variation(known: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """Total variation between the shares of cameras."""
    shares = [part.sum(axis=0) / part.sum() for part in (known, new)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
