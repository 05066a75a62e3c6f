"""What pairs cost on vLLM, and what vLLM saves: ratios from one run. Needs `make vllm`.

python benchmarks/vllm_pairs.py [--model tinylm] [--pairs 256] [--tokens 16] [--rounds 5]

Hypotheses are all --tokens long, so that equal work is compared. Ways that are compared take turns, and the
median of their ratios counts. On a CPU every model computes with one thread; vLLM schedules in processes
beside it. Speed does not need trained weights: --model may be a configuration with random ones.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import torch
from generation import (
    DEMO,
    GUIDED_BATCH,
    OMEGA,
    PROMPTS,
    NeverEnds,
    guided,
    make_requests,
    ratio,
    read_premises,
)
from transformers import AutoModelForCausalLM

from multicsr.config import Config
from multicsr.llm.request import HypothesisRequest, SamplingParams
from multicsr.llm.token_engine import TIE_GAP
from multicsr.llm.transformers.decode import decode
from multicsr.llm.transformers.engine import TransformersEngine
from multicsr.llm.transformers.kv_cache import CausalBranches
from multicsr.llm.vllm.engine import VllmEngine
from multicsr.llm.vllm.launch import TokenRequest
from multicsr.llm.vllm.pair_client import PairClient
from multicsr.models.resolve import quiet_loading, resolve_model
from multicsr.rows import row_id

SEQUENCES = 128


def make_config(model: str, engine: str) -> Config:
    return Config.model_validate(
        {
            "name": "bench",
            "store": "bench",
            "input": {"paths": [str(DEMO)]},
            "llm": {"model": model, "engine": engine},
            "generate": {"batch_size": SEQUENCES // 4},
        }
    )


class Paired:
    """The engine and its pair client, driven from the engine's own event loop."""

    def __init__(self, engine: VllmEngine, num_tokens: int, exact: bool) -> None:
        self._engine, self._vllm = engine, engine._vllm
        self._client = PairClient(engine._vllm, NeverEnds(), engine._sentinels)  # type: ignore[arg-type]
        self._rule = SamplingParams(num_tokens, 0.0, 1.0, 42, TIE_GAP if exact else 0.0)
        self.num_tokens = num_tokens

    def pairs(self, requests: Sequence[HypothesisRequest]) -> None:
        self._run([partial(self._client.write, request, self._rule) for request in requests])

    def plain(self, requests: Sequence[HypothesisRequest]) -> None:
        asked = TokenRequest(self.num_tokens)
        prompts = [prompt for request in requests for prompt in (request.main, request.noisy)]
        self._run([partial(self._vllm.complete, prompt, asked) for prompt in prompts])

    def _run(self, works: Sequence[Callable[[], Awaitable[object]]]) -> None:
        async def everything() -> None:
            await asyncio.gather(*(work() for work in works))

        asyncio.run_coroutine_threadsafe(everything(), self._engine._loop).result()


def chunks(requests: Sequence[HypothesisRequest], size: int) -> list[Sequence[HypothesisRequest]]:
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="tinylm")
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ours = TransformersEngine(make_config(arguments.model, "transformers"))
    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(resolve_model(arguments.model, "--model")).float().eval()
    premises = read_premises(arguments.pairs)
    pairs = [PROMPTS.pair(premise, row_id(premise, "en"), seed=42) for premise in premises]
    requests = make_requests(ours, pairs, OMEGA)[: arguments.pairs]
    engine = VllmEngine(make_config(arguments.model, "vllm"))
    paired = Paired(engine, arguments.tokens, exact=True)

    found, plain_s, pairs_s = ratio(
        lambda: paired.plain(requests), lambda: paired.pairs(requests), arguments.rounds
    )
    print(f"plain vLLM / pairs, {2 * len(requests)} sequences of {arguments.tokens} tokens:")
    print(f"    {found:.2f} of the throughput ({plain_s:.2f} s, {pairs_s:.2f} s); target at least 0.90")

    few = requests[:GUIDED_BATCH]
    found, slow_s, fast_s = ratio(
        lambda: guided(model, few, arguments.tokens), lambda: paired.pairs(few), max(2, arguments.rounds // 2)
    )
    print(f"transformers' guidance_scale / pairs, {len(few)} hypotheses:")
    print(f"    {found:.1f} times as long ({slow_s:.2f} s, {fast_s:.2f} s); target at least 5")

    half = requests[: SEQUENCES // 2]
    rule = SamplingParams(arguments.tokens, 0.0, 1.0, 42, TIE_GAP)
    write = partial(decode, partial(CausalBranches, model), rule=rule, ends=NeverEnds())
    found, slow_s, fast_s = ratio(lambda: write(half), lambda: paired.pairs(half), arguments.rounds)
    print(f"our transformers engine / pairs, {SEQUENCES} sequences:")
    print(f"    {found:.2f} times as long ({slow_s:.2f} s, {fast_s:.2f} s); target at least 1.5")

    found, slow_s, fast_s = ratio(
        lambda: [ours.write(part, ours._rule, ours._ends) for part in chunks(requests, SEQUENCES // 2)],
        lambda: engine.write(requests, engine._rule, engine._ends),
        arguments.rounds,
    )
    print(f"the same, {len(requests)} hypotheses of their own lengths, {SEQUENCES} sequences at once:")
    print(f"    {found:.2f} times as long ({slow_s:.2f} s, {fast_s:.2f} s); target at least 1.5")

    scoring = [PROMPTS.scoring(a, b) for a, b in zip(premises, premises[1:] + premises[:1], strict=True)]
    found, slow_s, fast_s = ratio(
        lambda: engine.reply(scoring, premises, 8),
        lambda: engine.label_probabilities(scoring, PROMPTS.score_labels),
        arguments.rounds,
    )
    print(f"score as text (at most 8 tokens) / expected score, {len(scoring)} pairs:")
    print(f"    {found:.2f} times as long ({slow_s:.2f} s, {fast_s:.2f} s); target at least 3")
    engine.close()


if __name__ == "__main__":
    main()
