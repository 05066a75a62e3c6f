"""Cost of exactness on vLLM: pairs against plain sequences, draws, and expected scores. Needs `make vllm`.

python benchmarks/pair_costs.py --model DIR [--prompts fewshot] [--premises 16] [--rounds 20] [--name NAME]

Hypotheses end as they do in real runs, on captions of the demo. Plain vLLM reads the same two prompts of
every hypothesis and writes the same number of tokens after each. "With the tie rule" decides choices closer
than the tie gap alone, as an engine does whose logits depend on the batch. CPU seconds are those of all
processes.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from generation import DEMO, read_premises
from interleaved import interleave, quartiles, show, write_result

from multicsr.config import Config
from multicsr.llm.request import DecodedTokens, HypothesisRequest, SamplingParams
from multicsr.llm.token_engine import DRAW_GAP, TIE_GAP
from multicsr.llm.vllm.engine import VllmEngine
from multicsr.llm.vllm.launch import TokenRequest
from multicsr.rows import row_id

OMEGA = 0.3
SLOW_ROUNDS = 5
"""Number of rounds where ratios are far from 1."""


class Bench:
    """An engine, and the requests of some premises in token ids."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        config = Config.model_validate(
            {
                "name": "bench",
                "store": "bench",
                "input": {"paths": [str(DEMO)]},
                "llm": {"model": arguments.model, "engine": "vllm"},
                "generate": {
                    "prompts": arguments.prompts,
                    "max_new_tokens": arguments.tokens,
                    "batch_size": arguments.premises,
                },
            }
        )
        self.engine = VllmEngine(config)
        self.premises = read_premises(arguments.premises)
        self.requests: list[HypothesisRequest] = []
        self.prompts = self.engine._prompts
        for premise in self.premises:
            name = row_id(premise, "en")
            pair = self.prompts.pair(premise, name, seed=config.seed)
            e, c = self.engine.tokens.encode([pair.entailment, pair.contradiction])
            self.requests.append(HypothesisRequest(e, c, OMEGA, name, "entailment"))
            self.requests.append(HypothesisRequest(c, e, OMEGA, name, "contradiction"))

    def pairs(self, rule: SamplingParams) -> list[DecodedTokens]:
        """Write all hypotheses."""
        return [
            row
            for row in self.engine.write(self.requests, rule, self.engine._ends)
            if isinstance(row, DecodedTokens)
        ]

    def plain(self, lengths: Sequence[int]) -> None:
        """Write as many tokens after each prompt of every hypothesis, as sequences of their own."""
        vllm = self.engine._vllm
        works: list[Callable[[], Awaitable[object]]] = [
            partial(vllm.complete, prompt, TokenRequest(length))
            for request, length in zip(self.requests, lengths, strict=True)
            for prompt in (request.main, request.noisy)
        ]

        async def everything() -> None:
            await asyncio.gather(*(work() for work in works))

        asyncio.run_coroutine_threadsafe(everything(), self.engine._loop).result()

    def counted(self, work: Callable[[], object]) -> dict[str, float]:
        """Return what the engine counted during some work."""
        self.engine.usage.take()
        work()
        self.engine._note()
        return self.engine.usage.take()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", default="fewshot")
    parser.add_argument("--premises", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--name", default="pair_costs")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    figures: dict[str, object] = {
        "arguments": {**vars(arguments), "model": arguments.model.rstrip("/").rsplit("/", 1)[-1]},
        "batch_invariant": bench.engine._tie_gap == 0,
    }
    for measure in (partial(measure_pairs, rounds=arguments.rounds), measure_scores, measure_draws):
        figures |= measure(bench)
        write_result(arguments.name, figures)
    bench.engine.close()


