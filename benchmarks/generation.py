"""What the noisy branch costs, and what lockstep batching and expected scores save: ratios from one run.

python benchmarks/generation.py [--model tinylm] [--premises 64] [--tokens 16] [--rounds 5]

Hypotheses are all --tokens long, so that equal work is compared. Ways that are compared take turns, and the
median of their ratios counts. One thread; decoder-only models.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from multicsr.config import Config
from multicsr.llm.request import HypothesisRequest, SamplingParams
from multicsr.llm.token_engine import TIE_GAP
from multicsr.llm.transformers.decode import decode
from multicsr.llm.transformers.engine import TransformersEngine
from multicsr.llm.transformers.kv_cache import CausalBranches
from multicsr.models.resolve import ASSETS, quiet_loading, resolve_model
from multicsr.prompts import PromptPair, load_prompts
from multicsr.rows import row_id

OMEGA = 0.3
DEMO = ASSETS / "demo" / "sentences.tsv"
GUIDED_BATCH = 32
PROMPTS = load_prompts("syncse")


class NeverEnds:
    """Lets every hypothesis run to the token limit."""

    eos: frozenset[int] = frozenset()
    stop: tuple[str, ...] = ()

    def ended(self, tokens: Sequence[int]) -> bool:
        return False


def ratio(slow: Callable[[], object], fast: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """(Median of time(slow) / time(fast), median seconds of slow, of fast) over interleaved rounds."""
    pairs = []
    for _ in range(rounds + 1):
        times = []
        for work in (slow, fast):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        pairs.append(times)
    pairs = pairs[1:]  # the first round warms up
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return statistics.median(a / b for a, b in pairs), medians[0], medians[1]


def guided(model: PreTrainedModel, requests: Sequence[HypothesisRequest], num_tokens: int) -> None:
    """transformers' own path, which takes one sequence at a time."""
    for request in requests:
        model.generate(
            input_ids=torch.tensor([request.main]),
            negative_prompt_ids=torch.tensor([request.noisy]),
            guidance_scale=1 / (1 - OMEGA),
            min_new_tokens=num_tokens,
            max_new_tokens=num_tokens,
            do_sample=False,
        )


def read_premises(count: int) -> list[str]:
    """The first sentences of the demo."""
    with DEMO.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row["sentence"] for row, _ in zip(rows, range(count), strict=False)]


def make_requests(
    engine: TransformersEngine, pairs: Sequence[PromptPair], omega: float
) -> list[HypothesisRequest]:
    requests = []
    for i, pair in enumerate(pairs):
        e, c = engine.tokens.encode([pair.entailment, pair.contradiction])
        requests += [HypothesisRequest(e, c, omega, str(i), "e"), HypothesisRequest(c, e, omega, str(i), "c")]
    return requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="tinylm")
    parser.add_argument("--premises", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    tree = {
        "name": "bench",
        "store": "bench",
        "input": {"paths": [str(DEMO)]},
        "llm": {"model": arguments.model},
    }
    engine = TransformersEngine(Config.model_validate(tree))
    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(resolve_model(arguments.model, "--model")).float().eval()
    premises = read_premises(arguments.premises)
    pairs = [PROMPTS.pair(premise, row_id(premise, "en"), seed=42) for premise in premises]

    rule = SamplingParams(arguments.tokens, temperature=0.0, top_p=1.0, seed=42, tie_gap=TIE_GAP)
    write = partial(decode, partial(CausalBranches, model), rule=rule, ends=NeverEnds())
    contrastive, plain = make_requests(engine, pairs, OMEGA), make_requests(engine, pairs, 0.0)
    found, slow_s, fast_s = ratio(lambda: write(contrastive), lambda: write(plain), arguments.rounds)
    print(f"contrastive / plain, {len(plain)} hypotheses of {arguments.tokens} tokens:")
    print(f"    {found:.2f} times as long ({slow_s:.2f} s, {fast_s:.2f} s); target at most 2.1")

    few = contrastive[:GUIDED_BATCH]
    found, slow_s, fast_s = ratio(
        lambda: guided(model, few, arguments.tokens), lambda: write(few), max(2, arguments.rounds // 2)
    )
    print(f"transformers' guidance_scale / contrastive, {len(few)} hypotheses:")
    print(f"    {found:.1f} times as long ({slow_s:.2f} s, {fast_s:.2f} s); target at least 5")

    scoring = [PROMPTS.scoring(a, b) for a, b in zip(premises, premises[1:] + premises[:1], strict=True)]
    found, slow_s, fast_s = ratio(
        lambda: engine.reply(scoring, premises, 8),
        lambda: engine.label_probabilities(scoring, PROMPTS.score_labels),
        arguments.rounds,
    )
    print(f"score as text (at most 8 tokens) / expected score, {len(scoring)} pairs:")
    print(f"    {found:.2f} times as long ({slow_s:.2f} s, {fast_s:.2f} s); target at least 3")


if __name__ == "__main__":
    main()
