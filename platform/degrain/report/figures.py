"""Figures of the pixels of a patch set: brightness, histograms, scores and noise."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from degrain.imaging.noise_statistics import fit_line, level_centres
from degrain.report.facts import LAGS, PairFacts
from degrain.report.plots import (
    CHANNELS,
    CLEAN,
    NOISY,
    assign_colours,
    by_camera,
    camera_of,
    new_figure,
    plot_histogram,
    set_iso_axis,
    shorten,
    show_text,
)
from degrain.spacing import evenly_spaced

_MOST_GROUPS = 8


def brightness(facts: Sequence[PairFacts]) -> Figure:
    """Mean and standard deviation of noisy photos against clean ones, per channel."""
    figure, axes = new_figure(1, 2, 4.6)
    parts: list[tuple[str, Callable[[PairFacts], NDArray[np.float64]]]] = [
        ("Mean intensity", lambda f: f.mean),
        ("Standard deviation of intensity", lambda f: f.deviation),
    ]
    for axis, (title, value) in zip(axes[0], parts, strict=True):
        values = np.array([value(f) for f in facts])  # (pairs, 2, 3)
        for channel, (name, colour) in enumerate(CHANNELS.items()):
            axis.scatter(
                values[:, 1, channel],
                values[:, 0, channel],
                s=12,
                color=colour,
                alpha=0.55,
                label=name,
            )
        limit = float(values.max()) * 1.05
        axis.plot(
            [0, limit], [0, limit], color="#777777", linewidth=1, linestyle="--", label="equal"
        )
        axis.set(title=title, xlabel="clean photo, 0 to 255", ylabel="noisy photo, 0 to 255")
        axis.legend(fontsize=9, frameon=False)
    return figure


def histograms(facts: Sequence[PairFacts]) -> Figure:
    """Histogram of all photos, per channel."""
    figure, axes = new_figure(1, 3, 3.2)
    total = np.sum([f.histogram for f in facts], axis=0)
    for channel, (axis, name) in enumerate(zip(axes[0], CHANNELS, strict=True)):
        plot_histogram(axis, total[:, channel])
        axis.set_title(f"Intensities of all photos, {name}")
    axes[0, 0].set_ylabel("share of pixels, %")
    axes[0, 0].legend(fontsize=9, frameon=False)
    return figure


def single_photos(facts: Sequence[PairFacts], count: int = 4) -> Figure:
    """Crops and histograms of a few pairs, from least to most noise."""
    ordered = sorted(
        (f for f in facts if f.score is not None), key=lambda f: -f.score.psnr if f.score else 0
    )
    chosen = [ordered[i] for i in evenly_spaced(len(ordered), count)]
    figure, axes = new_figure(max(len(chosen), 1), 3, 2.7)
    for line, one in zip(axes, chosen, strict=False):
        assert one.score is not None
        for axis, photo, name in zip(line, one.thumbnails, ("noisy", "clean"), strict=False):
            axis.imshow(photo, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(visible=False)
            axis.set_title(name, fontsize=10)
        line[0].set_ylabel(shorten(one.row.id), fontsize=8)
        line[0].set_xlabel(f"{one.score.psnr:.1f} dB  SSIM {one.score.ssim:.3f}", fontsize=8)
        plot_histogram(line[2], one.histogram.sum(axis=1))
        line[2].set_ylabel("share of values, %")
        line[2].legend(fontsize=8, frameon=False)
    return figure


def quality(facts: Sequence[PairFacts]) -> Figure:
    """PSNR and SSIM of noisy photos, by camera and by ISO."""
    groups = by_camera(f for f in facts if f.score is not None)
    figure, axes = new_figure(2, 2, 0.9 + max(2.7, 0.32 * len(groups)))
    colours = assign_colours(groups)
    parts: list[tuple[str, Callable[[PairFacts], float]]] = [
        ("PSNR of the noisy photo, dB", lambda f: f.score.psnr if f.score else 0.0),
        ("SSIM of the noisy photo", lambda f: f.score.ssim if f.score else 0.0),
    ]
    for line, (title, value) in zip(axes, parts, strict=True):
        finite = {
            name: [v for f in ours if np.isfinite(v := value(f))] for name, ours in groups.items()
        }
        line[0].boxplot(
            list(finite.values())[::-1], orientation="horizontal", tick_labels=list(finite)[::-1]
        )
        line[0].set(title=f"{title}, by camera")
        line[0].grid(visible=True, axis="x", color="#dddddd", linewidth=0.6)
        for name, ours in groups.items():
            known = [f for f in ours if f.row.iso is not None]
            if known:
                line[1].scatter(
                    [f.row.iso for f in known],
                    [value(f) for f in known],
                    s=14,
                    color=colours[name],
                    label=name,
                )
        line[1].set(title=f"{title}, by ISO")
        set_iso_axis(line[1])
        if not any(f.row.iso is not None for f in facts):
            show_text(line[1], "no ISO is known")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def noise_levels(facts: Sequence[PairFacts]) -> Figure:
    """Noise variance against signal for the largest groups of camera and ISO, with the fitted
    Poisson-Gaussian line.
    """
    groups: dict[str, list[PairFacts]] = defaultdict(list)
    for one in facts:
        iso = f", ISO {one.row.iso}" if one.row.iso else ""
        groups[f"{camera_of(one.row)}{iso}"].append(one)
    largest = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:_MOST_GROUPS]
    figure, axes = new_figure(-(-len(largest) // 4), min(4, max(len(largest), 1)), 3.2)
    x = level_centres()
    for axis, (name, ours) in zip(axes.ravel(), sorted(largest), strict=False):
        count = np.sum([f.level_count for f in ours], axis=0)
        variance = np.sum([f.level_count * f.level_variance for f in ours], axis=0) / np.maximum(
            count, 1
        )
        shown = count > count.sum() * 1e-4
        gain, read = fit_line(count, variance)
        axis.scatter(x[shown], variance[shown] * 1e3, s=14, color=NOISY)
        axis.plot(
            x,
            (gain * x + read) * 1e3,
            color=CLEAN,
            linewidth=1.5,
            label=f"{gain * 1e3:.2f} x + {read * 1e3:.2f}",
        )
        axis.set_title(f"{name} ({len(ours)})", fontsize=9)
        axis.set(
            xlabel="linear light, 0 to 1",
            xlim=(0, 1),
            ylim=(0, 1.3e3 * float(variance[shown].max())),
        )
        axis.legend(fontsize=8, frameon=False)
    for axis in axes.ravel()[len(largest) :]:
        axis.set_visible(False)
    for line in axes:
        line[0].set_ylabel("noise variance, 1/1000")
    return figure


def noise_correlation(facts: Sequence[PairFacts]) -> Figure:
    """Correlation of the noise of neighbouring pixels, by camera."""
    figure, axes = new_figure(height=3.8)
    axis = axes[0, 0]
    groups = by_camera(facts)
    for (name, ours), colour in zip(groups.items(), assign_colours(groups).values(), strict=True):
        lags = np.median([f.correlation for f in ours], axis=0)
        axis.plot(
            [0, *LAGS],
            [1, *lags],
            marker="o",
            markersize=4,
            color=colour,
            label=f"{name} ({len(ours)})",
        )
    axis.axhline(0, color="#777777", linewidth=0.8)
    axis.set(title="Autocorrelation of the noise, median over pairs; 0 from distance 1 on if white")
    axis.set(xlabel="distance in rows or columns, pixels", ylabel="correlation")
    axis.set_xticks([0, *LAGS])
    axis.legend(fontsize=8, frameon=False, ncols=2)
    return figure
