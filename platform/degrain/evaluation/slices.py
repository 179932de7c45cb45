"""Slices of an evaluation: the photos of one corpus, camera, ISO or brightness, and of
scenes that an earlier patch set had or did not have.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from degrain.evaluation.scores import DenoiserScores, EvaluatedPhoto, Evaluation

_ISO_STEPS = (100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200)

_BRIGHTNESS = {"L": "low", "N": "normal", "H": "high"}
"""Words for the letters of SIDD."""


def iso_range(iso: int) -> str:
    """The range of an ISO, an exposure value wide: `801 to 1600`."""
    above = next((i for i, step in enumerate(_ISO_STEPS) if iso <= step), len(_ISO_STEPS))
    if above == 0:
        return f"up to {_ISO_STEPS[0]}"
    if above == len(_ISO_STEPS):
        return f"above {_ISO_STEPS[-1]}"
    return f"{_ISO_STEPS[above - 1] + 1} to {_ISO_STEPS[above]}"


DIMENSIONS: Mapping[str, Callable[[EvaluatedPhoto], str | None]] = {
    "corpus": lambda p: p.corpus,
    "camera": lambda p: f"{p.corpus} {p.camera}" if p.camera else None,
    "ISO": lambda p: iso_range(p.iso) if p.iso is not None else None,
    "brightness": lambda p: _BRIGHTNESS.get(p.brightness, p.brightness) if p.brightness else None,
    "scenes": lambda p: p.scenes,
}
"""What a photo is sorted by; None where it is not known."""


@dataclass(frozen=True)
class Slice:
    """The photos of one value of one dimension."""

    dimension: str
    value: str
    photos: tuple[int, ...]
    """Their places in the evaluation."""

    @property
    def name(self) -> str:
        """`camera sidd GP`."""
        return f"{self.dimension} {self.value}"

    def psnr(self, denoiser: DenoiserScores) -> float:
        """Mean PSNR of a denoiser on these photos, dB."""
        return sum(denoiser.scores[i].psnr for i in self.photos) / len(self.photos)


def slices(evaluation: Evaluation) -> list[Slice]:
    """All slices, by dimension, then in the order of their values."""
    found: list[Slice] = []
    for dimension, value_of in DIMENSIONS.items():
        places: dict[str, list[int]] = defaultdict(list)
        for place, photo in enumerate(evaluation.photos):
            if (value := value_of(photo)) is not None:
                places[value].append(place)
        found += [Slice(dimension, v, tuple(places[v])) for v in sorted(places, key=_in_order)]
    return found


def _in_order(value: str) -> tuple[int, str]:
    """Ranges of ISO by number, others by letter."""
    numbers = [int(word) for word in value.split() if word.isdigit()]
    return (numbers[0] if numbers else 0, value)


def slice_losses(
    evaluation: Evaluation, before: str, after: str, dimensions: Sequence[str]
) -> list[tuple[Slice, float]]:
    """How many dB `after` is below `before` in each slice; negative where it is better."""
    old, new = evaluation.of(before), evaluation.of(after)
    return [
        (part, part.psnr(old) - part.psnr(new))
        for part in slices(evaluation)
        if part.dimension in dimensions
    ]
