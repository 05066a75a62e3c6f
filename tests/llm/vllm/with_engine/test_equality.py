"""An engine with room for everything writes what the transformers decoder writes, token for token."""

import asyncio
import random

import numpy as np

from multicsr.llm.stopping import bad_word_tokens
from multicsr.llm.vllm.launch import TokenRequest
from tests.llm.vllm.with_engine.conftest import (
    DRAWN,
    GREEDY,
    LOOP,
    assert_same,
    make_client,
    read_premises,
    write_all,
)


def test_greedy_hypotheses_of_both_directions_are_equal(shipped, large_engine, requests, expected):
    client = make_client(shipped, large_engine)
    assert_same(shipped, requests, expected, write_all(client, requests))
    assert len({tuple(row.tokens) for row in expected}) > 450
    assert client.counts.out_of_step == 0
    assert client.counts.in_flight == 0
    assert large_engine.gauges.preemptions == 0


def test_drawn_hypotheses_are_equal_with_the_same_numbers(shipped, large_engine, requests):
    expected = shipped.write(requests[:400], DRAWN)
    client = make_client(shipped, large_engine)
    assert_same(shipped, requests[:400], expected, write_all(client, requests[:400], DRAWN))
    other = write_all(client, requests[:50], DRAWN._replace(seed=8))
    assert [row.tokens for row in other] != [row.tokens for row in expected[:50]]
    again = write_all(client, list(reversed(requests[:50])), DRAWN, at_once=7)
    assert [row.tokens for row in reversed(again)] == [row.tokens for row in expected[:50]]


def test_every_row_has_its_own_omega(shipped, large_engine, requests):
    omegas = [0.0, 0.2, 0.3, 0.9]
    mixed = [request._replace(omega=omegas[i % 4]) for i, request in enumerate(requests[:200])]
    expected = shipped.write(mixed)
    assert_same(shipped, mixed, expected, write_all(make_client(shipped, large_engine), mixed))


def test_least_length_stop_strings_and_bad_words_act_as_in_the_reference(shipped, large_engine, requests):
    words = ["a", "man", "in the", "playing"]
    rule = GREEDY._replace(min_new_tokens=9, bad_words=bad_word_tokens(shipped.tokenizer, words))
    assert any(len(tokens) > 1 for tokens in rule.bad_words)
    expected = shipped.write(requests[:200], rule, stop=["ing", "."])
    client = make_client(shipped, large_engine, stop=["ing", "."], bad_words=words)
    assert_same(shipped, requests[:200], expected, write_all(client, requests[:200], rule))
    free = shipped.write(requests[:200], stop=["ing", "."])
    assert sum(a.tokens != b.tokens for a, b in zip(expected, free, strict=True)) > 60


def test_choices_that_are_too_close_are_made_alone_and_come_out_the_same(
    shipped, large_engine, requests, expected
):
    client = make_client(shipped, large_engine)
    found = write_all(client, requests[:100], GREEDY._replace(tie_gap=0.5))
    assert_same(shipped, requests[:100], expected[:100], found)
    assert client.counts.ties > 50
    assert client.counts.out_of_step == 0


def test_pairs_share_the_engine_with_plain_and_scoring_requests(shipped, large_engine, requests, expected):
    prompts = shipped.tokenizer(read_premises(200))["input_ids"]
    labels = tuple(range(20, 26))

    plain = [TokenRequest(12, stop_tokens=(shipped.eos,)), TokenRequest(1, logprobs_of=labels)]
    undisturbed = [
        LOOP.run_until_complete(large_engine.complete(prompt, plain[i % 2]))
        for i, prompt in enumerate(prompts[:40])
    ]
    answers = []

    async def beside(i, prompt):
        await asyncio.sleep(random.Random(i).random())
        answers.append((i, await large_engine.complete(prompt, plain[i % 2])))

    client = make_client(shipped, large_engine)
    works = [beside(i, prompt) for i, prompt in enumerate(prompts)]
    found = write_all(client, requests, beside=works)
    assert_same(shipped, requests, expected, found)
    assert client.counts.out_of_step == 0
    assert len(answers) == 200
    for i, answer in answers:
        if i < 40:
            assert answer.tokens == undisturbed[i].tokens
            mine, theirs = answer.logprobs, undisturbed[i].logprobs
            assert all(np.isclose(mine[label], theirs[label], atol=1e-4) for label in theirs)
