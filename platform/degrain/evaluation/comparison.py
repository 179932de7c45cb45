"""The comparison: scores every denoiser on the same whole photos, by protocol `rgb8`.

Each photo is one Ray task on one core, so that seconds per megapixel are comparable between rows.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ray

from degrain.cluster import collect
from degrain.corpora.record import PairRecord
from degrain.imaging.metrics import Score, mean_score, score_photo
from degrain.imaging.pixels import Photo
from degrain.inference.denoiser import Denoiser
from degrain.patchsets.photos import PhotoSource

_WARM_UP_SIDE = 64


@dataclass(frozen=True)
class PhotoResult:
    """Score, time and output of one denoiser on one photo."""

    score: Score
    seconds: float
    megapixels: float
    output: Photo | None
    """The denoised photo, or None if it is not an example."""


@dataclass(frozen=True)
class Row:
    """One denoiser's row of the table: means over photos."""

    model: str
    score: Score
    gain: Score
    """Improvement over the noisy input."""
    seconds_per_megapixel: float
    parameters: int

    def to_dict(self) -> dict[str, object]:
        """Return the row's entry of the summary file."""
        return {
            "model": self.model,
            "psnr": self.score.psnr,
            "ssim": self.score.ssim,
            "psnr_gain": self.gain.psnr,
            "ssim_gain": self.gain.ssim,
            "seconds_per_megapixel": self.seconds_per_megapixel,
            "parameters": self.parameters,
        }


@dataclass(frozen=True)
class Example:
    """One photo, noisy and clean, with the output of each denoiser."""

    photo: PairRecord
    noisy: Photo
    clean: Photo
    outputs: dict[str, Photo]


@dataclass(frozen=True)
class Comparison:
    """All rows, the ids of the photos, and a few example photos."""

    rows: list[Row]
    photos: list[str]
    """Ids of the pairs."""
    examples: list[Example]

    def row(self, model: str) -> Row:
        """The row of one denoiser."""
        return next(r for r in self.rows if r.model == model)

    def to_markdown(self) -> str:
        """The table as Markdown."""
        lines = [
            "| model | PSNR dB | SSIM | PSNR gain dB | SSIM gain | s/MP (one core) | parameters |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {r.model} | {r.score.psnr:.2f} | {r.score.ssim:.3f} | {r.gain.psnr:+.2f} | "
            f"{r.gain.ssim:+.3f} "
            f"| {r.seconds_per_megapixel:.2f} | {r.parameters:,} |"
            for r in self.rows
        ]
        return "\n".join(lines)


def run_one(denoiser: Denoiser, row: PairRecord, source: PhotoSource, *, keep: bool) -> PhotoResult:
    """Denoise and score one photo.

    The time is that of the denoiser alone, after a warm-up on a corner of the photo.
    """
    noisy, clean = source.load(row)
    denoiser(noisy[:_WARM_UP_SIDE, :_WARM_UP_SIDE])
    started = time.perf_counter()
    output = denoiser(noisy)
    seconds = time.perf_counter() - started
    megapixels = noisy.shape[0] * noisy.shape[1] / 1e6
    return PhotoResult(score_photo(output, clean), seconds, megapixels, output if keep else None)


def compare(
    denoisers: Sequence[Denoiser],
    photos: Sequence[PairRecord],
    source: PhotoSource,
    *,
    examples: int = 3,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Comparison:
    """Run every denoiser on every photo; gains are relative to the first denoiser.

    The outputs of `examples` photos, evenly spaced, are kept. Needs a running Ray; uses all its
    CPUs.
    """
    kept = {
        photos[round(i * (len(photos) - 1) / max(examples - 1, 1))].id
        for i in range(min(examples, len(photos)))
    }
    task = ray.remote(num_cpus=1)(run_one)
    handles = [ray.put(d) for d in denoisers]
    pending = {
        task.remote(handle, row, source, keep=row.id in kept): (d.name, row.id)
        for d, handle in zip(denoisers, handles, strict=True)
        for row in photos
    }
    results: dict[tuple[str, str], PhotoResult] = dict(collect(pending, progress))
    rows = _rows(denoisers, photos, results)
    return Comparison(
        rows, [p.id for p in photos], _examples(denoisers, photos, kept, results, source)
    )


def _rows(
    denoisers: Sequence[Denoiser],
    photos: Sequence[PairRecord],
    results: dict[tuple[str, str], PhotoResult],
) -> list[Row]:
    rows: list[Row] = []
    for denoiser in denoisers:
        scored = [results[denoiser.name, p.id] for p in photos]
        score = mean_score(r.score for r in scored)
        base = rows[0].score if rows else score
        rows.append(
            Row(
                model=denoiser.name,
                score=score,
                gain=Score(score.psnr - base.psnr, score.ssim - base.ssim),
                seconds_per_megapixel=sum(r.seconds for r in scored)
                / sum(r.megapixels for r in scored),
                parameters=denoiser.parameters,
            )
        )
    return rows


def _examples(
    denoisers: Sequence[Denoiser],
    photos: Sequence[PairRecord],
    kept: set[str],
    results: dict[tuple[str, str], PhotoResult],
    source: PhotoSource,
) -> list[Example]:
    examples: list[Example] = []
    for photo in photos:
        if photo.id not in kept:
            continue
        noisy, clean = source.load(photo)
        outputs = {d.name: results[d.name, photo.id].output for d in denoisers}
        examples.append(
            Example(photo, noisy, clean, {k: v for k, v in outputs.items() if v is not None})
        )
    return examples
