"""What the LLM has done is found again: by id and cause, whatever the files, and by nothing else."""

import random

import pyarrow as pa
import pytest

from multicsr.config import Config
from multicsr.rows import SCORED, WRITTEN, rejects, row_id
from multicsr.stages.generate.fingerprint import scoring_settings, writing_settings
from multicsr.stages.generate.llm_cache import CacheKey, LLMCache, written_in
from multicsr.storage.id_span import IdSpan
from multicsr.storage.manifest import Manifest
from multicsr.storage.store import Store

IDS = sorted(row_id(f"sentence {i}", "en") for i in range(400))
ALL = IdSpan("0" * 32, "f" * 32)


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def written(ids, text="yes", reason=None):
    rows = [{"row_id": each, "entailment": text, "reason": reason} for each in sorted(ids)]
    return pa.Table.from_pylist(rows, schema=WRITTEN)


def write(store, cache_key, ids, **row):
    table = written(ids, **row)
    store.write_named_table(cache_key.file(table["row_id"], ALL), table)


def artifact(store, ids, rejected, settings, reason="bad"):
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
        reject_files=[
            store.write_table(
                "scored/x/rejects/0.parquet", table(rejected, {"reason": reason, "detail": "on 3 rows"})
            )
        ],
        counters={},
    )


def done(store, cache, span=ALL):
    return sorted(cache.select(span).done(store).to_pylist())


def test_rows_are_found_in_whatever_files_they_came(store):
    cache_key = CacheKey("w", "s")
    draw = random.Random(1)
    shuffled = draw.sample(IDS, len(IDS))
    write(store, cache_key, shuffled[:50])
    write(store, cache_key, shuffled[50:200])
    write(store, cache_key, shuffled[150:210])  # some twice
    cache = LLMCache(store, cache_key, None)
    assert sorted(set(done(store, cache))) == sorted(shuffled[:210])
    for _ in range(20):
        first, last = sorted(draw.sample(IDS, 2))
        expected = [each for each in sorted(shuffled[:210]) if first <= each <= last]
        assert sorted(set(done(store, cache, IdSpan(first, last)))) == expected
        part = cache.select(ALL).within(IdSpan(first, last))
        assert sorted(set(part.done(store).to_pylist())) == expected
    assert cache.select(IdSpan(IDS[0], IDS[0])).rows(store).num_rows == (IDS[0] in shuffled[:210])


def test_another_cause_is_other_work(store):
    write(store, CacheKey("w", "s"), IDS[:10])
    assert done(store, LLMCache(store, CacheKey("other", "s"), None)) == []
    rescored = LLMCache(store, CacheKey("w", "other"), None)
    assert done(store, rescored) == []
    assert rescored.select(ALL).hypotheses(store)["row_id"].to_pylist() == IDS[:10]
    assert LLMCache(store, CacheKey("w", "s"), None).select(ALL).hypotheses(store).num_rows == 0


def test_other_rules_for_hypotheses_keep_the_scores_and_other_scoring_does_not(store):
    def key(method="both", rules=1):
        scoring = {"method": method, "rules": {"hypotheses": rules, "stated": 3}}
        return CacheKey.of({"writing": {"llm": "m"}, "scoring": scoring})

    rows = written(IDS[:5]).to_pylist()
    table = pa.Table.from_pylist([{**row, "entailment_expected": 4.0} for row in rows], schema=WRITTEN)
    for cache_key in (key(), key().unscored):
        store.write_named_table(cache_key.file(table["row_id"], ALL), table)
    for wanted, expected in ((key(rules=2), [4.0] * 5 + [None] * 5), (key("stated", 2), [None] * 10)):
        cache = LLMCache(store, wanted, None)
        assert done(store, cache) == []
        found = cache.select(ALL).hypotheses(store)
        assert sorted(found["row_id"].to_pylist()) == sorted(IDS[:5] * 2)
        scores = found["entailment_expected"].to_pylist()
        assert sorted(scores, key=str) == sorted(expected, key=str)
    assert done(store, LLMCache(store, key(), None)) == IDS[:5]
    assert written_in(store, key().unscored, ALL)["entailment_expected"].null_count == 5


