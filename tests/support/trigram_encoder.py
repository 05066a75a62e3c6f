"""A deterministic encoder without a model: the vector of a text is the sum of random ones of its trigrams."""

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from multicsr.hashing import hash_64
from multicsr.stages.evaluate.task import Role

DIMENSIONS = 24


@cache
def _vector(piece: str) -> NDArray[np.float64]:
    return np.random.default_rng(hash_64(piece)).normal(size=DIMENSIONS)


def trigrams(texts: Sequence[str], role: Role = Role.SENTENCE, /) -> NDArray[np.float32]:
    """Encode as `Encode` demands; queries and documents get prompts of one letter."""
    prompt = {Role.SENTENCE: "", Role.QUERY: "q", Role.DOCUMENT: "d"}[role]
    sums = [
        sum((_vector(padded[i : i + 3]) for i in range(len(padded) - 2)), np.zeros(DIMENSIONS))
        for padded in (f"{prompt} {text} " for text in texts)
    ]
    return np.array(sums, dtype=np.float32)


class TrigramModel:
    """The methods of a SentenceTransformer that its evaluators call, with the vectors of `trigrams`."""

    similarity_fn_name = "cosine"

    def __init__(self) -> None:
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)

    def _encode(self, texts, role, convert_to_numpy=True, convert_to_tensor=False):
        import torch

        vectors = trigrams([texts] if isinstance(texts, str) else texts, role)
        if convert_to_tensor:
            return torch.from_numpy(vectors)
        return vectors if convert_to_numpy else list(torch.from_numpy(vectors))

    def encode(self, texts, convert_to_numpy=True, convert_to_tensor=False, **_):
        return self._encode(texts, Role.SENTENCE, convert_to_numpy, convert_to_tensor)

    def encode_query(self, texts, convert_to_numpy=True, convert_to_tensor=False, **_):
        return self._encode(texts, Role.QUERY, convert_to_numpy, convert_to_tensor)

    def encode_document(self, texts, convert_to_numpy=True, convert_to_tensor=False, **_):
        return self._encode(texts, Role.DOCUMENT, convert_to_numpy, convert_to_tensor)
