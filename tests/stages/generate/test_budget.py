"""Runs at an endpoint with a budget: they end cleanly, keep what was paid, and the next one goes on."""

import json
from collections import Counter

import pytest

from multicsr.config import Config
from multicsr.errors import BudgetSpent
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.stages.report import collect, to_html
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.support.chat_server import serving
from tests.support.endpoint_runs import TOKENS, answer, rows_of, settings_of_run

ROWS = 60
PRICES = {"price_per_million_prompt_tokens": 1.0, "price_per_million_completion_tokens": 4.0}


@pytest.fixture
def endpoint():
    with serving(answer) as server:
        yield server


@pytest.fixture
def make_run(tmp_path, endpoint):
    """Make a configuration with these settings of the LLM."""

    def make(store="store", actors=1, **llm):
        generate = {"actors": actors, "batch_size": 4}
        tree = settings_of_run(
            tmp_path, endpoint.url, ROWS, store, llm={"concurrency": 4, **llm}, generate=generate
        )
        return Config.model_validate(tree)

    return make


class LastLines(SilentProgress):
    """Progress that keeps what the stages end with."""

    def __init__(self):
        self.lines = []

    def finish(self, summary):
        self.lines.append(summary)


def asked(endpoint):
    """How often each request was sent since the last call."""
    counts = Counter(json.dumps(body, sort_keys=True) for body in endpoint.bodies)
    endpoint.bodies.clear()
    return counts


def run_to_budget(config):
    """Run; return the error of a budget that is spent, or None at the end of the work."""
    try:
        full_run.run(config, SilentProgress(), until="generate")
    except BudgetSpent as error:
        return error
    return None


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("budget", [{"max_tokens": 12_000}, {"max_cost": 0.0156}])
def test_run_ends_within_its_budget_and_the_next_ones_finish_it(endpoint, make_run, budget):
    whole = make_run("whole", **PRICES)
    full_run.run(whole, SilentProgress(), until="generate")
    everything = asked(endpoint)
    assert everything.total() == len(everything) == 4 * ROWS
    config, paid = make_run(**budget, **PRICES), Counter()
    runs, most = 1, 12_000 // sum(TOKENS)
    while (spent := run_to_budget(config)) is not None:
        runs += 1
        assert spent.exit_code != 0
        assert "\n" not in str(spent)
        assert f"llm.{next(iter(budget))} allow no further request after" in str(spent)
        assert f"{len(endpoint.bodies)} requests" in str(spent)
        assert "cost 0.01" in str(spent)
        assert most - 12 < len(endpoint.bodies) <= most + 2
        paid += asked(endpoint)
    paid += asked(endpoint)
    assert runs == 3
    assert set(paid) == set(everything)
    assert paid.total() - len(paid) <= 2 * runs  # an answer without its partner, in each of 4 threads at most
    assert rows_of(config)[0] == rows_of(whole)[0]


@pytest.mark.usefixtures("without_ray")
def test_requests_for_a_row_that_was_not_finished_are_counted(endpoint, make_run):
    """The endpoint adds more to a prompt than any template does: a row costs 12,040 tokens of 20,000."""
    endpoint.answer = lambda body: answer(body, (3_000, 10))
    config = make_run(max_tokens=20_000, concurrency=1)
    spent = run_to_budget(config)
    assert len(endpoint.bodies) == 7
    assert "after 7 requests, 21,000 tokens read, 70 tokens written" in str(spent)
    assert "; rows done and kept: 1;" in str(spent)
    before = asked(endpoint)
    full_run.run(make_run(concurrency=1), SilentProgress(), until="generate")
    assert (before & asked(endpoint)).total() == 1  # the score whose partner was not paid


@pytest.mark.usefixtures("without_ray")
def test_tokens_and_cost_are_counted_and_shown(endpoint, make_run):
    config, progress = make_run(**PRICES), LastLines()
    full_run.run(config, progress, until="generate")
    counters = rows_of(config)[1]
    assert counters["requests"] == 4 * ROWS
    assert counters["prompt_tokens"] == 400 * ROWS
    assert counters["generated_tokens"] == 40 * ROWS
    assert counters["cost"] == pytest.approx(ROWS * 4 * (100 + 40) / 1e6)
    assert progress.lines[-1].endswith(
        "rejected; 240 requests, 24,000 tokens read, 2,400 tokens written, cost 0.0336"
    )
    page = to_html(collect(current(Store.of(config))))
    assert "240 requests, 24,000 tokens read, 2,400 tokens written, cost 0.0336" in page
    again = LastLines()
    full_run.run(config, again, until="generate")
    assert again.lines[-1].endswith("rejected; reused")


@pytest.mark.usefixtures("ray_cluster")
def test_budget_counts_over_all_actors(endpoint, make_run):
    """Two actors have half of it each; the first to use it up does not end the other one's work."""
    config = make_run(actors=2, max_tokens=12_000)
    with pytest.raises(BudgetSpent, match=r"llm\.max_tokens .* rows done and kept: \d+"):
        full_run.run(config, SilentProgress(), until="generate")
    assert 0.8 * 12_000 < len(endpoint.bodies) * sum(TOKENS) <= 12_000
    endpoint.bodies.clear()
    full_run.run(make_run(actors=2), SilentProgress(), until="generate")
    assert len(rows_of(config)[0]) == ROWS
    assert len(endpoint.bodies) < 4 * ROWS - 80
