"""Denoise hundreds of odd files at strength 0 and compare the results with independent decoders.

    make torture

Each file goes through `degrain denoise`. libvips, or ImageMagick where libvips cannot, decodes the
file before and after; both must see the same pixels. ExifTool must find the output sound. Both are
of Debian: libvips-tools, imagemagick, libimage-exiftool-perl. Exit status 1 if a file is wrong.
"""

import json
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torture import pillow_cases, tiff_cases
from torture.case import Case

MOST_MEMORY = 900
"""MiB of the process that denoises all files: about 450 are the libraries."""
MOST_SECONDS = 600
CLOSE = 0.02
"""Mean difference, of white, of files whose pixels are encoded anew or get other bits."""
DISPUTED = {"bmp-info-32-": "libvips takes the unused byte of each pixel for opacity"}
"""Beginnings of names of files that an independent decoder reads otherwise, and how."""
MAGICK = "convert-im6.q16"
DECODERS = ("vips", MAGICK, "exiftool")
VIPS_FORMATS = {0: "u1", 1: "i1", 2: "u2", 3: "i2", 4: "u4", 5: "i4", 6: "f4", 8: "f8"}


@dataclass
class Report:
    """What came of the files."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Kind of file to outcome to number."""
    wrong: list[str] = field(default_factory=list)
    """Files with another outcome than theirs, with the reason."""
    undecided: list[str] = field(default_factory=list)
    """Files that no independent decoder reads."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why files are refused."""
    megabytes: float = 0
    """Peak memory of the process that denoised."""


def all_cases() -> Iterator[Case]:
    """Every file."""
    yield from pillow_cases.cases()
    yield from tiff_cases.cases()


def run(cases: Iterable[Case], folder: Path) -> Report:
    """Denoise the files of `cases` below a folder and compare."""
    known = {f"{number:05}-{case.name}{case.suffix}": case for number, case in enumerate(cases)}
    (folder / "in").mkdir()
    for name, case in known.items():
        (folder / "in" / name).write_bytes(case.content)
    report = Report()
    failed = denoise(folder, report)
    accepted = [name for name in known if name not in failed]
    with ThreadPoolExecutor() as pool:
        compared = pool.map(lambda name: compare(folder, name, known[name], report), accepted)
        problems = dict(zip(accepted, compared, strict=True))
    for name, case in known.items():
        kind = case.name.partition("-")[0]
        if name in failed:
            report.counts[kind]["refused"] += 1
            report.reasons[failed[name]] += 1
            if case.outcome != "refused" or failed[name].startswith("unexpected"):
                report.wrong.append(f"{case.name}: refused: {failed[name]}")
        else:
            disputed = any(case.name.startswith(start) for start in DISPUTED)
            outcome = "disputed" if disputed else "wrong" if problems[name] else case.outcome
            report.counts[kind][outcome] += 1
            if outcome == "wrong":
                report.wrong.append(f"{case.name}: {problems[name]}")
    for line in exiftool_warnings(folder):
        report.wrong.append(line)
    return report


def denoise(folder: Path, report: Report) -> dict[str, str]:
    """Run `degrain denoise`; returns the reason of each refused file."""
    summary = folder / "summary.json"
    argv = ["denoise", str(folder / "in"), "--out", str(folder / "out"), "--filter", "median"]
    argv += ["--strength", "0", "--summary", str(summary)]
    script = "import sys; from degrain.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, *argv], capture_output=True, text=True, timeout=MOST_SECONDS
    )
    report.megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    if not summary.exists() or "Traceback" in done.stderr:
        raise RuntimeError(f"degrain denoise ended with {done.returncode}: {done.stderr[-2000:]}")
    failed = {Path(source).name for source in json.loads(summary.read_text())["failed"]}
    reasons = {}
    for line in done.stdout.splitlines():
        source, separator, reason = line.partition(": failed: ")
        if separator:
            reasons[Path(source).name] = reason
    assert reasons.keys() == failed
    return reasons


def compare(folder: Path, name: str, case: Case, report: Report) -> str | None:
    """What is wrong with an output, by the first decoder that reads the input; None: nothing."""
    before, after = folder / "in" / name, folder / "out" / name
    if case.outcome == "refused":
        return "accepted, but should be refused"
    for view in (view_by_vips, view_by_magick):
        seen = view(before)
        if seen is None:
            continue
        result = view(after)
        if result is None:
            return f"{view.__name__} cannot read the output"
        if seen.shape != result.shape:
            return f"{view.__name__}: {seen.shape} became {result.shape}"
        if case.outcome == "exact" and seen.dtype == result.dtype:
            equal = np.array_equal(seen, result, equal_nan=seen.dtype.kind == "f")
            return None if equal else f"{view.__name__}: {_difference(seen, result)}"
        difference = np.abs(scaled(seen) - scaled(result)).mean()
        return None if difference < CLOSE else f"{view.__name__}: mean difference {difference:.3f}"
    report.undecided.append(case.name)
    return None


