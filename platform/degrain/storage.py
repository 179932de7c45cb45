"""Where bytes live: local folders and S3 buckets behind one `Location`.

One `Storage` value holds the S3 settings and feeds pyarrow (patch sets, checkpoints), boto3 (the check that the
bucket answers) and MLflow (artifacts), because each of the three reads other environment variables.
"""

import contextlib
import json
import math
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow.fs as pafs

from degrain.errors import UserError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 4
READ_TIMEOUT_SECONDS = 10
PARTIAL = ".part"
"""How the names of files end that are still being written."""
_PAUSES_SECONDS = (1, 2, 4, 8, 15)


def json_bytes(content: object) -> bytes:
    """Content as an indented JSON file; numbers that JSON cannot say, like the PSNR of equal photos, become null."""
    return json.dumps(_sayable(content), indent=1, allow_nan=False).encode() + b"\n"


def _sayable(content: object) -> object:
    if isinstance(content, Mapping):
        return {key: _sayable(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_sayable(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


@dataclass(frozen=True, kw_only=True)
class Storage:
    """S3 settings; where a field is None the AWS libraries' own chain (profile, instance role) decides."""

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
        """Read the usual AWS variables: `AWS_ENDPOINT_URL[_S3]`, `AWS_REGION`, `AWS_ACCESS_KEY_ID` and its kin."""

        def env(name: str) -> str | None:
            return os.environ.get(name) or None

        return cls(
            endpoint=env("AWS_ENDPOINT_URL_S3") or env("AWS_ENDPOINT_URL"),
            region=env("AWS_REGION") or env("AWS_DEFAULT_REGION"),
            access_key=env("AWS_ACCESS_KEY_ID"),
            secret_key=env("AWS_SECRET_ACCESS_KEY"),
            session_token=env("AWS_SESSION_TOKEN"),
        )

    def s3_filesystem(self) -> pafs.S3FileSystem:
        """Pyarrow's view of S3, which does not read `AWS_ENDPOINT_URL` by itself."""
        return pafs.S3FileSystem(
            endpoint_override=self.endpoint,
            region=self.region or ("us-east-1" if self.endpoint else None),
            access_key=self.access_key,
            secret_key=self.secret_key,
            session_token=self.session_token,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            request_timeout=60,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=5),
        )

    def s3_client(self) -> "S3Client":
        """boto3's view of S3, impatient: used to ask once whether a bucket answers."""
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
                read_timeout=READ_TIMEOUT_SECONDS,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"} if self.endpoint else None,
            ),
        )

    def mlflow_environment(self) -> dict[str, str]:
        """The variables by which MLflow's S3 artifact store learns the same settings."""
        named = {
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }
        return {name: value for name, value in named.items() if value is not None}

    def stamps(self, uris: Iterable[str]) -> dict[str, "FileStamp"]:
        """Size and time of those of the files that exist, by URI."""
        found: dict[str, FileStamp] = {}
        places = {uri: self.locate(uri) for uri in uris}
        for remote in (False, True):
            ours = {uri: place for uri, place in places.items() if place.remote == remote}
            files = next(iter(ours.values())).filesystem if ours else None
            infos = files.get_file_info([place.path for place in ours.values()]) if files else []
            found |= {u: FileStamp.of(i) for u, i in zip(ours, infos, strict=True) if i.type == pafs.FileType.File}
        return found

    def locate(self, uri: str | Path) -> "Location":
        """The place that `uri` names: `s3://bucket/key`, `file:///path` or a local path.

        Raises UserError for another scheme. Keys are taken literally: `%` and spaces mean themselves.
        """
        text = str(uri).removeprefix("file://")
        if not text:
            raise UserError("a path is empty; name a folder or file, and check the variable that it came from")
        if text.startswith("s3://"):
            return Location(text.rstrip("/"), self)
        if "://" in text:
            raise UserError(f"cannot read '{text}': only local paths and s3:// are supported; copy it to either")
        return Location(str(Path(text).expanduser().absolute()), self)


