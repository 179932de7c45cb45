"""RENOIR: `<camera>_Aligned/Batch_NNN/` with a `*Reference.bmp`, some `*Noisy.bmp` and masks."""

import re
from collections import defaultdict

from degrain.corpora.listing import FolderNames, Listing, PhotoNames
from degrain.corpora.record import PairRecord

_RENOIR_FILE = re.compile(
    r"(?P<folder>(?:.*/)?[^/]+)/[^/]*(?P<kind>Noisy|Reference|Mask)\d*\.\w+$", re.IGNORECASE
)
_RENOIR_CAMERA = re.compile(r"(?:^|/)(?P<camera>[^/]+)_Aligned/", re.IGNORECASE)


def list_renoir(folder: FolderNames) -> Listing:
    """Pair all noisy photos of a batch with its reference; `folder.root` may name the camera."""
    photos = PhotoNames(folder.names)
    batches: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in photos:
        if file := _RENOIR_FILE.match(name):
            batches[file["folder"]][file["kind"].lower()].append(name)
    pairs = [
        _pair(batch, noisy, kinds["reference"][0], folder.root)
        for batch, kinds in batches.items()
        if len(kinds["reference"]) == 1
        for noisy in kinds["noisy"]
    ]
    return photos.listing(pairs, [mask for kinds in batches.values() for mask in kinds["mask"]])


def _pair(folder: str, noisy: str, reference: str, root: str) -> PairRecord:
    camera = _RENOIR_CAMERA.search(f"{root}/{folder}/")
    where = f"renoir/{camera['camera']}/" if camera else "renoir/"
    batch = folder.rpartition("/")[2]
    return PairRecord(
        id=f"{where}{batch}/{noisy.rpartition('/')[2].rpartition('.')[0]}",
        corpus="renoir",
        scene=f"{where}{batch}",
        noisy=noisy,
        clean=reference,
        camera=camera["camera"] if camera else None,
    )
