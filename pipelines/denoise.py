"""Denoise whole photos with a registered model or a classical filter, as PNG; alpha, grey and 16 bits survive."""

import argparse
import sys

from degrain import cli
from degrain.errors import JobFailedError, UserError
from degrain.imaging.codecs import LARGEST_MEGAPIXELS, PROFILES
from degrain.imaging.denoiser import Application, Denoiser, SelfEnsemble, Strength, Untouched
from degrain.imaging.execution import COMPILED, PRECISIONS
from degrain.imaging.filters import create_filter, list_filters
from degrain.serving.files import DenoisedFile, Reading, denoise_files, find_photos, targets
from degrain.storage import Storage
from degrain.tracking.registry import load_model


def arguments() -> argparse.ArgumentParser:
    """The options."""
    default = Application()
    made = cli.parser(__doc__)
    add = made.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="photo file, or folder of photos")
    add("--out", required=True, metavar="URI", help="folder that the results go into")
    what = made.add_mutually_exclusive_group()
    what.add_argument(
        "--model", metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION or a folder (default: the champion)"
    )
    what.add_argument("--filter", choices=list_filters(), help="a classical filter in place of a model")
    add("--strength", type=float, default=1.0, help="how much of the noise to take, from 0 to 1")
    add("--noise-level", type=float, help="its standard deviation, white is 1; for filters and ffdnet (default: estimated)")
    add("--self-ensemble", action="store_true", help="mean over flips and rotations: better, eight times as slow")
    add("--device", default=default.device, choices=["cpu", "cuda"], help="where the network runs")
    add("--precision", choices=PRECISIONS, default=default.precision, help="precision of the network")
    add("--compiled", choices=COMPILED, default=default.compiled, help="whether the network is compiled; auto: on cuda")
    add("--memory", type=int, metavar="MIB", help="memory for the network's tiles, MiB (default: a share of what is free)")
    add("--largest-megapixels", type=float, default=LARGEST_MEGAPIXELS, help="larger photos are refused")
    add("--profiles", choices=PROFILES, default="convert", help="whether colour profiles become sRGB")
    cli.add_tracking(made)
    return made


def applied(options: argparse.Namespace) -> Application:
    """How the options say that a network is run. Raises ValueError for what cannot be."""
    return Application(
        device=options.device,
        precision=options.precision,
        compiled=options.compiled,
        memory=None if options.memory is None else options.memory * 2**20,
        noise_level=options.noise_level,
    )


def chosen(options: argparse.Namespace, application: Application, storage: Storage, console: cli.Console) -> Denoiser:
    """The filter or model that the options name."""
    if options.filter:
        if application != Application(noise_level=options.noise_level):
            raise UserError("--device, --precision, --compiled and --memory are for models; leave them out with --filter")
        console.say(f"filter: {options.filter}")
        return create_filter(options.filter, options.noise_level)
    denoiser, card = load_model(options.model, options.mlflow, storage, application)
    console.say(f"model: {denoiser.name} ({card.model}, {denoiser.parameters:,} parameters)")
    return denoiser


def main(options: argparse.Namespace, console: cli.Console) -> dict[str, object]:
    """Denoise the photos and print a line for each."""
    application = cli.checked(lambda: applied(options), options)
    reading = cli.checked(lambda: Reading(options.largest_megapixels, options.profiles), options)
    cli.checked(lambda: Strength(Untouched(), options.strength), options)
    storage = Storage.from_environment()
    photos = find_photos(options.photos, storage)
    out = storage.locate(options.out)
    out.check_writable()
    made = targets(photos, out)
    if options.summary is not None and storage.locate(str(options.summary)).identity in {p.identity for p in made}:
        raise UserError(f"--summary '{options.summary}' is where a photo goes; name another file")
    denoiser = chosen(options, application, storage, console)
    if options.self_ensemble:
        denoiser = SelfEnsemble(denoiser)
    denoiser = Strength(denoiser, options.strength)

    def show(file: DenoisedFile) -> None:
        outcome = f"failed: {file.error}" if file.error else f"{file.target}  {file.megapixels:.2f} MP  {file.seconds:.2f} s"
        console.say(f"{file.source} -> {outcome}" if not file.error else f"{file.source}: {outcome}")

    results = denoise_files(denoiser, photos, out, show, reading)
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