def measure_pairs(bench: Bench, rounds: int) -> dict[str, object]:
    """Compare pairs with plain sequences of the same number of tokens."""
    rule = bench.engine._rule
    ruled = rule._replace(tie_gap=TIE_GAP)
    written = bench.pairs(rule)
    if [row.tokens for row in bench.pairs(ruled)] != [row.tokens for row in written]:
        raise SystemExit("the tie rule changed a row")
    lengths = [len(row.tokens) for row in written]
    counts = {
        "pairs": bench.counted(lambda: bench.pairs(rule)),
        "with the tie rule": bench.counted(lambda: bench.pairs(ruled)),
        "plain": bench.counted(lambda: bench.plain(lengths)),
    }
    taken = interleave(
        {
            "plain": lambda: bench.plain(lengths),
            "pairs": lambda: bench.pairs(rule),
            "ruled": lambda: bench.pairs(ruled),
        },
        rounds,
    )
    print(f"{len(lengths)} hypotheses, {sum(lengths)} tokens, {sum(row.finished for row in written)} ended")
    for name, counted in counts.items():
        print(f"    {name}: {counted['engine_steps']:.0f} steps, {counted['ties']:.0f} ties")
    now, before = quartiles(taken["plain"], taken["pairs"]), quartiles(taken["plain"], taken["ruled"])
    show("plain vLLM / pairs; target at least 0.95", now)
    show("the same, pairs with the tie rule", before)
    return {"tokens": sum(lengths), "counts": counts, "plain_over_pairs": now, "plain_over_ruled": before}


def measure_draws(bench: Bench) -> dict[str, object]:
    """Compare draws with the engine's tie gap, and with the tie rule, with draws that have none."""
    free = bench.engine._rule._replace(temperature=1.0, top_p=0.95, tie_gap=0.0)
    now = free._replace(tie_gap=min(DRAW_GAP, bench.engine._tie_gap))
    ruled = free._replace(tie_gap=DRAW_GAP)
    counts = {
        "draws": bench.counted(lambda: bench.pairs(now)),
        "with the tie rule": bench.counted(lambda: bench.pairs(ruled)),
    }
    taken = interleave(
        {
            "free": lambda: bench.pairs(free),
            "now": lambda: bench.pairs(now),
            "ruled": lambda: bench.pairs(ruled),
        },
        SLOW_ROUNDS,
    )
    now_ratio, ruled_ratio = quartiles(taken["now"], taken["free"]), quartiles(taken["ruled"], taken["free"])
    for name, counted in counts.items():
        print(f"    {name}: {counted['ties']:.0f} tokens decided alone")
    show("draws at T = 1, top_p 0.95 / the same without the tie rule; target at most 1.3", now_ratio)
    show("the same, draws with the tie rule", ruled_ratio)
    return {"draw_counts": counts, "draws_over_free": now_ratio, "ruled_draws_over_free": ruled_ratio}


def measure_scores(bench: Bench) -> dict[str, object]:
    """Compare stated scores with expected ones, with and without the tie rule."""
    engine, labels = bench.engine, bench.prompts.score_labels
    following = bench.premises[1:] + bench.premises[:1]
    scoring = [
        prompt
        for a, b in zip(bench.premises, following, strict=True)
        for prompt in (bench.prompts.scoring(a, b), bench.prompts.scoring(a, a))
    ]
    tie_gap = engine._tie_gap

    def expected(tie_gap: float) -> None:
        engine._tie_gap = tie_gap
        engine.label_probabilities(scoring, labels)

    counted = bench.counted(lambda: expected(tie_gap))
    taken = interleave(
        {
            "stated": lambda: engine.reply(scoring, bench.premises * 2, 8),
            "expected": lambda: expected(tie_gap),
            "ruled": lambda: expected(TIE_GAP),
        },
        SLOW_ROUNDS,
    )
    engine._tie_gap = tie_gap
    now, before = quartiles(taken["stated"], taken["expected"]), quartiles(taken["stated"], taken["ruled"])
    show("stated / expected scores; target at least 3", now)
    show("the same, expected scores with the tie rule", before)
    return {"score_counts": counted, "stated_over_expected": now, "stated_over_ruled": before}


if __name__ == "__main__":
    main()
