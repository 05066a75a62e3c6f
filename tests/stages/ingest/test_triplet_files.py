import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from multicsr.config import TripletFile
from multicsr.errors import ConfigError, RunError
from multicsr.rows import Reason, labelled_row_id
from multicsr.stages.ingest import triplet_columns
from multicsr.stages.ingest.triplet_files import (
    LabelledReject,
    LabelledTriplet,
    check_triplet_file,
    read_triplets,
)

SETTING = "train.extra_triplets"
ROWS = [("A dog runs.", "An animal moves.", "It sleeps."), ("It rains.", "It is wet.", "It is dry.")]
"""Anchor, positive and negative."""


def read(path, **settings) -> list[tuple]:
    """Sentences and weight of the triplets, and reason and detail of the rejects."""
    return [
        row[1:] if isinstance(row, LabelledTriplet) else (row.reason, row.detail)
        for row in read_triplets(TripletFile(path=str(path), **settings), SETTING)
    ]


def separated(*rows, by="\t") -> str:
    return "".join(by.join(row) + "\n" for row in rows)


@pytest.fixture(autouse=True)
def nothing_reported_before():
    triplet_columns._report_unread.cache_clear()


@pytest.fixture
def tsv(tmp_path):
    """Writes a file and returns its path."""

    def write(text, name="mine.tsv"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


WANTED = [(*row, 1.0) for row in ROWS]


@pytest.mark.parametrize(
    "names",
    [
        ("anchor", "positive", "negative"),
        ("sent0", "sent1", "hard_neg"),
        ("query", "pos", "neg"),
        ("text", "entailment", "contradiction"),
        ("question", "answer", "negative_1"),
        ("Anchor", "POSITIVE", " Negative "),
        ("sentence1", "sentence2", "negatives"),
    ],
)
def test_columns_are_found_by_their_usual_names_in_any_order(names, tsv):
    order = (2, 0, 1)
    rows = [("7", *(row[at] for at in order)) for row in [names, *ROWS]]
    assert read(tsv(separated(*rows))) == WANTED


@pytest.mark.parametrize("form", ["tsv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("names", "unread"),
    [
        (("sent0", "sent1", "hard_neg", "sent2"), "'sent2'"),
        (("anchor", "positive", "negative", "negative_2"), None),
        (("premise", "entailment", "contradiction", "hard_neg"), None),
        (("anchor", "positive", "contra", "other"), "'contra', 'other'"),
    ],
)
def test_a_further_column_is_read_as_a_negative_or_named_once(names, unread, form, tsv, tmp_path, caplog):
    values = ("A dog runs.", "An animal moves.", "It sleeps.", "It is dry.")
    path = tmp_path / f"mine.{form}"
    if form == "parquet":
        pq.write_table(pa.table({name: [value] for name, value in zip(names, values, strict=True)}), path)
    else:
        record = json.dumps(dict(zip(names, values, strict=True))) + "\n"
        path.write_text(record if form == "jsonl" else separated(names, values))
    rows = [*read(path), *read(path)][:3]
    negatives = {row[2] for row in rows}
    if unread is None:
        assert negatives == {"It sleeps.", "It is dry."}
        assert caplog.messages == []
    else:
        assert negatives == ({"It sleeps."} if "hard_neg" in names else {None})
        assert caplog.messages == [
            f"train.extra_triplets: mine.{form}, line 1: not read: {unread}; if they hold negatives, name "
            "anchor, positive and negatives in columns"
        ]


def test_columns_that_are_given_leave_the_others_unread_without_a_word(tsv, caplog):
    rows = [("anchor", "positive", "other"), *ROWS]
    assert read(tsv(separated(*rows)), columns=["anchor", "positive"])[0] == (*ROWS[0][:2], None, 1.0)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.tsv", lambda data: data),
        ("a.tsv.gz", gzip.compress),
        ("a.tsv.zst", lambda data: zstandard.ZstdCompressor().compress(data)),
        ("a.tsv.bz2", bz2.compress),
        ("a.tsv.xz", lzma.compress),
    ],
)
def test_compressed_files_give_the_same_triplets(name, pack, tsv):
    text = separated(("anchor", "positive", "negative"), *ROWS)
    assert read(tsv(pack(text.encode()), name)) == WANTED


def test_formats_give_the_same_triplets(tsv, tmp_path):
    quoted = (
        'sent0,sent1,hard_neg\n"A dog runs.",An animal moves.,It sleeps.\nIt rains.,It is wet.,It is dry.\n'
    )
    objects = [dict(zip(("anchor", "positive", "negative"), row, strict=True)) for row in ROWS]
    lists = [{"query": a, "pos": [p], "neg": [n]} for a, p, n in ROWS]
    assert read(tsv(quoted, "a.csv")) == WANTED
    assert read(tsv("\n".join(map(json.dumps, objects)), "a.jsonl")) == WANTED
    assert read(tsv("\n".join(map(json.dumps, lists)), "lists.jsonl")) == WANTED
    assert read(tsv("\n".join(map(json.dumps, ROWS)), "arrays.jsonl")) == WANTED
    pq.write_table(pa.Table.from_pylist(objects), tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_pylist(lists), tmp_path / "lists.parquet")
    assert read(tmp_path / "a.parquet") == read(tmp_path / "lists.parquet") == WANTED


