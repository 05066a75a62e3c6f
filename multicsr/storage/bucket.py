"""A bucket of any S3-compatible server: AWS, MinIO, Ceph.

One client for everything: pyarrow's own S3 file system knows neither conditional puts nor server-side
encryption nor paid requests, and has other rules for retries and credentials. Credentials come from the
standard AWS chain alone. A request is tried some ten times, in a minute or so; what the server forbids or
does not know is told at once.
"""

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from multicsr.config import S3Config
from multicsr.errors import ConfigError, RunError
from multicsr.metrics import publish
from multicsr.storage.files import FileInfo, first_line

_TRIES = 10
_CONNECT_TIMEOUT_S = 5
_CONNECTIONS = 32
_TAIL_BYTES = 256 * 2**10
"""Of a Parquet file, read with its size: the footer, of a small file everything."""
_DELETE_AT_ONCE = 1000
_MISSING = ("404", "NoSuchKey", "NotFound")
_FORBIDDEN = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
_EXISTS = "PreconditionFailed"
_AT_THE_SAME_TIME = "ConditionalRequestConflict"
"""What AWS says to a conditional put while another one is not decided yet."""


class Bucket:
    """Files whose names begin with a prefix, in a bucket."""

    def __init__(self, bucket: str, prefix: str, s3: S3Config) -> None:
        self._bucket, self._prefix, self._s3 = bucket, prefix.strip("/"), s3

    def uri(self, name: str) -> str:
        return "/".join(part for part in (f"s3://{self._bucket}", self._prefix, name) if part)

    def child(self, folder: str) -> Self:
        return type(self)(self._bucket, self._key(folder), self._s3)

    def exists(self, name: str) -> bool:
        try:
            with self._told(name):
                self._client.head_object(**self._at(name))
        except FileNotFoundError:
            return False
        return True

    def infos(self, folder: str) -> Iterator[FileInfo]:
        prefix = f"{self._key(folder)}/".lstrip("/")
        pages = self._client.get_paginator("list_objects_v2")
        cut = len(self._prefix) + 1 if self._prefix else 0
        with self._told(folder):
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix, **self._payer):
                for entry in page.get("Contents", ()):
                    changed_s = entry["LastModified"].timestamp()
                    yield FileInfo(entry["Key"][cut:], entry["Size"], changed_s)

    def read(self, name: str) -> bytes:
        with self._told(name):
            return self._get(name)[0]

    def open(self, name: str) -> pa.NativeFile:
        with self._told(name):
            tail, size = self._get(name, f"bytes=-{_TAIL_BYTES}")
        return pa.PythonFile(_Ranges(lambda start, stop: self._range(name, start, stop), tail, size), "r")

    def write(self, name: str, data: bytes) -> None:
        with self._told(name):
            self._client.put_object(Body=data, **self._at(name), **self._encryption)

    def create(self, name: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        for _ in range(_TRIES):
            with self._told(name):
                try:
                    self._client.put_object(Body=data, IfNoneMatch="*", **self._at(name), **self._encryption)
                except ClientError as error:
                    if _code(error) == _AT_THE_SAME_TIME:
                        continue
                    if _code(error) != _EXISTS:
                        raise
                    # The answer to our own put may have been lost, and the put been sent again.
                    return self.read(name) == data
            return True
        raise RunError(f"store: others write {self.uri(name)} all the time")

    def upload(self, name: str, source: Path) -> None:
        options = {**self._encryption, **self._payer}
        with self._told(name):
            self._client.upload_file(str(source), self._bucket, self._key(name), ExtraArgs=options)

    def download(self, name: str, target: Path) -> None:
        with self._told(name):
            self._client.download_file(self._bucket, self._key(name), str(target), ExtraArgs=self._payer)

    def delete(self, names: Sequence[str]) -> None:
        for start in range(0, len(names), _DELETE_AT_ONCE):
            keys = [{"Key": self._key(name)} for name in names[start : start + _DELETE_AT_ONCE]]
            with self._told(names[start]):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True}, **self._payer
                )
            if failed := answer.get("Errors"):
                raise RunError(f"store: cannot delete {failed[0]['Key']}: {failed[0]['Message']}")

    def delete_folder(self, folder: str) -> None:
        self.delete([info.name for info in self.infos(folder)])

    def abandoned_uploads(self, older_than_s: float) -> Iterator[tuple[str, Callable[[], None]]]:
        """Uploads in parts that nobody completed, with their names: each is called to free its space."""
        prefix = f"{self._prefix}/" if self._prefix else ""
        pages = self._client.get_paginator("list_multipart_uploads")
        before_s = time.time() - older_than_s
        with self._told(""):
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"].timestamp() < before_s:
                        key, upload_id = upload["Key"], upload["UploadId"]
                        yield key.removeprefix(prefix), partial(self._abort, key, upload_id)

    def _abort(self, key: str, upload_id: str) -> None:
        with self._told(key):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)

    def _range(self, name: str, start: int, stop: int) -> bytes:
        with self._told(name):
            return self._get(name, f"bytes={start}-{stop - 1}")[0]

    def _get(self, name: str, part: str | None = None) -> tuple[bytes, int]:
        """(bytes, size of the whole file). The client repeats requests; an answer cut short is ours."""
        asked = {**self._at(name), **({"Range": part} if part else {})}
        for tries_left in reversed(range(_TRIES)):
            answer = self._client.get_object(**asked)
            try:
                data = answer["Body"].read()
            except _cut_short():
                if not tries_left:
                    raise
                continue
            whole = answer.get("ContentRange", "").rpartition("/")[2]
            return data, int(whole or len(data))
        raise AssertionError("every try returns or raises")

    @property
    def _client(self) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
        return _client(self._s3)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}".strip("/")

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
    def _told(self, name: str) -> Iterator[None]:
        """What boto3 raises, as what the user can do about it."""
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
            raise self._refusal(name, error) from error
        except S3UploadFailedError as error:
            raise self._refusal(name, error.__context__ or error) from error
        except BotoCoreError as error:
            raise RunError(f"store: cannot reach {self.uri(name)}: {first_line(error)}") from error

    def _refusal(self, name: str, error: Exception) -> Exception:
        code = _code(error)
        if code == "NoSuchBucket":
            return RunError(f"store: there is no bucket {self._bucket}; create it, or correct the setting")
        if code in _MISSING:
            return FileNotFoundError(self.uri(name))
        if code in _FORBIDDEN:
            return RunError(
                f"store: access to {self.uri(name)} is refused ({code}); check the AWS credentials and the "
                "bucket's policy"
            )
        return RunError(f"store: {self.uri(name)}: {first_line(error)}")


