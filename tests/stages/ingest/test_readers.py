"""Every format gives the same records; damage is a record, or one clear error."""

import bz2
import gzip
import io
import json
import lzma
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from multicsr.errors import ConfigError, RunError
from multicsr.rows import Reason
from multicsr.stages.ingest import readers, separated, streams
from multicsr.stages.ingest.readers import Record

SENTENCES = ['He said "no" to it.', "Magandang umaga, kaibigan.", "Ça va, ils l'ont vu: 日本語, 🙂."]


@pytest.mark.parametrize("compression", ["", ".gz", ".bz2", ".zst", ".zstd", ".xz"])
@pytest.mark.parametrize("ending", [".txt", ".csv", ".tsv", ".tab", ".jsonl", ".json"])
def test_formats_agree(tmp_path, write, records, ending, compression):
    assert records(write(tmp_path / f"a{ending}{compression}", SENTENCES)) == [*map(Record, SENTENCES)]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()),
        pa.dictionary(pa.int32(), pa.string()),
    ],
)
def test_parquet_agrees(tmp_path, records, kind):
    pq.write_table(pa.table({"text": pa.array(SENTENCES).cast(kind)}), tmp_path / "a.parquet")
    assert records(tmp_path / "a.parquet") == [*map(Record, SENTENCES)]


def test_text_line_ends_and_byte_order_mark(tmp_path, records):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\nthree")
    assert [record.text for record in records(tmp_path / "a.txt")] == ["one", "", "two", "three"]


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("a.txt.gz", gzip.compress),
        ("a.txt.bz2", bz2.compress),
        ("a.txt.xz", lzma.compress),
        ("a.txt.zst", zstandard.compress),
    ],
)
def test_two_members_are_one_file(tmp_path, records, name, compress):
    (tmp_path / name).write_bytes(compress(b"one\n") + compress(b"two\n"))
    assert [record.text for record in records(tmp_path / name)] == ["one", "two"]


def test_zero_bytes_behind_a_gzip_stream_are_padding(tmp_path, records):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\n") + bytes(512))
    assert [record.text for record in records(tmp_path / "a.txt.gz")] == ["one"]


def test_blank_lines_before_the_header_of_a_csv_file_are_skipped(tmp_path, records):
    (tmp_path / "a.csv").write_bytes(b"\n\r\ntext,n\none,1\n")
    assert records(tmp_path / "a.csv") == [Record("one")]


def test_csv_field_over_two_lines_and_byte_order_mark(tmp_path, records):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbftext,n\n"over\ntwo",1\n')
    assert records(tmp_path / "a.csv") == [Record("over\ntwo")]


def test_long_lines_are_rejected_and_not_kept(tmp_path, records, monkeypatch):
    monkeypatch.setattr(streams, "MAX_RECORD_BYTES", 100)
    (tmp_path / "a.txt").write_bytes(b"x" * 100 + b"\n" + b"y" * 1000 + b"\nafter\n")
    first, second, third = records(tmp_path / "a.txt")
    assert (first, third) == (Record("x" * 100), Record("after"))
    assert (second.reason, len(second.text)) == (Reason.TOO_LONG, 101)


def test_long_csv_field_is_rejected(tmp_path, records, monkeypatch):
    monkeypatch.setattr(streams, "MAX_RECORD_BYTES", 100)
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
        "second.txt.zst": zstandard.compress(b"one\n") + b"no second stream",
        "cut.txt.xz": lzma.compress("\n".join(text).encode())[:-20],
        "second.txt.xz": lzma.compress(b"one\n") + b"no second stream",
        "not.txt.xz": b"this is no xz",
        "not.txt.zst": b"this is no zst",
        "array.json": b'[{"text": "one"}, {"text": "two"}, {"text": ',
        "empty.parquet": b"",
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


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl"])
def test_line_ends_and_encodings(tmp_path, records, name, encoding, end):
    lines = SENTENCES
    if name == "a.jsonl":
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in SENTENCES]
    elif name != "a.txt":
        double = name == "a.csv"
        lines = [
            "text",
            *(f'"{text.replace(chr(34), chr(34) * 2)}"' if double else text for text in SENTENCES),
        ]
    (tmp_path / name).write_bytes("".join(line + end for line in lines).encode(encoding))
    assert [record.text for record in records(tmp_path / name)] == SENTENCES