def test_a_tsv_field_keeps_its_quotes_and_a_csv_field_its_comma(tsv):
    assert read(tsv('anchor\tpositive\n"A\tB"\n'))[0][:2] == ('"A', 'B"')
    assert read(tsv('anchor,positive\n"A, or b","B ""c"""\n', "a.csv"))[0][:2] == ("A, or b", 'B "c"')


def test_columns_are_found_by_number_and_by_given_name(tsv):
    rows = [(row[2], "x", row[0], row[1]) for row in ROWS]
    headerless, named = tsv(separated(*rows)), tsv(separated(("n", "x", "a", "p"), *rows), "named.tsv")
    assert read(headerless, header=False, columns=[3, 4, 1]) == WANTED
    assert read(named, columns=["a", "p", "n"]) == read(named, columns=["3", "4", "1"]) == WANTED
    assert read(tsv(separated(*ROWS)), header=False) == WANTED


def test_a_pair_has_no_negative_also_beside_triplets(tsv):
    assert read(tsv("anchor\tpositive\nA dog runs.\tIt moves.\n")) == [
        ("A dog runs.", "It moves.", None, 1.0)
    ]
    mixed = separated(("anchor", "positive", "negative"), ROWS[0], ("It rains.", "It is wet.", " "))
    assert [row[2] for row in read(tsv(mixed))] == ["It sleeps.", None]
    objects = [
        {"anchor": "It rains.", "positive": "It is wet."},
        {**dict(anchor="A", positive="B"), "neg": ["C"]},
    ]
    assert [row[2] for row in read(tsv("\n".join(map(json.dumps, objects)), "a.jsonl"))] == [None, "C"]


@pytest.mark.parametrize("form", ["columns", "list"])
def test_several_negatives_are_rows_that_share_the_weight(form, tsv):
    if form == "columns":
        path = tsv("anchor\tpositive\tnegative_1\tnegative_2\tnegative_3\nA\tB\tC\tD\tE\nF\tG\tH\t\tI\n")
    else:
        rows = [
            {"query": "A", "pos": ["B"], "neg": ["C", "D", "E"]},
            {"query": "F", "pos": "G", "neg": ["H", "I"]},
        ]
        path = tsv("\n".join(map(json.dumps, rows)), "a.jsonl")
    found = read(path, weight=6)
    assert found == [("A", "B", n, 2.0) for n in "CDE"] + [("F", "G", n, 3.0) for n in "HI"]


def test_several_positives_take_turns_with_the_negatives(tsv):
    path = tsv(json.dumps({"query": "A", "pos": ["P", "Q"], "neg": ["K", "L", "M"]}), "a.jsonl")
    third = pytest.approx(1 / 3)
    assert read(path) == [("A", "P", "K", third), ("A", "Q", "L", third), ("A", "P", "M", third)]
    pairs = tsv(json.dumps({"query": "A", "pos": ["P", "Q"]}), "b.jsonl")
    assert read(pairs) == [("A", "P", None, 0.5), ("A", "Q", None, 0.5)]


def test_texts_are_normalised_and_ids_depend_on_the_texts_alone(tsv):
    one = tsv("anchor\tpositive\tnegative\n  A \u00a0dog\u200b runs. \tB\tC\n")
    other = tsv('{"query": "A dog runs.", "pos": ["B"], "neg": ["C"]}', "b.jsonl")
    (left,), (right,) = (list(read_triplets(TripletFile(path=str(path)), SETTING)) for path in (one, other))
    assert left == right
    assert (
        left.row_id == labelled_row_id("A dog runs.", "B", "C") != labelled_row_id("A dog runs.", "B", None)
    )


def test_bad_rows_are_rejects_with_file_line_and_reason(tsv):
    rows = [
        b"A\tB\tC",
        b"D\tE",
        b"",
        b"F\t\tG",
        b"\tH\tI",
        b"J\tj\tK",
        b"L\xff\tM\tN",
        b"O\tP\tp",
        b"Q\tR\tS",
    ]
    text = b"\n".join([b"anchor\tpositive\tnegative", *rows])
    assert read(tsv(text)) == [
        ("A", "B", "C", 1.0),
        (Reason.MALFORMED, "mine.tsv, line 3: 2 fields, the header has 3"),
        (Reason.EMPTY, "mine.tsv, line 5: no positive"),
        (Reason.EMPTY, "mine.tsv, line 6: no anchor"),
        (Reason.SAME_HYPOTHESES, "mine.tsv, line 7: it has one sentence twice"),
        (Reason.UNDECODABLE, "mine.tsv, line 8: bytes that are not UTF-8, or half a surrogate pair"),
        (Reason.SAME_HYPOTHESES, "mine.tsv, line 9: it has one sentence twice"),
        ("Q", "R", "S", 1.0),
    ]


