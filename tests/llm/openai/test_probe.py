"""The probe of `multicsr check`: it asks what a run asks, and nothing is written or paid for it."""

import pytest

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError, RunError
from multicsr.llm.openai.probe import probe
from tests.support.chat_server import said, serving


def probe_at(url):
    probe(LLMConfig(engine="openai", model="m", base_url=url))


def test_endpoint_that_answers_nothing_but_post_chat_completions_is_healthy():
    """GET is 404 everywhere, as behind a gateway that lets one path through."""
    with serving(lambda body: (400, {}, {"error": {"message": "messages is missing"}})) as server:
        probe_at(server.url)
    assert server.methods == ["POST"]
    assert server.bodies == [{"model": "m"}]


@pytest.mark.parametrize("status", [200, 400, 413, 422, 429, 500, 503, 529])
def test_endpoint_that_answers_anything_passing_is_healthy(status):
    with serving(lambda body: said("Fine.") if status == 200 else (status, {}, {"error": "x"})) as server:
        probe_at(server.url)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, ConfigError, "OPENAI_API_KEY: .* rejects the key: HTTP 401"),
        (404, ConfigError, r"llm\.base_url, llm\.model: nothing serves 'm'"),
        (405, ConfigError, r"llm\.base_url, llm\.model: nothing serves 'm'"),
        (308, ConfigError, "points elsewhere"),
        (402, RunError, "is not paid"),
    ],
)
def test_what_would_end_a_run_is_found(status, error, words):
    with serving(lambda body: (status, {}, {"error": "no"})) as server, pytest.raises(error, match=words):
        probe_at(server.url)


def test_wrong_path_is_found():
    with serving(lambda body: said("Fine.")) as server, pytest.raises(ConfigError, match="no such path"):
        probe_at(f"{server.url}/v2")


def test_nothing_that_listens_is_found():
    with serving(lambda body: said("Fine.")) as server:
        pass
    with pytest.raises(RunError, match=r"llm\.base_url: nothing answers there"):
        probe_at(server.url)
