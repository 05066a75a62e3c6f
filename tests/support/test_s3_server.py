"""The S3 that tests run against."""

import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.s3.serve import OneAtATime
from tests.support.s3.server import Bucket, S3Server, status_of

RACERS = 16
ROUNDS = 10


def test_conditional_puts(bucket: Bucket) -> None:
    def put(**condition: str) -> int:
        return status_of(bucket.client.put_object, Bucket=bucket.name, Key="a", Body=b"", **condition)

    assert put(IfMatch='"0"') == 404
    assert [put(IfNoneMatch="*"), put(IfNoneMatch="*")] == [200, 412]
    etag = bucket.client.head_object(Bucket=bucket.name, Key="a")["ETag"]
    assert [put(IfMatch='"0"'), put(IfMatch=etag)] == [412, 200]


@pytest.mark.parametrize("replace", [False, True])
def test_a_race_has_one_winner(s3_server: S3Server, bucket: Bucket, replace: bool) -> None:
    client = s3_server.client(max_pool_connections=RACERS)
    together = threading.Barrier(RACERS)

    def attempt(racer: int, key: str, condition: dict[str, str]) -> int:
        together.wait()
        body = f"{key} {racer}".encode()
        return status_of(client.put_object, Bucket=bucket.name, Key=key, Body=body, **condition)

    with ThreadPoolExecutor(RACERS) as pool:
        for key in map(str, range(ROUNDS)):
            condition = {"IfNoneMatch": "*"}
            if replace:
                bucket.put(key)
                condition = {"IfMatch": client.head_object(Bucket=bucket.name, Key=key)["ETag"]}
            racing = [pool.submit(attempt, racer, key, condition) for racer in range(RACERS)]
            codes = [attempt.result() for attempt in racing]
            assert sorted(codes) == [200, *[412] * (RACERS - 1)]
            assert bucket.get(key) == f"{key} {codes.index(200)}".encode()


def test_requests_are_handled_alone() -> None:
    """Moto loses races too seldom for the test above to show the lock missing every time."""
    inside, most = 0, 0

    def app(*_: object) -> list[bytes]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.005)  # the others' chance to come in
        inside -= 1
        return []

    alone = OneAtATime(app)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: alone({"wsgi.input": io.BytesIO()}, lambda *_: None), range(8)))
    assert most == 1


def test_half_a_put_writes_nothing(s3_server: S3Server, bucket: Bucket) -> None:
    with socket.create_connection(s3_server.endpoint.removeprefix("http://").split(":")) as connection:
        connection.sendall(
            f"PUT /{bucket.name}/a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab".encode()
        )
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile("rb").readline().split()[1] == b"400"
    assert bucket.keys() == []


def test_pages_and_unfinished_uploads(bucket: Bucket) -> None:
    names = [f"a/{number}" for number in range(5)]
    for name in [*names, "b"]:
        bucket.put(name)
    pages = bucket.client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket.name, Prefix="a/", StartAfter="a/0", PaginationConfig={"PageSize": 2}
    )
    assert [[entry["Key"] for entry in page["Contents"]] for page in pages] == [names[1:3], names[3:]]
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="a/big")
    assert len(bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix="a/")["Uploads"]) == 1


def test_encryption_is_kept(bucket: Bucket) -> None:
    asked = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key-1"}
    bucket.client.put_object(Bucket=bucket.name, Key="a", Body=b"", **asked)
    head = bucket.client.head_object(Bucket=bucket.name, Key="a")
    assert {name: head[name] for name in asked} == asked
