"""Requests that get no text: each has its status, and its error has OpenAI's form."""

import json
import socket
import threading
import time
import urllib.request

import openai
import pytest

from multicsr.errors import WorkerLost
from multicsr.llm.transformers.engine import TransformersEngine
from tests.support.served import NAME, engine_of, serving_engine
from tests.support.tiny_llms import CONTEXT, make_config

MESSAGES = [{"role": "user", "content": "A dog."}]
CHAT = {"model": NAME, "messages": MESSAGES}
PROMPT = {"model": NAME, "prompt": "A dog."}


class EndlessEngine(TransformersEngine):
    """Engine that writes one token again and again until its texts are abandoned."""

    def __init__(self, model):
        super().__init__(make_config(model, score={"method": "llm_stated"}))
        self.num_written = 0
        self.has_begun, self.is_abandoned, self.may_end = (threading.Event() for _ in range(3))

    def write(self, requests, rule, ends, watch=None):
        wanted = set(range(len(requests)))
        self.num_written += len(requests)
        while wanted and not self.may_end.is_set():
            self.has_begun.set()
            wanted = {i for i in wanted if watch(i, [5])}
            time.sleep(0.005)
        if not wanted:
            self.is_abandoned.set()
        return super().write(requests, rule, ends)


class LostEngine(TransformersEngine):
    """Engine whose process has died."""

    def write(self, requests, rule, ends, watch=None):
        raise WorkerLost("generate: the engine has died")


@pytest.fixture(scope="module")
def server(causal_dir):
    with serving_engine(engine_of(causal_dir)) as served:
        yield served


