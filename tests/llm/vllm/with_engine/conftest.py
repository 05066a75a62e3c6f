"""Real vLLM engines on the shipped LM, and what the transformers decoder writes for the same requests."""

import asyncio
import csv
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from multicsr.llm.request import HypothesisRequest, SamplingParams
from multicsr.llm.stopping import StopCriteria
from multicsr.llm.token_engine import DRAW_GAP, TIE_GAP
from multicsr.llm.transformers.decode import decode
from multicsr.llm.transformers.kv_cache import CausalBranches
from multicsr.llm.vllm.engine import choose_sentinels
from multicsr.llm.vllm.launch import Vllm
from multicsr.llm.vllm.pair_client import PairClient
from multicsr.models.resolve import ASSETS
from multicsr.prompts import load_prompts
from multicsr.rows import row_id

PREMISES = 250
NOISE = 2e-5  # logits; measured between batches of other sizes in float32
GREEDY = SamplingParams(max_new_tokens=24, temperature=0.0, top_p=1.0, seed=7, tie_gap=TIE_GAP)
DRAWN = GREEDY._replace(temperature=0.8, top_p=0.9, tie_gap=DRAW_GAP)
LOOP = asyncio.new_event_loop()  # an engine lives in the loop that it was first used from
LARGE = {"max_num_seqs": 64, "max_num_batched_tokens": 2048}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "with_engine":
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(600))


def read_premises(count):
    """Real sentences of the demo."""
    with (ASSETS / "demo" / "sentences.tsv").open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row["sentence"] for row, _ in zip(rows, range(count), strict=False)]


class Shipped:
    """The shipped LM under transformers."""

    def __init__(self):
        self.tokenizer = AutoTokenizer.from_pretrained(ASSETS / "tinylm")
        self.model = AutoModelForCausalLM.from_pretrained(ASSETS / "tinylm", dtype=torch.float32).eval()
        self.eos = self.model.generation_config.eos_token_id
        self.vocab_size = self.model.config.vocab_size
        self.prompts = load_prompts("syncse")

    def ends(self, stop=()):
        return StopCriteria(self.tokenizer, self.eos, self.vocab_size, stop)

    def requests(self, premises, omega=0.3):
        """Both directions of every premise."""
        requests = []
        for premise in premises:
            identity = row_id(premise, "en")
            pair = self.prompts.pair(premise, identity, seed=1)
            e, c = self.tokenizer([pair.entailment, pair.contradiction])["input_ids"]
            requests.append(HypothesisRequest(e, c, omega, identity, "entailment"))
            requests.append(HypothesisRequest(c, e, omega, identity, "contradiction"))
        return requests

    def write(self, requests, rule=GREEDY, stop=()):
        """The reference: what multicsr.llm.transformers.decode writes."""
        torch.set_num_threads(2)
        read, ends = partial(CausalBranches, self.model), self.ends(stop)
        parts = [requests[start : start + 128] for start in range(0, len(requests), 128)]
        return [written for part in parts for written in decode(read, part, rule, ends)]

    def gap(self, request, tokens):
        """(Gap in Eq. 2, the two logits) of the two tokens that lead after these tokens."""
        with torch.inference_mode():
            main, noisy = (
                self.model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].double()
                for prompt in (request.main, request.noisy)
            )
        first, second = (main - request.omega * noisy).topk(2).values.tolist()
        return first - second, (first, second)


@pytest.fixture(scope="session")
def shipped():
    return Shipped()


@pytest.fixture(scope="session")
def requests(shipped):
    return shipped.requests(read_premises(PREMISES))


@pytest.fixture(scope="session")
def expected(shipped, requests):
    return shipped.write(requests)


@contextmanager
def started(gangs=True, **limits):
    """An engine on the shipped LM; ends with its processes."""
    arguments = {
        "model": str(ASSETS / "tinylm"),
        "dtype": "float32",
        "max_model_len": 256,
        "block_size": 32,
        "enforce_eager": True,
        "kv_cache_memory_bytes": 2**28,
        **limits,
    }
    engine = Vllm(arguments, gangs=gangs)
    try:
        yield engine
    finally:
        LOOP.run_until_complete(engine.close())


@pytest.fixture(scope="session")
def large_engine():
    """An engine with room for everything, and prefix caching."""
    with started(**LARGE, enable_prefix_caching=True) as engine:
        yield engine


def make_client(shipped, engine, stop=(), bad_words=()):
    sentinels = choose_sentinels(shipped.tokenizer, shipped.vocab_size, shipped.ends().eos)
    return PairClient(engine, shipped.ends(stop), sentinels, bad_words)


def write_all(client, requests, rule=GREEDY, at_once=96, beside=()):
    """Every request through the client, `at_once` in the air; coroutines `beside` run along."""

    async def everything():
        seats = asyncio.Semaphore(at_once)

        async def one(request):
            async with seats:
                return await client.write(request, rule)

        tasks = [asyncio.create_task(work) for work in beside]
        written = await asyncio.gather(*map(one, requests))
        for task in tasks:
            await task
        return written

    return LOOP.run_until_complete(asyncio.wait_for(everything(), 240))


def assert_same(shipped, requests, expected, found):
    """Every token equal; where one is not, the two leading logits are shown and must be a float tie."""
    for request, ours, theirs in zip(requests, expected, found, strict=True):
        if ours.tokens == theirs.tokens:
            assert ours.finished == theirs.finished
            continue
        pairs = zip(ours.tokens, theirs.tokens, strict=False)
        same = next(i for i, (a, b) in enumerate(pairs) if a != b)
        gap, logits = shipped.gap(request, ours.tokens[:same])
        assert gap < NOISE, f"{ours.tokens} became {theirs.tokens}; the leading logits were {logits}"
