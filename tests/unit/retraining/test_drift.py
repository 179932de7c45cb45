"""Drift: deliveries of the same kind are seldom flagged, others are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unit.support import natural_photo, pair_record

from degrain.imaging.noise_synthesis import add_noise
from degrain.imaging.pixels import sixteen_bits
from degrain.retraining.delivery import measure_traits
from degrain.retraining.drift import FEWEST_SCENES, find_drift
from degrain.retraining.traits import PairTraits

CAMERAS = ("S6", "IP", "GP")
ISOS = (100, 400, 1600, 3200)


def scene(
    number: int,
    random: np.random.Generator,
    *,
    photos: int = 8,
    noise: float = 1.0,
    cameras: Sequence[str] = CAMERAS,
    champion: float = 5.0,
) -> list[PairTraits]:
    """Pairs of one scene, whose noise depends on camera, ISO and the scene itself."""
    own = random.normal(0, 0.15)
    stops = random.normal(6, 0.6)
    found = []
    for _ in range(photos):
        camera, iso = str(random.choice(cameras)), int(random.choice(ISOS))
        base = {"S6": 3.0, "IP": 4.0, "GP": 5.0}.get(camera, 4.0)
        level = noise * base * (iso / 400) ** 0.4 * 2 ** (own + random.normal(0, 0.2))
        psnr = 20 * float(np.log10(255 / level))
        found.append(
            PairTraits(
                scene=f"c/{number}",
                camera=f"c {camera}",
                iso=iso,
                noise=level,
                correlation=0.3 + random.normal(0, 0.03),
                exposure=2 ** random.normal(0, 0.03),
                brightness=2 ** (stops + random.normal(0, 0.2)),
                noisy_psnr=psnr,
                champion_psnr=psnr + champion - 0.3 * (psnr - 30) + random.normal(0, 0.3),
            )
        )
    return found


def known(random: np.random.Generator, scenes: int = 12) -> list[PairTraits]:
    return [pair for number in range(scenes) for pair in scene(number, random)]


def delivered(random: np.random.Generator, scenes: int = 2, **changes: object) -> list[PairTraits]:
    numbers = range(100, 100 + scenes)
    return [p for number in numbers for p in scene(number, random, **changes)]  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("photos", [1, 8])
def test_deliveries_of_the_same_kind_are_seldom_flagged(photos: int) -> None:
    random = np.random.default_rng(0)
    flags = [find_drift(known(random), delivered(random, photos=photos)).drifted for _ in range(60)]
    assert sum(bool(f) for f in flags) <= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "trait"),
    [
        ({"noise": 2.0}, "noise"),
        ({"noise": 0.5}, "noise"),
        ({"cameras": ("N6",)}, "new camera"),
        ({"champion": 2.0}, "champion"),
    ],
)
@pytest.mark.parametrize("scenes", [1, 3])
def test_another_kind_is_flagged(changes: dict[str, object], trait: str, scenes: int) -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        report = find_drift(known(random), delivered(random, scenes, **changes))
        assert trait in report.drifted
        assert report.describe().startswith("drift: ")


def test_a_better_champion_is_no_drift() -> None:
    random = np.random.default_rng(2)
    assert "champion" not in find_drift(known(random), delivered(random, champion=9.0)).drifted


def test_exposure_correlation_and_iso_are_compared() -> None:
    random = np.random.default_rng(3)
    before, after = known(random), delivered(random)
    darker = [replace(p, exposure=1.3 * p.exposure) for p in after]
    assert find_drift(before, darker).drifted == ["exposure"]
    white = [replace(p, correlation=0.0) for p in after]
    assert find_drift(before, white).drifted == ["noise correlation"]
    high = [replace(p, iso=25_600) for p in after]
    assert "new ISO" in find_drift(before, high).drifted


def test_a_delivery_of_one_known_camera_changes_the_mix() -> None:
    random = np.random.default_rng(4)
    report = find_drift(known(random), delivered(random, 4, cameras=("GP",)))
    assert report.drifted == ["camera mix"]
    assert "camera mix | yes" in report.to_markdown()


def test_few_known_scenes_are_compared_with_nothing() -> None:
    random = np.random.default_rng(5)
    report = find_drift(known(random, FEWEST_SCENES - 1), delivered(random, noise=4.0))
    assert report.drifted == []
    assert "5 are needed" in report.findings[0].text
    assert report.findings[0].probability is None


def test_unknown_isos_do_not_matter() -> None:
    random = np.random.default_rng(6)
    before = [replace(p, iso=None) for p in known(random)]
    assert find_drift(before, delivered(random)).drifted == []


@pytest.mark.parametrize("sixteen", [False, True])
def test_traits_of_a_pair_are_those_of_its_noise(sixteen: bool) -> None:
    clean = (natural_photo(600, 520) * 0.5 + 60).astype(np.uint8)
    noisy = add_noise(clean, "gaussian:10", "a")
    if sixteen:
        clean, noisy = sixteen_bits(clean), sixteen_bits(noisy)
    row = pair_record(exposure=1.02, camera="S6", iso=800)
    found = measure_traits(row, noisy, clean, lambda photo: clean)  # type: ignore[arg-type]
    assert (found.camera, found.iso, found.exposure) == ("pairs S6", 800, 1.02)
    assert found.noise == pytest.approx(10, rel=0.03)
    assert found.correlation == pytest.approx(0, abs=0.02)
    assert found.noisy_psnr == pytest.approx(20 * np.log10(255 / 10), abs=0.2)
    assert found.champion_psnr is not None
    assert found.champion_psnr > 80


def test_a_pair_is_measured_on_its_centre(tmp_path: Path) -> None:
    clean = np.full((700, 900, 3), 100, np.uint8)
    noisy = clean.copy()
    noisy[:90] = noisy[:, :190] = 200
    assert measure_traits(pair_record(exposure=1.0), noisy, clean).noise == 0
