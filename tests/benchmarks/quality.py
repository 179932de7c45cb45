"""What a network learns in a time: PSNR and SSIM on whole photos against minutes of training.

    python tests/benchmarks/quality.py --data PATCHES --out runs/quality \
        --runs fast16 fast24 fast24@starter unet --minutes 2 5 15 --split val

Each run is `degrain train --budget` as a user types it; NAME@starter starts from the starter model,
NAME+balance=0.5+loss=l1 sets options.
A run that is in the output folder is not repeated, so that an interrupted ladder continues;
--no-training leaves out those that are not. The table and the plot, in dB against minutes, have a
column and a panel per corpus; noisy, filters, the starter and models named by --also LABEL=FOLDER
are lines. Choose by the val split, look at the test split once.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from cli import CODE
from matplotlib.figure import Figure
from table import Table, print_tables, progress

from degrain.imaging.filters import create_filter
from degrain.imaging.metrics import score_photo
from degrain.imaging.pixels import peak
from degrain.inference.config import STARTER
from degrain.inference.denoiser import Denoiser, Identity
from degrain.patchsets.patch_set import PatchSet
from degrain.registry.resolver import Resolver
from degrain.storage.location import Storage

CLEAN_INPUT_DB = 38.0
"""PSNR from which on a noisy photo counts as nearly clean."""


@dataclass(frozen=True)
class PhotoScore:
    """Scores of one output, and what the denoiser does to photos that need none."""

    corpus: str
    pair: str
    psnr: float
    ssim: float
    noisy_psnr: float
    colour_shift: float
    """Largest difference of a channel's mean between output and input, of 255."""
    clean_psnr: float
    """PSNR of the output for the clean photo as input."""


def score(denoiser: Denoiser, patch_set: PatchSet, split: str) -> list[PhotoScore]:
    """Score a denoiser on all whole photos of a split, by the protocol `rgb8`."""
    found: list[PhotoScore] = []
    for row in patch_set.photos(split):
        noisy, clean = patch_set.source.load(row)
        output, again = denoiser(noisy), denoiser(clean)
        scored = score_photo(output, clean)
        shift = abs(output.mean((0, 1)) - noisy.mean((0, 1))).max() * 255 / peak(noisy)
        found.append(
            PhotoScore(
                corpus=row.corpus,
                pair=row.id,
                psnr=scored.psnr,
                ssim=scored.ssim,
                noisy_psnr=score_photo(noisy, clean).psnr,
                colour_shift=float(shift),
                clean_psnr=min(score_photo(again, clean).psnr, 99.0),
            )
        )
    return found


