"""Attention without repeated keys and values is the attention of the model."""

import pytest
import torch
from torch import nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from multicsr.llm.transformers.grouped_attention import group_attention
from multicsr.llm.transformers.kv_cache import CausalBranches

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
SIZES |= {"intermediate_size": 32, "num_key_value_heads": 2}
PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3, 2], [11, 5]]
STEPS = [[7, 8, 9], [4, 4, 5], [30, 2, 5]]
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, head_dim=16, sliding_window=6)),
}


def make(name):
    torch.manual_seed(3)
    model = MODELS[name]().eval()
    for weights in model.parameters():
        weights.data.mul_(3)  # so that attention is far from even
    return model


@torch.inference_mode()
def logits(model):
    branches = CausalBranches(model, PROMPTS)
    branches.fork(range(len(PROMPTS)))
    return torch.stack([branches.first_PV, *(branches.step(torch.tensor(step)) for step in STEPS)])


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_attention_written_out(name):
    model = make(name)
    model.set_attn_implementation("eager")
    expected = logits(model)
    model.set_attn_implementation("sdpa")
    group_attention(model)
    found = logits(model)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.equal(expected[0], expected[1])


def heads_of_keys(model, monkeypatch):
    """Number of heads of the keys in each attention of a step with one token a row."""
    found = []
    original = nn.functional.scaled_dot_product_attention

    def attention(query, key, value, **options):
        found.append(key.shape[1])
        return original(query, key, value, **options)

    with torch.inference_mode():
        branches = CausalBranches(model, PROMPTS)
        branches.fork(range(len(PROMPTS)))
        monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attention)
        branches.step(torch.tensor(STEPS[0]))
        monkeypatch.undo()
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_step_repeats_no_keys(name, monkeypatch):
    model = make(name)
    assert heads_of_keys(model, monkeypatch) == [4, 4]
    group_attention(model)
    assert heads_of_keys(model, monkeypatch) == [2, 2]


@pytest.mark.parametrize(
    "model",
    [
        GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_head=2, n_layer=1)),
        T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=32, d_kv=16, num_layers=1, num_heads=2)),
    ],
    ids=["gpt2", "t5"],
)  # fmt: skip
def test_models_whose_heads_share_nothing_compute_as_before(model):
    model.eval()
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[0]])
    before = model(**inputs).logits
    group_attention(model)
    assert torch.equal(model(**inputs).logits, before)
