"""The figures of a report; each takes facts and gives a matplotlib figure that is legible at page width."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from degrain.data.catalog import CatalogRow
from degrain.data.checks import WORTH_MOVING
from degrain.data.explore.facts import BINS, LAGS, PairFacts
from degrain.data.splits import SPLITS
from degrain.imaging.alignment import LARGEST_SHIFT
from degrain.imaging.statistics import fit_line, level_centres

WIDTH_INCHES = 10.0
_NOISY, _CLEAN = "#c2410c", "#1d4ed8"
_CHANNELS = {"red": "#b91c1c", "green": "#15803d", "blue": "#1d4ed8"}
# Okabe and Ito's colours, which those who see no red or green can tell apart, then some of Tol's.
_COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#444444"),
    *("#332288", "#882255", "#999933", "#aa4499", "#117733", "#bbbbbb"),
)
_MOST_GROUPS = 8


def _figure(rows: int = 1, columns: int = 1, height: float = 3.6) -> tuple[Figure, NDArray[np.object_]]:
    figure = Figure(figsize=(WIDTH_INCHES, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def camera_of(row: CatalogRow) -> str:
    """Camera as figures name it: with its corpus."""
    return f"{row.corpus} {row.camera}" if row.camera else f"{row.corpus} (camera unknown)"


def _by_camera(facts: Iterable[PairFacts]) -> dict[str, list[PairFacts]]:
    groups: dict[str, list[PairFacts]] = defaultdict(list)
    for one in facts:
        groups[camera_of(one.row)].append(one)
    return dict(sorted(groups.items()))


def _colours(names: Iterable[str]) -> dict[str, str]:
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(sorted(set(names)))}


def _bars(axis: Axes, counts: Mapping[str, int], title: str, *, most: int = 20) -> None:
    """Horizontal bars, the largest on top, with their numbers."""
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in shown[most:])
    shown = shown[:most] + ([(f"{len(counts) - most} others", rest)] if rest else [])
    names, values = [name for name, _ in shown][::-1], [count for _, count in shown][::-1]
    bars = axis.barh(names, values, color=_COLOURS[0])
    axis.bar_label(bars, padding=3, fontsize=9)
    axis.set_title(title)
    axis.set_xlabel("pairs")
    axis.grid(visible=False, axis="y")
    axis.margins(x=0.12)


def cameras_and_sizes(rows: Sequence[CatalogRow]) -> Figure:
    """Pairs per camera, and per resolution."""
    cameras = Counter(camera_of(row) for row in rows)
    sizes = Counter(f"{row.width} x {row.height}" if row.width else "unknown" for row in rows)
    figure, axes = _figure(1, 2, 1.2 + 0.28 * min(21, max(len(cameras), len(sizes), 4)))
    _bars(axes[0, 0], cameras, "Pairs per camera")
    _bars(axes[0, 1], sizes, "Pairs per resolution, pixels")
    return figure


def settings(rows: Sequence[CatalogRow]) -> Figure:
    """ISO by camera, shutter and brightness."""
    figure, axes = _figure(1, 3, 4.2)
    by_camera: dict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        if row.iso is not None:
            by_camera[camera_of(row)][row.iso] += 1
    axis = axes[0, 0]
    for place, (_, isos) in enumerate(sorted(by_camera.items())):
        axis.scatter(list(isos), [place] * len(isos), s=[20 + 6 * n for n in isos.values()], color=_COLOURS[0], alpha=0.6)
    axis.set_yticks(range(len(by_camera)), sorted(by_camera))
    axis.set_title("ISO by camera (area: pairs)")
    _iso_axis(axis)
    if not by_camera:
        _nothing(axis, "no ISO is known")
    shutters = Counter(f"1/{row.shutter.lstrip('0')}" for row in rows if row.shutter)
    lights = Counter(row.brightness for row in rows if row.brightness)
    parts = ((axes[0, 1], "Shutter, s", shutters), (axes[0, 2], "Brightness", lights))
    for axis, title, counts in parts:
        _bars(axis, counts, title, most=14)
        if not counts:
            _nothing(axis, "not known")
    return figure


def _iso_axis(axis: Axes) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xlabel("ISO")
    axis.xaxis.set_major_locator(FixedLocator([25, 100, 400, 1600, 6400, 25600, 102400]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def _nothing(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color="#777777")
    axis.set_xticks([])
    axis.set_yticks([])


def brightness(facts: Sequence[PairFacts]) -> Figure:
    """Mean and standard deviation of noisy photos against clean ones, per channel."""
    figure, axes = _figure(1, 2, 4.6)
    parts: list[tuple[str, Callable[[PairFacts], NDArray[np.float64]]]] = [
        ("Mean intensity", lambda f: f.mean),
        ("Standard deviation of intensity", lambda f: f.deviation),
    ]
    for axis, (title, value) in zip(axes[0], parts, strict=True):
        values = np.array([value(f) for f in facts])  # (pairs, 2, 3)
        for channel, (name, colour) in enumerate(_CHANNELS.items()):
            axis.scatter(values[:, 1, channel], values[:, 0, channel], s=12, color=colour, alpha=0.55, label=name)
        limit = float(values.max()) * 1.05
        axis.plot([0, limit], [0, limit], color="#777777", linewidth=1, linestyle="--", label="equal")
        axis.set(title=title, xlabel="clean photo, 0 to 255", ylabel="noisy photo, 0 to 255")
        axis.legend(fontsize=9, frameon=False)
    return figure


def histograms(facts: Sequence[PairFacts]) -> Figure:
    """Intensities of the whole corpus, per channel."""
    figure, axes = _figure(1, 3, 3.2)
    total = np.sum([f.histogram for f in facts], axis=0)
    for channel, (axis, name) in enumerate(zip(axes[0], _CHANNELS, strict=True)):
        _histogram(axis, total[:, channel])
        axis.set_title(f"Intensities of all photos, {name}")
    axes[0, 0].set_ylabel("share of pixels, %")
    axes[0, 0].legend(fontsize=9, frameon=False)
    return figure


def _histogram(axis: Axes, counts: NDArray[np.int64]) -> None:
    places = (np.arange(BINS) + 0.5) * (256 / BINS)
    for line, name, colour in zip(counts, ("noisy", "clean"), (_NOISY, _CLEAN), strict=True):
        axis.plot(places, 100 * line / max(line.sum(), 1), color=colour, label=name, linewidth=1.5)
    axis.set(xlabel="intensity, 0 to 255", xlim=(0, 255), ylim=(0, None))


def single_photos(facts: Sequence[PairFacts], count: int = 4) -> Figure:
    """A few photos, from least to most noise: crops of both, and their histograms."""
    ordered = sorted((f for f in facts if f.score is not None), key=lambda f: -f.score.psnr if f.score else 0)
    chosen = [ordered[i] for i in sorted({round(i) for i in np.linspace(0, len(ordered) - 1, min(count, len(ordered)))})]
    figure, axes = _figure(max(len(chosen), 1), 3, 2.7)
    for line, one in zip(axes, chosen, strict=False):
        assert one.score is not None
        for axis, photo, name in zip(line, one.thumbnails, ("noisy", "clean"), strict=False):
            axis.imshow(photo, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(visible=False)
            axis.set_title(name, fontsize=10)
        line[0].set_xlabel(_shortened(one.row.id), fontsize=8)
        line[1].set_xlabel(f"{one.score.psnr:.1f} dB  SSIM {one.score.ssim:.3f}", fontsize=8)
        _histogram(line[2], one.histogram.sum(axis=1))
        line[2].set_ylabel("share of values, %")
        line[2].legend(fontsize=8, frameon=False)
    return figure


def _shortened(text: str, most: int = 44) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"


def quality(facts: Sequence[PairFacts]) -> Figure:
    """PSNR and SSIM of noisy photos, by camera and by ISO."""
    groups = _by_camera(f for f in facts if f.score is not None)
    figure, axes = _figure(2, 2, 0.9 + max(2.7, 0.32 * len(groups)))
    colours = _colours(groups)
    parts: list[tuple[str, Callable[[PairFacts], float]]] = [
        ("PSNR of the noisy photo, dB", lambda f: f.score.psnr if f.score else 0.0),
        ("SSIM of the noisy photo", lambda f: f.score.ssim if f.score else 0.0),
    ]
    for line, (title, value) in zip(axes, parts, strict=True):
        finite = {name: [v for f in ours if np.isfinite(v := value(f))] for name, ours in groups.items()}
        line[0].boxplot(list(finite.values())[::-1], orientation="horizontal", tick_labels=list(finite)[::-1])
        line[0].set(title=f"{title}, by camera")
        line[0].grid(visible=True, axis="x", color="#dddddd", linewidth=0.6)
        for name, ours in groups.items():
            known = [f for f in ours if f.row.iso is not None]
            if known:
                line[1].scatter([f.row.iso for f in known], [value(f) for f in known], s=14, color=colours[name], label=name)
        line[1].set(title=f"{title}, by ISO")
        _iso_axis(line[1])
        if not any(f.row.iso is not None for f in facts):
            _nothing(line[1], "no ISO is known")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def noise_levels(facts: Sequence[PairFacts]) -> Figure:
    """Noise variance against signal for the largest groups of camera and ISO, with the fitted Poisson-Gaussian line."""
    groups: dict[str, list[PairFacts]] = defaultdict(list)
    for one in facts:
        iso = f", ISO {one.row.iso}" if one.row.iso else ""
        groups[f"{camera_of(one.row)}{iso}"].append(one)
    largest = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:_MOST_GROUPS]
    figure, axes = _figure(-(-len(largest) // 4), min(4, max(len(largest), 1)), 3.2)
    x = level_centres()
    for axis, (name, ours) in zip(axes.ravel(), sorted(largest), strict=False):
        count = np.sum([f.level_count for f in ours], axis=0)
        variance = np.sum([f.level_count * f.level_variance for f in ours], axis=0) / np.maximum(count, 1)
        shown = count > count.sum() * 1e-4
        gain, read = fit_line(count, variance)
        axis.scatter(x[shown], variance[shown] * 1e3, s=14, color=_NOISY)
        axis.plot(x, (gain * x + read) * 1e3, color=_CLEAN, linewidth=1.5, label=f"{gain * 1e3:.2f} x + {read * 1e3:.2f}")
        axis.set_title(f"{name} ({len(ours)})", fontsize=9)
        axis.set(xlabel="linear light, 0 to 1", xlim=(0, 1), ylim=(0, 1.3e3 * float(variance[shown].max())))
        axis.legend(fontsize=8, frameon=False)
    for axis in axes.ravel()[len(largest) :]:
        axis.set_visible(False)
    for line in axes:
        line[0].set_ylabel("noise variance, 1/1000")
    return figure


def noise_correlation(facts: Sequence[PairFacts]) -> Figure:
    """How far the noise of neighbouring pixels depends on each other, by camera."""
    figure, axes = _figure(height=3.8)
    axis = axes[0, 0]
    groups = _by_camera(facts)
    for (name, ours), colour in zip(groups.items(), _colours(groups).values(), strict=True):
        lags = np.median([f.correlation for f in ours], axis=0)
        axis.plot([0, *LAGS], [1, *lags], marker="o", markersize=4, color=colour, label=f"{name} ({len(ours)})")
    axis.axhline(0, color="#777777", linewidth=0.8)
    axis.set(title="Correlation of the noise with itself (median over pairs); white noise has 0 from distance 1 on")
    axis.set(xlabel="distance in rows or columns, pixels", ylabel="correlation")
    axis.set_xticks([0, *LAGS])
    axis.legend(fontsize=8, frameon=False, ncols=2)
    return figure


def shifts(rows: Sequence[CatalogRow]) -> Figure:
    """Where noisy photos lie against their clean ones."""
    figure, axes = _figure(1, 2, 4.6)
    known = [r for r in rows if r.shift_y is not None and r.shift_x is not None and r.shift_gain is not None]
    moved = [r for r in known if r.move_y or r.move_x]
    kept = [r for r in known if not (r.move_y or r.move_x)]
    axis = axes[0, 0]
    for ours, colour, label in ((kept, _COLOURS[0], "left as it is"), (moved, _NOISY, "moved by whole pixels")):
        xs, ys = [r.shift_x for r in ours], [r.shift_y for r in ours]
        axis.scatter(xs, ys, s=14, color=colour, alpha=0.6, label=f"{label} ({len(ours)})")
    reach = max([1.0, *(min(max(abs(r.shift_y or 0), abs(r.shift_x or 0)), LARGEST_SHIFT) for r in known)]) * 1.1
    axis.set(title="Estimated shift, pixels", xlabel="right", ylabel="down", xlim=(-reach, reach), ylim=(-reach, reach))
    axis.set_aspect("equal")
    axis.legend(fontsize=9, frameon=False)
    axis = axes[0, 1]
    bins = np.linspace(0, max([0.2, *(r.shift_gain or 0 for r in known)]), 40)
    both = [[r.shift_gain for r in kept], [r.shift_gain for r in moved]]
    axis.hist(both, bins=bins, stacked=True, color=[_COLOURS[0], _NOISY])
    axis.axvline(WORTH_MOVING, color="#777777", linestyle="--", linewidth=1)
    axis.set(title="What moving would gain; believed right of the line", xlabel="share of 1 - correlation", ylabel="pairs")
    axis.set_yscale("symlog", linthresh=1)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if not known:
        _nothing(axis, "no shift was measured")
    return figure


def splits(rows: Sequence[CatalogRow]) -> Figure:
    """How cameras are spread over the splits, by share of their pairs."""
    cameras = sorted({camera_of(r) for r in rows})
    counts = Counter((r.split, camera_of(r)) for r in rows)
    figure, axes = _figure(height=1.2 + 0.4 * len(SPLITS) + 0.18 * len(cameras))
    axis = axes[0, 0]
    left = np.zeros(len(SPLITS))
    totals = np.array([max(sum(counts[s, c] for c in cameras), 1) for s in SPLITS])
    for camera, colour in _colours(cameras).items():
        share = np.array([counts[s, camera] for s in SPLITS]) / totals * 100
        axis.barh(SPLITS, share, left=left, color=colour, label=camera, edgecolor="white")
        left += share
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set(title="Cameras in each split", xlabel="share of the split's pairs, %", xlim=(0, 100))
    axis.legend(fontsize=8, frameon=False, ncols=1, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
