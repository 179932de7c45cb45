"""Speed of whole photos through every network and every filter, and peak memory."""

import subprocess
import sys
import time

import numpy as np
import torch
from skimage import data as skimage_data
from table import Settings, Table, progress

from degrain.errors import UserError
from degrain.imaging.filters import create_filter, list_filters
from degrain.imaging.pixels import Photo
from degrain.inference.denoiser import Denoiser, NetworkDenoiser
from denoisenets import create_model, describe, list_models

MEMORY_MODELS = ("red10", "red20", "red30", "unet")
MEMORY_PROBE = """
import resource, time
import numpy as np
from degrain.inference.denoiser import NetworkDenoiser
from denoisenets import create_model
photo = np.random.default_rng(0).integers(0, 256, ({height}, {width}, 3), dtype=np.uint8)
denoiser = NetworkDenoiser("{model}", {{}}, create_model("{model}").state_dict())
start = time.perf_counter()
denoiser(photo)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter() - start)
"""


def run(settings: Settings) -> list[Table]:
    """Seconds per megapixel of networks and filters, and peak memory of a large photo."""
    return [measure_speed(settings), measure_memory(settings)]


def measure_speed(settings: Settings) -> Table:
    """Seconds per megapixel of every network at its published size, and of every filter.

    Networks process a photo of one megapixel, filters, which are slower, a sixteenth of it.
    """
    side = 256 if settings.quick else 1024
    photo = np.tile(skimage_data.astronaut(), (2, 2, 1))[:side, :side]
    noise = np.random.default_rng(0).normal(0, 20, photo.shape)
    noisy = np.clip(photo + noise, 0, 255).astype(np.uint8)
    part = noisy[: side // 4, : side // 4]
    rows: list[tuple[float, str, str, str]] = []  # s/MP, name, parameters, kMAC/pixel
    for model in settings.models or (("red10",) if settings.quick else list_models()):
        described = describe(model)
        denoiser = NetworkDenoiser(model, {}, create_model(model).state_dict())
        size = f"{described.parameters / 1e6:.2f} M", f"{described.macs_per_pixel / 1e3:.0f}"
        rows.append((seconds_per_megapixel(denoiser, noisy), model, *size))
        progress(f"{model}: {rows[-1][0]:.2f} s/MP")
    narrow = {"width": 32}
    denoiser = NetworkDenoiser("red10", narrow, create_model("red10", width=32).state_dict())
    rows.append((seconds_per_megapixel(denoiser, noisy), "red10, width 32", "", ""))
    for name in list_filters():
        try:
            classical = create_filter(name)
        except UserError:
            progress(f"{name}: not installed")
            continue
        rows.append((seconds_per_megapixel(classical, part), name, "", ""))
        progress(f"{name}: {rows[-1][0]:.2f} s/MP")
    nlm = next(seconds for seconds, name, *_ in rows if name == "nlm")
    return Table(
        ("whole photo", "parameters", "kMAC/pixel", "s/MP", "faster than nlm by"),
        [(*row[1:], f"{row[0]:.2f}", f"{nlm / row[0]:.1f}") for row in sorted(rows)],
        f"torch {torch.__version__}, {torch.get_num_threads()} threads.",
    )


def seconds_per_megapixel(denoiser: Denoiser, photo: Photo) -> float:
    """Time of one photo, after a corner of it that is not counted."""
    denoiser(photo[:64, :64])
    start = time.perf_counter()
    denoiser(photo)
    elapsed = time.perf_counter() - start
    megapixels: float = photo.shape[0] * photo.shape[1] / 1e6
    return elapsed / megapixels


def measure_memory(settings: Settings) -> Table:
    """Peak memory of a process that denoises one photo, for networks of growing depth."""
    megapixels, height = (1, 1000) if settings.quick else (24, 4000)
    rows = []
    for model in MEMORY_MODELS[:1] if settings.quick else MEMORY_MODELS:
        code = MEMORY_PROBE.format(model=model, height=height, width=megapixels * 10**6 // height)
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak, seconds = done.stdout.split()
        rows.append((model, f"{float(peak):.0f}", f"{float(seconds):.0f}"))
        progress(f"{model}: {rows[-1][1]} MiB")
    columns = f"a photo of {megapixels} megapixels", "peak memory of the process, MiB", "seconds"
    return Table(columns, rows)
