"""Denoise whole photos of any size with a registered model, into a folder, as PNG; alpha, grey and 16 bits survive."""

import argparse
import sys
from pathlib import Path

from degrain import cli
from degrain.errors import JobFailedError, UserError
from degrain.serving.files import DenoisedFile, denoise_files, find_photos, targets
from degrain.storage import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.registry import load_registered, read_model
from degrain.tracking.runs import connect


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = cli.parser(__doc__)
    made.add_argument("photos", nargs="+", metavar="PHOTO", help="photo file, or folder of photos")
    made.add_argument("--out", required=True, metavar="URI", help="folder that the results go into")
    made.add_argument(
        "--model", metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION or a folder (default: the champion)"
    )
    made.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where the network runs")
    cli.add_tracking(made)
    return made


def model_folder(text: str) -> Path:
    """The folder that `--model` names. Raises UserError for another kind of place."""
    if ":/" in text:
        raise UserError(
            f"cannot load a model from '{text}': name models:/NAME@ALIAS, models:/NAME/VERSION or a local folder"
        )
    return Path(text).expanduser()


def main(options: argparse.Namespace, console: cli.Console) -> dict[str, object]:
    """Denoise the photos and print a line for each."""
    storage = Storage.from_environment()
    photos = find_photos(options.photos, storage)
    out = storage.locate(options.out)
    out.check_writable()
    targets(photos, out)
    if options.model and not options.model.startswith("models:"):
        denoiser, card = read_model(model_folder(options.model), device=options.device)
    else:
        tracking = load_tracking_config(options.mlflow)
        uri = options.model or f"models:/{tracking.model}@champion"
        denoiser, card = load_registered(connect(tracking, storage, make=False), uri, device=options.device)
    console.say(f"model: {denoiser.name} ({card.model}, {denoiser.parameters:,} parameters)")

    def show(file: DenoisedFile) -> None:
        outcome = f"failed: {file.error}" if file.error else f"{file.target}  {file.megapixels:.2f} MP  {file.seconds:.2f} s"
        console.say(f"{file.source} -> {outcome}" if not file.error else f"{file.source}: {outcome}")

    results = denoise_files(denoiser, photos, out, show)
    failed = [r.source for r in results if r.error]
    if failed:
        raise JobFailedError(f"{len(failed)} of {len(results)} photos could not be denoised; the first: {failed[0]}")
    return {
        "files": len(results),
        "megapixels": sum(r.megapixels for r in results),
        "seconds": sum(r.seconds for r in results),
        "failed": failed,
    }


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
