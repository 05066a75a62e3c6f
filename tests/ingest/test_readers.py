"""Every format gives the same records; damage is a record, or one clear error."""

import bz2
import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from multicsr.errors import ConfigError, RunError
from multicsr.ingest import readers
from multicsr.ingest.readers import Record
from multicsr.rows import Reason

SENTENCES = ['He said "no" to it.', "Magandang umaga, kaibigan.", "Ça va, ils l'ont vu: 日本語, 🙂."]


@pytest.mark.parametrize("compression", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("ending", [".txt", ".csv", ".tsv", ".jsonl"])
def test_formats_agree(tmp_path, write, records, ending, compression):
    assert records(write(tmp_path / f"a{ending}{compression}", SENTENCES)) == [*map(Record, SENTENCES)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_agrees(tmp_path, records, kind):
    pq.write_table(pa.table({"text": pa.array(SENTENCES).cast(kind)}), tmp_path / "a.parquet")
    assert records(tmp_path / "a.parquet") == [*map(Record, SENTENCES)]


def test_text_line_ends_and_byte_order_mark(tmp_path, records):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\nthree")
    assert [record.text for record in records(tmp_path / "a.txt")] == ["one", "", "two", "three"]


@pytest.mark.parametrize(("name", "compress"), [("a.txt.gz", gzip.compress), ("a.txt.bz2", bz2.compress)])
def test_two_members_are_one_file(tmp_path, records, name, compress):
    (tmp_path / name).write_bytes(compress(b"one\n") + compress(b"two\n"))
    assert [record.text for record in records(tmp_path / name)] == ["one", "two"]


def test_csv_field_over_two_lines_and_byte_order_mark(tmp_path, records):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbftext,n\n"over\ntwo",1\n')
    assert records(tmp_path / "a.csv") == [Record("over\ntwo")]


def test_long_lines_are_refused_and_not_kept(tmp_path, records, monkeypatch):
    monkeypatch.setattr(readers, "MAX_RECORD_BYTES", 100)
    (tmp_path / "a.txt").write_bytes(b"x" * 100 + b"\n" + b"y" * 1000 + b"\nafter\n")
    first, second, third = records(tmp_path / "a.txt")
    assert (first, third) == (Record("x" * 100), Record("after"))
    assert (second.reason, len(second.text)) == (Reason.TOO_LONG, 101)


def test_long_csv_field_is_refused(tmp_path, records, monkeypatch):
    monkeypatch.setattr(readers, "MAX_RECORD_BYTES", 100)
    (tmp_path / "a.csv").write_text(f"text,n\n{'x' * 200},1\nafter,2\n")
    assert [record.reason for record in records(tmp_path / "a.csv")] == [Reason.MALFORMED, None]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"id,Text\n1,a b c\n"),
        ("a.tsv", b"id\tText\n1\ta b c\n"),
        ("a.jsonl", b'{"id": 1, "Text": "a b c"}\n' * 3),
        ("a.jsonl", b'{"id": 1, "Text": "a b c"}\n' * 3000),
    ],
)
def test_misspelt_column(tmp_path, records, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"input\.column: .* has no column 'text'; did you mean 'Text'\?"):
        records(tmp_path / name)


def test_misspelt_column_of_parquet(tmp_path, records):
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="has no column 'text'; it has body"):
        records(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="is int64, not text"):
        records(tmp_path / "a.parquet")


def test_column_may_be_missing_in_the_first_json_line(tmp_path, records):
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2, "text": "here it is"}\n{"id": 3}\n')
    assert [record.reason for record in records(tmp_path / "a.jsonl")] == [
        Reason.MALFORMED,
        None,
        Reason.MALFORMED,
    ]


def test_damaged_files_are_named(tmp_path, write, records):
    text = [f"sentence number {i}" for i in range(5000)]
    whole = gzip.compress("\n".join(text).encode())
    damaged = {
        "cut.txt.gz": whole[: len(whole) // 2],
        "crc.txt.gz": whole[:-8] + bytes(8),
        "not.txt.gz": b"this is no gzip",
        "cut.txt.bz2": bz2.compress("\n".join(text).encode())[:-20],
        "not.txt.bz2": b"this is no bz2",
        "cut.txt.zst": zstandard.compress("\n".join(text).encode())[:-20],
        "not.parquet": b"this is no Parquet",
    }
    whole = write(tmp_path / "whole.parquet", text).read_bytes()
    damaged["cut.parquet"] = whole[:-100]
    damaged["flipped.parquet"] = (
        whole[: len(whole) // 4] + bytes(len(whole) // 2) + whole[-(len(whole) // 4) :]
    )
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RunError, match=f"cannot read .*{name}") as caught:
            records(tmp_path / name)
        assert "\n" not in str(caught.value)
