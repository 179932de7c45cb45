"""The starter model in the package: small, good, and harmless to clean photos."""

import numpy as np
import pytest
from skimage import data as skimage_data

from degrain.errors import UserError
from degrain.imaging.metrics import score_photo
from degrain.imaging.noise_synthesis import add_noise
from degrain.inference.config import STARTER
from degrain.inference.denoiser import NetworkDenoiser
from degrain.registry.files import STARTER_FOLDER
from degrain.registry.resolver import Resolver
from degrain.storage.location import Storage

CHELSEA = skimage_data.chelsea()[20:212, 100:292]
"""A part of the embedded corpus' test photo."""


@pytest.fixture(scope="module")
def starter() -> NetworkDenoiser:
    return Resolver(None, Storage()).load(STARTER)[0]


def test_the_starter_says_where_it_comes_from() -> None:
    _, card = Resolver(None, Storage()).load(STARTER)
    assert card.source is not None
    assert "Apache-2.0" in card.source["licence"]
    assert "CC BY-SA 4.0" in (STARTER_FOLDER / "NOTICE.md").read_text()


def test_the_starter_has_at_most_five_megabytes() -> None:
    assert sum(file.stat().st_size for file in STARTER_FOLDER.iterdir()) < 5_000_000


@pytest.mark.parametrize(
    ("noise", "gain"),
    [("gaussian:25", 7), ("camera:3200", 4), ("camera:12800", 6), ("fitted:0.01,0.0005,0.5", 4)],
)
def test_the_starter_removes_noise_of_many_kinds(
    starter: NetworkDenoiser, noise: str, gain: float
) -> None:
    noisy = add_noise(CHELSEA, noise, "a")
    before, after = score_photo(noisy, CHELSEA).psnr, score_photo(starter(noisy), CHELSEA).psnr
    assert after - before > gain


@pytest.mark.slow
def test_fine_texture_under_weak_noise_is_not_taken_for_noise(starter: NetworkDenoiser) -> None:
    rocket = skimage_data.rocket()
    noisy = add_noise(rocket, "gaussian:4", "a")
    gain = score_photo(starter(noisy), rocket).psnr - score_photo(noisy, rocket).psnr
    assert gain > 0.5


def test_a_clean_photo_keeps_its_detail_and_its_colour(starter: NetworkDenoiser) -> None:
    output = starter(CHELSEA)
    assert score_photo(output, CHELSEA).psnr > 45
    shift = output.mean((0, 1)) - CHELSEA.mean((0, 1))
    assert np.abs(shift).max() < 0.5


def test_an_empty_name_of_a_model_is_an_error() -> None:
    with pytest.raises(UserError, match="there is no model ''"):
        Resolver(None, Storage()).load("")
