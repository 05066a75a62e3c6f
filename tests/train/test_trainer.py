import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from multicsr.train.publish import heal
from sentence_transformers import SentenceTransformer

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.manifest import Manifest, now, publish, rows_digest
from multicsr.progress import SilentProgress
from multicsr.rows import CURATED, row_id
from multicsr.store import Store
from multicsr.train.log import Step, read_log
from multicsr.train.loop import fit
from multicsr.train.trainer import check_resources, train


class Recorder(SilentProgress):
    """Remembers how much was done, and the summary."""

    def __init__(self):
        self.done, self.summary = 0, ""

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount

    def finish(self, summary: str) -> None:
        self.summary = summary


def curated(triplets: pa.Table) -> pa.Table:
    """The triplets as CURATED rows."""
    rows = []
    for position, row in enumerate(triplets.to_pylist()):
        filled = {field.name: None for field in CURATED} | row
        filled |= {
            "row_id": row_id(f"{row['text']} {position}", "xx"),
            "language": "xx",
            "source": "made",
            "a": 5.0,
            "b": 0.0,
        }
        rows.append(filled | {"position": position, "swapped": False})
    return pa.Table.from_pylist(rows, schema=CURATED)


def publish_curated(store: Store, triplets: pa.Table, parts: int = 2) -> None:
    """A complete `curated` room of so many files."""
    table = curated(triplets)
    size = -(-len(table) // parts)
    entries = [
        store.write_table(f"curated/abc/rows/{n:03}.parquet", table.slice(n * size, size))
        for n in range(parts)
    ]
    manifest = Manifest(
        stage="curate",
        run="test",
        fingerprint="abc",
        code_version="test",
        settings={},
        created=now(),
        seconds=0,
        rows_in=len(table),
        rows_out=len(table),
        rejected={},
        rows_digest=rows_digest(table["row_id"]),
        files=entries,
        reject_files=[],
        counters={},
    )
    publish(store, "curated", manifest)


@pytest.fixture
def store(tmp_path, triplets) -> Store:
    """A store with a published `curated` room of two files."""
    store = Store.open(str(tmp_path / "store"))
    publish_curated(store, triplets)
    return store


@pytest.fixture
def config(tiny_bert, dev_file, store) -> Config:
    training = {
        "encoder": str(tiny_bert),
        "mask": {"model": str(tiny_bert), "sigma": 0.9},
        "learning_rate": 3e-3,
        "global_batch": 16,
        "epochs": 2,
        "dev": str(dev_file),
        "evaluate_every": 4,
    }
    tree = {"name": "test", "store": store.uri(), "input": {"paths": ["none"]}, "train": training}
    return Config.model_validate(tree)


def changed(config: Config, **settings: object) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update=settings)})


@pytest.mark.usefixtures("ray_cluster")
def test_train_publishes_what_fit_makes(config, store, triplets, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(config.train.dev).parent)
    config, progress = changed(config, dev="dev.tsv"), Recorder()
    store.write_text("model/config.json", "an old model")
    manifest = train(config, store, progress)
    assert manifest == current(store).manifest("model")
    assert (manifest.rows_in, manifest.rows_out, manifest.rejected) == (96, 96, {})
    folder = store.directory / "model"
    steps = [line for line in read_log(folder / "train.jsonl") if isinstance(line, Step)]
    assert manifest.counters["steps"] == len(steps) > 5
    assert manifest.counters["masked"] == pytest.approx(np.mean([step.masked for step in steps]))
    assert f"best dev {manifest.counters['best_dev']:.2f}" in progress.summary

    fit(config.train, curated(triplets), seed=config.seed, out=tmp_path / "bare")
    same = SentenceTransformer(str(tmp_path / "bare" / "model"), device="cpu")
    model = SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(model.encode(["ba de fi"]), same.encode(["ba de fi"]), atol=1e-4)

    pairs = json.loads((folder / "masked_pairs.json").read_text())
    assert 0 < len(pairs) <= 20
    assert all(pair["similarity"] >= 0.9 and pair["anchor"] in triplets["text"].to_pylist() for pair in pairs)
    histogram = json.loads((folder / "mask_similarities.json").read_text())
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1
    first_epoch = sum(step.epoch == 1 for step in steps)
    assert sum(histogram["counts"]) == first_epoch * 16 * 2 * 15
    assert sorted(path.name for path in Path(store.uri()).iterdir()) == [
        "curated",
        "mask_vectors",
        "model",
        "tensorboard",
        "training",
    ]
    assert not list((store.directory / "training").iterdir())

    again = Recorder()
    assert train(changed(config, cpus_per_worker=2), store, again) == manifest
    assert "reused" in again.summary


@pytest.mark.usefixtures("ray_cluster")
def test_an_error_in_the_worker_is_one_line_and_leaves_the_old_model(config, store):
    store.write_text("model/config.json", "the old model")
    with pytest.raises(ConfigError, match=r"train\.global_batch: 97 rows") as caught:
        train(changed(config, global_batch=97), store, SilentProgress())
    assert "\n" not in str(caught.value)
    assert store.names("model") == ["model/config.json"]


def test_a_crash_between_the_two_renames_is_healed(store):
    store.write_text("model.old/manifest.json", "old")
    heal(store)
    assert store.read_text("model/manifest.json") == "old"
    assert not store.exists("model.old")


def test_refusals_before_anything_starts(config, store, tmp_path):
    with pytest.raises(ConfigError, match="no evaluation file"):
        train(changed(config, dev=str(tmp_path / "none.tsv")), store, SilentProgress())
    with pytest.raises(RunError, match="multicsr curate CONFIG"):
        train(config, Store.open(str(tmp_path / "empty")), SilentProgress())


@pytest.mark.usefixtures("ray_cluster")
def test_an_error_of_one_of_two_workers_is_one_line_and_ends_all(config, store, tmp_path, tiny_bert):
    """P's weights are broken on disk: found out in the actors, long after the start."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bert, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    mask = config.train.mask.model_copy(update={"model": str(broken)})
    with pytest.raises(ConfigError, match=r"train\.mask\.model: cannot load") as caught:
        train(changed(config, workers=2, mask=mask, dev=None), store, SilentProgress())
    assert "\n" not in str(caught.value)
    assert not store.exists("model/manifest.json")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_as_many_workers_start_as_there_is_room_for(config, store, triplets, tmp_path):
    """Of eight with three CPUs each the cluster has room for two, who take every CPU; the result is one's."""
    still = changed(config, dev=None, steps=4, micro_batch=8, mask=None)
    elastic = changed(still, workers=8, min_workers=1, cpus_per_worker=3)
    assert train(elastic, store, SilentProgress()).counters["steps"] == 4
    fit(still.train, curated(triplets), seed=config.seed, out=tmp_path / "one")
    one = SentenceTransformer(str(tmp_path / "one" / "model"), device="cpu")
    model = SentenceTransformer(str(store.directory / "model"), device="cpu")
    np.testing.assert_allclose(model.encode(["ba de fi"]), one.encode(["ba de fi"]), atol=1e-4)


@pytest.mark.usefixtures("ray_cluster")
def test_what_this_machine_has_not_is_refused(config):
    with pytest.raises(
        ConfigError, match=r"train\.workers: 2 workers with 1 GPU each, and this machine has 0"
    ):
        check_resources(changed(config, workers=2, gpus_per_worker=1))
    with pytest.raises(ConfigError, match=r"9 workers with 1 CPU each, and Ray has 6"):
        check_resources(changed(config, workers=9))
    check_resources(changed(config, workers=9, min_workers=2))
