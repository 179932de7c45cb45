"""The header `Accept`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from degrain.serving.negotiation import FORMATS, choose_format
from degrain.serving.uploads import RefusedError


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, None),
        ("", None),
        ("*/*", None),
        ("image/*", None),
        ("image/png", "png"),
        ("IMAGE/PNG", "png"),
        ("image/png;q=0.2, image/webp;q=0.9", "webp"),
        ("image/avif, image/webp, */*;q=0.8", "webp"),
        ("image/avif, */*;q=0.8, image/png;q=0.1", None),
        ("image/png;q=0, image/jpeg;q=0.1", "jpeg"),
        ("image/tiff; charset=x; q=1", "tiff"),
        ("image/png;q=broken, image/jpeg", "jpeg"),
    ],
)
def test_the_preferred_type_is_chosen(accept: str | None, chosen: str | None) -> None:
    assert choose_format(accept) == chosen


@pytest.mark.parametrize(
    "accept", ["application/json", "image/gif", "image/png;q=0", ";;;", "*/*;q=0"]
)
def test_types_that_cannot_be_written_are_refused(accept: str) -> None:
    with pytest.raises(RefusedError) as caught:
        choose_format(accept)
    assert caught.value.status == 406


@pytest.mark.slow
@given(st.text(max_size=80))
def test_any_text_gives_a_format_or_a_refusal(accept: str) -> None:
    try:
        chosen = choose_format(accept)
    except RefusedError:
        return
    assert chosen is None or chosen in FORMATS.values()