class _Ranges(io.RawIOBase):
    """A file that is read in ranges; its tail is there already."""

    def __init__(self, read_range: Callable[[int, int], bytes], tail: bytes, size: int) -> None:
        self._read_range, self._tail, self._size = read_range, tail, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def size(self) -> int:
        return self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._size, self._at + size)
        start, first_of_tail = self._at, self._size - len(self._tail)
        if start >= stop:
            return b""
        if start >= first_of_tail:
            data = self._tail[start - first_of_tail : stop - first_of_tail]
        else:
            data = self._read_range(start, stop)
        self._at = stop
        return data


@cache
def _client(s3: S3Config) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
    """One client a process: it is safe for threads and holds the connections."""
    import boto3.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=s3.read_timeout_s,
        max_pool_connections=_CONNECTIONS,
        s3={"addressing_style": "path" if s3.endpoint else "auto"},
        # Many servers beside AWS refuse the checksums that newer clients add; files carry ours.
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
    """Called with every answer, before the client decides to try again."""
    if exception is not None or (response_dict and response_dict["status_code"] >= 500):
        publish("store", {"errors": 1})


def _cut_short() -> tuple[type[Exception], ...]:
    """What reading the body of an answer raises when the connection breaks."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError
    from urllib3.exceptions import HTTPError

    return HTTPClientError, IncompleteReadError, ResponseStreamingError, HTTPError


def _code(error: Exception) -> str:
    response = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))
