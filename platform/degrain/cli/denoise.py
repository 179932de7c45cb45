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
    from degrain.inference.output_records import OutputRecords, Plan
    from degrain.inference.photo_list import PhotoTask
    from degrain.storage.location import Storage


@dataclass(frozen=True, kw_only=True)
class Denoise(TrackingOptions):
    """Denoise photos with a registered model or a classical filter.

    Each file keeps its type, bits, orientation, alpha, colour profile and metadata. A photo whose
    output would come out the same is skipped, so that the same command goes on with a run that was
    interrupted; with another model, other options or a changed photo it is denoised again.
    """

    photos: Annotated[
        tyro.conf.Positional[Sequence[str]], tyro.conf.arg(metavar="PHOTO [PHOTO ...]")
    ]
    """Photo files, folders, s3:// prefixes, or quoted patterns such as 'trip/**/*.jpg'."""
    out: str
    """Folder or s3:// URI for the results, which keep their path below a folder or pattern."""
    recursive: Annotated[bool, tyro.conf.arg(aliases=["-r"])] = False
    """Search the folders below folders too; outputs of earlier runs in them are left out."""
    overwrite: bool = False
    """Denoise all photos, also where a file exists that Degrain did not write."""
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
        if self.output.keep_dates and self.out.startswith("s3://"):
            raise UserError(
                "`keep_dates` is for folders of this machine, because a bucket sets the times of "
                "its objects; leave it out"
            )
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
        from degrain.inference.output_records import (
            OutputRecords,
            earlier_outputs,
            recipe_digest,
        )
        from degrain.inference.photo_list import find_photos, targets
        from degrain.storage.location import Storage

        storage = Storage.from_environment()
        out = storage.locate(self.out)
        found = find_photos(self.photos, storage, recursive=self.recursive, out=out)
        out.check_writable()
        outputs = earlier_outputs(found.photos)
        left_out = {photo.location.uri for photo in outputs}
        photos = [photo for photo in found.photos if photo.location.uri not in left_out]
        if not photos:
            raise UserError(
                f"all {len(outputs)} photos are outputs of earlier runs; name their folder to "
                "denoise them again"
            )
        tasks = targets(photos, out, self.output.format, preview=self.preview is not None)
        self._check_summary(tasks, storage)
        denoiser, identity = self._bare_denoiser(storage, console)
        records = OutputRecords(recipe_digest(self._recipe(identity)))
        previews = self.preview is not None
        plan = records.plan(tasks, overwrite=self.overwrite or previews)
        if outputs:
            console.print(f"{len(outputs)} photos are left out: they are outputs of earlier runs")
        report = _Report(console, plan, found.unread)
        try:
            for files in self._files(self._wrapped(denoiser), plan.tasks, records, report):
                report.add(files)
        except KeyboardInterrupt:
            report.interrupted()
            raise
        finally:
            records.close(out)
        return report.end()

    def _recipe(self, denoiser: str) -> dict[str, object]:
        """What decides the pixels of an output beside its photo."""
        return {
            "denoiser": denoiser,
            "noise_level": self.inference.noise_level,
            "precision": self.inference.precision,
            "self_ensemble": self.self_ensemble,
            "blend": vars(self.blend),
            "format": self.output.format,
            "quality": self.output.quality,
            "profiles": self.reading.profiles,
        }

    def _check_summary(self, tasks: "Sequence[PhotoTask]", storage: "Storage") -> None:
        if self.summary is None:
            return
        place = storage.locate(str(self.summary)).identity
        if place in {task.target.identity for task in tasks}:
            raise UserError(
                f"`summary` '{self.summary}' is the file of a denoised photo; name another file"
            )

    def _files(
        self,
        denoiser: "Denoiser",
        tasks: "Sequence[PhotoTask]",
        records: "OutputRecords",
        report: "_Report",
    ) -> "Iterator[Sequence[DenoisedFile]]":
        """The photos as they are done; several at a time on a cluster."""
        if not self.cluster:
            from degrain.inference.bulk import denoise_files

            def written(task: "PhotoTask") -> None:
                records.add([task])
                report.written += 1

            for file in denoise_files(
                denoiser,
                tasks,
                output=self.output,
                reading=self.reading,
                preview=self.preview,
                written=written,
            ):
                yield [file]
            return
        from degrain.cluster_denoising import denoise_on_cluster

        by_target = {task.target.uri: task for task in tasks}
        for files in denoise_on_cluster(
            denoiser,
            tasks,
            output=self.output,
            reading=self.reading,
            device=self.inference.device,
        ):
            records.add([by_target[file.target] for file in files if file.error is None])
            yield files

    def _wrapped(self, denoiser: "Denoiser") -> "Denoiser":
        from degrain.inference.blending import Blended
        from degrain.inference.denoiser import SelfEnsemble

        if self.self_ensemble:
            denoiser = SelfEnsemble(denoiser)
        return Blended(denoiser, self.blend)

    def _bare_denoiser(self, storage: "Storage", console: Console) -> "tuple[Denoiser, str]":
        """The filter or model that the options name, and what tells it from others."""
        if self.filter is not None:
            from degrain.imaging.filters import create_filter

            console.print(f"filter: {self.filter}")
            return create_filter(self.filter, self.inference.noise_level), self.filter
        from degrain.registry.resolver import Resolver

        denoiser, card = Resolver(self.mlflow, storage).load(self.model, self.inference)
        if self.model is None and denoiser.name == STARTER:
            console.print("there is no champion: using the starter model")
        console.print(f"model: {denoiser.name} ({card.model}, {denoiser.parameters:,} parameters)")
        return denoiser, denoiser.digest


class _Report:
    """Prints what was done, and the time left on a terminal."""

    def __init__(self, console: Console, plan: "Plan", unread: dict[str, int]) -> None:
        self.console, self.plan, self.unread = console, plan, unread
        self.total = len(plan.tasks)
        self.done: list[DenoisedFile] = []
        self.written = 0
        """Outputs on the disk, of which some are not reported yet."""
        self.began = time.monotonic()
        if plan.skipped:
            console.print(f"{plan.skipped} photos are skipped: their output would be the same")
        if plan.outdated:
            console.print(
                f"{plan.outdated} outputs are replaced: they were made from another version of the "
                "photo, by another model or with other options"
            )
        if plan.foreign:
            console.print(
                f"{plan.foreign} photos are skipped: their output exists and is not as Degrain "
                "wrote it; --overwrite replaces it"
            )

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
        done = max(len(self.done), self.written)
        self.console.print(f"{done} of {self.total} photos are done; to go on: {command}")

    def end(self) -> dict[str, object]:
        """Print what was dropped, what failed and what was not read; returns the summary.

        Raises PartialFailureError if a photo failed.
        """
        from degrain.cli.execution import PartialFailureError
        from degrain.inference.photo_list import listed_types

        self.console.end_status()
        notes = Counter(note for file in self.done for note in file.notes)
        for note, count in notes.most_common():
            self.console.print(f"{note} ({count} photos)")
        failed = [file for file in self.done if file.error is not None]
        for file in failed:
            self.console.print(visible(f"{file.source}: failed: {file.error}"))
        if self.unread:
            self.console.print(f"not read: {listed_types(self.unread)}")
        summary: dict[str, object] = {
            "files": len(self.done),
            "skipped": self.plan.skipped,
            "replaced": self.plan.outdated,
            "kept": self.plan.foreign,
            "not_read": self.unread,
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
