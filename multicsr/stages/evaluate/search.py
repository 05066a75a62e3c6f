"""Search of the nearest vectors by blocks: no matrix of all queries by all documents is made.

Equal scores are ordered by the number of the document, so that the result does not depend on blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multicsr.stages.evaluate.similarity import Similarity

Float32s = NDArray[np.float32]

DOCUMENTS_AT_ONCE = 8192
"""Documents per block."""
_QUERIES_AT_ONCE = 1024
"""Queries per block: a block of scores takes 32 MiB."""
_SPARE = 100
"""Documents that are kept beyond the depth until the scores are exact."""


@dataclass(frozen=True)
class Hits:
    """The best documents of one query, in descending order of their scores."""

    documents_K: NDArray[np.int64]
    """Numbers of the documents."""
    scores_K: Float32s

    @classmethod
    def of(cls, documents_K: NDArray[np.int64], scores_K: Float32s, depth: int) -> "Hits":
        """Return the best of some documents, whose numbers ascend."""
        order_K = best(scores_K, depth)
        return cls(documents_K[order_K], scores_K[order_K])

    def without(self, document: int | None, depth: int) -> "Hits":
        """Return the first documents but one."""
        kept_K = np.flatnonzero(self.documents_K != document)[:depth]
        return Hits(self.documents_K[kept_K], self.scores_K[kept_K])


def search(
    queries_QD: Float32s,
    num_documents: int,
    vectors: Callable[[Sequence[int]], Float32s],
    depth: int,
    similarity: Similarity = Similarity.DOT,
) -> Iterator[Hits]:
    """Yield the documents that are most similar to each query, one result per query.

    Memory holds the queries, one block of documents and 12 bytes for every kept document of every query.

    Args:
        queries_QD: vectors of the queries, scaled for the similarity as those of the documents.
        num_documents: number of documents.
        vectors: returns the vectors of documents by their numbers.
        depth: documents per query; fewer if there are fewer.
        similarity: the similarity of a query and a document.
    """
    tops = [_Top(depth + _SPARE) for _ in queries_QD]
    for start in range(0, num_documents, DOCUMENTS_AT_ONCE):
        documents_BD = vectors(range(start, min(start + DOCUMENTS_AT_ONCE, num_documents)))
        for first in range(0, len(queries_QD), _QUERIES_AT_ONCE):
            queries_AD = queries_QD[first : first + _QUERIES_AT_ONCE]
            scores_QB = similarity.of_all(queries_AD, documents_BD).astype(np.float32, copy=False)
            for top, scores_B in zip(tops[first : first + _QUERIES_AT_ONCE], scores_QB, strict=True):
                top.add(scores_B, start)
    for query_D, top in zip(queries_QD, tops, strict=True):
        documents_K = np.sort(top.documents_K)
        documents_KD = vectors(documents_K.tolist()).astype(np.float64)
        # In double precision, so that those of equal vectors are equal.
        scores_K = similarity.of_pairs(query_D.astype(np.float64), documents_KD)
        yield Hits.of(documents_K, scores_K.astype(np.float32), depth)


def best(scores_N: Float32s, depth: int) -> NDArray[np.int64]:
    """Return the numbers of the highest scores in descending order; equal ones in ascending order."""
    if len(scores_N) <= depth:
        return np.argsort(-scores_N, kind="stable")
    least = np.partition(scores_N, len(scores_N) - depth)[len(scores_N) - depth]
    candidates_C = np.flatnonzero(scores_N >= least)
    return candidates_C[np.argsort(-scores_N[candidates_C], kind="stable")][:depth]


class _Top:
    """The best documents of one query so far."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._scores_K = np.empty(0, np.float32)
        self.documents_K = np.empty(0, np.int64)

    def add(self, scores_B: Float32s, start: int) -> None:
        """Add a block of documents, whose numbers are above those before."""
        if len(self._scores_K) == self._depth:
            # A document as good as the last one that is kept has a higher number, so it is left out.
            new_C = np.flatnonzero(scores_B > self._scores_K[-1])
        else:
            new_C = np.arange(len(scores_B))
        new_C = new_C[np.sort(best(scores_B[new_C], self._depth))]
        scores_C = np.concatenate([self._scores_K, scores_B[new_C]])
        documents_C = np.concatenate([self.documents_K, start + new_C])
        order_K = best(scores_C, self._depth)
        self._scores_K, self.documents_K = scores_C[order_K], documents_C[order_K]
