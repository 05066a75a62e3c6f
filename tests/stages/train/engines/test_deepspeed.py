"""DeepSpeed's loss scaler, which only float16 has."""

import pytest
import torch

from multicsr.config import TrainConfig
from multicsr.models.encoder import Encoder, load_encoder
from multicsr.stages.train.engines.base import TrainEngine, TrainState
from multicsr.stages.train.engines.load import load_engine

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_fp16_supported(), reason="this CPU does not compute in float16"
)


def start(encoder_name: str, state: TrainState | None = None) -> TrainEngine:
    torch.manual_seed(0)
    encoder = Encoder(load_encoder(encoder_name, pooling="cls"), mlp_head=True)
    config = TrainConfig.model_validate({"dtype": "float16", "deepspeed": {"zero": 1}})
    return load_engine(encoder, config, state)


def step(engine: TrainEngine, factor: float) -> TrainState:
    """Return the state after a step, whose gradient overflows float16 if `factor` is large."""
    engine.backward(engine.embed([[5, 6, 7]], 0).float().sum() * factor)
    engine.step(1e-3)
    return engine.state()


def test_step_that_the_loss_scaler_skips_is_not_counted_and_its_scale_is_resumed(tiny_bert):
    engine = start(str(tiny_bert))
    before, skipped = engine.state(), step(engine, 1e6)
    assert (skipped.steps, skipped.exp_avg) == (0, {})
    assert skipped.loss_scale != before.loss_scale
    assert all(torch.equal(tensor, before.encoder[name]) for name, tensor in skipped.encoder.items())
    done = step(engine, 1e-3)
    assert done.steps == 1
    assert done.exp_avg.keys() == done.exp_avg_sq.keys() != set()
    assert start(str(tiny_bert), skipped).state().loss_scale == skipped.loss_scale
