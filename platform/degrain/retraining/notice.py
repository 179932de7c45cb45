"""The decision of a retraining as JSON, posted to a URL (webhook)."""

import urllib.request
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from degrain.errors import InvalidFieldError
from degrain.storage.json_file import json_bytes

FORMAT = 1
"""Version of the content; it changes if a key changes its meaning or is dropped."""
_TIMEOUT_SECONDS = 10
_ATTEMPTS = 3
_LONGEST_WAIT_SECONDS = 10


def check_url(url: str) -> None:
    """Raise InvalidFieldError unless `url` is an http or https URL with a host."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidFieldError("notify", f"must be an http:// or https:// URL, got '{url}'")


def post_notice(url: str, content: Mapping[str, object], log: Callable[[str], None]) -> None:
    """Post `content` as JSON, three times at most.

    A failure is logged and not raised: the retraining has ended, and its decision stands.
    """
    body = json_bytes({"event": "degrain.retraining", "format": FORMAT, **content})
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    attempts = Retrying(
        retry=retry_if_exception_type(OSError),
        wait=wait_exponential(max=_LONGEST_WAIT_SECONDS),
        stop=stop_after_attempt(_ATTEMPTS),
        reraise=True,
    )
    try:
        attempts(_send, request)
    except OSError as error:
        log(f"warning: the decision could not be posted to {urlsplit(url).hostname}: {error}")


def _send(request: urllib.request.Request) -> None:
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
        pass
