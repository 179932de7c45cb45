"""The page of a comparison: table, slices, worst and best photos, crops with difference maps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from degrain.evaluation.comparison import Comparison, Example
from degrain.evaluation.scores import DenoiserScores, Evaluation
from degrain.evaluation.slices import slices
from degrain.imaging.crops import most_detailed_crops
from degrain.imaging.metrics import score_photo
from degrain.imaging.pixels import Photo, eight_bits
from degrain.report.html_report import Report
from degrain.report.plots import COLOURS, new_figure, shorten

_CROP_SIDE = 160
_DIFFERENCE_RANGE = 32
"""Difference from the clean photo that a map shows as full colour, of 255."""
_SHOWN_PHOTOS = 5
_MOST_COLUMNS = 6
"""Pictures side by side; further denoisers are in the tables only."""


def write_page(comparison: Comparison, title: str) -> Report:
    """Make the page."""
    evaluation = comparison.evaluation
    report = Report(f"Denoisers on {title}")
    scenes = len(set(evaluation.scenes))
    report.note(
        f"{len(evaluation.photos)} whole photos of {scenes} scenes, protocol "
        f"{evaluation.protocol}: PSNR and SSIM per photo, then their means. Gains are over the "
        "noisy photo; brackets are 95% confidence intervals from a paired bootstrap over scenes."
    )
    _write_table(report, comparison)
    report.figure("speed", speed_figure(comparison), "PSNR against seconds per megapixel")
    _write_slices(report, evaluation)
    _write_extremes(report, evaluation)
    report.heading("Crops")
    report.note(
        "Where the clean photo has most detail. Below each output its difference from the clean "
        f"photo: grey is none, full colour {_DIFFERENCE_RANGE} of 255 and more."
    )
    for number, example in enumerate(comparison.examples):
        figure = crops_figure(example)
        report.figure(f"crops-{number}", figure, f"Crops of {example.photo.id}")
    return report


def _write_table(report: Report, comparison: Comparison) -> None:
    report.heading("Table")
    report.table(
        ["denoiser", "PSNR, dB", "SSIM", "gain, dB", "SSIM gain", "s per MP", "parameters"],
        [
            (
                r.model,
                r.score.psnr,
                f"{r.score.ssim:.4f}",
                str(r.psnr_interval),
                f"{r.gain.ssim:+.4f}",
                r.seconds_per_megapixel,
                r.parameters,
            )
            for r in comparison.rows
        ],
    )
    report.heading("Side effects")
    report.note(
        "Colours: mean difference of red, green and blue from the clean photo, of 255. Detail: "
        "energy of the gradients over that of the clean photo, median; below 1 detail is lost, "
        "above 1 noise is left. Clean input: least PSNR of the output for a clean photo. Seams: "
        "largest difference between small tiles and one, of 255."
    )
    report.table(
        ["denoiser", "colours", "detail", "clean input, dB", "seams", "test photos seen"],
        [_side_effects(d) for d in comparison.evaluation.denoisers],
    )


def _side_effects(d: DenoiserScores) -> tuple[object, ...]:
    seen = f"{len(d.leaked)}: leaked" if d.leaked else "none" if d.origin_known else "not known"
    return (
        d.name,
        ", ".join(f"{value:+.2f}" for value in d.colour_shift),
        d.detail,
        "" if d.worst_clean_psnr is None else d.worst_clean_psnr,
        "" if d.seams is None else d.seams,
        seen,
    )


def _write_slices(report: Report, evaluation: Evaluation) -> None:
    report.heading("Slices")
    report.note("Mean PSNR, dB, on the photos of one corpus, camera, range of ISO or brightness.")
    report.table(
        ["slice", "photos", *(d.name for d in evaluation.denoisers)],
        [
            (part.name, len(part.photos), *(part.psnr(d) for d in evaluation.denoisers))
            for part in slices(evaluation)
        ],
    )


def _write_extremes(report: Report, evaluation: Evaluation) -> None:
    """The photos on which the best denoiser gains least and most."""
    noisy, *others = evaluation.denoisers
    if not others:
        return
    best = max(others, key=lambda d: d.mean.psnr)
    gains = [a.psnr - b.psnr for a, b in zip(best.scores, noisy.scores, strict=True)]
    order = sorted(range(len(gains)), key=gains.__getitem__)
    count = min(_SHOWN_PHOTOS, len(order))
    report.heading("Worst and best photos")
    report.note(f"Where {best.name}, the best by PSNR, gains least and most.")
    for name, chosen in (("worst", order[:count]), ("best", order[::-1][:count])):
        report.table(
            [name, "gain, dB", *(f"{d.name}, dB" for d in evaluation.denoisers)],
            [
                (
                    evaluation.photos[i].id,
                    gains[i],
                    *(d.scores[i].psnr for d in evaluation.denoisers),
                )
                for i in chosen
            ],
        )


def speed_figure(comparison: Comparison) -> Figure:
    """PSNR against seconds per megapixel, with the interval of each gain."""
    figure, axes = new_figure(height=4.2)
    axis = axes[0, 0]
    for number, row in enumerate(comparison.rows[1:]):
        low, high = row.psnr_interval.low, row.psnr_interval.high
        known = np.isfinite(low)
        errors = [[row.gain.psnr - low], [high - row.gain.psnr]] if known else None
        axis.errorbar(
            [row.seconds_per_megapixel],
            [row.gain.psnr],
            yerr=errors,
            fmt="o",
            capsize=3,
            color=COLOURS[number % len(COLOURS)],
            label=row.model,
        )
    axis.set(xscale="log", xlabel="seconds per megapixel, one core", ylabel="PSNR gain, dB")
    if len(comparison.rows) > 1:
        axis.legend(fontsize=8, frameon=False)
    return figure


def crops_figure(example: Example) -> Figure:
    """One crop of each output, and below it the difference from the clean photo."""
    names = list(example.outputs)[:_MOST_COLUMNS]
    photos: Sequence[Photo] = [*(example.outputs[n] for n in names), example.clean]
    side = min(_CROP_SIDE, *example.clean.shape[:2])
    top, left = most_detailed_crops(example.clean, side, 1)[0]
    figure = Figure(figsize=(2.3 * len(photos), 5.2), layout="constrained")
    axes = figure.subplots(2, len(photos), squeeze=False)
    clean = eight_bits(example.clean)[top : top + side, left : left + side].astype(np.float32)
    for column, (name, photo) in enumerate(zip([*names, "clean"], photos, strict=True)):
        crop = eight_bits(photo)[top : top + side, left : left + side]
        axes[0, column].imshow(crop, interpolation="nearest")
        axes[0, column].set_title(shorten(name, 24), fontsize=9)
        if name != "clean":
            score = score_photo(photo, example.clean)
            axes[0, column].set_xlabel(f"{score.psnr:.2f} dB  {score.ssim:.3f}", fontsize=8)
            difference = (crop - clean) / (2 * _DIFFERENCE_RANGE) + 0.5
            axes[1, column].imshow(difference.clip(0, 1), interpolation="nearest")
        else:
            axes[1, column].set_visible(False)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(shorten(example.photo.id, 70), fontsize=9)
    return figure
