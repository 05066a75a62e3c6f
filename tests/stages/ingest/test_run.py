"""Ingest as a whole, on local Ray: conservation, identity, resume, and what it says about a broken world."""

import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multicsr.errors import ConfigError, RunError
from multicsr.observability.progress import SilentProgress
from multicsr.rows import Reason, row_id
from multicsr.stages.ingest import chunks, digests, duplicates, ingest
from multicsr.stages.ingest import run as ingest_run
from multicsr.stages.ingest.duplicates import id_ranges
from multicsr.stages.ingest.files import find_files
from multicsr.stages.ingest.reading import FileShard, reader
from multicsr.stages.ingest.sharding import sharder
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.tools.audit import audit
from tests.support.versions import publish

pytestmark = pytest.mark.usefixtures("ray_cluster")

BAD_LINES = {
    b"": Reason.EMPTY,
    b" \t\xc2\xa0\xe3\x80\x80 ": Reason.EMPTY,
    b"Too short.": Reason.TOO_SHORT,
    b"so " * 100: Reason.TOO_LONG,
    b"\x89PNG\x1a\x00\x00 not a sentence": Reason.UNDECODABLE,
    b"A zero \x00 in the middle.": Reason.CONTROL_CHARACTERS,
    b"A \x1b[31mred\x1b[0m terminal sentence.": Reason.CONTROL_CHARACTERS,
    b"A C1 control \xc2\x9b in here.": Reason.CONTROL_CHARACTERS,
    b"No character \xef\xbf\xbf at all.": Reason.CONTROL_CHARACTERS,
    b"Caf\xe9 au lait, in Latin-1.": Reason.UNDECODABLE,
    b"A character cut in two \xe2\x82": Reason.UNDECODABLE,
    b"A surrogate \xed\xa0\x80 in UTF-8.": Reason.UNDECODABLE,
    b"\xff\xfeU\x00T\x00F\x00-\x001\x006\x00": Reason.UNDECODABLE,
    b"Decoded wrongly \xef\xbf\xbd before.": Reason.UNDECODABLE,
    b"A good sentence twice.": Reason.DUPLICATE,
    b"  A  good   sentence twice. ": Reason.DUPLICATE,
    "Cafe\u0301 au lait, please.".encode(): Reason.DUPLICATE,
}
GOOD_LINES = [
    b"A good sentence twice.",
    "Caf\u00e9 au lait, please.".encode(),
    b"Nothing wrong with this one.",
]
BAD_JSON = {
    '{"text": "cut off': Reason.MALFORMED,
    '["a", "list", "of words"]': Reason.MALFORMED,
    '{"body": "another column"}': Reason.MALFORMED,
    '{"text": null}': Reason.MALFORMED,
    '{"text": 12}': Reason.MALFORMED,
    "[" * 20_000: Reason.MALFORMED,
    '{"text": "half \\ud800 a pair"}': Reason.UNDECODABLE,
    '{"text": "a \\u0000 in JSON"}': Reason.CONTROL_CHARACTERS,
}
BAD_CSV = {
    b"one field": Reason.MALFORMED,
    b"1,three,fields of text": Reason.MALFORMED,
    b"": Reason.EMPTY,
    b"1,not \xff\xfe UTF-8 here": Reason.UNDECODABLE,
    b'1,"A good\nsentence twice."': Reason.DUPLICATE,
}


