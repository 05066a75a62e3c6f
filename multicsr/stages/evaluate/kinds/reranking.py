"""Reranking: of the candidates of a query, the positive ones must come first."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError
from multicsr.labelled_files import digest_of, is_json_lines, read_lists
from multicsr.stages.evaluate.kinds.means import mean_measurement
from multicsr.stages.evaluate.kinds.reader import DataFile, Kind, single_files
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Measurement, Role
from multicsr.stages.evaluate.vectors import scaled_vectors

DEPTH = 10
"""Candidates that MRR looks at, as in sentence-transformers' `RerankingEvaluator`."""
_COLUMNS = (("query", "positive", "negative"), ("query", "positives", "negatives"), ("query", "pos", "neg"))


@dataclass(frozen=True)
class RerankingTask:
    """Queries, each with positive and negative candidates; all lists have the same length."""

    name: str
    queries: list[str]
    positives: list[list[str]]
    negatives: list[list[str]]
    num_left_out: int
    """Queries of the file without a positive or without a negative, which any order serves equally."""
    kind = "reranking"

    def describe(self) -> str:
        """Implement `Task.describe`."""
        candidates = sum(map(len, self.positives)) + sum(map(len, self.negatives))
        left_out = f", {self.num_left_out:,} queries of one side left out" if self.num_left_out else ""
        return f"{len(self.queries):,} queries, {candidates:,} candidates{left_out}"

    def texts(self) -> Mapping[Role, list[str]]:
        """Implement `Task.texts`."""
        return {
            Role.QUERY: self.queries,
            Role.DOCUMENT: [*chain.from_iterable(self.positives), *chain.from_iterable(self.negatives)],
        }

    def digest(self) -> str:
        """Implement `Task.digest`."""
        return digest_of(self.kind, self)

    def measure(self, encode: Encode, similarity: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`: mean average precision, then MRR of the first ten, both times 100.

        A negative candidate as near as a positive one comes before it, so that equal vectors help
        nobody.
        """
        rows = []
        queries_ND = scaled_vectors(self.queries, encode, Role.QUERY, similarity)
        for query_D, positive, negative in zip(queries_ND, self.positives, self.negatives, strict=True):
            candidates_MD = scaled_vectors([*positive, *negative], encode, Role.DOCUMENT, similarity)
            rows.append(_precision_and_rank(similarity.of_pairs(query_D, candidates_MD), len(positive)))
        value_N2 = 100 * np.array(rows)
        return [
            mean_measurement(self, "MAP x 100", value_N2[:, 0], similarity=similarity),
            mean_measurement(self, f"MRR@{DEPTH} x 100", value_N2[:, 1], similarity=similarity),
        ]


def _precision_and_rank(value_M: NDArray[np.float64], num_positive: int) -> tuple[float, float]:
    """Return average precision and reciprocal rank of one query, whose positive candidates come first."""
    is_positive_M = np.arange(len(value_M)) < num_positive
    # Rounded, so that vectors of one direction have equal cosines.
    hit_M = is_positive_M[np.lexsort((is_positive_M, -value_M.round(12)))]
    rank_P = 1 + np.flatnonzero(hit_M)
    precision = float(np.mean(np.arange(1, num_positive + 1) / rank_P))
    return precision, 1 / float(rank_P[0]) if rank_P[0] <= DEPTH else 0.0


def _read(file: DataFile) -> RerankingTask | None:
    columns = next((columns for columns in _COLUMNS if file.columns.issuperset(columns)), None)
    if columns is None:
        return None
    if not is_json_lines(file.path):
        raise ConfigError(f"{file.path}: reranking needs JSON lines, as candidates are lists of texts")
    rows = list(read_lists(file.path, columns))
    for number, (query, *_) in rows:
        if len(query) != 1:
            raise ConfigError(f"{file.path}, line {number}: query must be one text")
    usable = [row for _, row in rows if row[1] and row[2]]
    if not usable:
        raise ConfigError(f"{file.path}: no query has both positive and negative candidates")
    queries, positives, negatives = (list(column) for column in zip(*usable, strict=True))
    queries = [query[0] for query in queries]
    return RerankingTask(file.name, queries, positives, negatives, len(rows) - len(usable))


KIND = Kind("reranking", "JSON lines with query and lists positive, negative", single_files(_read))
