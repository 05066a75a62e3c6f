"""The batch API against a real HTTP server on this machine: its rows are those of single requests."""

import hashlib
import json
import math
import re
from collections import Counter

import numpy as np
import pytest

from multicsr.config import Config, LLMConfig
from multicsr.errors import BudgetSpent, ConfigError, RunError
from multicsr.llm.base import Rejection
from multicsr.llm.openai.batch_endpoint import BatchEndpoint
from multicsr.llm.openai.endpoint import ChatRequest
from multicsr.llm.openai.probe import probe
from multicsr.prompts import PromptPair
from multicsr.rows import Reason
from tests.support.batch_server import BatchServer, Fate, batch_engine_at
from tests.support.chat_server import engine_at, said, serving

ROWS = 7
PAIRS = [PromptPair(f"entail {i}", f"contradict {i}", 0, 0, f"Premise {i}.") for i in range(ROWS)]
IDS = [f"row-{i}" for i in range(ROWS)]
LABELS = ["0", "1", "2", "3", "4", "5"]


def name_of(body):
    return hashlib.blake2b(body["messages"][0]["content"].encode(), digest_size=4).hexdigest()


def answer(body):
    """Answer by the prompt alone; a blank comes before labels, and before the text of every third row."""
    if "messages" not in body:
        return 400, {}, {"error": {"message": "messages is missing"}}
    text = body["messages"][0]["content"]
    if body.get("logprobs"):
        p = 0.5 + int(name_of(body), 16) / 2**34
        blank = {"token": " ", "top_logprobs": [{"token": " ", "logprob": 0.0}]}
        top = [{"token": "4", "logprob": math.log(p)}, {"token": "1", "logprob": math.log(1 - p)}]
        positions = [blank, {"token": "4", "top_logprobs": top}, blank]
        num_tokens = body.get("max_tokens", body.get("max_completion_tokens"))
        return said("", "length", {"content": positions[:num_tokens]})
    said_text = f"\nAnswer {name_of(body)}." if re.search("[036]$", text) else f"Answer {name_of(body)}."
    for stop in body.get("stop", ()):
        said_text = said_text.partition(stop)[0]
    return said(said_text)


@pytest.fixture
def endpoint():
    with serving(answer, BatchServer) as server:
        yield server


def all_results(engine):
    """What an engine makes of the same rows, in plain values."""
    prompts = [f"score {i % 5}" for i in range(ROWS)]
    texts = engine.generate_pairs(PAIRS, IDS)
    replies = engine.reply(prompts, IDS, 5)
    probabilities = engine.label_probabilities(prompts, LABELS)
    return texts, replies, np.array(probabilities).tolist()


def test_results_are_those_of_single_requests_and_nothing_is_paid_twice(endpoint):
    batched = all_results(batch_engine_at(endpoint.url))
    assert not endpoint.bodies
    assert batched == all_results(engine_at(endpoint.url))
    assert max(Counter(endpoint.paid).values()) == 1
    # One batch each for texts, replies and labels, and one each for texts and replies that came blank.
    assert len(endpoint.uploads) == len(endpoint.batches) == 5


def test_equal_requests_are_sent_once(endpoint):
    engine = batch_engine_at(endpoint.url)
    engine.label_probabilities(["score 1"] * 4, LABELS)
    assert len(endpoint.paid) == 1


def test_engine_that_starts_follows_the_batches_of_one_that_ended(endpoint):
    """The first engine ends while its second batch is in progress; its batches are not on the first page."""
    endpoint.fates = [Fate(), Fate(polls=10**9)]
    first = batch_engine_at(endpoint.url, llm={"patience_s": 0})
    endpoint.before = lambda method, path: (
        (503, {}, {"error": "down"}) if endpoint.polls.get("batch-1", 0) > 3 else None
    )
    with pytest.raises(RunError, match=r"llm\.batch: no answer .* a run that is started again follows them"):
        all_results(first)
    endpoint.before = lambda method, path: None
    assert len(endpoint.uploads) == 2
    for other in (1, 2, 4):
        batch_engine_at(endpoint.url).reply([f"other {other}"], ["x"], 5)
    endpoint.batches["batch-1"]["fate"].polls = 0
    batched = all_results(batch_engine_at(endpoint.url))
    assert len(endpoint.uploads) == 2 + 3 + 3
    assert max(Counter(endpoint.paid).values()) == 1
    assert batched == all_results(engine_at(endpoint.url))


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_answers_of_a_batch_that_ended_early_are_kept_and_the_rest_is_asked_again(endpoint, status):
    endpoint.fates = [Fate(status, answers=5)]
    batched = all_results(batch_engine_at(endpoint.url))
    assert batched == all_results(engine_at(endpoint.url))
    assert max(Counter(endpoint.paid).values()) == 1
    lines = [len(endpoint.files[batch["input_file_id"]].splitlines()) for batch in endpoint.batches.values()]
    assert lines[:2] == [2 * ROWS, 2 * ROWS - 5]
    all_results(batch_engine_at(endpoint.url))
    assert len(endpoint.batches) == len(lines)


