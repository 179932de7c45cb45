"""Differences between the denoisers of an evaluation, photo by photo, and what they recommend.

Two gains over the noisy photo whose intervals overlap may still differ for certain, because what
is hard for one denoiser is hard for the other: only the interval of their difference tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from degrain.evaluation.intervals import FEWEST_SCENES, Interval, scene_interval
from degrain.evaluation.scores import DenoiserScores, Evaluation


@dataclass(frozen=True)
class Lead:
    """How far the best denoiser is ahead of another one."""

    behind: DenoiserScores
    psnr: Interval
    """Mean over scenes of the difference, dB, with its 95% interval."""

    @property
    def certain(self) -> bool:
        """Whether the difference is more than chance."""
        return self.psnr.low > 0


@dataclass(frozen=True)
class Ranking:
    """The best denoiser that has not seen the photos, and its lead over each other one."""

    best: DenoiserScores | None
    """None if all were trained on the photos."""
    leads: Sequence[Lead]
    """The nearest first."""
    seen: Sequence[DenoiserScores]
    """Those that were trained on some of the photos; their scores do not count."""
    scenes: int

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Ranking":
        """Rank the denoisers by their mean PSNR over scenes."""
        counted = [d for d in evaluation.denoisers if not d.leaked]
        seen = [d for d in evaluation.denoisers if d.leaked]
        scenes = len(set(evaluation.scenes))
        if not counted:
            return cls(None, [], seen, scenes)
        best = max(counted, key=lambda d: scene_interval(_psnr(d), evaluation.scenes).mean)
        leads = [
            Lead(other, _difference(best, other, evaluation)) for other in counted if other != best
        ]
        return cls(best, sorted(leads, key=lambda lead: lead.psnr.mean), seen, scenes)

    def recommend(self) -> str:
        """Which denoiser to use, and how certain that is, in a sentence or two."""
        if self.best is None:
            return "All models were trained on some of these photos: none can be recommended."
        name = self.best.name
        rivals = [lead.behind for lead in self.leads if not lead.certain]
        left_out = "".join(
            f" {d.name} is left out: it was trained on {len(d.leaked)} of these photos."
            for d in self.seen
        )
        if not self.leads:
            return f"There is nothing to compare {name} with.{left_out}"
        nearest = self.leads[0]
        if _psnr(nearest.behind) == _psnr(self.best):
            text = f"{name} and {nearest.behind.name} have the same PSNR on every photo."
        elif self.scenes < FEWEST_SCENES:
            text = (
                f"{name} has the highest PSNR, {nearest.psnr.mean:.2f} dB above "
                f"{nearest.behind.name}; with fewer than {FEWEST_SCENES} scenes that may be chance."
            )
        elif not rivals:
            text = (
                f"Use {name}: it is {nearest.psnr.mean:.2f} dB ahead of {nearest.behind.name}, at "
                f"least {nearest.psnr.low:.2f} with 95% confidence, and further of all others."
            )
        else:
            fastest = min([self.best, *rivals], key=lambda d: d.seconds_per_megapixel)
            text = (
                f"{name} has the highest PSNR, but its lead over {_listed(rivals)} may be chance; "
                f"the fastest of them is {fastest.name} ({fastest.seconds_per_megapixel:.2f} s per "
                "megapixel)."
            )
        return text + left_out


def _psnr(denoiser: DenoiserScores) -> list[float]:
    return [score.psnr for score in denoiser.scores]


def _difference(best: DenoiserScores, other: DenoiserScores, evaluation: Evaluation) -> Interval:
    pairs = zip(_psnr(best), _psnr(other), strict=True)
    return scene_interval([a - b for a, b in pairs], evaluation.scenes)


def _listed(denoisers: Sequence[DenoiserScores]) -> str:
    names = [d.name for d in denoisers]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
