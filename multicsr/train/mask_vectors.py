"""P's vectors of every global batch, the same on every worker.

    G rows of the global batch     S sentences a row     T sentences of the corpus     D width of P's vectors

A worker has the texts of its own rows alone, so each asks P for what is new in them, and all exchange the
answers. Everyone keeps everything while memory lasts: from then on a sentence costs a look-up, and an epoch
of known sentences neither P nor an exchange. What is kept is also written to the store, under the fingerprint
of P, for the next run.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from uuid import uuid4

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from multicsr.store import Store
from multicsr.train import world
from multicsr.train.index import Digests
from multicsr.train.mask_model import Answer, Embedder, Vectors

_UNKNOWN = -1
_FOLDER = "mask_vectors"
_ROWS_PER_FILE = 500_000


@dataclass(frozen=True)
class Asked:
    """A global batch whose vectors were ordered."""

    text_GS: NDArray[np.int32]
    new_by_worker: list[NDArray[np.int32]]
    """The sentences whose vectors each worker brings."""
    answer: Answer | None
    """To this worker's part of them; None: there is none."""


class MaskVectors:
    """Look-ups of P's vectors, with P behind them. `ask` and `take` are called by all workers together."""

    def __init__(self, embedder: Embedder, num_sentences: int, cache_gib: float) -> None:
        """`num_sentences` is T."""
        self._embedder = embedder
        capacity = min(num_sentences, int(cache_gib * 2**30 / (2 * embedder.width)))
        self._vector_KD = torch.empty(capacity, embedder.width, dtype=torch.float16)
        self._slot_T = np.full(num_sentences, _UNKNOWN, dtype=np.int32)
        self._sentence_K = np.empty(capacity, dtype=np.int32)
        self._filled = self._written = 0

    def ask(self, text_GS: NDArray[np.int32], own_texts: list[list[str]]) -> Asked:
        """Order what is not known of a global batch.

        Args:
            text_GS: sentences of all rows, by number; no sentence twice.
            own_texts: S lists with the texts of this worker's rows.
        """
        num_rows = len(text_GS)
        parts = [text_GS[world.rows_of(worker, num_rows)].T.ravel() for worker in range(world.size())]
        new_by_worker = [part[self._slot_T[part] == _UNKNOWN] for part in parts]
        is_new = self._slot_T[parts[world.rank()]] == _UNKNOWN
        texts = [
            text for text, new in zip((t for part in own_texts for t in part), is_new, strict=True) if new
        ]
        return Asked(text_GS, new_by_worker, self._embedder.ask(texts) if texts else None)

    def take(self, asked: Asked) -> Tensor:
        """P's vectors of the batch, fp16 [G, S, D] on the CPU.

        Raises:
            RunError: P gives none.
        """
        new_N = np.concatenate(asked.new_by_worker)
        answer = asked.answer.take() if asked.answer else np.empty((0, self._embedder.width), np.float16)
        new_ND = self._exchange(answer, [len(part) for part in asked.new_by_worker])
        # In the meantime the batch before may have brought a sentence that was new when this one was asked.
        fresh_N = np.flatnonzero(self._slot_T[new_N] == _UNKNOWN)
        room = min(len(fresh_N), len(self._vector_KD) - self._filled)
        self._keep(new_N[fresh_N[:room]], new_ND[fresh_N[:room]])
        text_B = asked.text_GS.ravel()
        slot_B = torch.from_numpy(self._slot_T[text_B]).long()
        is_kept_B = slot_B != _UNKNOWN
        vector_BD = torch.empty(len(text_B), self._embedder.width, dtype=torch.float16)
        vector_BD[is_kept_B] = self._vector_KD[slot_B[is_kept_B]]
        if room < len(fresh_N):
            place = {number: index for index, number in enumerate(text_B.tolist())}
            vector_BD[[place[number] for number in new_N.tolist()]] = new_ND
        return vector_BD.view(*asked.text_GS.shape, -1)

    def read(self, store: Store, model: str, sentence_T: Digests) -> None:
        """Fill the cache with what earlier runs with the same P wrote to the store."""
        folder = f"{_FOLDER}/{model}"
        for name in world.from_first(store.names(folder) if world.rank() == 0 else []):
            table = store.read_table(name)
            digest_N = table["sentence"].to_numpy()
            number_N = np.minimum(np.searchsorted(sentence_T, digest_N), len(sentence_T) - 1)
            is_ours_N = sentence_T[number_N] == digest_N
            is_ours_N &= self._slot_T[number_N] == _UNKNOWN
            vectors = table["vector"].combine_chunks()
            vector_ND = np.frombuffer(vectors.buffers()[1], np.float16).reshape(-1, self._embedder.width)
            chosen = np.flatnonzero(is_ours_N)[: len(self._vector_KD) - self._filled]
            self._keep(number_N[chosen].astype(np.int32), torch.from_numpy(vector_ND[chosen]))
        self._written = self._filled

    def write(self, store: Store, model: str, sentence_T: Digests) -> None:
        """Add what is new in the cache to the store; one worker does.

        Raises:
            RunError: the disk is full or read-only.
        """
        while self._written < self._filled:
            end = min(self._filled, self._written + _ROWS_PER_FILE)
            data = self._vector_KD[self._written : end].numpy().tobytes()
            kind = pa.binary(2 * self._embedder.width)
            vectors = pa.Array.from_buffers(kind, end - self._written, [None, pa.py_buffer(data)])
            sentences = sentence_T[self._sentence_K[self._written : end]]
            table = pa.table({"sentence": sentences, "vector": vectors})
            store.write_table(str(PurePosixPath(_FOLDER, model, f"{uuid4().hex}.parquet")), table)
            self._written = end

    def _keep(self, number_N: NDArray[np.int32], vector_ND: Tensor) -> None:
        slots = slice(self._filled, self._filled + len(number_N))
        self._vector_KD[slots] = vector_ND
        self._sentence_K[slots] = number_N
        self._slot_T[number_N] = np.arange(slots.start, slots.stop)
        self._filled = slots.stop

    def _exchange(self, own: Vectors, counts: list[int]) -> Tensor:
        """All workers' vectors; as bytes, which every backend carries."""
        if not any(counts):
            return torch.empty(0, self._embedder.width, dtype=torch.float16)
        own_bytes = torch.tensor(np.ascontiguousarray(own).view(np.uint8))
        return world.gather_ragged(world.to_wire(own_bytes), counts).cpu().view(torch.float16)


def exact_cosines(anchor_ND: Tensor, candidate_CD: Tensor) -> Tensor:
    """Cosines under P, float64 [N, C], of unit vectors rounded to fp16.

    A product of two fp16 numbers takes 22 bits and the sum of thousands fits the 53 of a float64, so nothing
    is rounded: every slice of the batch, device and order of summation gives the same bits, and the mask
    with them. The rounding to fp16 moves a cosine by less than 1e-3.
    """
    return anchor_ND.double() @ candidate_CD.double().T
