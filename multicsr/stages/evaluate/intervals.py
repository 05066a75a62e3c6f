"""Intervals at 95% of scores and of their differences, and paired tests, from the examples of a task.

Encoders that are measured on the same examples share their resamples, so the resamples of a difference are
the differences of the resamples, and those of an average over tasks are the averages of those of the tasks.

    E encoders     N examples     K values of an example     R resamples or permutations
"""

from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from multicsr.hashing import hash_64
from multicsr.stages.evaluate.statistics import STATISTICS, Floats, Ranks, Statistic
from multicsr.stages.evaluate.task import Examples

RESAMPLES = 2_000
"""Number of resamples and of permutations. The smallest p value is 1 / 2,001."""
_CELLS_AT_ONCE = 2**16
"""Number of weights in memory at a time, 512 KiB, which a core's cache holds."""
_TAIL = 0.025
"""Probability that is left out at each end of an interval at 95%."""
_ROUNDING = 1e-9
"""Scores, of up to 100, that differ by no more than this are equal."""
_NORMAL = NormalDist()


class Interval(NamedTuple):
    """An interval at 95%."""

    low: float
    high: float


def resample(encoders: Sequence[Examples], key: str) -> Floats:
    """Compute the scores of encoders on bootstrap resamples of the examples that they share.

    Args:
        encoders: examples of E encoders on one task, in one metric.
        key: name of the task. The same key and number of examples give the same resamples.

    Returns:
        Scores [E, R].
    """
    weighted = [_statistic(each).of(each.value_NK) for each in encoders]
    blocks = [
        np.stack([of_encoder(weight_RN) for of_encoder in weighted])
        for weight_RN in _resamples(len(encoders[0].value_NK), key)
    ]
    return np.concatenate(blocks, axis=1)


def interval(value: float, resampled_R: Floats) -> Interval:
    """Compute the interval at 95% of a score by the bias-corrected bootstrap (Efron 1987).

    The plain percentile interval takes the resamples as they lie. Spearman's rho is biased on resamples,
    because an example that was drawn twice is tied with itself; the correction moves the percentiles.

    Args:
        value: the score, or difference of scores, of all examples.
        resampled_R: the same on resamples.
    """
    below = np.mean(resampled_R < value - _ROUNDING) + np.mean(np.abs(resampled_R - value) <= _ROUNDING) / 2
    smallest = 1 / len(resampled_R)
    shift = 2 * _NORMAL.inv_cdf(float(np.clip(below, smallest, 1 - smallest)))
    ends = [_NORMAL.cdf(shift + _NORMAL.inv_cdf(tail)) for tail in (_TAIL, 1 - _TAIL)]
    low, high = np.quantile(resampled_R, ends)
    return Interval(float(low), float(high))


def permute(first: Examples, second: Examples, key: str) -> Floats:
    """Compute the difference of two encoders' scores after random swaps of their results on single examples.

    Where only the order counts, ranks are swapped, because the cosines of two encoders have different scales.

    Args:
        first: examples of one encoder.
        second: those of another one, in the same order.
        key: name of the task.

    Returns:
        Differences first - second, [R].
    """
    statistic = _statistic(first)
    # Each of the two halves of a permutation is a weighting of the pooled examples by 0 and 1.
    weighted = statistic.of(np.concatenate([_on_common_scale(each, statistic) for each in (first, second)]))
    blocks = []
    for stays_RN in _permutations(len(first.value_NK), key):
        half_RM = np.concatenate([stays_RN, 1 - stays_RN], axis=1)
        blocks.append(weighted(half_RM) - weighted(1 - half_RM))
    return np.concatenate(blocks)


def p_of_permutations(difference: float, permuted_R: Floats) -> float:
    """Compute the two-sided p value of a difference from those after swaps (Phipson and Smyth 2010)."""
    extreme = np.count_nonzero(np.abs(permuted_R) >= abs(difference) - _ROUNDING)
    return (1 + extreme) / (1 + len(permuted_R))


def p_of_resamples(resampled_R: Floats) -> float:
    """Compute the two-sided p value of a difference from its resamples, where results cannot be swapped."""
    beyond = min(np.count_nonzero(resampled_R <= _ROUNDING), np.count_nonzero(resampled_R >= -_ROUNDING))
    return min(1.0, 2 * (1 + beyond) / (1 + len(resampled_R)))


def _statistic(examples: Examples) -> Statistic:
    return STATISTICS[examples.statistic]


def _on_common_scale(examples: Examples, statistic: Statistic) -> Floats:
    """Return the values with ranks in the first column, if only its order counts."""
    value_NK = examples.value_NK
    if not statistic.by_rank:
        return value_NK
    rank_1N, _ = Ranks(value_NK[:, 0]).centred(np.ones((1, len(value_NK))))
    return np.column_stack([rank_1N[0], value_NK[:, 1:]])


def _resamples(num_examples: int, key: str) -> Iterator[Floats]:
    """Yield blocks of weights [R, N]: how often each resample has each example."""
    generator = np.random.default_rng(hash_64(f"bootstrap {key} {num_examples}"))
    for rows in _blocks(num_examples):
        drawn_RN = generator.integers(num_examples, size=(rows, num_examples))
        drawn_RN += num_examples * np.arange(rows)[:, None]
        counts = np.bincount(drawn_RN.ravel(), minlength=rows * num_examples)
        yield counts.reshape(rows, num_examples).astype(np.float64)


def _permutations(num_examples: int, key: str) -> Iterator[Floats]:
    """Yield blocks of permutations [R, N]: 1 where an example stays, 0 where the two encoders are swapped."""
    generator = np.random.default_rng(hash_64(f"permutation {key} {num_examples}"))
    for rows in _blocks(num_examples):
        yield generator.integers(2, size=(rows, num_examples)).astype(np.float64)


def _blocks(num_examples: int) -> Iterator[int]:
    """Yield the numbers of weightings that fit into memory at a time, `RESAMPLES` in all."""
    step = max(1, _CELLS_AT_ONCE // num_examples)
    for start in range(0, RESAMPLES, step):
        yield min(step, RESAMPLES - start)
