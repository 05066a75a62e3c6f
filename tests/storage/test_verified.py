"""Every byte of a table or a model is verified when it is used, in ranges too."""

import os
import random
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from multicsr.errors import DamagedFileError, RunError, SchemaError
from multicsr.storage import store as store_module
from multicsr.storage import verified
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.verified import VerifiedFile, block_checksums
from tests.support.paths import ROOT


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(verified, "BLOCK_BYTES", 1500)


def table_of(num_rows):
    dice = np.random.default_rng(0)
    ids = [f"{i:032x}" for i in range(num_rows)]
    return pa.table({"row_id": ids, "text": [dice.bytes(4).hex() for _ in ids], "n": range(num_rows)})


def flipped(data, offset, bit):
    return data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :]


def rows_between(first, last):
    return (pc.field("row_id") >= f"{first:032x}") & (pc.field("row_id") <= f"{last:032x}")


READS = [(None, None), (["n"], None), (["row_id"], rows_between(100, 120)), (None, rows_between(400, 2_000))]


def test_a_flipped_bit_never_changes_what_is_read(store, small_blocks, monkeypatch):
    """A read either fails or, having touched no damaged block, gives the rows that were written."""
    monkeypatch.setattr(store_module, "ROW_GROUP_ROWS", 100)
    entry = store.write_table("t.parquet", table_of(500))
    assert len(entry.blocks) >= 5
    expected = [store.read_table(entry, columns, rows) for columns, rows in READS]
    assert [table.num_rows for table in expected] == [500, 500, 21, 100]
    path, dice, num_found = store.directory / "t.parquet", random.Random(0), 0
    data = path.read_bytes()
    for offset in [*range(len(data) - 600, len(data)), *dice.sample(range(len(data)), 300)]:
        path.write_bytes(flipped(data, offset, dice.randrange(8)))
        for (columns, rows), right in zip(READS, expected, strict=True):
            try:
                assert store.read_table(entry, columns, rows) == right
            except DamagedFileError:
                num_found += 1
    assert num_found > 1000


@pytest.mark.parametrize("num_rows", [3, 500])
def test_cut_extended_zeroed_and_exchanged_tables_are_found(store, small_blocks, num_rows):
    entry = store.write_table("t.parquet", table_of(num_rows))
    other = store.write_table(
        "u.parquet", table_of(num_rows).set_column(2, "n", pa.array(range(num_rows, 0, -1)))
    )
    data, theirs = store.read_bytes("t.parquet"), store.read_bytes("u.parquet")
    assert bool(entry.blocks) == (num_rows == 500)
    zeroed = data[:100] + bytes(64) + data[164:]
    for damaged in (data[:-1], data[:-100], data[:10], b"", data + b"x", zeroed, theirs):
        store.write_bytes("t.parquet", damaged)
        with pytest.raises(DamagedFileError):
            store.read_table(entry)
    store.write_bytes("t.parquet", data)
    assert store.read_table(entry) == table_of(num_rows)
    assert store.read_table(other)["n"][0].as_py() == num_rows


def test_damage_is_found_in_a_bucket(place, small_blocks):
    entry = place.write_table("t.parquet", table_of(500))
    assert place.read_table(entry, ["n"], rows_between(3, 4))["n"].to_pylist() == [3, 4]
    data = place.read_bytes("t.parquet")
    place.write_bytes("t.parquet", flipped(data, len(data) - 30, 0))
    with pytest.raises(DamagedFileError, match=r"t\.parquet is damaged"):
        place.read_table(entry, ["n"])
    place.delete("t.parquet")
    with pytest.raises(RunError, match=r"t\.parquet: no such file; run `multicsr run CONFIG` again"):
        place.read_table(entry)


def test_ranges_are_those_of_the_file(small_blocks, tmp_path):
    data, dice = os.urandom(15_000), random.Random(3)
    (tmp_path / "f").write_bytes(data)
    source = pa.OSFile(str(tmp_path / "f"))
    file = VerifiedFile(source, len(data), block_checksums(data), lambda: AssertionError("damaged"))
    for _ in range(200):
        start, size = dice.randrange(15_100), dice.randrange(6_000)
        file.seek(start)
        assert file.read(size) == data[start : start + size]
        assert file.tell() == min(start + size, 15_000) or start >= 15_000
    file.seek(-10, os.SEEK_END)
    assert file.read() == data[-10:]
    file.close()
    assert source.closed


