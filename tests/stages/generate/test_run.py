"""The generate stage over growing corpora and changed settings: only what is missing goes to the LLM."""

import pytest

from multicsr.config import Config
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.rows import WRITTEN
from multicsr.stages.generate.assembling import joined
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.support.llm_rows import make_sentences

pytestmark = pytest.mark.usefixtures("ray_cluster")
LINES = [f"This is sentence number {i} out of many." for i in range(400)]


@pytest.fixture
def corpus(tmp_path):
    """Makes runs over some lines, all in one store."""

    def make(lines, store="store", **sections) -> Config:
        (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
        tree = {
            "name": "t",
            "store": str(tmp_path / store),
            "input": {"paths": [str(tmp_path / "in.txt")]},
            "ingest": {"rows_per_file": 150},
            "llm": {"engine": "fake"},
            "generate": {"rows_per_shard": 40},
            "score": {"method": "both"},
        }
        return Config.model_validate({**tree, **sections})

    return make


def generate(config):
    """(All rows of the scored room by id, its counters)."""
    full_run.run(config, SilentProgress(), until="generate")
    store = Store.open(config.store)
    manifest = current(store).manifest("scored")
    tables = [*iter_tables(store, manifest), *iter_rejects(store, manifest)]
    rows = {row["row_id"]: row for table in tables for row in table.to_pylist()}
    assert len(rows) == manifest.rows_in == manifest.rows_out + sum(manifest.rejected.values())
    return rows, manifest.counters


def without_place(rows):
    """Where a sentence was found changes with the files."""
    return {key: {**row, "source": "", "position": 0} for key, row in rows.items()}


def test_a_changed_corpus_costs_what_is_new_in_it(corpus):
    first, counted = generate(corpus(LINES[:300]))
    assert (counted["rows_written"], counted["rows_reused"]) == (300, 0)
    second, counted = generate(corpus(LINES[6:306]))
    assert (counted["rows_written"], counted["rows_reused"]) == (6, 294)
    fresh, _ = generate(corpus(LINES[6:306], store="other"))
    assert without_place(second) == without_place(fresh)
    assert first.keys() - second.keys()
    third, counted = generate(corpus(LINES[:306]))
    assert (counted["rows_written"], counted["rows_reused"]) == (0, 306), "gone and back again"
    assert without_place({key: third[key] for key in second}) == without_place(second)


def test_a_scoring_prompt_costs_no_writing_and_a_writing_prompt_everything(corpus):
    _, counted = generate(corpus(LINES[:100]))
    scored = counted["rows_scored"]
    stated = {"score": {"method": "llm_stated"}}
    rows, counted = generate(corpus(LINES[:100], **stated))
    assert (counted["rows_written"], counted["rows_reused"]) == (0, 0)
    assert counted["rows_scored"] == scored
    fresh, _ = generate(corpus(LINES[:100], store="other", **stated))
    assert rows == fresh
    rows, counted = generate(corpus(LINES[:100], generate={"rows_per_shard": 40, "omega": 0.2}))
    assert counted["rows_written"] == 100
    assert all(row["omega"] == pytest.approx(0.2) for row in rows.values())


def test_a_run_that_was_cut_off_goes_on_row_by_row(corpus, tmp_path):
    config = corpus(LINES[:300])
    whole, _ = generate(config)
    again = corpus(LINES[:300], store="again", ingest={"rows_per_file": 80}, generate={"rows_per_shard": 70})
    cache = next((tmp_path / "store" / "llm_cache").iterdir())
    kept = sorted(cache.rglob("*.parquet"))[::2]
    for path in kept:
        target = tmp_path / "again" / path.relative_to(tmp_path / "store")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    rows, counted = generate(again)
    assert rows == whole
    assert counted["rows_reused"] + counted["rows_written"] == 300
    assert 40 <= counted["rows_reused"] <= 200


def test_files_are_few_and_made_of_many_shards(corpus, tmp_path):
    generate(corpus(LINES[:300], ingest={"rows_per_file": 1000}, generate={"rows_per_shard": 13}))
    assert len(list((tmp_path / "store" / "llm_cache").rglob("*.parquet"))) == 24
    assert len(list((tmp_path / "store" / "scored").rglob("rows/*.parquet"))) == 1
    assert len(list((tmp_path / "store" / "sentences").rglob("rows/*.parquet"))) == 1


def test_a_row_without_a_result_is_a_reject():
    output = joined(make_sentences(["One thing.", "Another."]), WRITTEN.empty_table())
    assert output.rows.num_rows == 0
    assert output.rejects["reason"].to_pylist() == ["engine error"] * 2
