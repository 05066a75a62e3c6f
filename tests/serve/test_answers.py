"""What the server writes is what a job writes, whoever asks beside it, in whichever form."""

import json
import math
import shutil
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
import torch

from multicsr.llm.contrast import uniform
from multicsr.prompts import load_prompts
from tests.support import decoding
from tests.support.served import NAME, engine_of, serving_engine

PROMPTS = load_prompts("syncse")
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
DRAWN = {"temperature": 0.8, "top_p": 0.9}


@pytest.fixture(scope="module", params=["causal", "encoder_decoder"])
def engine(request):
    return engine_of(request.getfixturevalue(f"{request.param}_dir"))


@pytest.fixture(scope="module")
def server(engine):
    with serving_engine(engine) as served:
        yield served


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


def user(text):
    return [{"role": "user", "content": text}]


def pairs_of(premises):
    return [PROMPTS.pair(premise, premise, seed=1) for premise in premises]


def hypotheses(engine, premises, omega, **sampling):
    """Texts, counts and ends of a job with seed 42, as (prompt, noisy prompt, draw key, completion)."""
    job = engine_of(model_path(engine), generate={"omega": omega, **sampling})
    pairs = pairs_of(premises)
    for premise, pair, (e, c) in zip(premises, pairs, job.generate_pairs(pairs, premises), strict=True):
        yield pair.entailment, pair.contradiction, f"{premise}:entailment", e
        yield pair.contradiction, pair.entailment, f"{premise}:contradiction", c


def model_path(engine):
    return engine._tokenizer.name_or_path


def body_of(noisy, key, omega, is_chat, **sampling):
    body = {"temperature": 0, "max_tokens": 12, "stop": "\n", **sampling}
    if sampling:
        body |= {"seed": 42, "draw_key": key}
    if omega:
        body["contrast"] = {"omega": omega, **({"messages": user(noisy)} if is_chat else {"prompt": noisy})}
    return body


def ask(server, prompt, is_chat, body):
    """The answer, as (text, tokens, reason)."""
    if is_chat:
        answer = server.ask("chat/completions", messages=user(prompt), **body)
        text = answer["choices"][0]["message"]["content"]
    else:
        answer = server.ask("completions", prompt=prompt, **body)
        text = answer["choices"][0]["text"]
    return text, answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]


@pytest.mark.parametrize("sampling", [{}, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("is_chat", [True, False], ids=["chat", "prompt"])
def test_concurrent_requests_are_those_of_a_job(engine, server, premises, is_chat, sampling):
    works = [
        (is_chat, prompt, body_of(noisy, key, omega, is_chat, **sampling), expected)
        for omega in (0, 0.3)
        for prompt, noisy, key, expected in hypotheses(engine, premises[:6], omega, **sampling)
    ]
    with ThreadPoolExecutor(24) as threads:
        found = threads.map(lambda work: ask(server, work[1], work[0], work[2]), works)
        for (text, num_tokens, reason), (*_, expected) in zip(found, works, strict=True):
            assert text.lstrip() == expected.text
            assert num_tokens == expected.num_tokens
            assert (reason == "stop") == expected.finished


def test_text_is_that_of_the_equation(engine, server, premises):
    """MultiCSR Eq. 2 without a cache or a batch; greedy, and with the numbers of a job."""
    model = engine._read.args[0]
    for prompt, noisy, key, _ in list(hypotheses(engine, premises[:3], 0.3)):
        ids = [engine._tokenizer(text)["input_ids"] for text in (prompt, noisy)]
        row_id, _, direction = key.rpartition(":")
        drawer = decoding.drawer(42, row_id, direction, 0.8, 0.9)
        for choose, sampling in ((None, {}), (drawer, DRAWN)):
            tokens, _ = decoding.write(model, *ids, 0.3, 12, choose)
            expected = engine.ends(("\n",)).text(tokens)[0]
            found = ask(server, prompt, False, body_of(noisy, key, 0.3, False, **sampling))[0]
            assert found.lstrip() == expected


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {**DRAWN, "seed": 5}], ids=["greedy", "drawn"])
def test_a_stream_is_the_text_in_pieces(client, premises, sampling):
    for premise in premises[:4]:
        body = {
            "model": NAME,
            "messages": user(premise),
            "max_tokens": 12,
            "stop": ["a"],
            "extra_body": {"contrast": {"messages": user(premises[9]), "omega": 0.3}},
            **sampling,
        }
        whole = client.chat.completions.create(**body)
        chunks = list(
            client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True})
        )
        assert chunks[0].choices[0].delta.role == "assistant"
        *pieces, end, usage = chunks
        assert "".join(each.choices[0].delta.content for each in pieces) == whole.choices[0].message.content
        assert end.choices[0].finish_reason == whole.choices[0].finish_reason
        assert usage.usage == whole.usage
        assert len({each.id for each in chunks}) == 1


