"""Encoder P, which finds false negatives: frozen, outside the trained module, all its own.

A vector must be a function of its sentence alone, or the mask would depend on batches, workers and restarts.
So every forward pass has one of few shapes: a fixed number of rows, and a length that follows from the
sentence's own; and vectors are rounded to fp16, in which they are also kept.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional as F

from multicsr.config import MaskConfig
from multicsr.errors import RunError
from multicsr.manifest import fingerprint
from multicsr.models import digest_model, loading_model, resolve_model
from multicsr.train.encoder import token_ids

Vectors = NDArray[np.float16]
_ROWS = {"cpu": 8, "cuda": 64}
"""Sentences in a forward pass, by kind of device; the last pass of a length repeats one."""
_LENGTH_STEP = 8
"""Tokens are padded to a multiple of it, where the model takes as many."""
_METHOD = "unit vectors, fp16, lengths in steps of 8"
"""Part of the fingerprint: another way to compute would give other last digits."""


class Embedder(Protocol):
    """Whoever embeds sentences by P."""

    width: int
    """D."""

    def ask(self, texts: Sequence[str]) -> "Answer":
        """Order the vectors of some sentences; returns at once where somebody else can compute them."""


class Answer(Protocol):
    """Vectors that were ordered."""

    def take(self) -> Vectors:
        """The vectors [len(texts), D], waiting for them if need be.

        Raises:
            RunError: P gives none.
        """


class MaskModel:
    """P, in eval mode and without gradients."""

    def __init__(self, config: MaskConfig, device: str) -> None:
        """Raises ConfigError: no such model, or no weights."""
        path = resolve_model(config.model, "train.mask.model")
        with loading_model(config.model, "train.mask.model"):
            model = SentenceTransformer(path, device=device)
        self._model = model.eval().requires_grad_(False)
        self._prompt = config.prompt or ""
        self._rows = _rows(device)
        self.width = int(model.get_embedding_dimension() or 0)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of length 1, fp16 [len(texts), D].

        Raises:
            RunError: a vector is not finite.
        """
        prompted = [self._prompt + text for text in texts]
        lengths = [self._padded_length(ids) for ids in token_ids(self._model, prompted)]
        vector_BD = np.empty((len(texts), self.width), dtype=np.float16)
        for length in sorted(set(lengths)):
            members = [index for index, of_text in enumerate(lengths) if of_text == length]
            for start in range(0, len(members), self._rows):
                some = members[start : start + self._rows]
                vector_BD[some] = self._pass([prompted[index] for index in some], length)
        if not np.isfinite(vector_BD).all():
            raise RunError("train.mask.model gives vectors that are not finite; its weights are broken")
        return vector_BD

    def _padded_length(self, ids: Sequence[int]) -> int:
        """Never more than the model takes, which need not be a multiple of the step."""
        length = -(-len(ids) // _LENGTH_STEP) * _LENGTH_STEP
        return min(length, self._model.max_seq_length or length)

    @torch.inference_mode()
    def _pass(self, texts: Sequence[str], length: int) -> Vectors:
        features = self._model.preprocess([*texts, *[texts[0]] * (self._rows - len(texts))])
        padded = {name: self._pad(name, value, length) for name, value in features.items()}
        vector_BD = self._model(padded)["sentence_embedding"][: len(texts)]
        rounded: Vectors = F.normalize(vector_BD.float(), dim=-1).half().cpu().numpy()
        return rounded

    def _pad(self, name: str, value: object, length: int) -> object:
        """Tokens and their mask to `length`, on the side where this tokenizer pads."""
        if not isinstance(value, Tensor):
            return value
        missing = length - value.shape[1] if value.ndim > 1 else 0
        filler = self._model.tokenizer.pad_token_id if name == "input_ids" else 0
        sides = (missing, 0) if self._model.tokenizer.padding_side == "left" else (0, missing)
        return F.pad(value, sides, value=filler).to(self._model.device)


class InsideEmbedder:
    """P inside the worker: vectors are computed when they are taken, within the step."""

    def __init__(self, model: MaskModel) -> None:
        self._model = model
        self.width = model.width

    def ask(self, texts: Sequence[str]) -> "InsideAnswer":
        return InsideAnswer(self._model, texts)


class InsideAnswer:
    """Vectors yet to be computed."""

    def __init__(self, model: MaskModel, texts: Sequence[str]) -> None:
        self._model, self._texts = model, texts

    def take(self) -> Vectors:
        return self._model.embed(self._texts)


def mask_model_fingerprint(config: MaskConfig, device: str = "cpu") -> str:
    """Changes with whatever changes P's vectors: weights, tokenizer, pooling, prompt, kind of device."""
    path = resolve_model(config.model, "train.mask.model")
    method = f"{_METHOD}, {_rows(device)} rows"
    return fingerprint({"model": digest_model(path) or path, "prompt": config.prompt, "method": method})


def _rows(device: str) -> int:
    return _ROWS[device.partition(":")[0]]
