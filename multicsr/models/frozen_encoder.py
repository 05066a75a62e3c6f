"""A frozen encoder whose vectors are functions of single sentences: the mask model P, or a scorer.

If the vector of a sentence depended on the sentences beside it, masks and scores would depend on batches,
workers and restarts. So every forward pass has one of a few shapes: a fixed number of rows, and a length that
follows from the sentence's own length. On a CPU one thread computes a pass, because MKL gives other last
digits with another number of threads (seen with AVX-512). Vectors are rounded to fp16.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from sentence_transformers.util import batch_to_device
from torch.nn import functional as F

from multicsr.config import PoolingMode
from multicsr.errors import RunError
from multicsr.models.pooling import replace_pooling
from multicsr.models.published_encoder import default_prompt, encoding_with, load_published_encoder
from multicsr.models.resolve import identify_weights
from multicsr.models.text_input import Features, length_limit, text_input

Vectors = NDArray[np.float16]
"""Vectors of length 1, fp16."""
VECTOR_METHOD = "unit vectors of encode, fp16, lengths in steps of 8, one thread a pass"
"""Description of the computation, for fingerprints: another method would give other last digits."""
_ROWS = {"cpu": 8, "cuda": 64}
"""Number of sentences in a forward pass, by kind of device. The last pass of a length is filled up with
copies of one sentence."""
_LENGTH_STEP = 8
"""Step of the padded lengths: tokens are padded to a multiple of it, up to the maximum of the model."""


_NUM_THREADS = threading.Lock()
"""Lock of the number of torch threads, which the encoders of a process share. Without it, one that ends would
give the other one several threads in a pass."""


class FrozenEncoder:
    """An encoder in eval mode and without gradients; its vectors are those of `encode` at length 1."""

    def __init__(
        self,
        name: str,
        setting: str,
        device: str,
        prompt: str | None = None,
        *,
        pooling: PoolingMode | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Load the encoder on a device.

        Args:
            name: `all-MiniLM-L6-v2`, a sentence-transformers directory, or a Hugging Face id.
            setting: the setting that the name came from, for messages.
            device: such as `cpu` or `cuda:0`.
            prompt: text that is put before every sentence; None: the encoder's default prompt.
            pooling: pooling instead of the encoder's own; None: its own modules.
            trust_remote_code: run code that comes with the encoder.

        Raises:
            ConfigError: there is no such model, it has no weights, or its pooling cannot be replaced.
        """
        model = load_published_encoder(name, setting, device=device, trust_remote_code=trust_remote_code)
        if pooling is not None:
            pooling_setting = f"{setting.rpartition('.')[0]}.pooling"
            model = replace_pooling(name, model, pooling, pooling_setting).to(device)
        self._model = model.requires_grad_(False)
        self._setting = setting
        self._prompt = default_prompt(model) if prompt is None else prompt
        self._input = text_input(model, self._prompt)
        self._limit = length_limit(model)
        self._rows = rows_per_pass(device)
        self.width = int(model.get_embedding_dimension() or 0)
        with encoding_with(name, setting):
            self._forward(model.preprocess(["a"], prompt=self._prompt))

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of length 1, fp16 [len(texts), D].

        Raises:
            RunError: a vector is not finite, or zero.
        """
        vector_BD = np.empty((len(texts), self.width), dtype=np.float16)
        with _single_threaded_kernels(self._model.device) as workers, ThreadPoolExecutor(workers) as pool:
            # The tokenizer must not be called by several threads, so only this thread calls it.
            passes = list(self._passes(texts))
            vectors_of_passes = pool.map(self._forward, (features for _, features in passes))
            for (rows, _), vectors in zip(passes, vectors_of_passes, strict=True):
                vector_BD[rows] = vectors[: len(rows)]
        if not np.isfinite(vector_BD).all():
            raise RunError(f"{self._setting} gives vectors that are not finite; its weights are broken")
        if len(zeros := np.flatnonzero(~vector_BD.any(axis=1))):
            raise RunError(
                f"{self._setting} gives a zero vector, which has no cosine, for {texts[zeros[0]]!r:.80}; "
                "take another model, or leave such sentences out"
            )
        return vector_BD

    def _passes(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Features]]:
        """Yield the rows and the input of every forward pass, over sentences of equal padded length.

        The first sentence of a pass is repeated to fill it up. An encoder with a preparation of its own gets
        one sentence a pass, because nothing is known of its padding.
        """
        if self._input is None:
            for row, text in enumerate(texts):
                yield [row], self._model.preprocess([text], prompt=self._prompt)
            return
        sequences = self._input.tokenize(texts)
        lengths = [self._padded_length(ids) for ids in sequences]
        for length in sorted(set(lengths)):
            members = [row for row, of_text in enumerate(lengths) if of_text == length]
            for start in range(0, len(members), self._rows):
                rows = members[start : start + self._rows]
                filled = [*rows, *[rows[0]] * (self._rows - len(rows))]
                yield rows, self._input.collate([sequences[row] for row in filled], length)

    def _padded_length(self, ids: Sequence[int]) -> int:
        """Return the padded length of a sentence in tokens.

        It is at most the maximum of the model, which need not be a multiple of `_LENGTH_STEP`.
        """
        length = -(-len(ids) // _LENGTH_STEP) * _LENGTH_STEP
        return int(min(length, self._limit))

    @torch.inference_mode()
    def _forward(self, features: Features) -> Vectors:
        """Return the vectors of a pass, scaled to length 1 and rounded to fp16."""
        vector_BD = self._model(batch_to_device(features, self._model.device))["sentence_embedding"]
        unit_BD = F.normalize(vector_BD[:, : self._model.truncate_dim].float(), dim=-1)
        rounded: Vectors = unit_BD.half().cpu().numpy()
        return rounded


@contextmanager
def _single_threaded_kernels(device: torch.device) -> Iterator[int]:
    """Run CPU kernels on one thread each while the block runs; yield how many passes to run in parallel."""
    if device.type != "cpu":
        yield 1
        return
    with _NUM_THREADS:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield threads
        finally:
            torch.set_num_threads(threads)


def vector_settings(
    name: str, setting: str, prompt: str | None, pooling: PoolingMode | None, device: str | None
) -> dict[str, JsonValue]:
    """Return everything that decides the vectors of an encoder: weights, tokenizer, pooling, prompt, method.

    Args:
        name: see `FrozenEncoder`.
        setting: see `FrozenEncoder`.
        prompt: see `FrozenEncoder`.
        pooling: see `FrozenEncoder`.
        device: such as `cuda:0`; None: the last digits, in which kinds of devices differ, do not count.

    Raises:
        ConfigError: there is no such model.
    """
    of_device = "" if device is None else f", {rows_per_pass(device)} rows"
    pooled: dict[str, JsonValue] = {} if pooling is None else {"pooling": pooling}
    weights = identify_weights(name, setting)
    return {"model": weights, "prompt": prompt, "method": f"{VECTOR_METHOD}{of_device}", **pooled}


def rows_per_pass(device: str) -> int:
    """Return the number of sentences in a forward pass on a device such as `cuda:0`."""
    return _ROWS[device.partition(":")[0]]
