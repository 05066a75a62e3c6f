"""A small real BERT, made here, and triplets for it."""

from pathlib import Path

import pyarrow as pa
import pytest

WORDS = [f"{sound}{vowel}" for sound in "bdfgklmnprst" for vowel in "aeiou"]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """A random BERT of 3 layers, width 32, dropout on, with a word-level vocabulary."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    path = tmp_path_factory.mktemp("tiny-bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
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
    return path


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
