"""The statistics that make a score of the values of its examples, for many weightings of them at once.

A bootstrap resample is a weighting: an example that was drawn twice has weight 2. So is one part of two
pooled samples: its examples have weight 1, the others 0. No example is copied, and they are sorted once.

    N examples     K values of an example     R weightings     U distinct values
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weighted = Callable[[Floats], Floats]
"""A function from weights [R, N] of given examples to the value of a statistic under each weighting, [R].

Weights are at least 0, and every weighting has some above 0.
"""
_NO_ENTROPY = 1e-12
"""Entropy in nats below which there is one cluster and one label; it is above the noise of the logarithms."""


@dataclass(frozen=True)
class Statistic:
    """A function of examples."""

    of: Callable[[Floats], Weighted]
    """Function from the values of examples, [N, K], to the statistic as a function of their weights."""
    by_rank: bool = False
    """True if only the order of the first column counts. Two encoders have first columns of different scales,
    so their ranks are compared."""
    can_swap: bool = True
    """False if the first column has names, such as those of clusters, which differ between encoders."""

    def __call__(self, value_NK: Floats) -> float:
        """Return the value for examples of equal weight."""
        return float(self.of(value_NK)(np.ones((1, len(value_NK))))[0])


class Ranks:
    """The ranks of examples by one value, under weights; equal values share the mean of their ranks."""

    def __init__(self, value_N: Floats) -> None:
        self._groups = _Groups(value_N)

    def centred(self, weight_RN: Floats) -> tuple[Floats, Floats]:
        """Compute ranks less the mean rank, [R, N], and the weighted sum of their squares, [R]."""
        weight_RU = self._groups.sums(weight_RN)
        rank_RU = np.cumsum(weight_RU, axis=1)
        rank_RU -= (weight_RU + rank_RU[:, -1:]) / 2
        square_R = np.einsum("ru,ru,ru->r", weight_RU, rank_RU, rank_RU)
        return rank_RU[:, self._groups.of_example_N], square_R


def _mean(value_NK: Floats) -> Weighted:
    def weighted(weight_RN: Floats) -> Floats:
        return np.asarray(weight_RN @ value_NK[:, 0] / weight_RN.sum(axis=1))

    return weighted


def _spearman(value_NK: Floats) -> Weighted:
    """Spearman's rho of two columns; 0 where a column is constant."""
    first, second = Ranks(value_NK[:, 0]), Ranks(value_NK[:, 1])

    def weighted(weight_RN: Floats) -> Floats:
        (first_RN, first_R), (second_RN, second_R) = first.centred(weight_RN), second.centred(weight_RN)
        covariance_R = np.einsum("rn,rn,rn->r", weight_RN, first_RN, second_RN)
        return _quotient(covariance_R, np.sqrt(first_R * second_R))

    return weighted


def _average_precision(value_NK: Floats) -> Weighted:
    """Average precision of (similarity, label 0 or 1); equal similarities are one threshold."""
    thresholds, label_N = _Groups(-value_NK[:, 0]), value_NK[:, 1]

    def weighted(weight_RN: Floats) -> Floats:
        hits_RU = thresholds.sums(weight_RN * label_N)
        found_RU = np.cumsum(thresholds.sums(weight_RN), axis=1)
        precision_RU = _quotient(np.cumsum(hits_RU, axis=1), found_RU)
        return _quotient((hits_RU * precision_RU).sum(axis=1), hits_RU.sum(axis=1))

    return weighted


def _stratified_auc(value_NK: Floats) -> Weighted:
    """AUC of (similarity, label 0 or 1, stratum) over pairs of examples of the same stratum.

    It is the share of the pairs of an example with label 1 and one with label 0 in which label 1 has the
    higher similarity; equal ones count half.
    """
    similarity_N, stratum_N = (np.unique(value_NK[:, k], return_inverse=True)[1] for k in (0, 2))
    cells = _Groups(stratum_N * len(value_NK) + similarity_N)
    strata = _Groups(cells.value_U // len(value_NK))
    is_positive_N = value_NK[:, 1] == 1

    def weighted(weight_RN: Floats) -> Floats:
        positive_RU, negative_RU = (
            cells.sums(weight_RN * chosen_N) for chosen_N in (is_positive_N, ~is_positive_N)
        )
        positive_RS, negative_RS = strata.sums(positive_RU), strata.sums(negative_RU)
        below_RU = np.cumsum(negative_RU, axis=1) - negative_RU / 2
        other_strata_RS = np.cumsum(negative_RS, axis=1) - negative_RS
        wins_R = (positive_RU * below_RU).sum(axis=1) - (positive_RS * other_strata_RS).sum(axis=1)
        return _quotient(wins_R, (positive_RS * negative_RS).sum(axis=1))

    return weighted


def _v_measure(value_NK: Floats) -> Weighted:
    """V-measure of (cluster, label), the harmonic mean of homogeneity and completeness."""
    cluster_N, label_N = (np.unique(value_NK[:, k], return_inverse=True)[1] for k in (0, 1))
    clusters, labels, cells = (
        _Groups(group_N) for group_N in (cluster_N, label_N, cluster_N * len(value_NK) + label_N)
    )

    def weighted(weight_RN: Floats) -> Floats:
        sum_R = clusters.entropy(weight_RN) + labels.entropy(weight_RN)
        shared_R = np.maximum(sum_R - cells.entropy(weight_RN), 0)
        return np.where(sum_R < _NO_ENTROPY, 1.0, _quotient(2 * shared_R, sum_R))

    return weighted


class _Groups:
    """The examples with equal values, in ascending order of the values."""

    def __init__(self, value_N: NDArray[Any]) -> None:
        self.value_U, self.of_example_N, sizes_U = np.unique(value_N, return_inverse=True, return_counts=True)
        self._order_N = np.argsort(self.of_example_N, kind="stable")
        self._starts_U = np.cumsum(sizes_U) - sizes_U

    def sums(self, value_RN: Floats) -> Floats:
        """Return the sum over the examples of each group, [R, U]."""
        sorted_RN = value_RN[:, self._order_N]
        if len(self._starts_U) == len(self._order_N):
            return sorted_RN
        return np.asarray(np.add.reduceat(sorted_RN, self._starts_U, axis=1))

    def entropy(self, weight_RN: Floats) -> Floats:
        """Compute the entropy in nats of the shares of weight in each group, [R]."""
        share_RU = self.sums(weight_RN) / weight_RN.sum(axis=1, keepdims=True)
        return np.asarray(-(share_RU * np.log(np.where(share_RU > 0, share_RU, 1))).sum(axis=1))


def _quotient(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


STATISTICS = {
    "mean": Statistic(_mean),
    "share": Statistic(_mean),
    "spearman": Statistic(_spearman, by_rank=True),
    "average_precision": Statistic(_average_precision, by_rank=True),
    "stratified_auc": Statistic(_stratified_auc, by_rank=True),
    "v_measure": Statistic(_v_measure, can_swap=False),
}
"""Statistics by the name that `Examples.statistic` has. All but the mean are at most 1."""