@pytest.mark.parametrize("size", [2_999, 3_001, 0])
def test_a_file_of_another_size_is_damaged(small_blocks, size):
    data = bytes(3_000)
    with pytest.raises(ValueError, match="damaged"):
        VerifiedFile(
            pa.BufferReader(bytes(size)), 3_000, block_checksums(data), lambda: ValueError("damaged")
        )


def test_only_the_blocks_of_a_range_are_read(small_blocks):
    data = os.urandom(15_000)

    class Recorder:
        def __init__(self):
            self.asked = []

        def size(self):
            return len(data)

        def read_at(self, size, offset):
            self.asked.append((offset, size))
            return data[offset : offset + size]

    recorder = Recorder()
    file = VerifiedFile(recorder, len(data), block_checksums(data), lambda: AssertionError("damaged"))
    for start, size in ((1600, 10), (1700, 10), (1400, 3_000)):
        file.seek(start)
        assert file.read(size) == data[start : start + size]
    assert recorder.asked == [(1500, 1500), (0, 4500)]


def test_tables_without_a_manifest_name_their_checksum(store):
    entry = store.write_named_table("llm_cache/a/b", table_of(20))
    for stray in (
        "llm_cache/a/.DS_Store",
        "llm_cache/a/x.parquet.bak",
        "llm_cache/a/.nfs0001",
        "llm_cache/a/b-1.parquet",
    ):
        store.write_text(stray, "x")
    (found,) = store.named_entries("llm_cache")
    assert (found.path, found.checksum, found.bytes) == (entry.path, entry.checksum, entry.bytes)
    assert store.read_table(found) == table_of(20)
    data = store.read_bytes(found.path)
    for damaged in (flipped(data, 50, 1), data[:-1], data + b"x"):
        store.write_bytes(found.path, damaged)
        (damaged_entry,) = store.named_entries("llm_cache")
        with pytest.raises(DamagedFileError):
            store.read_table(damaged_entry)


def test_tables_of_another_schema_are_distinguished_from_damage(store, monkeypatch):
    monkeypatch.setattr(store_module, "SCHEMA_VERSION", "4")
    newer = store.write_table("new.parquet", table_of(2))
    monkeypatch.setattr(store_module, "SCHEMA_VERSION", "1")
    older = store.write_table("old.parquet", table_of(2))
    named = store.write_named_table("llm_cache/x", table_of(2))
    monkeypatch.undo()
    assert store.read_table(named) == table_of(2), "what the LLM wrote has a number of its own"
    with pytest.raises(SchemaError, match=r"new\.parquet was written by a newer version .*upgrade"):
        store.read_table(newer)
    with pytest.raises(SchemaError, match=r"old\.parquet was written by an older version"):
        store.read_table(older, ["n"])


def write_model(store):
    names = ("config.json", "1_Pooling/config.json", "model.safetensors")
    return [store.write_text(f"model/f/encoder/{name}", f"{name}\n") for name in names]


def copy_of(store, entries, target):
    with store.as_directory("model/f/encoder", entries) as folder:
        linked = {path.relative_to(folder).as_posix(): path.read_text() for path in files_in(folder)}
    store.download("model/f/encoder", entries, target)
    assert {path.relative_to(target).as_posix(): path.read_text() for path in files_in(target)} == linked
    return linked


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_of_a_model_only_the_listed_files_are_used(place, tmp_path):
    entries = write_model(place)
    place.write_text("model/f/encoder/pytorch_model.bin", "a stray file")
    place.write_text("model/f/manifest.json", "not below the folder")
    assert sorted(copy_of(place, entries, tmp_path / "copy")) == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
    ]


def test_each_damaged_file_of_a_model_is_found(place, tmp_path):
    entries = write_model(place)
    for number, entry in enumerate(entries):
        data = place.read_bytes(entry.path)
        for damaged in (flipped(data, 1, 2), data[:-1], data + b"x"):
            place.write_bytes(entry.path, damaged)
            with pytest.raises(DamagedFileError, match=f"{entry.path} is damaged"):
                place.download("model/f/encoder", entries, tmp_path / str(number))
            with (
                pytest.raises(DamagedFileError, match=f"{entry.path} is damaged"),
                place.as_directory("model/f/encoder", entries),
            ):
                pass
        place.write_bytes(entry.path, data)


