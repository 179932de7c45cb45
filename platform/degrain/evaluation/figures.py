"""Pictures of a comparison."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from degrain.evaluation.comparison import Comparison, Example
from degrain.imaging.metrics import Score, score_photo
from degrain.imaging.pixels import Photo

CROP_SIDE = 160
"""Side of the crops in pixels."""


def busiest_corner(photo: Photo, side: int) -> tuple[int, int]:
    """Top and left of the crop of `side` pixels whose brightness varies most, on a grid of half crops."""
    grey = photo.mean(axis=2)
    height, width = grey.shape
    places = [
        (y, x)
        for y in range(0, max(height - side, 0) + 1, max(side // 2, 1))
        for x in range(0, max(width - side, 0) + 1, max(side // 2, 1))
    ]
    return max(places, key=lambda p: float(np.var(grey[p[0] : p[0] + side, p[1] : p[1] + side])))


def save_crops(comparison: Comparison, columns: Sequence[str], path: Path) -> None:
    """Write a picture with a row per example: noisy, each denoiser in `columns`, clean, side by side.

    Captions give PSNR and SSIM of the whole photo.
    """
    titles = ["noisy", *columns, "clean"]
    figure = Figure(figsize=(2.5 * len(titles), 2.95 * len(comparison.examples)), layout="constrained")
    axes = figure.subplots(len(comparison.examples), len(titles), squeeze=False)
    for line, example in zip(axes, comparison.examples, strict=True):
        side = min(CROP_SIDE, *example.clean.shape[:2])
        top, left = busiest_corner(example.clean, side)
        for axis, title, photo in zip(line, titles, _photos(example, columns), strict=True):
            axis.imshow(photo[top : top + side, left : left + side], interpolation="nearest")
            axis.set_title(title, fontsize=10)
            axis.set_xlabel(_caption(example, title, photo), fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.savefig(path, dpi=110)


def _photos(example: Example, columns: Sequence[str]) -> list[Photo]:
    return [example.noisy, *(example.outputs[c] for c in columns), example.clean]


def _caption(example: Example, title: str, photo: Photo) -> str:
    if title == "clean":
        _, _, name = example.photo.id.partition("/")
        return name if len(name) < 38 else f"{name[:18]}…{name[-18:]}"
    score: Score = score_photo(photo, example.clean)
    return f"{score.psnr:.2f} dB  SSIM {score.ssim:.3f}"
