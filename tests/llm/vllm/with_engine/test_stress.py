"""Pairs stay in step and write the same under every limit and every accident, alone and all together."""

import asyncio
import random

import pytest

from multicsr.llm.vllm.launch import TokenRequest
from tests.llm.vllm.with_engine.conftest import LARGE, assert_same, make_client, started, write_all

LIMITS = {
    "a KV cache in which most pairs must wait": {**LARGE, "num_gpu_blocks_override": 40},
    "a step smaller than the prompts of a pair": {"max_num_seqs": 16, "max_num_batched_tokens": 24},
    "an odd number of seats": {**LARGE, "max_num_seqs": 7},
    "no prefix caching": {**LARGE, "enable_prefix_caching": False},
}
EVERYTHING = {"max_num_seqs": 9, "max_num_batched_tokens": 24, "num_gpu_blocks_override": 30}


class Accidents:
    """An engine whose requests arrive late and out of order, and of which some are aborted."""

    def __init__(self, engine, seed, longest_delay_s, abort_share):
        self._engine = engine
        self._random = random.Random(seed)
        self._delay_s, self._abort_share = longest_delay_s, abort_share
        self._names = iter(f"accident {i}" for i in range(10**9))
        self.aborted = 0

    async def complete(self, prompt, asked):
        await asyncio.sleep(self._random.random() * self._delay_s)
        name = next(self._names)
        killer = None
        if asked.metadata and not asked.metadata.alone and self._random.random() < self._abort_share:
            killer = asyncio.create_task(self._abort(name, self._random.random() * 0.3))
        answer = await self._engine.complete(prompt, asked, name)
        if killer is not None:
            killer.cancel()
        return answer

    async def _abort(self, name, after_s):
        await asyncio.sleep(after_s)
        self.aborted += 1
        await self._engine.abort(name)


@pytest.mark.slow  # all of them act together in `test_everything_at_once`
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_pairs_stay_in_step_within(limits, shipped, requests, expected):
    with started(**limits) as engine:
        client = make_client(shipped, engine)
        assert_same(shipped, requests, expected, write_all(client, requests))
        assert client.counts.out_of_step == 0
        assert engine.gauges.preemptions == 0


@pytest.mark.slow  # an engine of its own
def test_pairs_stay_in_step_while_two_steps_are_in_flight(shipped, requests, expected, monkeypatch):
    from vllm import AsyncEngineArgs

    create = AsyncEngineArgs.create_engine_config

    def ahead(self, *args, **kwargs):
        config = create(self, *args, **kwargs)
        config.scheduler_config.async_scheduling = True  # a CPU is not asked for it
        return config

    monkeypatch.setattr(AsyncEngineArgs, "create_engine_config", ahead)
    with started(**EVERYTHING) as engine:
        client = make_client(shipped, engine)
        assert_same(shipped, requests, expected, write_all(client, requests))
        assert client.counts.out_of_step == 0


def test_members_that_come_far_apart_or_are_aborted(shipped, large_engine, requests, expected):
    late = make_client(shipped, Accidents(large_engine, 1, longest_delay_s=0.3, abort_share=0.0))
    assert_same(shipped, requests, expected, write_all(late, requests, at_once=300))
    assert late.counts.out_of_step == 0
    accidents = Accidents(large_engine, 2, longest_delay_s=0.1, abort_share=0.2)
    torn = make_client(shipped, accidents)
    assert_same(shipped, requests, expected, write_all(torn, requests, at_once=200))
    assert accidents.aborted > 40
    assert 0 < torn.counts.out_of_step <= accidents.aborted


def test_everything_at_once(shipped, requests, expected):
    with started(**EVERYTHING, enable_prefix_caching=True) as engine:
        accidents = Accidents(engine, 3, longest_delay_s=0.2, abort_share=0.05)
        client = make_client(shipped, accidents)
        beside = [
            engine.complete(r.main, TokenRequest(6, stop_tokens=(shipped.eos,))) for r in requests[:100]
        ]
        beside += [engine.complete(r.main, TokenRequest(1, logprobs_of=(20, 21))) for r in requests[:100]]
        found = write_all(client, requests, at_once=60, beside=beside)
        assert_same(shipped, requests, expected, found)
        assert client.counts.out_of_step <= accidents.aborted
        assert engine.gauges.preemptions == 0


@pytest.mark.slow  # an engine of its own
def test_without_the_pair_scheduler_pairs_come_apart_and_nothing_wrong_is_written(
    shipped, requests, expected
):
    few, right = requests[:200], expected[:200]
    with started(
        gangs=False, max_num_seqs=7, max_num_batched_tokens=512, num_gpu_blocks_override=40
    ) as engine:
        client = make_client(shipped, engine)
        assert_same(shipped, few, right, write_all(client, few, at_once=24))
        assert client.counts.out_of_step > 20
        late = make_client(shipped, Accidents(engine, 4, longest_delay_s=0.02, abort_share=0.0))
        assert_same(shipped, few[:40], right[:40], write_all(late, few[:40], at_once=3))
        assert late.counts.out_of_step > 20