def patiently(work: Callable[[], T]) -> T:
    """Do `work` again, for half a minute, while a server is away; what a local file system says is final.

    Raises the last OSError.
    """
    for pause in _PAUSES_SECONDS:
        try:
            return work()
        except OSError as error:
            # Pyarrow's errors from a bucket have no number; those of the operating system do.
            if error.errno is not None:
                raise
            time.sleep(pause)
    return work()


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Size and time of a file: while they stay the same, its content is taken to be the same."""

    size: int
    """Bytes."""
    changed: int
    """Time of last change, nanoseconds since 1970."""

    @classmethod
    def of(cls, info: pafs.FileInfo) -> "FileStamp":
        """What pyarrow says of a file."""
        return cls(info.size, info.mtime_ns)

    @property
    def stamp(self) -> str:
        """Size and time as a text to compare."""
        return f"{self.size}@{self.changed}"


@dataclass(frozen=True)
class Location:
    """A file or folder, on disk or in a bucket. Writing is atomic: a reader sees all of a file or none."""

    uri: str
    storage: Storage

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "Location":
        return Location(f"{self.uri}/{name}", self.storage)

    @property
    def remote(self) -> bool:
        """Whether the place is in a bucket."""
        return self.uri.startswith("s3://")

    @property
    def path(self) -> str:
        """The place as `filesystem` names it: `bucket/key`, or an absolute local path."""
        return self.uri.removeprefix("s3://")

    @property
    def identity(self) -> str:
        """The same for all spellings of one place: links and `..` of a local path are followed."""
        return self.uri if self.remote else os.path.realpath(self.path)

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The pyarrow filesystem that holds the place."""
        return self.storage.s3_filesystem() if self.remote else pafs.LocalFileSystem()

    def check_answers(self) -> None:
        """Raise UserError, within about 15 s, unless the bucket exists and answers. Does nothing for local paths."""
        if not self.remote:
            return
        from botocore.exceptions import BotoCoreError, ClientError

        bucket = self.path.split("/", 1)[0]
        where = self.storage.endpoint or "Amazon S3"
        try:
            self.storage.s3_client().head_bucket(Bucket=bucket)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            reason = {404: "there is no such bucket", 403: "the credentials are refused"}.get(int(status or 0), str(error))
            raise UserError(
                f"cannot use '{self.uri}': {reason} at {where}; check the URI, AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
            ) from None
        except BotoCoreError as error:
            short = str(error).splitlines()[0]
            raise UserError(
                f"cannot reach '{self.uri}': {short}; check AWS_ENDPOINT_URL ({where}) and the credentials"
            ) from None

    def check_writable(self) -> None:
        """Raise UserError unless this can be a folder of results: the bucket answers, or the path can be written."""
        self.check_answers()
        if self.remote:
            return
        path = Path(self.path)
        there = next(p for p in (path, *path.parents) if p.exists())
        if not there.is_dir():
            raise UserError(f"cannot write to '{self}': '{there}' is a file; name a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise UserError(f"cannot write to '{self}': no permission to write in '{there}'; name another folder")

    def check_file_writable(self) -> None:
        """Raise UserError unless this can be a file of results: its folder can be written, and it is no folder itself."""
        if self.remote:
            self.check_answers()
            return
        if self.is_folder():
            raise UserError(f"cannot write '{self}': it is a folder; name a file")
        self.storage.locate(Path(self.path).parent).check_writable()

    def exists(self) -> bool:
        """Whether there is a file or folder here."""
        return bool(self.filesystem.get_file_info(self.path).type != pafs.FileType.NotFound)

    def is_folder(self) -> bool:
        """Whether there is a folder here (in a bucket: any key below)."""
        return bool(self.filesystem.get_file_info(self.path).type == pafs.FileType.Directory)

    def files(self) -> dict[str, FileStamp]:
        """All files below this folder, by name relative to it; sorted by name. Links to folders are not followed."""
        if not self.remote:
            return dict(sorted(_local_files(Path(self.path))))
        infos = self.filesystem.get_file_info(pafs.FileSelector(self.path, recursive=True))
        found = {
            info.path[len(self.path) :].lstrip("/"): FileStamp.of(info) for info in infos if info.type == pafs.FileType.File
        }
        return dict(sorted(found.items()))

    def read_bytes(self) -> bytes:
        """The whole content of the file."""
        with self.filesystem.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def write_bytes(self, content: bytes) -> None:
        """Write the file whole: a local one under another name first, an S3 object in one request."""
        with self.replacing() as path, self.filesystem.open_output_stream(path) as stream:
            stream.write(content)

    def remove(self) -> None:
        """Delete the file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path)

    def make_parent(self) -> None:
        """Create the folder that the file goes into; buckets need none."""
        if not self.remote:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)

    def replacing(self) -> "Replacing":
        """Context manager that gives a path to write to and moves it here when the block ends well."""
        return Replacing(self)


def _local_files(folder: Path) -> Iterator[tuple[str, FileStamp]]:
    """Files below a folder by relative name; pyarrow would follow a link to a folder above itself for ever."""

    def fail(error: OSError) -> None:
        raise error

    for where, _folders, names in os.walk(folder, onerror=fail):
        below = os.path.relpath(where, folder)
        for name in names:
            # A link that leads nowhere is no file, nor is one that went away meanwhile.
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(where, name))  # noqa: PTH116, PTH118 - a Path for each is slow
                if stat.S_ISREG(status.st_mode):
                    yield name if below == "." else f"{below}/{name}", FileStamp(status.st_size, status.st_mtime_ns)


class Replacing:
    """A path to write to that takes the place of `target` on success and leaves nothing on failure.

    An S3 object appears only when its upload is completed, so there the path is the target itself.
    """

    def __init__(self, target: Location) -> None:
        self.target = target
        self.path = target.path if target.remote else f"{target.path}.{uuid.uuid4().hex[:8]}{PARTIAL}"

    def __enter__(self) -> str:
        self.target.make_parent()
        return self.path

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.target.remote:
            return
        written = Path(self.path)
        try:
            if kind is None:
                written.replace(self.target.path)
        finally:
            # It is still there if the block failed, and also if a folder stands in the target's place.
            written.unlink(missing_ok=True)