@pytest.fixture
def bad_corpus(tmp_path):
    """A directory with more than 30 kinds of bad rows in four formats; (path, records, reasons)."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"\n".join([*GOOD_LINES, *BAD_LINES]) + b"\n")
    good_json = json.dumps({"text": "A sentence out of JSON."})
    (folder / "b.jsonl").write_text("\n".join([good_json, *BAD_JSON]) + "\n")
    (folder / "c.csv").write_bytes(b"\n".join([b"id,text", b"1,A sentence out of CSV.", *BAD_CSV]) + b"\n")
    strings = pa.array([b"A sentence out of Parquet.", None, b"bytes \xff in Parquet"], pa.binary())
    pq.write_table(pa.table({"text": strings.view(pa.string())}), folder / "d.parquet")
    reasons = [*BAD_LINES.values(), *BAD_JSON.values(), *BAD_CSV.values()]
    return folder, Counter([*reasons, Reason.MALFORMED, Reason.UNDECODABLE])


def run(config):
    return ingest(config, Store.open(config.store), SilentProgress())


def read_all(config, manifest):
    store = Store.open(config.store)
    return pa.concat_tables(iter_tables(store, manifest)).to_pylist()


def test_every_bad_row_leaves_once_with_its_reason(config, bad_corpus):
    folder, reasons = bad_corpus
    settings = config(folder)
    manifest = run(settings)
    rows = read_all(settings, manifest)
    rejected = pa.concat_tables(iter_rejects(Store.open(settings.store), manifest)).to_pylist()
    assert manifest.rejected == reasons
    assert manifest.rows_in == len(rows) + len(rejected) == 6 + reasons.total()
    places = [(row["source"], row["position"]) for row in [*rows, *rejected]]
    records_in = {"a.txt": 20, "b.jsonl": 9, "c.csv": 6, "d.parquet": 3}
    assert sorted(places) == [(name, i) for name, number in records_in.items() for i in range(number)]
    assert {row["text"] for row in rows} == {
        *(line.decode() for line in GOOD_LINES),
        *(f"A sentence out of {kind}." for kind in ("JSON", "CSV", "Parquet")),
    }
    by_place = {(row["source"], row["position"]): row["reason"] for row in rejected}
    assert [by_place["a.txt", 3 + i] for i in range(len(BAD_LINES))] == [*BAD_LINES.values()]
    assert [by_place["b.jsonl", 1 + i] for i in range(len(BAD_JSON))] == [*BAD_JSON.values()]
    assert [by_place["c.csv", 1 + i] for i in range(len(BAD_CSV))] == [*BAD_CSV.values()]
    assert audit(publish(Store.open(settings.store), "sentences", manifest)) == []


def test_ids_are_hashes_of_text_and_language(tmp_path, write, config):
    path = write(tmp_path / "a.txt", ["  Kumusta   ka na, kaibigan?"])
    (row,) = read_all(settings := config(path, column=None, language="tl"), run(settings))
    assert row["row_id"] == row_id("Kumusta ka na, kaibigan?", "tl") != row_id(row["text"], "en")


SENTENCES = [f"This is sentence number {i % 700} of many." for i in range(1000)]


def test_rows_do_not_depend_on_shards_chunks_or_ranges(tmp_path, write, config, monkeypatch):
    path = write(tmp_path / "a.txt.gz", SENTENCES)
    settings = config(path, column=None, rows_per_file=5000)
    manifest = run(settings)
    assert len(manifest.files) == 1
    assert manifest.rejected == {Reason.DUPLICATE: 300}

    monkeypatch.setattr(duplicates, "RANGE_ROWS", 200)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 90)
    store = Store.open(str(tmp_path / "by hand"))
    (file,) = find_files(settings.input).files
    read = reader(settings, store, "x")(FileShard(file, None))
    candidates = read.files
    ranges = id_ranges(read.rows_out, 50)
    assert (len(read.files), len(ranges)) == (12, 5)
    reports = [sharder(settings.ingest, store, "x", candidates)(ids) for ids in ranges]
    files = [entry for report in reports for entry in report.files]
    assert len(files) == 20
    rows = [row for entry in files for row in store.read_table(entry).to_pylist()]
    assert rows == read_all(settings, manifest)
    assert sum(report.rejected[Reason.DUPLICATE] for report in reports) == 300


def test_the_first_of_equal_sentences_stays(tmp_path, write, config):
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "b.txt", ["One and the same sentence."])
    write(folder / "a.jsonl", ["Something else comes first.", *["One and the same sentence."] * 2])
    settings = config(folder)
    manifest = run(settings)
    kept = {row["text"]: (row["source"], row["position"]) for row in read_all(settings, manifest)}
    assert kept["One and the same sentence."] == ("a.jsonl", 1)
    (rejected,) = iter_rejects(Store.open(settings.store), manifest)
    assert rejected["detail"].to_pylist() == ["same as a.jsonl:1"] * 2


def test_unchanged_input_is_not_read_again_and_changed_input_is(tmp_path, write, config):
    path = write(tmp_path / "a.txt", SENTENCES[:100])
    settings = config(path, column=None)
    first = run(settings)
    assert run(settings) == first
    assert {name.split("/")[2] for name in Store.open(settings.store).names("sentences")} == {
        "rows",
        "done",
        "manifest.json",
    }
    write(path, SENTENCES[:101])
    assert run(settings).rows_out == 101


def test_a_file_that_did_not_change_is_not_read_again_beside_one_that_did(tmp_path, write, config):
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.txt", SENTENCES[:100])
    write(folder / "b.txt", SENTENCES[100:200])
    run(config(folder, column=None))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store/records").rglob("*.parquet")}
    write(folder / "b.txt", SENTENCES[100:190])
    manifest = run(config(folder, column=None))
    assert manifest.rows_out == 190
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "store/records").rglob("*.parquet")}
    assert len(before) == 2
    assert after.items() > before.items(), "what was read of either file stays as it was"
    assert len(after) == 3


def test_other_bytes_are_read_though_path_size_and_time_are_the_same(tmp_path, write, config):
    """The rows of one file are never served for another one, in whichever way they look alike."""
    old, new = ["The cat sat on the mat."], ["The dog sat on the mat."]
    a, b = (write(tmp_path / f"{folder}.txt", text) for folder, text in (("a", old), ("b", new)))
    for folder, path in (("one", a), ("two", b)):
        (tmp_path / folder).mkdir()
        path.rename(tmp_path / folder / "in.txt")
        os.utime(tmp_path / folder / "in.txt", ns=(10**18, 10**18))
    texts = []
    for folder in ("one", "two"):
        settings = config(tmp_path / folder, column=None)
        texts.append([row["text"] for row in read_all(settings, run(settings))])
    assert texts == [old, new]
    # The same path, written in place.
    with (tmp_path / "one/in.txt").open("r+") as file:
        file.write(new[0])
    os.utime(tmp_path / "one/in.txt", ns=(10**18, 10**18))
    settings = config(tmp_path / "one", column=None)
    assert [row["text"] for row in read_all(settings, run(settings))] == new


def test_the_same_bytes_elsewhere_are_the_same_artifact(tmp_path, write, config):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "in.txt", SENTENCES[:10])
    first = run(config(tmp_path / "one", column=None))
    os.utime(tmp_path / "one/in.txt")
    assert run(config(tmp_path / "one", column=None)) == first
    assert run(config(tmp_path / "two", column=None)) == first


def test_bytes_whose_digest_is_known_are_not_read(tmp_path, write, config, monkeypatch):
    path = write(tmp_path / "a.txt", SENTENCES[:10])
    old = path.stat().st_mtime - 100
    os.utime(path, (old, old))
    monkeypatch.setattr(digests, "_SETTLED_S", -1)  # a change of the inode's time cannot be put back
    first = run(config(path, column=None))
    monkeypatch.setattr(ingest_run, "map_shards", None)
    assert run(config(path, column=None)) == first


def test_rules_are_part_of_what_they_decide(tmp_path, write, config, monkeypatch):
    path = write(tmp_path / "a.txt", SENTENCES[:10])
    settings = config(path, column=None)
    first = run(settings)
    for name in ("READERS_VERSION", "FILTERS_VERSION"):
        with monkeypatch.context() as patch:
            patch.setattr(ingest_run, name, 99)
            assert run(settings).fingerprint != first.fingerprint
    assert len(list((tmp_path / "store/records").iterdir())) == 3


def test_documents_become_sentences(tmp_path, write, config):
    path = write(
        tmp_path / "a.jsonl", ["First of all, hello. Then this follows it.", "", "Only this one here."]
    )
    settings = config(path, documents=True)
    manifest = run(settings)
    rows = {(row["position"], row["text"]) for row in read_all(settings, manifest)}
    assert rows == {(0, "First of all, hello."), (0, "Then this follows it."), (2, "Only this one here.")}
    assert (manifest.rows_in, manifest.rejected) == (4, {Reason.EMPTY: 1})


def test_wrong_language_is_rejected(tmp_path, write, config):
    path = write(
        tmp_path / "a.txt", ["The children are playing outside.", "Ang mga bata ay naglalaro sa labas."]
    )
    settings = config(path, column=None, language_filter=True)
    manifest = run(settings)
    assert (manifest.rows_out, manifest.rejected) == (1, {Reason.WRONG_LANGUAGE: 1})


@pytest.mark.parametrize("content", [b"", b"\n \n\n"])
def test_empty_corpus(tmp_path, config, content):
    (tmp_path / "a.txt").write_bytes(content)
    settings = config(tmp_path / "a.txt", column=None, max_rejected=1)
    with pytest.raises(RunError, match=r"the corpus is empty|none of 3 records is usable"):
        run(settings)
    assert not list(Path(settings.store).glob("sentences/*/manifest.json"))


def test_too_many_rejects(tmp_path, write, config):
    path = write(tmp_path / "a.txt", ["short", "short", "This is a good one."])
    settings = config(path, column=None, max_rejected=0.5)
    with pytest.raises(RunError, match=r"2 of 3 rows rejected, more than ingest\.max_rejected = 0\.5"):
        run(settings)
    assert not list(Path(settings.store).glob("sentences/*/manifest.json"))


def test_a_damaged_file_stops_the_job_and_publishes_nothing(tmp_path, write, config):
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.txt", SENTENCES[:100])
    whole = write(folder / "b.txt.gz", SENTENCES).read_bytes()
    (folder / "b.txt.gz").write_bytes(whole[: len(whole) // 2])
    settings = config(folder, column=None)
    with pytest.raises(RunError, match=r"input\.paths: cannot read .*b\.txt\.gz"):
        run(settings)
    assert not list(Path(settings.store).glob("sentences/*/manifest.json"))


def test_a_misspelt_column_is_one_line(tmp_path, write, config):
    path = write(tmp_path / "a.jsonl", SENTENCES[:10])
    with pytest.raises(ConfigError, match=r"has no column 'txt'; did you mean 'text'\?"):
        run(config(path, column="txt"))
