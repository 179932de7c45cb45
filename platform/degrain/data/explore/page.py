"""The page: figures and tables of a patch set in one HTML file that needs nothing else."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from matplotlib.figure import Figure

from degrain.data.catalog import CatalogRow
from degrain.data.explore import figures
from degrain.data.explore.facts import PairFacts, RefusedFacts
from degrain.data.patches import PatchSet
from degrain.data.splits import SPLITS
from degrain.imaging.codecs import encode_png
from degrain.imaging.pixels import Photo

_DPI = 130
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1040px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2.2em; border-bottom: 1px solid #ddd; padding-bottom: .2em; }
img.figure { width: 100%; } table { border-collapse: collapse; font-size: 14px; } p.note { color: #555; max-width: 46em; }
th, td { padding: .25em .9em .25em 0; text-align: left; border-bottom: 1px solid #eee; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; } nav a { margin-right: 1em; }
td img { height: 96px; image-rendering: auto; } code { overflow-wrap: anywhere; }
"""


@dataclass
class Report:
    """A page being written, and its figures by name."""

    title: str
    figures: dict[str, bytes] = field(default_factory=dict)
    """PNG files."""
    _parts: list[str] = field(default_factory=list)
    _headings: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._headings.append(text)
        self._parts.append(f'<h2 id="{_anchor(text)}">{escape(text)}</h2>')

    def note(self, text: str) -> None:
        """Say something."""
        self._parts.append(f'<p class="note">{escape(text)}</p>')

    def figure(self, name: str, figure: Figure, description: str) -> None:
        """Show a figure; `description` is for those who cannot see it."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI)
        self.figures[name] = buffer.getvalue()
        self._parts.append(f'<img class="figure" alt="{escape(description)}" src="{_data_uri(self.figures[name])}">')

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Show a table; numbers stand right, photos are shown as pictures."""
        head = "".join(f"<th>{escape(h)}</th>" for h in header)
        body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def html(self) -> bytes:
        """The whole page."""
        links = "".join(f'<a href="#{_anchor(h)}">{escape(h)}</a>' for h in self._headings)
        head = f'<meta charset="utf-8"><title>{escape(self.title)}</title><style>{_STYLE}</style>'
        body = f"<h1>{escape(self.title)}</h1><nav>{links}</nav>{''.join(self._parts)}"
        return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'.encode()


