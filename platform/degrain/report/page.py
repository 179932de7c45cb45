"""The report page of a patch set: figures and tables by section."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from degrain.corpora.record import PairRecord
from degrain.patchsets.patch_set import PatchSet
from degrain.patchsets.splits import SPLITS
from degrain.report import catalog_figures, figures
from degrain.report.facts import PairFacts, RefusedFacts
from degrain.report.html_report import Report
from degrain.report.plots import camera_name


def write_report(
    patch_set: PatchSet, facts: Sequence[PairFacts], refused: Sequence[RefusedFacts]
) -> Report:
    """Make the report of a patch set; the page states if the facts are of some pairs only."""
    rows = patch_set.catalog
    used = [row for row in rows if row.refused is None]
    report = Report(f"Patch set {patch_set.manifest.version}")
    _write_overview(report, patch_set, rows, used)
    if len(facts) < len(used):
        report.note(
            f"Figures of pixels show {len(facts)} of the {len(used)} pairs, evenly spaced over "
            "the catalog; the others show all pairs."
        )
    _write_settings(report, used)
    _write_brightness(report, facts)
    _write_scores(report, facts)
    _write_noise(report, facts)
    report.heading("Alignment")
    report.figure("shifts", catalog_figures.shifts(rows), "Estimated shifts and their gains")
    _write_shifted(report, rows)
    _write_exposure(report, used)
    report.heading("Refused pairs")
    _write_refused(report, rows, refused)
    report.heading("Splits")
    report.figure("splits", catalog_figures.splits(used), "Share of cameras in each split")
    _write_splits(report, patch_set, used)
    return report


def _write_settings(report: Report, used: Sequence[PairRecord]) -> None:
    report.heading("Cameras and settings")
    cameras = catalog_figures.cameras_and_sizes(used)
    report.figure("cameras", cameras, "Bars of pairs per camera and per resolution")
    report.figure("settings", catalog_figures.settings(used), "ISO by camera, shutter, brightness")


def _write_brightness(report: Report, facts: Sequence[PairFacts]) -> None:
    report.heading("Brightness")
    brightness = figures.brightness(facts)
    report.figure("brightness", brightness, "Mean and deviation of noisy against clean photos")
    report.note(
        "Off the line, noisy and clean photo differ in exposure, or the noise is clipped at black "
        "or white."
    )
    report.figure("histograms", figures.histograms(facts), "Histograms of all photos per channel")
    report.heading("Single photos")
    report.figure("photos", figures.single_photos(facts), "Crops and histograms of a few photos")
    report.note(
        "From the least noisy photo to the noisiest; crops are where the clean photo has most "
        "detail."
    )


def _write_noise(report: Report, facts: Sequence[PairFacts]) -> None:
    report.heading("Noise")
    levels = figures.noise_levels(facts)
    report.figure("noise", levels, "Noise variance against signal with fitted lines")
    report.note(
        "In linear light (the sRGB curve undone); the line is the Poisson-Gaussian model, gain x "
        "signal + read. The camera's tone curve, its denoising or clipping bend the points away "
        "from it."
    )
    correlation = figures.noise_correlation(facts)
    report.figure("correlation", correlation, "Correlation of the noise with itself by distance")
    report.note("A model trained on white noise denoises correlated noise badly, and vice versa.")


def _write_overview(
    report: Report, patch_set: PatchSet, rows: Sequence[PairRecord], used: Sequence[PairRecord]
) -> None:
    manifest = patch_set.manifest
    megapixels = sum((r.height or 0) * (r.width or 0) for r in used) / 1e6
    geometry = manifest.geometry
    report.note(
        f"{patch_set.uri}: {len(rows)} pairs, {manifest.refused} refused, "
        f"{len({r.scene for r in used})} scenes, {megapixels:,.1f} megapixels of noisy photos. "
        f"{manifest.patches():,} patches of {geometry.patch_size} pixels every {geometry.stride}, "
        f"{manifest.border}; they cover {manifest.covered:.1%} of the pixels, each "
        f"{manifest.overlap:.2f} times on average."
    )
    by_corpus: dict[str, list[PairRecord]] = {}
    for row in rows:
        by_corpus.setdefault(row.corpus, []).append(row)
    report.table(
        ["corpus", "pairs", "refused", "shifted", "scenes", "cameras", "bits"],
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
    report.heading("Scores of the noisy photos")
    quality = figures.quality(facts)
    report.figure("quality", quality, "PSNR and SSIM of noisy photos by camera and ISO")
    scored = [f for f in facts if f.score is not None and np.isfinite(f.score.psnr)]
    cameras = sorted({camera_name(f.row) for f in scored})
    report.table(
        ["camera", "pairs", "PSNR, dB", "SSIM"],
        [
            (
                camera,
                len(ours := [f.score for f in scored if camera_name(f.row) == camera and f.score]),
                float(np.mean([s.psnr for s in ours])),
                f"{np.mean([s.ssim for s in ours]):.3f}",
            )
            for camera in cameras
        ],
    )


def _write_shifted(report: Report, rows: Sequence[PairRecord]) -> None:
    shifted = [r for r in rows if r.move_y or r.move_x]
    if not shifted:
        report.note("No pair was shifted.")
        return
    report.note(f"{len(shifted)} pairs were corrected by an integer shift:")
    report.table(
        ["pair", "estimated down, pixels", "right, pixels", "shift down", "right", "gain"],
        [
            (
                r.id,
                float(r.shift_y or 0),
                float(r.shift_x or 0),
                r.move_y or 0,
                r.move_x or 0,
                float(r.shift_gain or 0),
            )
            for r in shifted
        ],
    )


def _write_exposure(report: Report, used: Sequence[PairRecord]) -> None:
    figure = catalog_figures.exposures(used)
    if figure is None:
        return
    report.heading("Exposure and white balance")
    report.figure("exposures", figure, "Gains of the channels, noisy photo over clean one")
    estimated = [r for r in used if r.gain_error is not None]
    matched, unknown = (
        sum(r.gains is not None for r in estimated),
        sum(r.exposure_unknown for r in estimated),
    )
    report.note(
        f"{matched} clean photos were given the exposure and white balance of their noisy ones; "
        f"{unknown} pairs keep theirs, because too little could be compared, and "
        f"{len(estimated) - matched - unknown} differ by less than 0.5%. Pairs of published "
        "corpora keep their pixels."
    )


def _write_refused(
    report: Report, rows: Sequence[PairRecord], refused: Sequence[RefusedFacts]
) -> None:
    count = sum(r.refused is not None for r in rows)
    if not count:
        report.note("No pair was refused.")
        return
    if len(refused) < count:
        report.note(f"The first {len(refused)} of {count}; the catalog lists all.")
    report.table(
        ["pair", "reason", "noisy", "clean"],
        [(f.row.id, f.row.refused, *f.thumbnails) for f in refused],
    )


def _write_splits(report: Report, patch_set: PatchSet, used: Sequence[PairRecord]) -> None:
    pairs, scenes = (
        Counter(r.split for r in used),
        Counter(split for split, _ in {(r.split, r.scene) for r in used}),
    )
    report.table(
        ["split", "scenes", "pairs", "patches"],
        [
            (split, scenes[split], pairs[split], patch_set.manifest.patches(split))
            for split in SPLITS
        ],
    )
    for split in ("val", "test"):
        names = sorted({r.scene for r in used if r.split == split})
        shown = ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
        report.note(f"{split}: {shown}")
    report.note("Weights that balance the cameras and ISOs of a split:")
    report.table(
        ["split", "corpus", "camera", "ISO", "pairs", "patches", "weight"],
        [
            (
                g.split,
                g.corpus,
                g.camera or "",
                "" if g.iso is None else g.iso,
                g.pairs,
                g.patches,
                float(g.weight),
            )
            for g in patch_set.manifest.groups
        ],
    )
