"""A small random encoder, for tests that need one that loads and trains in a moment."""

from collections.abc import Iterable
from pathlib import Path
from string import ascii_lowercase, digits

LETTERS = [*ascii_lowercase, *digits, *(f"##{letter}" for letter in ascii_lowercase + digits)]
"""Pieces of words with which every English sentence is a sequence of known tokens."""


def save_tiny_bert(path: Path, words: Iterable[str]) -> None:
    """Save a random BERT of 3 layers, width 32, dropout on, with a word-level vocabulary."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (path / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=48,
        initializer_range=0.1,
    )
    BertModel(config).save_pretrained(path)


def save_tiny_classifier(path: Path, words: Iterable[str], labels: list[str]) -> Path:
    """Save a random BERT that sorts pairs of sentences into these labels; return its directory."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    path.mkdir()
    save_tiny_bert(path, words)
    torch.manual_seed(1)
    config = BertConfig.from_pretrained(path)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    BertForSequenceClassification(config).save_pretrained(path)
    return path
