"""The parameters that DeepSpeed's engine keeps: in full precision, and once for modules that share them."""

import pytest
import torch

from multicsr.config import TrainConfig
from multicsr.models.encoder import Encoder, load_encoder
from multicsr.stages.train.engines.base import TrainEngine
from multicsr.stages.train.engines.load import load_engine

WORDS = "model.0.model.embeddings.word_embeddings.weight"
SHARED = "model.0.model.shared.weight"


def start(name: str, zero: int, dtype: str) -> tuple[TrainEngine, dict[str, torch.Tensor]]:
    """Return an engine, and the parameters before it was started.

    As in T5, the token embeddings have a second name, which is the first one in the list of all parameters.
    The position embeddings are not trained.
    """
    torch.manual_seed(0)
    encoder = Encoder(load_encoder(name, pooling="cls"), mlp_head=True).eval()
    transformer = encoder.model[0].model
    transformer.shared = transformer.embeddings.word_embeddings
    transformer.embeddings.position_embeddings.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    config = TrainConfig.model_validate({"dtype": dtype, "deepspeed": {"zero": zero}})
    return load_engine(encoder, config, None), before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_weights_start_unrounded_and_shared_ones_are_the_same_after_a_step(tiny_bert, zero, dtype):
    engine, before = start(str(tiny_bert), zero, dtype)
    kept = engine.state().encoder
    assert kept.keys() == before.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.items())
    engine.backward(engine.embed([[5, 6, 7], [8, 9]], 0).float().sum())
    engine.step(1e-3)
    after = engine.state().encoder
    assert torch.equal(after[WORDS], after[SHARED])
    assert not torch.equal(after[WORDS][5], before[WORDS][5])
    positions = "model.0.model.embeddings.position_embeddings.weight"
    assert torch.equal(after[positions], before[positions])
    assert engine.weights().keys() == {n.removeprefix("model.") for n in before if n.startswith("model.")}
