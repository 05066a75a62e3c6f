"""The engine as the generate stage uses it: scores, refusals, numbers that are none, a death."""

import contextlib
import csv
import itertools
import json
import shutil
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from multicsr.errors import ConfigError, WorkerLost
from multicsr.llm.base import Completion, Rejection
from multicsr.llm.label_probabilities import PROBABILITY_STEP
from multicsr.llm.request import HypothesisRequest
from multicsr.llm.transformers.engine import TransformersEngine
from multicsr.llm.vllm.engine import VllmEngine
from multicsr.models.resolve import ASSETS
from multicsr.prompts import load_prompts
from multicsr.rows import Reason, row_id
from multicsr.stages.score.parse import Unparsable, parse_score
from tests.support.tiny_llms import make_config

PROMPTS = load_prompts("syncse")
SMALL = {"kv_cache_gib": 0.25, "max_model_len": 128}


def make_engine(model="tinylm", generate=None, **vllm):
    llm = {"engine": "vllm", "device": "auto", "vllm": {**SMALL, **vllm}}
    return VllmEngine(make_config(model, llm=llm, generate={"batch_size": 16, **(generate or {})}))


@pytest.fixture(scope="module")
def engine():
    engine = make_engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def premises():
    with (ASSETS / "demo" / "sentences.tsv").open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row["sentence"] for row, _ in zip(rows, range(300), strict=False)]


@pytest.fixture(scope="module")
def scoring(premises):
    return [PROMPTS.scoring(a, b) for a, b in itertools.pairwise(premises)]


def test_expected_scores_are_those_of_the_transformers_engine(engine, scoring):
    theirs = TransformersEngine(make_config("tinylm")).label_probabilities(scoring, PROMPTS.score_labels)
    ours = engine.label_probabilities(scoring, PROMPTS.score_labels)
    apart = np.abs(np.stack(ours) - np.stack(theirs))
    assert (
        apart.max() <= PROBABILITY_STEP
    )  # a probability on the rounding edge itself may fall on either side
    assert (apart.max(axis=1) > 0).sum() <= 2
    again = engine.label_probabilities(list(reversed(scoring)), PROMPTS.score_labels)
    assert np.array_equal(np.stack(again), np.stack(ours)[::-1])


def test_labels_of_several_tokens_are_those_of_the_transformers_engine(engine, scoring):
    labels = [f"{digit} {word}" for digit in (0, 2, 4) for word in ("a", "the")]
    theirs = TransformersEngine(make_config("tinylm")).label_probabilities(scoring[:60], labels)
    ours = engine.label_probabilities(scoring[:60], labels)
    assert len(engine._tree(labels).prefixes) > 3
    assert np.abs(np.stack(ours) - np.stack(theirs)).max() <= PROBABILITY_STEP
    again = engine.label_probabilities(scoring[59::-1], labels)
    assert np.array_equal(np.stack(again), np.stack(ours)[::-1])
    assert len(np.unique(np.stack(ours))) > 3


def test_stated_scores_have_the_form_that_was_asked_for(engine, scoring):
    replies = engine.reply(scoring, scoring, 8)
    assert not [reply for reply in replies if isinstance(reply, Rejection)]
    scores = [parse_score(reply.text) for reply in replies]
    assert not [score for score in scores if isinstance(score, Unparsable)]
    assert all(0 <= score <= 5 for score in scores)
    assert len(set(scores)) > 5
    assert [reply.text for reply in engine.reply(scoring[:40], scoring[:40], 8)] == [
        reply.text for reply in replies[:40]
    ]


def write(engine, premises, **changes):
    """Tokens of all hypotheses under the engine's rule with these changes, and the tokens decided alone."""
    pairs = [PROMPTS.pair(text, row_id(text, "en"), 42) for text in premises]
    requests = []
    for text, pair in zip(premises, pairs, strict=True):
        e, c = engine.tokens.encode([pair.entailment, pair.contradiction])
        requests += [HypothesisRequest(e, c, 0.3, text, "e"), HypothesisRequest(c, e, 0.3, text, "c")]
    before = engine._client.counts.ties
    written = engine.write(requests, engine._rule._replace(**changes), engine._ends)
    return [row.tokens for row in written], engine._client.counts.ties - before


@pytest.mark.parametrize("rule", [{}, {"temperature": 1.0, "top_p": 0.95}], ids=["greedy", "drawn"])
def test_without_the_tie_rule_rows_are_those_with_it_in_any_batch(engine, premises, rule):
    if engine._tie_gap > 0:
        pytest.skip("on this machine the logits of vLLM depend on the batch")
    gap = 2e-4 if rule else 0.05  # far above what is needed, so that many tokens are decided alone
    together, none = write(engine, premises[:40], **rule)
    ruled, decided_alone = write(engine, premises[:40], **rule, tie_gap=gap)
    assert ruled == together
    assert (none, decided_alone > 10) == (0, True)
    assert write(engine, premises[39::-1], **rule)[0] == [
        tokens for i in range(78, -1, -2) for tokens in together[i : i + 2]
    ]
    assert [write(engine, [text], **rule)[0] for text in premises[:5]] == [
        together[i : i + 2] for i in range(0, 10, 2)
    ]


