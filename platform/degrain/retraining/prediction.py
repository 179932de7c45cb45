"""Prediction of a trait from camera, ISO and brightness, and how far scenes are from it."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from degrain.retraining.traits import PairTraits, Trait

_RIDGE = 1.0
"""Penalty of a camera's deviation from the mean camera, and of each slope, in photos."""


def scene_residuals(
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


def standard_error(known: Sequence[NDArray[np.float64]], counts: Sequence[int]) -> float:
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
