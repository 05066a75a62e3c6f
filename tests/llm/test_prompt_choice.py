"""`generate.prompts: auto`: which set each kind of LLM gets, and why; the weights are not read."""

import json
import shutil

import pytest

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.llm.prompt_choice import choose_prompts, with_chosen_prompts
from multicsr.llm.prompt_tokens import PromptTokens
from multicsr.prompts import AUTO, load_prompts, shipped_prompt_sets
from tests.support.tiny_llms import VOCAB_SIZE, make_config

CHAT = "{% for message in messages %}<user>{{ message.content }}</user>{% endfor %}"
LARGE = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}


@pytest.fixture
def variant(causal_dir, tmp_path):
    """Return a function that copies the small Llama with another chat template and other sizes."""

    def make(chat: str | None, **sizes: int):
        folder = tmp_path / "llm"
        shutil.copytree(causal_dir, folder)
        if chat:
            (folder / "chat_template.jinja").write_text(chat)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | sizes))
        return folder

    return make


def choice(folder, **llm):
    return choose_prompts(make_config(folder, llm=llm).llm)


def test_base_model_gets_demonstrations_whatever_its_size(variant):
    name, why = choice(variant(None, **LARGE))
    assert (name, why) == ("fewshot", "the model has no chat template and only continues texts")


def test_small_chat_model_gets_demonstrations(variant):
    name, why = choice(variant(CHAT))
    assert (name, why) == ("fewshot", "the model is small (0.00B parameters)")


def test_large_chat_model_gets_instructions_alone(variant):
    folder = variant(CHAT, **LARGE)
    name, why = choice(folder)
    assert name == "syncse"
    perceptron, attention = 3 * 4096 * 14336, (2 * 32 + 2 * 2) * 12 * 4096  # heads of 12 numbers
    embeddings = 2 * VOCAB_SIZE * 4096
    assert f"({(32 * (perceptron + attention) + embeddings) / 1e9:.1f}B parameters, chat template)" in why
    assert choice(folder, chat_template=False)[0] == "fewshot"


def test_encoder_decoder_gets_the_authors_prompts(encoder_decoder_dir):
    assert choice(encoder_decoder_dir)[0] == "reference"


@pytest.mark.parametrize(
    "llm",
    [{"engine": "fake"}, {"engine": "openai", "model": "m", "base_url": "http://h/v1"}, {"model": "tinylm"}],
)
def test_llms_whose_kind_is_known_are_not_loaded(llm, monkeypatch):
    monkeypatch.delattr("multicsr.llm.load_tokenizer.load_tokenizer")
    generate = {"prompts": AUTO, "omega": 0}
    tree = {"name": "n", "store": "s", "input": {"paths": ["x"]}, "llm": llm, "generate": generate}
    chosen, choice = with_chosen_prompts(Config.model_validate(tree))
    assert chosen.generate.prompts == choice.name == "syncse"


def test_named_set_is_kept_and_no_model_is_looked_at(tmp_path):
    config = make_config(tmp_path / "nowhere", generate={"prompts": "reference"})
    assert with_chosen_prompts(config) == (config, None)


def test_model_that_is_not_here_is_an_error_that_names_the_remedy(tmp_path):
    config = make_config(tmp_path / "nowhere", generate={"prompts": AUTO})
    with pytest.raises(ConfigError, match=r"^generate\.prompts: auto .* no directory .*; name a set$"):
        with_chosen_prompts(config)


def test_every_choice_is_a_set_that_ships():
    from multicsr.llm import prompt_choice

    chosen = {prompt_choice.ZERO_SHOT, prompt_choice.FEW_SHOT, prompt_choice.FOR_ENCODER_DECODERS}
    assert chosen <= set(shipped_prompt_sets())
    assert AUTO not in shipped_prompt_sets()


def test_set_for_continuation_reaches_a_chat_model_without_its_template(variant):
    from transformers import AutoTokenizer

    folder = variant(CHAT)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def read(*, is_for_chat: bool, **llm: bool) -> str:
        tokens = PromptTokens(
            make_config(folder, llm=llm).llm, tokenizer, None, has_encoder=False, is_for_chat=is_for_chat
        )
        return tokenizer.decode(tokens.encode(["It rains."])[0])

    assert read(is_for_chat=True) == "<user>It rains.</user>"
    assert read(is_for_chat=False) == read(is_for_chat=True, chat_template=False) == "It rains."
    assert read(is_for_chat=False, chat_template=True) == "<user>It rains.</user>"
    assert not load_prompts("fewshot").chat
