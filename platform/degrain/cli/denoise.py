"""`degrain denoise`: whole photos through a registered model or a classical filter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions
from degrain.errors import UserError
from degrain.imaging.limits import FilterName
from degrain.inference.config import (
    STARTER,
    BlendConfig,
    InferenceConfig,
    OutputConfig,
    ReadingConfig,
)

if TYPE_CHECKING:
    from degrain.inference.denoiser import Denoiser
    from degrain.inference.files import DenoisedFile
    from degrain.storage.location import Location, Storage


@dataclass(frozen=True, kw_only=True)
class Denoise(TrackingOptions):
    """Denoise whole photos with a registered model or a classical filter; each file keeps its
    type, bits, orientation and metadata.
    """

    photos: Annotated[
        tyro.conf.Positional[Sequence[str]], tyro.conf.arg(metavar="PHOTO [PHOTO ...]")
    ]
    """Photo files, or folders of photos."""
    out: str
    """Folder or s3:// URI for the results."""
    model: str | None = None
    """models:/NAME@ALIAS, models:/NAME/VERSION, `starter` for the one in the package, or a folder.
    None: the champion, or the starter where there is none."""
    filter: FilterName | None = None
    """A classical filter in place of a model. None: a model."""
    self_ensemble: bool = False
    """Average over eight flips and rotations: better, eight times as slow."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    blend: BlendConfig = field(default_factory=BlendConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def __post_init__(self) -> None:
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
        from degrain.cli.execution import PartialFailureError
        from degrain.inference.blending import Blended
        from degrain.inference.denoiser import SelfEnsemble
        from degrain.inference.files import denoise_files, find_photos, targets
        from degrain.storage.location import Storage

        storage = Storage.from_environment()
        photos = find_photos(self.photos, storage)
        out = storage.locate(self.out)
        out.check_writable()
        self._check_summary(targets(photos, out, self.output), storage)
        denoiser = self._denoiser(storage, console)
        if self.self_ensemble:
            denoiser = SelfEnsemble(denoiser)
        denoiser = Blended(denoiser, self.blend)

        def show(file: "DenoisedFile") -> None:
            if file.error:
                console.print(f"{file.source}: failed: {file.error}")
            else:
                cost = f"{file.megapixels:.2f} MP  {file.seconds:.2f} s"
                console.print(f"{file.source} -> {file.target}  {cost}")

        results = denoise_files(
            denoiser, photos, out, show, output=self.output, reading=self.reading
        )
        failed = [r.source for r in results if r.error]
        summary: dict[str, object] = {
            "files": len(results),
            "megapixels": sum(r.megapixels for r in results),
            "seconds": sum(r.seconds for r in results),
            "failed": failed,
        }
        if failed:
            raise PartialFailureError(
                f"{len(failed)} of {len(results)} photos could not be denoised; the first: "
                f"{failed[0]}",
                summary,
            )
        return summary

    def _check_summary(self, results: "Sequence[Location]", storage: "Storage") -> None:
        if self.summary is None:
            return
        place = storage.locate(str(self.summary)).identity
        if place in {result.identity for result in results}:
            raise UserError(
                f"`summary` '{self.summary}' is the file of a denoised photo; name another file"
            )

    def _denoiser(self, storage: "Storage", console: Console) -> "Denoiser":
        """The filter or model that the options name."""
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


COMMAND = Denoise
