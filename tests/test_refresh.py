"""Nights: the first one, one without news, small changes, a model that got worse, and the way back."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from multicsr import refresh as refresh_module
from multicsr.compare import compare
from multicsr.config import Config
from multicsr.draft import roll_back
from multicsr.errors import ConfigError, RunError
from multicsr.explain import explain
from multicsr.history import nights
from multicsr.manifest import write_manifest
from multicsr.progress import SilentProgress
from multicsr.refresh import fallen, refresh
from multicsr.rows import row_id
from multicsr.store import Store
from multicsr.train.trainer import train
from multicsr.versions import Rooms, current, latest, versions
from tests.test_versions import make_manifest

ROOT = Path(__file__).parents[1]
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
    with pytest.raises(ConfigError, match=r"evaluate\.data is empty: a refresh promotes"):
        refresh(config, SilentProgress())


@pytest.fixture(scope="module")
def first_night(corpus, ray_cluster):
    config = corpus(SENTENCES[:500])
    return config, refresh(config, SilentProgress())


def test_the_first_night_makes_a_model(first_night):
    config, night = first_night
    store = Store.of(config)
    assert (night.outcome, night.version, night.decision) == ("published", 1, "the first model")
    assert night.new == night.sentences == night.rows_written > 450
    assert nights(store) == [night]
    assert set(current(store).fingerprints) == {"sentences", "scored", "curated", "model", "evaluation"}
    assert (Path(config.store) / "encoder" / "modules.json").is_file()
    assert "triplets" in night.metrics


def test_a_night_without_news_costs_nothing(first_night, corpus):
    _, before = first_night
    config = corpus(SENTENCES[:500])  # the file is touched
    night = refresh(config, SilentProgress())
    assert (night.outcome, night.version) == ("nothing new", before.version)
    assert (night.new, night.removed, night.rows_written, night.rows_scored, night.tokens) == (0, 0, 0, 0, 0)
    assert "the same as last time" in night.decision
    assert len(versions(Store.of(config))) == 1
    assert len(nights(Store.of(config))) == 2


def test_two_percent_of_news_cost_two_percent(first_night, corpus):
    config = corpus(SENTENCES[5:505])
    night = refresh(config, SilentProgress())
    assert (night.outcome, night.version) == ("published", 2)
    assert (night.new, night.removed) == (5, 5)
    assert night.rows_written == 5 <= 0.04 * night.sentences
    assert 0 < night.curated_changed < 0.05
    assert "of its triplets changed, refresh.retrain_share is 50.0%" in night.decision
    store = Store.of(config)
    assert current(store).fingerprints["model"] == versions(store)[0].rooms["model"]
    told = dict(explain(current(store), row_id(SENTENCES[0], "en")).facts)
    assert told["gone"].startswith("it is not in its source any more")
    stay = {row["row_id"] for row in _rows(current(store), "sentences")}
    assert row_id(SENTENCES[0], "en") not in stay
    assert row_id(SENTENCES[504], "en") in stay


def _rows(rooms, room):
    tables = [rooms.store.read_table(entry.path) for entry in rooms.manifest(room).files]
    return [row for table in tables for row in table.to_pylist()]


def _on_shuffled_negatives(config, rooms, progress, start=None):
    """Train on triplets that say the opposite: positives and negatives exchanged and shuffled."""
    curated = rooms.manifest("curated")
    table = pa.concat_tables(rooms.store.read_table(entry.path) for entry in curated.files)
    shuffled = table["contradiction"].take(np.random.default_rng(0).permutation(table.num_rows))
    for name, column in (("contradiction", table["entailment"]), ("entailment", shuffled)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), column)
    entry = rooms.store.write_table("curated/shuffled/rows/0.parquet", table)
    write_manifest(
        rooms.store, "curated", curated.model_copy(update={"fingerprint": "shuffled", "files": [entry]})
    )
    broken = Rooms(rooms.store, {**rooms.fingerprints, "curated": "shuffled"})
    hard = config.model_copy(
        update={"train": config.train.model_copy(update={"steps": 30, "learning_rate": 1e-2})}
    )
    return train(hard, broken, progress, start)


def test_a_worse_model_is_not_promoted_and_a_rollback_is_one_call(first_night, corpus, monkeypatch):
    before = latest(Store.of(first_night[0]))
    config = corpus(SENTENCES[:300], refresh={"retrain_share": 0.0, "tolerance": 1.0})
    monkeypatch.setattr(refresh_module, "train", _on_shuffled_negatives)
    night = refresh(config, SilentProgress())
    assert night.outcome == "published", "the rows are new, the model is not"
    assert night.decision.startswith("not promoted: triplets fell by ")
    assert night.metrics["triplets"] < night.metrics_before["triplets"] - 1
    store = Store.of(config)
    after = latest(store)
    assert after.rooms["model"] == before.rooms["model"]
    assert after.rooms["evaluation"] == before.rooms["evaluation"]
    assert after.rooms["curated"] != before.rooms["curated"]

    restored = roll_back(config, None, SilentProgress())
    assert (restored.number, restored.restores) == (after.number + 1, before.number)
    assert restored.rooms == before.rooms == latest(store).rooms
    with pytest.raises(RunError, match="is what version"):
        roll_back(config, before.number, SilentProgress())
    again = roll_back(config, after.number, SilentProgress())
    assert again.rooms == after.rooms
    with pytest.raises(RunError, match="no version 99"):
        roll_back(config, 99, SilentProgress())


def test_a_better_model_is_promoted_and_may_start_from_the_last(first_night, corpus):
    config = corpus(SENTENCES[:400], refresh={"retrain_share": 0.0, "tolerance": 100.0, "start": "last"})
    before = latest(Store.of(config))
    night = refresh(config, SilentProgress())
    after = latest(Store.of(config))
    assert night.decision == "promoted"
    assert after.rooms["model"] != before.rooms["model"]
    model = current(Store.of(config)).manifest("model")
    assert model.settings["encoder_weights"] == before.rooms["model"]


def test_which_metrics_fell(corpus):
    config = corpus(SENTENCES[:10], refresh={"tolerance": 0.5, "tolerances": {"sick": 2.0}})
    assert fallen({"sts": 70.0, "sick": 60.0}, {"sts": 69.5, "sick": 58.0}, config) == []
    (found,) = fallen({"sts": 70.0, "sick": 60.0}, {"sts": 69.4, "sick": 58.5}, config)
    assert found == "sts fell by 0.60, from 70.00 to 69.40 (tolerance 0.5)"
    assert len(fallen({"sts": 70.0, "sick": 60.0}, {"sts": 60, "sick": 50}, config)) == 2


@pytest.mark.parametrize("size", [7, 1000])
def test_rooms_are_compared_in_parts(place, size):
    ids = [row_id(str(i), "en") for i in range(100)]

    def room(name, ids, changed=()):
        texts = ["other" if each in changed else "text" for each in sorted(ids)]
        table = pa.table({"row_id": sorted(ids), "text": texts})
        parts = range(0, len(ids), size)
        files = [place.write_table(f"{name}/{start}.parquet", table.slice(start, size)) for start in parts]
        return make_manifest(name, rows_out=len(ids), files=files)

    before, now = room("before", ids[:80]), room("now", ids[10:100], ids[20:25])
    found = compare(place, before, now, ["text"])
    assert (found.new, found.removed, found.same) == (20, 10, 65)
    assert found.share == pytest.approx(35 / 90)
    assert compare(place, None, now, ["text"]).share == 1.0
    assert compare(place, now, now, ["text"]).share == 0.0
