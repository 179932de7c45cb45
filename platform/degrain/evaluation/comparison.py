"""The comparison: scores every denoiser on the same whole photos, by protocol `rgb8`.

Each photo is one Ray task on one core, so that seconds per megapixel are comparable between rows.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import ray

from degrain.cluster import collect
from degrain.corpora.record import PairRecord
from degrain.evaluation.intervals import Interval, scene_interval
from degrain.evaluation.measurement import largest_seam, measure
from degrain.evaluation.scores import DenoiserScores, EvaluatedPhoto, Evaluation, PhotoScore
from degrain.imaging.crops import most_detailed_crops
from degrain.imaging.metrics import Score
from degrain.imaging.pixels import Photo
from degrain.inference.denoiser import Denoiser
from degrain.patchsets.photos import PhotoSource
from degrain.spacing import evenly_spaced
from degrain.tracking.training_photos import TrainingPhotos

CROP_SIDE = 160
"""Side of the crops of example photos in pixels."""


@dataclass(frozen=True)
class Row:
    """One denoiser's row of the table."""

    model: str
    score: Score
    """Means over photos."""
    psnr_gain: Interval
    """Improvement over the noisy input, a mean over scenes, with its 95% interval."""
    ssim_gain: Interval
    """The same for SSIM."""
    seconds_per_megapixel: float
    parameters: int
    seen: int
    """Photos that it was trained on; with any, its scores do not count."""

    @property
    def label(self) -> str:
        """Its name, and what speaks against its scores."""
        return f"{self.model} (trained on {self.seen} of these photos)" if self.seen else self.model

    def to_dict(self) -> dict[str, object]:
        """Return the row's entry of the summary file."""
        low, high = self.psnr_gain.low, self.psnr_gain.high
        known = low > -float("inf")
        return {
            "model": self.model,
            "psnr": self.score.psnr,
            "ssim": self.score.ssim,
            "psnr_gain": self.psnr_gain.mean,
            "psnr_gain_interval": [low, high] if known else None,
            "ssim_gain": self.ssim_gain.mean,
            "seconds_per_megapixel": self.seconds_per_megapixel,
            "parameters": self.parameters,
            "trained_on": self.seen,
        }


@dataclass(frozen=True)
class Example:
    """The most detailed crop of one photo, noisy and clean, with what each denoiser made of it."""

    photo: PairRecord
    noisy: Photo
    clean: Photo
    outputs: dict[str, Photo]
    """The same crop of each output."""
    scores: dict[str, Score]
    """Of the whole photo, by denoiser."""


@dataclass(frozen=True)
class Comparison:
    """The scores of all denoisers, and a few example photos."""

    evaluation: Evaluation
    examples: list[Example] = field(default_factory=list)

    @cached_property
    def rows(self) -> list[Row]:
        """A row per denoiser; gains are relative to the first."""
        return table_rows(self.evaluation)

    @property
    def photos(self) -> list[str]:
        """Ids of the pairs."""
        return [p.id for p in self.evaluation.photos]

    def row(self, model: str) -> Row:
        """The row of one denoiser."""
        return next(r for r in self.rows if r.model == model)

    def scores_of(self, model: str) -> dict[str, float]:
        """The scores of one denoiser as its model's card has them."""
        score = self.row(model).score
        return {"psnr": score.psnr, "ssim": score.ssim, "photos": len(self.photos)}

    def to_markdown(self) -> str:
        """The table as Markdown."""
        lines = [
            "| model | PSNR dB | SSIM | PSNR gain dB | SSIM gain | s/MP (one core) | parameters |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {r.label} | {r.score.psnr:.2f} | {r.score.ssim:.3f} | {r.psnr_gain} | "
            f"{r.ssim_gain.mean:+.3f} "
            f"| {r.seconds_per_megapixel:.2f} | {r.parameters:,} |"
            for r in self.rows
        ]
        return "\n".join(lines)


def table_rows(evaluation: Evaluation) -> list[Row]:
    """The rows of an evaluation's table; gains are relative to its first denoiser."""
    base = evaluation.denoisers[0]
    rows: list[Row] = []
    for denoiser in evaluation.denoisers:
        pairs = list(zip(denoiser.scores, base.scores, strict=True))
        rows.append(
            Row(
                model=denoiser.name,
                score=denoiser.mean,
                psnr_gain=scene_interval([a.psnr - b.psnr for a, b in pairs], evaluation.scenes),
                ssim_gain=scene_interval([a.ssim - b.ssim for a, b in pairs], evaluation.scenes),
                seconds_per_megapixel=denoiser.seconds_per_megapixel,
                parameters=denoiser.parameters,
                seen=len(denoiser.leaked),
            )
        )
    return rows


