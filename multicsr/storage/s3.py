"""Files in a bucket of any S3-compatible server: AWS, MinIO, Ceph.

One boto3 client does everything: pyarrow's own S3 file system supports neither conditional puts nor
server-side encryption nor requester-pays requests, and has other rules for retries and credentials.
Credentials come only from the standard AWS chain. A request is tried about ten times within about a minute;
an answer that the server forbids the request or does not find the object is reported at once.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from multicsr.config import S3Config
from multicsr.errors import ConfigError, RunError
from multicsr.messages.error_chain import first_line
from multicsr.messages.extras import require_extra
from multicsr.observability.metrics import publish
from multicsr.periodic import backoff_s
from multicsr.storage.backend import FileInfo, UnfinishedUpload
from multicsr.storage.ranged import RangedFile

_TRIES = 10
"""Maximum number of attempts of a request."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
"""Pauses between the attempts that this module makes itself, see `backoff_s`."""
_CONNECT_TIMEOUT_S = 5
_CONNECTIONS = 32
_TAIL_BYTES = 256 * 2**10
"""Number of bytes at the end of a file that are read together with its size. They hold the footer of a
Parquet file, or a small file completely."""
_DELETE_AT_ONCE = 1000
"""Maximum number of objects in one delete request."""
_MISSING = ("404", "NoSuchKey", "NotFound")
_FORBIDDEN = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
_TOO_MANY_REQUESTS = 429
"""Status with which some servers throttle; AWS uses 503."""
_EXISTS = "PreconditionFailed"
_NO_RANGE = "InvalidRange"
"""Error code for a request of a range of an empty file."""
_AT_THE_SAME_TIME = "ConditionalRequestConflict"
"""Error code of AWS for a conditional put while another conditional put of the same key is in progress."""


