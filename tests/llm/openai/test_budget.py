"""Budgets: never exceeded, used to the last request, shared by threads."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from multicsr.config import LLMConfig
from multicsr.errors import BudgetSpent
from multicsr.llm.openai.budget import Budget, TokenCount, most_tokens
from multicsr.prompts import load_prompts
from tests.support.chat_server import engine_at, said, serving

PRICES = {"price_per_million_prompt_tokens": 2.0, "price_per_million_completion_tokens": 10.0}


def make_budget(**settings):
    return Budget(LLMConfig(engine="openai", base_url="http://x", **settings))


def spend(budget, most, used):
    """Reserve for one request and pay for it."""
    with budget.reserve([most]) as reservation:
        reservation.cover(most)
        reservation.charge(used)


def test_request_that_could_exceed_the_budget_is_not_sent():
    budget = make_budget(max_tokens=100)
    spend(budget, TokenCount(50, 10), TokenCount(20, 5))
    spend(budget, TokenCount(50, 25), TokenCount(20, 5))
    with pytest.raises(BudgetSpent, match="has used 50 tokens"):
        spend(budget, TokenCount(50, 1), TokenCount(0, 0))
    spend(budget, TokenCount(49, 1), TokenCount(49, 1))


def test_cost_is_that_of_the_prices():
    budget = make_budget(max_cost=0.001, **PRICES)
    assert budget.cost(TokenCount(1_000_000, 100_000)) == pytest.approx(3.0)
    spend(budget, TokenCount(100, 50), TokenCount(100, 50))  # 0.0007
    with pytest.raises(BudgetSpent, match=r"150 tokens at a cost of 0\.0007"):
        spend(budget, TokenCount(100, 20), TokenCount(0, 0))


def test_attempt_of_unknown_cost_counts_with_the_most():
    budget = make_budget(max_tokens=100)
    most = TokenCount(30, 10)
    with budget.reserve([most]) as reservation:
        for _ in range(2):
            reservation.cover(most)
            reservation.charge(most)
        with pytest.raises(BudgetSpent):
            reservation.cover(most)


def test_no_random_order_of_threads_exceeds_a_budget_or_wastes_it():
    """16 threads spend until the end: at most the budget, and all but one request's bound of it."""
    budget, draw, used, lock = make_budget(max_tokens=20_000), random.Random(3), [], threading.Lock()

    def work(seed):
        draw = random.Random(seed)
        while True:
            most = TokenCount(draw.randrange(20, 200), 50)
            paid = TokenCount(draw.randrange(most.prompt + 1), draw.randrange(51))
            try:
                with budget.reserve([most, most]) as reservation:
                    for _ in range(2):
                        reservation.cover(most)
                        time.sleep(0.0001)
                        with lock:
                            used.append(sum(paid))
                        reservation.charge(paid)
            except BudgetSpent:
                return

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, [draw.random() for _ in range(16)]))
    assert 20_000 - 2 * 250 < sum(used) <= 20_000


def test_request_waits_for_others_that_may_leave_it_enough():
    budget = make_budget(max_tokens=100)
    with ThreadPoolExecutor(1) as threads:
        with budget.reserve([TokenCount(90, 0)]) as reservation:
            later = threads.submit(spend, budget, TokenCount(50, 0), TokenCount(50, 0))
            with pytest.raises(TimeoutError):
                later.result(timeout=0.2)
            reservation.charge(TokenCount(40, 0))
        assert later.result(timeout=10) is None
    with pytest.raises(BudgetSpent, match="has used 90 tokens"):
        spend(budget, TokenCount(11, 0), TokenCount(0, 0))


def test_bound_holds_for_any_tokenizer_that_reads_bytes():
    assert most_tokens("é" * 10, 7) == (20 + 128, 7)


def reply_to(engine, prompt, max_new_tokens):
    """Ask one thing a time, a thousand times."""
    for i in range(1_000):
        engine.reply([prompt], [str(i)], max_new_tokens)


def test_engine_ends_before_the_request_that_could_exceed_the_budget():
    with serving(lambda body: said("Fine.", tokens=(40, 10))) as server:
        engine = engine_at(server.url, llm={"max_tokens": 1_000, **PRICES})
        with pytest.raises(BudgetSpent):
            reply_to(engine, "4" * 100, 20)
    usage = engine.usage.take()
    assert usage["prompt_tokens"] + usage["generated_tokens"] == 50 * len(server.bodies) <= 1_000
    assert usage["prompt_tokens"] + usage["generated_tokens"] + 100 + 128 + 20 > 1_000
    assert usage["cost"] == pytest.approx(len(server.bodies) * (40 * 2 + 10 * 10) / 1e6)


def test_endpoint_that_states_no_usage_is_charged_the_most():
    def answer(body):
        status, headers, tree = said("Fine.")
        return status, headers, {**tree, "usage": None}

    with serving(answer) as server:
        engine = engine_at(server.url, llm={"max_tokens": 600})
        with pytest.raises(BudgetSpent, match="has used 592 tokens"):
            reply_to(engine, "4" * 10, 10)
    assert len(server.bodies) == 600 // (10 + 128 + 10)


def test_hypotheses_of_a_row_are_written_both_or_not_at_all():
    with serving(lambda body: said("Fine.", tokens=(100, 10))) as server:
        engine = engine_at(server.url, llm={"max_tokens": 5_000}, generate={"max_new_tokens": 16})
        prompts, ids = load_prompts("syncse"), [str(i) for i in range(100)]
        with pytest.raises(BudgetSpent):
            engine.generate_pairs([prompts.pair("A dog runs.", i, seed=1) for i in ids], ids)
    assert len(server.bodies) % 2 == 0
    assert len(server.bodies) > 30
