"""One row's life, for every way it can end."""

import io

import pytest

from multicsr.errors import ConfigError, RunError
from multicsr.prompts import load_prompts
from multicsr.rows import Reason, row_id
from multicsr.storage.manifest import iter_rejects, iter_tables, manifest_name
from multicsr.storage.store import Store
from multicsr.storage.versions import current, versions
from multicsr.tools.explain import _versions_with, explain
from tests.support.versions import manifest as blank_manifest
from tests.support.versions import publish


@pytest.fixture
def store(fake_run):
    return Store.open(fake_run.store)


def first(store, artifact, reason=None):
    manifest = current(store).manifest(artifact)
    if reason is None:
        return next(iter_tables(store, manifest)).slice(0, 1).to_pylist()[0]
    rows = [row for table in iter_rejects(store, manifest) for row in table.to_pylist()]
    return next(row for row in rows if row["reason"] == reason)


def facts_of(store, row):
    return dict(explain(current(store), row["row_id"]).facts)


def test_a_row_that_was_kept(store, fake_run):
    row = first(store, "curated")
    facts = facts_of(store, row)
    assert facts["sentence"] == row["text"]
    assert facts["source"] == f"sentences.txt:{row['position']} (en)"
    assert (facts["entailment"], facts["contradiction"]) == (row["entailment"], row["contradiction"])
    pair = load_prompts("syncse").pair(row["text"], row["row_id"], fake_run.seed)
    assert facts[f"entailment prompt {pair.entailment_id}"] == pair.entailment
    assert facts[f"contradiction prompt {pair.contradiction_id}"] == pair.contradiction
    assert facts["score a"].startswith(f"{row['entailment_expected']:.2f} expected, ")
    assert repr(row["contradiction_reply"]) in facts["score b"]
    assert facts["kept"] == "in curated; rule on llm_expected scores: a >= 3, b <= 3, a >= b + 1"


def test_a_row_that_curation_rejected(store):
    row = first(store, "curated", Reason.LOW_ENTAILMENT)
    assert facts_of(store, row)["rejected"].startswith(
        "by curate: a < alpha; rule on llm_expected scores: a >= 3,"
    )


def test_a_row_that_generation_rejected(store):
    row = first(store, "scored", Reason.EMPTY_HYPOTHESIS)
    facts = facts_of(store, row)
    assert facts["rejected"] == "by generate: empty hypothesis (entailment)"
    assert "score a" not in facts


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
    console = Console(width=200, record=True, file=io.StringIO(), markup=False)
    console.print(explain(current(store), row["row_id"]))
    assert row["entailment"] in console.export_text()


def test_versions_that_gc_deleted_are_passed_over_and_damaged_ones_named(tmp_path):
    store = Store.open(str(tmp_path / "store"))
    publish(store, "sentences", blank_manifest("ingest"))
    assert _versions_with(store, versions(store), "0" * 32) == "none that is still there"
    store.write_text(manifest_name("sentences", "f"), "half of it")
    found = _versions_with(store, versions(store), "0" * 32)
    assert found == "none that is still there; damaged, see `multicsr audit`: 1"
    store.delete("sentences")
    assert _versions_with(store, versions(store), "0" * 32) == "none that is still there"


def test_store_in_which_nothing_was_published_is_named(tmp_path):
    with pytest.raises(RunError, match=r"nothing was published in .* yet; run `multicsr run CONFIG` first"):
        explain(current(Store.open(str(tmp_path / "store"))), "abc")
