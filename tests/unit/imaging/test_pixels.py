"""Conversions between 8 and 16 bits."""

import tracemalloc

import numpy as np

from degrain.imaging.pixels import eight_bits, peak, sixteen_bits


def test_sixteen_bit_round_trip_preserves_all_values() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    deep = sixteen_bits(every)
    assert deep.dtype == np.uint16
    assert (deep.min(), deep.max()) == (0, 65535)
    assert np.array_equal(eight_bits(deep), every)
    assert np.array_equal(eight_bits(every), every)
    assert np.array_equal(sixteen_bits(deep), deep)
    assert (peak(every), peak(deep)) == (255, 65535)


def test_sixteen_bits_are_rounded_to_eight() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(4096, 16)
    assert np.array_equal(eight_bits(every), np.round(every / 257).astype(np.uint8))


def test_rounding_to_eight_bits_takes_little_memory() -> None:
    deep = np.zeros((4000, 500, 3), np.uint16)
    tracemalloc.start()
    try:
        eight_bits(deep)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2 * deep.nbytes // 2
