"""Uploads to a bucket: an object is replaced as a whole, or stays as it is."""

import contextlib
from functools import lru_cache
from typing import IO, TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from degrain.storage.location import Location, Storage

_PART_BYTES = 16 * 2**20
"""Larger content is uploaded in parts of this size; S3 accepts 10,000."""
_TIMEOUT_SECONDS = 60


class _Place(TypedDict):
    Bucket: str
    Key: str


def upload(target: "Location", file: IO[bytes]) -> None:
    """Replace the object `target` by the content of a file, from its position on.

    An upload in parts that fails or is interrupted is aborted; pyarrow would complete it. Raises
    OSError without a number, as pyarrow does for a bucket, so that `retry` repeats it.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = target.path.partition("/")
    place: _Place = {"Bucket": bucket, "Key": key}
    try:
        client = _client(target.storage)
        part = file.read(_PART_BYTES)
        if len(part) < _PART_BYTES:
            client.put_object(**place, Body=part)
        else:
            _upload_parts(client, place, part, file)
    except (BotoCoreError, ClientError) as error:
        raise OSError(f"cannot write '{target}': {' '.join(str(error).split())}") from error


def _upload_parts(client: "S3Client", place: _Place, part: bytes, file: IO[bytes]) -> None:
    """Upload a first part and what follows it in the file."""
    from botocore.exceptions import BotoCoreError, ClientError

    upload_id = client.create_multipart_upload(**place)["UploadId"]
    done: list[CompletedPartTypeDef] = []
    try:
        while part:
            number = len(done) + 1
            answer = client.upload_part(**place, UploadId=upload_id, PartNumber=number, Body=part)
            done.append({"PartNumber": number, "ETag": answer["ETag"]})
            part = file.read(_PART_BYTES)
        client.complete_multipart_upload(
            **place, UploadId=upload_id, MultipartUpload={"Parts": done}
        )
    except BaseException:
        with contextlib.suppress(BotoCoreError, ClientError):
            client.abort_multipart_upload(**place, UploadId=upload_id)
        raise


@lru_cache(maxsize=4)
def _client(storage: "Storage") -> "S3Client":
    return storage.s3_client(timeout=_TIMEOUT_SECONDS)
