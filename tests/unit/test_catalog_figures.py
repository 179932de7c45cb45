"""Figures of a catalog."""

from unit.support import pair_record

from degrain.report.catalog_figures import settings


def test_shutters_are_shown_as_they_are_written() -> None:
    shutters = ["1/125", "0.5", "1/60", "1/60"]
    figure = settings([pair_record(id=f"c/{n}", shutter=s) for n, s in enumerate(shutters)])
    shown = {label.get_text() for label in figure.axes[1].get_yticklabels()}
    assert shown == {"1/125", "0.5", "1/60"}
