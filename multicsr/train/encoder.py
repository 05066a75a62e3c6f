"""Encoder G: a plain sentence-transformers model, and the head that it wears in training only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from multicsr.errors import ConfigError
from multicsr.models import loading_model, quiet_loading, resolve_model

TokenIds = list[int]
_BUCKETS = 4


class Encoder(nn.Module):
    """G with SimCSE's head: what the optimizer sees. `model` alone is what is saved."""

    def __init__(self, model: SentenceTransformer, *, mlp_head: bool) -> None:
        super().__init__()
        self.model = model
        self.head = _mlp_head(model) if mlp_head else nn.Identity()
        self._pad = model.tokenizer.pad_token_id

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text, cut at the model's greatest length."""
        ids: list[TokenIds] = self.model.tokenizer(
            list(texts), truncation=True, max_length=self.model.max_seq_length
        )["input_ids"]
        return ids

    def forward(self, sequences: Sequence[TokenIds]) -> Tensor:
        """Training embeddings [len(sequences), D], in the order given.

        Sequences of like length go through together: less padding, same mathematics.
        """
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        size = -(-len(order) // _BUCKETS)
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        sorted_BD = torch.cat([self._embed([sequences[index] for index in chunk]) for chunk in chunks])
        place_B = torch.empty(len(order), dtype=torch.long)
        place_B[order] = torch.arange(len(order))
        embedding: Tensor = self.head(sorted_BD[place_B.to(sorted_BD.device)])
        return embedding

    def _embed(self, sequences: Sequence[TokenIds]) -> Tensor:
        rows = [torch.tensor(sequence) for sequence in sequences]
        ids_BL = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self._pad)
        length_B1 = torch.tensor([[len(row)] for row in rows])
        keep_BL = torch.arange(ids_BL.shape[1]) < length_B1
        device = self.model.device
        features = {"input_ids": ids_BL.to(device), "attention_mask": keep_BL.long().to(device)}
        embedding: Tensor = self.model(features)["sentence_embedding"]
        return embedding


def load_encoder(
    name: str, *, pooling: Literal["cls", "mean"], layers: int | None = None, max_length: int = 32
) -> SentenceTransformer:
    """The encoder to train, as it is before training.

    Only the transformer's weights are taken from a sentence-transformers directory: pooling is the
    configuration's, and vectors keep their length (every use here is a cosine).

    Args:
        name: `all-MiniLM-L6-v2`, a directory, or a Hugging Face id.
        pooling: the first token's vector, or the mean of all.
        layers: keep the first so many transformer layers; None keeps all.
        max_length: tokens of a sentence.

    Raises:
        ConfigError: no such model, no weights, or fewer layers or positions than asked for.
    """
    path = resolve_model(name, "train.encoder")
    with loading_model(name, "train.encoder"):
        config = AutoConfig.from_pretrained(path)
        _check_limits(name, config, layers, max_length)
        keep = {} if layers is None else {"num_hidden_layers": layers}
        transformer = Transformer(path, config_kwargs=keep, max_seq_length=max_length)
    _freeze_pooler(transformer.model)
    return SentenceTransformer(
        modules=[transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)],
        device="cpu",
    )


def save_encoder(model: SentenceTransformer, path: Path, card: str) -> None:
    """Write an ordinary sentence-transformers directory, with `card` as its README.md."""
    with quiet_loading():
        model.save(str(path), create_model_card=False)
    (path / "README.md").write_text(card, encoding="utf-8")


def _check_limits(name: str, config: PretrainedConfig, layers: int | None, max_length: int) -> None:
    if layers is not None and layers > config.num_hidden_layers:
        raise ConfigError(f"train.layers: {layers} asked for, {name} has {config.num_hidden_layers}")
    positions = getattr(config, "max_position_embeddings", max_length)
    if max_length > positions:
        raise ConfigError(f"train.max_length: {max_length} asked for, {name} has {positions} positions")


def _mlp_head(model: SentenceTransformer) -> nn.Module:
    """Dense + tanh of the encoder's width, drawn as BERT draws a new layer."""
    width = model.get_embedding_dimension()
    dense = nn.Linear(width, width)
    nn.init.normal_(dense.weight, std=getattr(model[0].config, "initializer_range", 0.02))
    nn.init.zeros_(dense.bias)
    return nn.Sequential(dense, nn.Tanh())


def _freeze_pooler(transformer: nn.Module) -> None:
    """BERT's pooler is not used here; trainable but unused parameters would break DDP's reduction."""
    pooler = getattr(transformer, "pooler", None)
    if isinstance(pooler, nn.Module):
        pooler.requires_grad_(False)
