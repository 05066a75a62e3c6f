"""What the noisy branch costs, and what lockstep batching and expected scores save: ratios from one run.

python benchmarks/generation.py [--model tinylm] [--prompts syncse] [--premises 64] [--tokens 16]
                                [--rounds 5] [--guided 32]

Hypotheses are all --tokens long, so that equal work is compared. Ways that are compared take turns, and the
median of their ratios counts. One thread; decoder-only models.

The authors' loop is the one of their released scripts: `generate` on 16 prompts at a time, all that ask for a
contradiction, then all that ask for an entailment, without contrast; and each premise scored alone, in text.
Ours writes the same number of tokens with contrast, in one batch, and reads the expected scores.
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
from multicsr.llm.transformers.engine import TransformersEngine
from multicsr.models.llm_weights import resolve_llm
from multicsr.models.resolve import ASSETS, quiet_loading
from multicsr.prompts import PromptPair, load_prompts
from multicsr.rows import row_id

OMEGA = 0.3
DEMO = ASSETS / "demo" / "sentences.tsv"
AUTHORS_BATCH = 16
SCORE_TOKENS = 8


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


def authors_loop(
    engine: TransformersEngine,
    model: PreTrainedModel,
    pairs: Sequence[PromptPair],
    scoring: Sequence[str],
    num_tokens: int,
) -> None:
    """The authors' loop; `scoring` has the two prompts of each premise one after the other."""
    for start in range(0, len(pairs), AUTHORS_BATCH):
        batch = pairs[start : start + AUTHORS_BATCH]
        for prompts in ([pair.contradiction for pair in batch], [pair.entailment for pair in batch]):
            greedy(model, engine.tokens.encode(prompts), min_new_tokens=num_tokens, max_new_tokens=num_tokens)
    for start in range(0, len(scoring), 2):
        greedy(model, engine.tokens.encode(scoring[start : start + 2]), max_new_tokens=SCORE_TOKENS)


def greedy(model: PreTrainedModel, prompts: Sequence[Sequence[int]], **limits: int) -> None:
    """transformers' own batched generation."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model.generate(input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=0, **limits)


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
    parser.add_argument("--prompts", default="syncse")
    parser.add_argument("--premises", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--guided", type=int, default=32, help="hypotheses for guidance_scale; 0: left out")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    tree = {
        "name": "bench",
        "store": "bench",
        "input": {"paths": [str(DEMO)]},
        "llm": {"model": arguments.model},
        "generate": {"prompts": arguments.prompts},
    }
    chosen = load_prompts(arguments.prompts)
    config = Config.model_validate(tree)
    engine = TransformersEngine(config)
    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(resolve_llm(config.llm), dtype=torch.float32).eval()
    premises = read_premises(arguments.premises)
    pairs = [chosen.pair(premise, row_id(premise, "en"), seed=42) for premise in premises]

    rule = SamplingParams(arguments.tokens, temperature=0.0, top_p=1.0, seed=42, tie_gap=TIE_GAP)
    write = partial(engine.write, rule=rule, ends=NeverEnds())
    contrastive, plain = make_requests(engine, pairs, OMEGA), make_requests(engine, pairs, 0.0)
    found, slow_s, fast_s = ratio(lambda: write(contrastive), lambda: write(plain), arguments.rounds)
    print(f"contrastive / plain, {len(plain)} hypotheses of {arguments.tokens} tokens:")
    print(f"    {found:.2f} times as long ({slow_s:.2f} s, {fast_s:.2f} s); target at most 2.1")

    if few := contrastive[: arguments.guided]:
        found, slow_s, fast_s = ratio(
            lambda: guided(model, few, arguments.tokens), lambda: write(few), max(2, arguments.rounds // 2)
        )
        print(f"transformers' guidance_scale / contrastive, {len(few)} hypotheses:")
        print(f"    {found:.1f} times as long ({slow_s:.2f} s, {fast_s:.2f} s); target at least 5")

    scoring = [chosen.scoring(a, b) for a, b in zip(premises, premises[1:] + premises[:1], strict=True)]
    found, slow_s, fast_s = ratio(
        lambda: engine.reply(scoring, premises, SCORE_TOKENS),
        lambda: engine.label_probabilities(scoring, chosen.score_labels),
        arguments.rounds,
    )
    print(f"score as text (at most {SCORE_TOKENS} tokens) / expected score, {len(scoring)} pairs:")
    print(f"    {found:.2f} times as long ({slow_s:.2f} s, {fast_s:.2f} s); target at least 3")

    both = [prompt for pair in zip(scoring, scoring[1:] + scoring[:1], strict=True) for prompt in pair]

    def ours() -> None:
        write(contrastive)
        engine.label_probabilities(both, chosen.score_labels)

    found, slow_s, fast_s = ratio(
        lambda: authors_loop(engine, model, pairs, both, arguments.tokens),
        ours,
        max(2, arguments.rounds // 2),
    )
    print(f"the authors' loop / contrastive generation and expected scores, {len(pairs)} premises:")
    print(f"    {found:.1f} times as long ({slow_s:.2f} s, {fast_s:.2f} s); target at least 5")


if __name__ == "__main__":
    main()
