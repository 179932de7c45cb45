"""The page of a comparison: table, slices, worst and best photos, crops with difference maps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from degrain.evaluation.comparison import Comparison, Example
from degrain.evaluation.differences import Ranking
from degrain.evaluation.intervals import FEWEST_SCENES
from degrain.evaluation.scores import DenoiserScores, Evaluation
from degrain.evaluation.slices import slices
from degrain.imaging.pixels import Photo, eight_bits
from degrain.report.html_report import Number, Report
from degrain.report.plots import COLOURS, WIDTH_INCHES, new_figure, shorten

_DIFFERENCE_RANGE = 32
"""Difference from the clean photo that a map shows as black or white, of 255."""
_SHOWN_PHOTOS = 5
_COLUMNS = 4
"""Pictures side by side."""
_MOST_SHOWN = 7
"""Denoisers in a figure of crops; further ones are in the tables only."""


def evaluation_page(comparison: Comparison, title: str) -> Report:
    """Make the page."""
    evaluation = comparison.evaluation
    report = Report(f"Denoisers on {title}")
    photos, scenes = len(evaluation.photos), len(set(evaluation.scenes))
    intervals = "Brackets are 95% confidence intervals."
    if scenes < FEWEST_SCENES:
        intervals = f"With fewer than {FEWEST_SCENES} scenes there are no confidence intervals."
    report.note(
        f"Whole photos: {photos}; scenes: {scenes}. Protocol {evaluation.protocol}: PSNR and SSIM "
        "per photo, then their means. Gains are over the noisy photo, as a mean over scenes: each "
        f"scene counts once, however many photos it has. {intervals}"
    )
    _write_table(report, comparison)
    _write_ranking(report, Ranking.of(evaluation))
    if len(comparison.rows) > 1:
        report.heading("Quality and speed")
        report.note(
            "PSNR gain over the noisy photo, bars: 95% interval, and time on one core. The best "
            "denoisers are at the top left; hollow are those that were trained on these photos."
        )
        report.figure("speed", speed_figure(comparison), "PSNR gain and seconds per megapixel")
    _write_side_effects(report, evaluation)
    _write_slices(report, evaluation)
    _write_extremes(report, evaluation)
    report.heading("Crops")
    report.note(
        "The crop is where the clean photo has most detail; PSNR and SSIM are those of the whole "
        "photo. Below each output is its difference from the clean photo, per channel: grey where "
        f"they are equal, white where the output is {_DIFFERENCE_RANGE} of 255 or more too bright, "
        "black where it is as much too dark, coloured where channels differ."
    )
    for number, example in enumerate(comparison.examples):
        figure = crops_figure(example)
        report.figure(f"crops-{number}", figure, f"Crops of {example.photo.id}")
    return report


def _write_table(report: Report, comparison: Comparison) -> None:
    report.heading("Table")
    report.table(
        [
            "denoiser",
            "PSNR, dB",
            "SSIM",
            "PSNR gain, dB",
            "SSIM gain",
            "seconds per megapixel",
            "parameters",
        ],
        [
            (
                r.label,
                r.score.psnr,
                Number(f"{r.score.ssim:.4f}"),
                Number(r.psnr_gain),
                Number(f"{r.ssim_gain.mean:+.4f}"),
                r.seconds_per_megapixel,
                r.parameters,
            )
            for r in comparison.rows
        ],
    )


def _write_ranking(report: Report, ranking: Ranking) -> None:
    report.heading("Which is best")
    report.note(ranking.recommend())
    if ranking.best is None or not ranking.leads:
        return
    report.note(
        f"How far {ranking.best.name} is ahead of the others, photo by photo, as a mean over "
        "scenes. Intervals of gains that overlap, as in the table above, do not tell."
    )
    rows = [
        (lead.behind.name, Number(lead.psnr), "yes" if lead.certain else "no")
        for lead in ranking.leads
    ]
    report.table(["behind", "PSNR, dB", "more than chance"], rows)


def _write_side_effects(report: Report, evaluation: Evaluation) -> None:
    report.heading("Side effects")
    report.definitions(
        {
            "red, green, blue": "mean difference of the output from the clean photo, of 255; a "
            "shift of colours if they differ.",
            "cast": "largest change of a channel's mean on clean photos with noise of zero mean, "
            "of 255.",
            "detail": "energy of the output's gradients over that of the clean photo's, median; "
            "below 1 detail is lost, above 1 noise is left.",
            "clean input": "least PSNR of the output for a clean photo as input.",
            "seams": "largest difference between the output in small tiles and in one, of 255.",
            "seen in training": "photos of this page that the model was trained on, by content.",
        }
    )
    report.table(
        [
            "denoiser",
            "red",
            "green",
            "blue",
            "cast",
            "detail",
            "clean input, dB",
            "seams",
            "seen in training",
        ],
        [_side_effects(d) for d in evaluation.denoisers],
    )


def _side_effects(d: DenoiserScores) -> tuple[object, ...]:
    seen = f"{len(d.leaked)}: leaked" if d.leaked else "none" if d.origin_known else "not known"
    return (
        d.name,
        *(Number(f"{value:+.2f}") for value in d.colour_shift),
        Number(f"{max(d.colour_cast, key=abs):+.2f}"),
        d.detail,
        "" if d.worst_clean_psnr is None else d.worst_clean_psnr,
        "" if d.seams is None else Number(f"{d.seams:.0f}"),
        seen,
    )


def _write_slices(report: Report, evaluation: Evaluation) -> None:
    noisy, *others = evaluation.denoisers
    report.heading("Slices")
    report.note(
        "The photos of one corpus, camera, range of ISO or brightness: mean PSNR of the noisy "
        "photos, and what each denoiser gains on them."
    )
    rows: list[tuple[object, ...]] = []
    before = ""
    for part in slices(evaluation):
        psnr = part.psnr(noisy)
        gains = (Number(f"{part.psnr(d) - psnr:+.2f}") for d in others)
        dimension = "" if part.dimension == before else part.dimension
        rows.append((dimension, part.value, len(part.photos), psnr, *gains))
        before = part.dimension
    report.table(
        ["slice", "value", "photos", "noisy, dB", *(f"{d.name} gain, dB" for d in others)], rows
    )


def _write_extremes(report: Report, evaluation: Evaluation) -> None:
    """The photos on which the best denoiser gains least and most."""
    noisy, *others = evaluation.denoisers
    if not others or len(evaluation.photos) < 2:
        return
    best = max(others, key=lambda d: d.mean.psnr)
    gains = [a.psnr - b.psnr for a, b in zip(best.scores, noisy.scores, strict=True)]
    order = sorted(range(len(gains)), key=gains.__getitem__)
    count = min(_SHOWN_PHOTOS, len(order) // 2)
    report.heading("Worst and best photos")
    report.note(f"Where {best.name}, the best by mean PSNR, gains least and most.")
    chosen = [("worst", order[:count]), ("best", order[::-1][:count])]
    report.table(
        ["", "photo", f"{best.name} gain, dB", *(f"{d.name}, dB" for d in evaluation.denoisers)],
        [
            (
                "" if place else name,
                evaluation.photos[i].id,
                Number(f"{gains[i]:+.2f}"),
                *(d.scores[i].psnr for d in evaluation.denoisers),
            )
            for name, photos in chosen
            for place, i in enumerate(photos)
        ],
    )


def speed_figure(comparison: Comparison) -> Figure:
    """PSNR gain against seconds per megapixel, with the interval of each gain."""
    figure, axes = new_figure(height=4.2)
    axis = axes[0, 0]
    axis.axhline(0, color="#444444", linewidth=1, label="noisy")
    for number, row in enumerate(comparison.rows[1:]):
        low, high = row.psnr_gain.low, row.psnr_gain.high
        known = np.isfinite(low)
        errors = [[row.psnr_gain.mean - low], [high - row.psnr_gain.mean]] if known else None
        axis.errorbar(
            [row.seconds_per_megapixel],
            [row.psnr_gain.mean],
            yerr=errors,
            fmt="o",
            markerfacecolor="none" if row.seen else None,
            capsize=3,
            color=COLOURS[number % len(COLOURS)],
            label=shorten(f"{row.model} (seen)" if row.seen else row.model, 30),
        )
    seconds = [row.seconds_per_megapixel for row in comparison.rows[1:]]
    axis.set(xscale="log", xlabel="seconds per megapixel, one core", ylabel="PSNR gain, dB")
    # A decade at least, so that the axis has several ticks.
    axis.set_xlim(min(seconds) / 3.2, max(seconds) * 3.2)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def crops_figure(example: Example) -> Figure:
    """One crop of each output, and below it the difference from the clean photo."""
    names = list(example.outputs)[:_MOST_SHOWN]
    photos: Sequence[Photo] = [*(example.outputs[n] for n in names), example.clean]
    lines = -(-len(photos) // _COLUMNS)
    figure = Figure(figsize=(WIDTH_INCHES, 0.4 + 5.25 * lines), layout="constrained")
    axes = figure.subplots(2 * lines, _COLUMNS, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    clean = eight_bits(example.clean).astype(np.float32)
    for place, (name, photo) in enumerate(zip([*names, "clean"], photos, strict=True)):
        line, column = divmod(place, _COLUMNS)
        above, below = axes[2 * line, column], axes[2 * line + 1, column]
        crop = eight_bits(photo)
        above.imshow(crop, interpolation="nearest")
        if name == "clean":
            above.set_title("clean", fontsize=10)
            _show_scale(below)
        else:
            score = example.scores[name]
            above.set_title(
                f"{shorten(name, 28)}\n{score.psnr:.2f} dB, SSIM {score.ssim:.3f}", fontsize=10
            )
            difference = (crop - clean) / (2 * _DIFFERENCE_RANGE) + 0.5
            below.imshow(difference.clip(0, 1), interpolation="nearest")
    figure.suptitle(_describe(example), x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def _show_scale(axis: Axes) -> None:
    """The grey levels of a difference map, from too dark to too bright."""
    most = _DIFFERENCE_RANGE
    scale = axis.inset_axes((0.1, 0.45, 0.8, 0.1))
    scale.imshow(
        np.linspace(0, 1, 256)[None], cmap="gray", aspect="auto", extent=(-most, most, 0, 1)
    )
    scale.set_yticks([])
    scale.set_xticks([-most, 0, most], [f"-{most}", "0", f"+{most}"])
    scale.set_title("scale of the differences", fontsize=10)
    scale.set_xlabel("output - clean, of 255", fontsize=10)


def _describe(example: Example) -> str:
    """The photo's id, size and ISO."""
    height, width = example.photo.height, example.photo.width
    iso = "" if example.photo.iso is None else f", ISO {example.photo.iso}"
    return f"{shorten(example.photo.id, 70)}  ({width}x{height}{iso})"
