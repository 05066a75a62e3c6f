"""Intervals and tests in simulations whose truth is known: coverage at 95%, and false positives at 5%.

    .venv/bin/python benchmarks/intervals.py --runs 4000 --examples 300 [--case "nDCG, unlike encoders"]

A run draws the examples of two encoders and computes the intervals or the test of `multicsr evaluate`.
Encoders that differ show the coverage of the intervals, equal ones the false positives of the test. Expected:
coverage between 93% and 97%, false positives between 4% and 6%; 4,000 runs have a standard error of 0.35%.
"""

import argparse
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from multicsr.stages.evaluate import intervals
from multicsr.stages.evaluate.intervals import interval, p_of_permutations, permute, resample
from multicsr.stages.evaluate.statistics import STATISTICS
from multicsr.stages.evaluate.task import Examples

Floats = NDArray[np.float64]
"""Values of examples, one row each."""
Draw = Callable[[np.random.Generator, int], tuple[Floats, Floats]]
"""A function from a number of examples to the values of two encoders on them."""
TRUTH_ROWS, TRUTH_DRAWS = 500_000, 8
"""The truth is the mean over draws this large; its error is below 1% of the interval's length."""
POINTS = 4
"""Human scores are multiples of 1 / 4 from 0 to 5, as the means of few annotators are."""


def sts(first: float, second: float, between: float) -> Draw:
    """Pairs of sentences: latent normal similarity, human scores with ties, two encoders of other scales.

    Args:
        first: correlation of the first encoder's latent cosine with the latent similarity.
        second: that of the second encoder.
        between: that of the two encoders.
    """
    covariance = [[1, first, second], [first, 1, between], [second, between, 1]]

    def draw(generator: np.random.Generator, number: int) -> tuple[Floats, Floats]:
        latent = generator.multivariate_normal(np.zeros(3), covariance, size=number, method="cholesky")
        human = np.clip(np.round(POINTS * (1.5 * latent[:, 0] + 2.5)) / POINTS, 0, 5)
        cosines = np.tanh(latent[:, 1]), 0.9 + latent[:, 2] / 100
        return np.column_stack([cosines[0], human]), np.column_stack([cosines[1], human])

    return draw


def sts_of_unlike_encoders(correlation: float) -> Draw:
    """Two encoders with the same rho: one is a little wrong everywhere, one right or without any idea.

    A share of pairs that is in perfect order among random ones makes a rho of that share; a normal latent
    correlation r makes 6 / pi arcsin(r / 2).
    """
    share = 6 / math.pi * math.asin(correlation / 2)

    def draw(generator: np.random.Generator, number: int) -> tuple[Floats, Floats]:
        human, noise, idea = generator.normal(size=(3, number))
        first = correlation * human + math.sqrt(1 - correlation**2) * noise
        second = np.where(generator.random(number) < share, human, idea)
        return np.column_stack([first, human]), np.column_stack([second, human])

    return draw


def retrieval(first: float, second: float) -> Draw:
    """nDCG@10 of queries with one relevant document, whose rank has a log-normal distribution.

    Args:
        first: mean of the logarithm of the rank under the first encoder.
        second: that under the second encoder; both ranks are correlated by 0.8.
    """

    def ndcg(log_rank: Floats) -> Floats:
        rank = np.maximum(1, np.ceil(np.exp(log_rank)))
        return np.where(rank <= 10, 1 / np.log2(1 + rank), 0)[:, None]

    def draw(generator: np.random.Generator, number: int) -> tuple[Floats, Floats]:
        query, one, other = generator.normal(size=(3, number))
        noise = math.sqrt(0.8) * query, math.sqrt(0.2)
        return ndcg(first + 1.6 * (noise[0] + noise[1] * one)), ndcg(
            second + 1.6 * (noise[0] + noise[1] * other)
        )

    return draw


def retrieval_of_unlike_encoders(mean: float) -> Draw:
    """Two encoders with the same nDCG@10, one of which ranks a document first or not at all."""
    like = retrieval(mean, mean)
    share = float(np.mean(like(np.random.default_rng(1), TRUTH_ROWS * TRUTH_DRAWS)[0]))

    def draw(generator: np.random.Generator, number: int) -> tuple[Floats, Floats]:
        first, _ = like(generator, number)
        return first, (generator.random(number) < share).astype(np.float64)[:, None]

    return draw


DIFFERENT: dict[str, tuple[str, Draw]] = {
    "Spearman": ("spearman", sts(0.85, 0.8, 0.9)),
    "nDCG": ("mean", retrieval(0.5, 0.8)),
    "Spearman, high": ("spearman", sts(0.95, 0.93, 0.95)),
}
"""Statistic and examples of encoders that differ."""
EQUAL: dict[str, tuple[str, Draw]] = {
    "Spearman": ("spearman", sts(0.82, 0.82, 0.9)),
    "nDCG": ("mean", retrieval(0.6, 0.6)),
    "nDCG, unlike encoders": ("mean", retrieval_of_unlike_encoders(0.6)),
    "Spearman, unlike encoders": ("spearman", sts_of_unlike_encoders(0.8)),
}
"""Statistic and examples of encoders that are equally good."""


def truth(statistic: str, draw: Draw) -> tuple[float, float]:
    """The scores of both encoders on very many examples."""
    generator = np.random.default_rng(0)
    pairs = [draw(generator, TRUTH_ROWS) for _ in range(TRUTH_DRAWS)]
    first, second = np.mean(
        [[STATISTICS[statistic](value_NK) for value_NK in pair] for pair in pairs], axis=0
    )
    return float(first), float(second)


def coverage(statistic: str, draw: Draw, runs: int, number: int) -> tuple[float, float]:
    """Shares of the runs in which the intervals of the first score and of the difference hold the truth."""
    true = truth(statistic, draw)
    generator = np.random.default_rng(1)
    held = np.zeros(2)
    for _ in range(runs):
        pair = [Examples(statistic, value_NK) for value_NK in draw(generator, number)]
        first, second = (STATISTICS[statistic](each.value_NK) for each in pair)
        resampled_2R = resample(pair, "")
        low, high = interval(first, resampled_2R[0])
        held[0] += low <= true[0] <= high
        low, high = interval(first - second, resampled_2R[0] - resampled_2R[1])
        held[1] += low <= true[0] - true[1] <= high
    return held[0] / runs, held[1] / runs


def false_positives(statistic: str, draw: Draw, runs: int, number: int) -> float:
    """Share of the runs in which the test distinguishes two equal encoders at 5%."""
    generator = np.random.default_rng(2)
    found = 0
    for _ in range(runs):
        pair = [Examples(statistic, value_NK) for value_NK in draw(generator, number)]
        first, second = (STATISTICS[statistic](each.value_NK) for each in pair)
        found += p_of_permutations(first - second, permute(*pair, "")) <= 0.05
    return found / runs


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--resamples", type=int, default=intervals.RESAMPLES)
    parser.add_argument("--case", choices=[*DIFFERENT, *EQUAL], help="of one name only")
    given = parser.parse_args()
    intervals.RESAMPLES = given.resamples
    for name, case in DIFFERENT.items():
        if given.case not in (None, name):
            continue
        of_score, of_difference = coverage(*case, given.runs, given.examples)
        print(
            f"{name}: coverage of the score {of_score:.2%}, of the difference {of_difference:.2%}", flush=True
        )
    for name, case in EQUAL.items():
        if given.case in (None, name):
            found = false_positives(*case, given.runs, given.examples)
            print(f"{name}: false positives {found:.2%}", flush=True)


if __name__ == "__main__":
    main()