@dataclass(frozen=True)
class _Outcome:
    """A task's result: the score, and a crop of the output and the seams of an example photo."""

    score: PhotoScore
    crop: Photo | None
    seams: float | None


def _run_one(denoiser: Denoiser, row: PairRecord, source: PhotoSource, *, keep: bool) -> _Outcome:
    """Denoise and score one photo."""
    noisy, clean = source.load(row)
    score, output = measure(denoiser, noisy, clean, clean_input=denoiser.parameters > 0)
    if not keep:
        return _Outcome(score, None, None)
    return _Outcome(score, _crop(output, clean), largest_seam(denoiser, noisy))


def _crop(photo: Photo, clean: Photo) -> Photo:
    """A copy of the part that examples show: where the clean photo has the most detail."""
    side = min(CROP_SIDE, *clean.shape[:2])
    top, left = most_detailed_crops(clean, side, 1)[0]
    return photo[top : top + side, left : left + side].copy()


def compare(
    denoisers: Sequence[Denoiser],
    photos: Sequence[PairRecord],
    source: PhotoSource,
    *,
    examples: int = 3,
    trained_on: Mapping[str, TrainingPhotos | None] | None = None,
    earlier_scenes: Collection[str] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Comparison:
    """Run every denoiser on every photo; gains are relative to the first denoiser.

    A crop of `examples` photos, evenly spaced, is kept. `trained_on` has the training photos
    of models by name; None stands for unknown ones. `earlier_scenes` are those of an earlier patch
    set. Needs a running Ray; uses all its CPUs.
    """
    kept = {photos[i].id for i in evenly_spaced(len(photos), examples)}
    task = ray.remote(num_cpus=1)(_run_one)
    handles = [ray.put(d) for d in denoisers]
    pending = {
        task.remote(handle, row, source, keep=row.id in kept): (d.name, row.id)
        for d, handle in zip(denoisers, handles, strict=True)
        for row in photos
    }
    results: dict[tuple[str, str], _Outcome] = dict(collect(pending, progress))
    scored = tuple(
        _scores(d, [results[d.name, p.id] for p in photos], photos, trained_on or {})
        for d in denoisers
    )
    evaluated = tuple(EvaluatedPhoto.of(p, earlier_scenes) for p in photos)
    evaluation = Evaluation(photos=evaluated, denoisers=scored)
    return Comparison(evaluation, _examples(denoisers, photos, kept, results, source))


def _scores(
    denoiser: Denoiser,
    outcomes: Sequence[_Outcome],
    photos: Sequence[PairRecord],
    trained_on: Mapping[str, TrainingPhotos | None],
) -> DenoiserScores:
    seen = trained_on.get(denoiser.name, TrainingPhotos())
    seams = [o.seams for o in outcomes if o.seams is not None]
    return DenoiserScores(
        name=denoiser.name,
        scores=tuple(o.score for o in outcomes),
        parameters=denoiser.parameters,
        model_bytes=4 * denoiser.parameters,
        memory_bytes_per_pixel=getattr(denoiser, "bytes_per_pixel", 0),
        seams=max(seams) if seams else None,
        leaked=() if seen is None else tuple(p.id for p in photos if p in seen),
        origin_known=seen is not None,
    )


def _examples(
    denoisers: Sequence[Denoiser],
    photos: Sequence[PairRecord],
    kept: set[str],
    results: Mapping[tuple[str, str], _Outcome],
    source: PhotoSource,
) -> list[Example]:
    examples: list[Example] = []
    for photo in photos:
        if photo.id not in kept:
            continue
        noisy, clean = source.load(photo)
        found = {d.name: results[d.name, photo.id] for d in denoisers}
        examples.append(
            Example(
                photo,
                _crop(noisy, clean),
                _crop(clean, clean),
                {name: one.crop for name, one in found.items() if one.crop is not None},
                {name: one.score.score for name, one in found.items()},
            )
        )
    return examples
