"""The transformers engine: label probabilities, bad models, chat templates, long prompts, batches."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
import transformers

from multicsr.errors import ConfigError
from multicsr.llm.base import Rejection
from multicsr.llm.transformers.engine import TransformersEngine
from multicsr.llm.transformers.kv_cache import CausalBranches, EncoderDecoderBranches
from multicsr.llm.transformers.trial import check_architecture
from multicsr.models.resolve import ASSETS, loading_model
from multicsr.prompts import load_prompts
from multicsr.rows import Reason
from multicsr.stages.generate.triplets import TripletStage
from tests.support.decoding import next_logits
from tests.support.llm_rows import make_sentences, triplets
from tests.support.tiny_llms import CONTEXT, make_config

PROMPTS = load_prompts("syncse")
LABELS = PROMPTS.score_labels
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture
def engine(model_dir):
    return TransformersEngine(make_config(model_dir))


@pytest.fixture
def causal_copy(causal_dir, tmp_path):
    return shutil.copytree(causal_dir, tmp_path / "model")


def model_of(engine):
    return engine._read.args[0]


def pairs_of(premises):
    return [PROMPTS.pair(premise, premise, seed=1) for premise in premises]


def test_replies_are_plain_and_greedy(engine, premises):
    replies = engine.reply(premises[:5], premises[:5], max_new_tokens=3)
    for premise, found in zip(premises[:5], replies, strict=True):
        written = []
        with torch.no_grad():
            while len(written) < 3 and not (written and engine._ends.ended(written)):
                ids = engine.tokens._tokenizer(premise)["input_ids"]
                written.append(int(next_logits(model_of(engine), ids, written).argmax()))
        assert found.text == engine._ends.text(written)[0]
        assert found.finished == engine._ends.ended(written)


def test_a_prompt_that_does_not_fit_rejects_its_row_only(causal_dir):
    engine = TransformersEngine(make_config(causal_dir))
    texts = ["A dog runs.", "word " * CONTEXT, "A man sits."]
    found = engine.generate_pairs(pairs_of(texts), texts)
    assert [isinstance(result, Rejection) for result in found] == [False, True, False]
    assert found[1].reason == Reason.PROMPT_TOO_LONG
    assert [found[0], found[2]] == engine.generate_pairs(pairs_of(texts[::2]), texts[::2])
    assert engine.label_probabilities([texts[1]], LABELS)[0].reason == Reason.PROMPT_TOO_LONG
    assert engine.reply([texts[1]], ["id"], 3)[0].reason == Reason.PROMPT_TOO_LONG


def test_logits_that_are_no_numbers_refuse_the_row(engine):
    with torch.no_grad():
        model_of(engine).get_output_embeddings().weight[:] = float("nan")
    [found] = engine.generate_pairs(pairs_of(["A dog runs."]), ["id"])
    assert found.reason == Reason.ENGINE_ERROR
    assert "llm.dtype" in found.detail
    assert engine.label_probabilities(["Score:"], LABELS)[0].reason == Reason.ENGINE_ERROR


def test_the_chat_template_wraps_prompts_when_there_is_one(causal_copy):
    plain = TransformersEngine(make_config(causal_copy))
    (causal_copy / "chat_template.jinja").write_text(TEMPLATE)
    chat = TransformersEngine(make_config(causal_copy))
    off = TransformersEngine(make_config(causal_copy, llm={"chat_template": False}))
    assert chat.tokens.encode(["A dog."]) == plain.tokens.encode(["<user>A dog.<assistant>"])
    assert off.tokens.encode(["A dog."]) == plain.tokens.encode(["A dog."])


def test_arguments_of_the_chat_template_reach_it_and_others_are_errors(causal_copy):
    def encode(**args):
        engine = TransformersEngine(make_config(causal_copy, llm={"template_args": args}))
        return engine.tokens.encode(["A dog."])

    with pytest.raises(ConfigError, match=r"llm\.template_args: enable_thinking has no effect"):
        encode(enable_thinking=False)
    plain = TransformersEngine(make_config(causal_copy))
    thinking = "{% if enable_thinking is not false %}<think>{% endif %}"
    (causal_copy / "chat_template.jinja").write_text(TEMPLATE + thinking)
    assert encode() == encode(enable_thinking=True) == plain.tokens.encode(["<user>A dog.<assistant><think>"])
    assert encode(enable_thinking=False) == plain.tokens.encode(["<user>A dog.<assistant>"])
    with pytest.raises(ConfigError, match=r"llm\.template_args: thinking has no effect"):
        encode(thinking=False)


def test_a_chat_template_that_is_not_there_is_a_configuration_error(causal_dir):
    with pytest.raises(ConfigError, match=r"llm\.chat_template"):
        TransformersEngine(make_config(causal_dir, llm={"chat_template": True}))


def test_a_model_that_cannot_be_loaded_is_a_configuration_error(causal_copy, tmp_path):
    (causal_copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ConfigError, match=r"llm\.model: cannot load"):
        TransformersEngine(make_config(causal_copy))
    (causal_copy / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"llm\.model: .* no model weights"):
        TransformersEngine(make_config(causal_copy))
    with pytest.raises(ConfigError, match=r"llm\.model: no directory"):
        TransformersEngine(make_config(tmp_path / "nowhere"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_a_configuration_error(causal_dir):
    with pytest.raises(ConfigError, match=r"llm\.device"):
        TransformersEngine(make_config(causal_dir, llm={"device": "cuda"}))


def test_rows_of_a_stage_do_not_depend_on_blocks(model_dir, premises):
    sections = {"score": {"method": "both", "max_new_tokens": 3}, "curate": {"score": "llm_expected"}}
    sentences = make_sentences(premises[:40])
    found = []
    for size, batch_size in ((40, 64), (7, 3)):
        stage = TripletStage(make_config(model_dir, generate={"batch_size": batch_size}, **sections))
        outputs = [triplets(stage, sentences.slice(start, size)) for start in range(0, 40, size)]
        rows = [row for output in outputs for row in output.rows.to_pylist() + output.rejects.to_pylist()]
        found.append(sorted(rows, key=lambda row: row["position"]))
    assert found[0] == found[1]
    assert len(found[0]) == 40


def test_what_was_done_is_counted_once(engine, premises):
    pairs = pairs_of(premises[:4])
    found = engine.generate_pairs(pairs, premises[:4])
    usage = engine.usage.take()
    texts = [text for pair in pairs for text in (pair.entailment, pair.contradiction)]
    assert usage["prompt_tokens"] == sum(len(engine.tokens._tokenizer(text)["input_ids"]) for text in texts)
    assert usage["generated_tokens"] == sum(e.num_tokens + c.num_tokens for e, c in found)
    assert engine.usage.take() == {}


def test_the_settings_of_a_hypothesis_reach_the_decoder(model_dir, premises):
    plain = TransformersEngine(make_config(model_dir)).generate_pairs(pairs_of(premises[:8]), premises[:8])
    words = [side.text.split()[0] for pair in plain for side in pair if side.text.split()]
    settings = {"min_new_tokens": 6, "bad_words": words}
    engine = TransformersEngine(make_config(model_dir, generate=settings))
    banned = {tokens for tokens in engine._rule.bad_words if len(tokens) == 1}
    found = engine.generate_pairs(pairs_of(premises[:8]), premises[:8])
    assert min(side.num_tokens for pair in found for side in pair) >= 6
    assert min(side.num_tokens for pair in plain for side in pair) < 6
    assert found != plain
    assert len(words) > 8
    assert banned


@pytest.mark.skipif(
    not (ASSETS / "tinylm" / "model.safetensors").is_file(),
    reason="the tiny LM is not in multicsr/assets/tinylm",
)
def test_the_shipped_model_writes_and_scores(premises):
    sentences = make_sentences(premises[:16])
    config = make_config("tinylm", generate={"max_new_tokens": 32, "batch_size": 8})
    output = triplets(TripletStage(config), sentences)
    assert output.rows.num_rows > 12
    assert json.loads((ASSETS / "tinylm" / "config.json").read_text())["model_type"] == "llama"
    rows = output.rows.to_pylist()
    assert np.mean([row["entailment_expected"] for row in rows]) > np.mean(
        [row["contradiction_expected"] for row in rows]
    )


TINY = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
REFUSED = {
    "MambaForCausalLM": transformers.MambaConfig(**TINY),
    "RwkvForCausalLM": transformers.RwkvConfig(**TINY, context_length=64),
    "XLNetLMHeadModel": transformers.XLNetConfig(vocab_size=64, d_model=32, n_layer=2, n_head=4, d_inner=64),
    "RecurrentGemmaForCausalLM": transformers.RecurrentGemmaConfig(
        **{**TINY, "num_hidden_layers": 3}, intermediate_size=64, num_attention_heads=4, lru_width=32
    ),
    "SwitchTransformersForConditionalGeneration": transformers.SwitchTransformersConfig(
        vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, num_experts=4
    ),
    "BertLMHeadModel": transformers.BertConfig(**TINY, num_attention_heads=4, intermediate_size=64),
}


@pytest.mark.parametrize("architecture", REFUSED)
def test_an_architecture_that_cannot_be_decoded_is_rejected_when_it_is_loaded(
    architecture, tmp_path, causal_dir
):
    config = REFUSED[architecture]
    config.decoder_start_token_id = 0
    getattr(transformers, architecture)(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(causal_dir / name, tmp_path / name)
    with pytest.raises(ConfigError) as raised:
        TransformersEngine(make_config(tmp_path))
    assert str(raised.value).startswith(f"llm.model: {tmp_path} has the architecture {architecture}, which ")
    assert "\n" not in str(raised.value)


@pytest.fixture
def prophetnet_dir(causal_dir, tmp_path):
    """A random ProphetNet: in transformers it writes other tokens with its cache than without."""
    sizes = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    sizes |= {"num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4}
    sizes |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "init_std": 0.5}
    torch.manual_seed(1)
    config = transformers.ProphetNetConfig(vocab_size=64, hidden_size=32, ngram=2, **sizes)
    config.decoder_start_token_id = 0
    transformers.ProphetNetForConditionalGeneration(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(causal_dir / name, tmp_path / name)
    return tmp_path


def test_a_model_whose_cache_is_wrong_is_rejected_when_it_is_loaded(prophetnet_dir):
    expected = "ProphetNetForConditionalGeneration, which writes other text with its cache of keys and values"
    with pytest.raises(ConfigError, match=rf"^llm\.model: .* has the architecture {expected} than without; "):
        TransformersEngine(make_config(prophetnet_dir))


class _Forgetful(CausalBranches):
    """Branches of a model that loses the end of the prompt in the second step."""

    def step(self, tokens_R):
        logits_RV = super().step(tokens_R)
        self._mask_RT = self._mask_RT.clone()
        self._mask_RT[:, -2] = 0
        return logits_RV


def test_a_cache_that_goes_wrong_in_the_second_step_is_found_out(causal_dir):
    model = transformers.AutoModelForCausalLM.from_pretrained(causal_dir)
    with pytest.raises(ConfigError, match="with its cache of keys and values than without"):
        check_architecture(partial(_Forgetful, model), model, "m")


class _Shifty(CausalBranches):
    """Branches of a model whose rows depend on what else is in the batch."""

    def step(self, tokens_R):
        return super().step(tokens_R).roll(len(tokens_R) - 1, dims=1)


def test_memory_that_is_used_up_is_no_matter_of_architecture_or_files():
    def fails(prompts):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        check_architecture(fails, None, "m")
    with pytest.raises(torch.OutOfMemoryError), loading_model("m", "llm.model"):
        fails([])


def test_rows_that_depend_on_the_batch_are_found_out(causal_dir):
    model = transformers.AutoModelForCausalLM.from_pretrained(causal_dir)
    check_architecture(partial(CausalBranches, model), model, "m")
    with pytest.raises(ConfigError, match="writes other text for prompts in a batch"):
        check_architecture(partial(_Shifty, model), model, "m")


@torch.inference_mode()
def test_texts_of_a_model_without_a_start_token_begin_with_bos():
    """T5Gemma names only `bos_token_id`, and transformers begins with it."""
    torch.manual_seed(2)
    config = transformers.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    model = transformers.T5ForConditionalGeneration(config).eval()
    model.generation_config.decoder_start_token_id, model.generation_config.bos_token_id = None, 3
    found = EncoderDecoderBranches(model, [[5, 6, 7]]).first_PV
    expected = model(torch.tensor([[5, 6, 7]]), decoder_input_ids=torch.tensor([[3]])).logits[:, -1]
    torch.testing.assert_close(found, expected)
    check_architecture(partial(EncoderDecoderBranches, model), model, "m")
    model.generation_config.bos_token_id = None
    with pytest.raises(ConfigError, match="T5ForConditionalGeneration"):
        check_architecture(partial(EncoderDecoderBranches, model), model, "m")
