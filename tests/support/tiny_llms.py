"""Two small random models with a real tokenizer, saved as directories, and real premises."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from multicsr.config import Config
from multicsr.models.resolve import ASSETS
from multicsr.prompts import load_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCAB_SIZE = 900
CONTEXT = 160


@pytest.fixture(scope="session")
def premises() -> list[str]:
    """200 real premises: the first of the demo's."""
    with (ASSETS / "demo" / "sentences.tsv").open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row["sentence"] for row, _ in zip(rows, range(200), strict=False)]


@pytest.fixture
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def causal_dir(premises, tmp_path_factory) -> Path:
    """A random Llama of 2 layers whose texts end now and then."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(premises, append_eos=False)
    torch.manual_seed(7)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            initializer_range=0.3,
        )
    )
    return _save(model, tokenizer, tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="session")
def encoder_decoder_dir(premises, tmp_path_factory) -> Path:
    """A random T5 of 2 + 2 layers whose texts end now and then."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = _tokenizer(premises, append_eos=True)
    torch.manual_seed(6)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCAB_SIZE,
            d_model=48,
            d_kv=12,
            d_ff=96,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
            pad_token_id=0,
            tie_word_embeddings=False,
            initializer_factor=2.0,
        )
    )
    return _save(model, tokenizer, tmp_path_factory.mktemp("encoder_decoder"))


@pytest.fixture(params=["causal", "encoder_decoder"])
def model_dir(request) -> Path:
    """Either kind of model."""
    return request.getfixturevalue(f"{request.param}_dir")


def make_config(model: Path | str, **sections: dict[str, object]) -> Config:
    """A configuration of this model; `llm={"dtype": ...}` and the like change a section."""
    tree: dict[str, object] = {"name": "t", "store": "s", "input": {"paths": ["x"]}, **sections}
    tree["llm"] = {"model": str(model), "device": "cpu", **sections.get("llm", {})}
    size = {} if sections.get("llm", {}).get("batch") else {"batch_size": 32}
    tree["generate"] = {"max_new_tokens": 12, **size, **sections.get("generate", {})}
    return Config.model_validate(tree)


def _tokenizer(sentences: list[str], *, append_eos: bool) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from tokenizers.decoders import ByteLevel
    from transformers import PreTrainedTokenizerFast

    prompts = load_prompts("syncse")
    instructions = [*prompts.entailment, *prompts.contradiction, prompts.layout, prompts.score]
    text = [*sentences, *instructions * 20, *prompts.score_labels * 50]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = ByteLevel()
    special = ["<pad>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=special, initial_alphabet=alphabet)
    )
    if append_eos:
        bpe.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>")


def _save(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", out: Path) -> Path:
    # A random model hardly ever ends; with one token in 20 as an end, lengths differ as in real life.
    model.generation_config.eos_token_id = list(range(1, VOCAB_SIZE, 20))
    model.generation_config.pad_token_id = 0
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out
