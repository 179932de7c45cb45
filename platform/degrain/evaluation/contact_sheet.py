"""Contact sheet of a comparison's example photos."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from degrain.evaluation.comparison import Comparison, Example
from degrain.imaging.pixels import Photo, eight_bits


def contact_sheet(comparison: Comparison, columns: Sequence[str]) -> bytes:
    """A PNG file with one row per example: noisy, each denoiser in `columns`, clean.

    Captions show PSNR and SSIM of the whole photo, and the pair's name at the left.
    """
    titles = ["noisy", *columns, "clean"]
    figure = Figure(
        figsize=(2.5 * len(titles), 2.95 * len(comparison.examples)), layout="constrained"
    )
    axes = figure.subplots(len(comparison.examples), len(titles), squeeze=False)
    for line, example in zip(axes, comparison.examples, strict=True):
        for axis, title, photo in zip(line, titles, _photos(example, columns), strict=True):
            axis.imshow(eight_bits(photo), interpolation="nearest")
            axis.set_title(title, fontsize=10)
            axis.set_xlabel(_caption(example, title), fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(_name(example), fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, dpi=110, format="png")
    return file.getvalue()


def _photos(example: Example, columns: Sequence[str]) -> list[Photo]:
    return [example.noisy, *(example.outputs[c] for c in columns), example.clean]


def _name(example: Example) -> str:
    _, _, name = example.photo.id.partition("/")
    return name if len(name) < 38 else f"{name[:18]}…{name[-18:]}"


def _caption(example: Example, title: str) -> str:
    if title == "clean":
        return ""
    score = example.scores[title]
    return f"{score.psnr:.2f} dB  SSIM {score.ssim:.3f}"