def test_bad_json_rows_are_rejects(tsv):
    lines = [
        '{"anchor": "A", "positive": "B"}',
        "not json",
        '{"anchor": 3, "positive": "B"}',
        '"text"',
        '{"other": "A"}',
        '{"anchor": "\\ud800", "positive": "B"}',
        '{"anchor": ["A", "B"], "positive": "C"}',
        "",
    ]
    found = read(tsv("\n".join(lines), "a.jsonl"))
    assert found[0] == ("A", "B", None, 1.0)
    assert [reason for reason, _ in found[1:]] == [Reason.MALFORMED] * 4 + [
        Reason.UNDECODABLE,
        Reason.MALFORMED,
    ]
    assert [detail.partition(":")[0] for _, detail in found[1:]] == [
        f"a.jsonl, line {n}" for n in range(2, 8)
    ]
    assert "anchor is int, not text" in found[2][1]


@pytest.mark.parametrize(
    ("text", "name", "settings", "message"),
    [
        (
            "foo\tbar\nA\tB\n",
            "a.tsv",
            {},
            "a.tsv, line 1: no column of anchors among 'foo', 'bar'; name the ",
        ),
        (
            "\n\nanchor\tbar\nA\tB\n",
            "a.tsv",
            {},
            "a.tsv, line 3: no column of positives among 'anchor', 'bar'",
        ),
        ('\n{"anchor": "A"}', "a.jsonl", {}, "a.jsonl, line 2: no column of positives among 'anchor'"),
        ("A\tB\n", "a.tsv", {"columns": ["a", "b"]}, "a.tsv, line 1: no column 'a' among 'A', 'B'"),
        ("A\tB\n", "a.tsv", {"columns": [1, 3], "header": False}, "line 1: no column '3' among '1', '2'"),
        (
            "A\nB\n",
            "a.tsv",
            {"header": False},
            "a.tsv, line 1: one column, and a row needs anchor and positive",
        ),
        ("anchor\tanchor\tpos\nA\tB\tC\n", "a.tsv", {}, "a.tsv, line 1: 2 columns 'anchor'; rename one"),
        ("sentence1\tsentence2\tlabel\nA\tB\t0\n", "a.tsv", {}, "line 1: a column 'label' beside pairs"),
        ("anchor\tpositive\n", "a.tsv", {}, "a.tsv has no triplet at its beginning: it has no rows"),
        ("anchor\tpositive\nA\ta\n", "a.tsv", {}, "line 2: it has one sentence twice (same hypotheses)"),
        ("", "a.tsv", {}, "has no triplet at its beginning: it has no rows"),
        ("A", "a.txt", {}, "a.txt is no TSV, CSV, JSONL or Parquet file by the ending of its name"),
        ("{}", "a.jsonl", {"header": False}, "header has no effect on "),
    ],
)
def test_a_wrong_header_is_one_line_with_file_and_line(text, name, settings, message, tsv):
    with pytest.raises(ConfigError) as raised:
        check_triplet_file(TripletFile(path=str(tsv(text, name)), **settings), SETTING)
    assert str(raised.value).startswith("train.extra_triplets: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_and_a_damaged_file_are_named(tsv, tmp_path):
    with pytest.raises(ConfigError, match=r"^train.extra_triplets: no file .*absent.tsv$"):
        check_triplet_file(TripletFile(path=str(tmp_path / "absent.tsv")), SETTING)
    cut = tsv(gzip.compress(separated(("anchor", "positive"), *[("A", "B")] * 999).encode())[:-9], "a.tsv.gz")
    with pytest.raises(RunError, match=r"^train.extra_triplets: cannot read .*a.tsv.gz"):
        list(read_triplets(TripletFile(path=str(cut)), SETTING))
    with pytest.raises(RunError, match=r"^train.extra_triplets: cannot read .*a.parquet"):
        check_triplet_file(TripletFile(path=str(tsv("no parquet", "a.parquet"))), SETTING)


def test_a_long_text_in_place_of_a_header_is_shortened(tsv):
    with pytest.raises(ConfigError) as raised:
        check_triplet_file(TripletFile(path=str(tsv(separated(["word " * 500] * 50)))), SETTING)
    assert len(str(raised.value)) < 900


def test_rejects_of_readable_records_keep_their_texts(tsv):
    (reject,) = read_triplets(TripletFile(path=str(tsv("anchor\tpositive\nA\ta\n"))), SETTING)
    assert isinstance(reject, LabelledReject)
    assert reject.triplet.text == "A"
