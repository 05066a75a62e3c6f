"""Parts of a file of lines: together they are the file, chunk by chunk."""

import itertools
import random
from dataclasses import replace

import pytest

from multicsr.observability.progress import SilentProgress
from multicsr.stages.ingest import chunks, digests, file_parts, reading, streams
from multicsr.stages.ingest import run as ingest_run
from multicsr.stages.ingest.file_parts import cut_file, has_parts
from multicsr.stages.ingest.files import find_files
from multicsr.stages.ingest.reading import FileShard, join_parts, reader
from multicsr.storage.store import Store

LINES = [
    b"A plain line of words.",
    b"too short",
    b"",
    b"x\x00 nul in it",
    b"caf\xc3\xa9 is open",
    b"\xff bad",
]
ENDS = [b"\n", b"\r\n", b"\r", b"\n\r"]


def one_file(path, config):
    (file,) = find_files(config(path, column=None).input).files
    return file


@pytest.fixture
def lines(tmp_path):
    """A file of lines with every end of line; the last one has none."""
    draw = random.Random(0)
    path = tmp_path / "a.txt"
    numbered = (b"%b %d" % (draw.choice(LINES), draw.randrange(40)) for _ in range(500))
    path.write_bytes(b"".join(line + draw.choice(ENDS) for line in numbered) + b"the last line here")
    return path


@pytest.mark.parametrize("block_bytes", [1, 2, 7, 2**20])
@pytest.mark.parametrize("rows", [1, 3, 50, 10_000])
def test_parts_begin_at_every_nth_line(lines, config, monkeypatch, block_bytes, rows):
    data = lines.read_bytes()
    found = file_parts._LineStarts(rows)
    for start in range(0, len(data), block_bytes):
        found.add_block(data[start : start + block_bytes])
    starts = [0, *found.found, len(data)]
    parts = [data[start:stop].splitlines() for start, stop in itertools.pairwise(starts)]
    assert [line for part in parts for line in part] == data.splitlines()
    assert all(len(part) == rows for part in parts[:-1])


@pytest.mark.parametrize("data", [b"a\n", b"a\r", b"a\r\n", b"a\nb", b"", b"\n", b"\r\n\r"])
def test_no_part_is_empty(tmp_path, config, data):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    parts = cut_file(one_file(path, config), 1)
    assert len(parts) == max(1, len(data.splitlines()))
    assert (parts[0].start, parts[-1].stop) == (0, len(data))


def test_artifacts_of_parts_are_those_of_the_file(lines, tmp_path, config, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 40)
    monkeypatch.setattr(reading, "CHUNK_ROWS", 40)
    settings, file = config(lines, column=None), one_file(lines, config)
    whole = reader(settings, store := Store.open(str(tmp_path / "whole")), "x")(FileShard(file, None))

    cut = Store.open(str(tmp_path / "cut"))
    shards = [FileShard(file, part.unchanged.digest, part) for part in cut_file(file, 120)]
    assert len({shard.key for shard in shards}) == len(shards) == 6
    found = [reader(settings, cut, "x")(shard) for shard in reversed(shards)]
    joined = join_parts(cut, "x", shards[0].identity, found)

    assert {name: cut.read_bytes(name) for name in cut.names("x/candidates")} == {
        name: store.read_bytes(name) for name in store.names("x/candidates")
    }
    assert [*cut.names("x/done")] == [f"x/done/{joined.key}.json"]
    assert joined.model_copy(update={"seconds": 0}) == whole.model_copy(update={"seconds": 0})


def test_only_large_local_files_in_utf_8_have_parts(lines, tmp_path, config, monkeypatch):
    file = one_file(lines, config)
    assert not has_parts(file)
    monkeypatch.setattr(file_parts, "MIN_BYTES", 1000)
    assert has_parts(file)
    assert not has_parts(replace(file, format="csv"))
    assert not has_parts(replace(file, path="a.txt.gz"))
    lines.write_bytes(b"one\ntwo".decode().encode("utf-16"))
    assert cut_file(one_file(lines, config), 1) == []


def test_ranges_of_a_file_are_read_in_blocks(lines, config, monkeypatch):
    monkeypatch.setattr(streams, "_BLOCK_BYTES", 7)
    file, data = one_file(lines, config), lines.read_bytes()
    for start, stop in [(0, 100), (50, 57), (8, 8), (90, len(data))]:
        assert b"".join(streams.blocks_between(file, start, stop)) == data[start:stop]


@pytest.mark.usefixtures("ray_cluster")
def test_a_large_file_is_read_in_parts_once(tmp_path, config, monkeypatch):
    path = tmp_path / "large.txt"
    path.write_text("".join(f"This is sentence number {i % 700} of many.\n" for i in range(120_000)))
    monkeypatch.setattr(ingest_run, "has_parts", lambda file: True)
    monkeypatch.setattr(digests, "_SETTLED_S", -1)  # or the digest of a file this new would not be kept
    monkeypatch.setattr(ingest_run, "PART_ROWS", chunks.CHUNK_ROWS)
    settings = config(path, column=None, max_rejected=1.0)
    store = Store.of(settings)
    made = ingest_run.ingest(settings, store, SilentProgress())
    assert (made.rows_in, made.rows_out) == (120_000, 700)
    marks = [name for name in store.names("records") if "/done/" in name]
    assert len(marks) == 1, "that of the file; those of its three parts are deleted"
    again = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"rows_per_file": 100})})
    monkeypatch.setattr(ingest_run, "cut_file", None)
    assert ingest_run.ingest(again, store, SilentProgress()).rows_digest == made.rows_digest
