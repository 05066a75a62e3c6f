"""Texts as an encoder reads them: token ids first, then the tensors of a forward pass.

Tokenising is split from padding, because batches are tokenised ahead and sorted by length. Together both do
what `SentenceTransformer.preprocess` does: prompt, truncation, special tokens, side of the padding.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor

TokenIds = list[int]
Features = dict[str, object]
"""Input of an encoder's first module."""
_PROBES = ["a", "one, two and three"]
"""Texts of different lengths, on which both ways of preparing an input are compared."""


class TextInput(Protocol):
    """The preparation of texts for an encoder."""

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of each text, with the prompt and special tokens, truncated."""

    def collate(self, sequences: Sequence[TokenIds], length: int | None = None) -> Features:
        """Return the input of a forward pass, on the CPU.

        Args:
            sequences: token ids of each text.
            length: number of tokens to pad to; None: that of the longest text.
        """


class PaddedInput:
    """The preparation of texts for a transformer."""

    def __init__(self, transformer: Transformer, prompt: str, max_length: int | None) -> None:
        """Set up the preparation.

        Args:
            transformer: first module of the encoder.
            prompt: text that is put before every text.
            max_length: maximum number of tokens; None: that of the transformer.
        """
        self._transformer, self._prompt = transformer, prompt
        limit = {} if max_length is None else {"max_length": max_length}
        unpadded = {"padding": False, "return_attention_mask": False, "return_token_type_ids": False}
        self._options = {"text": {**unpadded, **limit}, "common": {"return_tensors": None}}
        tokenizer = transformer.tokenizer
        self._pad, self._is_left = tokenizer.pad_token_id, tokenizer.padding_side == "left"
        sample = transformer.preprocess(_PROBES[:1], prompt=prompt)
        self._has_types = "token_type_ids" in sample
        self._fixed = {key: sample[key] for key in ("modality", "prompt_length") if key in sample}

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Implement `TextInput.tokenize`."""
        if not texts:
            return []
        prepared = self._transformer.preprocess(
            list(texts), prompt=self._prompt, processing_kwargs=self._options
        )
        sequences: list[TokenIds] = prepared["input_ids"]
        return sequences

    def collate(self, sequences: Sequence[TokenIds], length: int | None = None) -> Features:
        """Implement `TextInput.collate`."""
        width = length or max(map(len, sequences))
        ids_BL = np.full((len(sequences), width), self._pad, dtype=np.int64)
        keep_BL = np.zeros((len(sequences), width), dtype=np.int64)
        for row, ids in enumerate(sequences):
            place = slice(width - len(ids), width) if self._is_left else slice(len(ids))
            ids_BL[row, place], keep_BL[row, place] = ids, 1
        features: Features = {
            "input_ids": torch.from_numpy(ids_BL),
            "attention_mask": torch.from_numpy(keep_BL),
        }
        if self._has_types:
            features["token_type_ids"] = torch.zeros_like(torch.from_numpy(ids_BL))
        return features | self._fixed


class BagInput:
    """The preparation of texts for static embeddings: ids one after another, without padding."""

    def __init__(self, module: StaticEmbedding, prompt: str, max_length: int | None) -> None:
        """Set up the preparation; for the arguments see `PaddedInput`."""
        self._tokenizer, self._prompt, self._max_length = module.tokenizer, prompt, max_length

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Implement `TextInput.tokenize`."""
        prompted = [self._prompt + text for text in texts]
        encodings = self._tokenizer.encode_batch(prompted, add_special_tokens=False)
        return [encoding.ids[: self._max_length] for encoding in encodings]

    def collate(self, sequences: Sequence[TokenIds], length: int | None = None) -> Features:
        """Implement `TextInput.collate`; `length` has no meaning here."""
        flat = [token for ids in sequences for token in ids]
        starts = np.cumsum([0, *(len(ids) for ids in sequences[:-1])])
        return {"input_ids": torch.tensor(flat, dtype=torch.long), "offsets": torch.from_numpy(starts)}


def text_input(model: SentenceTransformer, prompt: str, max_length: int | None = None) -> TextInput | None:
    """Return the preparation that equals the model's own; None if the model has another one.

    Args:
        model: an encoder.
        prompt: text that is put before every text.
        max_length: maximum number of tokens; None: that of the model.
    """
    first = model[0]
    if isinstance(first, StaticEmbedding):
        return BagInput(first, prompt, max_length)
    if not isinstance(first, Transformer) or first.tokenizer is None:
        return None
    own = model.preprocess(_PROBES, prompt=prompt)
    prepared = PaddedInput(first, prompt, None)
    ours = prepared.collate(prepared.tokenize(_PROBES))
    return PaddedInput(first, prompt, max_length) if _is_equal(own, ours) else None


def length_limit(model: SentenceTransformer) -> float:
    """Return the maximum number of tokens of a text, infinite if there is none."""
    limit = model.max_seq_length
    return math.inf if limit is None else limit


def _is_equal(own: Features, ours: Features) -> bool:
    def equal(one: object, other: object) -> bool:
        return (
            torch.equal(one, other) if isinstance(one, Tensor) and isinstance(other, Tensor) else one == other
        )

    return own.keys() == ours.keys() and all(equal(own[key], ours[key]) for key in ours)
