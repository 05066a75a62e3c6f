"""An S3 for tests: moto's, in a process of its own (see serve.py)."""

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

_SCRIPT = Path(__file__).with_name("serve.py")
_MAKING = threading.Lock()
"""Clients may be used by several threads, but not made by several."""


def open_client(endpoint: str, **settings: Any) -> BaseClient:
    """A plain boto3 client that tries once, unless `settings` (those of botocore's Config) say otherwise."""
    config = Config(**({"retries": {"total_max_attempts": 1}} | settings))
    with _MAKING:
        return _session().client("s3", endpoint_url=endpoint, config=config)


@cache
def _session() -> boto3.Session:
    """One for all clients, which are made three times as fast from it."""
    return boto3.Session("test", "test", region_name="us-east-1")


def status_of(call: Callable[..., object], **arguments: object) -> int:
    """The HTTP status of a boto3 call, 200 for all that S3 was content with."""
    try:
        call(**arguments)
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    return 200


class S3Server:
    """moto's S3 on a free port of 127.0.0.1. A context manager; what was stored is lost when it stops."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = ""
        """http://127.0.0.1:port, while it runs."""

    def start(self) -> Self:
        """Returns when requests are answered. Raises RuntimeError when the process ends at once."""
        self._process = subprocess.Popen(
            [sys.executable, str(_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().decode().strip()
        if not port:
            raise RuntimeError(f"moto's server ended with code {self._process.wait()}; see its stderr")
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    def stop(self) -> None:
        """Kill it: there is nothing to save. Does nothing when it was not started."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def client(self, **settings: Any) -> BaseClient:
        """A client of this server; `settings` as in `open_client`."""
        return open_client(self.endpoint, **settings)

    def make_bucket(self, name: str) -> "Bucket":
        client = self.client()
        client.create_bucket(Bucket=name)
        return Bucket(name, self.endpoint, client)


@dataclass(frozen=True)
class Bucket:
    """A bucket and a client that reaches it directly, whatever stands between it and the code under test."""

    name: str
    endpoint: str
    client: BaseClient

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    def keys(self, prefix: str = "") -> list[str]:
        """All keys under `prefix`, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def put(self, key: str, body: bytes = b"") -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def delete(self) -> None:
        """Delete the bucket with all that is in it, unfinished uploads too."""
        for key in self.keys():
            self.client.delete_object(Bucket=self.name, Key=key)
        for upload in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", []):
            self.client.abort_multipart_upload(
                Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        self.client.delete_bucket(Bucket=self.name)