def _anchor(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _cell(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f'<td><img alt="" src="{_data_uri(encode_png(value))}"></td>'
    if isinstance(value, int | float):
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
        return f'<td class="number">{text}</td>'
    return f"<td>{escape(str(value))}</td>"


def write_report(patch_set: PatchSet, facts: Sequence[PairFacts], refused: Sequence[RefusedFacts]) -> Report:
    """The report of a patch set; `facts` may be of some of its pairs only, which the page then says."""
    manifest, rows = patch_set.manifest, patch_set.catalog
    used = [row for row in rows if row.refused is None]
    report = Report(f"Patch set {manifest.version}")
    _write_overview(report, patch_set, rows, used)
    if len(facts) < len(used):
        report.note(
            f"Figures that need pixels are of {len(facts)} of the {len(used)} pairs, spread evenly over the catalog; the "
            "others are of all pairs."
        )
    report.heading("What was photographed with")
    report.figure("cameras", figures.cameras_and_sizes(used), "Bars of pairs per camera and per resolution")
    report.figure("settings", figures.settings(used), "ISO by camera, shutter, brightness")
    report.heading("Brightness")
    report.figure("brightness", figures.brightness(facts), "Mean and deviation of noisy against clean photos")
    report.note("Off the line, noisy and clean photo differ in exposure, or the noise is clipped at black or white.")
    report.figure("histograms", figures.histograms(facts), "Histograms of all photos per channel")
    report.heading("Single photos")
    report.figure("photos", figures.single_photos(facts), "Crops and histograms of a few photos")
    report.note("From the least noisy photo to the noisiest; the crops show where the clean photo has most detail.")
    report.heading("How noisy")
    report.figure("quality", figures.quality(facts), "PSNR and SSIM of noisy photos by camera and ISO")
    _write_scores(report, facts)
    report.heading("What noise")
    report.figure("noise", figures.noise_levels(facts), "Noise variance against signal with fitted lines")
    report.note(
        "In linear light (the sRGB curve undone); the line is the Poisson-Gaussian model, gain x signal + read. "
        "Where the points bend away from it, the camera's own tone curve, its denoising or clipping does that."
    )
    report.figure("correlation", figures.noise_correlation(facts), "Correlation of the noise with itself by distance")
    report.note("A model trained on white noise does badly on correlated noise, and the reverse.")
    report.heading("Alignment")
    report.figure("shifts", figures.shifts(rows), "Estimated shifts and what moving would gain")
    _write_moved(report, rows)
    report.heading("Refused pairs")
    _write_refused(report, rows, refused)
    report.heading("Splits")
    report.figure("splits", figures.splits(used), "Share of cameras in each split")
    _write_splits(report, patch_set, used)
    return report


def _write_overview(report: Report, patch_set: PatchSet, rows: Sequence[CatalogRow], used: Sequence[CatalogRow]) -> None:
    manifest = patch_set.manifest
    megapixels = sum((r.height or 0) * (r.width or 0) for r in used) / 1e6
    geometry = manifest.geometry
    report.note(
        f"{patch_set.uri}: {len(rows)} pairs, {manifest.refused} refused, {len({r.scene for r in used})} scenes, "
        f"{megapixels:,.1f} megapixels of noisy photos. {manifest.patches():,} patches of {geometry.patch_size} pixels "
        f"every {geometry.stride}, {manifest.border}; they cover {manifest.covered:.1%} of the pixels, each "
        f"{manifest.overlap:.2f} times on average."
    )
    by_corpus: dict[str, list[CatalogRow]] = {}
    for row in rows:
        by_corpus.setdefault(row.corpus, []).append(row)
    report.table(
        ["corpus", "pairs", "refused", "moved", "scenes", "cameras", "bits"],
        [
            (
                corpus,
                len(ours),
                sum(r.refused is not None for r in ours),
                sum(bool(r.move_y or r.move_x) for r in ours),
                len({r.scene for r in ours}),
                len({r.camera for r in ours if r.camera}),
                " and ".join(str(b) for b in sorted({r.bit_depth for r in ours if r.bit_depth})),
            )
            for corpus, ours in by_corpus.items()
        ],
    )


def _write_scores(report: Report, facts: Sequence[PairFacts]) -> None:
    scored = [f for f in facts if f.score is not None and np.isfinite(f.score.psnr)]
    cameras = sorted({figures.camera_of(f.row) for f in scored})
    report.table(
        ["camera", "pairs", "PSNR, dB", "SSIM"],
        [
            (
                camera,
                len(ours := [f.score for f in scored if figures.camera_of(f.row) == camera and f.score]),
                float(np.mean([s.psnr for s in ours])),
                f"{np.mean([s.ssim for s in ours]):.3f}",
            )
            for camera in cameras
        ],
    )


def _write_moved(report: Report, rows: Sequence[CatalogRow]) -> None:
    moved = [r for r in rows if r.move_y or r.move_x]
    if not moved:
        report.note("No pair was moved.")
        return
    report.note(f"{len(moved)} pairs were put right by whole pixels:")
    report.table(
        ["pair", "estimated down, pixels", "right, pixels", "moved down", "right", "gain"],
        [
            (r.id, float(r.shift_y or 0), float(r.shift_x or 0), r.move_y or 0, r.move_x or 0, float(r.shift_gain or 0))
            for r in moved
        ],
    )


def _write_refused(report: Report, rows: Sequence[CatalogRow], refused: Sequence[RefusedFacts]) -> None:
    count = sum(r.refused is not None for r in rows)
    if not count:
        report.note("No pair was refused.")
        return
    if len(refused) < count:
        report.note(f"The first {len(refused)} of {count}; the catalog has all.")
    unreadable = "does not decode"
    report.table(
        ["pair", "why", "noisy", "clean"],
        [(f.row.id, f.row.refused, *(_or(t, unreadable) for t in f.thumbnails)) for f in refused],
    )


def _or(photo: Photo | None, text: str) -> Photo | str:
    return text if photo is None else photo


def _write_splits(report: Report, patch_set: PatchSet, used: Sequence[CatalogRow]) -> None:
    pairs, scenes = Counter(r.split for r in used), Counter(split for split, _ in {(r.split, r.scene) for r in used})
    report.table(
        ["split", "scenes", "pairs", "patches"],
        [(split, scenes[split], pairs[split], patch_set.manifest.patches(split)) for split in SPLITS],
    )
    for split in ("val", "test"):
        names = sorted({r.scene for r in used if r.split == split})
        shown = ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
        report.note(f"{split}: {shown}")
    report.note("Weights that make every camera and ISO of a split count the same:")
    report.table(
        ["split", "corpus", "camera", "ISO", "pairs", "patches", "weight"],
        [
            (g.split, g.corpus, g.camera or "", "" if g.iso is None else g.iso, g.pairs, g.patches, float(g.weight))
            for g in patch_set.manifest.groups
        ],
    )
