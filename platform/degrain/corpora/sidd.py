"""SIDD Small and Medium, sRGB: `Data/<scene folder>/[NNNN_]{NOISY,GT}_SRGB_NNN.PNG`."""

import re
from sys import intern

from degrain.corpora.listing import FolderNames, Listing, PhotoNames, find_counterpart, pair_each
from degrain.corpora.record import PairRecord

_SIDD_FILE = re.compile(
    r"(?:^|.*/)(?P<folder>[^/]+)/(?P<prefix>(?:\d+_)?)(?P<kind>NOISY|GT)"
    r"(?P<rest>_SRGB_(?P<shot>\d+)\.png)$",
    re.IGNORECASE,
)
# <instance>_<scene>_<phone>_<ISO>_<shutter>_<illuminant>_<brightness>
_SIDD_FOLDER = re.compile(
    r"\d+_(?P<scene>\d+)_(?P<camera>[^_]+)_(?P<iso>\d+)_(?P<shutter>\d+)_\d+_(?P<light>[LNH])$"
)


def list_sidd(folder: FolderNames) -> Listing:
    """Pair each NOISY photo with the GT photo of its folder."""
    return pair_each(folder.names, _pair)


def _pair(noisy: str, photos: PhotoNames) -> PairRecord | None:
    file = _SIDD_FILE.match(noisy)
    folder = _SIDD_FOLDER.match(file["folder"]) if file else None
    if file is None or folder is None or file["kind"].upper() != "NOISY":
        return None
    clean = find_counterpart(photos, noisy, file.start("kind"), file.end("kind"), "GT")
    if clean is None:
        return None
    return PairRecord(
        id=f"sidd/{file['folder']}/{file['shot']}",
        corpus="sidd",
        scene=intern(f"sidd/{folder['scene']}"),
        noisy=noisy,
        clean=clean,
        camera=intern(folder["camera"]),
        iso=int(folder["iso"]),
        shutter=intern(f"1/{int(folder['shutter'])}"),
        brightness=folder["light"],
    )
