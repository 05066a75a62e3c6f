"""Refresh runs: the first one, one without news, small changes, a model that got worse, and the way back."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.pipeline import refresh as refresh_module
from multicsr.pipeline.diff import compare
from multicsr.pipeline.refresh import refresh
from multicsr.rows import row_id
from multicsr.stages.train.trainer import train
from multicsr.storage.manifest import write_manifest
from multicsr.storage.refresh_log import refresh_runs
from multicsr.storage.store import Store
from multicsr.storage.transaction import roll_back
from multicsr.storage.versions import Snapshot, current, latest, versions
from multicsr.tools.explain import explain
from tests.storage.test_versions import make_manifest
from tests.support.paths import ROOT

DEMO = ROOT / "multicsr/assets/demo"
pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600), pytest.mark.cluster]


def lines(path, first, last):
    return path.read_text(encoding="utf-8").splitlines()[first:last]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Writes the source as it is on a night, and gives the configuration."""
    folder = tmp_path_factory.mktemp("refresh")
    triplets = [*lines(DEMO / "test_triplets.tsv", 0, 61)]
    (folder / "triplets.tsv").write_text("\n".join(triplets) + "\n", encoding="utf-8")

    def make(sentences, **sections) -> Config:
        (folder / "in.tsv").write_text("\n".join(["sentence", *sentences]) + "\n", encoding="utf-8")
        tree = {
            "name": "nightly",
            "store": str(folder / "store"),
            "input": {"paths": [str(folder / "in.tsv")], "column": "sentence"},
            "llm": {"engine": "fake"},
            "train": {"layers": 1, "pooling": "mean", "mlp_head": False, "mask": None, "steps": 2}
            | {"global_batch": 8, "max_length": 16},
            "evaluate": {"data": [str(folder / "triplets.tsv")], "baseline": False},
            "refresh": {"retrain_share": 0.5, "tolerance": 1.0},
            "lease_s": 5,
        }
        return Config.model_validate({**tree, **sections})

    return make


SENTENCES = lines(DEMO / "sentences.tsv", 1, 601)


def test_without_figures_there_is_no_refresh(corpus):
    config = corpus(SENTENCES[:10], evaluate={"data": []})
    with pytest.raises(ConfigError, match=r"evaluate\.data is empty: a refresh needs metrics"):
        refresh(config, SilentProgress())


@pytest.fixture(scope="module")
def first_refresh(corpus, ray_cluster):
    config = corpus(SENTENCES[:500])
    return config, refresh(config, SilentProgress())


def test_the_first_refresh_makes_a_model(first_refresh):
    config, refresh_run = first_refresh
    store = Store.of(config)
    assert (refresh_run.outcome, refresh_run.version, refresh_run.decision) == (
        "published",
        1,
        "the first model",
    )
    assert refresh_run.new == refresh_run.sentences == refresh_run.rows_written > 450
    assert refresh_runs(store) == [refresh_run]
    assert set(current(store).fingerprints) == {"sentences", "scored", "curated", "model", "evaluation"}
    assert (Path(config.store) / "encoder" / "modules.json").is_file()
    assert "triplets" in refresh_run.metrics


def test_a_refresh_without_news_costs_nothing(first_refresh, corpus):
    _, before = first_refresh
    config = corpus(SENTENCES[:500])  # the file is touched
    refresh_run = refresh(config, SilentProgress())
    assert (refresh_run.outcome, refresh_run.version) == ("nothing new", before.version)
    assert (
        refresh_run.new,
        refresh_run.removed,
        refresh_run.rows_written,
        refresh_run.rows_scored,
        refresh_run.tokens,
    ) == (0, 0, 0, 0, 0)
    assert "the same as last time" in refresh_run.decision
    assert len(versions(Store.of(config))) == 1
    assert len(refresh_runs(Store.of(config))) == 2


def test_two_percent_of_news_cost_two_percent(first_refresh, corpus):
    config = corpus(SENTENCES[5:505])
    refresh_run = refresh(config, SilentProgress())
    assert (refresh_run.outcome, refresh_run.version) == ("published", 2)
    assert (refresh_run.new, refresh_run.removed) == (5, 5)
    assert refresh_run.rows_written == 5 <= 0.04 * refresh_run.sentences
    assert 0 < refresh_run.curated_changed < 0.05
    assert "of its triplets changed, refresh.retrain_share is 50.0%" in refresh_run.decision
    store = Store.of(config)
    assert current(store).fingerprints["model"] == versions(store)[0].artifacts["model"]
    facts = dict(explain(current(store), row_id(SENTENCES[0], "en")).facts)
    assert facts["gone"].startswith("it is not in its source any more")
    stay = {row["row_id"] for row in _rows(current(store), "sentences")}
    assert row_id(SENTENCES[0], "en") not in stay
    assert row_id(SENTENCES[504], "en") in stay


