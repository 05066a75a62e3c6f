"""Semantic textual similarity: Spearman's rank correlation of similarity and human score."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from multicsr.labelled_files import PAIR_COLUMNS, ScoredPairs, read_pairs
from multicsr.stages.evaluate.kinds.reader import DataFile, Kind, single_files
from multicsr.stages.evaluate.similarity import Similarity
from multicsr.stages.evaluate.task import Encode, Examples, Measurement, Role, Score
from multicsr.stages.evaluate.vectors import similarities

if TYPE_CHECKING:
    from numpy.typing import NDArray


class StsTask(ScoredPairs):
    """Sentence pairs with human similarity scores, measured by Spearman's rank correlation.

    This is the "all" setting of SimCSE and MultiCSR: the subsets of a file are concatenated and correlated
    once. The correlation on each subset alone is kept too.
    """

    kind = "sts"

    def describe(self) -> str:
        """Implement `Task.describe`."""
        return f"{len(self.scores):,} pairs"

    def texts(self) -> Mapping[Role, list[str]]:
        """Implement `Task.texts`."""
        return {Role.SENTENCE: [*self.sentences1, *self.sentences2]}

    def measure(self, encode: Encode, similarity: Similarity = Similarity.COSINE, /) -> list[Measurement]:
        """Implement `Task.measure`: Spearman's rho, times 100, is the only metric."""
        predicted_N = similarities(self.columns(), encode, similarity)[:, 0]
        scores_N = np.asarray(self.scores)
        subsets = self._of_subsets(predicted_N, scores_N)
        return [self.correlation(predicted_N, scores_N, subsets, similarity)]

    def correlation(
        self,
        predicted_N: "NDArray[np.float64]",
        scores_N: "NDArray[np.float64]",
        subsets: Mapping[str, float] | None = None,
        similarity: Similarity | None = None,
    ) -> Measurement:
        """Return the measurement of Spearman's rho, times 100, between similarities and human scores.

        Args:
            predicted_N: similarities of pairs.
            scores_N: their human scores, not all equal.
            subsets: correlations of subsets of the pairs, times 100.
            similarity: similarity that vectors were compared by, if they were.
        """
        score = Score(
            task=self.name,
            kind=self.kind,
            metric="Spearman x 100",
            value=100 * spearman(predicted_N, scores_N),
            num_rows=len(scores_N),
            subsets=dict(subsets or {}),
            similarity=similarity,
        )
        return Measurement(score, Examples("spearman", np.stack([predicted_N, scores_N], axis=1), 100))

    def _of_subsets(
        self, predicted_N: "NDArray[np.float64]", scores_N: "NDArray[np.float64]"
    ) -> dict[str, float]:
        subsets_N = np.asarray(self.subsets)
        chosen = {name: subsets_N == name for name in dict.fromkeys(self.subsets) if name}
        return {
            name: 100 * spearman(predicted_N[rows_N], scores_N[rows_N])
            for name, rows_N in chosen.items()
            if len(np.unique(scores_N[rows_N])) > 1
        }


def spearman(predicted_N: "NDArray[np.float64]", scores_N: "NDArray[np.float64]") -> float:
    """Compute Spearman's rho, in [-1, 1].

    Tied values get their mean rank. The result is 0 if all predictions are equal.

    Args:
        predicted_N: similarities of the pairs.
        scores_N: human scores, not all equal.
    """
    from scipy.stats import spearmanr

    if np.ptp(predicted_N) == 0:
        return 0.0
    return float(spearmanr(predicted_N, scores_N).statistic)


def _read(file: DataFile) -> StsTask | None:
    if not file.columns.issuperset(PAIR_COLUMNS):
        return None
    return StsTask(**vars(read_pairs(file.path, file.name)))


KIND = Kind("sts", f"columns {', '.join(PAIR_COLUMNS)}", single_files(_read))
