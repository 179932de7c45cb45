"""The notice of a retraining's decision."""

import pytest

from degrain.errors import InvalidFieldError
from degrain.retraining import notice


@pytest.mark.parametrize("url", ["ftp://host/hook", "host/hook", "http:///hook", ""])
def test_a_url_that_cannot_be_posted_to_is_refused(url: str) -> None:
    with pytest.raises(InvalidFieldError, match="notify must be an http:// or https:// URL"):
        notice.check_url(url)


def test_a_notice_that_fails_is_tried_three_times_and_only_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    tried: list[object] = []

    def refuse(request: object) -> None:
        tried.append(request)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(notice, "_send", refuse)
    monkeypatch.setattr(notice, "_LONGEST_WAIT_SECONDS", 0)
    notice.post_notice("http://token:secret@ops.example/hook", {"decision": "kept"}, lines.append)
    assert len(tried) == 3
    assert lines == [
        "warning: the decision could not be posted to ops.example: [Errno 111] Connection refused"
    ]
