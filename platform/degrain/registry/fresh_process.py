"""The last gate: a registered version is loaded and denoises in a process of its own.

What works in the process that trained a model may not work anywhere else: a file that was not
uploaded, weights that do not fit their card, a package that is missing.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from degrain.imaging.pixels import Photo
from degrain.inference.denoiser import Denoiser
from degrain.registry.gates import Check
from degrain.registry.versions import load_registered
from degrain.storage.location import Storage
from degrain.tracking.client import connect
from degrain.tracking.config import PromotionRules, TrackingConfig

GATE = "fresh process"
_TIMEOUT_SECONDS = 300
_CROP_SIDE = 128
_MOST_DIFFERENCE = 1
"""Levels of 8 bits: another number of threads may round a value the other way."""


def check_in_fresh_process(
    uri: str, denoiser: Denoiser, photo: Photo, tracking: TrackingConfig
) -> Check:
    """Check that a version, loaded by its URI in a new process, denoises a crop of `photo` as
    `denoiser` does here.
    """
    crop = np.ascontiguousarray(photo[:_CROP_SIDE, :_CROP_SIDE])
    with tempfile.TemporaryDirectory() as temporary:
        noisy, output = Path(temporary, "noisy.npy"), Path(temporary, "output.npy")
        np.save(noisy, crop)
        code = f"from {__name__} import main; main()"
        arguments = [uri, str(noisy), str(output)]
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments],
                # It may have a password, and all users of a machine see the arguments.
                input=json.dumps(asdict(tracking)),
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return Check(GATE, False, f"it did not denoise a crop within {_TIMEOUT_SECONDS} s")
        if done.returncode or not output.exists():
            said = done.stderr.strip().splitlines()
            reason = said[-1] if said else "it ended without a message"
            return Check(GATE, False, f"it does not load or denoise: {reason}")
        found = np.load(output)
    difference = int(np.abs(found.astype(int) - denoiser(crop).astype(int)).max())
    most = _MOST_DIFFERENCE * (1 if photo.dtype == np.uint8 else 257)
    text = f"it loads and denoises; the largest difference is {difference} levels"
    return Check(GATE, difference <= most, text)


def main() -> None:
    """Denoise an array file with a registered version; the tracking comes by stdin as JSON."""
    uri, noisy, output = sys.argv[1:]
    raw = json.load(sys.stdin)
    rules = PromotionRules(
        **{**raw["promotion"], "must_beat": tuple(raw["promotion"]["must_beat"])}
    )
    config = TrackingConfig(**{**raw, "promotion": rules})
    client = connect(config, Storage.from_environment(), create=False)
    denoiser, _ = load_registered(client, uri)
    np.save(output, denoiser(np.load(noisy)))
