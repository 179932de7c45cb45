"""`degrain export`: a registered model as one file for other programs."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions


@dataclass(frozen=True, kw_only=True)
class Export(TrackingOptions):
    """Export a registered model as one file, ONNX or torch.export, with the input sizes that it
    accepts in the file's metadata.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """models:/NAME@ALIAS, models:/NAME/VERSION or a folder."""
    out: str
    """File to write; its suffix, .onnx or .pt2, is the format."""

    def run(self, console: Console) -> dict[str, object]:
        """Export the model, check the result, and write it."""
        from degrain.inference.export import check_format, export_network
        from degrain.registry.resolver import Resolver
        from degrain.storage.location import Storage

        storage = Storage.from_environment()
        export_format = check_format(self.out)
        out = storage.locate(self.out)
        out.check_file_writable()
        denoiser, card = Resolver(self.mlflow, storage).load(self.model)
        console.print(f"model: {denoiser.name} ({card.model}, {denoiser.parameters:,} parameters)")
        exported = export_network(
            export_format, card.model, card.arguments, denoiser.network.state_dict(), card.crop
        )
        console.print(f"largest difference from PyTorch: {exported.difference:.1e}")
        out.write_bytes(exported.content)
        metadata = exported.metadata
        minimum, multiple = metadata["minimum"], metadata["multiple"]
        console.print(f"file:  {out}  {len(exported.content) / 1e6:.1f} MB")
        console.print(f"input: height and width from {minimum}, multiples of {multiple}; any batch")
        return {
            "file": out.uri,
            "bytes": len(exported.content),
            "difference": exported.difference,
            **metadata,
        }


COMMAND = Export
