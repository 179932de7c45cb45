"""Figures of a patch set's catalog: cameras, settings, shifts and splits."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from degrain.corpora.record import PairRecord
from degrain.patchsets.checks import BELIEVED_GAIN
from degrain.patchsets.splits import SPLITS
from degrain.report.plots import (
    CHANNELS,
    COLOURS,
    NOISY,
    assign_colours,
    camera_of,
    new_figure,
    plot_bars,
    set_iso_axis,
    show_text,
)


def cameras_and_sizes(rows: Sequence[PairRecord]) -> Figure:
    """Pairs per camera, and per resolution."""
    cameras = Counter(camera_of(row) for row in rows)
    sizes = Counter(f"{row.width} x {row.height}" if row.width else "unknown" for row in rows)
    figure, axes = new_figure(1, 2, 1.2 + 0.28 * min(21, max(len(cameras), len(sizes), 4)))
    plot_bars(axes[0, 0], cameras, "Pairs per camera")
    plot_bars(axes[0, 1], sizes, "Pairs per resolution, pixels")
    return figure


def settings(rows: Sequence[PairRecord]) -> Figure:
    """ISO by camera, shutter and brightness."""
    figure, axes = new_figure(1, 3, 4.2)
    by_camera: dict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        if row.iso is not None:
            by_camera[camera_of(row)][row.iso] += 1
    axis = axes[0, 0]
    for place, (_, isos) in enumerate(sorted(by_camera.items())):
        axis.scatter(
            list(isos),
            [place] * len(isos),
            s=[20 + 6 * n for n in isos.values()],
            color=COLOURS[0],
            alpha=0.6,
        )
    axis.set_yticks(range(len(by_camera)), sorted(by_camera))
    axis.set_title("ISO by camera (area: pairs)")
    set_iso_axis(axis)
    if not by_camera:
        show_text(axis, "no ISO is known")
    shutters = Counter(row.shutter for row in rows if row.shutter)
    lights = Counter(row.brightness for row in rows if row.brightness)
    parts = ((axes[0, 1], "Shutter, s", shutters), (axes[0, 2], "Brightness", lights))
    for axis, title, counts in parts:
        plot_bars(axis, counts, title, most=14)
        if not counts:
            show_text(axis, "not known")
    return figure


def shifts(rows: Sequence[PairRecord]) -> Figure:
    """Estimated shifts of noisy photos against clean ones, and their gains."""
    figure, axes = new_figure(1, 2, 4.6)
    known = [r for r in rows if r.shift_y is not None and r.shift_x is not None]
    shifted = [r for r in known if r.move_y or r.move_x]
    kept = [r for r in known if not (r.move_y or r.move_x)]
    _plot_shifts(axes[0, 0], kept, shifted)
    _plot_gains(axes[0, 1], kept, shifted)
    return figure


def _plot_shifts(axis: Axes, kept: Sequence[PairRecord], shifted: Sequence[PairRecord]) -> None:
    groups = ((kept, COLOURS[0], "not corrected"), (shifted, NOISY, "corrected, integer shift"))
    for ours, colour, label in groups:
        xs, ys = [r.shift_x or 0.0 for r in ours], [r.shift_y or 0.0 for r in ours]
        axis.scatter(xs, ys, s=14, color=colour, alpha=0.6, label=f"{label} ({len(ours)})")
    distances = [max(abs(r.shift_y or 0), abs(r.shift_x or 0)) for r in (*kept, *shifted)]
    reach = 1.1 * max([1.0, *distances])
    axis.set(title="Estimated shift, pixels", xlabel="right", ylabel="down")
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axis.set_aspect("equal")
    axis.legend(fontsize=9, frameon=False)


def _plot_gains(axis: Axes, kept: Sequence[PairRecord], shifted: Sequence[PairRecord]) -> None:
    gains = [[r.shift_gain or 0.0 for r in ours] for ours in (kept, shifted)]
    bins = np.linspace(0, max([0.2, *gains[0], *gains[1]]), 40).tolist()
    axis.hist(gains, bins=bins, stacked=True, color=[COLOURS[0], NOISY])
    axis.axvline(BELIEVED_GAIN, color="#777777", linestyle="--", linewidth=1)
    axis.set(
        title="Gain of the shift; believed right of the line",
        xlabel="share of 1 - correlation",
        ylabel="pairs",
    )
    axis.set_yscale("symlog", linthresh=1)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if not gains[0] and not gains[1]:
        show_text(axis, "no shift was measured")


def exposures(rows: Sequence[PairRecord]) -> Figure | None:
    """Gains of the channels by which clean photos were matched; None if none was estimated."""
    estimated = [r for r in rows if r.gain_error is not None]
    if not estimated:
        return None
    figure, axes = new_figure(1, 3, 3.2)
    gains = np.array([r.gains for r in estimated if r.gains is not None]).reshape(-1, 3)
    reach = max(0.02, float(np.abs(np.log2(gains)).max(initial=0)))
    for channel, (axis, (name, colour)) in enumerate(zip(axes[0], CHANNELS.items(), strict=True)):
        axis.hist(np.log2(gains[:, channel]), bins=np.linspace(-reach, reach, 31), color=colour)
        axis.set(title=f"Gain of {name}", xlabel="exposure values", ylabel="pairs")
    return figure


def splits(rows: Sequence[PairRecord]) -> Figure:
    """Share of each camera in the pairs of each split."""
    cameras = sorted({camera_of(r) for r in rows})
    counts = Counter((r.split, camera_of(r)) for r in rows)
    figure, axes = new_figure(height=1.2 + 0.4 * len(SPLITS) + 0.18 * len(cameras))
    axis = axes[0, 0]
    left = np.zeros(len(SPLITS))
    totals = np.array([max(sum(counts[s, c] for c in cameras), 1) for s in SPLITS])
    for camera, colour in assign_colours(cameras).items():
        share = np.array([counts[s, camera] for s in SPLITS]) / totals * 100
        axis.barh(SPLITS, share, left=left, color=colour, label=camera, edgecolor="white")
        left += share
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set(title="Cameras in each split", xlabel="share of the split's pairs, %", xlim=(0, 100))
    axis.legend(fontsize=8, frameon=False, ncols=1, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