def test_the_artifact_of_the_current_version_is_part_of_it(store):
    settings = {"writing": {"llm": "m"}, "scoring": {"method": "both"}}
    manifest = artifact(store, IDS[:5], IDS[5:8], settings)
    cache_key = CacheKey.of(settings)
    write(store, cache_key, IDS[8:10])
    cache = LLMCache(store, cache_key, manifest)
    assert done(store, cache) == IDS[:10]
    rows = cache.select(ALL).rows(store)
    assert rows.schema == WRITTEN
    reasons = dict(zip(rows["row_id"].to_pylist(), rows["reason"].to_pylist(), strict=True))
    assert [reasons[each] for each in IDS[:10]] == [None] * 5 + ["bad"] * 3 + [None] * 2
    other = {**settings, "scoring": {"method": "stated"}}
    assert done(store, LLMCache(store, CacheKey.of(other), manifest)) == []
    assert LLMCache(store, CacheKey.of(other), manifest).select(ALL).hypotheses(store).num_rows == 10
    other = {**settings, "writing": {"llm": "n"}}
    assert LLMCache(store, CacheKey.of(other), manifest).select(ALL).sources == ()


def test_the_same_rows_have_the_same_file():
    cache_key = CacheKey("w", "s")
    one, other = written(IDS[:5])["row_id"], written(IDS[:6])["row_id"]
    assert cache_key.file(one, ALL) == cache_key.file(one, ALL) != cache_key.file(other, ALL)


def test_the_key_of_a_configuration_is_pinned():
    """Should this fail, every user pays the LLM again: change LLM_SCHEMA, or leave the key as it is."""
    config = Config.model_validate(
        {"name": "t", "store": "s", "input": {"paths": ["in.txt"]}, "llm": {"engine": "fake"}}
    )
    cache_key = CacheKey.of({"writing": writing_settings(config), "scoring": scoring_settings(config)})
    assert (cache_key.writing, cache_key.scoring) == ("0b4317b6a199ae92", "803af3ed03e05ee3r4")


def test_the_key_has_a_schema_of_its_own(monkeypatch):
    settings = {"writing": {"llm": "m"}, "scoring": {"method": "both"}, "schema": "2"}
    cache_key = CacheKey.of(settings)
    assert CacheKey.of({**settings, "schema": "3"}) == cache_key, "the store's is none of its business"
    monkeypatch.setattr("multicsr.stages.generate.llm_cache.LLM_SCHEMA", "3")
    assert CacheKey.of(settings) != cache_key


def test_the_key_knows_no_order():
    one = CacheKey.of({"writing": {"a": 1, "b": {"c": 2, "d": 3}}, "scoring": {}})
    assert one == CacheKey.of({"scoring": {}, "writing": {"b": {"d": 3, "c": 2}, "a": 1}})


def test_rows_outlive_a_change_of_the_stores_schema(store, monkeypatch):
    cache_key = CacheKey("w", "s")
    store.write_named_table(cache_key.file(written(IDS[:5])["row_id"], ALL), written(IDS[:5]))
    monkeypatch.setattr("multicsr.storage.store.SCHEMA_VERSION", "4")
    assert done(store, LLMCache(store, cache_key, None)) == IDS[:5]


def test_files_without_the_columns_of_raw_texts_are_read(store):
    """Older caches have the same schema number: a null raw text means that the text itself is it."""
    cache_key = CacheKey("w", "s")
    old = written(IDS[:5]).drop_columns(["entailment_raw", "contradiction_raw"])
    store.write_named_table(cache_key.file(old["row_id"], ALL), old)
    write(store, cache_key, IDS[5:8])
    rows = LLMCache(store, cache_key, None).select(ALL).rows(store)
    assert rows.schema == WRITTEN
    assert sorted(rows["row_id"].to_pylist()) == IDS[:8]
    assert rows["entailment"].to_pylist() == ["yes"] * 8
    assert written_in(store, cache_key, ALL).num_rows == 8


def test_the_verdict_about_many_rows_is_no_result_of_the_llm(store):
    settings = {"writing": {"llm": "m"}, "scoring": {"method": "both"}}
    manifest = artifact(store, IDS[:5], IDS[5:8], settings, "same hypothesis across rows")
    rows = LLMCache(store, CacheKey.of(settings), manifest).select(ALL).rows(store)
    assert rows.num_rows == 8
    assert rows["reason"].null_count == rows["detail"].null_count == 8


def test_foreign_files_are_no_part_of_it(store):
    cache_key = CacheKey("w", "s")
    write(store, cache_key, IDS[:5])
    for name in (".DS_Store", "x.bak", "s/.nfs0001", "s/1/2-3.parquet", "s/a-b-c-d.parquet", "x/y/z.parquet"):
        store.write_text(f"llm_cache/w/{name}", "x")
    assert done(store, LLMCache(store, cache_key, None)) == IDS[:5]
