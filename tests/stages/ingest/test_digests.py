"""What identifies a file: its bytes, in a directory and in a bucket; a file that changes while it is read."""

import gzip
import os
import pickle
from types import SimpleNamespace

import pytest

from multicsr.config import S3Config
from multicsr.errors import ConfigError, RunError
from multicsr.stages.ingest import digests
from multicsr.stages.ingest.digests import Unchanged, digest_file, keep_digests, known_digests
from multicsr.stages.ingest.files import find_files
from multicsr.stages.ingest.readers import read_records
from multicsr.storage.store import Store


@pytest.fixture
def one_file(config):
    def find(path):
        (file,) = find_files(config(path, column=None).input).files
        return file

    return find


def test_a_digest_is_of_the_bytes_alone(tmp_path, one_file):
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "b.txt").write_bytes(b"one")
    (tmp_path / "c.txt").write_bytes(b"two")
    a, b, c = (digest_file(one_file(tmp_path / name)) for name in ("a.txt", "b.txt", "c.txt"))
    assert a == b != c


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path, one_file):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n" * 100)
    file = one_file(path)
    unchanged = Unchanged(file)
    path.touch()
    unchanged.check()  # other times, the same bytes
    with path.open("ab") as more:
        more.write(b"two\n")
    with pytest.raises(RunError, match=r"a\.txt changed while it was read; run again when it is complete"):
        unchanged.check()
    path.unlink()
    with pytest.raises(RunError, match=r"cannot read .*a\.txt: No such file"):
        unchanged.check()


