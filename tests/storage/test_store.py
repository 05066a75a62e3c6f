"""Files whole or not at all, also on a full disk."""

import errno
import io
import os
import pickle
import resource
import signal
import subprocess
import time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from multicsr.config_file import load_config
from multicsr.errors import ConfigError, RunError
from multicsr.rows import SENTENCE
from multicsr.storage.store import SCHEMA_VERSION, FileEntry, Store, checksum
from multicsr.storage.uri import parse_s3_uri


@pytest.fixture
def store(place):
    return place


@pytest.fixture
def on_disk(tmp_path):
    return Store.open(str(tmp_path / "store"))


def make_table(number=10):
    columns = [[f"{i:032x}" for i in range(number)], ["text"] * number, ["en"] * number, ["a"] * number]
    return pa.table([*columns, range(number)], schema=SENTENCE)


def test_text_round_trip_and_replacement(store):
    assert not store.exists("a/b.txt")
    store.write_text("a/b.txt", "one\n")
    store.write_text("a/b.txt", "two: \u00e9\n")
    assert store.read_text("a/b.txt") == "two: \u00e9\n"
    assert store.names("") == store.names("a") == ["a/b.txt"]


def test_table_round_trip_keeps_schema_and_states_what_it_wrote(store):
    table = make_table()
    entry = store.write_table("rows/part-0.parquet", table)
    assert store.read_table(entry).schema.equals(SENTENCE, check_metadata=True)
    assert store.read_table(entry) == table
    assert store.read_table(entry, columns=["text"]).column_names == ["text"]
    data = store.read_bytes("rows/part-0.parquet")
    assert (entry.path, entry.rows) == ("rows/part-0.parquet", 10)
    assert (entry.bytes, entry.checksum) == (len(data), checksum(data))
    facts = pq.read_metadata(io.BytesIO(data))
    assert facts.metadata[b"multicsr.schema"].decode() == SCHEMA_VERSION
    assert {facts.row_group(0).column(i).compression for i in range(5)} == {"ZSTD"}


def test_a_store_pickles(store):
    store.write_text("a.txt", "x")
    assert pickle.loads(pickle.dumps(store)).read_text("a.txt") == "x"


def test_a_file_uri_is_its_path(on_disk, tmp_path):
    store = on_disk
    store.write_text("a.txt", "x")
    same = Store.open(f"file://{tmp_path}/store/")
    assert same.uri("a.txt") == store.uri("a.txt") == str(tmp_path / "store" / "a.txt")
    assert same.read_text("a.txt") == "x"


def test_a_relative_path_does_not_follow_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store.open("runs/x")
    monkeypatch.chdir("/")
    store.write_text("a.txt", "x")
    assert (tmp_path / "runs/x/a.txt").read_text() == "x"


def test_child_and_delete(store):
    store.child("a").write_text("b/c.txt", "x")
    assert store.names("") == ["a/b/c.txt"]
    store.delete("a/b/c.txt")
    store.delete("a/b/c.txt")
    store.child("a").write_text("d.txt", "x")
    store.delete("a")
    assert store.names("a") == []


@pytest.mark.parametrize("uri", ["s3:///x", "file://relative/x", "http://x"])
def test_other_places_are_rejected(uri):
    with pytest.raises(ConfigError, match="store: cannot use"):
        Store.open(uri)


def test_rows_are_chosen_by_a_filter_and_their_ids_are_noted(store):
    table = make_table(20_000)
    entry = store.write_table("rows.parquet", table)
    assert entry.ids == (f"{0:032x}", f"{19_999:032x}")
    wanted = (pc.field("row_id") >= f"{8_190:032x}") & (pc.field("row_id") < f"{8_195:032x}")
    assert store.read_table(entry, ["position"], wanted)["position"].to_pylist() == [*range(8190, 8195)]
    assert store.write_table("none.parquet", table.slice(0, 0)).ids is None


def test_of_two_creations_the_second_changes_nothing(store):
    assert store.create_text("a.txt", "by one")
    assert not store.create_text("a.txt", "by another")
    assert store.read_text("a.txt") == "by one"
    assert store.create_text("b.txt", "x")


def test_a_directory_goes_there_and_back(store, tmp_path):
    source = tmp_path / "model"
    (source / "deep").mkdir(parents=True)
    (source / "a.bin").write_bytes(os.urandom(20_000_000))  # a bucket takes it in parts
    (source / "deep" / "b.txt").write_text("b")
    entries = store.upload("model/x", source)
    assert [entry.path for entry in entries] == ["model/x/a.bin", "model/x/deep/b.txt"]
    assert all(entry.checksum == checksum(store.read_bytes(entry.path)) for entry in entries)
    with store.as_directory("model/x", entries) as copy:
        assert (copy / "a.bin").read_bytes() == (source / "a.bin").read_bytes()
        assert (copy / "deep" / "b.txt").read_text() == "b"


