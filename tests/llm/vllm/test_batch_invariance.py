"""The trial notices every way in which logits can depend on more than the prompt."""

import asyncio

import pytest

from multicsr.llm.vllm import batch_invariance
from multicsr.llm.vllm.batch_invariance import is_batch_invariant
from multicsr.llm.vllm.launch import EngineAnswer, RowFailed
from multicsr.llm.vllm.pair_metadata import Sentinels

VOCAB = 1000
LAST_DIGIT = 2e-16


class FakeEngine:
    """An engine whose log-probabilities are a function of the text, plus a last digit where `noise` applies.

    `noise` gets the number of requests in flight, whether the prefix cache may be read, and the request.
    """

    max_model_len = 200

    def __init__(self, noise):
        self._noise = noise
        self._in_flight = 0
        self.longest = 0

    async def complete(self, prompt, asked):
        self._in_flight += 1
        await asyncio.sleep(0)
        at_once = self._in_flight
        await asyncio.sleep(0)
        self._in_flight -= 1
        tokens = [(sum(prompt) + i) % VOCAB for i in range(asked.max_tokens)]
        text = [*prompt, *tokens[:-1]]
        self.longest = max(self.longest, len(prompt) + asked.max_tokens)
        is_noisy = self._noise(at_once, asked.metadata is None, len(prompt), asked)
        return EngineAnswer(
            tokens,
            ended=False,
            logprobs={
                token: -1.0 - (sum(text) * 31 + token) % 97 / 97 + LAST_DIGIT * 4 * is_noisy
                for token in asked.logprobs_of
            },
        )


def tried(noise):
    engine = FakeEngine(noise)
    passed = asyncio.run(is_batch_invariant(engine, VOCAB, Sentinels(0, 1)))
    assert engine.longest <= engine.max_model_len
    return passed


def test_a_function_of_the_prompt_passes():
    assert tried(lambda at_once, cached, length, asked: False)


def test_a_trial_that_takes_too_long_has_failed(monkeypatch):
    monkeypatch.setattr(batch_invariance, "LONGEST_TRIAL_S", 0.0)
    assert not tried(lambda at_once, cached, length, asked: False)


def test_a_request_without_an_answer_is_no_proof():
    def fail(at_once, cached, length, asked):
        if length == 17:
            raise RowFailed("no memory for this request")
        return False

    assert not tried(fail)


@pytest.mark.parametrize(
    "noise",
    [
        lambda at_once, cached, length, asked: at_once > 1,
        lambda at_once, cached, length, asked: cached,
        lambda at_once, cached, length, asked: cached and at_once == 1,
        lambda at_once, cached, length, asked: asked.max_tokens > 1,
        lambda at_once, cached, length, asked: cached and length == 1,
        lambda at_once, cached, length, asked: cached and length == 129,
    ],
    ids=["batch", "cache", "cache, one at a time", "written tokens", "one row", "one length"],
)
def test_a_last_digit_that_depends_on_more_fails(noise):
    assert not tried(noise)


def test_logits_that_are_not_numbers_fail():
    assert not tried(lambda at_once, cached, length, asked: float("nan"))
