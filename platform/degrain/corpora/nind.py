"""NIND: `NIND_<scene>_ISO<value>[-<shot>].{png,jpg,tif}`; `H1` and `H2` lie above the numbers."""

import re
from collections import defaultdict

from degrain.corpora.listing import FolderNames, Listing, PhotoNames
from degrain.corpora.record import PairRecord

_NIND_FILE = re.compile(
    r"(?P<folder>(?:.*/)?)NIND_(?P<scene>[^/]+)"
    r"_ISO(?P<high>H?)(?P<iso>\d+)(?:-(?P<shot>\d+))?\.\w+$",
    re.IGNORECASE,
)


def list_nind(folder: FolderNames) -> Listing:
    """Pair all photos of a scene with the one at its lowest ISO, the first shot of several.

    The other shots at that ISO are left out. H1 and H2 stand for no photos ISO.
    """
    photos = PhotoNames(folder.names)
    scenes: dict[str, list[tuple[tuple[bool, int], int, str]]] = defaultdict(list)
    for name in photos:
        if file := _NIND_FILE.match(name):
            level = (bool(file["high"]), int(file["iso"]))
            scene = f"{file['folder']}{file['scene']}"
            scenes[scene].append((level, int(file["shot"] or 0), name))
    pairs: list[PairRecord] = []
    for scene, shots in scenes.items():
        shots.sort()
        lowest, _shot, clean = shots[0]
        pairs += [
            PairRecord(
                id=f"nind/{noisy}",
                corpus="nind",
                scene=f"nind/{scene}",
                noisy=noisy,
                clean=clean,
                iso=None if level[0] else level[1],
            )
            for level, _shot, noisy in shots
            if level != lowest
        ]
    return photos.listing(pairs)
