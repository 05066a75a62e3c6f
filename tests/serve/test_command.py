"""The command `multicsr serve` in a process of its own: address, signals, and what it takes no part in."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from multicsr.cli.command import run_app
from multicsr.cli.main import app
from multicsr.errors import ConfigError
from multicsr.models import resolve
from multicsr.serve.server import TOKEN, read_token
from tests.support.paths import ROOT
from tests.support.served import streamed

LONG = {"model": "tinylm", "prompt": "A dog runs", "max_tokens": 200, "temperature": 9, "seed": 1}
"""A text that takes a while: hot draws seldom end it."""
ENDLESS = """
import sys, time
from multicsr.cli.main import main
from multicsr.llm.request import DecodedTokens
from multicsr.llm.transformers.engine import TransformersEngine

def write(engine, requests, rule, ends, watch):
    rows = [DecodedTokens() for _ in requests]
    while going := [(i, row) for i, row in enumerate(rows) if not row.finished]:
        time.sleep(0.02)
        for i, row in going:
            row.tokens.append(engine.tokens.encode(["dog"])[0][0])
            row.finished = not watch(i, row.tokens)
    return rows

TransformersEngine.write = write
main()
"""
"""Program whose engine writes a text until nobody wants it any more."""


@contextmanager
def command(*words, program=("-m", "multicsr.cli.main"), **variables):
    """The running command and its base URL, which is its first line."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(
        [sys.executable, *program, "serve", "tinylm", "--port", "0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def post(url, body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/completions", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.cluster
def test_server_starts_and_finishes_what_is_in_hand_when_it_is_terminated():
    with command("--grace", "300") as (process, url):
        status, answer = post(url, LONG)
        assert (status, answer["error"]["type"]) == (503, "server_error")
        assert process.stdout.readline() == "tinylm is ready; Ctrl-C ends the server\n"
        status, whole = post(url, LONG)
        assert (status, whole["usage"]["completion_tokens"] > 50) == (200, True)
        found = streamed(url, LONG, lambda: process.send_signal(signal.SIGTERM))
        assert found == whole["choices"][0]["text"]
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.cluster
def test_second_signal_breaks_off_and_one_while_loading_ends_at_once():
    with command("--grace", "300", program=("-c", ENDLESS)) as (process, url):
        process.stdout.readline()

        def interrupt_twice():
            process.send_signal(signal.SIGINT)
            assert "1 requests are finished within 300 s" in process.stderr.readline()
            process.send_signal(signal.SIGINT)

        with pytest.raises((OSError, http.client.HTTPException, AssertionError)):
            streamed(url, {**LONG, "max_tokens": 450}, interrupt_twice)
        assert process.wait(60) == 0
    with command() as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["multicsr", "serve", *words])
    code = run_app(app)
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tinylm", "--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines: set MULTICSR_"),
        (["tinylm", "--set", "generate.omega=0.3"], "--set generate.omega has no effect here"),
        (["tinylm", "--set", "llm.engine=openai"], "--set llm.engine has no effect here: give --engine"),
        (["tinylm", "--set", "llm.model=other"], "--set llm.model has no effect here: give MODEL instead"),
        (["./nowhere", "--port", "0"], "llm.model: no directory ./nowhere"),
    ],
)
def test_wrong_words_are_an_error_of_one_line(monkeypatch, capsys, words, line):
    monkeypatch.delenv(TOKEN, raising=False)
    code, error = run(monkeypatch, capsys, *words)
    assert code == 2
    assert line in error
    assert "\n" not in error


def test_a_model_that_is_no_directory_is_looked_for_before_the_server_listens(monkeypatch, capsys):
    def absent(name, setting, revision=None):
        raise ConfigError(f"{setting}: {name} is nowhere")

    monkeypatch.setattr(resolve, "require_on_hub", absent)
    assert run(monkeypatch, capsys, "no-such-model", "--port", "0") == (
        2,
        "error: llm.model: no-such-model is nowhere",
    )


def test_port_that_is_taken_is_an_error_of_one_line(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, error = run(monkeypatch, capsys, "tinylm", "--port", str(taken.getsockname()[1]))
    assert code == 2
    assert "--host, --port: 127.0.0.1:" in error
    assert "\n" not in error


def test_token_is_needed_where_others_can_connect(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert read_token(host) is None
    for host in ("0.0.0.0", "::", "10.0.0.1", "gpu-host"):
        with pytest.raises(ConfigError, match="can be reached"):
            read_token(host)
    monkeypatch.setenv(TOKEN, "abc")
    assert read_token("0.0.0.0") == read_token("127.0.0.1") == "abc"
    for bad in ("", "a b", "h\u00e9"):
        monkeypatch.setenv(TOKEN, bad)
        with pytest.raises(ConfigError, match=TOKEN):
            read_token("127.0.0.1")
