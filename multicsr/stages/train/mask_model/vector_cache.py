"""A cache of P's vectors, which gives the vectors of a global batch on every worker.

    G rows of the global batch     S sentences a row     U distinct sentences of the batch
    T sentences of the corpus      D width of P's vectors

A worker has only the texts of its own rows, so each worker requests the vectors of the new sentences among
them from P, and all workers exchange the results. Every worker keeps all vectors while memory lasts: a known
sentence then costs only a look-up, and an epoch of known sentences needs neither P nor an exchange. The kept
vectors are also written to the store, under the fingerprint of P, for the next run.
"""

import logging
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from multicsr.errors import DamagedFileError
from multicsr.models.frozen_encoder import Vectors
from multicsr.stages.train import distributed
from multicsr.stages.train.data.index import Digests
from multicsr.stages.train.mask_model.model import Embedder, PendingVectors
from multicsr.storage.store import FileEntry, Store
from multicsr.storage.versions import MASK_VECTORS

logger = logging.getLogger(__name__)

_UNKNOWN = -1
"""Slot of a sentence that is not in the cache."""
_ROWS_PER_FILE = 500_000
"""Number of vectors in a file of the store."""


@dataclass(frozen=True)
class PendingBatch:
    """The request for the vectors of a global batch."""

    text_GS: NDArray[np.int32]
    """Numbers of the sentences of all rows."""
    new_by_worker: list[NDArray[np.int32]]
    """Numbers of the sentences whose vectors each worker provides."""
    answer: PendingVectors | None
    """Answer for this worker's part of them; None if that part is empty."""


class MaskVectors:
    """A cache of P's vectors, which calls P for missing ones. All workers call `ask` and `take` together."""

    def __init__(self, embedder: Embedder, num_sentences: int, cache_gib: float) -> None:
        """Allocate the cache.

        Args:
            embedder: embeds sentences by P.
            num_sentences: T.
            cache_gib: memory for the vectors, in GiB.
        """
        self._embedder = embedder
        capacity = min(num_sentences, int(cache_gib * 2**30 / (2 * embedder.width)))
        self._vector_KD = torch.empty(capacity, embedder.width, dtype=torch.float16)
        self._slot_T = np.full(num_sentences, _UNKNOWN, dtype=np.int32)
        self._sentence_K = np.empty(capacity, dtype=np.int32)
        self._filled = self._written = 0

    def ask(self, text_GS: NDArray[np.int32], own_texts: list[list[str]]) -> PendingBatch:
        """Request the vectors of a global batch that are not in the cache.

        Args:
            text_GS: numbers of the sentences of all rows. No sentence occurs in two rows.
            own_texts: S lists with the texts of this worker's rows.
        """
        num_rows = len(text_GS)
        parts = [
            text_GS[distributed.rows_of(worker, num_rows)].T.ravel() for worker in range(distributed.size())
        ]
        is_new_by_worker = [self._is_new(part) for part in parts]
        new_by_worker = [part[is_new] for part, is_new in zip(parts, is_new_by_worker, strict=True)]
        is_new = is_new_by_worker[distributed.rank()]
        texts = [
            text for text, new in zip((t for part in own_texts for t in part), is_new, strict=True) if new
        ]
        return PendingBatch(text_GS, new_by_worker, self._embedder.ask(texts) if texts else None)

    def take(self, asked: PendingBatch) -> Tensor:
        """Wait for the vectors of a batch and return them, and put the new ones into the cache.

        Returns:
            P's vectors, fp16 [G, S, D] on the CPU.

        Raises:
            RunError: P failed, or it gives a vector that is zero or not finite.
        """
        new_N = np.concatenate(asked.new_by_worker)
        answer = asked.answer.take() if asked.answer else np.empty((0, self._embedder.width), np.float16)
        new_ND = self._exchange(answer, [len(part) for part in asked.new_by_worker])
        # A sentence that was new at the request may be in the cache by now, from the batch before.
        fresh_N = np.flatnonzero(self._slot_T[new_N] == _UNKNOWN)
        num_free = min(len(fresh_N), len(self._vector_KD) - self._filled)
        self._keep(new_N[fresh_N[:num_free]], new_ND[fresh_N[:num_free]])
        # A sentence has two places in a row without a hard negative, so vectors are filled in by sentence.
        number_U, sentence_B = np.unique(asked.text_GS.ravel(), return_inverse=True)
        slot_U = torch.from_numpy(self._slot_T[number_U]).long()
        is_kept_U = slot_U != _UNKNOWN
        vector_UD = torch.empty(len(number_U), self._embedder.width, dtype=torch.float16)
        vector_UD[is_kept_U] = self._vector_KD[slot_U[is_kept_U]]
        if num_free < len(fresh_N):
            vector_UD[np.searchsorted(number_U, new_N)] = new_ND
        return vector_UD[sentence_B].view(*asked.text_GS.shape, -1)

    def read(self, store: Store, model: str, sentence_T: Digests) -> None:
        """Fill the cache with the vectors that earlier runs with the same P wrote to the store.

        A damaged file is deleted, and its sentences are embedded again. Worker 0 detects this for all
        workers, because every worker must have the same sentences in its cache.

        Args:
            store: the store.
            model: fingerprint of P.
            sentence_T: digest of each sentence.
        """
        folder = f"{MASK_VECTORS}/{model}"
        for entry in distributed.from_first(store.named_entries(folder) if distributed.rank() == 0 else []):
            table = _read_or_delete(store, entry) if distributed.rank() == 0 else None
            if not distributed.from_first(table is not None):
                continue
            table = store.read_table(entry) if table is None else table
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
        """Write the vectors that are new in the cache to the store. Only one worker calls it.

        Args:
            store: the store.
            model: fingerprint of P.
            sentence_T: digest of each sentence.

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
            store.write_named_table(f"{MASK_VECTORS}/{model}/{uuid4().hex}", table)
            self._written = end

    def _is_new(self, text_N: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return bool [N], True for a sentence that is not in the cache; only the first of equal ones is."""
        _, first = np.unique(text_N, return_index=True)
        is_new_N = np.zeros(len(text_N), dtype=bool)
        is_new_N[first] = self._slot_T[text_N[first]] == _UNKNOWN
        return is_new_N

    def _keep(self, number_N: NDArray[np.int32], vector_ND: Tensor) -> None:
        """Put the vectors of some sentences into the next slots; there must be enough free slots."""
        slots = slice(self._filled, self._filled + len(number_N))
        self._vector_KD[slots] = vector_ND
        self._sentence_K[slots] = number_N
        self._slot_T[number_N] = np.arange(slots.start, slots.stop)
        self._filled = slots.stop

    def _exchange(self, own: Vectors, counts: list[int]) -> Tensor:
        """Return the vectors of all workers. They are sent as bytes, which every backend supports.

        Args:
            own: this worker's vectors.
            counts: number of vectors of each worker.
        """
        if not any(counts):
            return torch.empty(0, self._embedder.width, dtype=torch.float16)
        own_bytes = torch.tensor(np.ascontiguousarray(own).view(np.uint8))
        return distributed.gather_ragged(distributed.to_wire(own_bytes), counts).cpu().view(torch.float16)


def _read_or_delete(store: Store, entry: FileEntry) -> pa.Table | None:
    """Return the vectors of a file; delete the file and return None if it is damaged."""
    try:
        return store.read_table(entry)
    except DamagedFileError as error:
        logger.warning("%s; its vectors are computed again", str(error).partition(";")[0])
        store.delete(entry.path)
        return None
