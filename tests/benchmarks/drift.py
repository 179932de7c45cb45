"""How often deliveries are flagged as drift: of the same kind, of another camera, with more noise.

    python tests/benchmarks/drift.py --data PATCHES

A delivery is one to three scenes of a corpus that are left out of the known pairs; its photos are
those of the same kind. With the noise doubled, clean + 2 * (noisy - clean), and clipped, they are
to be flagged; so are all photos of one camera that is left out, with its name and without it.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from degrain.imaging.pixels import Photo, peak
from degrain.patchsets.patch_set import PatchSet
from degrain.retraining.delivery import measure_traits
from degrain.retraining.drift import FEWEST_SCENES, PairTraits, find_drift
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


def flagged(known: Sequence[PairTraits], new: Sequence[PairTraits]) -> list[str]:
    """Names of the traits that drifted."""
    return find_drift(known, new).drifted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="patch set")
    patch_set = PatchSet.open(parser.parse_args().data, Storage.from_environment())
    measured = measure(patch_set)
    print("| corpus | scenes | same kind | noise x 1.5 | noise x 2 |\n|---|---:|---:|---:|---:|")
    for corpus in sorted({r.corpus for r in patch_set.catalog}):
        of_corpus = {
            f: [p for p in ps if p.scene.startswith(f"{corpus}/")] for f, ps in measured.items()
        }
        for scenes in (1, 2, 3):
            if not deliveries(of_corpus[1.0], scenes):
                continue
            counts = []
            for factor in FACTORS:
                hits = []
                for chosen in deliveries(of_corpus[1.0], scenes):
                    known = [p for p in measured[1.0] if p.scene not in chosen]
                    new = [p for p in of_corpus[factor] if p.scene in chosen]
                    hits.append(flagged(known, new))
                counts.append(
                    f"{sum(bool(h) for h in hits)} of {len(hits)}"
                    + (
                        f" ({', '.join(sorted({n for h in hits for n in h}))})"
                        if factor == 1 and any(hits)
                        else ""
                    )
                )
            print(f"| {corpus} | {scenes} | {' | '.join(counts)} |", flush=True)
    cameras = sorted({p.camera for p in measured[1.0]})
    print("\n| camera that is left out | with its name | without it |\n|---|---|---|")
    for camera in cameras:
        known = [p for p in measured[1.0] if p.camera != camera]
        new = [p for p in measured[1.0] if p.camera == camera]
        if len({p.scene for p in known}) < FEWEST_SCENES:
            continue
        corpus = camera.split()[0]
        hidden = [replace(p, camera=corpus) for p in new]
        same = [replace(p, camera=corpus) if p.camera.split()[0] == corpus else p for p in known]
        print(
            f"| {camera} | {', '.join(flagged(known, new))} | {', '.join(flagged(same, hidden))} |"
        )


main()
