"""The engine for endpoints against a real HTTP server on this machine that can be made to misbehave."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from multicsr.errors import ConfigError, RunError
from multicsr.generate.engine import Completion
from multicsr.generate.openai_engine import OpenAIEngine
from multicsr.prompts import load_prompts
from multicsr.rows import Reason
from tests.generate.conftest import make_config


class Endpoint(ThreadingHTTPServer):
    """Echoes the prompt's first line; `failures` are (status, body) given before anything else."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures, self.bodies, self.keys = [], [], []
        self.logprobs = {" 4": 0.6, "4": 0.2, "3": 0.1, "the": 0.1}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1/"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers["Authorization"])
        text = body["messages"][0]["content"]
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": "no such path"})
        if self.server.failures:
            return self._send(*self.server.failures.pop(0))
        if "too long" in text:
            return self._send(400, {"error": "maximum context length is 10 tokens"})
        if "forbidden" in text:
            return self._send(400, {"error": "policy"})
        choice = {"message": {"content": f"{text.splitlines()[0]} "}, "finish_reason": "stop"}
        if body.get("logprobs"):
            top = [{"token": t, "logprob": math.log(p)} for t, p in self.server.logprobs.items()]
            choice["logprobs"] = {"content": [{"top_logprobs": top}]} if top else None
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


def make_engine(url, **sections):
    sections.setdefault("score", {"method": "both"})
    llm = {"engine": "openai", "base_url": url}
    config = make_config("some-model", llm=llm, generate={"omega": 0, "temperature": 0.5}, **sections)
    return OpenAIEngine(config, backoff_s=0.01)


def pairs(*premises):
    prompts = load_prompts("syncse")
    return [prompts.pair(premise, premise, seed=1) for premise in premises]


def test_pairs_are_written_in_order_with_a_seed_per_hypothesis(endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "abc")
    engine = make_engine(endpoint.url)
    premises = [f"Premise {i}." for i in range(20)]
    results = engine.generate_pairs(pairs(*premises), premises)
    assert results == [(Completion(f"Sentence: {premise} ", 3, True),) * 2 for premise in premises]
    assert engine.usage.take() == {"prompt_tokens": 200, "generated_tokens": 120}
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
    assert found[1].reason == Reason.ENGINE_ERROR
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
    ("status", "words"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "llm.model")]
)
def test_what_no_retry_can_mend_is_a_configuration_error(endpoint, status, words):
    endpoint.failures = [(status, {"error": "no"})]
    with pytest.raises(ConfigError, match=words):
        make_engine(endpoint.url).reply(["x"], ["id"], 8)
    assert len(endpoint.bodies) == 1


def test_an_endpoint_that_stays_away_ends_the_run(endpoint):
    endpoint.failures = [(500, {"error": "down"})] * 6
    with pytest.raises(RunError, match=r"6 attempts.*500.*down"):
        make_engine(endpoint.url).reply(["x"], ["id"], 8)
    unused = Endpoint()
    unused.server_close()
    with pytest.raises(RunError, match=r"llm\.base_url"):
        make_engine(unused.url).reply(["x"], ["id"], 8)


def test_something_that_is_no_chat_endpoint_is_a_configuration_error(endpoint):
    endpoint.failures = [(200, {"hello": "world"})]
    with pytest.raises(ConfigError, match=r"llm\.base_url"):
        make_engine(endpoint.url).reply(["x"], ["id"], 8)


def test_a_chat_template_cannot_be_switched_off(endpoint):
    llm = {"engine": "openai", "base_url": endpoint.url, "chat_template": False}
    with pytest.raises(ConfigError, match=r"llm\.chat_template"):
        OpenAIEngine(make_config("m", llm=llm, generate={"omega": 0}))
