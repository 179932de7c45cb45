"""Local folders and S3 buckets behind one `Location`.

One `Storage` holds the S3 settings and configures pyarrow (patch sets, checkpoints), boto3 (checks
of buckets) and MLflow (artifacts), because the three read different environment variables.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.fs as pafs

from degrain.errors import JobFailedError, UserError
from degrain.storage.atomic import AtomicWrite
from degrain.storage.listing import (
    FileStamp,
    bucket_folders,
    local_files,
    local_files_inside,
    local_folders,
)
from degrain.storage.retry import is_failure_of_server, retry

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_SECONDS = 4
READ_TIMEOUT_SECONDS = 10
_ANSWER_SECONDS = 7
"""How long, twice, a server may take to show that it answers."""
SILENCE_SECONDS = 20
"""How long pyarrow waits for the next byte of an answer before it repeats the request."""
ATTEMPTS = 8
"""How often boto3 sends a request while the server fails."""
_ARROW_RETRIES = 10
"""How often pyarrow repeats a request, after 25 ms at first, then twice as long: 26 s in all."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """S3 settings; for None fields AWS libraries use their defaults (profile, instance role)."""

    endpoint: str | None = None
    """URL of an S3 server other than Amazon's, e.g. `http://127.0.0.1:9000`."""
    region: str | None = None
    """Region name, e.g. `eu-central-1`."""
    access_key: str | None = field(default=None, repr=False)
    """Access key id."""
    secret_key: str | None = field(default=None, repr=False)
    """Secret access key."""
    session_token: str | None = field(default=None, repr=False)
    """Token of temporary credentials."""

    @classmethod
    def from_environment(cls) -> "Storage":
        """Read `AWS_ENDPOINT_URL[_S3]`, `AWS_[DEFAULT_]REGION`, `AWS_ACCESS_KEY_ID`,
        `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.

        Empty variables of AWS and MLflow are removed from the environment.
        """
        # Compose files set variables that are unset outside to nothing, which boto3 and MLflow
        # take for an address, a profile or a number.
        for name, value in list(os.environ.items()):
            if not value and name.startswith(("AWS_", "MLFLOW_")):
                del os.environ[name]
        env = os.environ.get
        return cls(
            endpoint=env("AWS_ENDPOINT_URL_S3") or env("AWS_ENDPOINT_URL"),
            region=env("AWS_REGION") or env("AWS_DEFAULT_REGION"),
            access_key=env("AWS_ACCESS_KEY_ID"),
            secret_key=env("AWS_SECRET_ACCESS_KEY"),
            session_token=env("AWS_SESSION_TOKEN"),
        )

    def s3_filesystem(self) -> pafs.S3FileSystem:
        """Create pyarrow's S3 filesystem, which does not read `AWS_ENDPOINT_URL` itself.

        It must not be sent to other processes: pyarrow pickles it without the retry strategy.
        """
        return pafs.S3FileSystem(
            endpoint_override=self.endpoint,
            region=self.region or ("us-east-1" if self.endpoint else None),
            access_key=self.access_key,
            secret_key=self.secret_key,
            session_token=self.session_token,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            request_timeout=SILENCE_SECONDS,
            # The standard strategy has a quota of 100 retries, which pyarrow never refills: from
            # then on each failed request is an error at once.
            retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=_ARROW_RETRIES),
        )

    def s3_client(
        self, attempts: int = ATTEMPTS, timeout: float = READ_TIMEOUT_SECONDS
    ) -> "S3Client":
        """Create a boto3 client."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region or "us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            aws_session_token=self.session_token,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                read_timeout=timeout,
                retries={"mode": "standard", "total_max_attempts": attempts},
                # Servers other than Amazon's need not know checksums behind the content.
                request_checksum_calculation="when_required" if self.endpoint else None,
                s3={"addressing_style": "path"} if self.endpoint else None,
            ),
        )

    def mlflow_environment(self) -> dict[str, str]:
        """Return the settings as environment variables of MLflow's S3 artifact store."""
        named = {
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }
        return {name: value for name, value in named.items() if value is not None}

    def stamps(self, uris: Iterable[str]) -> dict[str, FileStamp]:
        """Return size and time of the existing files among `uris`, by URI."""
        found: dict[str, FileStamp] = {}
        places = {uri: self.locate(uri) for uri in uris}
        for remote in (False, True):
            group = {uri: place for uri, place in places.items() if place.remote == remote}
            files = next(iter(group.values())).filesystem if group else None
            infos = files.get_file_info([place.path for place in group.values()]) if files else []
            found |= {
                u: FileStamp.of(i)
                for u, i in zip(group, infos, strict=True)
                if i.type == pafs.FileType.File
            }
        return found

    def locate(self, uri: str | Path) -> "Location":
        """Return the location of `s3://bucket/key`, `file:///path` or a local path.

        Keys are taken literally: `%` is not an escape. Raises UserError for another scheme.
        """
        text = str(uri).removeprefix("file://")
        if not text:
            raise UserError(
                "a path is empty; name a folder or file, and check the shell variable behind it"
            )
        if text.startswith("s3://"):
            if not text.removeprefix("s3://").split("/", 1)[0]:
                raise UserError(f"'{text}' has no bucket name; write s3://BUCKET/KEY")
            return Location(text.rstrip("/"), self)
        if "://" in text:
            raise UserError(
                f"cannot read '{text}': only local paths and s3:// are supported; copy it to either"
            )
        try:
            return Location(str(Path(text).expanduser().absolute()), self)
        except RuntimeError:
            user = text.split("/", 1)[0]
            raise UserError(
                f"cannot read '{text}': user '{user[1:]}' does not exist; correct the path"
            ) from None


