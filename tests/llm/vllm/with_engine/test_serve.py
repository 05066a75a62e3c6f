"""`multicsr serve --engine vllm`: texts of the transformers decoder, streams that grow, and its end."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from multicsr.llm.stopping import StopCriteria
from tests.llm.vllm.with_engine.conftest import DRAWN, GREEDY, read_premises
from tests.support.paths import ROOT
from tests.support.served import streamed

PREMISES = 24
RULES = {
    "greedy": (GREEDY, {"temperature": 0}),
    "drawn": (DRAWN, {"temperature": 0.8, "top_p": 0.9, "seed": 7}),
}


@pytest.fixture(scope="module")
def server():
    """(The process, its base URL); it leads a process group, as a terminal's foreground job does."""
    settings = ("llm.vllm.max_model_len=256", "llm.vllm.kv_cache_gib=0.25")
    options = [*(word for setting in settings for word in ("--set", setting)), "--engine", "vllm"]
    process = subprocess.Popen(
        [sys.executable, "-m", "multicsr.cli.main", "serve", "tinylm", "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        url = process.stdout.readline().strip()
        assert process.stdout.readline() == "tinylm is ready; Ctrl-C ends the server\n"
        yield process, url
    finally:
        process.kill()
        process.wait()


def body_of(shipped, request, stop=()):
    """The request of a job as a body."""
    main, noisy = (shipped.tokenizer.decode(ids) for ids in (request.main, request.noisy))
    body = {"model": "tinylm", "prompt": main, "max_tokens": 24, "stop": list(stop) or None}
    if request.omega:
        body["contrast"] = {"prompt": noisy, "omega": request.omega}
    return body


def post(url, body):
    request = urllib.request.Request(
        f"{url}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def text_of(shipped, tokens, stop=()):
    return StopCriteria(shipped.tokenizer, shipped.eos, shipped.vocab_size, stop).shown(tokens)


@pytest.mark.parametrize(("rule", "sampling"), RULES.values(), ids=RULES)
def test_concurrent_texts_are_those_of_the_decoder(server, shipped, rule, sampling):
    _, url = server
    requests = [*shipped.requests(read_premises(PREMISES)), *shipped.requests(read_premises(8), omega=0.0)]
    expected = shipped.write(requests, rule, stop=["\n"])

    def ask(request):
        key = {"draw_key": f"{request.row_id}:{request.direction}"} if "seed" in sampling else {}
        return post(url, {**body_of(shipped, request, ["\n"]), **sampling, **key})

    with ThreadPoolExecutor(24) as threads:
        found = list(threads.map(ask, requests))
    same = [
        answer["choices"][0]["text"] == text_of(shipped, written.tokens, ["\n"])
        for answer, written in zip(found, expected, strict=True)
    ]
    assert sum(same) >= len(same) - 1  # the engines' logits differ by rounding, so a tie may go either way
    assert all(answer.get("contrast", {}).get("omega", 0) in (0, 0.3) for answer in found)


def test_stream_grows_with_the_text(server, shipped):
    _, url = server
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    for request in shipped.requests(read_premises(4)):
        body = {**body_of(shipped, request), "temperature": 0}
        contrast = {"contrast": body.pop("contrast")}
        whole = client.completions.create(**body, extra_body=contrast)
        chunks = list(client.completions.create(**body, extra_body=contrast, stream=True))
        pieces = [chunk.choices[0].text for chunk in chunks if chunk.choices[0].text]
        assert "".join(pieces) == whole.choices[0].text
        assert len(pieces) >= whole.usage.completion_tokens / 2


def test_labels_and_log_probabilities_are_read(server):
    _, url = server
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    messages = [{"role": "user", "content": "Score:"}]
    labels = client.chat.completions.create(
        model="tinylm", messages=messages, extra_body={"labels": ["0", "1", "2"]}
    )
    assert sum(labels.choices[0].label_probabilities) == pytest.approx(1, abs=0.01)
    top = client.chat.completions.create(
        model="tinylm", messages=messages, temperature=0, max_tokens=2, logprobs=True, top_logprobs=3
    )
    content = top.choices[0].logprobs.content
    assert [len(position.top_logprobs) for position in content] == [3, 3]
    assert all(position.logprob == position.top_logprobs[0].logprob for position in content)


def test_client_that_goes_away_leaves_the_engine_to_others(server, shipped):
    _, url = server
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    for request in shipped.requests(read_premises(8)):
        body = {**body_of(shipped, request), "max_tokens": 100, "temperature": 9}
        contrast = {"contrast": body.pop("contrast")}
        stream = client.completions.create(**body, extra_body=contrast, stream=True)
        next(iter(stream))
        stream.close()
    found = post(url, {"model": "tinylm", "prompt": "A dog", "max_tokens": 2, "temperature": 0})
    assert found["usage"]["completion_tokens"] <= 2


def test_ctrl_c_of_a_terminal_finishes_what_is_in_hand(server):
    """The signal goes to the whole process group; the processes of vLLM must go on."""
    process, url = server
    body = {"model": "tinylm", "prompt": "A dog runs", "max_tokens": 200, "temperature": 9, "seed": 1}
    body["contrast"] = {"prompt": "A cat sits", "omega": 0.3}
    expected = post(url, body)["choices"][0]["text"]
    assert streamed(url, body, lambda: os.killpg(process.pid, signal.SIGINT)) == expected
    assert process.wait(60) == 0
