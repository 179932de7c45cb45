"""Scores of denoisers on the same whole photos, as data: nothing here needs Ray, MLflow or pixels.

An evaluation has one protocol and one list of photos, and each denoiser has one score per photo, in
that order. So any two denoisers of an evaluation can be compared photo by photo; scores of another
protocol or of other photos are refused.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.imaging.metrics import PROTOCOL, Score, mean_score

FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class EvaluatedPhoto:
    """One pair of an evaluation."""

    id: str
    scene: str
    corpus: str
    content: str
    """Hashes of the noisy and the clean file."""
    camera: str | None = None
    iso: int | None = None
    brightness: str | None = None
    scenes: str | None = None
    """`earlier` or `new`: whether an earlier patch set had its scene; None if nothing is known of
    an earlier one."""

    @classmethod
    def of(cls, row: PairRecord, earlier: Collection[str] | None = None) -> "EvaluatedPhoto":
        """What an evaluation keeps of a pair's record; `earlier` are the scenes of an earlier patch
        set.
        """
        return cls(
            id=row.id,
            scene=row.scene,
            corpus=row.corpus,
            content=f"{row.noisy_hash} {row.clean_hash}",
            camera=row.camera,
            iso=row.iso,
            brightness=row.brightness,
            scenes=None if earlier is None else "earlier" if row.scene in earlier else "new",
        )


@dataclass(frozen=True, kw_only=True)
class PhotoScore:
    """What one denoiser made of one photo."""

    psnr: float
    """dB."""
    ssim: float
    seconds: float
    """Of one core."""
    megapixels: float
    shift: tuple[float, float, float]
    """Mean of the output less mean of the clean photo, per channel, of 255."""
    cast: tuple[float, float, float]
    """Mean of the output less mean of the input, per channel, of 255, for a part of the clean photo
    with noise of zero mean: what the denoiser does to colours whatever the pairs are like."""
    detail: float
    """Energy of the output's gradients over that of the clean photo's; 1 is neither loss nor
    noise."""
    clean_psnr: float | None = None
    """PSNR of the output for the clean photo as input, dB; None if it was not measured."""

    @property
    def score(self) -> Score:
        """PSNR and SSIM."""
        return Score(self.psnr, self.ssim)


@dataclass(frozen=True, kw_only=True)
class DenoiserScores:
    """One denoiser's scores and size."""

    name: str
    scores: tuple[PhotoScore, ...]
    parameters: int = 0
    model_bytes: int = 0
    """Size of the weights; 0 for a filter."""
    memory_bytes_per_pixel: float = 0
    """Peak of activations per pixel of a tile, bytes; 0 for a filter."""
    seams: float | None = None
    """Largest difference between the output in small tiles and in one, of 255; None without
    tiles."""
    leaked: tuple[str, ...] = ()
    """Ids of the photos that the model was trained on."""
    origin_known: bool = True
    """Whether the photos that the model was trained on are known."""

    @property
    def mean(self) -> Score:
        """Mean over the photos."""
        return mean_score(s.score for s in self.scores)

    @property
    def seconds_per_megapixel(self) -> float:
        """Seconds of one core per megapixel."""
        return sum(s.seconds for s in self.scores) / sum(s.megapixels for s in self.scores)

    @property
    def colour_shift(self) -> tuple[float, float, float]:
        """Mean over photos of the difference between output and clean photo, per channel, of
        255.
        """
        return _channel_means([s.shift for s in self.scores])

    @property
    def colour_cast(self) -> tuple[float, float, float]:
        """Mean over photos of `PhotoScore.cast`."""
        return _channel_means([s.cast for s in self.scores])

    @property
    def detail(self) -> float:
        """Median over photos of the energy of gradients, of the clean photo's."""
        ordered = sorted(s.detail for s in self.scores)
        middle = len(ordered) // 2
        return fmean(ordered[middle - 1 + len(ordered) % 2 : middle + 1])

    @property
    def worst_clean_psnr(self) -> float | None:
        """Least PSNR of the output for a clean photo as input, dB."""
        known = [s.clean_psnr for s in self.scores if s.clean_psnr is not None]
        return min(known) if known else None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of several denoisers on the same photos; the first is the noisy input."""

    photos: tuple[EvaluatedPhoto, ...]
    denoisers: tuple[DenoiserScores, ...]
    protocol: str = PROTOCOL
    format: int = FORMAT

    def __post_init__(self) -> None:
        for denoiser in self.denoisers:
            if len(denoiser.scores) != len(self.photos):
                raise ValueError(
                    f"{denoiser.name} has {len(denoiser.scores)} scores for {len(self.photos)} "
                    "photos"
                )

    def of(self, name: str) -> DenoiserScores:
        """The scores of one denoiser. Raises KeyError if it was not scored."""
        for denoiser in self.denoisers:
            if denoiser.name == name:
                return denoiser
        raise KeyError(name)

    @property
    def scenes(self) -> tuple[str, ...]:
        """The scene of each photo."""
        return tuple(p.scene for p in self.photos)

    def merged(self, other: "Evaluation") -> "Evaluation":
        """Both evaluations' denoisers; those of `other` replace equal names.

        Raises UserError if protocol or photos differ.
        """
        if other.protocol != self.protocol:
            raise UserError(
                f"scores of protocol '{other.protocol}' cannot be compared with those of "
                f"'{self.protocol}'; evaluate the models again, together"
            )
        places = {p.content: i for i, p in enumerate(other.photos)}
        missing = [p.id for p in self.photos if p.content not in places]
        if missing or len(other.photos) != len(self.photos):
            example = f", e.g. {missing[0]} is missing" if missing else ""
            raise UserError(
                f"scores of other photos cannot be compared ({len(self.photos)} and "
                f"{len(other.photos)} photos{example}); evaluate the models again, together"
            )
        order = [places[p.content] for p in self.photos]
        added = [replace(d, scores=tuple(d.scores[i] for i in order)) for d in other.denoisers]
        names = {d.name for d in added}
        kept = [d for d in self.denoisers if d.name not in names]
        return replace(self, denoisers=(*kept, *added))

    def to_dict(self) -> dict[str, Any]:
        """The content of evaluation.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: bytes) -> "Evaluation":
        """Read evaluation.json. Raises UserError for a damaged file or another format."""
        try:
            raw: Mapping[str, Any] = json.loads(content)
            if raw["format"] != FORMAT:
                raise ValueError(f"it has format {raw['format']}, not {FORMAT}")
            return cls(
                photos=tuple(EvaluatedPhoto(**p) for p in raw["photos"]),
                denoisers=tuple(_read_denoiser(d) for d in raw["denoisers"]),
                protocol=raw["protocol"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"cannot read the scores of an evaluation: {error}; evaluate the models again"
            ) from None


def _channel_means(values: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    red, green, blue = map(fmean, zip(*values, strict=True))
    return red, green, blue


def _read_denoiser(raw: Mapping[str, Any]) -> DenoiserScores:
    scores: Sequence[Mapping[str, Any]] = raw["scores"]
    read = tuple(
        PhotoScore(**{**s, "shift": tuple(s["shift"]), "cast": tuple(s["cast"])}) for s in scores
    )
    return DenoiserScores(**{**raw, "scores": read, "leaked": tuple(raw["leaked"])})