@dataclass(frozen=True)
class Location:
    """A file or folder, on disk or in a bucket; writes are atomic."""

    uri: str
    storage: Storage

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "Location":
        return Location(f"{self.uri}/{name}", self.storage)

    @property
    def remote(self) -> bool:
        """Whether the location is in a bucket."""
        return self.uri.startswith("s3://")

    @property
    def path(self) -> str:
        """Path for `filesystem`: `bucket/key`, or an absolute local path."""
        return self.uri.removeprefix("s3://")

    @property
    def identity(self) -> str:
        """Canonical URI: links and `..` of a local path are resolved."""
        return self.uri if self.remote else os.path.realpath(self.path)

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The pyarrow filesystem of the location."""
        return self.storage.s3_filesystem() if self.remote else pafs.LocalFileSystem()

    def check_answers(self) -> None:
        """Raise UserError, within about 15 s, unless the bucket exists and answers.

        Does nothing for local paths. Raises JobFailedError if its server fails for half a minute.
        """
        if not self.remote:
            return
        from botocore.exceptions import BotoCoreError, ClientError

        bucket = self.path.split("/", 1)[0]
        where = self.storage.endpoint or "Amazon S3"
        try:
            client = self.storage.s3_client(attempts=2, timeout=_ANSWER_SECONDS)
            retry(lambda: client.head_bucket(Bucket=bucket))
        except ClientError as error:
            if is_failure_of_server(error):
                raise JobFailedError(
                    f"cannot use '{self.uri}': {where} fails ({error}); run it again later"
                ) from None
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            reason = {404: "the bucket does not exist", 403: "the credentials are refused"}.get(
                int(status or 0), str(error)
            )
            raise UserError(
                f"cannot use '{self.uri}': {reason} at {where}; check the URI, AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
            ) from None
        except BotoCoreError as error:
            short = str(error).splitlines()[0]
            raise UserError(
                f"cannot reach '{self.uri}': {short}; check AWS_ENDPOINT_URL ({where}) and the "
                "credentials"
            ) from None

    def check_writable(self) -> None:
        """Raise UserError unless results can be written to this folder or bucket."""
        self.check_answers()
        if self.remote:
            return
        path = Path(self.path)
        existing = next(p for p in (path, *path.parents) if p.exists())
        if not existing.is_dir():
            raise UserError(f"cannot write to '{self}': '{existing}' is a file; name a folder")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(
                f"cannot write to '{self}': no permission to write in '{existing}'; name another "
                "folder"
            )

    def check_file_writable(self) -> None:
        """Raise UserError unless results can be written to a file of this path."""
        if self.remote:
            self.check_answers()
            return
        if self.is_folder():
            raise UserError(f"cannot write '{self}': it is a folder; name a file")
        self.storage.locate(Path(self.path).parent).check_writable()

    def exists(self) -> bool:
        """Whether the location is an existing file or folder."""
        return bool(self.filesystem.get_file_info(self.path).type != pafs.FileType.NotFound)

    def is_folder(self) -> bool:
        """Whether the location is an existing folder (in a bucket: has keys below it)."""
        return bool(self.filesystem.get_file_info(self.path).type == pafs.FileType.Directory)

    def files_inside(self, others: dict[str, str] | None = None) -> dict[str, FileStamp]:
        """Return the files directly inside this folder by name, sorted; empty without it.

        `others` gets the names that are neither files nor folders, with the reason.
        """
        if not self.remote:
            return dict(sorted(local_files_inside(Path(self.path), others)))
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        files = {i.base_name: FileStamp.of(i) for i in infos if i.type == pafs.FileType.File}
        return dict(sorted(files.items()))

    def files(self, others: dict[str, str] | None = None) -> dict[str, FileStamp]:
        """Return all files below this folder by relative name, sorted; links are followed.

        `others` gets the names that are neither files nor folders, with the reason.
        """
        if not self.remote:
            return dict(sorted(local_files(Path(self.path), others)))
        infos = self.filesystem.get_file_info(pafs.FileSelector(self.path, recursive=True))
        found = {
            info.path[len(self.path) :].lstrip("/"): FileStamp.of(info)
            for info in infos
            if info.type == pafs.FileType.File
        }
        return dict(sorted(found.items()))

    def files_by_folder(self) -> Iterator[dict[str, FileStamp]]:
        """Yield the files of each folder below this one, by name relative to this one, sorted.

        Folders whose names differ in case only come together. Memory is that of the largest folder.
        """
        if self.remote:
            return bucket_folders(self.filesystem, self.path)
        return local_folders(Path(self.path))

    def read_bytes(self) -> bytes:
        """Read the file; from a bucket with one GET request."""
        # pyarrow reads a stream in pieces of 256 KiB, in a bucket each with a request of its own.
        filesystem = self.filesystem
        opened = filesystem.open_input_file if self.remote else filesystem.open_input_stream
        with opened(self.path) as file:
            return bytes(file.read())

    def write_bytes(self, content: bytes) -> None:
        """Write the file atomically: a reader sees the old content or the new one."""
        folder, _, name = self.uri.rpartition("/")
        with AtomicWrite(Location(folder or "/", self.storage), name) as file:
            file.write(content)
            file.publish(name)

    def remove(self) -> None:
        """Delete the file if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path)

    def make_parent(self) -> None:
        """Create the parent folder; buckets need none."""
        if not self.remote:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
