"""`degrain denoise`: whole photos through a registered model or a classical filter."""

import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from degrain.cli.console import Console, visible
from degrain.cli.options import TrackingOptions
from degrain.durations import Duration
from degrain.errors import UserError
from degrain.imaging.limits import FilterName
from degrain.inference.config import (
    STARTER,
    BlendConfig,
    Crop,
    InferenceConfig,
    OutputConfig,
    ReadingConfig,
)

if TYPE_CHECKING:
    from degrain.inference.bulk import DenoisedFile
    from degrain.inference.denoiser import Denoiser
    from degrain.inference.photo_list import PhotoTask, Plan
    from degrain.storage.location import Storage


@dataclass(frozen=True, kw_only=True)
class Denoise(TrackingOptions):
    """Denoise photos with a registered model or a classical filter.

    Each file keeps its type, bits, orientation, alpha, colour profile and metadata. Photos whose
    output exists are skipped, so that the same command goes on with a run that was interrupted.
    """

    photos: Annotated[
        tyro.conf.Positional[Sequence[str]], tyro.conf.arg(metavar="PHOTO [PHOTO ...]")
    ]
    """Photo files, folders, s3:// prefixes, or quoted patterns such as 'trip/**/*.jpg'."""
    out: str
    """Folder or s3:// URI for the results, which keep their path below a folder or pattern."""
    recursive: Annotated[bool, tyro.conf.arg(aliases=["-r"])] = False
    """Search the folders below folders too."""
    overwrite: bool = False
    """Denoise photos whose output exists, too."""
    model: str | None = None
    """models:/NAME@ALIAS, models:/NAME/VERSION, `starter` for the one in the package, or a folder.
    None: the champion, or the starter where there is none."""
    filter: FilterName | None = None
    """A classical filter in place of a model. None: a model."""
    blend: BlendConfig = field(default_factory=BlendConfig)
    self_ensemble: bool = False
    """Average over eight flips and rotations: better, eight times as slow."""
    preview: Crop | None = None
    """Write PNG files that show this part of each photo, in pixels, before and after. None: write
    denoised photos."""
    cluster: bool = False
    """Denoise on the Ray cluster of RAY_ADDRESS, or on one of this machine, for millions of files.
    """
    output: OutputConfig = field(default_factory=OutputConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def __post_init__(self) -> None:
        if self.cluster and self.preview is not None:
            raise UserError("`preview` runs in one process; leave out `cluster`")
        if self.filter is None:
            return
        if self.model is not None:
            raise UserError("name a model with `model` or a filter with `filter`, not both")
        if self.inference != InferenceConfig(noise_level=self.inference.noise_level):
            raise UserError(
                "`device`, `precision`, `compiled`, `memory` and `tile` are for models; leave them "
                "out with `filter`"
            )

    def run(self, console: Console) -> dict[str, object]:
        """Denoise the photos and print a line for each."""
        from degrain.storage.location import Storage

        storage = Storage.from_environment()
        plan = self._plan(storage)
        if plan.skipped:
            console.print(
                f"{plan.skipped} photos are skipped, because their output exists; --overwrite "
                "replaces it"
            )
        report = _Report(console, len(plan.tasks))
        if plan.tasks:
            denoiser = self._denoiser(storage, console)
            try:
                for files in self._files(denoiser, plan.tasks):
                    report.add(files)
            except KeyboardInterrupt:
                report.interrupted()
                raise
        return report.end(plan.skipped)

    def _plan(self, storage: "Storage") -> "Plan":
        """Find the photos whose output is missing. Raises UserError for unusable paths."""
        from degrain.inference.photo_list import find_photos, plan, targets

        out = storage.locate(self.out)
        photos = find_photos(self.photos, storage, recursive=self.recursive, out=out)
        out.check_writable()
        tasks = targets(photos, out, self.output.format, preview=self.preview is not None)
        self._check_summary(tasks, storage)
        return plan(tasks, overwrite=self.overwrite or self.preview is not None)

    def _check_summary(self, tasks: "Sequence[PhotoTask]", storage: "Storage") -> None:
        if self.summary is None:
            return
        place = storage.locate(str(self.summary)).identity
        if place in {task.target.identity for task in tasks}:
            raise UserError(
                f"`summary` '{self.summary}' is the file of a denoised photo; name another file"
            )

    def _files(
        self, denoiser: "Denoiser", tasks: "Sequence[PhotoTask]"
    ) -> "Iterator[Sequence[DenoisedFile]]":
        """The photos as they are done; several at a time on a cluster."""
        if self.cluster:
            from degrain.cluster_denoising import denoise_on_cluster

            return denoise_on_cluster(
                denoiser,
                tasks,
                output=self.output,
                reading=self.reading,
                device=self.inference.device,
            )
        from degrain.inference.bulk import denoise_files

        files = denoise_files(
            denoiser, tasks, output=self.output, reading=self.reading, preview=self.preview
        )
        return ([file] for file in files)

    def _denoiser(self, storage: "Storage", console: Console) -> "Denoiser":
        """The filter or model that the options name, with its wrappers."""
        from degrain.inference.blending import Blended
        from degrain.inference.denoiser import SelfEnsemble

        denoiser = self._bare_denoiser(storage, console)
        if self.self_ensemble:
            denoiser = SelfEnsemble(denoiser)
        return Blended(denoiser, self.blend)

    def _bare_denoiser(self, storage: "Storage", console: Console) -> "Denoiser":
        if self.filter is not None:
            from degrain.imaging.filters import create_filter

            console.print(f"filter: {self.filter}")
            return create_filter(self.filter, self.inference.noise_level)
        from degrain.tracking.registry import load_model

        denoiser, card = load_model(self.model, self.mlflow, storage, self.inference)
        if self.model is None and denoiser.name == STARTER:
            console.print("there is no champion yet: using the starter model")
        console.print(f"model: {denoiser.name} ({card.model}, {denoiser.parameters:,} parameters)")
        return denoiser


class _Report:
    """Prints what was done, and the time left on a terminal."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self.done: list[DenoisedFile] = []
        self.began = time.monotonic()

    def add(self, files: "Sequence[DenoisedFile]") -> None:
        """Report photos that were done together; failures are listed at the end."""
        self.done.extend(files)
        for file in files:
            if file.error is None:
                cost = f"{file.megapixels:.2f} MP  {file.seconds:.2f} s"
                self.console.print(visible(f"{file.source} -> {file.target}  {cost}"))
        count = len(self.done)
        seconds = (time.monotonic() - self.began) / count * (self.total - count)
        left = f", about {Duration(max(seconds, 1))} left" if count < self.total else ""
        self.console.status(f"{count} of {self.total} photos{left}")

    def interrupted(self) -> None:
        """Print how to go on."""
        self.console.end_status()
        command = shlex.join(["degrain", *sys.argv[1:]])
        self.console.print(f"{len(self.done)} of {self.total} photos are done; to go on: {command}")

    def end(self, skipped: int) -> dict[str, object]:
        """Print what was dropped and what failed; returns the summary.

        Raises PartialFailureError if a photo failed.
        """
        from degrain.cli.execution import PartialFailureError

        self.console.end_status()
        notes = Counter(note for file in self.done for note in file.notes)
        for note, count in notes.most_common():
            self.console.print(f"{note} ({count} photos)")
        failed = [file for file in self.done if file.error is not None]
        for file in failed:
            self.console.print(visible(f"{file.source}: failed: {file.error}"))
        summary: dict[str, object] = {
            "files": len(self.done),
            "skipped": skipped,
            "megapixels": sum(file.megapixels for file in self.done),
            "seconds": sum(file.seconds for file in self.done),
            "failed": [file.source for file in failed],
        }
        if failed:
            raise PartialFailureError(
                f"{len(failed)} of {len(self.done)} photos could not be denoised; the first: "
                f"{failed[0].source}",
                summary,
            )
        return summary


COMMAND = Denoise
