"""How often deliveries are flagged as drift: of the same kind, of another camera, with more noise.

    python tests/benchmarks/drift.py --data PATCHES

A delivery is one to three scenes of a corpus that are left out of the known pairs; its photos are
those of the same kind. With the noise doubled, clean + 2 * (noisy - clean), and clipped, they are
to be flagged; so are all photos of one camera that is left out, with its name and without it.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from degrain.imaging.pixels import Photo, peak
from degrain.patchsets.patch_set import PatchSet
from degrain.retraining.delivery import measure_traits
from degrain.retraining.drift import FEWEST_SCENES, find_drift
from degrain.retraining.traits import PairTraits
from degrain.storage.location import Storage

FACTORS = (1.0, 1.5, 2.0)
DELIVERIES = 20
"""Per corpus and number of scenes."""


def with_more_noise(noisy: Photo, clean: Photo, factor: float) -> Photo:
    """The noisy photo with its noise multiplied."""
    scaled = clean + factor * (noisy - clean.astype(np.float32))
    return np.round(np.clip(scaled, 0, peak(clean))).astype(clean.dtype)


def measure(patch_set: PatchSet) -> dict[float, list[PairTraits]]:
    """The traits of all pairs, by factor of the noise."""
    found: dict[float, list[PairTraits]] = defaultdict(list)
    for row in patch_set.catalog:
        if row.refused is None:
            noisy, clean = patch_set.source.load(row)
            for factor in FACTORS:
                found[factor].append(
                    measure_traits(row, with_more_noise(noisy, clean, factor), clean)
                )
    return found


def deliveries(traits: Sequence[PairTraits], scenes: int) -> list[set[str]]:
    """Random sets of scenes, of which enough others are left."""
    names = sorted({p.scene for p in traits})
    if len(names) - scenes < FEWEST_SCENES:
        return []
    random = np.random.default_rng(0)
    return [set(random.choice(names, scenes, replace=False)) for _ in range(DELIVERIES)]


def print_deliveries(measured: Mapping[float, Sequence[PairTraits]]) -> None:
    """How many deliveries of scenes are flagged, and for which traits."""
    print("| corpus | scenes | same kind | noise x 1.5 | noise x 2 |\n|---|---:|---:|---:|---:|")
    for corpus in sorted({p.corpus for p in measured[1.0]}):
        own = [p for p in measured[1.0] if p.corpus == corpus]
        for scenes in (1, 2, 3):
            chosen = deliveries(own, scenes)
            if chosen:
                counts = [count_flagged(measured[1.0], measured[f], chosen) for f in FACTORS]
                print(f"| {corpus} | {scenes} | {' | '.join(counts)} |", flush=True)


def count_flagged(
    known: Sequence[PairTraits], delivered: Sequence[PairTraits], chosen: Sequence[set[str]]
) -> str:
    """`2 of 20 (brightness, noise)`."""
    flags = [
        find_drift(
            [p for p in known if p.scene not in scenes],
            [p for p in delivered if p.scene in scenes],
        ).drifted
        for scenes in chosen
    ]
    names = ", ".join(sorted({name for found in flags for name in found}))
    return f"{sum(map(bool, flags))} of {len(flags)}{f' ({names})' if names else ''}"


def print_cameras(pairs: Sequence[PairTraits]) -> None:
    """For which traits the pairs of a camera are flagged that no known pair is of."""
    print("\n| camera that is left out | with its name | without it |\n|---|---|---|")
    for camera in sorted({p.camera for p in pairs}):
        new = [p for p in pairs if p.camera == camera]
        known = [p for p in pairs if p.camera != camera]
        corpus = new[0].corpus
        hidden = [
            [replace(p, camera=corpus) if p.corpus == corpus else p for p in part]
            for part in (known, new)
        ]
        named, nameless = find_drift(known, new).drifted, find_drift(*hidden).drifted
        print(f"| {camera} | {', '.join(named)} | {', '.join(nameless)} |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="patch set")
    patch_set = PatchSet.open(parser.parse_args().data, Storage.from_environment())
    measured = measure(patch_set)
    print_deliveries(measured)
    print_cameras(measured[1.0])


main()
