"""Lockstep decoding against the slow reference, against transformers, and against itself in other batches."""

import random
import sys
from collections import Counter
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from multicsr.llm.base import Usage
from multicsr.llm.request import HypothesisRequest, SamplingParams
from multicsr.llm.stopping import StopCriteria, bad_word_tokens
from multicsr.llm.token_engine import DRAW_GAP, TIE_GAP
from multicsr.llm.transformers.decode import decode
from multicsr.llm.transformers.kv_cache import CausalBranches, EncoderDecoderBranches
from multicsr.models.resolve import ASSETS
from multicsr.prompts import load_prompts
from multicsr.rows import row_id
from tests.support.decoding import drawer, write

MAX_NEW_TOKENS = 6
GREEDY = SamplingParams(MAX_NEW_TOKENS, temperature=0.0, top_p=1.0, seed=7, tie_gap=TIE_GAP)
DRAWN = GREEDY._replace(temperature=0.8, top_p=0.9, tie_gap=DRAW_GAP)
FLOAT32_NOISE = 2e-5
TINYLM = ASSETS / "tinylm" / "model.safetensors"


class Loaded:
    """A model, and what it takes to decode with it."""

    def __init__(self, path):
        kind = AutoModelForSeq2SeqLM if "encoder_decoder" in path.name else AutoModelForCausalLM
        self.model = kind.from_pretrained(path, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.ends = self.ends_at([])
        branches = EncoderDecoderBranches if kind is AutoModelForSeq2SeqLM else CausalBranches
        self.read = partial(branches, self.model)

    def ends_at(self, stop):
        return StopCriteria(
            self.tokenizer, self.model.generation_config.eos_token_id, self.model.config.vocab_size, stop
        )

    def requests(self, premises, omega):
        """Both directions of every premise; `omega` is a number, or one for each premise."""
        prompts = load_prompts("syncse")
        omegas = omega if isinstance(omega, list) else [omega] * len(premises)
        requests = []
        for premise, weight in zip(premises, omegas, strict=True):
            identity = row_id(premise, "en")
            pair = prompts.pair(premise, identity, seed=1)
            e, c = self.tokenizer([pair.entailment, pair.contradiction])["input_ids"]
            requests.append(HypothesisRequest(e, c, weight, identity, "entailment"))
            requests.append(HypothesisRequest(c, e, weight, identity, "contradiction"))
        return requests

    def decode(self, requests, rule=GREEDY):
        return [written.tokens for written in decode(self.read, requests, rule, self.ends)]

    def decode_in_batches(self, requests, size, rule=GREEDY):
        parts = [requests[start : start + size] for start in range(0, len(requests), size)]
        return [tokens for part in parts for tokens in self.decode(part, rule)]


@pytest.fixture
def loaded(model_dir):
    return Loaded(model_dir)


def alternate(requests):
    """One direction of each premise: entailment, contradiction, entailment, ..."""
    return [pair[i % 2] for i, pair in enumerate(zip(requests[::2], requests[1::2], strict=True))]


def agree(found, expected, smallest_gaps):
    """Every row equal, but for rows in which float32 itself cannot tell which token is ahead."""
    different = [i for i, (f, e) in enumerate(zip(found, expected, strict=True)) if f != e]
    sys.stdout.write(
        f"{len(found)} rows, smallest gap {min(smallest_gaps):.1e}, {len(different)} different\n"
    )
    assert not [i for i in different if smallest_gaps[i] > FLOAT32_NOISE]
    assert len(different) <= 1


def test_contrastive_decoding_equals_the_reference_token_for_token(loaded, premises):
    requests = alternate(loaded.requests(premises, 0.3))
    found = loaded.decode_in_batches(requests, 64)
    expected = [write(loaded.model, r.main, r.noisy, r.omega, MAX_NEW_TOKENS) for r in requests]
    agree(found, [tokens for tokens, _ in expected], [gap for _, gap in expected])
    assert len({tuple(tokens) for tokens in found}) > 150
    assert len({len(tokens) for tokens in found}) > 4
    plain = loaded.decode(alternate(loaded.requests(premises, 0.0)))
    assert sum(a != b for a, b in zip(found, plain, strict=True)) > 100


@pytest.mark.skipif(not TINYLM.is_file(), reason="the tiny LM is not in multicsr/assets/tinylm")
def test_the_shipped_model_equals_the_reference(premises):
    loaded = Loaded(TINYLM.parent)
    requests = alternate(loaded.requests(premises, 0.3))
    rule = GREEDY._replace(max_new_tokens=3)
    found = loaded.decode_in_batches(requests, 64, rule)
    expected = [write(loaded.model, r.main, r.noisy, r.omega, 3) for r in requests]
    agree(found, [tokens for tokens, _ in expected], [gap for _, gap in expected])


def test_contrastive_decoding_equals_transformers_guidance(causal_dir, premises):
    loaded = Loaded(causal_dir)
    requests = alternate(loaded.requests(premises, 0.3))
    for found, request in zip(loaded.decode(requests), requests, strict=True):
        output = loaded.model.generate(
            input_ids=torch.tensor([request.main]),
            negative_prompt_ids=torch.tensor([request.noisy]),
            guidance_scale=1 / (1 - request.omega),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
        )
        assert output[0, len(request.main) :].tolist() == found


def test_omega_zero_equals_plain_generate(loaded, premises):
    requests = alternate(loaded.requests(premises[:60], 0.0))
    for found, request in zip(loaded.decode(requests), requests, strict=True):
        ids = torch.tensor([request.main])
        output = loaded.model.generate(input_ids=ids, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)[0]
        start = 1 if loaded.model.config.is_encoder_decoder else len(request.main)
        assert output[start:].tolist() == found


@pytest.mark.parametrize("rule", [GREEDY, DRAWN])
def test_a_row_is_the_same_in_every_batch(loaded, premises, rule):
    requests = loaded.requests(premises[:30], [0.3, 0.0, 0.2] * 10)
    expected = loaded.decode(requests, rule)
    order = list(range(len(requests)))
    for size in (1, 7, 20):
        random.Random(size).shuffle(order)
        found = loaded.decode_in_batches([requests[i] for i in order], size, rule)
        assert found == [expected[i] for i in order]


@pytest.mark.parametrize("tie_gap", [0.3, float("inf")])
def test_close_choices_are_made_alone_and_come_out_the_same(loaded, premises, tie_gap):
    requests = loaded.requests(premises[:30], 0.3)
    calls = []

    def read(prompts):
        calls.append(len(prompts))
        return loaded.read(prompts)

    usage = Usage()
    written = decode(read, requests, GREEDY._replace(tie_gap=tie_gap), loaded.ends, usage=usage)
    counted = usage.take()
    assert counted["ties"] == len(calls) - 1
    assert counted["tie_seconds"] > 0
    assert [row.tokens for row in written] == loaded.decode(requests)
    assert all(row.certain for row in written)
    assert calls[0] > 2
    assert len(calls) > 5
    assert set(calls[1:]) == {2}


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_drawn_tokens_equal_the_reference_with_the_same_numbers(loaded, premises, temperature, top_p):
    requests = loaded.requests(premises[:15], 0.3)
    rule = DRAWN._replace(temperature=temperature, top_p=top_p, seed=11)
    found = loaded.decode(requests, rule)
    for tokens, r in zip(found, requests, strict=True):
        choose = drawer(rule.seed, r.row_id, r.direction, temperature, top_p)
        assert write(loaded.model, r.main, r.noisy, r.omega, MAX_NEW_TOKENS, choose)[0] == tokens
    assert found != loaded.decode(requests, rule._replace(seed=8))


def test_a_stop_string_ends_a_hypothesis(loaded, premises):
    requests = loaded.requests(premises[:40], 0.3)
    whole = loaded.decode(requests)
    ends = loaded.ends_at(["a", "er"])
    for full, row in zip(whole, decode(loaded.read, requests, GREEDY, ends), strict=True):
        assert full[: len(row.tokens)] == row.tokens
        text, num_tokens = ends.text(row.tokens)
        assert "a" not in text
        assert "er" not in text
        assert row.finished == (len(row.tokens) < MAX_NEW_TOKENS or ends.ended(row.tokens))
        assert num_tokens == len(row.tokens) - (row.tokens[-1] in loaded.model.generation_config.eos_token_id)
        if len(row.tokens) > 1:
            before = loaded.tokenizer.decode(row.tokens[:-1], skip_special_tokens=True)
            assert "a" not in before
            assert "er" not in before


def reference_of(loaded, request, rule):
    choose = None
    if rule.temperature > 0:
        choose = drawer(rule.seed, request.row_id, request.direction, rule.temperature, rule.top_p)
    return write(
        loaded.model,
        request.main,
        request.noisy,
        request.omega,
        MAX_NEW_TOKENS,
        choose,
        min_new_tokens=rule.min_new_tokens,
        bad_words=rule.bad_words,
    )


def favourites(hypotheses):
    """What a model writes most: a token, a sequence of two tokens and one of three."""
    parts = [Counter(), Counter(), Counter()]
    for tokens in hypotheses:
        for size, counter in enumerate(parts, 1):
            counter.update(tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1))
    return tuple(counter.most_common(1)[0][0] for counter in parts)