def scaled(pixels: NDArray[np.generic]) -> NDArray[np.float64]:
    """Values from 0 to 1."""
    white = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
    return pixels.astype(np.float64) / white


def _difference(before: NDArray[np.generic], after: NDArray[np.generic]) -> str:
    changed = before != after
    return f"{changed.mean():.1%} of the values differ"


def view_by_vips(file: Path) -> NDArray[np.generic] | None:
    """(H, W, C) as libvips decodes it; None if it does not."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "x.v"
        options = "[fail]" if file.suffix in (".png", ".tif") else ""
        argv = ["vips", "copy", f"{file}{options}", str(raw)]
        done = subprocess.run(argv, capture_output=True)
        if done.returncode or not raw.exists():
            return None
        content = raw.read_bytes()
    order = "<" if content[:4] == b"\xb6\xa6\xf2\x08" else ">"
    width, height, bands, _, kind = struct.unpack_from(f"{order}5i", content, 4)
    pixels = np.frombuffer(
        content, f"{order}{VIPS_FORMATS[kind]}", width * height * bands, offset=64
    )
    return pixels.reshape(height, width, bands).astype(VIPS_FORMATS[kind])


def view_by_magick(file: Path) -> NDArray[np.generic] | None:
    """(H, W, C) with 16 bits as ImageMagick decodes it; None if it does not."""
    argv = [MAGICK, str(file), "-alpha", "on", "-colorspace", "sRGB", "-depth", "16", "PAM:-"]
    done = subprocess.run(argv, capture_output=True)
    if done.returncode or done.stderr:
        return None
    head, _, body = done.stdout.partition(b"ENDHDR\n")
    fields = dict(line.split(b" ", 1) for line in head.splitlines()[1:])
    shape = [int(fields[key]) for key in (b"HEIGHT", b"WIDTH", b"DEPTH")]
    if len(body) != 2 * np.prod(shape):
        return None
    pixels = np.frombuffer(body, ">u2").reshape(shape).astype(np.uint16)
    # Grey with opacity, or colours with it: PAM has the fewest channels.
    return pixels if shape[2] == 4 else np.dstack([pixels[:, :, :1]] * 3 + [pixels[:, :, 1:]])


def exiftool_warnings(folder: Path) -> Iterator[str]:
    """Outputs that ExifTool has warnings or errors for, but not for the file before."""
    found: dict[str, dict[str, str]] = {}
    for part in ("in", "out"):
        argv = ["exiftool", "-json", "-Warning", "-Error", str(folder / part)]
        done = subprocess.run(argv, capture_output=True, text=True)
        rows = json.loads(done.stdout) if done.stdout else []
        found[part] = {
            Path(row["SourceFile"]).name: row.get("Error") or row["Warning"]
            for row in rows
            if "Error" in row or "Warning" in row
        }
    for name, text in found["out"].items():
        if name not in found["in"]:
            yield f"{name}: ExifTool: {text}"


def main(argv: Sequence[str]) -> int:
    """Run all files, or those whose name has a part that is named; returns the exit status."""
    if missing := [name for name in DECODERS if shutil.which(name) is None]:
        print(
            f"error: {', '.join(missing)} are not installed; apt-get install libvips-tools "
            "imagemagick libimage-exiftool-perl",
            file=sys.stderr,
        )
        return 2
    cases = [c for c in all_cases() if not argv or any(part in c.name for part in argv)]
    with tempfile.TemporaryDirectory() as folder:
        report = run(cases, Path(folder))
    for line in report.wrong:
        print(f"wrong: {line}")
    for start, reason in DISPUTED.items():
        print(f"disputed: {start}*: {reason}")
    print(f"no decoder reads {len(report.undecided)}: {', '.join(report.undecided)}")
    for reason, count in report.reasons.most_common():
        print(f"{count:5} refused: {reason}")
    for kind, counts in report.counts.items():
        print(
            f"{kind:6} {counts.total():5} files: "
            + ", ".join(f"{n} {o}" for o, n in counts.items())
        )
    print(f"peak memory {report.megabytes:.0f} MiB, at most {MOST_MEMORY}")
    return 1 if report.wrong or report.megabytes > MOST_MEMORY else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
