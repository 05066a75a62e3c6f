"""Whole runs on a bucket: as on a directory, through a network that breaks, and when the keys are revoked."""

import threading
import time

import pytest

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.storage.manifest import iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current, latest
from multicsr.tools.audit import audit
from tests.support.s3.faults import Fault

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600), pytest.mark.cluster]
RATE = 0.05
FAULTS = {
    Fault.INTERNAL_ERROR: RATE,
    Fault.SLOW_DOWN: RATE,
    Fault.DROP_BEFORE: RATE / 3,
    Fault.DROP_AFTER: RATE / 3,
    Fault.DROP_MIDWAY: RATE / 3,
    Fault.HANG_BEFORE: RATE / 2,
    Fault.HANG_AFTER: RATE / 2,
}


@pytest.fixture
def make_config(tmp_path):
    lines = [f"This is sentence number {i} out of many." for i in range(1000)]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")

    def make(store, s3=None, **sections) -> Config:
        tree = {
            "name": "t",
            "store": store,
            "input": {"paths": [str(tmp_path / "in.txt")]},
            "ingest": {"rows_per_file": 400},
            "llm": {"engine": "fake"},
            "generate": {"rows_per_shard": 100, "actors": 2},
            "lease_s": 30,
        }
        return Config.model_validate({**tree, **({"s3": s3} if s3 else {}), **sections})

    return make


def rows(config):
    snapshot = current(Store.of(config))
    assert audit(snapshot) == []
    return {
        artifact: [
            row
            for table in iter_tables(snapshot.store, snapshot.manifest(artifact))
            for row in table.to_pylist()
        ]
        for artifact in ("sentences", "scored", "curated")
    }


def run(config):
    full_run.run(config, SilentProgress(), until="curate")
    return rows(config)


def test_a_bucket_behind_a_network_that_breaks_holds_what_a_directory_does(
    make_config, bucket, faulty, tmp_path
):
    expected = run(make_config(str(tmp_path / "store")))
    assert len(expected["curated"]) > 100
    faulty.rates = FAULTS
    config = make_config(f"{bucket.uri}/x", {"endpoint": faulty.endpoint, "read_timeout_s": 0.5})
    assert run(config) == expected
    assert all(faulty.faults[kind] for kind in FAULTS)
    assert sum(faulty.faults.values()) > 0.1 * sum(faulty.requests.values())


def test_input_comes_out_of_a_bucket(make_config, bucket, tmp_path):
    expected = run(make_config(str(tmp_path / "store")))
    data = (tmp_path / "in.txt").read_bytes()
    bucket.put("corpus/one/in.txt", data)
    bucket.put("corpus/readme.md", b"no format")
    for name in ("corpus", "corpus/", "corpus/one/in.txt"):
        config = make_config(
            str(tmp_path / name.replace("/", "-")),
            {"endpoint": bucket.endpoint},
            input={"paths": [f"{bucket.uri}/{name}"]},
        )
        found = run(config)
        assert [row["text"] for row in found["curated"]] == [row["text"] for row in expected["curated"]]


def test_revoked_keys_end_the_job_within_a_minute_and_leave_the_version(make_config, bucket, faulty):
    config = make_config(f"{bucket.uri}/x", {"endpoint": faulty.endpoint})
    expected = run(config)
    changed = make_config(f"{bucket.uri}/x", {"endpoint": faulty.endpoint}, seed=7)
    so_far = len(faulty.seen)

    def revoke():
        faulty.wait_for(so_far + 40)
        revoked.append(time.monotonic())
        faulty.forbid()

    revoked = []
    thread = threading.Thread(target=revoke)
    thread.start()
    with pytest.raises(RunError, match=r"access to s3://.* is denied .*; check the AWS credentials"):
        run(changed)
    thread.join()
    assert time.monotonic() - revoked[0] < 60
    faulty.up()
    assert latest(Store.of(config)).number == 3
    assert rows(config) == expected


def test_a_lost_bucket_is_one_line(make_config, bucket):
    config = make_config(f"s3://{bucket.name}x/y", {"endpoint": bucket.endpoint})
    started = time.monotonic()
    with pytest.raises(RunError, match=r"there is no bucket test-\w+; create it, or correct the setting"):
        run(config)
    assert time.monotonic() - started < 60
