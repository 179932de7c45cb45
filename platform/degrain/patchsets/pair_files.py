"""The two files of a pair: read, hashed, decoded and checked."""

from dataclasses import dataclass, replace
from pathlib import Path

from degrain.corpora.record import PairRecord
from degrain.imaging.looks import pixel_digest, thumbnail
from degrain.imaging.metadata import read_camera
from degrain.imaging.pixels import Photo
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.checks import correct, decode_pair, measure
from degrain.storage.location import Storage
from degrain.storage.sealed import content_digest


@dataclass(frozen=True)
class PairFiles:
    """The files of a pair and their hashes; None where a file disappeared after the listing."""

    noisy: bytes | None
    clean: bytes | None
    noisy_hash: str
    clean_hash: str

    def described(self, pair: PairRecord) -> PairRecord:
        """The record of the pair with what the files tell before they are decoded."""
        camera, iso = read_camera(self.noisy) if self.noisy else (None, None)
        if camera is None and self.clean and pair.noise is None:
            camera, _ = read_camera(self.clean)
        return pair.measured(
            {
                "noisy_hash": self.noisy_hash,
                "clean_hash": self.clean_hash,
                "exif_camera": camera,
                "exif_iso": iso,
            }
        )


def read_files(pair: PairRecord, storage: Storage) -> PairFiles:
    """Read and hash both files; a noisy photo that is synthesised has a hash but no file."""
    clean = _read(pair.clean, storage)
    clean_hash = _digest(clean)
    if pair.noise is not None:
        synthetic = content_digest(f"{clean_hash} {pair.noise} {pair.id}".encode())
        return PairFiles(None, clean, synthetic, clean_hash)
    noisy = _read(pair.noisy, storage)
    return PairFiles(noisy, clean, _digest(noisy), clean_hash)


def check_pair(
    pair: PairRecord, files: PairFiles, rules: CheckRules
) -> tuple[tuple[Photo, Photo], PairRecord]:
    """Both photos, aligned and exposed alike, and the record with its measurements.

    Raises UnreadablePhotoError, with the reason, if the rules refuse the pair.
    """
    noisy, clean = decode_pair(pair, files.noisy, files.clean, rules)
    pair = replace(
        pair,
        noisy_pixels=pixel_digest(noisy),
        clean_pixels=pixel_digest(clean),
        look="" if pair.unpaired else thumbnail(clean),
    )
    pair = measure(pair, noisy, clean, rules)
    bit_depth = 8 * max(noisy.dtype.itemsize, clean.dtype.itemsize)
    noisy, clean = correct(noisy, clean, pair)
    height, width = noisy.shape[:2]
    return (noisy, clean), replace(pair, height=height, width=width, bit_depth=bit_depth)


def _read(uri: str, storage: Storage) -> bytes | None:
    """The file's bytes, or None if it disappeared after the listing, or is none but a pipe or a
    folder, which a table may name.
    """
    place = storage.locate(uri)
    if not place.remote and not Path(place.path).is_file():
        return None
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return None


def _digest(content: bytes | None) -> str:
    return "" if content is None else content_digest(content)