def test_batch_that_ended_without_an_answer_is_made_again(endpoint):
    endpoint.fates = [Fate("expired", answers=0)]
    assert all_results(batch_engine_at(endpoint.url)) == all_results(engine_at(endpoint.url))


def test_refused_request_is_rejected_after_a_second_batch_with_a_harmless_one(endpoint):
    def refuse(body):
        text = body["messages"][0]["content"]
        if text == "score too long":
            return 400, {}, {"error": {"message": "maximum context length is 10 tokens"}}
        if text == "score broken":
            return 500, {}, {"error": "this one"}
        return (400, {}, {"error": {"message": "no"}}) if text == "score bad" else answer(body)

    endpoint.answer = refuse
    engine = batch_engine_at(endpoint.url)
    results = engine.reply(["score bad", "score 1", "score too long", "score broken"], IDS[:4], 5)
    reasons = [each.reason if isinstance(each, Rejection) else None for each in results]
    assert reasons == [Reason.LLM_REFUSED, None, Reason.PROMPT_TOO_LONG, Reason.ENGINE_ERROR]
    assert len(endpoint.batches) == 3
    [alone] = batch_engine_at(endpoint.url).reply(["score bad"], ["other"], 5)
    assert isinstance(alone, Rejection)


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (400, ConfigError, "rejects every request: HTTP 400"),
        (401, ConfigError, "OPENAI_API_KEY: .* rejects the key"),
        (404, ConfigError, r"llm\.model: nothing serves"),
        (500, RunError, "3 batches at .* answered nothing"),
    ],
)
def test_failure_of_every_request_ends_the_job(endpoint, status, error, words):
    endpoint.answer = lambda body: (status, {}, {"error": {"message": "so it is"}})
    with pytest.raises(error, match=words):
        batch_engine_at(endpoint.url).reply(["score 1"], ["x"], 5)


def test_endpoint_without_log_probabilities_is_an_error_with_the_remedy(endpoint):
    endpoint.answer = lambda body: said("4")
    with pytest.raises(ConfigError, match=r"set score\.method to llm_stated"):
        batch_engine_at(endpoint.url).label_probabilities(["score 1"], LABELS)


def test_endpoint_without_batches_is_one_error_that_names_the_setting():
    with serving(answer) as server:
        with pytest.raises(
            ConfigError, match=r"^llm\.batch: .* offers no batches: .*; set llm\.batch to false$"
        ):
            batch_engine_at(server.url).reply(["score 1"], ["x"], 5)
        config = LLMConfig(engine="openai", model="m", base_url=server.url, batch=True)
        with pytest.raises(ConfigError, match=r"llm\.batch: .* offers no batches"):
            probe(config)


def test_page_instead_of_batches_is_no_batch_api(endpoint):
    endpoint.before = lambda method, path: (200, {}, b"<html>") if "batches" in path else None
    with pytest.raises(ConfigError, match=r"llm\.batch: .* offers no batches"):
        batch_engine_at(endpoint.url).reply(["score 1"], ["x"], 5)


def test_probe_of_an_endpoint_with_batches_makes_none(endpoint):
    config = LLMConfig(engine="openai", model="m", base_url=endpoint.url, batch=True)
    probe(config)
    assert not endpoint.batches


def test_endpoint_that_keeps_no_metadata_is_an_error(endpoint):
    endpoint.keeps_metadata = False
    with pytest.raises(ConfigError, match=r"llm\.batch: .* keeps no metadata"):
        batch_engine_at(endpoint.url).reply(["score 1"], ["x"], 5)


def test_calls_that_fail_for_a_while_are_tried_again(endpoint):
    left = Counter({("GET", "/v1/batches"): 2, ("POST", "/v1/files"): 2, ("GET", "/v1/batches/batch-0"): 2})
    endpoint.fates = [Fate(polls=1)]

    def fail(method, path):
        left[method, path] -= 1
        return (503, {}, {"error": "down"}) if left[method, path] >= 0 else None

    endpoint.before = fail
    assert batch_engine_at(endpoint.url).reply(["score 1"], ["x"], 5)[0].text.startswith("Answer")
    assert len(endpoint.batches) == 1