class Bucket:
    """Files whose names begin with a prefix, in a bucket."""

    def __init__(self, bucket: str, prefix: str, s3: S3Config) -> None:
        self._bucket, self._prefix, self._s3 = bucket, prefix.strip("/"), s3

    def uri(self, name: str) -> str:
        """Implement `Files.uri`."""
        return "/".join(part for part in (f"s3://{self._bucket}", self._prefix, name) if part)

    def child(self, folder: str) -> Self:
        """Implement `Files.child`."""
        return type(self)(self._bucket, self._key(folder), self._s3)

    def exists(self, name: str) -> bool:
        """Implement `Files.exists`."""
        try:
            with self._translated_errors(name):
                self._client.head_object(**self._at(name))
        except FileNotFoundError:
            return False
        return True

    def infos(self, folder: str) -> Iterator[FileInfo]:
        """Implement `Files.infos`."""
        cut = len(self._prefix) + 1 if self._prefix else 0
        for info in self.objects(f"{self._key(folder)}/".lstrip("/")):
            yield info._replace(name=info.name[cut:])

    def objects(self, prefix: str) -> Iterator[FileInfo]:
        """Yield the objects of the bucket whose keys begin with `prefix`; each `name` is the complete key."""
        pages = self._client.get_paginator("list_objects_v2")
        with self._translated_errors(prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix, **self._payer):
                for entry in page.get("Contents", ()):
                    changed_s = entry["LastModified"].timestamp()
                    etag = entry.get("ETag", "").strip('"')
                    yield FileInfo(entry["Key"], entry["Size"], changed_s, etag)

    def read(self, name: str) -> bytes:
        """Implement `Files.read`."""
        with self._translated_errors(name):
            return self._get(name)[0]

    def open(self, name: str, etag: str = "") -> pa.NativeFile:
        """Implement `Files.open`; the end of the file is fetched at once.

        Args:
            etag: the ETag that the object must have; empty: any.

        Raises:
            RunError: the object has, or gets while it is read, another ETag.
        """
        with self._translated_errors(name):
            tail, size = self._get_tail(name, etag)

        def read(start: int, stop: int) -> bytes:
            with self._translated_errors(name):
                return self._get(name, f"bytes={start}-{stop - 1}", etag)[0]

        return pa.PythonFile(_Ranges(read, tail, size), "r")

    def write(self, name: str, data: bytes) -> None:
        """Implement `Files.write`."""
        with self._translated_errors(name):
            self._client.put_object(Body=data, **self._at(name), **self._encryption)

    def create(self, name: str, data: bytes) -> bool:
        """Implement `Files.create` by a conditional put (If-None-Match).

        Raises:
            RunError: the bucket cannot be written, or other writers conflicted with every try.
        """
        from botocore.exceptions import ClientError

        for tries in range(_TRIES):
            with self._translated_errors(name):
                try:
                    self._client.put_object(Body=data, IfNoneMatch="*", **self._at(name), **self._encryption)
                    return True
                except ClientError as error:
                    if _code(error) not in (_EXISTS, _AT_THE_SAME_TIME):
                        raise
                    exists = _code(error) == _EXISTS
            if exists:
                with suppress(FileNotFoundError):  # deleted since, so the name is free again
                    # The client may have repeated our own put because its answer was lost.
                    return self.read(name) == data
            time.sleep(backoff_s(tries, _FIRST_PAUSE_S, _LONGEST_PAUSE_S))
        raise RunError(
            f"store: gave up after {_TRIES} conflicting writes of {self.uri(name)}; run again later"
        )

    def upload(self, name: str, source: Path) -> None:
        """Implement `Files.upload`."""
        options = {**self._encryption, **self._payer}
        with self._translated_errors(name):
            self._client.upload_file(str(source), self._bucket, self._key(name), ExtraArgs=options)

    def download(self, name: str, target: Path) -> None:
        """Implement `Files.download`."""
        with self._translated_errors(name):
            self._client.download_file(self._bucket, self._key(name), str(target), ExtraArgs=self._payer)

    def delete(self, names: Sequence[str]) -> None:
        """Implement `Files.delete`, with one request for each `_DELETE_AT_ONCE` files."""
        for start in range(0, len(names), _DELETE_AT_ONCE):
            keys = [{"Key": self._key(name)} for name in names[start : start + _DELETE_AT_ONCE]]
            with self._translated_errors(names[start]):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True}, **self._payer
                )
            if failed := answer.get("Errors"):
                raise RunError(f"store: cannot delete {failed[0]['Key']}: {failed[0]['Message']}")

    def delete_folder(self, folder: str) -> None:
        """Implement `Files.delete_folder`."""
        self.delete([info.name for info in self.infos(folder)])

    def abandoned_uploads(self, older_than_s: float) -> Iterator[UnfinishedUpload]:
        """Implement `Files.abandoned_uploads`: multipart uploads that were never completed."""
        prefix = f"{self._prefix}/" if self._prefix else ""
        pages = self._client.get_paginator("list_multipart_uploads")
        before_s = time.time() - older_than_s
        with self._translated_errors(""):
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"].timestamp() < before_s:
                        yield UnfinishedUpload(upload["Key"].removeprefix(prefix), upload["UploadId"])

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Implement `Files.abort_upload`."""
        with self._translated_errors(upload.name):
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=self._key(upload.name), UploadId=upload.id
            )

    def _get_tail(self, name: str, etag: str) -> tuple[bytes, int]:
        """Return at most the last `_TAIL_BYTES` bytes of a file, and its size."""
        from botocore.exceptions import ClientError

        try:
            return self._get(name, f"bytes=-{_TAIL_BYTES}", etag)
        except ClientError as error:
            if _code(error) != _NO_RANGE:
                raise
            return self._get(name, etag=etag)

    def _get(self, name: str, part: str | None = None, etag: str = "") -> tuple[bytes, int]:
        """Return the bytes of a file or of a range of it, and the size of the whole file.

        The client repeats failed requests by itself; an answer whose body is cut short is retried here.

        Args:
            part: value of the HTTP `Range` header; None: the whole file.
            etag: the ETag that the object must have; empty: any.
        """
        asked = {**self._at(name), **({"Range": part} if part else {})}
        for tries in range(_TRIES):
            answer = self._client.get_object(**asked)
            if etag and answer.get("ETag", "").strip('"') != etag:
                raise RunError(f"{self.uri(name)} changed while it was read; run again when it is complete")
            try:
                data = answer["Body"].read()
            except _cut_short():
                if tries == _TRIES - 1:
                    raise
                time.sleep(backoff_s(tries, _FIRST_PAUSE_S, _LONGEST_PAUSE_S))
                continue
            whole = answer.get("ContentRange", "").rpartition("/")[2]
            return data, int(whole or len(data))
        raise AssertionError("every try returns or raises")

    @property
    def _client(self) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
        return _client(self._s3)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}".strip("/") if self._prefix else name

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._key(name), **self._payer}

    @property
    def _payer(self) -> dict[str, str]:
        return {"RequestPayer": "requester"} if self._s3.requester_pays else {}

    @property
    def _encryption(self) -> dict[str, str]:
        asked = {"ServerSideEncryption": self._s3.encryption, "SSEKMSKeyId": self._s3.kms_key}
        return {name: value for name, value in asked.items() if value}

    @contextmanager
    def _translated_errors(self, name: str) -> Iterator[None]:
        """Translate exceptions of boto3 into RunError with a remedy, or into FileNotFoundError."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, TokenRetrievalError

        try:
            yield
        except (NoCredentialsError, TokenRetrievalError) as error:
            raise RunError(
                f"store: no AWS credentials for {self.uri('')}; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, a profile, or the machine's role"
            ) from error
        except ClientError as error:
            raise self._error_of(name, error) from error
        except S3UploadFailedError as error:
            raise self._error_of(name, error.__context__ or error) from error
        except BotoCoreError as error:
            raise RunError(f"store: cannot reach {self.uri(name)}: {first_line(error)}") from error

    def _error_of(self, name: str, error: Exception) -> Exception:
        code = _code(error)
        if code == "NoSuchBucket":
            return RunError(f"store: there is no bucket {self._bucket}; create it, or correct the setting")
        if code in _MISSING:
            return FileNotFoundError(self.uri(name))
        if code in _FORBIDDEN:
            return RunError(
                f"store: access to {self.uri(name)} is denied ({code}); check the AWS credentials and the "
                "bucket's policy"
            )
        return RunError(f"store: {self.uri(name)}: {first_line(error)}")


