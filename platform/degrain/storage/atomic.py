"""Atomic writes: a reader sees all of a file or none."""

import os
import uuid
from pathlib import Path

PARTIAL = ".part"
"""Suffix of files that are being written."""


class AtomicWrite:
    """Context manager that returns a temporary path, which replaces `target` on success.

    On failure the temporary file is removed, and an OSError without a file name, as pyarrow raises
    it, gets that of `target`. For S3 the path is the target itself, because an object appears only
    when its upload is complete.
    """

    def __init__(self, target: str, *, remote: bool) -> None:
        self.target = target
        self.remote = remote
        self.path = target if remote else f"{target}.{uuid.uuid4().hex[:8]}{PARTIAL}"

    def __enter__(self) -> str:
        if not self.remote:
            Path(self.target).parent.mkdir(parents=True, exist_ok=True)
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if self.remote:
            return
        written = Path(self.path)
        try:
            if kind is None:
                written.replace(self.target)
        finally:
            # It still exists if the block failed, or if `target` is a folder.
            written.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), self.target) from error
