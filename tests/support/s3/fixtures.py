"""Fixtures that give a test an S3; loaded by tests/conftest.py."""

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.support.s3.proxy import FaultyProxy
from tests.support.s3.server import Bucket, S3Server

# Set at import, so that Ray's workers have it too; over what is there: no test may reach a real account.
os.environ |= {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
for _name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One S3 for the whole test session."""
    with S3Server() as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> Iterator[Bucket]:
    """An empty bucket of the test's own."""
    bucket = s3_server.make_bucket(f"test-{uuid4().hex}")
    yield bucket
    bucket.delete()


@pytest.fixture
def faulty(s3_server: S3Server) -> Iterator[FaultyProxy]:
    """A proxy in front of `s3_server`, of the test's own; without faults until the test asks for some."""
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy
