"""`degrain ingest`: corpora become a patch set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from degrain.cli.console import Console
from degrain.cli.options import CommonOptions
from degrain.patchsets.ingest.config import IngestConfig
from degrain.words import counted

if TYPE_CHECKING:
    from degrain.corpora.record import PairRecord


@dataclass(frozen=True, kw_only=True)
class Ingest(CommonOptions):
    """Cut corpora of paired noisy and clean photos into a patch set."""

    ingest: IngestConfig

    def run(self, console: Console) -> dict[str, object]:
        """Ingest and print the splits and the refused pairs."""
        from degrain.evaluation.intervals import FEWEST_SCENES
        from degrain.patchsets.ingest.run import ingest
        from degrain.storage.location import Storage

        storage = Storage.from_environment()
        done = ingest(self.ingest, storage, progress=console.progress("ingest", "pairs"))
        manifest = done.patch_set.manifest
        for row in done.patch_set.catalog:
            if row.refused:
                console.print(f"refused: {row.refused}")
        if done.unplaced:
            console.print(
                f"not paired: {len(done.unplaced)} photos that belong to no pair, "
                f"e.g. {' and '.join(done.unplaced[:2])}"
            )
        if done.alike:
            console.print(f"{done.alike} scenes show what others show, and have their split")
        for move in done.moves:
            console.print(f"moved: {move}")
        for line in _corrections(done.patch_set.catalog):
            console.print(line)
        for split in ("train", "val", "test"):
            rows = done.patch_set.photos(split)
            scenes = len({row.scene for row in rows})
            of = f"{len(rows)} pairs of {counted(scenes, 'scene')}"
            console.print(f"{split + ':':6} {of}, {manifest.patches(split)} patches")
        if scenes < FEWEST_SCENES:
            console.print(
                f"gates: {counted(scenes, 'test scene')}, fewer than {FEWEST_SCENES}: a model is "
                "promoted for a large mean gain, not for an interval; more scenes, or "
                "--test-scenes, change that"
            )
        state = "existed already" if done.reused else f"made in {done.seconds:.1f} s"
        console.print(
            f"patch set {done.patch_set.uri}: {manifest.pairs} pairs, {manifest.refused} refused, "
            f"{state}"
        )
        return {
            "uri": done.patch_set.uri,
            "version": manifest.version,
            "pairs": manifest.pairs,
            "refused": manifest.refused,
            "unplaced": len(done.unplaced),
            "alike": done.alike,
            "moved": len(done.moves),
            "patches": manifest.patches(),
            "reused": done.reused,
            "seconds": done.seconds,
        }


def _corrections(catalog: Sequence["PairRecord"]) -> Iterator[str]:
    """What was done to the photos of pairs that were not refused."""
    pairs = [row for row in catalog if row.refused is None]
    moves = [max(abs(row.move_y or 0), abs(row.move_x or 0)) for row in pairs]
    if moved := sorted(move for move in moves if move):
        shifts = _range(moved, "{:.0f}")
        yield f"aligned: {len(moved)} noisy photos were shifted, by {shifts} pixels"
    estimated = [row for row in pairs if row.gain_error is not None]
    if gains := sorted(gain for row in estimated for gain in row.gains or ()):
        yield (
            f"exposure: {len(gains) // 3} clean photos were given that of their noisy ones, "
            f"{_range(gains, '{:.3f}')} times in a channel"
        )
    uncertain = [row for row in estimated if row.exposure_unknown]
    if uncertain:
        yield (
            f"exposure: {len(uncertain)} pairs keep theirs, too dark, bright, small or noisy to "
            f"compare, e.g. {uncertain[0].id}"
        )


def _range(values: Sequence[float], form: str) -> str:
    """Sorted values as `1 to 45 (median 3)`, or `1` if all are alike."""
    low, high, middle = (form.format(v) for v in (values[0], values[-1], values[len(values) // 2]))
    return low if low == high else f"{low} to {high} (median {middle})"


COMMAND = Ingest