class _Ranges(RangedFile):
    """A file in a bucket whose end is in memory already."""

    def __init__(self, fetch: Callable[[int, int], bytes], tail: bytes, size: int) -> None:
        super().__init__(size)
        self._fetch, self._tail = fetch, tail

    def read_range(self, start: int, stop: int) -> bytes:
        """Implement `RangedFile.read_range`; requests the range unless it lies in the tail."""
        first_of_tail = self._size - len(self._tail)
        if start < first_of_tail:
            return self._fetch(start, stop)
        return self._tail[start - first_of_tail : stop - first_of_tail]


@cache
def _client(s3: S3Config) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
    """Return the client of this process. It is thread-safe and holds the connections.

    Raises:
        ConfigError: the s3 extra is not installed, or the settings are not valid.
    """
    require_extra("s3", "a store or input in a bucket")
    import boto3.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=s3.read_timeout_s,
        max_pool_connections=_CONNECTIONS,
        s3={"addressing_style": "path" if s3.endpoint else "auto"},
        # Many servers other than AWS reject the checksums that newer clients add; files have our own.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        client = boto3.session.Session().client(
            "s3", endpoint_url=s3.endpoint, region_name=s3.region, config=config
        )
        client.meta.events.register("response-received.s3", _count_failure)
        return client
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"s3: {first_line(error)}") from error


def _count_failure(
    exception: Exception | None = None, response_dict: Mapping[str, Any] | None = None, **_: object
) -> None:
    """Count failed requests; boto3 calls this for every answer, before it decides on a retry."""
    status = response_dict["status_code"] if response_dict else 0
    if exception is not None or status >= 500 or status == _TOO_MANY_REQUESTS:
        publish("store", {"errors": 1})


def _cut_short() -> tuple[type[Exception], ...]:
    """Return the exceptions that reading the body of an answer raises if the connection breaks."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError
    from urllib3.exceptions import HTTPError

    return HTTPClientError, IncompleteReadError, ResponseStreamingError, HTTPError


def _code(error: Exception) -> str:
    response = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))
