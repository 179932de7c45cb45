"""`degrain import`: published weights as a registered model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from degrain.cli.console import Console
from degrain.cli.options import CommonOptions
from degrain.errors import InvalidFieldError, UserError
from degrain.fields import check_minimum
from denoisenets.catalog import NETWORKS
from denoisenets.suggestions import unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from degrain.registry.card import ModelCard
    from degrain.tracking.config import TrackingConfig


@dataclass(frozen=True, kw_only=True)
class ImportWeights(CommonOptions):
    """Import a checkpoint that others published: check it, convert it to the layers of a network
    here, and register it.
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """Checkpoint of PyTorch (.pth, .pt, .ckpt) or .safetensors file. Pickled objects are never
    loaded."""
    network: str
    """Name of the network; docs/models.md lists the references whose weights are understood."""
    licence: str
    """Licence under which the weights were published, e.g. MIT."""
    source: str | None = None
    """Where the weights are from, e.g. a URL. None: not recorded."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the network that do not follow from the file, as JSON."""
    crop: int = 256
    """Side of the crops that the weights were trained on, pixels; means over the whole input are
    computed over windows of this size."""
    name: str | None = None
    """Name of the registered model, of which this becomes a version. None: `model` of the tracking
    file."""
    out: Path | None = None
    """Folder to write the model to instead of registering it. None: register it."""
    mlflow: Path | None = None
    """File that names the model registry. None: mlflow.yaml in this folder, or the defaults
    where there is none."""

    def __post_init__(self) -> None:
        check_minimum(self, 1, "crop")
        if self.network not in NETWORKS:
            raise UserError(unknown_name("network", self.network, NETWORKS))
        if not self.licence.strip():
            raise InvalidFieldError("licence", "must not be empty; name the weights' licence")
        if self.name is not None and (not self.name or set(self.name) & set("/:@")):
            raise InvalidFieldError(
                "name", f"must not be empty or contain '/', ':' or '@', got '{self.name}'"
            )
        if self.out is not None and self.name is not None:
            raise InvalidFieldError("name", "cannot be combined with `out`; leave one of them out")

    def run(self, console: Console) -> dict[str, object]:
        """Read, convert and check the weights, then register or write them."""
        from degrain.registry.versions import register_import
        from degrain.storage.location import Storage
        from degrain.tracking.runs import Tracker

        out = self._checked_folder()
        tracking = None if out else self._tracking()
        weights, card = self._convert()
        parameters = sum(value.numel() for value in weights.values())
        console.print(f"file:   {self.file}  {parameters:,} parameters")
        shown = ", ".join(f"{key}={value}" for key, value in card.arguments.items())
        console.print(f"model:  {card.model} ({shown})")
        summary = {"network": card.model, "arguments": card.arguments, "parameters": parameters}
        if out is not None:
            _write(out, weights, card)
            named, where = str(out), {"folder": str(out)}
        else:
            assert tracking is not None
            tracker = Tracker.open(tracking, Storage.from_environment())
            version = register_import(tracker, weights, card)
            named, where = version.uri, {"name": version.name, "version": version.version}
            console.print(f"stored: {version.label}")
        console.print(f"apply:  degrain denoise PHOTO --out denoised --model {named}")
        return {**summary, **where, "model": named, "source": card.source}

    def _checked_folder(self) -> Path | None:
        """The absolute folder. Raises InvalidFieldError, before the work, if it has files."""
        if self.out is None:
            return None
        out = self.out.expanduser().absolute()
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InvalidFieldError("out", f"'{out}' exists and is not empty; name another folder")
        return out

    def _tracking(self) -> "TrackingConfig":
        from degrain.tracking.config import load_tracking_config

        tracking = load_tracking_config(self.mlflow)
        return tracking if self.name is None else replace(tracking, model=self.name)

    def _convert(self) -> "tuple[dict[str, Tensor], ModelCard]":
        from degrain.inference.weights_file import read_weights
        from degrain.registry.card import imported_card
        from denoisenets.published import convert

        published = read_weights(self.file)
        try:
            arguments, weights = convert(self.network, published, self.arguments)
        except ValueError as error:
            raise UserError(
                f"'{self.file}' cannot be imported as {self.network}: {error}"
            ) from None
        card = imported_card(
            self.network,
            arguments,
            self.file,
            crop=self.crop,
            licence=self.licence,
            origin=self.source,
        )
        return weights, card


def _write(out: Path, weights: "Mapping[str, Tensor]", card: "ModelCard") -> None:
    """Write the model's folder; it appears with both files or not at all."""
    import tempfile

    from degrain.registry.files import write_model

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        made = Path(temporary) / out.name
        made.mkdir()
        write_model(made, weights, card)
        made.replace(out)


COMMAND = ImportWeights
