"""Prompts that begin alike are read once, and continue as each alone."""

import random
from functools import partial

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
)

from multicsr.llm.transformers import kv_cache
from multicsr.llm.transformers.kv_cache import CausalBranches
from multicsr.llm.transformers.shared_prefix import PromptGroup, group_prompts
from multicsr.llm.transformers.trial import can_share_prefixes
from tests.support.hybrid_llms import HYBRIDS, make_hybrid

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
WINDOW = 100


def gemma():
    config = Gemma3TextConfig(
        **SIZES, intermediate_size=32, head_dim=16, num_key_value_heads=1, sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    return Gemma3ForCausalLM(config)


MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=32, num_key_value_heads=1)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_head=2, n_layer=2)),
    "gemma": gemma,
}


def make(name):
    torch.manual_seed(1)
    return MODELS[name]().double().eval()


def tokens(count, seed):
    numbers = random.Random(seed)
    return [numbers.randrange(2, 64) for _ in range(count)]


FIRST, SECOND = tokens(40, seed=1), tokens(60, seed=2)
PROMPTS = [
    *(FIRST + tokens(length, seed=length) for length in (9, 1, 4, 30, 7)),
    tokens(12, seed=50),
    *(SECOND + tokens(length, seed=length) for length in (3, 8, 2, 5)),
    SECOND,
]
NEXT = [tokens(len(PROMPTS), seed=step) for step in (100, 101, 102)]


def whole(model, prompt, number):
    """Logits after a prompt and after each next token, each by a pass without a cache."""
    texts = [prompt + [step[number] for step in NEXT[:count]] for count in range(len(NEXT) + 1)]
    return torch.stack([model(torch.tensor([text]), use_cache=False).logits[0, -1] for text in texts])


@torch.inference_mode()
def check(model, read):
    branches = read(PROMPTS)
    order = [8, 0, 5, 5, 10, 3, 1, 9, 2, 4, 7, 6]
    branches.fork(order)
    found = [branches.first_PV[order]]
    found += [branches.step(torch.tensor([step[i] for i in order])) for step in NEXT]
    for row, number in enumerate(order):
        ours = torch.stack([logits_RV[row] for logits_RV in found])
        torch.testing.assert_close(ours, whole(model, PROMPTS[number], number).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("at_once", [2, 64])
@pytest.mark.parametrize("name", MODELS)
def test_prompts_continue_as_each_alone(name, at_once, monkeypatch):
    monkeypatch.setattr(kv_cache, "_PROMPTS_AT_ONCE", at_once)
    model = make(name)
    check(model, partial(CausalBranches, model, shares_prefixes=True))


def fed(model, read):
    """Number of places, padding included, that the model computes while it reads the prompts."""
    places = []
    handle = model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: places.append(output.shape[0] * output.shape[1])
    )
    with torch.inference_mode():
        read(PROMPTS)
    handle.remove()
    return sum(places)


def test_common_tokens_are_read_once():
    model = make("llama")
    five, four = (
        40 + 5 * 30,
        59 + 5 * 9,
    )  # a prefix, and five rests padded to the longest; SECOND keeps a token
    assert fed(model, partial(CausalBranches, model, shares_prefixes=True)) == five + four + 12
    assert fed(model, partial(CausalBranches, model)) == len(PROMPTS) * 70
    with torch.inference_mode():
        assert CausalBranches(model, PROMPTS, shares_prefixes=True).num_shared == 40 * 4 + 59 * 4
        assert CausalBranches(model, PROMPTS).num_shared == 0


def gpt_neo():
    config = GPTNeoConfig(
        vocab_size=64, hidden_size=32, num_heads=2, num_layers=2, window_size=WINDOW,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    return GPTNeoForCausalLM(config)


def llama4():
    config = Llama4TextConfig(
        **SIZES, intermediate_size=32, intermediate_size_mlp=32, head_dim=16, num_key_value_heads=1,
        num_local_experts=2, attention_chunk_size=WINDOW,
    )  # fmt: skip
    return Llama4ForCausalLM(config)


@pytest.mark.parametrize("make_model", [gemma, gpt_neo, llama4])
def test_prompts_longer_than_the_window_are_read_whole(make_model):
    torch.manual_seed(1)
    model = make_model().double().eval()
    long = [FIRST * 2 + tokens(length, seed=length) for length in (9, 1, 30)]
    with torch.inference_mode():
        shared, apart = (CausalBranches(model, long, shares_prefixes=shares) for shares in (True, False))
    assert max(map(len, long)) > WINDOW
    assert torch.equal(shared.first_PV, apart.first_PV)


@pytest.mark.parametrize("name", MODELS)
def test_trial_lets_usual_models_share(name):
    model = make(name)
    read = partial(CausalBranches, model)
    assert can_share_prefixes(partial(read, shares_prefixes=True), read, model)


def test_trial_finds_a_model_that_takes_distances_from_places():
    torch.manual_seed(1)
    config = MptConfig(d_model=32, n_heads=2, n_layers=2, vocab_size=64, max_seq_len=128)
    model = MptForCausalLM(config).eval()
    read = partial(CausalBranches, model)
    assert not can_share_prefixes(partial(read, shares_prefixes=True), read, model)


@pytest.mark.parametrize("name", HYBRIDS)
def test_hybrid_models_are_read_whole(name):
    model = make_hybrid(name)
    prompts = [[token % 60 + 2 for token in prompt] for prompt in PROMPTS]
    with torch.inference_mode():
        shared, apart = (CausalBranches(model, prompts, shares_prefixes=shares) for shares in (True, False))
    torch.testing.assert_close(shared.first_PV, apart.first_PV, atol=1e-4, rtol=0)


def test_groups():
    a, b = list(range(100)), [7] * 40
    prompts = [[*a, 1], [*b, 1], [*a, 2], [1, 2], [*b, 2, 3], a, [*a[:60], 9], [*b, 2, 4], [*a[:30], 9]]
    assert group_prompts(prompts) == [
        PromptGroup(60, [6, 5, 0, 2]),
        PromptGroup(0, [1, 3, 4, 7, 8]),  # three times 40 tokens save 80
    ]
    assert group_prompts([*prompts, [*b, 9], [*b, 5]])[1] == PromptGroup(40, [1, 4, 7, 10, 9])
    assert group_prompts([a]) == [PromptGroup(0, [0])]
    assert group_prompts([a, a]) == [PromptGroup(0, [0, 1])]
    assert group_prompts([a, a, a]) == [PromptGroup(99, [0, 1, 2])]
    assert group_prompts([[3], [], [3]]) == [PromptGroup(0, [0, 1, 2])]
