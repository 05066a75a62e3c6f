"""Small random models, made here, and triplets for them."""

import functools
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.tiny_encoder import save_tiny_bert

WORDS = [f"{sound}{vowel}" for sound in "bdfgklmnprst" for vowel in "aeiou"]

# Special tokens by what they are for, in the order of their ids; only those with a cls frame a sentence.
BERT_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
ROBERTA_TOKENS = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
DECODER_TOKENS = {"eos_token": "<|end|>", "unk_token": "<|unknown|>"}
_SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
    "initializer_range": 0.1,
}
# A family by its model_type: special tokens, and what differs from _SIZE. All hold 48 tokens.
_FAMILIES = {
    "bert": (BERT_TOKENS, {}),
    "roberta": (ROBERTA_TOKENS, {"max_position_embeddings": 50}),
    "xlm-roberta": (ROBERTA_TOKENS, {"max_position_embeddings": 50}),
    "modernbert": (
        BERT_TOKENS,
        {
            "pad_token_id": 0,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "local_attention": 8,
        },
    ),
    "distilbert": (BERT_TOKENS, {"hidden_dim": 64}),
    "mpnet": (ROBERTA_TOKENS, {"max_position_embeddings": 50}),
    "qwen3": (DECODER_TOKENS, {"num_key_value_heads": 2, "head_dim": 8}),
    "llama": (DECODER_TOKENS, {"num_key_value_heads": 2}),
    "gpt2": (DECODER_TOKENS, {"bos_token_id": 0, "eos_token_id": 0}),
    "bart": (ROBERTA_TOKENS, {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64}),
}
_DECODERS, _ENCODER_DECODERS = ("qwen3", "llama", "gpt2"), ("bart",)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """A random BERT of 3 layers, width 32, dropout on, with a word-level vocabulary."""
    path = tmp_path_factory.mktemp("tiny-bert")
    save_tiny_bert(path, WORDS)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Callable[[str], Path]:
    """From a model_type to a random model of 3 layers and width 32, with its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel

    @functools.cache
    def make(family: str) -> Path:
        path = tmp_path_factory.mktemp(family)
        special, settings = _FAMILIES[family]
        tokenizer = word_tokenizer(special)
        tokenizer.save_pretrained(path)
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **{**_SIZE, **settings})
        AutoModel.from_config(config).save_pretrained(path)
        return path

    return make


@pytest.fixture(params=[family for family in _FAMILIES if family not in (*_DECODERS, *_ENCODER_DECODERS)])
def tiny_encoder(tiny, request) -> Path:
    """A model of every family whose tokens see each other."""
    return tiny(request.param)


@pytest.fixture(params=_DECODERS)
def tiny_decoder(tiny, request) -> Path:
    """A model of every family whose tokens see only those before them."""
    return tiny(request.param)


@pytest.fixture(params=[family for family in _FAMILIES if family not in _ENCODER_DECODERS])
def tiny_model(tiny, request) -> Path:
    """A model of every family."""
    return tiny(request.param)


def word_tokenizer(special: dict[str, str], **settings):
    """A word-level tokenizer with the special tokens `special`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate([*special.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if "cls_token" in special:
        frame = [special["cls_token"], special["sep_token"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{frame[0]} $A {frame[1]}", special_tokens=[(token, vocabulary[token]) for token in frame]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **settings)


@pytest.fixture(scope="session")
def triplets() -> pa.Table:
    """96 triplets of made-up words: the positive shares words with the premise, the negative fewer."""
    import random

    draw = random.Random(0)
    rows = []
    for _ in range(96):
        premise = draw.sample(WORDS, draw.randint(4, 12))
        positive = draw.sample(premise, 3)
        negative = [*draw.sample(premise, 1), *draw.sample(WORDS, 4)]
        rows.append([" ".join(words) for words in (premise, positive, negative)])
    text, entailment, contradiction = zip(*rows, strict=True)
    ids = [f"row{number}" for number in range(len(rows))]
    return pa.table({"row_id": ids, "text": text, "entailment": entailment, "contradiction": contradiction})


@pytest.fixture(scope="session")
def dev_file(tmp_path_factory, triplets) -> Path:
    """The first 30 triplets as an evaluation file."""
    path = tmp_path_factory.mktemp("dev") / "dev.tsv"
    rows = triplets.slice(0, 30).to_pylist()
    lines = ["\t".join((row["text"], row["entailment"], row["contradiction"])) for row in rows]
    path.write_text("\n".join(["anchor\tpositive\tnegative", *lines]) + "\n")
    return path
