"""The engine for endpoints against a real HTTP server on this machine that can be made to misbehave."""

import json
import math
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError, RunError
from multicsr.llm.base import Completion, Usage
from multicsr.llm.openai.answers import AnswerKind, ChatFailure, read
from multicsr.llm.openai.endpoint import BACKOFF_S, RequestAttempts
from multicsr.llm.openai.endpoint import Endpoint as EndpointClient
from multicsr.llm.openai.engine import OpenAIEngine
from multicsr.prompts import load_prompts
from multicsr.rows import Reason
from tests.support.chat_server import engine_at, said, serving
from tests.support.tiny_llms import make_config


class Endpoint(ThreadingHTTPServer):
    """Echoes the prompt's first line; `failures` are (status, body) given before anything else."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures, self.bodies, self.keys = [], [], []
        self.limit_name, self.drip, self.connections = "max_tokens", [], 0
        self.logprobs = {" 4": 0.6, "4": 0.2, "3": 0.1, "the": 0.1}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1/"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        self.server.connections += 1
        super().setup()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers["Authorization"])
        text = body["messages"][0]["content"]
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": "no such path"})
        if self.server.failures:
            return self._send(*self.server.failures.pop(0))
        if self.server.limit_name not in body:
            message = (
                f"'max_tokens' is not supported with this model. Use '{self.server.limit_name}' instead."
            )
            return self._send(400, {"error": {"message": message}})
        if "broken" in text:
            return self._send(500, {"error": "this one"})
        if "too long" in text:
            return self._send(400, {"error": "maximum context length is 10 tokens"})
        if "forbidden" in text:
            return self._send(400, {"error": "policy"})
        choice = {"message": {"content": f"{text.splitlines()[0]} "}, "finish_reason": "stop"}
        if body.get("logprobs"):
            top = [{"token": t, "logprob": math.log(p)} for t, p in self.server.logprobs.items()]
            choice["logprobs"] = {"content": [{"top_logprobs": top}]} if top else None
        if "aborted" in text:
            choice["finish_reason"] = "abort"
        if "endless" in text:
            choice["finish_reason"] = "length"
        return self._send(200, {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})

    def _send(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        if self.server.drip:
            self.server.drip.pop()
            for byte in body:
                time.sleep(0.02)
                with suppress(OSError):
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
            return
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def make_engine(url, backoff_s=0.01, **sections):
    sections.setdefault("score", {"method": "both"})
    llm = {"engine": "openai", "base_url": url, **sections.pop("llm", {})}
    config = make_config("some-model", llm=llm, generate={"omega": 0, "temperature": 0.5}, **sections)
    return OpenAIEngine(config, backoff_s)


def pairs(*premises):
    prompts = load_prompts("syncse")
    return [prompts.pair(premise, premise, seed=1) for premise in premises]


def test_pairs_are_written_in_order_with_a_seed_per_hypothesis(endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "abc")
    engine = make_engine(endpoint.url)
    premises = [f"Premise {i}." for i in range(20)]
    results = engine.generate_pairs(pairs(*premises), premises)
    assert results == [(Completion(f"Sentence: {premise} ", 3, True),) * 2 for premise in premises]
    assert engine.usage.take() == {"requests": 40, "prompt_tokens": 200, "generated_tokens": 120}
    assert set(endpoint.keys) == {"Bearer abc"}
    assert len({body["seed"] for body in endpoint.bodies}) == 40
    assert {body["temperature"] for body in endpoint.bodies} == {0.5}
    assert all(body["stop"] == ["\n"] and body["model"] == "some-model" for body in endpoint.bodies)


def test_a_busy_endpoint_is_asked_again(endpoint):
    endpoint.failures = [(429, {}), (500, {}), (503, {})]
    engine = make_engine(endpoint.url)
    assert engine.reply(["Score: 4"], ["id"], 8) == [Completion("Score: 4 ", 3, True)]
    assert len(endpoint.bodies) == 4


def test_one_bad_row_does_not_stop_the_others(endpoint):
    engine = make_engine(endpoint.url)
    found = engine.generate_pairs(
        pairs("It is too long.", "It is forbidden.", "It is endless.", "Fine."), list("abcd")
    )
    assert found[0].reason == Reason.PROMPT_TOO_LONG
    assert found[1].reason == Reason.LLM_REFUSED
    assert "policy" in found[1].detail
    assert not found[2][0].finished
    assert found[3][0].finished


def test_label_probabilities_come_from_the_first_token(endpoint):
    engine = make_engine(endpoint.url)
    labels = load_prompts("syncse").score_labels
    [found] = engine.label_probabilities(["Score:"], labels)
    assert found.tolist() == pytest.approx([0, 0, 0, 1 / 9, 8 / 9, 0])
    endpoint.logprobs = {"the": 1.0}
    assert engine.label_probabilities(["Score:"], labels)[0].reason == Reason.SCORE_UNPARSABLE
    endpoint.logprobs = {}
    with pytest.raises(ConfigError, match=r"score\.method.*stated"):
        engine.label_probabilities(["Score:"], labels)


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, ConfigError, "OPENAI_API_KEY"),
        (403, ConfigError, "OPENAI_API_KEY"),
        (404, ConfigError, r"llm\.model"),
        (402, RunError, "is not paid: .* is kept"),
        (302, ConfigError, r"llm\.base_url.*final address"),
        (501, ConfigError, r"llm\.base_url"),
    ],
)
def test_what_waiting_does_not_mend_ends_the_job_at_once(endpoint, status, error, words):
    engine = make_engine(endpoint.url)
    engine.reply(["x"], ["id"], 8)
    endpoint.failures = [(status, {"error": "no"})] * 20
    with pytest.raises(error, match=words) as raised:
        engine.reply(["y"], ["id"], 8)
    assert "\n" not in str(raised.value)
    assert len(endpoint.bodies) <= 5
    endpoint.failures = []
    with pytest.raises(error, match=words):  # other threads end, too
        engine.reply(["z"], ["id"], 8)


@pytest.mark.parametrize(
    "status", [302, 400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 451, 500, 520, 529, 599]
)
def test_no_status_that_comes_once_is_a_result(endpoint, status):
    endpoint.failures = [(status, {"error": "once"})]
    assert make_engine(endpoint.url).reply(["Score: 4"], ["id"], 8) == [Completion("Score: 4 ", 3, True)]


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": 429, "message": "slow down"}},
        {"error": "overloaded"},
        {"choices": []},
        {"choices": [{"message": {"content": "cut"}, "finish_reason": "abort"}]},
        {"choices": [{"message": {"content": "cut"}, "finish_reason": None}]},
        {"choices": [{"message": {"content": "half \ud800 pair"}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]},
        [],
        "<html>",
    ],
)
def test_a_success_that_holds_no_answer_is_asked_for_again(endpoint, answer):
    endpoint.failures = [(200, answer)]
    engine = make_engine(endpoint.url)
    assert engine.reply(["Score: 4"], ["id"], 8) == [Completion("Score: 4 ", 3, True)]
    endpoint.failures = [(200, answer)] * 4
    assert engine.reply(["Score: 4"], ["id"], 8) == [Completion("Score: 4 ", 3, True)]


@pytest.mark.parametrize(
    "usage",
    [
        *[None, [], "many", {"prompt_tokens": 2.0, "completion_tokens": None}],
        *[{"completion_tokens": 1e300}, {"prompt_tokens": 10**400, "completion_tokens": -(10**400)}],
    ],
)
def test_usage_decides_nothing(endpoint, usage):
    choice = {"message": {"content": "4"}, "finish_reason": "stop"}
    endpoint.failures = [(200, {"choices": [choice], "usage": usage})]
    assert make_engine(endpoint.url).reply(["x"], ["id"], 8) == [Completion("4", 0, True)]
    assert len(endpoint.bodies) == 1


def test_what_fails_for_one_text_alone_is_no_result(endpoint):
    engine = make_engine(endpoint.url, llm={"patience_s": 1})
    found = engine.reply(["It is broken.", "Fine."], list("ab"), 8)
    assert found[0].reason == Reason.ENGINE_ERROR
    assert "HTTP 500" in found[0].detail
    assert found[1].finished
    found = engine.reply(["It is aborted.", "Fine."], list("ab"), 8)
    assert found[0].reason == Reason.ENGINE_ERROR
    assert "finish_reason abort" in found[0].detail


def test_what_the_endpoint_rejects_of_every_text_is_no_rejection_of_a_text(endpoint):
    endpoint.failures = [(400, {"error": {"message": "unknown parameter: seed"}})] * 100
    with pytest.raises(ConfigError, match="rejects every request: HTTP 400: unknown parameter: seed"):
        make_engine(endpoint.url).reply(["x"], ["id"], 8)


def test_an_endpoint_that_stays_away_ends_the_run(endpoint):
    endpoint.failures = [(500, {"error": "down"})] * 10_000
    with pytest.raises(RunError, match=r"in 0\.3 s \(llm\.patience_s\).*HTTP 500: down; .*kept"):
        make_engine(endpoint.url, llm={"patience_s": 0.3}).reply(["x"], ["id"], 8)
    unused = Endpoint()
    unused.server_close()
    with pytest.raises(RunError, match=r"llm\.base_url"):
        make_engine(unused.url, llm={"patience_s": 0.3}).reply(["x"], ["id"], 8)


def test_something_that_is_no_chat_endpoint_is_a_configuration_error(endpoint):
    endpoint.failures = [(200, {"hello": "world"})] * 100
    with pytest.raises(ConfigError, match=r"llm\.base_url.*no chat endpoint"):
        make_engine(endpoint.url).reply(["x"], ["id"], 8)


def test_an_endpoint_that_knows_another_name_for_the_limit_gets_it(endpoint):
    endpoint.limit_name = "max_completion_tokens"
    engine = make_engine(endpoint.url)
    assert engine.reply(["4"] * 3, list("abc"), 8) == [Completion("4 ", 3, True)] * 3
    assert [("max_tokens" in body, "max_completion_tokens" in body) for body in endpoint.bodies] == [
        (True, False),
        *[(False, True)] * 3,
    ]


def test_the_other_name_for_the_limit_is_tried_once(endpoint):
    message = "'max_completion_tokens' is not supported, nor is 'max_tokens'"
    endpoint.failures = [(400, {"error": {"message": message}})] * 100
    with pytest.raises(ConfigError, match="rejects every request: HTTP 400: 'max_completion_tokens' is not"):
        make_engine(endpoint.url).reply(["x"], ["id"], 8)
    assert ["max_tokens" in body for body in endpoint.bodies].count(True) == 1


@pytest.mark.parametrize("asked_s", [0.0, 5.0])
def test_requests_that_fail_together_are_not_repeated_together(asked_s, monkeypatch):
    """Each waits a time of its own, never less than the endpoint asks for."""
    waits = []
    client = EndpointClient(LLMConfig(engine="openai", model="m", base_url="http://x"), Usage())
    monkeypatch.setattr(client._has_failed, "wait", waits.append)
    for _ in range(20):
        attempts = RequestAttempts()
        failure = ChatFailure(AnswerKind.PASSING, "", "busy", wait_s=asked_s)
        attempts.add(failure)
        client._wait(attempts, failure)
    assert len({*waits}) == 20
    assert min(waits) >= (asked_s or BACKOFF_S / 2)
    assert max(waits) <= (1.1 * asked_s or BACKOFF_S)


def test_patience_is_counted_in_seconds_not_in_attempts(endpoint):
    endpoint.failures = [(429, {})] * 30
    engine = make_engine(endpoint.url, backoff_s=0.0, llm={"patience_s": 60})
    assert engine.reply(["4"], ["a"], 8) == [Completion("4 ", 3, True)]
    assert len(endpoint.bodies) == 31


def test_requests_in_flight_and_rows_a_commit_are_those_of_the_settings(endpoint):
    engine = engine_at(endpoint.url, llm={"concurrency": 7}, generate={"batch_size": 9})
    assert engine.batches_at_once == 7
    assert (engine.batch_size, engine.rows_per_commit) == (1, 9)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "busy"}, AnswerKind.PASSING),
        ({"code": 402, "message": "pay first"}, AnswerKind.LASTING),
        ({"code": "overloaded", "message": "later"}, AnswerKind.PASSING),
        ("upstream failed", AnswerKind.PASSING),
    ],
)
def test_an_error_in_a_success_is_the_failure_that_it_names(error, kind):
    """An answer beside it is none: it was cut off."""
    choices = [{"message": {"content": "half of"}, "finish_reason": "stop"}]
    for body in ({"error": error}, {"error": error, "choices": choices}):
        failure = read(200, {}, json.dumps(body).encode())
        assert isinstance(failure, ChatFailure)
        assert failure.kind is kind


def test_a_slow_answer_is_given_up_and_asked_for_again(endpoint):
    endpoint.drip = [1]
    engine = make_engine(endpoint.url, llm={"timeout_s": 0.4})
    assert engine.reply(["4"], ["a"], 8) == [Completion("4 ", 3, True)]
    assert len(endpoint.bodies) == 2


def test_a_connection_is_used_again(endpoint):
    engine = make_engine(endpoint.url)
    engine.reply(["4"] * 20, [str(i) for i in range(20)], 8)
    assert endpoint.connections == 1


@pytest.mark.parametrize(
    "value",
    [
        *["1", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", "", "nan", "inf", "-5", "1e400"],
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2026 99999999999:00:00 GMT",
        "Mon, 01 Jan 2026 00:00:00 +99999999999999",
    ],
)
def test_any_retry_after_is_read(value):
    failure = read(429, {"Retry-After": value}, b"busy")
    assert failure.kind is AnswerKind.PASSING
    assert failure.wait_s == (1 if value == "1" else 0)


def test_a_key_that_no_header_may_hold_is_rejected_without_being_shown(endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "abc\ndef")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as raised:
        make_engine(endpoint.url)
    assert "abc" not in str(raised.value)


def test_a_key_that_the_endpoint_repeats_is_not_shown(endpoint, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-of-ours")
    engine = make_engine(endpoint.url)
    endpoint.failures = [(401, {"error": {"message": "Incorrect API key provided: a-secret-of-ours"}})] * 9
    with pytest.raises(ConfigError) as raised:
        engine.reply(["x"], ["id"], 8)
    assert "a-secret-of-ours" not in str(raised.value) + caplog.text


def test_arguments_of_the_chat_template_are_sent_with_every_request(endpoint):
    llm = {"engine": "openai", "base_url": endpoint.url, "template_args": {"enable_thinking": False}}
    engine = OpenAIEngine(make_config("m", llm=llm, generate={"omega": 0}))
    engine.reply(["x"], ["id"], 8)
    engine.generate_pairs(pairs("A dog."), ["id"])
    assert [body["chat_template_kwargs"] for body in endpoint.bodies] == [{"enable_thinking": False}] * 3
    endpoint.bodies.clear()
    make_engine(endpoint.url).reply(["x"], ["id"], 8)
    assert "chat_template_kwargs" not in endpoint.bodies[0]


def test_a_chat_template_cannot_be_switched_off(endpoint):
    llm = {"engine": "openai", "base_url": endpoint.url, "chat_template": False}
    with pytest.raises(ConfigError, match=r"llm\.chat_template"):
        OpenAIEngine(make_config("m", llm=llm, generate={"omega": 0}))


class BaseModel:
    """What a base model writes at an endpoint that ends a text at stop strings, wherever they are."""

    def __init__(self, text):
        self.text = text

    def __call__(self, body):
        cuts = [self.text.index(stop) for stop in body.get("stop", []) if stop in self.text]
        return said(self.text[: min(cuts)], "stop") if cuts else said(self.text, "length")


@pytest.mark.parametrize(
    ("text", "expected", "asked"),
    [
        ("A dog runs.\nSentence: next", ("A dog runs.", True), 1),
        ("\n\nA dog runs.\nSentence: next", ("A dog runs.", True), 2),
        (" \n A dog runs", ("A dog runs", False), 2),
        ("A dog runs", ("A dog runs", False), 1),
        (" A dog runs", ("A dog runs", False), 1),
    ],
)
def test_text_ends_at_the_first_stop_string_after_other_text(text, expected, asked):
    with serving(BaseModel(text)) as server:
        [found] = engine_at(server.url).reply(["x"], ["id"], 8)
    assert (found.text, found.finished) == expected
    assert len(server.bodies) == asked


def test_endpoint_that_begins_with_line_breaks_is_asked_twice_once_only():
    with serving(BaseModel("\nA dog runs.\nAnd more")) as server:
        engine = engine_at(server.url)
        found = engine.reply(["x"] * 5, list("abcde"), 8)
    assert {each.text for each in found} == {"A dog runs."}
    assert ["stop" in body for body in server.bodies] == [True, *[False] * 5]


def test_empty_answer_stays_empty():
    with serving(lambda body: said("", "stop")) as server:
        found = engine_at(server.url).reply(["x"] * 2, list("ab"), 8)
    assert found == [Completion("", 3, True)] * 2
    assert len(server.bodies) == 4


def test_one_text_that_begins_with_a_line_break_does_not_end_the_use_of_stop_strings():
    """Without them the endpoint would write on after every text, and that is paid."""

    def answer(body):
        text = "\nOdd." if "odd" in body["messages"][0]["content"] else "Even."
        return BaseModel(f"{text}\nAnd so on")(body)

    with serving(answer) as server:
        found = engine_at(server.url).reply(["even", "odd", "even", "even"], list("abcd"), 8)
    assert [each.text for each in found] == ["Even.", "Odd.", "Even.", "Even."]
    assert ["stop" in body for body in server.bodies] == [True, True, False, True, True]


def in_message(message, finish="stop"):
    return 200, {}, {"choices": [{"message": message, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("message", "finish", "expected"),
    [
        ({"content": [{"type": "text", "text": "A dog"}, {"type": "text", "text": "!"}]}, "stop", "A dog!"),
        ({"content": [{"type": "thinking"}, {"type": "text", "text": "Yes."}]}, "stop", "Yes."),
        ({"content": "A dog runs."}, "STOP", "A dog runs."),
        ({"content": None, "refusal": "I'm sorry."}, "stop", "I'm sorry."),
        ({"content": None, "reasoning_content": "Score 4?"}, "length", "<think>"),
        ({"content": "", "reasoning": "Hm."}, "stop", "<think>"),
        ({"content": "", "reasoning": {"summary": []}}, "stop", "<think>"),
        ({"content": "A dog.", "reasoning": ["Hm."], "reasoning_content": {}}, "stop", "A dog."),
        ({"content": None}, "stop", ""),
    ],
)  # fmt: skip
def test_text_is_read_from_every_form_of_a_message(message, finish, expected):
    with serving(lambda body: in_message(message, finish)) as server:
        [found] = engine_at(server.url).reply(["x"], ["id"], 8)
    assert found.text == expected


@pytest.mark.parametrize("zero", [b"null", b"-Infinity"])
def test_token_of_probability_zero_costs_no_answer(zero):
    top = b'[{"token": "4", "logprob": -0.1}, {"token": "x", "logprob": ' + zero + b"}]"
    logprobs = b'{"content": [{"token": "4", "top_logprobs": ' + top + b'}, {"top_logprobs": null}]}'
    answer = b'{"choices": [{"message": {}, "finish_reason": "length", "logprobs": ' + logprobs + b"}]}"
    with serving(lambda body: (200, {}, answer)) as server:
        [found] = engine_at(server.url).label_probabilities(["x"], list("012345"))
    assert found.tolist() == [0, 0, 0, 0, 1, 0]
    assert len(server.bodies) == 1
