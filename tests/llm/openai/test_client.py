"""The HTTP client against real servers: one pool, bounded answers, no redirects, keys and proxies."""

import gzip
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from multicsr.config import LLMConfig
from multicsr.llm.openai import client as client_module
from multicsr.llm.openai.answers import AnswerKind, ChatFailure
from multicsr.llm.openai.client import ChatClient
from tests.support.certificates import Authority
from tests.support.chat_server import engine_at, said, serving


def make_client(url, **settings):
    return ChatClient(LLMConfig(engine="openai", model="m", base_url=url, **settings))


@pytest.mark.parametrize("concurrency", [3, 16])
def test_all_threads_share_one_pool_of_connections(concurrency):
    """64 requests: at most so many connections as may be in flight, each kept alive."""

    def answer(body):
        time.sleep(0.01)
        return said("Fine.")

    with serving(answer) as server, ThreadPoolExecutor(concurrency) as threads:
        engine = engine_at(server.url, llm={"concurrency": concurrency})
        list(threads.map(lambda i: engine.reply(["4"], [str(i)], 8), range(64)))
        assert server.statuses == {200: 64}
        assert server.connections <= concurrency
        assert {headers["Connection"] for headers in server.headers} == {"keep-alive"}
        assert server.most_in_flight > 2


@pytest.mark.parametrize("key", ["abc", None])
def test_key_is_sent_as_it_is_or_not_at_all(key, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with serving(lambda body: said("Fine.")) as server:
        assert make_client(server.url).post({}).status == 200
    assert server.headers[0]["Authorization"] == (f"Bearer {key}" if key else None)


def test_redirect_is_not_followed(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "abc")
    with serving(lambda body: said("Stolen.")) as other:
        target = f"{other.url}/chat/completions"
        for status in (301, 302, 307, 308):
            with serving(lambda body, status=status: (status, {"Location": target}, {})) as server:
                assert make_client(server.url).post({}).status == status
    assert other.bodies == []


def test_library_itself_repeats_nothing():
    with serving(lambda body: (503, {"Retry-After": "0", "x-should-retry": "true"}, {})) as server:
        response = make_client(server.url).post({})
    assert (response.status, len(server.bodies)) == (503, 1)


def test_query_of_the_address_is_kept():
    with serving(lambda body: said("Fine.")) as server:
        client = make_client(f"{server.url}/?api-version=2024-06-01")
        assert client.post({}).status == 200
        assert client.url == f"{server.url}/chat/completions?api-version=2024-06-01"


@pytest.mark.parametrize("status", [200, 500])
def test_answer_that_is_too_long_is_not_read_to_its_end(status, monkeypatch):
    """The decoded bytes count, so that a small compressed body does not fill the memory."""
    monkeypatch.setattr(client_module, "_MOST_BYTES", 2**20)
    bomb = gzip.compress(b" " * 2**24)
    with serving(lambda body: (status, {"Content-Encoding": "gzip"}, bomb)) as server:
        failure = make_client(server.url).post({})
    assert isinstance(failure, ChatFailure)
    assert (failure.kind, failure.may_be_charged) == (AnswerKind.UNUSABLE, True)


def test_compressed_answer_is_decoded():
    with serving(lambda body: (200, {"Content-Encoding": "gzip"}, gzip.compress(b'{"a": 1}'))) as server:
        assert make_client(server.url).post({}).body == b'{"a": 1}'


def test_only_a_request_that_was_sent_may_have_been_charged():
    release = threading.Event()

    def answer(body):
        release.wait(5)
        return said("Late.")

    with serving(answer) as server:
        late = make_client(server.url, timeout_s=0.2).post({})
        release.set()
    unreachable = make_client(server.url).post({})
    assert (late.kind, late.may_be_charged) == (AnswerKind.PASSING, True)
    assert (unreachable.kind, unreachable.may_be_charged) == (AnswerKind.PASSING, False)
    assert "refused" in unreachable.message


def test_proxy_of_the_environment_is_used(monkeypatch):
    """A proxy on HTTP gets the whole address; here it answers itself."""
    with serving(lambda body: (200, {}, {"by": "proxy"})) as proxy:
        proxy_url = proxy.url.removesuffix("/v1")
        monkeypatch.setenv("HTTP_PROXY", proxy_url)
        monkeypatch.setenv("NO_PROXY", "")
        response = make_client("http://endpoint.invalid/v1").post({})
    assert response.status == 404  # the path of the proxied request is the whole address
    assert proxy.headers[0]["Host"] == "endpoint.invalid"


def test_unknown_authority_is_explained(tmp_path, monkeypatch):
    authority = Authority(tmp_path, "unknown")
    with serving(lambda body: said("Fine.")) as server:
        server.socket = authority.server().wrap_socket(server.socket, server_side=True)
        url = f"https://127.0.0.1:{server.server_port}/v1"
        failure = make_client(url).post({})
        assert "is signed by" in failure.message
        assert "SSL_CERT_FILE" in failure.message
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert make_client(url).post({}).status == 200
