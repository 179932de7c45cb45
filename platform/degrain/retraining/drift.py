"""Drift: whether new pairs differ from the known ones, and whether the champion does worse on them.

Each trait of a pair (its noise, its exposure, ...) is predicted from its camera and, for some
traits, from its ISO and brightness, by ridge regression over the known pairs; a camera without
known pairs is predicted as the mean camera. Photos of one scene are alike, so the unit is the
scene: the mean residual of the new scenes is compared with the spread of the residuals of known
scenes, each predicted from the others, by Student's t. A trait drifts if such a difference is
unlikely between scenes of one kind (`Trait.significance`, about 5% over all traits together) and
large enough to matter (`Trait.least`).

A camera or a range of ISOs without known pairs is drift by itself. The mix of cameras drifts if it
is farther from the known mix, in total variation, than 99.5% of random choices of as many scenes.

tests/benchmarks/drift.py measures how often deliveries of the same kind and of other kinds are
flagged.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from degrain.retraining.prediction import scene_residuals, standard_error
from degrain.retraining.traits import TRAITS, PairTraits, Trait
from degrain.storage.json_file import json_bytes

FEWEST_SCENES = 5
"""With fewer known scenes nothing is said about a trait."""
_LEAST_MIX, _MIX_SIGNIFICANCE = 0.5, 0.005
"""Total variation between mixes of cameras from which on a difference matters."""
_ISO_FACTOR = 2.0
"""An ISO beyond the known ones by more than this factor is new."""
_SHUFFLES = 999


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

    def files(self) -> dict[str, bytes]:
        """The report as files."""
        return {
            "drift.json": json_bytes(self.to_dict()),
            "drift.md": self.to_markdown().encode(),
        }

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
        spread += scene_residuals(trait, others, [p for p in before if p.scene == scene])
    residuals = scene_residuals(trait, before, after)
    difference = fmean(r.mean() for r in residuals)
    statistic = difference / standard_error(spread, [len(r) for r in residuals])
    probability = 2 * float(t.sf(abs(statistic), len(spread) - 1))
    large = -difference >= trait.least if trait.only_below else abs(difference) >= trait.least
    drifted = bool(large and probability < trait.significance)
    return Finding(trait.name, drifted, trait.text(difference), difference, probability)


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
