"""Durations as users write them."""

import pytest

from degrain.durations import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1m5s", 65),
        ("1d12h", 129600),
    ],
)
def test_durations_are_read_as_seconds(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "0s", "15 minutes", "-2h", "1m1h", "1.2.3s"])
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write e"):
        Duration.parse(text)


@pytest.mark.parametrize("text", ["90s", "1m30s", "15m", "2h", "1h30m"])
def test_durations_print_as_they_are_read(text: str) -> None:
    assert Duration.parse(str(Duration.parse(text))) == Duration.parse(text)


def test_durations_print_in_the_largest_units() -> None:
    assert str(Duration(5400)) == "1h30m"
