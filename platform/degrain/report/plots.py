"""Style and parts that the figures of the report share."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from degrain.corpora.record import PairRecord
from degrain.report.facts import BINS, PairFacts

WIDTH_INCHES = 10.0
NOISY, CLEAN = "#c2410c", "#1d4ed8"
CHANNELS = {"red": "#b91c1c", "green": "#15803d", "blue": "#1d4ed8"}
# Colours for colour-blind readers: Okabe and Ito's, then some of Tol's.
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#444444"),
    *("#332288", "#882255", "#999933", "#aa4499", "#117733", "#bbbbbb"),
)


def new_figure(
    rows: int = 1, columns: int = 1, height: float = 3.6
) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure of page width, with axes (rows, columns) in the page's style."""
    figure = Figure(figsize=(WIDTH_INCHES, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def camera_name(row: PairRecord) -> str:
    """Return the corpus of a camera and its name."""
    return f"{row.corpus} {row.camera}" if row.camera else f"{row.corpus} (camera unknown)"


def camera_of(row: PairRecord) -> str:
    """Return the label of a camera in a figure."""
    # EXIF may hold any text, and matplotlib would read what is between two of them as a formula.
    return camera_name(row).replace("$", r"\$")


def by_camera(facts: Iterable[PairFacts]) -> dict[str, list[PairFacts]]:
    """Group facts by camera, sorted by its name."""
    groups: dict[str, list[PairFacts]] = defaultdict(list)
    for one in facts:
        groups[camera_of(one.row)].append(one)
    return dict(sorted(groups.items()))


def assign_colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour per name."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(sorted(set(names)))}


def plot_bars(axis: Axes, counts: Mapping[str, int], title: str, *, most: int = 20) -> None:
    """Plot counts as horizontal bars, the largest on top, with their numbers."""
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in shown[most:])
    shown = shown[:most] + ([(f"{len(counts) - most} others", rest)] if rest else [])
    names, values = [name for name, _ in shown][::-1], [count for _, count in shown][::-1]
    bars = axis.barh(names, values, color=COLOURS[0])
    axis.bar_label(bars, padding=3, fontsize=9)
    axis.set_title(title)
    axis.set_xlabel("pairs")
    axis.grid(visible=False, axis="y")
    axis.margins(x=0.12)


def set_iso_axis(axis: Axes) -> None:
    """Scale and label the horizontal axis for ISO values."""
    axis.set_xscale("log", base=2)
    axis.set_xlabel("ISO")
    axis.xaxis.set_major_locator(FixedLocator([25, 100, 400, 1600, 6400, 25600, 102400]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def show_text(axis: Axes, text: str) -> None:
    """Show a text in place of data."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color="#777777")
    axis.set_xticks([])
    axis.set_yticks([])


def plot_histogram(axis: Axes, counts: NDArray[np.int64]) -> None:
    """Plot (2, BINS) counts of noisy and clean values as shares."""
    places = (np.arange(BINS) + 0.5) * (256 / BINS)
    for line, name, colour in zip(counts, ("noisy", "clean"), (NOISY, CLEAN), strict=True):
        axis.plot(places, 100 * line / max(line.sum(), 1), color=colour, label=name, linewidth=1.5)
    axis.set(xlabel="intensity, 0 to 255", xlim=(0, 255), ylim=(0, None))


def shorten(text: str, most: int = 44) -> str:
    """Cut the middle out of a text that is longer than `most`."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"
