import random

import pytest
import torch

from multicsr.config import TrainConfig
from multicsr.errors import ConfigError, RunError
from multicsr.models.encoder import load_encoder
from multicsr.stages.evaluate import encoding, read_task
from multicsr.stages.train.monitoring.dev_evaluation import ActorEvaluator, Dev, InsideEvaluator
from tests.support.tiny_encoders import WORDS


@pytest.fixture
def config(tiny_bert, tmp_path) -> TrainConfig:
    """Dev has pairs with scores, so that every change of the parameters shows."""
    draw = random.Random(0)
    pairs = [
        " ".join(draw.choices(WORDS, k=5)) + "\t" + " ".join(draw.choices(WORDS, k=5)) for _ in range(40)
    ]
    lines = ["score\tsentence1\tsentence2", *(f"{draw.random()}\t{pair}" for pair in pairs)]
    (tmp_path / "dev.tsv").write_text("\n".join(lines) + "\n")
    return TrainConfig(encoder=str(tiny_bert), pooling="mean", layers=2, dev=str(tmp_path / "dev.tsv"))


def parameters(config, noise: float) -> tuple[dict[str, torch.Tensor], float]:
    """Of an encoder, and what it scores."""
    model = load_encoder(config.encoder, pooling=config.pooling, layers=config.layers)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += noise * torch.randn_like(parameter)
    return model.state_dict(), read_task(config.dev).measure(encoding(model))[0].score.value


def test_inside_the_worker_the_score_is_that_of_evaluate(config):
    evaluator = InsideEvaluator(config)
    for noise in (0.0, 0.1, 0.0):
        weights, score = parameters(config, noise)
        evaluator.start(weights)
        assert evaluator.is_ready()
        assert evaluator.result() == pytest.approx(score, abs=1e-3)
    assert parameters(config, 0.1)[1] != pytest.approx(score, abs=1)


@pytest.mark.usefixtures("ray_cluster")
def test_in_an_actor_too_and_the_dev_file_lies_where_the_command_was_given(config, tmp_path):
    relative = config.model_copy(update={"dev": "dev.tsv"})
    evaluator = ActorEvaluator(lambda: Dev(relative, read_task(relative.dev)), str(tmp_path))
    for noise in (0.0, 0.1):
        weights, score = parameters(config, noise)
        evaluator.start(weights)
        assert evaluator.result() == pytest.approx(score, abs=1e-3)
        assert evaluator.is_ready()

    weights = {name: value * torch.nan for name, value in weights.items()}
    evaluator.start(weights)
    with pytest.raises(RunError, match=r"^train\.dev: [^\n]*not finite[^\n]*$"):
        evaluator.result()


@pytest.mark.usefixtures("ray_cluster")
def test_a_broken_dev_file_is_one_line_that_states_what_is_wrong(config, tmp_path):
    (tmp_path / "dev.tsv").write_text("score\tsentence1\tsentence2\nhigh\tba\tde\n")
    with pytest.raises(ConfigError, match="line 2"):
        InsideEvaluator(config)
    evaluator = ActorEvaluator(lambda: Dev(config, read_task(config.dev)), str(tmp_path))
    evaluator.start({})
    with pytest.raises(RunError, match=r"^train\.dev: [^\n]*line 2[^\n]*$"):
        evaluator.result()