BAD = {
    "empty text": ({**PROMPT, "prompt": ""}, "prompt: an empty text has no token to continue"),
    "empty noisy text": (
        {**PROMPT, "contrast": {"prompt": "", "omega": 0.3}},
        "contrast.prompt: an empty text",
    ),
    "empty stop": ({**PROMPT, "stop": ["x", ""]}, "stop.1: String should have at least 1 character"),
    "many stops": ({**PROMPT, "stop": ["x"] * 65}, "stop: List should have at most 64 items"),
    "two prompts": ({**PROMPT, "prompt": ["a", "b"]}, "prompt: List should have at most 1 item"),
    "deep": (b'{"model": "tiny", "prompt": ' + b"[" * 99999, "recursion limit"),
    "no UTF-8": (b'{"model": "tiny", "prompt": "\xff"}', "Invalid JSON"),
    "not JSON": (b"{", "Invalid JSON"),
    "not an object": (b"[]", "should be an object"),
    "no model": ({"prompt": "x"}, "model: is missing"),
    "no prompt": ({"model": NAME}, "prompt: is missing"),
    "unknown field": ({**PROMPT, "tools": []}, "tools: has no effect here"),
    "wrong type": ({**PROMPT, "max_tokens": "5"}, "max_tokens: "),
    "number for text": ({**PROMPT, "prompt": [1, 2]}, "prompt"),
    "two texts": ({**PROMPT, "n": 2}, "n: "),
    "not a number": (b'{"model": "tiny", "prompt": "x", "temperature": NaN}', "temperature: "),
    "penalty": ({**PROMPT, "presence_penalty": 0.5}, "presence_penalty: "),
    "nucleus of a greedy text": ({**PROMPT, "temperature": 0, "top_p": 0.5}, "top_p has no effect"),
    "draws of a greedy text": ({**PROMPT, "temperature": 0, "seed": 1, "draw_key": "a:b"}, "draw_key has no"),
    "draws without a seed": ({**PROMPT, "draw_key": "a:b"}, "draw_key has no effect"),
    "options without a stream": ({**PROMPT, "stream_options": {}}, "stream_options has no effect"),
    "weight 0": ({**PROMPT, "contrast": {"prompt": "x", "omega": 0}}, "contrast.omega: "),
    "weight 1": ({**PROMPT, "contrast": {"prompt": "x", "omega": 1}}, "contrast.omega: "),
    "contrast of a chat": ({**PROMPT, "contrast": {"messages": MESSAGES, "omega": 0.3}}, "contrast.prompt"),
    "too long": ({**PROMPT, "max_tokens": CONTEXT}, "exceed the context length"),
    "too long beside": (
        {**PROMPT, "contrast": {"prompt": "x " * CONTEXT, "omega": 0.3}},
        "exceed the context length",
    ),
}
BAD_CHATS = {
    "no messages": ({**CHAT, "messages": []}, "messages: "),
    "image": (
        {**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages.0.content.0.type: Input should be 'text'",
    ),
    "no content": ({**CHAT, "messages": [{"role": "user", "content": None}]}, "messages.0.content: Input"),
    "empty chat": ({**CHAT, "messages": [{"role": "user", "content": []}]}, "messages: an empty text"),
    "labels of nothing": (
        {**CHAT, "messages": [{"role": "user", "content": ""}], "labels": ["a", "b"]},
        "messages: an empty text",
    ),
    "role": ({**CHAT, "messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    "system without a template": (
        {**CHAT, "messages": [{"role": "system", "content": "x"}, *MESSAGES]},
        "no chat template",
    ),
    "two limits": ({**CHAT, "max_tokens": 1, "max_completion_tokens": 1}, "are one setting"),
    "likeliest without logprobs": ({**CHAT, "top_logprobs": 1}, "top_logprobs has no effect"),
    "logprobs of a draw": ({**CHAT, "logprobs": True, "max_tokens": 1}, "logprobs needs temperature 0"),
    "logprobs of a long text": (
        {**CHAT, "logprobs": True, "temperature": 0, "max_tokens": 99},
        "logprobs needs max_tokens",
    ),
    "labels and a stream": ({**CHAT, "labels": ["a", "b"], "stream": True}, "stream has no effect"),
    "labels and tokens": ({**CHAT, "labels": ["a", "b"], "max_tokens": 2}, "max_tokens is 1"),
    "equal labels": ({**CHAT, "labels": ["a", " a"]}, "two of them are the same"),
}


@pytest.mark.parametrize(("body", "words"), BAD.values(), ids=BAD)
def test_wrong_completion_is_an_error_of_one_line(server, body, words):
    check_rejected(server, "completions", body, words)


@pytest.mark.parametrize(("body", "words"), BAD_CHATS.values(), ids=BAD_CHATS)
def test_wrong_chat_is_an_error_of_one_line(server, body, words):
    check_rejected(server, "chat/completions", body, words)


def check_rejected(server, path, body, words):
    status, _, answer = server.send(path, body)
    assert status == 400
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert words in answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]


def test_wrong_model_path_method_and_type(server):
    status, _, answer = server.send("completions", {**PROMPT, "model": "other"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert server.send("nothing", PROMPT)[0] == 404
    assert server.send("models", PROMPT)[0] == 405
    assert server.send("completions", b"x=1", **{"Content-Type": "text/plain"})[0] == 415
    assert server.send("completions", b" " * (5 * 2**20))[0] == 413


def test_models_show_what_is_offered(server):
    client = openai.OpenAI(base_url=server.url, api_key="none")
    [model] = client.models.list().data
    assert model.id == NAME
    assert model.multicsr == {"contrast": True, "labels": True, "draw_key": True}
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_token_is_asked_for_everywhere_but_for_the_health(causal_dir):
    with serving_engine(engine_of(causal_dir), token="correct-horse") as server:
        for sent in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "correct-horse"}):
            status, _, answer = server.send("completions", {**PROMPT, "max_tokens": 1}, **sent)
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        assert server.send("nothing", PROMPT)[0] == 401
        good = {"Authorization": "Bearer correct-horse"}
        assert server.send("completions", {**PROMPT, "max_tokens": 1}, **good)[0] == 200
        with urllib.request.urlopen(f"{server.url[:-3]}/health") as response:
            assert json.load(response) == {"ready": True}


def test_a_token_that_is_no_ascii_is_a_wrong_one(causal_dir):
    with serving_engine(engine_of(causal_dir), token="correct-horse") as server:
        port = int(server.url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(("packing", "status"), [("gzip", 400), ("deflate", 400), ("zip", 415)])
def test_a_body_that_cannot_be_unpacked_is_an_error_of_the_client(server, packing, status):
    found, _, answer = server.send("completions", b"no archive", **{"Content-Encoding": packing})
    assert (found, answer["error"]["type"]) == (status, "invalid_request_error")


def test_unknown_fields_that_are_null_ask_for_nothing(server):
    message = {**MESSAGES[0], "refusal": None, "tool_calls": None}
    body = {**CHAT, "messages": [message], "max_tokens": 1, "user": None, "tools": None}
    assert server.send("chat/completions", body)[0] == 200


def test_work_that_waits_is_not_done_for_a_client_that_went_away(causal_dir):
    engine = EndlessEngine(causal_dir)
    with serving_engine(engine, at_once=1) as server:
        running, _ = in_background(server, max_tokens=2)
        assert engine.has_begun.wait(20)
        data = json.dumps({**PROMPT, "stream": True}).encode()
        port = int(server.url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        end_s = time.monotonic() + 20
        while server.service.num_requests > 1 and time.monotonic() < end_s:
            time.sleep(0.01)
        engine.has_begun.clear()
        engine.may_end.set()
        running.join(20)
        assert server.send("completions", {**PROMPT, "max_tokens": 1})[0] == 200
        assert engine.num_written == 2


def test_server_that_starts_answers_503_until_the_model_is_loaded(causal_dir):
    with serving_engine(None) as server:
        status, headers, answer = server.send("completions", PROMPT)
        assert (status, "being loaded" in answer["error"]["message"]) == (503, True)
        assert int(headers["Retry-After"]) > 0
        server.load(engine_of(causal_dir))
        assert server.send("completions", PROMPT)[0] == 200
        server.service.is_ending = True
        assert server.send("completions", PROMPT)[0] == 503


def in_background(server, **body):
    """Send a request in a thread, and return the list that gets its status."""
    found = []
    thread = threading.Thread(target=lambda: found.append(server.send("completions", {**PROMPT, **body})[0]))
    thread.start()
    return thread, found


def test_full_queue_is_answered_at_once(causal_dir):
    engine = EndlessEngine(causal_dir)
    with serving_engine(engine, most_requests=2, at_once=1) as server:
        works = [in_background(server, max_tokens=2) for _ in range(2)]
        assert engine.has_begun.wait(20)
        end_s = time.monotonic() + 20
        while server.service.num_requests < 2 and time.monotonic() < end_s:
            time.sleep(0.01)
        status, headers, answer = server.send("completions", PROMPT)
        assert (status, answer["error"]["type"], headers["Retry-After"]) == (429, "rate_limit_error", "1")
        engine.may_end.set()
        for thread, found in works:
            thread.join(20)
            assert found == [200]


@pytest.mark.parametrize("is_stream", [False, True])
def test_client_that_goes_away_frees_its_work(causal_dir, is_stream):
    engine = EndlessEngine(causal_dir)
    with serving_engine(engine, at_once=1) as server:
        data = json.dumps({**PROMPT, "stream": is_stream}).encode()
        port = int(server.url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            assert engine.has_begun.wait(20)
            waiting, found = in_background(server, max_tokens=2)
            assert not engine.is_abandoned.wait(0.1)
        assert engine.is_abandoned.wait(20)
        engine.may_end.set()
        waiting.join(20)
        assert found == [200]
        assert server.service.num_requests == 0


def test_lost_engine_is_an_error_for_the_client_and_ends_the_server(causal_dir):
    config = make_config(causal_dir, score={"method": "llm_stated"})
    with serving_engine(LostEngine(config)) as server:
        status, _, answer = server.send("completions", PROMPT)
        assert (status, answer["error"]["type"]) == (500, "server_error")
        assert "the engine has died" in answer["error"]["message"]
        assert isinstance(server.service.failure.result(), WorkerLost)
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
        with pytest.raises(openai.APIError, match="the engine has died"):
            list(client.completions.create(**PROMPT, stream=True))