@pytest.mark.parametrize("size", range(1, 9))
def test_line_ends_at_the_ends_of_blocks(monkeypatch, size):
    monkeypatch.setattr(streams, "_BLOCK_BYTES", size)
    monkeypatch.setattr(streams, "MAX_RECORD_BYTES", 4)
    data = b"ab\r\ncd\n\r\ref\r\n\ntoo long\r\nabcde\rgh\n\xef\xbb\xbfi\r"
    expected = [
        b"ab",
        b"cd",
        b"",
        b"",
        b"ef",
        b"",
        b"too l",
        b"abcde",
        b"gh",
        b"\xef\xbb\xbfi".removeprefix(streams._BOM),
    ]
    assert [*streams.lines(io.BytesIO(data))] == expected


def test_a_half_character_of_utf_16_costs_its_line(tmp_path, records):
    data = "one\ntwo \ud800 half\nthree".encode("utf-16", "surrogatepass")
    (tmp_path / "a.txt").write_bytes(data[:-1])
    first, second, third = records(tmp_path / "a.txt")
    assert first == Record("one")
    assert "\ufffd" in second.text
    assert third.text == "thre\ufffd"


QUOTES = {
    "one, closed nowhere": (["a", '"b', "c", "d"], [1], ["a", "c", "d"]),
    "in the last line": (["a", "b", '"c'], [2], ["a", "b"]),
    "in the first line": (['"a', "b", "c"], [0], ["b", "c"]),
    "two, the second at the start of a field": (['"a', "b", "c", '"d', "e"], [0, 3], ["b", "c", "e"]),
    "closed by a later quote": (['"a', "b", "c", 'd"', "e"], [0], ["b", "c", 'd"', "e"]),
    "next to each other": (["a", '"b', '"c', "d"], [1, 2], ["a", "d"]),
    "within a field": (["a", 'b "c" d', 'e 6" f'], [], ["a", 'b "c" d', 'e 6" f']),
    "a record of many lines": (["a", '"b\nc ""d""\n\ne"', "f"], [], ["a", 'b\nc "d"\n\ne', "f"]),
    "many lines with commas": (['"b, c\nd\ne, f, g\nh"', "f"], [], ["b, c\nd\ne, f, g\nh", "f"]),
}


@pytest.mark.parametrize(("fields", "rejected", "kept"), QUOTES.values(), ids=QUOTES.keys())
def test_quotes_that_are_not_closed_cost_their_line(tmp_path, records, fields, rejected, kept):
    (tmp_path / "a.csv").write_text("n,text\n" + "".join(f"{i},{field}\n" for i, field in enumerate(fields)))
    found = records(tmp_path / "a.csv")
    assert [record.text for record in found if not record.reason] == kept
    assert [i for i, record in enumerate(found) if record.reason] == rejected
    for record in found:
        if record.reason:
            assert record.reason == Reason.MALFORMED
            assert "a quote is not closed" in record.detail
    if rejected:
        assert found[rejected[0]].detail.startswith(f"line {rejected[0] + 2}: ")


def test_a_quote_of_a_long_file_is_looked_for_within_bounds(tmp_path, records, monkeypatch):
    monkeypatch.setattr(separated, "_MAX_LINES", 50)
    lines = [f"{i},Sentence {i}." for i in range(500)]
    lines[7] = '7,"Sentence 7.'
    (tmp_path / "a.csv").write_text("\n".join(["n,text", *lines]))
    found = records(tmp_path / "a.csv")
    assert len(found) == 500
    assert [record.detail for record in found if record.reason] == [
        "line 9: a quote is not closed as it should be; it spans 50 lines"
    ]


