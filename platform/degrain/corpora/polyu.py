"""PolyU: `<camera>_<aperture>_<shutter>_<ISO>_<scene>_<shot>_{real,mean}.JPG`."""

import re

from degrain.corpora.listing import FolderNames, Listing, PhotoNames, find_counterpart, pair_each
from degrain.corpora.record import PairRecord

_POLYU_FILE = re.compile(
    r"(?:^|.*/)(?P<camera>[^/]+?)_(?P<aperture>[\d-]+)_(?P<shutter>\d+)_(?P<iso>\d+)"
    r"_(?P<scene>[^/]+?)_+(?P<shot>\d+)_"
    r"(?P<kind>real|mean)\.\w+$",
    re.IGNORECASE,
)


def list_polyu(folder: FolderNames) -> Listing:
    """Pair each `real` photo, which is noisy, with its `mean`, which is clean.

    A scene is the field `<scene>` alone, because several cameras photographed the same objects.
    """
    return pair_each(folder.names, _pair)


def _pair(noisy: str, photos: PhotoNames) -> PairRecord | None:
    file = _POLYU_FILE.match(noisy)
    if file is None or file["kind"].lower() != "real":
        return None
    clean = find_counterpart(photos, noisy, file.start("kind"), file.end("kind"), "mean")
    if clean is None:
        return None
    return PairRecord(
        id=f"polyu/{noisy.rpartition('_')[0]}",
        corpus="polyu",
        scene=f"polyu/{file['scene'].lower()}",
        noisy=noisy,
        clean=clean,
        camera=file["camera"],
        iso=int(file["iso"]),
        shutter=f"1/{int(file['shutter'])}",
    )
