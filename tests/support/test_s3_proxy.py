"""The proxy that breaks an S3."""

from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest
from botocore.client import BaseClient
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from tests.support.s3.faults import Fault
from tests.support.s3.proxy import FaultyProxy
from tests.support.s3.server import Bucket, open_client, status_of


@pytest.fixture
def client(faulty: FaultyProxy) -> BaseClient:
    """A client that goes through the proxy and tries once."""
    return open_client(faulty.endpoint, read_timeout=1)


def test_the_proxy_changes_nothing(faulty: FaultyProxy, bucket: Bucket) -> None:
    """Through two of them, so that the first one's requests can be read in the second."""
    body = bytes(range(256)) * 2**16
    with FaultyProxy(faulty.endpoint) as outer:
        client = open_client(outer.endpoint)
        client.put_object(Bucket=bucket.name, Key="a b+é", Body=body, Metadata={"x": "1"})
        answer = client.get_object(Bucket=bucket.name, Key="a b+é")
        assert (answer["Body"].read(), answer["Metadata"]) == (body, {"x": "1"})
        assert client.head_object(Bucket=bucket.name, Key="a b+é")["ContentLength"] == len(body)
        sent, arrived = outer.seen[-1], faulty.seen[-1]
    for name in ("host", "authorization", "x-amz-date"):
        assert sent.headers[name] == arrived.headers[name]
    assert (sent.method, sent.path) == (arrived.method, arrived.path)
    assert faulty.requests == outer.requests == {"PUT": 1, "GET": 1, "HEAD": 1}


def test_chunks_and_one_connection(faulty: FaultyProxy, bucket: Bucket) -> None:
    connection = HTTPConnection(faulty.endpoint.removeprefix("http://"))
    for key in ("a", "b"):
        connection.request("PUT", f"/{bucket.name}/{key}", iter([b"one", b"two"]), {"Expect": "100-continue"})
        response = connection.getresponse()
        assert (response.status, response.read(), response.will_close) == (200, b"", False)
        assert bucket.get(key) == b"onetwo"
    connection.close()


@pytest.mark.parametrize(
    ("fault", "expected", "done"),
    [
        (Fault.INTERNAL_ERROR, "InternalError", False),
        (Fault.SLOW_DOWN, "SlowDown", False),
        (Fault.FORBIDDEN, "AccessDenied", False),
        (Fault.DROP_BEFORE, ConnectionClosedError, False),
        (Fault.DROP_AFTER, ConnectionClosedError, True),
        (Fault.DROP_MIDWAY, ConnectionClosedError, True),
        (Fault.HANG_BEFORE, ReadTimeoutError, False),
        (Fault.HANG_AFTER, ReadTimeoutError, True),
    ],
)
def test_faults(
    faulty: FaultyProxy,
    client: BaseClient,
    bucket: Bucket,
    fault: Fault,
    expected: str | type[BotoCoreError],
    done: bool,
) -> None:
    faulty.once(fault, "PUT")
    with pytest.raises((ClientError, BotoCoreError)) as caught:
        client.put_object(Bucket=bucket.name, Key="a", Body=b"text")
    if isinstance(expected, str):
        assert caught.value.response["Error"]["Code"] == expected
    else:
        assert type(caught.value) is expected
    assert bucket.keys() == (["a"] if done else [])
    assert faulty.faults == {fault: 1}
    client.put_object(Bucket=bucket.name, Key="a", Body=b"text")
    assert faulty.requests == {"PUT": 2}


def test_half_an_answer(faulty: FaultyProxy, client: BaseClient, bucket: Bucket) -> None:
    bucket.put("a", b"x" * 1000)
    faulty.rates = {Fault.DROP_MIDWAY: 1.0}
    answer = client.get_object(Bucket=bucket.name, Key="a")
    with pytest.raises((IncompleteReadError, ResponseStreamingError)):
        answer["Body"].read()
    # botocore does not look at the length of an answer in XML: what it cannot parse counts as a 500.
    assert status_of(client.list_objects_v2, Bucket=bucket.name) == 500


def test_a_hang_can_end(faulty: FaultyProxy, client: BaseClient, bucket: Bucket) -> None:
    faulty.hang_s = 0.05
    faulty.once(Fault.HANG_AFTER)
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket.name, Key="a", Body=b"")
    assert bucket.keys() == ["a"]


def test_chance_is_about_right_and_repeats() -> None:
    rates = {Fault.SLOW_DOWN: 0.1, Fault.DROP_AFTER: 0.02}
    first, second, other = (FaultyProxy("http://none", rates, seed=seed) for seed in (1, 1, 2))
    drawn = [[proxy.judge("GET", "/", []) for _ in range(10_000)] for proxy in (first, second, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert first.faults[Fault.SLOW_DOWN] == pytest.approx(1000, rel=0.1)
    assert first.faults[Fault.DROP_AFTER] == pytest.approx(200, rel=0.2)
    assert first.requests == {"GET": 10_000}


def test_down_and_up(faulty: FaultyProxy, client: BaseClient, bucket: Bucket) -> None:
    client.list_objects_v2(Bucket=bucket.name)  # leaves a connection open
    for _ in range(2):
        faulty.down()
        for _ in range(2):
            with pytest.raises(EndpointConnectionError):
                client.list_objects_v2(Bucket=bucket.name)
        faulty.up()
        client.list_objects_v2(Bucket=bucket.name)


def test_down_ends_a_hang(faulty: FaultyProxy, bucket: Bucket) -> None:
    faulty.once(Fault.HANG_BEFORE)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(status_of, open_client(faulty.endpoint).head_bucket, Bucket=bucket.name)
        faulty.wait_for(requests=1)
        faulty.down()
        assert isinstance(waiting.exception(), ConnectionClosedError)


def test_forbidden(faulty: FaultyProxy, client: BaseClient, bucket: Bucket) -> None:
    bucket.put("a")
    faulty.forbid()
    with pytest.raises(ClientError, match="AccessDenied"):
        client.get_object(Bucket=bucket.name, Key="a")
    assert status_of(client.head_object, Bucket=bucket.name, Key="a") == 403
    faulty.up()
    assert status_of(client.head_object, Bucket=bucket.name, Key="a") == 200