def test_parts_of_a_file_with_another_state_digest_it_once_in_a_process(tmp_path, one_file, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n" * 100)
    parts = [pickle.loads(pickle.dumps(Unchanged(one_file(path)))) for _ in range(3)]
    digested = []
    monkeypatch.setattr(digests, "digest_file", lambda file: digested.append(file) or digest_file(file))
    path.touch()
    for part in parts:
        part.check()
    assert len(digested) == 1


def test_the_number_of_the_device_is_no_change(tmp_path, one_file, monkeypatch):
    """A network file system may have another number on another node."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n")
    unchanged = Unchanged(one_file(path))
    real, there = os.stat, 987654
    names = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
    facts = SimpleNamespace(**{name: getattr(real(path), name) for name in names}, st_dev=there)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(digests.os, "stat", lambda name: facts)
        elsewhere.setattr(digests, "digest_file", None)
        unchanged.check()


def test_a_digest_is_kept_only_of_a_file_that_has_settled(tmp_path, one_file):
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "a.txt").write_bytes(b"one")
    file = one_file(tmp_path / "a.txt")
    keep_digests(store, [file], {file.path: "00"})
    assert known_digests(store, [file]) == {}, "it could be written again in the same tick of the clock"


def test_a_damaged_cache_of_digests_is_no_error(tmp_path, one_file, monkeypatch):
    monkeypatch.setattr("multicsr.stages.ingest.digests._SETTLED_S", -1)
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "a.txt").write_bytes(b"one")
    file = one_file(tmp_path / "a.txt")
    keep_digests(store, [file], {file.path: "00"})
    assert known_digests(store, [file]) == {file.path: "00"}
    cache = tmp_path / "store/inputs/digests.json"
    cache.write_bytes(cache.read_bytes()[:-5])
    assert known_digests(store, [file]) == {}


@pytest.fixture
def in_bucket(bucket, config):
    s3 = S3Config(endpoint=bucket.endpoint)

    def find(key=""):
        return find_files(config(f"{bucket.uri}/{key}", column=None).input, s3)

    return find


def test_an_object_is_known_by_its_etag_and_noticed_when_it_changes(bucket, in_bucket, tmp_path):
    bucket.put("in/a.txt", b"one\n" * 300_000)
    (file,) = in_bucket("in").files
    store = Store.open(str(tmp_path / "store"))
    before = known_digests(store, [file])
    assert [*before.values()] == [digest_file(file)]
    records = read_records(file, None)
    assert next(records).text == "one"
    bucket.put("in/a.txt", b"two\n" * 300_000)
    with pytest.raises(RunError, match=r"in/a\.txt changed while it was read"):
        list(read_records(file, None))
    (changed,) = in_bucket("in").files
    assert known_digests(store, [changed]) != before


@pytest.mark.parametrize("etag", ["", "0" * 32 + "-1", "W/abc", "not-a-digest"])
def test_an_etag_that_may_not_depend_on_the_bytes_is_not_trusted(bucket, in_bucket, etag, tmp_path):
    bucket.put("a.txt", b"one\n")
    (file,) = in_bucket().files
    made_up = type(file)(**{**vars(file), "etag": etag})
    assert known_digests(Store.open(str(tmp_path / "store")), [made_up]) == {}


def test_keys_of_any_shape_are_read(bucket, in_bucket):
    keys = ["in//double.txt", "in/a b#c?d%20.txt", "in/B.TXT.GZ", "in/é/ü.txt", "/in/rooted.txt"]
    for key in keys:
        data = b"A sentence in a bucket.\n"
        bucket.put(key, gzip.compress(data) if key.endswith("GZ") else data)
    for key in ("in/", "in/corpus.parquet/", "in/.hidden.txt", "in/_temporary/0/part-00000", "in/notes.md"):
        bucket.put(key, b"")
    found = in_bucket("in")
    assert [file.name for file in found.files] == ["B.TXT.GZ", "a b#c?d%20.txt", "double.txt", "é/ü.txt"]
    assert {why.kind.partition(" ")[0]: len(names) for why, names in found.left_out.items()} == {
        "markers": 2,
        "hidden": 2,
        "of": 1,
    }
    for file in [*found.files, *in_bucket("/in").files, *in_bucket("in/a b#c?d%20.txt").files]:
        assert [record.text for record in read_records(file, None)] == ["A sentence in a bucket."]


GLOBS = {
    "in/a*.txt": {"a1.txt", "a2.txt"},
    "in/[ab]1.txt": {"a1.txt", "b1.txt"},
    "in/?1.*": {"a1.txt", "b1.txt"},
    "in/*/a1.txt": {"sub/a1.txt"},
    "in/**/a1.txt": {"a1.txt", "sub/a1.txt", "sub/deep/a1.txt"},
    "in/**": {"a1.txt", "a2.txt", "b1.txt", "sub/a1.txt", "sub/deep/a1.txt"},
    "in/_*/*.txt": {"_t/a1.txt"},
    "i*/a1.txt": {"in/a1.txt"},
}


@pytest.mark.parametrize("pattern", GLOBS)
def test_a_glob_reads_the_same_files_in_a_bucket_and_in_a_directory(
    bucket, in_bucket, tmp_path, config, pattern
):
    names = ["a1.txt", "a2.txt", "b1.txt", "sub/a1.txt", "sub/deep/a1.txt", "_t/a1.txt", ".h.txt", "c.bin"]
    for name in names:
        bucket.put(f"in/{name}", b"one\n")
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"one\n")
    local = find_files(config(tmp_path / pattern, column=None).input)
    assert {file.name for file in local.files} == GLOBS[pattern]
    assert {file.name for file in in_bucket(pattern).files} == GLOBS[pattern]


def test_an_object_whose_name_looks_like_a_glob_is_read(bucket, in_bucket):
    bucket.put("in/a[1].txt", b"one\n")
    bucket.put("in/a1.txt", b"one\n")
    assert [file.name for file in in_bucket("in/a[1].txt").files] == ["a[1].txt"]


def test_a_glob_that_matches_nothing_in_a_bucket_is_a_config_error(bucket, in_bucket):
    bucket.put("in/b.txt", b"one\n")
    with pytest.raises(ConfigError, match="matches no file of a known format"):
        in_bucket("in/a*.txt")
