"""A frozen encoder whose vectors are functions of single sentences: the mask model P, or a scorer.

If the vector of a sentence depended on the sentences beside it, masks and scores would depend on batches,
workers and restarts. So every forward pass has one of a few shapes: a fixed number of rows, and a length that
follows from the sentence's own length. On a CPU one thread computes a pass, because MKL gives other last
digits with another number of threads (seen with AVX-512). Vectors are rounded to fp16.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional as F

from multicsr.errors import RunError
from multicsr.models.encoder import token_ids
from multicsr.models.resolve import loading_model, resolve_model

Vectors = NDArray[np.float16]
"""Vectors of length 1, fp16."""
VECTOR_METHOD = "unit vectors, fp16, lengths in steps of 8, one thread a pass"
"""Description of the computation, for fingerprints: another method would give other last digits."""
_ROWS = {"cpu": 8, "cuda": 64}
"""Number of sentences in a forward pass, by kind of device. The last pass of a length is filled up with
copies of one sentence."""
_LENGTH_STEP = 8
"""Step of the padded lengths: tokens are padded to a multiple of it, up to the maximum of the model."""


class _Pass(NamedTuple):
    """The plan of one forward pass."""

    rows: list[int]
    """Indices of the sentences."""
    length: int
    """Number of tokens, padding included."""


class FrozenEncoder:
    """An encoder in eval mode and without gradients."""

    def __init__(self, name: str, setting: str, device: str, prompt: str | None = None) -> None:
        """Load the encoder on a device.

        Args:
            name: `all-MiniLM-L6-v2`, a sentence-transformers directory, or a Hugging Face id.
            setting: the setting that the name came from, for messages.
            device: such as `cpu` or `cuda:0`.
            prompt: text that is put before every sentence.

        Raises:
            ConfigError: there is no such model, or it has no weights.
        """
        path = resolve_model(name, setting)
        with loading_model(name, setting):
            model = SentenceTransformer(path, device=device)
        self._model = model.eval().requires_grad_(False)
        self._setting = setting
        self._prompt = prompt or ""
        self._rows = rows_per_pass(device)
        self.width = int(model.get_embedding_dimension() or 0)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of length 1, fp16 [len(texts), D].

        Raises:
            RunError: a vector is not finite, or zero.
        """
        prompted = [self._prompt + text for text in texts]
        lengths = [self._padded_length(ids) for ids in token_ids(self._model, prompted)]
        passes = list(self._passes(lengths))
        vector_BD = np.empty((len(texts), self.width), dtype=np.float16)
        with _single_threaded_kernels(self._model.device) as workers, ThreadPoolExecutor(workers) as pool:
            # The tokenizer must not be called by several threads, so only this thread calls it.
            inputs = (self._input([prompted[row] for row in rows], length) for rows, length in passes)
            for (rows, _), vectors in zip(passes, pool.map(self._forward, inputs), strict=True):
                vector_BD[rows] = vectors[: len(rows)]
        if not np.isfinite(vector_BD).all():
            raise RunError(f"{self._setting} gives vectors that are not finite; its weights are broken")
        if len(zeros := np.flatnonzero(~vector_BD.any(axis=1))):
            raise RunError(
                f"{self._setting} gives a zero vector, which has no cosine, for {texts[zeros[0]]!r:.80}; "
                "take another model, or leave such sentences out"
            )
        return vector_BD

    def _padded_length(self, ids: Sequence[int]) -> int:
        """Return the padded length of a sentence in tokens.

        It is at most the maximum of the model, which need not be a multiple of `_LENGTH_STEP`.
        """
        length = -(-len(ids) // _LENGTH_STEP) * _LENGTH_STEP
        return min(length, self._model.max_seq_length or length)

    def _passes(self, lengths: Sequence[int]) -> Iterator[_Pass]:
        """Yield forward passes over sentences of equal padded length."""
        for length in sorted(set(lengths)):
            members = [row for row, of_text in enumerate(lengths) if of_text == length]
            for start in range(0, len(members), self._rows):
                yield _Pass(members[start : start + self._rows], length)

    def _input(self, texts: Sequence[str], length: int) -> dict[str, object]:
        """Return the model's input for a pass; the first sentence is repeated to fill it up."""
        features = self._model.preprocess([*texts, *[texts[0]] * (self._rows - len(texts))])
        return {name: self._pad(name, value, length) for name, value in features.items()}

    @torch.inference_mode()
    def _forward(self, features: dict[str, object]) -> Vectors:
        """Return the vectors of a pass, scaled to length 1 and rounded to fp16."""
        vector_BD = self._model(features)["sentence_embedding"]
        rounded: Vectors = F.normalize(vector_BD.float(), dim=-1).half().cpu().numpy()
        return rounded

    def _pad(self, name: str, value: object, length: int) -> object:
        """Pad token ids or their attention mask to `length`, on the side where this tokenizer pads."""
        if not isinstance(value, Tensor):
            return value
        missing = length - value.shape[1] if value.ndim > 1 else 0
        filler = self._model.tokenizer.pad_token_id if name == "input_ids" else 0
        sides = (missing, 0) if self._model.tokenizer.padding_side == "left" else (0, missing)
        return F.pad(value, sides, value=filler).to(self._model.device)


@contextmanager
def _single_threaded_kernels(device: torch.device) -> Iterator[int]:
    """Run CPU kernels on one thread each while the block runs; yield how many passes to run in parallel."""
    if device.type != "cpu":
        yield 1
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def rows_per_pass(device: str) -> int:
    """Return the number of sentences in a forward pass on a device such as `cuda:0`."""
    return _ROWS[device.partition(":")[0]]
