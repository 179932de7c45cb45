"""Export a registered model as one file for other programs: ONNX or torch.export, its size contract inside."""

import argparse
import sys

from degrain import cli
from degrain.serving.export import check_format, export_network
from degrain.storage import Storage
from degrain.tracking.registry import load_model


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = cli.parser(__doc__)
    made.add_argument("model", metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION or a folder")
    made.add_argument("--out", required=True, metavar="FILE", help="file to write; its suffix .onnx or .pt2 is the format")
    cli.add_tracking(made)
    return made


def main(options: argparse.Namespace, console: cli.Console) -> dict[str, object]:
    """Export the model, check the result, and write it."""
    storage = Storage.from_environment()
    kind = check_format(options.out)
    out = storage.locate(options.out)
    out.check_file_writable()
    denoiser, card = load_model(options.model, options.mlflow, storage)
    console.say(f"model: {denoiser.name} ({card.model}, {denoiser.parameters:,} parameters)")
    exported = export_network(kind, card.model, card.arguments, denoiser.network.state_dict(), card.crop)
    console.say(f"largest difference from PyTorch: {exported.difference:.1e}")
    out.write_bytes(exported.content)
    takes = exported.metadata
    console.say(f"file:  {out}  {len(exported.content) / 1e6:.1f} MB")
    console.say(f"takes: height and width from {takes['minimum']}, multiples of {takes['multiple']}; any batch")
    return {"file": out.uri, "bytes": len(exported.content), "difference": exported.difference, **takes}


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
