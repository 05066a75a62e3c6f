"""Lexical bias of triplets: how far the words of a hypothesis alone show which side it is on.

Contrastive decoding makes an LLM write more negation words into contradictions than plain decoding does. If
the words alone separate the sides, an encoder can learn the words instead of meaning. A classifier that sees
a hypothesis without its premise measures that, as in Poliak et al. (2018), "Hypothesis only baselines in
natural language inference".

Memory does not grow with the number of rows: the rows with the smallest row ids are counted. Row ids are
hashes of texts, so these rows are a random sample that depends neither on files nor on the order of rows.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multicsr.stages.curate.words import MAX_CHARACTERS, words_of

MAX_ROWS = 20_000
"""Rows of the sample. With so many rows the AUC has a standard error below 0.003."""
MIN_ROWS = 50
"""Rows below which nothing is claimed; the standard error of the AUC is about 0.06 there."""
STRONG_AUC = 0.8
"""AUC above which the report warns."""
_NUM_WORDS = 10
_MIN_Z = 1.96
"""Smallest z-score of a word that is shown: quantile of the normal distribution for an interval of 95%."""
_PRIOR = 1.0
"""Dirichlet prior: hypotheses that are added to each side, one with and one without each word."""
_COLUMNS = ["row_id", "entailment", "contradiction"]


@dataclass(frozen=True)
class WordUse:
    """Number of hypotheses of each side that contain a word."""

    word: str
    entailments: int
    contradictions: int


@dataclass(frozen=True)
class LexicalBias:
    """Separation of entailments and contradictions by their words alone."""

    num_rows: int
    """Rows of the sample, each with one entailment and one contradiction."""
    auc: float
    """Probability that the classifier ranks a contradiction above an entailment; 0.5 is chance."""
    entailment_words: list[WordUse]
    """Words that entailments have more often, the most telling one first; at most ten."""
    contradiction_words: list[WordUse]
    """Words that contradictions have more often, likewise."""

    @property
    def is_strong(self) -> bool:
        """Return True if an encoder may learn the words instead of meaning."""
        return self.auc > STRONG_AUC


class HypothesisSample:
    """The hypotheses of the rows with the smallest row ids."""

    def __init__(self, size: int = MAX_ROWS) -> None:
        self._size = size
        self._rows: pa.Table | None = None

    def add(self, table: pa.Table) -> None:
        """Add rows, which have both hypotheses, as candidates for the sample."""
        rows = self._smallest(table.select(_COLUMNS))
        for index, name in enumerate(_COLUMNS[1:], start=1):
            rows = rows.set_column(index, name, pc.utf8_slice_codeunits(rows[name], 0, MAX_CHARACTERS))
        self._rows = rows if self._rows is None else self._smallest(pa.concat_tables([self._rows, rows]))

    def lexical_bias(self) -> LexicalBias | None:
        """Return the lexical bias of the sample; None if it has fewer than 50 rows."""
        if self._rows is None or self._rows.num_rows < MIN_ROWS:
            return None
        return lexical_bias(*(self._rows[name].to_pylist() for name in _COLUMNS))

    def _smallest(self, rows: pa.Table) -> pa.Table:
        return rows.take(pc.select_k_unstable(rows, self._size, [("row_id", "ascending")]))


def lexical_bias(row_ids: list[str], entailments: list[str], contradictions: list[str]) -> LexicalBias | None:
    """Measure how well the words of a hypothesis alone show its side.

    The classifier is trained on one half of the rows and measured on the other half, both ways. The last bit
    of the row id decides on the half, so the two hypotheses of a row are in the same one.

    Args:
        row_ids: ids of N rows, which are hexadecimal.
        entailments: entailments of the rows.
        contradictions: contradictions of the rows.

    Returns:
        The mean of the two AUCs, and the words of all rows; None if a half has no rows.
    """
    half_N = np.array([int(row_id[-1], 16) % 2 for row_id in row_ids], dtype=np.int64)
    if half_N.min() == half_N.max():
        return None
    texts = [sorted(words_of(text)) for text in (*entailments, *contradictions)]
    vocabulary = sorted({word for words in texts for word in words})
    number = {word: index for index, word in enumerate(vocabulary)}
    word_K = np.array([number[word] for words in texts for word in words], dtype=np.int64)
    text_K = np.repeat(np.arange(len(texts)), [len(words) for words in texts])
    half_T = np.tile(half_N, 2)
    is_contradiction_T = np.arange(len(texts)) >= len(row_ids)
    halves = [
        _auc_of_half(word_K, text_K, half_T == trained, is_contradiction_T, len(vocabulary))
        for trained in (0, 1)
    ]
    counts_2V = _count(word_K, is_contradiction_T[text_K], len(vocabulary))
    z_V = z_scores(counts_2V, len(row_ids))
    return LexicalBias(
        num_rows=len(row_ids),
        auc=float(np.mean(halves)),
        entailment_words=_telling(vocabulary, counts_2V, -z_V),
        contradiction_words=_telling(vocabulary, counts_2V, z_V),
    )


def log_odds(counts_2V: NDArray[np.int64], num_rows: int) -> NDArray[np.float64]:
    """Return the log-odds ratio of each word between the sides, positive for words of contradictions.

    It is the ratio of Monroe et al. (2008), "Fightin' words", with a uniform Dirichlet prior. The two
    outcomes are that a hypothesis has the word or not, instead of one outcome for each word: otherwise a
    word that both sides have equally often would count for the side with the shorter hypotheses.

    Args:
        counts_2V: entailments (first row) and contradictions (second row) that have each word.
        num_rows: number of rows, each with one entailment and one contradiction.
    """
    share_2V = _shares(counts_2V, num_rows)
    odds_2V = np.log(share_2V / (1 - share_2V))
    return np.asarray(odds_2V[1] - odds_2V[0])


def z_scores(counts_2V: NDArray[np.int64], num_rows: int) -> NDArray[np.float64]:
    """Return the z-score of each word's shares, positive for words of contradictions.

    The variance is the one under equal shares (test of two proportions). That of the log-odds ratio grows
    towards a share of 0 or 1, and would rank a word of all contradictions and no entailment below others.

    Args:
        counts_2V: entailments (first row) and contradictions (second row) that have each word.
        num_rows: number of rows, each with one entailment and one contradiction.
    """
    share_2V = _shares(counts_2V, num_rows)
    pooled_V = share_2V.mean(axis=0)
    variance_V = 2 * pooled_V * (1 - pooled_V) / (num_rows + 2 * _PRIOR)
    return np.asarray((share_2V[1] - share_2V[0]) / np.sqrt(variance_V))


def _shares(counts_2V: NDArray[np.int64], num_rows: int) -> NDArray[np.float64]:
    """Return the share of each side's hypotheses that have each word, in (0, 1) because of the prior."""
    return np.asarray((counts_2V + _PRIOR) / (num_rows + 2 * _PRIOR))


