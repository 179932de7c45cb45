"""Peak activation memory of a forward pass."""

from denoisenets import bytes_per_pixel


def test_peak_counts_tensors_that_are_live_at_once() -> None:
    """RED10 holds a layer's input, its output and the ReLU's output, 64 features of four bytes
    each, and the photo.
    """
    assert bytes_per_pixel("red10") == (3 * 64 + 3) * 4
    assert bytes_per_pixel("red10", width=32) == (3 * 32 + 3) * 4
