"""Sentences for tests of generation."""

import pyarrow as pa

from multicsr.rows import SENTENCE, normalise, row_id


def make_sentences(texts: list[str]) -> pa.Table:
    """A SENTENCE table of these texts."""
    texts = [normalise(text) for text in texts]
    rows = {
        "row_id": [row_id(text, "en") for text in texts],
        "text": texts,
        "language": ["en"] * len(texts),
        "source": ["test"] * len(texts),
        "position": list(range(len(texts))),
    }
    return pa.table(rows, schema=SENTENCE)
