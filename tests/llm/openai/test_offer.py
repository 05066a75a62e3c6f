"""Endpoints that offer pairs, and those that do not: one line before anything is paid."""

import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.llm.openai.offer import require_pairs
from multicsr.pipeline.preflight import find_problems
from multicsr.tools import check
from tests.llm.openai.test_engine import pairs
from tests.support.chat_server import ChatServer, engine_at, said, serving

OFFER = {"id": "some-model", "multicsr": {"contrast": True, "labels": True}}


class OfferingServer(ChatServer):
    """Server with a list of models; `models` are (status, body) in order, the last one for good."""

    models = ((200, {"data": [OFFER]}),)

    def respond(self, method, path, headers, data):
        assert (method, path) == ("GET", "/v1/models")
        status, body = self.models[0]
        self.models = self.models[1:] or self.models
        return status, {}, body


def offering(*models):
    return type("Offering", (OfferingServer,), {"models": models}) if models else OfferingServer


def with_contrast(body):
    """An answer that was written with the noisy branch that was asked for."""
    status, headers, answer = said(f"{body['messages'][0]['content'].splitlines()[0]} ")
    return status, headers, {**answer, "contrast": {"omega": body["contrast"]["omega"]}}


def test_request_carries_the_noisy_branch_and_the_draws_of_the_row():
    with serving(with_contrast, OfferingServer) as server:
        engine = engine_at(server.url, generate={"omega": 0.3, "temperature": 0.5}, seed=7)
        [(entailment, contradiction)] = engine.generate_pairs(pairs("A dog runs."), ["r1"])
    assert (entailment.num_tokens, contradiction.finished) == (3, True)
    first, second = server.bodies
    assert first["contrast"] == {"messages": second["messages"], "omega": 0.3}
    assert second["contrast"] == {"messages": first["messages"], "omega": 0.3}
    assert [body["draw_key"] for body in server.bodies] == ["r1:entailment", "r1:contradiction"]
    assert {body["seed"] for body in server.bodies} == {7}
    assert server.methods == ["GET", "POST", "POST"]


def test_greedy_request_has_no_draws():
    with serving(with_contrast, OfferingServer) as server:
        engine_at(server.url, generate={"omega": 0.3}).generate_pairs(pairs("A dog runs."), ["r1"])
    assert all("draw_key" not in body for body in server.bodies)


def test_label_probabilities_are_taken_as_they_are():
    def answer(body):
        status, headers, answer = said("1")
        answer["choices"][0]["label_probabilities"] = [0.25, 0.75]
        return status, headers, answer

    with serving(answer, OfferingServer) as server:
        engine = engine_at(server.url, generate={"omega": 0.3})
        [found] = engine.label_probabilities(["Score:"], ["0", "1"])
        [short] = engine.label_probabilities(["Score:"], ["0", "1", "2"])
    assert found.tolist() == [0.25, 0.75]
    assert "2 probabilities for 3 labels" in short.detail
    assert server.bodies[0]["labels"] == ["0", "1"]
    assert "logprobs" not in server.bodies[0]


NO_OFFER = {
    "plain endpoint": (200, {"data": [{"id": "some-model", "object": "model"}]}),
    "another model": (200, {"data": [{**OFFER, "id": "other"}]}),
    "no labels": (200, {"data": [{"id": "some-model", "multicsr": {"contrast": True}}]}),
    "no list": (200, {"models": []}),
    "no such path": (404, {"error": "no such path"}),
    "no such method": (405, {"error": "no"}),
}


@pytest.mark.parametrize("models", NO_OFFER.values(), ids=NO_OFFER)
def test_endpoint_without_offer_is_an_error_before_anything_is_asked(models):
    with (
        serving(said, offering(models)) as server,
        pytest.raises(ConfigError, match=r"generate\.omega: .* does not offer contrast") as found,
    ):
        engine_at(server.url, generate={"omega": 0.3})
    assert "set generate.omega to 0" in str(found.value)
    assert "\n" not in str(found.value)
    assert server.bodies == []


def test_wrong_key_is_an_error_of_the_key():
    rejecting = offering((401, {"error": "no"}))
    with serving(said, rejecting) as server, pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        engine_at(server.url, generate={"omega": 0.3})


def test_server_that_starts_is_waited_for():
    starts = (503, {"error": "loading"})
    with serving(with_contrast, offering(starts, starts, (200, {"data": [OFFER]}))) as server:
        engine_at(server.url, generate={"omega": 0.3})
    assert server.methods == ["GET"] * 3


def test_server_that_never_starts_ends_the_job():
    words = r"llm\.patience_s\): HTTP 503: loading"
    with (
        serving(said, offering((503, {"error": "loading"}))) as server,
        pytest.raises(RunError, match=words),
    ):
        engine_at(server.url, generate={"omega": 0.3}, llm={"patience_s": 0.05})


def test_answer_without_contrast_ends_the_job():
    """A proxy may send a request to a server that ignores fields it does not know."""
    with serving(lambda body: said("Plain."), OfferingServer) as server:
        engine = engine_at(server.url, generate={"omega": 0.3})
        with pytest.raises(ConfigError, match=r"an answer with no contrast.* set generate\.omega to 0"):
            engine.generate_pairs(pairs("A dog runs."), ["r1"])


def settings(tmp_path, url):
    (tmp_path / "in.txt").write_text("A dog runs in the park.\n")
    tree = {
        "name": "t",
        "store": str(tmp_path / "store"),
        "input": {"paths": [str(tmp_path / "in.txt")]},
        "llm": {"engine": "openai", "model": "some-model", "base_url": url},
        "score": {"method": "llm_stated"},
    }
    return Config.model_validate(tree)


def test_preflight_looks_for_the_offer_and_takes_silence_for_no_answer(tmp_path):
    with serving(said, offering((404, {}))) as server:
        [problem] = find_problems(["generate"], settings(tmp_path, server.url))
        assert "does not offer contrast" in str(problem)
    assert find_problems(["generate"], settings(tmp_path, server.url)) == []
    with serving(said, OfferingServer) as server:
        assert find_problems(["generate"], settings(tmp_path, server.url)) == []
        require_pairs(settings(tmp_path, server.url).llm)


def test_check_shows_the_offer(tmp_path, capfd):
    with serving(lambda body: (400, {}, {"error": "messages"}), OfferingServer) as server:
        check.examine(settings(tmp_path, server.url))
    assert f"{server.url}, offers contrast" in " ".join(capfd.readouterr().out.split())
