"""BM25: the ranking of documents by their words alone, as a baseline and as a partner of an encoder."""

import logging
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from multicsr.stages.evaluate.search import Hits, best
from multicsr.stages.ingest.words import WITHOUT_BLANKS

_RANK = 60
"""Constant of reciprocal rank fusion, as in the paper of Cormack et al. (2009)."""
_WORD = re.compile(rf"[{WITHOUT_BLANKS}]+|[^\W{WITHOUT_BLANKS}]+")
_NO_BLANKS = re.compile(f"[{WITHOUT_BLANKS}]")


def rank_by_bm25(queries: Sequence[str], documents: Sequence[str], depth: int) -> Iterator[Hits]:
    """Yield the documents with the highest BM25 above 0 for each query (k1 = 1.5, b = 0.75, Lucene's idf).

    Words are compared in lower case, without a stemmer and without a list of stop words, so that no language
    has an advantage.
    """
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every step
    index = bm25s.BM25()
    # The blank is no word: it keeps the index from being empty.
    index.index([words(text) or [" "] for text in documents], show_progress=False)
    for query in queries:
        scores_N = np.asarray(index.get_scores(words(query) or [" "]), dtype=np.float32)
        documents_K = best(scores_N, depth)
        documents_K = documents_K[scores_N[documents_K] > 0]
        yield Hits(documents_K, scores_N[documents_K])


def words(text: str) -> list[str]:
    """Return the words of a text in lower case.

    In scripts that put no blanks between words, they are pairs of characters.
    """
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        if len(word) > 1 and _NO_BLANKS.match(word):
            found.extend(first + second for first, second in pairwise(word))
        else:
            found.append(word)
    return found


def fuse(rankings: Sequence[Hits], depth: int) -> Hits:
    """Return the reciprocal rank fusion: a score is the sum of 1 / (60 + rank) over the rankings."""
    documents_K = np.unique(np.concatenate([hits.documents_K for hits in rankings]))
    scores_K = np.zeros(len(documents_K))
    for hits in rankings:
        at_K = np.searchsorted(documents_K, hits.documents_K)
        scores_K[at_K] += 1 / (_RANK + 1 + np.arange(len(hits.documents_K)))
    return Hits.of(documents_K, scores_K.astype(np.float32), depth)
