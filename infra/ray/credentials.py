"""Credentials of the local stack, made once per user and kept outside of the repository."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from processes import StackError


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Keys of the S3 server and the password of Grafana's user `admin`."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    grafana_password: str = field(repr=False)

    @classmethod
    def load(cls) -> "Credentials":
        """Read the user's credentials, or make them.

        Raises StackError for a damaged file or a folder that cannot be written to.
        """
        file = credentials_file()
        if file.exists():
            try:
                return cls(**json.loads(file.read_text()))
            except (ValueError, TypeError):
                raise StackError(
                    f"'{file}' is damaged; remove it, and new credentials are made"
                ) from None
        made = cls(
            access_key=secrets.token_hex(10),
            secret_key=secrets.token_hex(20),
            grafana_password=secrets.token_urlsafe(12),
        )
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise StackError(
                f"cannot write '{file}': {error.strerror}; name another folder with XDG_CONFIG_HOME"
            ) from None
        with os.fdopen(descriptor, "w") as stream:
            json.dump(asdict(made), stream, indent=1)
        return made


def credentials_file() -> Path:
    """The file of this user's credentials."""
    configuration = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(configuration).expanduser() / "degrain" / "stack.json"
