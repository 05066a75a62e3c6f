"""Retrieval: queries, documents, and judgements of which documents are relevant to which query.

The metrics are those of trec_eval, by pytrec_eval: equal scores are in descending order of documents' ids.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from multicsr.stages.evaluate.kinds.bm25 import fuse, rank_by_bm25
from multicsr.stages.evaluate.search import Hits, search
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Examples, Measurement, Role, Score
from multicsr.stages.evaluate.vectors import scaled_vectors

DEPTH = 1000
"""Documents per query that are ranked, as in TREC and BEIR."""
MAIN = "nDCG@10"
METRICS = {
    MAIN: "ndcg_cut_10",
    "MAP": "map",
    "MRR@10": "recip_rank",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
}
"""Metrics, and their names in trec_eval. The reciprocal rank is cut after rank 10."""
_BM25_DOCUMENTS = 1_000_000
"""Number of documents up to which BM25 is computed; its index takes about a kilobyte of memory for each."""


@dataclass(frozen=True)
class RetrievalTask:
    """Queries with relevant documents among many."""

    name: str
    queries: Mapping[str, str]
    """Text by id of each query that has a relevant document."""
    documents: Mapping[str, str]
    """Text by id, in descending order of the ids' bytes, which is the order of equal scores."""
    judgements: Mapping[str, Mapping[str, int]]
    """Relevance by id of the query and id of the document; the document is relevant if it is above 0."""
    notes: tuple[str, ...] = ()
    """Split of the judgements, and what was left out."""

    kind = "retrieval"

    def describe(self) -> str:
        """Implement `Task.describe`."""
        sizes = [f"{len(self.queries):,} queries", f"{len(self.documents):,} documents"]
        without = [] if self._has_bm25 else [f"more than {_BM25_DOCUMENTS:,}, so without BM25"]
        return ", ".join([*sizes, *without, *self.notes])

    @property
    def _has_bm25(self) -> bool:
        return len(self.documents) <= _BM25_DOCUMENTS

    def texts(self) -> Mapping[Role, Sequence[str]]:
        """Implement `Task.texts`."""
        return {Role.QUERY: [*self.queries.values()], Role.DOCUMENT: [*self.documents.values()]}

    def digest(self) -> str:
        """Implement `Task.digest`."""
        return self._digest

    def measure(self, encode: Encode, similarity: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`: rank the documents of each query by similarity.

        Metrics of the encoder come first, then nDCG@10 of BM25 and of the fusion of both.
        """
        by_encoder = self._by_encoder(encode, similarity)
        measured = [
            self._measurement(metric, values_Q, "", similarity)
            for metric, values_Q in self._metrics(by_encoder).items()
        ]
        if self._has_bm25:
            fused = [fuse(both, DEPTH) for both in zip(by_encoder, self._by_bm25, strict=True)]
            for ranking, label, own in (
                (self._by_bm25, ", BM25", None),
                (fused, ", encoder and BM25", similarity),
            ):
                measured.append(self._measurement(MAIN, self._metrics(ranking)[MAIN], label, own))
        return measured

    def _by_encoder(self, encode: Encode, similarity: Similarity) -> list[Hits]:
        texts = [*self.documents.values()]

        def vectors(role: Role, of: Sequence[str]) -> NDArray[np.float32]:
            return scaled_vectors(of, encode, role, similarity).astype(np.float32)

        def documents(numbers: Sequence[int]) -> NDArray[np.float32]:
            return vectors(Role.DOCUMENT, [texts[n] for n in numbers])

        queries_QD = vectors(Role.QUERY, [*self.queries.values()])
        return self._without_queries(search(queries_QD, len(texts), documents, DEPTH + 1, similarity))

    @cached_property
    def _by_bm25(self) -> list[Hits]:
        texts = [*self.documents.values()]
        return self._without_queries(rank_by_bm25([*self.queries.values()], texts, DEPTH + 1))

    def _without_queries(self, ranking: Iterator[Hits]) -> list[Hits]:
        """Cut the rankings, and leave out a document that is the query itself: with its id and its text."""
        return [
            hits.without(query, DEPTH) for hits, query in zip(ranking, self._among_documents, strict=True)
        ]

    @cached_property
    def _among_documents(self) -> list[int | None]:
        """Return the number of the document that is the query itself, for each query.

        One that is judged relevant is an answer, such as the document of which the query is the last
        sentence.
        """
        number = {key: index for index, key in enumerate(self.documents) if key in self.queries}
        return [
            number[key] if self._is_document(key) and not self._is_answer(key) else None
            for key in self.queries
        ]

    def _is_document(self, query: str) -> bool:
        """Return True if a document has the id and the text of a query."""
        document = self.documents.get(query)
        return document is not None and f" {document}".endswith(f" {self.queries[query]}")

    def _is_answer(self, query: str) -> bool:
        return self.judgements[query].get(query, 0) > 0

    def _metrics(self, ranking: Sequence[Hits]) -> dict[str, NDArray[np.float64]]:
        """Compute each metric for each query, in [0, 1]."""
        import pytrec_eval

        ids = [*self.documents]
        evaluator = pytrec_eval.RelevanceEvaluator(
            {query: dict(judged) for query, judged in self.judgements.items()}, set(METRICS.values())
        )
        values: dict[str, list[float]] = {metric: [] for metric in METRICS}
        for query, hits in zip(self.queries, ranking, strict=True):
            found = dict(zip((ids[n] for n in hits.documents_K), hits.scores_K.tolist(), strict=True))
            figures = evaluator.evaluate({query: found}).get(query, {}) if found else {}
            for metric, name in METRICS.items():
                values[metric].append(figures.get(name, 0.0))
        values["MRR@10"] = [value if value * 10 > 1 - 1e-6 else 0.0 for value in values["MRR@10"]]
        return {metric: np.array(of_queries) for metric, of_queries in values.items()}

    def _measurement(
        self, metric: str, values_Q: NDArray[np.float64], label: str, similarity: Similarity | None
    ) -> Measurement:
        score = Score(
            task=self.name,
            kind=self.kind,
            metric=f"{metric} x 100{label}",
            value=100 * float(np.mean(values_Q)),
            num_rows=len(values_Q),
            similarity=similarity,
        )
        return Measurement(score, Examples("mean", values_Q[:, None], scale=100))

    @cached_property
    def _digest(self) -> str:
        digest = blake2b(b"retrieval", digest_size=16)
        judged = ((query, *pair) for query, of_query in self.judgements.items() for pair in of_query.items())
        for part in (self.queries.items(), self.documents.items(), judged):
            for fields in part:
                for value in fields:
                    data = str(value).encode()
                    digest.update(len(data).to_bytes(8) + data)
            digest.update(b"\xff" * 8)
        if any(self._is_document(query) and self._is_answer(query) for query in self.queries):
            digest.update(b"answers stay")  # results that were kept of such sets had left them out
        return digest.hexdigest()