def _rows(snapshot, artifact):
    tables = [snapshot.store.read_table(entry) for entry in snapshot.manifest(artifact).files]
    return [row for table in tables for row in table.to_pylist()]


def _on_shuffled_negatives(config, snapshot, progress, start=None, known=None):
    """Train on triplets that say the opposite: positives and negatives exchanged and shuffled."""
    curated = snapshot.manifest("curated")
    table = pa.concat_tables(snapshot.store.read_table(entry) for entry in curated.files)
    shuffled = table["contradiction"].take(np.random.default_rng(0).permutation(table.num_rows))
    for name, column in (("contradiction", table["entailment"]), ("entailment", shuffled)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), column)
    entry = snapshot.store.write_table("curated/shuffled/rows/0.parquet", table)
    write_manifest(
        snapshot.store, "curated", curated.model_copy(update={"fingerprint": "shuffled", "files": [entry]})
    )
    broken = Snapshot(snapshot.store, {**snapshot.fingerprints, "curated": "shuffled"})
    hard = config.model_copy(
        update={"train": config.train.model_copy(update={"steps": 30, "learning_rate": 1e-2})}
    )
    return train(hard, broken, progress, start, known)


def test_a_worse_model_is_not_promoted_and_a_rollback_is_one_call(first_refresh, corpus, monkeypatch):
    before = latest(Store.of(first_refresh[0]))
    config = corpus(SENTENCES[:300], refresh={"retrain_share": 0.0, "tolerance": 1.0})
    with pytest.raises(RunError, match=r"205 of 500 sentences \(41.0%\) are gone .*max_removed is 0\.2"):
        refresh(config, SilentProgress())
    assert latest(Store.of(config)) == before
    config = corpus(SENTENCES[:300], refresh={"retrain_share": 0.0, "tolerance": 1.0, "max_removed": 0.5})
    monkeypatch.setattr(refresh_module, "train", _on_shuffled_negatives)
    refresh_run = refresh(config, SilentProgress())
    assert refresh_run.outcome == "published", "the rows are new, the model is not"
    assert refresh_run.decision.startswith("not promoted: triplets fell by ")
    assert refresh_run.metrics["triplets"] < refresh_run.metrics_before["triplets"] - 1
    store = Store.of(config)
    after = latest(store)
    assert after.artifacts["model"] == before.artifacts["model"]
    assert after.artifacts["evaluation"] == before.artifacts["evaluation"]
    assert after.artifacts["curated"] != before.artifacts["curated"]

    restored = roll_back(config, None, SilentProgress())
    assert (restored.number, restored.restores) == (after.number + 1, before.number)
    assert restored.artifacts == before.artifacts == latest(store).artifacts
    unwanted = refresh(config, SilentProgress())
    assert (unwanted.outcome, unwanted.version) == ("nothing new", restored.number)
    assert f"version {after.number} has the same triplets and model, and was rolled" in unwanted.decision
    assert latest(store) == restored
    with pytest.raises(RunError, match=rf"was rolled back from; .* rollback CONFIG --to {after.number}"):
        full_run.run(config, SilentProgress(), until="curate")
    with pytest.raises(RunError, match="is what version"):
        roll_back(config, before.number, SilentProgress())
    again = roll_back(config, after.number, SilentProgress())
    assert again.artifacts == after.artifacts
    with pytest.raises(RunError, match="no version 99"):
        roll_back(config, 99, SilentProgress())


def test_a_better_model_is_promoted_and_may_start_from_the_last(first_refresh, corpus):
    config = corpus(SENTENCES[:400], refresh={"retrain_share": 0.0, "tolerance": 100.0, "start": "last"})
    before = latest(Store.of(config))
    refresh_run = refresh(config, SilentProgress())
    after = latest(Store.of(config))
    assert refresh_run.decision == "promoted"
    assert after.artifacts["model"] != before.artifacts["model"]
    model = current(Store.of(config)).manifest("model")
    assert model.settings["encoder_weights"] == before.artifacts["model"]


@pytest.mark.parametrize("size", [7, 1000])
def test_artifacts_are_compared_in_parts(place, size):
    ids = [row_id(str(i), "en") for i in range(100)]

    def artifact(name, ids, changed=()):
        texts = ["other" if each in changed else "text" for each in sorted(ids)]
        table = pa.table({"row_id": sorted(ids), "text": texts})
        parts = range(0, len(ids), size)
        files = [place.write_table(f"{name}/{start}.parquet", table.slice(start, size)) for start in parts]
        return make_manifest(name, rows_out=len(ids), files=files)

    before, now = artifact("before", ids[:80]), artifact("now", ids[10:100], ids[20:25])
    found = compare(place, before, now, ["text"])
    assert (found.new, found.removed, found.same) == (20, 10, 65)
    assert found.share == pytest.approx(35 / 90)
    assert compare(place, None, now, ["text"]).share == 1.0
    assert compare(place, now, now, ["text"]).share == 0.0
