"""The centre of a photo, and its crops with the most detail."""

import numpy as np
from unit.support import random_photo

from degrain.imaging.crops import centre_crop, most_detailed_crops


def test_centre_crop_has_equal_margins() -> None:
    photo = random_photo(10, 7)
    assert np.array_equal(centre_crop(photo, 4), photo[3:7, 1:5])
    assert np.array_equal(centre_crop(photo, 8), photo[1:9])
    assert np.array_equal(centre_crop(photo, 20), photo)


def test_crops_with_the_most_detail_come_first() -> None:
    photo = np.full((90, 120, 3), 100, np.uint8)
    photo[30:60, 60:90] = random_photo(30, 30)
    photo[:30, 90:] = random_photo(30, 30) // 8
    assert most_detailed_crops(photo, 30, 2) == [(30, 60), (0, 90)]


def test_a_photo_with_few_crops_returns_all_of_them() -> None:
    assert most_detailed_crops(random_photo(30, 65), 30, 2) == [(0, 0), (0, 30)]
    assert most_detailed_crops(random_photo(29, 65), 30, 2) == []
