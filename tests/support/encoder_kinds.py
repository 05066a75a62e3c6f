"""Tiny random encoders of the kinds that people have, as directories of sentence-transformers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, WeightedLayerPooling
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel, T5EncoderModel

from tests.support.tiny_encoders import BERT_TOKENS, ROBERTA_TOKENS, word_tokenizer

WIDTH = 32
_SIZE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.1,
}
_DECODER_TOKENS = {"pad_token": "<|pad|>", "eos_token": "<|end|>", "unk_token": "<|unknown|>"}
_T5_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_CHAT_TEMPLATE = "{% for message in messages %}ba {{ message['content'] }} de {% endfor %}"
_MODERNBERT = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}


def save_transformer(
    path: Path, family: str, special: dict[str, str], *, limit: int | None, **settings: object
) -> Path:
    """Save a random transformer and its tokenizer, without modules.json.

    Args:
        path: the directory.
        family: a model_type.
        special: special tokens, for `word_tokenizer`.
        limit: maximum number of tokens that the tokenizer states; None: none.
        settings: settings of the transformer.
    """
    sides = {"padding_side": "left" if special is _DECODER_TOKENS else "right"}
    limits = {} if limit is None else {"model_max_length": limit}
    tokenizer = word_tokenizer(special, **sides, **limits)
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **{**_SIZE, **settings})
    model: PreTrainedModel = (T5EncoderModel if family == "t5" else AutoModel.from_config)(config)
    model.save_pretrained(path)
    return path


def _bert(path: Path, **settings: object) -> Transformer:
    position = {"max_position_embeddings": 512, **settings}
    return Transformer(str(save_transformer(path, "bert", BERT_TOKENS, limit=256, **position)))


def _qwen3(path: Path) -> Transformer:
    size = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024}
    return Transformer(str(save_transformer(path, "qwen3", _DECODER_TOKENS, limit=None, **size)))


def _t5(path: Path) -> Transformer:
    size = {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_heads": 4}
    return Transformer(str(save_transformer(path, "t5", _T5_TOKENS, limit=512, **size)))


def _roberta(path: Path) -> Transformer:
    """Return RoBERTa with 130 positions of which 128 are for tokens, and a tokenizer that has no limit."""
    size = {"max_position_embeddings": 130}
    return Transformer(str(save_transformer(path, "roberta", ROBERTA_TOKENS, limit=None, **size)))


def _modernbert(path: Path) -> Transformer:
    size = {**_MODERNBERT, "max_position_embeddings": 8192, "local_attention": 8}
    return Transformer(str(save_transformer(path, "modernbert", BERT_TOKENS, limit=8192, **size)))


def _blend() -> WeightedLayerPooling:
    return WeightedLayerPooling(WIDTH, num_hidden_layers=3, layer_start=1)


def _with_hidden_states(transformer: Transformer) -> Transformer:
    transformer.config.output_hidden_states = True
    return transformer


def _static() -> StaticEmbedding:
    tokenizer = word_tokenizer(BERT_TOKENS)
    torch.manual_seed(0)
    return StaticEmbedding(tokenizer, embedding_dim=WIDTH)


def _dense(width: int = WIDTH) -> Dense:
    torch.manual_seed(1)
    return Dense(width, 24, activation_function=nn.Tanh())


_PROMPTS = {"query": "ba de: ", "document": "fi lo ", "sts": "mu "}
_MODULES: dict[str, Callable[[Path], list[nn.Module]]] = {
    "bert with normalize": lambda path: [_bert(path), Pooling(WIDTH, "mean"), Normalize()],
    "bert, first token": lambda path: [_bert(path), Pooling(WIDTH, "cls"), Normalize()],
    "dense": lambda path: [_bert(path), Pooling(WIDTH, ("cls", "mean")), _dense(2 * WIDTH), Normalize()],
    "all layers": lambda path: [_with_hidden_states(_bert(path)), _blend(), Pooling(WIDTH, "mean")],
    "static": lambda path: [_static()],
    "static with normalize": lambda path: [_static(), Normalize()],
    "t5": lambda path: [_t5(path), Pooling(WIDTH, "mean"), _dense(), Normalize()],
    "last token": lambda path: [_qwen3(path), Pooling(WIDTH, "lasttoken"), Normalize()],
    "bf16": lambda path: [_bert(path).bfloat16(), Pooling(WIDTH, "mean"), Normalize()],
    "truncate_dim": lambda path: [_bert(path), Pooling(WIDTH, "mean"), Normalize()],
    "prompts": lambda path: [_bert(path), Pooling(WIDTH, "mean"), Normalize()],
    "default prompt": lambda path: [_bert(path), Pooling(WIDTH, "mean"), Normalize()],
    "prompt left out": lambda path: [_bert(path), Pooling(WIDTH, "mean", include_prompt=False)],
    "last token with prompt": lambda path: [_qwen3(path), Pooling(WIDTH, "lasttoken"), Normalize()],
    "weighted mean": lambda path: [_qwen3(path), Pooling(WIDTH, "weightedmean", include_prompt=False)],
    "roberta without a limit": lambda path: [_roberta(path), Pooling(WIDTH, "mean")],
    "modernbert": lambda path: [_modernbert(path), Pooling(WIDTH, "mean")],
}
_SETTINGS: dict[str, dict[str, Any]] = {
    "truncate_dim": {"truncate_dim": 20},
    "prompts": {"prompts": _PROMPTS, "similarity_fn_name": "dot"},
    "default prompt": {"prompts": _PROMPTS, "default_prompt_name": "sts"},
    "prompt left out": {"prompts": _PROMPTS, "default_prompt_name": "query"},
    "last token with prompt": {"prompts": _PROMPTS, "default_prompt_name": "query"},
    "weighted mean": {"prompts": _PROMPTS, "default_prompt_name": "query"},
}
KINDS = [*_MODULES, "first layout", "bare", "bare causal language model", "bare chat model"]
"""Names of the kinds."""


def save_kind(kind: str, path: Path) -> Path:
    """Save an encoder of a kind of `KINDS` and return its directory."""
    if kind == "bare":
        return save_transformer(path, "bert", BERT_TOKENS, limit=256, max_position_embeddings=512)
    if kind == "bare causal language model":
        return _causal_language_model(path)
    if kind == "bare chat model":
        (_causal_language_model(path) / "chat_template.jinja").write_text(_CHAT_TEMPLATE)
        return path
    if kind == "first layout":
        return _first_layout(save_kind("bert with normalize", path))
    modules = _MODULES[kind](path / "transformer")
    SentenceTransformer(modules=modules, device="cpu", **_SETTINGS.get(kind, {})).save(
        str(path / "encoder"), create_model_card=False
    )
    return path / "encoder"


def _causal_language_model(path: Path) -> Path:
    from transformers import Qwen3ForCausalLM

    size = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024}
    save_transformer(path, "qwen3", _DECODER_TOKENS, limit=None, **size)
    torch.manual_seed(0)
    Qwen3ForCausalLM(AutoConfig.from_pretrained(path)).save_pretrained(path)
    return path


def _first_layout(path: Path) -> Path:
    """Turn a directory into the layout of the first releases: the transformer in a folder of its own."""
    folder = path / "0_Transformer"
    folder.mkdir()
    kept = ("modules.json", "config_sentence_transformers.json")
    for file in [file for file in path.iterdir() if file.is_file() and file.name not in kept]:
        shutil.move(file, folder / file.name)
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 200, "do_lower_case": False})
    )
    (path / "config_sentence_transformers.json").unlink()
    (path / "config.json").write_text(json.dumps({"__version__": "0.2.0"}))
    names = ("0_Transformer", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": n, "name": str(n), "path": name, "type": f"sentence_transformers.models.{name[2:]}"}
        for n, name in enumerate(names)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    return path


def encoder_with_code(folder: Path) -> Path:
    """Save an encoder whose normalisation is a class in a file beside it, which halves the vector too."""
    path = save_kind("bert with normalize", folder)
    (path / "halving.py").write_text(
        "from sentence_transformers.base.modules import Normalize\n\n\n"
        "class Halving(Normalize):\n"
        "    def forward(self, features):\n"
        "        features = super().forward(features)\n"
        "        features['sentence_embedding'] = features['sentence_embedding'] / 2\n"
        "        return features\n"
    )
    modules = json.loads((path / "modules.json").read_text())
    modules[-1]["type"] = "halving.Halving"
    (path / "modules.json").write_text(json.dumps(modules))
    return path
