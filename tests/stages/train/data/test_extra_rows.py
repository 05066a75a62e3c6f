import random
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multicsr.config import TripletFile
from multicsr.errors import ConfigError
from multicsr.rows import LABELLED, labelled_row_id
from multicsr.stages.train.data import extra_rows
from multicsr.stages.train.data.extra_rows import digest_triplets, triplets_table, write_triplets
from multicsr.storage.manifest import rows_digest
from multicsr.storage.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"))


def triplet(number: int) -> tuple[str, str, str]:
    return f"anchor {number}", f"positive {number}", f"negative {number}" if number % 3 else ""


def written(folder, name, numbers, by="\t") -> str:
    rows = [("anchor", "positive", "negative"), *map(triplet, numbers)]
    (folder / name).write_text("".join(by.join(row) + "\n" for row in rows))
    return str(folder / name)


def files(*paths, weights=None) -> list[TripletFile]:
    return [TripletFile(path=p, weight=w) for p, w in zip(paths, weights or [1.0] * len(paths), strict=True)]


def contents_of(some, store, folder="model/abc"):
    return write_triplets(some, digest_triplets(some)[0], store, folder)


def test_the_table_holds_every_triplet_once_with_its_largest_weight(tmp_path):
    one, other = written(tmp_path, "a.tsv", range(20)), written(tmp_path, "b.csv", range(15, 30), ",")
    table = triplets_table(files(one, other, weights=[0.5, 2.0]))
    assert table.schema == LABELLED
    expected = {}
    for number in range(30):
        anchor, positive, negative = triplet(number)
        row_id = labelled_row_id(anchor, positive, negative or None)
        expected[row_id] = (anchor, positive, negative or None, 2.0 if number >= 15 else 0.5)
    assert {row["row_id"]: (*row.values(),)[1:] for row in table.to_pylist()} == expected
    assert table["row_id"].to_pylist() == sorted(expected)


def test_order_names_and_formats_of_the_files_have_no_effect(tmp_path):
    numbers = [*range(50)]
    random.Random(3).shuffle(numbers)
    together = files(written(tmp_path, "all.tsv", numbers))
    parts = files(written(tmp_path, "b.csv", range(31, 50), ","), written(tmp_path, "a.tsv", range(31)))
    assert digest_triplets(together) == digest_triplets(parts) == digest_triplets(parts[::-1])
    assert triplets_table(together).equals(triplets_table(parts))


def test_the_digest_depends_on_every_text_and_weight(tmp_path):
    plain = written(tmp_path, "a.tsv", range(9))
    known = digest_triplets(files(plain))
    assert known[0] == 9
    assert digest_triplets(files(plain, weights=[2.0])) != known
    assert digest_triplets(files(written(tmp_path, "b.tsv", [*range(8), 9]))) != known
    assert digest_triplets(files(written(tmp_path, "b.tsv", range(8)))) != known


@pytest.mark.parametrize(("rows_per_file", "rows_at_once"), [(7, 5), (1000, 1000), (1, 3)])
def test_files_in_the_store_hold_the_table_in_ranges_of_ids(
    rows_per_file, rows_at_once, tmp_path, store, monkeypatch
):
    monkeypatch.setattr(extra_rows, "_ROWS_PER_FILE", rows_per_file)
    monkeypatch.setattr(extra_rows, "_ROWS_AT_ONCE", rows_at_once)
    some = files(written(tmp_path, "a.tsv", range(40)), written(tmp_path, "b.tsv", range(30, 45)))
    contents = contents_of(some, store)
    table = pa.concat_tables(store.read_table(entry) for entry in contents.files)
    assert table.equals(triplets_table(some))
    assert len(contents.files) == -(-55 // rows_per_file)
    assert (contents.rows_in, contents.rows_out, contents.rejected) == (55, 45, {"duplicate": 10})
    assert contents.rows_digest == rows_digest(table["row_id"])
    assert sum(entry.rows for entry in contents.reject_files) == 10


def test_every_record_is_a_row_or_a_reject_with_a_reason(tmp_path, store):
    path = written(tmp_path, "a.tsv", [*range(60), 7, 7])
    with open(path, "a") as file:
        file.write("too few fields\nA\ta\tB\n\tno anchor\tC\n")
    contents = contents_of(files(path), store)
    assert contents.rows_in == 65
    assert contents.rows_out == 60
    rejects = pa.concat_tables(store.read_table(entry) for entry in contents.reject_files)
    assert Counter(rejects["reason"].to_pylist()) == contents.rejected
    assert contents.rejected == {"duplicate": 2, "malformed record": 1, "same hypotheses": 1, "empty": 1}
    assert "a.tsv, line 64: 1 fields, the header has 3" in rejects["detail"].to_pylist()


def test_a_second_call_reuses_what_is_written(tmp_path, store):
    some = files(written(tmp_path, "a.tsv", range(9)))
    first = contents_of(some, store)
    written(tmp_path, "a.tsv", range(3))
    again = write_triplets(some, 9, store, "model/abc")
    assert again.files == first.files
    assert again.rows_digest == first.rows_digest


def test_a_file_that_is_mostly_something_else_is_an_error(tmp_path):
    path = written(tmp_path, "a.tsv", range(20))
    with open(path, "a") as file:
        file.write("bad\n" * 2)
    with pytest.raises(
        ConfigError, match=r"2 records of .*a.tsv are no triplets, the first is a.tsv, line 22: "
    ):
        digest_triplets(files(path))
    with pytest.raises(ConfigError, match=r"a.tsv has no triplets"):
        digest_triplets(files(written(tmp_path, "a.tsv", [])))


def test_a_file_of_parquet_lists_gives_rows_that_share_a_weight(tmp_path):
    rows = [{"query": "A", "pos": ["B"], "neg": ["C", "D"]}, {"query": "E", "pos": ["F"], "neg": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    table = triplets_table(files(str(tmp_path / "a.parquet"), weights=[3.0]))
    assert sorted(zip(table["text"].to_pylist(), table["weight"].to_pylist(), strict=True)) == [
        ("A", 1.5),
        ("A", 1.5),
        ("E", 3.0),
    ]
