"""How often a model that is no better passes the gate `gain`, for unequal scenes.

The gains of scenes have a mean of zero and a standard deviation of 0.1 dB, or of `FEW` where there
are too few scenes for an interval; those of the photos of a scene vary by as much again. Gains that
are skewed to the left, where most scenes gain a little and some lose much, deceive every mean of a
few scenes; for two models of one recipe they are as often skewed to the right.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from table import Settings, Table, progress

from degrain.evaluation.scores import DenoiserScores, EvaluatedPhoto, Evaluation, PhotoScore
from degrain.registry.gates import Contest, check_gates
from degrain.tracking.config import PromotionRules

MIXTURES = (
    [1, 1, 1],
    [20, 1, 1],
    [28, 22, 15],
    [13, 6, 4, 1],
    [28, 2, 2, 1, 1],
    [13, 6, 4, 2, 1, 1],
    [20, 10, 5, 2, 1, 1, 1, 1],
    [30, 30, *[1] * 10],
    [30, 20, 10, 5, 5, *[1] * 15],
    [*[30] * 4, *[3] * 36],
)
"""Photos of each test scene."""
FEW = ([30], [20, 1])
DEVIATIONS = (0.05, 0.1, 0.15, 0.2)
"""Of the gains of scenes, dB, where there are too few for an interval."""


def _skewed(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    return np.asarray((random.gamma(2, 1, count) - 2) / 2**0.5)


KINDS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "normal": lambda random, count: random.normal(0, 1, count),
    "heavy tails": lambda random, count: random.standard_t(3, count) / 3**0.5,
    "skewed either way": lambda random, count: random.choice([-1, 1]) * _skewed(random, count),
    "skewed to the left": lambda random, count: -_skewed(random, count),
}


def run(settings: Settings) -> list[Table]:
    """Wrong promotions in percent."""
    turns = 50 if settings.quick else 4000
    rows = []
    for photos in MIXTURES:
        progress(_named(photos))
        shares = [_wrong(photos, 0.1, kind, turns) for kind in KINDS]
        rows.append([_named(photos), *(f"{100 * share:.1f}" for share in shares)])
    caption = f"Wrong promotions in percent of {turns} decisions; 2.5 are allowed for."
    few = [
        [_named(photos), *(f"{100 * _wrong(photos, d, 'normal', turns):.1f}" for d in DEVIATIONS)]
        for photos in FEW
    ]
    return [
        Table(["photos of the scenes", *KINDS], rows, caption),
        Table(
            ["photos of the scenes", *(f"{d:g} dB" for d in DEVIATIONS)],
            few,
            "The same with the rule for few scenes, by the deviation of a scene's gain.",
        ),
    ]


def _named(photos: list[int]) -> str:
    """`20, 10, 5, 1 (15 times)`."""
    runs = [(count, photos.count(count)) for count in dict.fromkeys(photos)]
    return ", ".join(
        f"{count} ({times} times)" if times > 3 else ", ".join([str(count)] * times)
        for count, times in runs
    )


def _wrong(counts: list[int], deviation: float, kind: str, turns: int) -> float:
    """Share of the decisions in which the gate lets a model pass."""
    random = np.random.default_rng(0)
    scenes = np.repeat(np.arange(len(counts)), counts)
    photos = tuple(
        EvaluatedPhoto(id=f"c/{n}", scene=f"c/{scene}", corpus="c", content=str(n))
        for n, scene in enumerate(scenes)
    )
    passed = 0
    for _ in range(turns):
        by_scene = KINDS[kind](random, len(counts))[scenes]
        gains = deviation * (by_scene + random.normal(0, 1, len(scenes)))
        old, new = _scores("v1", np.zeros(len(scenes))), _scores("v2", gains)
        evaluation = Evaluation(photos=photos, denoisers=(old, new))
        rules = PromotionRules(must_beat=())
        checks = check_gates(Contest(evaluation, new, old, rules, "psnr"))
        passed += next(check.passed for check in checks if check.gate == "gain")
    return passed / turns


def _scores(name: str, gains: NDArray[np.float64]) -> DenoiserScores:
    return DenoiserScores(
        name=name,
        scores=tuple(
            PhotoScore(
                psnr=30 + float(gain),
                ssim=0.9,
                seconds=1,
                megapixels=1,
                shift=(0.0, 0.0, 0.0),
                cast=(0.0, 0.0, 0.0),
                detail=1.0,
            )
            for gain in gains
        ),
    )
