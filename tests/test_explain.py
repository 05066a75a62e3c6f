"""One row's life, for every way it can end."""

import io

import pytest

from multicsr.errors import ConfigError, RunError
from multicsr.explain import explain
from multicsr.manifest import iter_rejects, iter_tables
from multicsr.prompts import load_prompts
from multicsr.rows import Reason, row_id
from multicsr.store import Store
from multicsr.versions import current


@pytest.fixture
def store(fake_run):
    return Store.open(fake_run.store)


def first(store, room, reason=None):
    manifest = current(store).manifest(room)
    if reason is None:
        return next(iter_tables(store, manifest)).slice(0, 1).to_pylist()[0]
    rows = [row for table in iter_rejects(store, manifest) for row in table.to_pylist()]
    return next(row for row in rows if row["reason"] == reason)


def life(store, row):
    return dict(explain(current(store), row["row_id"]).facts)


def test_a_row_that_was_kept(store, fake_run):
    row = first(store, "curated")
    told = life(store, row)
    assert told["sentence"] == row["text"]
    assert told["source"] == f"sentences.txt:{row['position']} (en)"
    assert (told["entailment"], told["contradiction"]) == (row["entailment"], row["contradiction"])
    pair = load_prompts("syncse").pair(row["text"], row["row_id"], fake_run.seed)
    assert told[f"entailment prompt {pair.entailment_id}"] == pair.entailment
    assert told[f"contradiction prompt {pair.contradiction_id}"] == pair.contradiction
    assert told["score a"].startswith(f"{row['entailment_expected']:.2f} expected, ")
    assert repr(row["contradiction_reply"]) in told["score b"]
    assert told["kept"] == "in curated; rule on expected scores: a >= 3, b <= 3, a >= b + 1"


def test_a_row_that_curation_refused(store):
    row = first(store, "curated", Reason.LOW_ENTAILMENT)
    assert life(store, row)["rejected"].startswith("by curate: a < alpha; rule on expected scores: a >= 3,")


def test_a_row_that_generation_refused(store):
    row = first(store, "scored", Reason.EMPTY_HYPOTHESIS)
    told = life(store, row)
    assert told["rejected"] == "by generate: empty hypothesis (entailment)"
    assert "score a" not in told


def test_a_row_that_came_more_than_once(store):
    text = "This is sentence number 7 out of many."
    facts = explain(current(store), row_id(text, "en")).facts
    assert [value for what, value in facts if what == "duplicate"] == [
        "sentences.txt:300 was dropped: same as sentences.txt:7",
        "sentences.txt:301 was dropped: same as sentences.txt:7",
    ]
    assert ("source", "sentences.txt:7 (en)") in facts


def test_beginnings_of_ids(store):
    row = first(store, "curated")
    assert explain(current(store), row["row_id"][:12].upper()).row_id == row["row_id"]
    with pytest.raises(RunError, match=r"row ids begin with [0-9a-f]: [0-9a-f]{32}, "):
        explain(current(store), row["row_id"][0])
    with pytest.raises(RunError, match="no row whose id begins with 0123456789abcdef"):
        explain(current(store), "0123456789abcdef")
    for bad in ("", "xyz", "0" * 33):
        with pytest.raises(ConfigError, match="is no row id"):
            explain(current(store), bad)


def test_a_life_is_printed_as_it_is_written(store):
    from rich.console import Console

    row = first(store, "curated")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(explain(current(store), row["row_id"]))
    assert row["entailment"] in console.export_text()