def test_stream_of_a_completion(server, client, premises):
    body = {"model": NAME, "prompt": premises[0], "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**body)
    chunks = list(client.completions.create(**body, stream=True))
    assert "".join(each.choices[0].text for each in chunks) == whole.choices[0].text
    request = urllib.request.Request(
        f"{server.url}/completions",
        json.dumps({**body, "stream": True}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        events = response.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])


def test_seed_alone_gives_the_same_text_again_and_none_gives_others(server, premises):
    def texts(**body):
        return {
            ask(server, premises[0], False, {"max_tokens": 12, "temperature": 9, **body})[0] for _ in range(6)
        }

    assert len(texts(seed=3)) == 1
    assert texts(seed=3) != texts(seed=4)
    assert len(texts()) > 1


def test_a_prompt_alone_is_drawn_with_the_numbers_of_its_seed(engine, server, premises):
    model, ids = engine._read.args[0], engine._tokenizer(premises[0])["input_ids"]

    def choose(logits, position):
        return decoding.draw(logits, uniform(0, "3", "request", position), 1.0, 1.0)

    tokens, _ = decoding.write(model, ids, ids, 0.0, 12, choose)
    found = ask(server, premises[0], False, {"max_tokens": 12, "seed": 3})[0]
    assert found.lstrip() == engine.ends(()).text(tokens)[0]


def test_labels_are_those_of_a_job(engine, server, premises):
    prompts = [PROMPTS.scoring(a, b) for a, b in zip(premises[:6], premises[6:12], strict=True)]
    expected = engine.label_probabilities(prompts, PROMPTS.score_labels)
    with ThreadPoolExecutor(6) as threads:
        found = threads.map(
            lambda prompt: server.ask(
                "chat/completions", messages=user(prompt), labels=PROMPTS.score_labels, max_tokens=1
            ),
            prompts,
        )
        for answer, probabilities_L in zip(found, expected, strict=True):
            [choice] = answer["choices"]
            assert choice["label_probabilities"] == probabilities_L.tolist()
            likeliest = PROMPTS.score_labels[int(np.argmax(probabilities_L))]
            assert choice["message"]["content"] == likeliest.strip()


def test_log_probabilities_are_those_of_the_model(engine, client, premises):
    model, tokenizer = engine._read.args[0], engine._tokenizer
    answer = client.chat.completions.create(
        model=NAME, messages=user(premises[0]), temperature=0, max_tokens=4, logprobs=True, top_logprobs=5
    )
    ids, written = tokenizer(premises[0])["input_ids"], []
    for position in answer.choices[0].logprobs.content:
        log_p = torch.log_softmax(decoding.next_logits(model, ids, written).double(), -1)
        values, tokens = log_p.topk(5)
        assert [top.token for top in position.top_logprobs] == [tokenizer.decode([t]) for t in tokens]
        assert [top.logprob for top in position.top_logprobs] == pytest.approx(values.tolist(), abs=1e-4)
        assert position.token == position.top_logprobs[0].token
        assert math.isclose(position.logprob, position.top_logprobs[0].logprob)
        written.append(int(tokens[0]))
    assert len(written) == 4 or written[-1] in engine.ends(()).eos


def test_chat_template_is_that_of_the_model(causal_dir, tmp_path, premises):
    folder = shutil.copytree(causal_dir, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE + "{% if loud is true %}!{% endif %}")
    body = {"temperature": 0, "max_tokens": 8}
    with serving_engine(engine_of(folder)) as server:

        def chat(messages, **more):
            answer = server.ask("chat/completions", messages=messages, **body, **more)
            return answer["choices"][0]["message"]["content"]

        def prompt(text):
            return server.ask("completions", prompt=text, **body)["choices"][0]["text"]

        assert chat(user("A dog.")) == prompt("<user>A dog.<assistant>")
        assert chat(user("A dog."), chat_template_kwargs={"loud": True}) == prompt("<user>A dog.<assistant>!")
        assert chat(user("A dog."), chat_template=False) == prompt("A dog.")
        messages = [{"role": "system", "content": "Be."}, *user([{"type": "text", "text": "A dog."}])]
        assert chat(messages) == prompt("<system>Be.<user>A dog.<assistant>")
        status, _, answer = server.send(
            "chat/completions",
            {"model": NAME, "messages": user("A."), "chat_template_kwargs": {"soft": True}},
        )
        assert (status, "does not use 'soft'" in answer["error"]["message"]) == (400, True)
