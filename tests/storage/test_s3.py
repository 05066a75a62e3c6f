"""A bucket behind a network that breaks: nothing is lost, nothing is written twice, errors are one line."""

import os
import time

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from multicsr.config import S3Config
from multicsr.errors import RunError
from multicsr.storage import s3 as bucket_module
from multicsr.storage.store import Store
from tests.support.s3.faults import Fault

KINDS = [Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.DROP_BEFORE, Fault.DROP_AFTER, Fault.DROP_MIDWAY]


@pytest.fixture
def store(bucket, faulty):
    """A store in a bucket behind the proxy."""
    s3 = S3Config(endpoint=faulty.endpoint, read_timeout_s=0.5)
    return Store.open(f"{bucket.uri}/corpus", s3)


def calls(store):
    return (
        lambda: store.read_text("a.txt"),
        lambda: store.write_text("a.txt", "y"),
        lambda: store.names(""),
    )


@pytest.mark.parametrize("fault", [*KINDS, Fault.HANG_BEFORE, Fault.HANG_AFTER])
def test_a_fault_of_any_kind_in_any_request_is_survived(store, faulty, fault):
    table = pa.table({"noise": [os.urandom(16).hex() for _ in range(30_000)]})

    def once(method):
        faulty.once(fault, method)

    once("PUT")
    entry = store.write_table("a/rows.parquet", table)
    assert entry.bytes > 256 * 2**10, "more than is read with the footer"
    once("PUT")
    store.write_text("a/text.txt", "x")
    once("GET")
    assert store.read_text("a/text.txt") == "x"
    once("GET")
    assert store.read_table(entry).equals(table)
    once("HEAD")
    assert store.exists("a/text.txt")
    once("GET")
    assert store.names("a") == ["a/rows.parquet", "a/text.txt"]
    once("POST")
    store.delete("a/text.txt")
    assert not store.exists("a/text.txt")
    assert sum(faulty.faults.values()) == 7


@pytest.mark.parametrize("fault", [*KINDS, Fault.HANG_AFTER])
def test_a_lost_answer_does_not_make_a_winner_lose(store, faulty, fault):
    """A put whose answer is lost is sent again and then refused: the file itself tells whose it is."""
    for number in range(3):
        faulty.once(fault, "PUT")
        assert store.create_text(f"log/{number}.json", f"ours {number}")
        assert not store.create_text(f"log/{number}.json", "theirs")
        assert store.read_text(f"log/{number}.json") == f"ours {number}"


def test_an_empty_object_is_an_empty_file(bucket, monkeypatch):
    """AWS refuses a request for the end of an empty object; the server of these tests answers it."""
    get = bucket_module.Bucket._get

    def as_aws(self, name, part=None, etag=""):
        data, size = get(self, name, part, etag)
        if part and not size:
            raise ClientError({"Error": {"Code": "InvalidRange", "Message": "x"}}, "GetObject")
        return data, size

    monkeypatch.setattr(bucket_module.Bucket, "_get", as_aws)
    store = Store.open(f"{bucket.uri}/corpus", S3Config(endpoint=bucket.endpoint))
    store.write_bytes("empty.txt", b"")
    with store.files.open("empty.txt") as file:
        assert (file.size(), file.read()) == (0, b"")
    with pytest.raises(FileNotFoundError):
        store.files.open("none.txt")


def test_many_requests_among_many_faults(store, faulty):
    faulty.rates = dict.fromkeys([*KINDS, Fault.HANG_BEFORE], 0.03)
    for number in range(40):
        assert store.create_text(f"log/{number:02}.json", f"ours {number}")
    assert [store.read_text(name) for name in store.names("log")] == [f"ours {i}" for i in range(40)]
    assert sum(faulty.faults.values()) > 5


def test_revoked_credentials_are_reported_at_once(store, faulty):
    store.write_text("a.txt", "x")
    faulty.forbid()
    for call in calls(store):
        with pytest.raises(RunError, match=r"access to s3://.* is denied \(.*\); check the AWS credentials"):
            call()
    with pytest.raises(RunError, match="is denied"):
        store.exists("a.txt")
    faulty.up()
    assert store.read_text("a.txt") == "x"


def test_a_bucket_that_is_gone_is_reported_at_once(store, bucket):
    bucket.delete()
    started = time.monotonic()
    for call in calls(store):
        with pytest.raises(RunError, match=r"there is no bucket test-\w+; create it, or correct the setting"):
            call()
    assert time.monotonic() - started < 10
    bucket.client.create_bucket(Bucket=bucket.name)  # for the fixture


def test_a_server_that_is_gone_is_one_line(bucket, faulty, monkeypatch):
    monkeypatch.setattr("multicsr.storage.s3._TRIES", 2)
    store = Store.open(bucket.uri, S3Config(endpoint=faulty.endpoint, read_timeout_s=0.7))
    faulty.down()
    with pytest.raises(RunError, match=r"store: cannot reach s3://.*: ") as caught:
        store.write_text("a.txt", "x")
    assert "\n" not in str(caught.value)


def test_encryption_and_the_payer_go_with_every_request(bucket, faulty):
    s3 = S3Config(endpoint=faulty.endpoint, encryption="aws:kms", kms_key="key-1", requester_pays=True)
    store = Store.open(bucket.uri, s3)
    store.write_text("a.txt", "x")
    store.create_text("b.txt", "x")
    store.read_text("a.txt")
    store.names("")
    store.exists("a.txt")
    store.delete("a.txt")
    assert len(faulty.seen) >= 6
    assert all(seen.headers.get("x-amz-request-payer") == "requester" for seen in faulty.seen)
    puts = [seen for seen in faulty.seen if seen.method == "PUT"]
    assert [seen.headers["x-amz-server-side-encryption"] for seen in puts] == ["aws:kms"] * 2
    facts = bucket.client.head_object(Bucket=bucket.name, Key="b.txt")
    assert (facts["ServerSideEncryption"], facts["SSEKMSKeyId"]) == ("aws:kms", "key-1")


def test_no_credentials(bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    store = Store.open(bucket.uri, S3Config(endpoint=bucket.endpoint, region="eu-west-1"))
    with pytest.raises(RunError, match=r"no AWS credentials for s3://.*; set AWS_ACCESS_KEY_ID"):
        store.read_text("a.txt")


def test_uploads_in_parts_that_nobody_completed_are_found(bucket):
    store = Store.open(f"{bucket.uri}/corpus", S3Config(endpoint=bucket.endpoint))
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="corpus/model/x.bin")
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="other/x.bin")
    (upload,) = store.files.abandoned_uploads(older_than_s=60)
    assert upload.name == "model/x.bin"
    store.files.abort_upload(upload)
    assert list(store.files.abandoned_uploads(older_than_s=60)) == []
    (left,) = bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
    assert left["Key"] == "other/x.bin"
