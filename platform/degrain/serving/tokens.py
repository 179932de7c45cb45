"""The token of the service: where it comes from, and the comparison with a client's."""

import hmac
import os
from pathlib import Path

from degrain.errors import UserError
from degrain.serving.config import TOKEN_VARIABLE

SHORTEST = 16
"""Characters; shorter tokens could be guessed."""
_SCHEME = "bearer "


def read_token(file: Path | None) -> str | None:
    """The token in `file`, else that of the environment, else None.

    Raises UserError for a file that cannot be read, and for a short token.
    """
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE)
        return None if token is None else _checked(token, TOKEN_VARIABLE)
    try:
        return _checked(file.read_text(), f"`token_file` '{file}'")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read `token_file` '{file}': {getattr(error, 'strerror', 'it is not text')}; "
            "name a text file with one line"
        ) from None


def _checked(text: str, source: str) -> str:
    token = text.strip()
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            f"the token of {source} must be one line of at least {SHORTEST} ASCII characters "
            "without spaces; make one with: openssl rand -hex 24"
        )
    return token


def is_authorized(header: str | None, token: str) -> bool:
    """Whether the header `Authorization` has the token; takes as long for any wrong one."""
    if header is None or header[: len(_SCHEME)].lower() != _SCHEME:
        return False
    return hmac.compare_digest(header[len(_SCHEME) :].strip().encode(), token.encode())