@pytest.mark.parametrize("rule", [GREEDY, DRAWN])
def test_a_least_length_equals_the_reference_that_rules_ends_out(loaded, premises, rule):
    requests = loaded.requests(premises[:16], [0.3, 0.0] * 8)
    rule = rule._replace(min_new_tokens=5)
    found = loaded.decode(requests, rule)
    expected = [reference_of(loaded, request, rule) for request in requests]
    agree(found, [tokens for tokens, _ in expected], [gap for _, gap in expected])
    assert min(map(len, found)) >= 6
    assert min(map(len, loaded.decode(requests, rule._replace(min_new_tokens=0)))) < 6


@pytest.mark.parametrize("rule", [GREEDY, DRAWN])
def test_bad_words_of_one_and_more_tokens_equal_the_reference(loaded, premises, rule):
    requests = loaded.requests(premises[:10], [0.3, 0.0] * 5)
    plain = loaded.decode(requests, rule)
    rule = rule._replace(bad_words=favourites(plain), min_new_tokens=2)
    found = loaded.decode(requests, rule)
    expected = [reference_of(loaded, request, rule) for request in requests]
    agree(found, [tokens for tokens, _ in expected], [gap for _, gap in expected])
    assert sum(a != b for a, b in zip(found, plain, strict=True)) > 2
    for word in rule.bad_words:
        assert not any(holds(tokens, word) for tokens in found)