def test_batch_whose_creation_was_not_confirmed_is_found(endpoint):
    """The answer to the call that makes the batch is lost; the next try finds the batch."""
    is_lost = [True]

    def lose(method, path):
        if (method, path) == ("POST", "/v1/batches") and is_lost.pop():
            endpoint.before = lambda method, path: None
            [name] = endpoint.uploads
            digest = json.dumps(sorted(json.loads(x)["custom_id"] for x in endpoint.files[name].splitlines()))
            digest = hashlib.blake2b("\n".join(json.loads(digest)).encode(), digest_size=16).hexdigest()
            endpoint._create(
                {
                    "endpoint": "/v1/chat/completions",
                    "completion_window": "24h",
                    "input_file_id": name,
                    "metadata": {"multicsr_requests": digest},
                }
            )
            return 502, {}, {"error": "lost"}
        return None

    endpoint.before = lose
    batch_engine_at(endpoint.url).reply(["score 1", "score 2"], ["x", "y"], 5)
    assert len(endpoint.uploads) == len(endpoint.batches) == 1


def test_full_queue_is_waited_for_and_other_errors_of_a_batch_end_the_job(endpoint):
    full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    endpoint.fates = [Fate("failed", errors=[full])] * 2
    assert batch_engine_at(endpoint.url).reply(["score 1"], ["x"], 5)[0].text.startswith("Answer")
    assert len(endpoint.batches) == 3
    for error, kind, words in (
        (
            {"code": "model_not_found", "message": "no batches of it"},
            ConfigError,
            r"llm\.batch: .* no batches of it",
        ),
        ({"code": "billing_hard_limit_reached", "message": "x"}, RunError, "is not paid"),
    ):
        endpoint.fates = [Fate("failed", errors=[error])]
        with pytest.raises(kind, match=words):
            batch_engine_at(endpoint.url).reply([f"score {error['code']}"], ["x"], 5)


def test_newer_name_of_the_token_limit_is_used_and_found_again(endpoint):
    def newer(body):
        if "max_tokens" in body:
            return 400, {}, {"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'."}}
        return answer(body)

    endpoint.answer = newer
    results = all_results(batch_engine_at(endpoint.url))
    assert len(endpoint.batches) == 5 + 1
    assert all_results(batch_engine_at(endpoint.url)) == results
    assert len(endpoint.batches) == 5 + 1


def test_budget_is_reserved_for_the_whole_batch_and_what_it_cost_is_counted(endpoint):
    prices = {"price_per_million_prompt_tokens": 1.0, "price_per_million_completion_tokens": 4.0}
    engine = batch_engine_at(endpoint.url, llm={"max_cost": 1.0, **prices})
    engine.reply([f"score {i}" for i in (1, 2, 4)], IDS[:3], 5)
    amounts = engine.usage.take()
    assert (amounts["requests"], amounts["prompt_tokens"], amounts["generated_tokens"]) == (3, 15, 9)
    assert amounts["cost"] == pytest.approx((15 + 4 * 9) / 1e6)
    poor = batch_engine_at(endpoint.url, llm={"max_tokens": 300, **prices})
    with pytest.raises(BudgetSpent):
        poor.reply(["score 5", "score 7", "score 8"], IDS[:3], 5)
    assert len(endpoint.batches) == 1


def test_requests_beyond_the_limit_of_a_batch_are_sent_in_several(endpoint):
    engine = batch_engine_at(endpoint.url)
    config = LLMConfig(engine="openai", model="m", base_url=endpoint.url, batch=True)
    batches = BatchEndpoint(config, engine.usage, 0.01, most_requests=3)
    requests = [ChatRequest("reply", f"score {i}1", 5) for i in range(8)]
    with batches.reserve(requests) as reservation:
        answers = batches.ask(requests, reservation)
    texts = [answer(request.body("m", "max_tokens"))[2] for request in requests]
    assert [each.text for each in answers] == [x["choices"][0]["message"]["content"] for x in texts]
    assert len(endpoint.batches) == 3


def test_close_ends_the_wait(endpoint):
    endpoint.fates = [Fate(polls=10**9)]
    engine = batch_engine_at(endpoint.url)
    endpoint.before = lambda method, path: engine.close() if path == "/v1/batches/batch-0" else None
    with pytest.raises(RunError, match=r"llm\.batch: "):
        engine.reply(["score 1"], ["x"], 5)


@pytest.mark.parametrize(
    ("llm", "generate", "words"),
    [
        ({"engine": "fake", "batch": True}, {}, "batch has no effect with engine: fake"),
        (
            {"engine": "openai", "base_url": "http://h/v1", "batch": True},
            {"omega": 0, "batch_size": 8},
            "generate.batch_size has no effect with llm.batch",
        ),
    ],
)
def test_settings_without_effect_are_errors(llm, generate, words):
    with pytest.raises(ValueError, match=words):
        Config.model_validate(
            {"name": "t", "store": "s", "input": {"paths": ["x"]}, "llm": llm, "generate": generate}
        )
