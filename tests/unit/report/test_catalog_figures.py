"""Figures of a catalog."""

import io

from unit.support import pair_record

from degrain.report.catalog_figures import cameras_and_sizes, settings, splits
from degrain.report.plots import camera_name


def test_shutters_are_shown_as_they_are_written() -> None:
    shutters = ["1/125", "0.5", "1/60", "1/60"]
    figure = settings([pair_record(id=f"c/{n}", shutter=s) for n, s in enumerate(shutters)])
    shown = {label.get_text() for label in figure.axes[1].get_yticklabels()}
    assert shown == {"1/125", "0.5", "1/60"}


def test_a_camera_may_have_any_name() -> None:
    rows = [pair_record(id="c/a", camera=r"$\frac$", iso=100), pair_record(id="c/b", camera="50 $")]
    # A table shows it as it is.
    assert camera_name(rows[0]) == r"pairs $\frac$"
    for figure in (cameras_and_sizes(rows), settings(rows), splits(rows)):
        figure.savefig(io.BytesIO(), format="png")