def test_each_bad_word_changes_what_held_it_and_nothing_else(loaded, premises):
    requests = loaded.requests(premises[:15], 0.3)
    plain = loaded.decode(requests)
    for word in favourites(plain):
        found = loaded.decode(requests, GREEDY._replace(bad_words=(word,)))
        is_changed = [a != b for a, b in zip(found, plain, strict=True)]
        assert is_changed == [holds(tokens, word) for tokens in plain]
        assert any(is_changed)


def holds(tokens, word):
    return any(tuple(tokens[i : i + len(word)]) == word for i in range(len(tokens)))


def test_a_bad_word_is_ruled_out_at_the_start_and_after_a_space(loaded):
    def encode(text):
        return tuple(loaded.tokenizer.encode(text, add_special_tokens=False))

    assert bad_word_tokens(loaded.tokenizer, [" man", "man"]) == (encode("man"), encode(" man"))
    assert bad_word_tokens(loaded.tokenizer, ["zzz qqq"])[0] == encode("zzz qqq")
    assert bad_word_tokens(loaded.tokenizer, []) == ()


def test_logits_that_are_no_numbers_are_noticed(loaded, premises):
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight[3] = float("nan")
    written = decode(loaded.read, loaded.requests(premises[:2], 0.3), GREEDY, loaded.ends)
    assert not any(row.certain for row in written)