def test_scores_read_in_a_batch_are_the_bits_of_scores_read_alone(engine, scoring):
    if engine._tie_gap > 0:
        pytest.skip("on this machine the logits of vLLM depend on the batch")
    tree = engine._tree(PROMPTS.score_labels)
    prompts = engine.tokens.encode(scoring[:60])
    together = engine._log_probabilities(prompts, tree, alone=False)
    assert np.array_equal(together, engine._log_probabilities(prompts, tree, alone=True))
    one_by_one = [engine._log_probabilities([prompt], tree, alone=False)[0] for prompt in prompts]
    assert np.array_equal(together, one_by_one)


def test_a_prompt_that_is_too_long_is_rejected_and_the_rest_goes_on(engine, premises):
    texts = [premises[0], " ".join(premises[:30]), premises[1]]
    pairs = [PROMPTS.pair(text, row_id(text, "en"), 42) for text in texts]
    first, rejected, last = engine.generate_pairs(pairs, [row_id(text, "en") for text in texts])
    assert isinstance(first[0], Completion)
    assert isinstance(last[1], Completion)
    assert rejected.reason is Reason.PROMPT_TOO_LONG
    assert "context 128" in rejected.detail


@pytest.mark.slow  # an engine of its own
def test_logits_that_are_no_numbers_refuse_the_row(tmp_path, premises):
    model = tmp_path / "broken"
    shutil.copytree(ASSETS / "tinylm", model)
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if name.endswith("norm.weight") and "layers" not in name)
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    engine = make_engine(str(model))
    try:
        pairs = [PROMPTS.pair(text, row_id(text, "en"), 42) for text in premises[:3]]
        found = engine.generate_pairs(pairs, premises[:3])
        assert [row.reason for row in found] == [Reason.ENGINE_ERROR] * 3
        assert "not numbers" in found[0].detail
        scores = engine.label_probabilities([PROMPTS.scoring("A.", "B.")], PROMPTS.score_labels)
        assert scores[0].reason is Reason.ENGINE_ERROR
    finally:
        engine.close()


@pytest.mark.slow  # an engine of its own
def test_a_lora_adapter_changes_what_is_written(tmp_path, premises, engine):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    shape = json.loads((ASSETS / "tinylm" / "config.json").read_text())
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(layers):
        stem = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        tensors[f"{stem}.lora_A.weight"] = torch.randn(8, hidden, generator=draw)
        tensors[f"{stem}.lora_B.weight"] = torch.randn(hidden, 8, generator=draw)
    save_file(tensors, adapter / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["o_proj"], "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    adapted = make_engine(lora=str(adapter))
    try:
        pairs = [PROMPTS.pair(text, row_id(text, "en"), 42) for text in premises[:20]]
        plain, changed = (e.generate_pairs(pairs, premises[:20]) for e in (engine, adapted))
        assert all(isinstance(row[0], Completion) for row in changed)
        assert sum(a[0].text != b[0].text for a, b in zip(plain, changed, strict=True)) > 10
    finally:
        adapted.close()


def test_a_context_that_the_cache_cannot_hold_is_one_clear_line():
    with pytest.raises(
        ConfigError, match=r"^llm: vLLM cannot run .*KV cache is needed.*llm.vllm kv_cache_gib"
    ) as raised:
        make_engine(max_model_len=512, kv_cache_gib=0.0005)
    assert "\n" not in str(raised.value)


def test_engine_that_dies_ends_the_call_with_an_error(premises):
    engine = make_engine()
    for process in psutil.Process().children(recursive=True):
        if process.cmdline() and process.cmdline()[0].startswith("VLLM::Worker"):
            process.kill()
    pairs = [PROMPTS.pair(text, row_id(text, "en"), 42) for text in premises[:3]]
    with pytest.raises(WorkerLost, match="vLLM engine has died"):
        engine.generate_pairs(pairs, premises[:3])


@pytest.mark.slow  # an engine of its own
def test_an_engine_killed_while_it_starts_is_a_lost_worker_and_no_mistake_in_the_settings():
    def kill_when_it_appears():
        while not (found := [p for p in psutil.Process().children(recursive=True) if is_starting(p)]):
            time.sleep(0.05)
        found[0].kill()

    def is_starting(process):
        with contextlib.suppress(psutil.Error):
            return process.pid not in before and process.name().startswith("VLLM::EngineCor")
        return False

    before = {process.pid for process in psutil.Process().children(recursive=True)}
    threading.Thread(target=kill_when_it_appears, daemon=True).start()
    with pytest.raises(WorkerLost, match="a vLLM process was killed while it started"):
        make_engine()