def auc(low_N: NDArray[np.float64], high_M: NDArray[np.float64]) -> float:
    """Return the probability that a value of `high_M` is above one of `low_N`; a tie counts as one half."""
    _, value_T, count_U = np.unique(np.concatenate([low_N, high_M]), return_inverse=True, return_counts=True)
    mean_rank_U = np.cumsum(count_U) - (count_U - 1) / 2
    ranks_M = mean_rank_U[value_T[len(low_N) :]]
    above = ranks_M.sum() - len(high_M) * (len(high_M) + 1) / 2
    return float(above / (len(low_N) * len(high_M)))


def _auc_of_half(
    word_K: NDArray[np.int64],
    text_K: NDArray[np.int64],
    is_trained_T: NDArray[np.bool_],
    is_contradiction_T: NDArray[np.bool_],
    num_words: int,
) -> float:
    """Train on some texts, and return the AUC on all others.

    A text's value is the sum of the log-odds ratios of its words: Bernoulli naive Bayes without a constant.
    It is rounded, so that sums that differ by their order of addition alone are ties.

    Args:
        word_K: numbers of words; K is the number of pairs of a text and a word that it contains.
        text_K: numbers of the texts that contain them.
        is_trained_T: True for the texts to train on.
        is_contradiction_T: True for contradictions, False for entailments.
        num_words: size of the vocabulary.
    """
    trained_K = is_trained_T[text_K]
    counts_2V = _count(word_K[trained_K], is_contradiction_T[text_K[trained_K]], num_words)
    weight_V = log_odds(counts_2V, int(is_trained_T.sum()) // 2)
    sum_T = np.bincount(text_K, weights=weight_V[word_K], minlength=len(is_trained_T))
    value_T = np.asarray(sum_T, dtype=np.float64).round(9)
    return auc(value_T[~is_trained_T & ~is_contradiction_T], value_T[~is_trained_T & is_contradiction_T])


def _count(
    word_K: NDArray[np.int64], is_contradiction_K: NDArray[np.bool_], num_words: int
) -> NDArray[np.int64]:
    """Return the number of entailments (first row) and of contradictions (second row) that have each word."""
    sides = (word_K[~is_contradiction_K], word_K[is_contradiction_K])
    return np.stack([np.bincount(word_J, minlength=num_words) for word_J in sides])


def _telling(vocabulary: list[str], counts_2V: NDArray[np.int64], z_V: NDArray[np.float64]) -> list[WordUse]:
    """Return the words with the largest z-scores; words with equal ones are in alphabetical order."""
    order = [index for index in np.argsort(-z_V, kind="stable")[:_NUM_WORDS] if z_V[index] >= _MIN_Z]
    return [WordUse(vocabulary[index], int(counts_2V[0, index]), int(counts_2V[1, index])) for index in order]
