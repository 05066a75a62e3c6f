"""What the LLM has done is found again: by id and cause, whatever the files, and by nothing else."""

import random

import pyarrow as pa
import pytest

from multicsr.generate.ledger import Cause, Ledger
from multicsr.manifest import Manifest
from multicsr.rows import SCORED, WRITTEN, rejects, row_id
from multicsr.store import Span, Store

IDS = sorted(row_id(f"sentence {i}", "en") for i in range(400))
ALL = Span("0" * 32, "f" * 32)


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def written(ids, text="yes", reason=None):
    rows = [{"row_id": each, "entailment": text, "reason": reason} for each in sorted(ids)]
    return pa.Table.from_pylist(rows, schema=WRITTEN)


def write(store, cause, ids, **row):
    table = written(ids, **row)
    store.write_table(cause.file(table["row_id"]), table)


def room(store, ids, refused, settings):
    """A scored room."""

    def table(chosen, extra):
        same = {"text": "t", "language": "en", "source": "s", "position": 0, "entailment": "of the room"}
        rows = [{"row_id": each, **same, **extra} for each in chosen]
        return pa.Table.from_pylist(rows, schema=rejects(SCORED) if extra else SCORED)

    return Manifest(
        stage="generate",
        run="t",
        fingerprint="x",
        code_version="0",
        settings=settings,
        created="",
        seconds=0,
        rows_in=0,
        rows_out=0,
        rejected={},
        rows_digest="",
        files=[store.write_table("scored/x/rows/0.parquet", table(ids, {}))],
        reject_files=[store.write_table("scored/x/rejects/0.parquet", table(refused, {"reason": "bad"}))],
        counters={},
    )


def done(store, ledger, span=ALL):
    return sorted(ledger.known(span).done(store).to_pylist())


def test_rows_are_found_in_whatever_files_they_came(store):
    cause = Cause("w", "s")
    draw = random.Random(1)
    shuffled = draw.sample(IDS, len(IDS))
    write(store, cause, shuffled[:50])
    write(store, cause, shuffled[50:200])
    write(store, cause, shuffled[150:210])  # some twice
    ledger = Ledger(store, cause, None)
    assert sorted(set(done(store, ledger))) == sorted(shuffled[:210])
    for _ in range(20):
        first, last = sorted(draw.sample(IDS, 2))
        expected = [each for each in sorted(shuffled[:210]) if first <= each <= last]
        assert sorted(set(done(store, ledger, Span(first, last)))) == expected
        part = ledger.known(ALL).within(Span(first, last))
        assert sorted(set(part.done(store).to_pylist())) == expected
    assert ledger.known(Span(IDS[0], IDS[0])).rows(store).num_rows == (IDS[0] in shuffled[:210])


def test_another_cause_is_other_work(store):
    write(store, Cause("w", "s"), IDS[:10])
    assert done(store, Ledger(store, Cause("other", "s"), None)) == []
    rescored = Ledger(store, Cause("w", "other"), None)
    assert done(store, rescored) == []
    assert rescored.known(ALL).hypotheses(store)["row_id"].to_pylist() == IDS[:10]
    assert Ledger(store, Cause("w", "s"), None).known(ALL).hypotheses(store).num_rows == 0


def test_the_room_of_the_current_version_is_part_of_it(store):
    settings = {"writing": {"llm": "m"}, "scoring": {"method": "both"}}
    manifest = room(store, IDS[:5], IDS[5:8], settings)
    cause = Cause.of(settings)
    write(store, cause, IDS[8:10])
    ledger = Ledger(store, cause, manifest)
    assert done(store, ledger) == IDS[:10]
    rows = ledger.known(ALL).rows(store)
    assert rows.schema == WRITTEN
    reasons = dict(zip(rows["row_id"].to_pylist(), rows["reason"].to_pylist(), strict=True))
    assert [reasons[each] for each in IDS[:10]] == [None] * 5 + ["bad"] * 3 + [None] * 2
    other = {**settings, "scoring": {"method": "stated"}}
    assert done(store, Ledger(store, Cause.of(other), manifest)) == []
    assert Ledger(store, Cause.of(other), manifest).known(ALL).hypotheses(store).num_rows == 10
    other = {**settings, "writing": {"llm": "n"}}
    assert Ledger(store, Cause.of(other), manifest).known(ALL).sources == ()


def test_the_same_rows_have_the_same_file():
    cause = Cause("w", "s")
    one, other = written(IDS[:5])["row_id"], written(IDS[:6])["row_id"]
    assert cause.file(one) == cause.file(one) != cause.file(other)
