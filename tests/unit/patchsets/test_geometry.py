"""Patch geometry: patches cover every pixel of a photo."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.patchset_support import GEOMETRY, cut_all
from unit.support import random_photo

from degrain.patchsets.geometry import PatchGeometry


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        (15, 15, "patch_size must be from 16 to 8192 pixels, got 15"),
        (8193, 15, "patch_size must be from 16 to 8192 pixels, got 8193"),
        (32, -1, r"stride must be between 1 and the patch size \(32\), .* got -1"),
        (32, 33, r"stride must be between 1 and the patch size \(32\), .* got 33"),
    ],
)
def test_a_geometry_that_leaves_pixels_uncovered_is_refused(
    size: int, stride: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PatchGeometry(patch_size=size, stride=stride)


geometries = st.integers(16, 24).flatmap(
    lambda size: st.integers(1, size).map(
        lambda stride: PatchGeometry(patch_size=size, stride=stride)
    )
)


@settings(max_examples=200, deadline=None)
@given(geometry=geometries, side=st.integers(1, 120))
def test_patches_cover_a_side_and_the_last_is_flush_with_its_end(
    geometry: PatchGeometry, side: int
) -> None:
    starts = geometry.starts(side)
    if side < geometry.patch_size:
        assert starts == []
        return
    assert starts[0] == 0
    assert starts[-1] == side - geometry.patch_size
    assert starts == sorted(set(starts))
    assert {p for s in starts for p in range(s, s + geometry.patch_size)} == set(range(side))
    assert all(s % geometry.stride == 0 for s in starts[:-1])
    assert len(starts) == 1 + -(-(side - geometry.patch_size) // geometry.stride)


def test_a_photo_smaller_than_a_patch_covers_nothing() -> None:
    assert GEOMETRY.covered_pixels(15, 100) == 0


@settings(max_examples=50, deadline=None)
@given(geometry=geometries, height=st.integers(24, 60), width=st.integers(24, 60))
def test_patched_pixels_count_the_pixels_of_all_patches(
    geometry: PatchGeometry, height: int, width: int
) -> None:
    assert (
        geometry.patched_pixels(height, width)
        == cut_all(random_photo(height, width), geometry)[..., 0].size
    )


def test_a_stride_of_zero_is_the_patch_size() -> None:
    assert PatchGeometry(patch_size=32) == PatchGeometry(patch_size=32, stride=32)
