"""The traits of a pair that may drift, and how each is predicted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


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
