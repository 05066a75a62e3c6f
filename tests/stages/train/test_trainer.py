import json
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from multicsr.artifacts import Step, read_log
from multicsr.config import Config, EvaluateConfig, MaskConfig
from multicsr.errors import ConfigError, RunError
from multicsr.hashing import hash_64
from multicsr.observability.progress import SilentProgress
from multicsr.rows import CURATED, row_id
from multicsr.stages.train.fit import fit
from multicsr.stages.train.trainer import check_resources, model_fingerprint, train
from multicsr.storage.manifest import Manifest, rows_digest
from multicsr.storage.store import FileEntry, Store, checksum
from multicsr.storage.versions import Snapshot, current
from tests.support.versions import manifest, publish

pytestmark = pytest.mark.cluster


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


def publish_curated(store: Store, triplets: pa.Table, parts: int = 2) -> Snapshot:
    """A version with a `curated` room of so many files."""
    table = curated(triplets)
    size = -(-len(table) // parts)
    entries = [
        store.write_table(f"curated/abc/rows/{n:03}.parquet", table.slice(n * size, size))
        for n in range(parts)
    ]
    facts = {"fingerprint": "abc", "rows_in": len(table), "rows_out": len(table), "files": entries}
    return publish(store, "curated", manifest("curate", rows_digest=rows_digest(table["row_id"]), **facts))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def snapshot(store, triplets) -> Snapshot:
    """Of a version with a `curated` room of two files and an old model."""
    publish_curated(store, triplets)
    store.write_text("model/old/encoder/config.json", "an old model")
    return publish(store, "model", manifest("train", fingerprint="old"))


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


def encoder_files(model: Manifest) -> list[FileEntry]:
    """With their checksums."""
    return [entry for entry in model.files if "/encoder/" in entry.path]


@pytest.mark.usefixtures("ray_cluster")
def test_train_makes_what_fit_makes(config, store, snapshot, triplets, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(config.train.dev).parent)
    config, progress = changed(config, dev="dev.tsv"), Recorder()
    model = train(config, snapshot, progress)
    assert (model.rows_in, model.rows_out, model.rejected) == (96, 96, {})
    folder = store.directory / "model" / model.fingerprint
    steps = [line for line in read_log(folder / "train.jsonl") if isinstance(line, Step)]
    assert model.counters["steps"] == len(steps) == progress.done > 5
    assert model.counters["masked"] == pytest.approx(np.mean([step.masked for step in steps]))
    assert model.counters["workers"] == 1
    assert f"best dev {model.counters['best_dev']:.2f}" in progress.summary

    fit(config.train, curated(triplets), seed=config.seed, out=tmp_path / "bare")
    same = SentenceTransformer(str(tmp_path / "bare" / "model"), device="cpu")
    encoder = SentenceTransformer(str(folder / "encoder"), device="cpu")
    np.testing.assert_allclose(encoder.encode(["ba de fi"]), same.encode(["ba de fi"]), atol=1e-4)

    pairs = json.loads((folder / "masked_pairs.json").read_text())
    assert 0 < len(pairs) <= 20
    assert all(pair["similarity"] >= 0.9 and pair["anchor"] in triplets["text"].to_pylist() for pair in pairs)
    histogram = json.loads((folder / "mask_similarities.json").read_text())
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1
    first_epoch = sum(step.epoch == 1 for step in steps)
    assert sum(histogram["counts"]) == first_epoch * 16 * 2 * 15

    assert {entry.path for entry in model.files} == {
        path.relative_to(store.directory).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert all(checksum(store.read_bytes(entry.path)) == entry.checksum for entry in model.files)
    assert {name.split("/")[0] for name in store.names("")} == {
        *("curated", "log", "mask_vectors", "model", "tensorboard"),
    }


@pytest.mark.slow  # a training of a minute that is watched
@pytest.mark.usefixtures("ray_cluster")
def test_no_process_of_a_training_waits_by_spinning(config, snapshot, monkeypatch):
    """Workers, scorers and the evaluation share cores."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    waits: dict[str, set[str | None]] = {}
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    policy = process.environ().get("OMP_WAIT_POLICY")
                    waits.setdefault("".join(process.cmdline()).partition(".")[0], set()).add(policy)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        train(config, snapshot, SilentProgress())
    finally:
        is_over.set()
        watcher.join()
    for title in ("ray::RayTrainWorker", "ray::_Scorer", "ray::_DevActor"):
        assert waits[title] == {"PASSIVE"}, waits


@pytest.mark.usefixtures("ray_cluster")
def test_a_model_is_trained_once_and_the_old_one_stays_until_a_version_names_the_new(config, store, snapshot):
    config = changed(config, mask=None, dev=None, steps=2)
    model = train(config, snapshot, SilentProgress())
    assert current(store) == snapshot
    assert store.read_text("model/old/encoder/config.json") == "an old model"

    again = Recorder()
    assert train(changed(config, cpus_per_worker=2), snapshot, again) == model
    assert "reused" in again.summary
    assert publish(store, "model", model).manifest("model") == model

    store.delete(f"model/{model.fingerprint}/encoder/config.json")
    assert encoder_files(train(config, snapshot, SilentProgress())) == encoder_files(model)
    assert store.exists(f"model/{model.fingerprint}/encoder/config.json")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_model_is_trained_further(config, store, snapshot):
    """Also in an actor of its own, dev is measured on what training started from."""
    first = train(config, snapshot, SilentProgress())
    further = train(config, snapshot, SilentProgress(), start=first.fingerprint)
    assert further.fingerprint != first.fingerprint
    assert further.counters["dev_before"] == pytest.approx(first.counters["best_dev"], abs=1e-3)
    assert further.counters["dev_before"] != pytest.approx(first.counters["dev_before"], abs=1e-3)
    card = store.read_text(f"model/{further.fingerprint}/encoder/README.md")
    assert f"Started from `model/{first.fingerprint}/encoder`" in card


@pytest.mark.usefixtures("ray_cluster")
def test_a_training_leaves_held_out_rows_out_and_counts_them(config, store, snapshot, triplets, tmp_path):
    rows = curated(triplets)
    is_trained_on = [hash_64(name) / 2**64 >= 0.3 for name in rows["row_id"].to_pylist()]
    held_out = config.model_copy(update={"evaluate": EvaluateConfig(held_out=0.3)})
    model = train(held_out, snapshot, SilentProgress())
    num_held_out = is_trained_on.count(False)
    assert 0 < num_held_out < 48
    assert (model.rows_in, model.rows_out) == (96, 96 - num_held_out)
    assert model.rejected == {"held out": num_held_out}
    assert model.settings["held_out"] == 0.3
    assert model.fingerprint != model_fingerprint(config, snapshot)

    fit(config.train, rows.filter(pa.array(is_trained_on)), seed=config.seed, out=tmp_path / "bare")
    same = SentenceTransformer(str(tmp_path / "bare" / "model"), device="cpu")
    path = store.directory / "model" / model.fingerprint / "encoder"
    encoder = SentenceTransformer(str(path), device="cpu")
    np.testing.assert_allclose(encoder.encode(["ba de fi"]), same.encode(["ba de fi"]), atol=1e-4)


@pytest.mark.usefixtures("ray_cluster")
def test_an_error_in_the_worker_is_one_line_and_leaves_the_old_model(config, store, snapshot):
    before = store.names("model")
    with pytest.raises(ConfigError, match=r"train\.global_batch: 97 rows") as caught:
        train(changed(config, global_batch=97), snapshot, SilentProgress())
    assert "\n" not in str(caught.value)
    assert store.names("model") == before
    assert current(store) == snapshot


def test_rejections_before_anything_starts(config, snapshot, tmp_path):
    with pytest.raises(ConfigError, match="no evaluation file"):
        train(changed(config, dev=str(tmp_path / "none.tsv")), snapshot, SilentProgress())
    with pytest.raises(RunError, match="multicsr curate CONFIG"):
        train(config, current(Store.open(str(tmp_path / "empty"))), SilentProgress())


@pytest.mark.slow  # one worker's is tested, and two are costly
@pytest.mark.usefixtures("ray_cluster")
def test_an_error_of_one_of_two_workers_is_one_line_and_ends_all(
    config, store, snapshot, tmp_path, tiny_bert
):
    """P's weights are broken on disk: found out in the actors, long after the start."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bert, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    mask, before = config.train.mask.model_copy(update={"model": str(broken)}), store.names("model")
    with pytest.raises(ConfigError, match=r"train\.mask\.model: cannot load") as caught:
        train(changed(config, workers=2, mask=mask, dev=None), snapshot, SilentProgress())
    assert "\n" not in str(caught.value)
    assert store.names("model") == before


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_as_many_workers_start_as_resources_allow(config, store, snapshot, triplets, tmp_path):
    """Of eight with three CPUs each the cluster has room for two, who take every CPU; the result is one's."""
    still = changed(config, dev=None, steps=4, micro_batch=8, mask=None)
    elastic = changed(still, workers=8, min_workers=1, cpus_per_worker=3)
    model = train(elastic, snapshot, SilentProgress())
    assert (model.counters["steps"], model.counters["workers"]) == (4, 2)
    fit(still.train, curated(triplets), seed=config.seed, out=tmp_path / "one")
    one = SentenceTransformer(str(tmp_path / "one" / "model"), device="cpu")
    encoder = SentenceTransformer(
        str(store.directory / "model" / model.fingerprint / "encoder"), device="cpu"
    )
    np.testing.assert_allclose(encoder.encode(["ba de fi"]), one.encode(["ba de fi"]), atol=1e-4)


@pytest.mark.usefixtures("ray_cluster")
def test_what_this_machine_has_not_is_rejected(config):
    with pytest.raises(
        ConfigError, match=r"train\.workers: 2 workers with 1 GPU each, and this machine has 0"
    ):
        check_resources(changed(config, workers=2, gpus_per_worker=1))
    with pytest.raises(ConfigError, match=r"9 workers with 1 CPU each, and Ray has 6"):
        check_resources(changed(config, workers=9))
    check_resources(changed(config, workers=9, min_workers=2))


@pytest.mark.usefixtures("ray_cluster")
def test_an_error_that_comes_again_ends_the_run_after_two_tries(config, snapshot, tiny_bert, tmp_path):
    """P has fewer words than its tokenizer: an IndexError of torch at the first batch, in every try."""
    broken = Path(shutil.copytree(tiny_bert, tmp_path / "broken"))
    settings = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**settings, "vocab_size": 8}))
    state = load_file(broken / "model.safetensors")
    name = next(name for name in state if name.endswith("word_embeddings.weight"))
    save_file({**state, name: state[name][:8].contiguous()}, broken / "model.safetensors", {"format": "pt"})
    mask = MaskConfig(model=str(broken), place="worker")
    with pytest.raises(RunError) as caught:
        train(changed(config, mask=mask, dev=None, steps=2), snapshot, SilentProgress())
    message = str(caught.value)
    assert message.startswith(
        "train: the same error came twice after step 0, so another try would not help: "
    )
    assert "IndexError" in message
    assert message.endswith("; there is no checkpoint yet: the next run starts anew")
    assert "\n" not in message