def cached(file: Path, denoiser: Denoiser, patch_set: PatchSet, split: str) -> list[PhotoScore]:
    """Score a denoiser, or read the scores of an earlier call."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        scores = [asdict(s) for s in score(denoiser, patch_set, split)]
        file.write_text(json.dumps(scores, indent=1))
        progress(f"scored {file.stem}")
    return [PhotoScore(**raw) for raw in json.loads(file.read_text())]


def summary_file(run: str, minutes: float, seed: int, out: Path) -> Path:
    """The file that a finished run has in its folder."""
    return out / "runs" / f"{run}-{minutes:g}m-seed{seed}" / "summary.json"


def train(run: str, minutes: float, seed: int, data: str, out: Path) -> Path:
    """Train unless that was done before; returns the folder of the model."""
    done = summary_file(run, minutes, seed, out)
    folder = done.parent
    if not done.exists():
        network, *changes = run.split("+")
        model, _, start = network.partition("@")
        choice = ["--start", start] if start else ["--model", model]
        for name, _, value in (change.partition("=") for change in changes):
            choice += [f"--{name}", value]
        command = [sys.executable, "-c", CODE, "train", "--data", data, *choice]
        command += ["--budget", f"{round(minutes * 60)}s", "--seed", str(seed)]
        command += ["--out", str(folder), "--mlflow", str(_tracking(out)), "--summary", str(done)]
        folder.mkdir(parents=True, exist_ok=True)
        progress(f"training {folder.name}")
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder / str(json.loads(done.read_text())["name"]) / "model"


def _tracking(out: Path) -> Path:
    """A tracking configuration in the output folder."""
    file = out / "mlflow.yaml"
    if not file.exists():
        file.write_text("tracking_uri: sqlite:///mlflow.db\nartifacts: mlartifacts\n")
    return file


def mean_by_corpus(scores: Sequence[PhotoScore]) -> dict[str, tuple[float, float]]:
    """Mean PSNR and SSIM over the photos of each corpus."""
    groups: dict[str, list[PhotoScore]] = defaultdict(list)
    for one in scores:
        groups[one.corpus].append(one)
    return {
        corpus: (fmean(s.psnr for s in group), fmean(s.ssim for s in group))
        for corpus, group in sorted(groups.items())
    }


def cells(scores: Sequence[PhotoScore]) -> list[str]:
    """Cells of the table: PSNR and SSIM per corpus, then the figures of no harm."""
    nearly_clean = [s.psnr - s.noisy_psnr for s in scores if s.noisy_psnr > CLEAN_INPUT_DB]
    harm = f"{fmean(nearly_clean):+.2f} ({len(nearly_clean)})" if nearly_clean else "-"
    return [
        *(f"{psnr:.2f} / {ssim:.3f}" for psnr, ssim in mean_by_corpus(scores).values()),
        harm,
        f"{max(s.colour_shift for s in scores):.2f}",
        f"{min(s.clean_psnr for s in scores):.1f}",
    ]


def plot(
    curves: Mapping[str, Mapping[float, Sequence[PhotoScore]]],
    lines: Mapping[str, Sequence[PhotoScore]],
    file: Path,
) -> None:
    """Write the plot: a panel per corpus, a curve per run, a dashed line per other denoiser."""
    corpora = list(mean_by_corpus(next(iter(lines.values()))))
    figure = Figure(figsize=(4.2 * len(corpora), 4), layout="constrained")
    axes = figure.subplots(1, len(corpora), squeeze=False)[0]
    for axis, corpus in zip(axes, corpora, strict=True):
        for number, (name, scores) in enumerate(lines.items()):
            level = mean_by_corpus(scores)[corpus][0]
            axis.axhline(level, linestyle="--", linewidth=1, color=f"C{number + 5}", label=name)
        for number, (name, points) in enumerate(curves.items()):
            values = [mean_by_corpus(points[m])[corpus][0] for m in sorted(points)]
            axis.plot(sorted(points), values, marker="o", color=f"C{number}", label=name)
        axis.set(title=corpus, xlabel="minutes of training", ylabel="PSNR, dB", xscale="log")
        minutes = sorted({m for points in curves.values() for m in points})
        axis.set_xticks(minutes, [f"{m:g}" for m in minutes])
        axis.minorticks_off()
    axes[-1].legend(fontsize=7)
    figure.savefig(file, dpi=110)


def main() -> int:
    """Train, score, and print the table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", required=True, help="patch set")
    options.add_argument("--out", type=Path, required=True, help="folder for runs and scores")
    options.add_argument("--runs", nargs="*", default=["fast24", "fast24@starter"])
    options.add_argument("--minutes", nargs="*", type=float, default=[2, 5, 15])
    options.add_argument("--seeds", nargs="*", type=int, default=[0])
    options.add_argument("--split", choices=("val", "test"), default="val")
    options.add_argument("--no-training", action="store_true", help="only what was trained before")
    options.add_argument("--filters", nargs="*", default=["nlm"], help="nlm, bm3d, ...")
    options.add_argument("--also", nargs="*", default=[], metavar="LABEL=FOLDER")
    chosen = options.parse_args()
    out: Path = chosen.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    storage = Storage.from_environment()
    patch_set = PatchSet.open(chosen.data, storage)
    scores_folder = out / f"scores-{chosen.split}"

    others: dict[str, Denoiser] = {"noisy": Identity()}
    others |= {name: create_filter(name) for name in chosen.filters}
    others |= {STARTER: Resolver(None, storage).load(STARTER)[0]}
    others |= {
        label: Resolver(None, storage).load(folder)[0]
        for label, _, folder in (text.partition("=") for text in chosen.also)
    }
    lines = {
        name: cached(scores_folder / f"{name}.json", denoiser, patch_set, chosen.split)
        for name, denoiser in others.items()
    }
    rows = [[name, "", *cells(scores)] for name, scores in lines.items()]
    curves: dict[str, dict[float, list[PhotoScore]]] = defaultdict(dict)
    for run in chosen.runs:
        for minutes in chosen.minutes:
            for seed in chosen.seeds:
                if chosen.no_training and not summary_file(run, minutes, seed, out).exists():
                    continue
                model = train(run, minutes, seed, chosen.data, out)
                file = scores_folder / f"{model.parents[1].name}.json"
                denoiser = Resolver(None, storage).load(str(model))[0]
                scores = cached(file, denoiser, patch_set, chosen.split)
                curves[run].setdefault(minutes, []).extend(scores)
                rows.append([f"{run} (seed {seed})", f"{minutes:g}", *cells(scores)])
    corpora = mean_by_corpus(next(iter(lines.values())))
    columns = ["model", "minutes", *corpora]
    columns += [f"gain above {CLEAN_INPUT_DB:g} dB", "colour shift", "clean input dB"]
    count = len(next(iter(lines.values())))
    print_tables([Table(columns, rows, f"{count} whole {chosen.split} photos; PSNR dB / SSIM")])
    plot(curves, lines, out / f"quality-{chosen.split}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