def test_unreadable_files_are_one_line(store):
    with pytest.raises(RunError, match=r"cannot read .*none\.parquet"):
        store.read_table(FileEntry(path="none.parquet", rows=1, bytes=1, checksum=""))
    entry = store.write_text("bad.parquet", "this is no Parquet")
    with pytest.raises(RunError, match=r"cannot read .*bad\.parquet") as caught:
        store.read_table(entry)
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_one_line(on_disk, tmp_path):
    store = on_disk
    (tmp_path / "store").write_text("a file where the store should be")
    with pytest.raises(RunError, match="store: cannot write"):
        store.write_text("a.txt", "x")


@pytest.fixture
def small_files():
    """The kernel refuses to let a file of this process grow past 64 KiB, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def check_that_nothing_is_left(store):
    store.write_text("a.txt", "before")
    with pytest.raises(RunError, match=r"store: cannot write .*a\.txt: .+") as caught:
        store.write_text("a.txt", os.urandom(100_000).hex())
    assert "\n" not in str(caught.value)
    assert store.read_text("a.txt") == "before"
    noise = make_table(20_000).set_column(
        1, SENTENCE.field("text"), pa.array([os.urandom(8).hex() for _ in range(20_000)])
    )
    with pytest.raises(RunError, match="store: cannot write"):
        store.write_table("rows.parquet", noise)
    assert sorted(os.listdir(store.directory)) == ["a.txt"], "not even a temporary file stays"


def test_a_file_that_cannot_grow_leaves_nothing(on_disk, small_files):
    check_that_nothing_is_left(on_disk)


def test_a_full_disk_leaves_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a small disk here")
    try:
        check_that_nothing_is_left(Store.open(str(disk)))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_one_line(on_disk, monkeypatch, number):
    def link(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(
        RunError, match="has no hard links, without which two jobs could publish at once; use"
    ):
        on_disk.create_text("log/1.json", "x")
    assert on_disk.names("") == os.listdir(on_disk.directory / "log") == []


def test_what_killed_writers_left_is_found_when_it_is_old(on_disk):
    on_disk.write_text("a/kept.txt", "x")
    for name, age_s in (
        (f"kept.txt.{'0' * 32}.tmp", 7200),
        (f"new.txt.{'1' * 32}.tmp", 60),
        ("my.tmp", 7200),
    ):
        path = on_disk.directory / "a" / name
        path.write_text("half of it")
        os.utime(path, (time.time() - age_s,) * 2)
    (upload,) = on_disk.files.abandoned_uploads(older_than_s=3600)
    assert upload.name == f"a/kept.txt.{'0' * 32}.tmp"
    on_disk.files.abort_upload(upload)
    on_disk.files.abort_upload(upload)
    assert sorted(os.listdir(on_disk.directory / "a")) == ["kept.txt", "my.tmp", f"new.txt.{'1' * 32}.tmp"]


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        ("s3://my-bucket.1/a/b", "my-bucket.1", "a/b"),
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/a#x", "bucket", "a#x"),
        ("s3://bucket/a?x=1&y", "bucket", "a?x=1&y"),
        ("s3://bucket/a@b:c", "bucket", "a@b:c"),
        ("s3://bucket/é %20", "bucket", "é %20"),
    ],
)
def test_every_character_of_a_prefix_is_kept(uri, bucket, prefix):
    assert parse_s3_uri(uri) == (bucket, prefix)
    assert Store.open(uri).uri() == uri


@pytest.mark.parametrize(
    "name", ["My_Bucket", "a..b", "-a", "a-", "a b", "x" * 64, "b#x", "b?x", "b:9000", "é"]
)
def test_an_impossible_name_of_a_bucket_is_one_line(name):
    with pytest.raises(
        ConfigError, match="is no name of a bucket: it has 3 to 63 lower-case letters"
    ) as caught:
        Store.open(f"s3://{name}/prefix")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "user", ["AKIAKEY:hunter2@", "hunter2@", "key:hun/ter2@", "key:@", "k:hunter2@x@", "k@y:hunter2@"]
)
def test_credentials_in_a_uri_are_rejected_and_not_repeated(user):
    for scheme in ("s3", "http", "file"):
        with pytest.raises(ConfigError) as caught:
            Store.open(f"{scheme}://{user}bucket/prefix")
        for secret in ("AKIAKEY", "hunter2", "ter2"):
            assert secret not in str(caught.value)
    with pytest.raises(ConfigError, match="holds credentials; remove them"):
        Store.open(f"s3://{user}bucket/prefix")


@pytest.mark.parametrize(
    "endpoint",
    ["http://key:hunter2@minio:9000", "https://hunter2@minio", "http://minio?token=hunter2", "http://m#x"],
)
def test_an_endpoint_with_credentials_is_rejected_and_not_repeated(endpoint, tmp_path):
    (tmp_path / "c.yaml").write_text(
        f"name: x\nstore: s3://bucket/x\ninput: {{paths: [x]}}\ns3: {{endpoint: '{endpoint}'}}\n"
    )
    with pytest.raises(ConfigError, match=r"s3.*endpoint is a plain URL .*AWS_ACCESS_KEY_ID") as caught:
        load_config(tmp_path / "c.yaml")
    assert "hunter2" not in str(caught.value)