def test_a_symbolic_link_does_not_lead_out_of_the_store(store, tmp_path):
    (tmp_path / "secret").write_text("config.json\n")
    entries = write_model(store)
    path = store.directory / entries[0].path
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    for use in (
        lambda: store.read_verified(entries[0]),
        lambda: store.download("model/f/encoder", entries, tmp_path / "copy"),
        lambda: store.as_directory("model/f/encoder", entries).__enter__(),
        lambda: store.read_bytes(entries[0].path),
    ):
        with pytest.raises(RunError, match="is a symbolic link that leads out of the store"):
            use()


def hostile_names(number):
    """Names that lead out of a folder on some system, made of parts that do so and parts that do not."""
    dice = random.Random(5)
    bad = ["..", ".", "", "C:", "c:x", "a\\b", "..\\..\\x", "\0", "a\0b", "/", "\\\\host\\share"]
    good = ["encoder", "x", "config.json", "1_Pooling", "é", "..."]
    names = {
        "../x",
        "/etc/passwd",
        "encoder/../../x",
        "encoder//abs/path",
        "a/",
        "C:/x",
        "./x",
        ".",
        "..",
        "",
    }
    while len(names) < number:
        parts = [dice.choice(good) for _ in range(dice.randrange(1, 4))]
        parts.insert(dice.randrange(len(parts) + 1), dice.choice(bad))
        names.add("/".join(parts))
    return sorted(names)


@pytest.mark.parametrize("prefix", ["", "model/f/encoder/"])
def test_hostile_names_of_a_manifest_are_rejected(prefix):
    names = [prefix + name for name in hostile_names(200)]
    for name in names:
        with pytest.raises(ValueError, match="is no name of a file in a store"):
            FileEntry(path=name, rows=0, bytes=1, checksum="")
    FileEntry(path=f"{prefix}...", rows=0, bytes=1, checksum="")


def test_hostile_objects_of_a_bucket_are_not_copied(bucket, tmp_path):
    from multicsr.config import S3Config

    store = Store.open(f"{bucket.uri}/corpus", S3Config(endpoint=bucket.endpoint))
    entries = write_model(store)
    num_put = 0
    for name in hostile_names(200):
        if "\0" not in name:  # S3 takes none
            bucket.client.put_object(Bucket=bucket.name, Key=f"corpus/model/f/encoder/{name}", Body=b"x")
            num_put += 1
    assert num_put > 100
    target = tmp_path / "deep" / "copy"
    store.download("model/f/encoder", entries, target)
    assert len(files_in(tmp_path)) == len(files_in(target)) == len(entries)


UNVERIFIED = {
    "config_file.py": "a configuration that a user names",
    "stages/ingest/readers.py": "what a user wants to be read",
    "stages/ingest/triplet_files.py": "labelled triplets that a user names",
    "storage/local_copy.py": "data files that a user names",
    "stages/train/monitoring/log_follower.py": "the log of a training that goes on",
    "stages/train/workspace.py": "checkpoint and log of a training that goes on, with their own checksums",
}
"""Files of the package that read what no manifest describes, and what that is."""


def test_nothing_else_reads_a_store_without_verifying():
    package = ROOT / "multicsr"
    reads = re.compile(r"store\.(read_text|read_bytes|download_file)\(|\bpq\.(read|ParquetFile)")
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if reads.search(path.read_text(encoding="utf-8"))
    }
    assert found - {"storage/store.py"} <= UNVERIFIED.keys()


@pytest.mark.parametrize("size", [0, 1, 4_000])
def test_a_table_that_was_cut_is_damaged_wherever_it_lies(place, small_blocks, size):
    entry = place.write_table("t.parquet", table_of(500))
    place.write_bytes("t.parquet", place.read_bytes("t.parquet")[:size])
    assert entry.blocks, "it is read in ranges"
    with pytest.raises(DamagedFileError, match=r"t\.parquet is damaged; delete it and run"):
        place.read_table(entry, ["n"])
