"""Pairs that were warped, and pairs of another exposure: corrected, refused, or accepted wrongly.

    python tests/benchmarks/run.py pairs

Needs the photos of `shared/data`: free photographs, which are warped and photographed with a
camera's noise, and the real pairs, whose noisy photos are made brighter, darker and tinted.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter, zoom
from table import Settings, Table, progress

from degrain.corpora.record import PairRecord
from degrain.imaging.camera_noise import ISO_LEVELS, photograph, to_linear, to_srgb
from degrain.imaging.codecs import decode
from degrain.imaging.exposure import estimate_exposure
from degrain.imaging.pixels import Photo
from degrain.imaging.stored_photo import UnreadablePhotoError
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.checks import apply_shift, measure

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SIDES = (192, 512, 1000, 4000)
WARPS = {"shift": (0.0, 60.0), "rotation": (0.2, 2.0), "scale": (0.5, 3.0)}
"""Range in pixels, degrees and percent."""
LOOKS = ("sharp", "smooth", "noisy")
"""As it is at ISO 800, blurred at ISO 800, as it is at ISO 12800."""
TOLERANCE = 0.5
"""Pixels by which the estimated shift of an accepted pair may be off at the corners."""
FOLDERS = ("SIDD_Small_sRGB_Only_256", "Mi3_Aligned", "PolyU")
PAIR = PairRecord(
    id="own/a", corpus="own", scene="own/a", noisy="noisy.png", clean="clean.png", own=True
)


def run(settings: Settings) -> list[Table]:
    """What is done to warped pairs, and to pairs whose exposure was changed."""
    if not SHARED.is_dir():
        progress("the photos of shared/data are not on this machine: nothing to measure")
        return []
    return [
        _warped(1 if settings.quick else 6, SIDES[:2] if settings.quick else SIDES),
        _exposed(6 if settings.quick else 200),
    ]


def _warped(count: int, sides: tuple[int, ...]) -> Table:
    photos = [_read(path) for path in sorted((SHARED / "clean").glob("*.png"))]
    random = np.random.default_rng(0)
    rows = []
    for side, kind in product(sides, WARPS):
        found = [_judge(photos, side, kind, LOOKS[i % 3], random) for i in range(count)]
        counts = Counter(verdict for verdict, _ in found)
        worst = max((off for verdict, off in found if verdict == "accepted"), default=0.0)
        wrong = sum(verdict == "accepted" and off > TOLERANCE for verdict, off in found)
        numbers = [count, counts["accepted"], counts["flat"], counts["refused"], wrong]
        rows.append([f"{side} pixels, {kind}", *map(str, numbers), f"{worst:.2f}"])
        progress(", ".join(rows[-1]))
    columns = ["warped photos", "pairs", "accepted", "flat", "refused", "wrongly", "off by at most"]
    caption = (
        "Pairs of a known warp. `flat`: too flat beside the noise to be aligned, and to need it; "
        "`off by`: of the estimated shift, pixels, at the corners; wrong is more than 0.5."
    )
    return Table(columns, rows, caption)


def _judge(
    photos: list[Photo], side: int, kind: str, look: str, random: np.random.Generator
) -> tuple[str, float]:
    """`accepted`, `flat` or `refused`, and how far the estimate is off at the corners."""
    margin = 64 + side // 30
    scene = _scene(photos, side + 2 * margin, random)
    if look == "smooth":
        scene = gaussian_filter(scene, (4, 4, 0))
    amount = random.uniform(*WARPS[kind]) * random.choice([-1, 1])
    turn = np.deg2rad(amount) if kind == "rotation" else 0.0
    factor = 1 + amount / 100 if kind == "scale" else 1.0
    shift = np.zeros(2)
    if kind == "shift":
        shift = np.array([amount, random.uniform(-abs(amount), abs(amount))])
        shift = random.permutation(shift)
    cosine, sine = factor * np.cos(turn), factor * np.sin(turn)
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    centre = np.full(2, scene.shape[0] / 2)
    offset = centre + shift - matrix @ centre
    seen = np.stack(
        [affine_transform(scene[:, :, i], matrix, offset, order=3) for i in range(3)], axis=2
    )
    inner = slice(margin, margin + side)
    clean, warped = (_eight_bits(image[inner, inner]) for image in (scene, seen))
    noisy = photograph(warped, ISO_LEVELS[12800 if look == "noisy" else 800], random)
    try:
        pair = measure(PAIR, noisy, clean, CheckRules())
    except UnreadablePhotoError:
        return "refused", 0.0
    if not (pair.shift_y or pair.shift_x):
        return "flat", 0.0
    move = np.array([pair.shift_y, pair.shift_x])
    corners = [np.array(corner) * side + margin for corner in product((0, 1), repeat=2)]
    # A point of the shifted noisy photo shows what the warp says of the point before it moved.
    apart = [np.abs(matrix @ (corner - move) + offset - corner).max() for corner in corners]
    return "accepted", max(apart)


def _scene(photos: list[Photo], side: int, random: np.random.Generator) -> NDArray[np.float64]:
    """A square part of a photo; where none is as large, one enlarged, or a collage of several."""
    if large := [photo for photo in photos if min(photo.shape[:2]) >= side]:
        return _part(large[random.integers(len(large))], side, random)
    tile = side // 8 + 1
    usable = [photo for photo in photos if min(photo.shape[:2]) >= tile]
    if random.integers(2):
        part = _part(usable[random.integers(len(usable))], tile, random)
        return np.asarray(zoom(part, (side / tile, side / tile, 1), order=3))
    chosen = [usable[i] for i in random.integers(len(usable), size=64)]
    rows = [[_part(photo, tile, random) for photo in chosen[i : i + 8]] for i in range(0, 64, 8)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])[:side, :side]


def _part(photo: Photo, side: int, random: np.random.Generator) -> NDArray[np.float64]:
    top, left = (random.integers(extent - side + 1) for extent in photo.shape[:2])
    return photo[top : top + side, left : left + side].astype(np.float64)


def _exposed(count: int) -> Table:
    pairs = list(_real_pairs())
    random = np.random.default_rng(0)
    chosen = [pairs[i] for i in random.choice(len(pairs), count, replace=False)]
    rows = []
    for white, text in ((65535, "16 bits"), (255, "8 bits")):
        counts: Counter[str] = Counter()
        errors = []
        for noisy, clean in chosen:
            verdict, error = _match(noisy, clean, white, random)
            counts[verdict] += 1
            if verdict == "matched":
                errors.append(error)
        progress(f"{text}: {dict(counts)}, {len(errors)} errors, largest {max(errors, default=0)}")
        within = sum(error <= 0.01 for error in errors)
        verdicts = (counts[v] for v in ("matched", "uncertain", "alike", "refused"))
        rows.append([text, *map(str, verdicts), str(within), f"{100 * max(errors, default=0):.1f}"])
    columns = ["noisy photo in", "matched", "uncertain", "alike", "refused", "to 1%", "largest, %"]
    caption = (
        f"{count} real pairs, the noisy photo times gains of 0.7 to 1.4, channels up to 10% apart, "
        "in linear light: how far the estimated change is from the true one."
    )
    return Table(columns, rows, caption)


def _match(
    noisy: Photo, clean: Photo, white: int, random: np.random.Generator
) -> tuple[str, float]:
    """What becomes of a pair, and the error of the largest channel, as a share."""
    gains = random.uniform(0.7, 1.4) * random.uniform(0.9, 1.1, 3) ** np.array([1, 0, 1])
    changed = to_srgb(to_linear(noisy) * gains, white)
    try:
        pair = measure(PAIR, changed, clean, CheckRules())
    except UnreadablePhotoError as error:
        progress(f"refused: {error}")
        return "refused", 0.0
    if pair.gains is None:
        return ("uncertain" if pair.exposure_unknown else "alike"), 0.0
    before = estimate_exposure(*apply_shift(noisy, clean, pair.move_y or 0, pair.move_x or 0))
    found = np.array(pair.gains) / np.array(before.gains)
    return "matched", float(np.abs(found / gains - 1).max())


def _real_pairs() -> Iterator[tuple[Photo, Photo]]:
    for path in sorted(SHARED.glob("SIDD*/Data/*/*NOISY_SRGB*")):
        yield _read(path), _read(path.with_name(path.name.replace("NOISY", "GT")))
    for path in sorted(SHARED.glob("Mi3_Aligned/*/*Noisy.bmp")):
        yield _read(path), _read(path.with_name(path.name.replace("Noisy", "Reference")))
    for path in sorted(SHARED.glob("PolyU/CroppedImages/*real*")):
        yield _read(path), _read(path.with_name(path.name.replace("real", "mean")))


def _read(path: Path) -> Photo:
    if path.suffix == ".png":
        return np.asarray(Image.open(path).convert("RGB"))
    return decode(path.read_bytes())


def _eight_bits(values: NDArray[np.float64]) -> Photo:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
