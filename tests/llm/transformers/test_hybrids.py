"""Decoders that mix attention with linear attention, state spaces or convolutions: as without any cache."""

import random
from functools import partial

import pytest
from transformers import AutoTokenizer

from multicsr.llm.request import HypothesisRequest, SamplingParams
from multicsr.llm.stopping import StopCriteria
from multicsr.llm.token_engine import TIE_GAP
from multicsr.llm.transformers import kv_cache
from multicsr.llm.transformers.decode import decode
from multicsr.llm.transformers.kv_cache import CausalBranches
from multicsr.llm.transformers.trial import check_architecture
from tests.support.decoding import write
from tests.support.hybrid_llms import HYBRIDS, make_hybrid

GREEDY = SamplingParams(8, temperature=0.0, top_p=1.0, seed=7, tie_gap=TIE_GAP)
LENGTHS = (3, 70, 9, 5, 20, 4, 130, 12)
"""Of prompts; linear attention reads up to 64 tokens, a state space up to 256, at once."""


@pytest.fixture(params=HYBRIDS)
def model(request):
    return make_hybrid(request.param)


def make_requests():
    numbers = random.Random(3)
    prompts = [[numbers.randrange(2, 64) for _ in range(length)] for length in LENGTHS]
    requests = []
    for number, (one, other) in enumerate(zip(prompts[::2], prompts[1::2], strict=True)):
        omega = 0.0 if number == 2 else 0.3
        requests.append(HypothesisRequest(one, other, omega, str(number), "entailment"))
        requests.append(HypothesisRequest(other, one, omega, str(number), "contradiction"))
    return requests


def test_hybrid_model_decodes_in_batches_as_without_a_cache(model, causal_dir, monkeypatch):
    monkeypatch.setattr(kv_cache, "_PROMPTS_AT_ONCE", 3)  # several chunks, which are joined
    tokenizer = AutoTokenizer.from_pretrained(causal_dir)
    ends = StopCriteria(tokenizer, model.generation_config.eos_token_id, model.config.vocab_size, [])
    read, requests = partial(CausalBranches, model), make_requests()
    check_architecture(read, model, "m")
    found = [written.tokens for written in decode(read, requests, GREEDY, ends)]
    expected = [write(model, r.main, r.noisy, r.omega, GREEDY.max_new_tokens) for r in requests]
    assert min(gap for _, gap in expected) > 5e-4  # no choice that rounding could turn
    assert found == [tokens for tokens, _ in expected]
    assert len({len(tokens) for tokens in found}) > 1  # rows end at different steps and are dropped