def test_too_many_quotes_that_are_not_closed_stop_the_job(tmp_path, records, monkeypatch):
    monkeypatch.setattr(separated, "_MAX_UNCLOSED", 3)
    monkeypatch.setattr(separated, "_LONG_LINES", 1)
    (tmp_path / "a.csv").write_text("n,text\n" + '1,"a foot\n2,b\n' * 8)
    with pytest.raises(
        RunError, match=r"a\.csv has more than 3 quotes .*, the first in line 2; write a quote"
    ):
        records(tmp_path / "a.csv")


def test_a_header_that_does_not_end(tmp_path, records):
    (tmp_path / "a.csv").write_text('n,"text\n1,a\n')
    with pytest.raises(ConfigError, match=r"a\.csv has no first line that ends: a quote is not closed"):
        records(tmp_path / "a.csv")


def test_two_columns_of_the_name_are_rejected(tmp_path, records):
    (tmp_path / "a.csv").write_text("text,n,text\na,1,b\n")
    with pytest.raises(ConfigError, match=r"a\.csv has 2 columns 'text'; rename one"):
        records(tmp_path / "a.csv")


def test_csv_with_nul_and_an_empty_file(tmp_path, records):
    (tmp_path / "a.csv").write_bytes(b"text,n\na\x00b,1\nc,2\n")
    assert [record.text for record in records(tmp_path / "a.csv")] == ["a\x00b", "c"]
    for name in ("b.csv", "b.jsonl", "b.txt", "b.txt.gz", "b.txt.xz", "b.txt.zst"):
        (tmp_path / name).write_bytes(b"")
        assert records(tmp_path / name) == []


@pytest.mark.parametrize(
    "text",
    [
        '[{"text": "a b"}, {"text": "ç d"},\n {"n": 1}]',
        '\ufeff[\n  {\n    "text": "a b"\n  },\n  {"text": "ç d"}, {"n": 1}\n]\n',
        '{\n "text": "a b"\n}\n{\n "text": "ç d"\n}\n{"n": 1}\n',
        '{"text": "a b"}\n\ufeff{"text": "ç d"}\n{"n": 1}',
        '{"text": "a b", "n": %s}\r{"text": "ç d", "x": NaN}\r{"n": 1}' % ("9" * 5000),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 7, 2**20])
def test_json_in_its_shapes(tmp_path, records, text, block, monkeypatch):
    monkeypatch.setattr(streams, "_BLOCK_BYTES", max(block, 30) if text[0] not in "[{" else max(block, 20))
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    first, second, third = records(tmp_path / "a.json")
    assert (first, second) == (Record("a b"), Record("ç d"))
    assert (third.reason, third.detail) == (Reason.MALFORMED, "no text")


def test_a_parquet_of_no_rows_and_of_long_ones(tmp_path, records, monkeypatch):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert records(tmp_path / "a.parquet") == []
    pq.write_table(pa.table({"text": ["x" * 1000] * 50}), tmp_path / "b.parquet", use_dictionary=False)
    monkeypatch.setattr(readers, "_BATCH_BYTES", 5000)
    sizes = []
    iter_batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda self, batch_size, **more: sizes.append(batch_size) or iter_batches(self, batch_size, **more),
    )
    assert len(records(tmp_path / "b.parquet")) == 50
    assert sizes[0] <= 5


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.bz2", "a.txt.xz", "a.txt.zst", "a.csv.gz", "a.jsonl.gz"])
def test_a_bomb_is_one_reject_in_bounded_memory(tmp_path, records, name):
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
    bomb = b'text\n"' + b"0" * (100 * 2**20) + b"\nafter\n"
    (tmp_path / name).write_bytes(compress[(tmp_path / name).suffix](bomb))
    tracemalloc.start()
    found = records(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1 <= len(found) <= 3
    assert any(record.reason for record in found)
    assert peak < (150 if ".csv" in name else 90) * 2**20  # a CSV reader has four bytes a character


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", ";")])
def test_other_separator_is_named_where_no_column_is_found(name, separator, tmp_path, records):
    path = tmp_path / name
    path.write_text(f"id{separator}text\n1{separator}A dog runs.\n")
    with pytest.raises(ConfigError, match="no column 'text'") as raised:
        records(path)
    assert f"its fields are separated by {separator!r}; save it" in str(raised.value)
