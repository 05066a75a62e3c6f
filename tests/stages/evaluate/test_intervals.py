"""Intervals and tests against scipy, against all permutations of few examples, and in simulations."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import bootstrap, rankdata, spearmanr

from multicsr.stages.evaluate import intervals
from multicsr.stages.evaluate.intervals import interval, p_of_permutations, p_of_resamples, permute, resample
from multicsr.stages.evaluate.statistics import STATISTICS
from multicsr.stages.evaluate.task import Examples


def score(examples: Examples) -> float:
    return STATISTICS[examples.statistic](examples.value_NK)


@pytest.fixture
def pair() -> tuple[Examples, Examples]:
    """Two encoders on 200 pairs with human scores; the first one is better."""
    generator = np.random.default_rng(0)
    human = generator.integers(6, size=200).astype(float)
    close, far = (human + noise * generator.normal(size=200) for noise in (1, 2))
    return (
        Examples("spearman", np.column_stack([np.tanh(close / 5), human])),
        Examples("spearman", np.column_stack([0.9 + far / 100, human])),
    )


def test_interval_of_a_mean_is_that_of_scipy():
    values = np.random.default_rng(0).exponential(size=150)
    examples = Examples("mean", values[:, None])
    found = interval(score(examples), resample([examples], "task")[0])
    expected = bootstrap((values,), np.mean, n_resamples=5000, rng=1, method="percentile").confidence_interval
    length = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=length / 15)
    assert found.high == pytest.approx(expected.high, abs=length / 15)


def test_interval_of_a_paired_difference_of_spearman_is_that_of_scipy(pair):
    columns = (pair[0].value_NK[:, 0], pair[1].value_NK[:, 0], pair[0].value_NK[:, 1])

    def difference(first: np.ndarray, second: np.ndarray, human: np.ndarray) -> float:
        return spearmanr(first, human).statistic - spearmanr(second, human).statistic

    resampled_2R = resample(pair, "task")
    found = interval(score(pair[0]) - score(pair[1]), resampled_2R[0] - resampled_2R[1])
    expected = bootstrap(
        columns, difference, paired=True, vectorized=False, n_resamples=1500, rng=1, method="BCa"
    ).confidence_interval
    length = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=length / 8)
    assert found.high == pytest.approx(expected.high, abs=length / 8)
    assert found.low > 0


def test_the_correction_moves_an_interval_by_the_bias_of_the_resamples():
    resampled_R = np.random.default_rng(0).normal(size=2000)
    plain, moved = interval(0.0, resampled_R), interval(0.5, resampled_R)
    assert plain == pytest.approx((-1.96, 1.96), abs=0.15)
    assert moved == pytest.approx((-0.96, 2.96), abs=0.3)


def test_resamples_are_paired_and_depend_on_the_name_and_the_number_alone(pair):
    one, both = resample([pair[1]], "task"), resample(pair, "task")
    assert (one[0] == both[1]).all()
    assert (resample([pair[1]], "other")[0] != one[0]).any()
    same = resample([pair[0], pair[0]], "task")
    assert interval(0.0, same[0] - same[1]) == (0, 0)


def exact_p(difference_of, first: np.ndarray, second: np.ndarray) -> float:
    observed = abs(difference_of(first, second))
    values = []
    for swaps in product([True, False], repeat=len(first)):
        swapped = np.where(swaps, second, first), np.where(swaps, first, second)
        values.append(abs(difference_of(*swapped)) >= observed - 1e-12)
    return float(np.mean(values))


def test_p_of_a_mean_is_that_of_all_permutations():
    first, second = np.random.default_rng(3).normal(size=(2, 9))
    first += 0.9
    pair = [Examples("mean", values[:, None]) for values in (first, second)]
    expected = exact_p(lambda one, other: one.mean() - other.mean(), first, second)
    assert 0.01 < expected < 0.5
    found = p_of_permutations(score(pair[0]) - score(pair[1]), permute(*pair, "task"))
    assert found == pytest.approx(expected, abs=0.04)


def test_p_of_spearman_is_that_of_all_permutations_of_ranks():
    generator = np.random.default_rng(1)
    human = generator.normal(size=10)
    first, second = human + 0.3 * generator.normal(size=10), 100 * generator.normal(size=10)
    pair = [Examples("spearman", np.column_stack([values, human])) for values in (first, second)]
    expected = exact_p(
        lambda one, other: spearmanr(one, human).statistic - spearmanr(other, human).statistic,
        rankdata(first),
        rankdata(second),
    )
    assert 0.001 < expected < 0.5
    found = p_of_permutations(score(pair[0]) - score(pair[1]), permute(*pair, "task"))
    assert found == pytest.approx(expected, abs=0.04)


def test_p_does_not_depend_on_the_scale_of_the_cosines(pair):
    first, second = pair
    stretched = Examples("spearman", second.value_NK * [1000, 1] + [7, 0])
    assert permute(first, stretched, "task") == pytest.approx(permute(first, second, "task"))


def test_equal_encoders_have_p_1_and_a_clear_difference_the_smallest_p(pair):
    same = resample([pair[0], pair[0]], "task")
    assert p_of_permutations(0.0, permute(pair[0], pair[0], "task")) == 1
    assert p_of_resamples(same[0] - same[1]) == 1
    assert p_of_permutations(score(pair[0]) - score(pair[1]), permute(*pair, "task")) == 1 / 2001
    assert p_of_resamples(np.full(2000, 3.0)) == pytest.approx(2 / 2001)


def ndcg_of_two(generator: np.random.Generator, better: float) -> list[Examples]:
    """nDCG@10 of 100 queries with one document, under two encoders; a third of the values is 0 or 1 each."""
    query, one, other = generator.normal(size=(3, 100))
    ranks = (
        np.maximum(1, np.ceil(np.exp(mean + query + noise)))
        for mean, noise in ((0.7, one), (0.7 + better, other))
    )
    return [Examples("mean", np.where(rank <= 10, 1 / np.log2(1 + rank), 0)[:, None]) for rank in ranks]


def sts_of_two(generator: np.random.Generator, better: float) -> list[Examples]:
    """100 pairs with human scores in steps of 1/2, and cosines of two encoders."""
    human, one, other = generator.normal(size=(3, 100))
    return [
        Examples("spearman", np.column_stack([human + noise, np.round(2 * human) / 2]))
        for noise in (0.7 * one, (0.7 + better) * other)
    ]


@pytest.mark.parametrize("draw", [ndcg_of_two, sts_of_two])
def test_in_a_simulation_intervals_hold_the_truth_and_the_test_finds_nothing(draw, monkeypatch):
    """Limits are binomial at 99.9%; an interval that is a fifth too short breaks them."""
    monkeypatch.setattr(intervals, "RESAMPLES", 300)
    generator, runs = np.random.default_rng(0), 400
    large = [
        Examples(part[0].statistic, np.concatenate([each.value_NK for each in part]))
        for part in zip(*(draw(generator, 0.3) for _ in range(2000)), strict=True)
    ]
    truth = score(large[0]) - score(large[1])
    held = found = 0
    for _ in range(runs):
        different, equal = draw(generator, 0.3), draw(generator, 0.0)
        resampled_2R = resample(different, "")
        low, high = interval(score(different[0]) - score(different[1]), resampled_2R[0] - resampled_2R[1])
        held += low <= truth <= high
        found += p_of_permutations(score(equal[0]) - score(equal[1]), permute(*equal, "")) <= 0.05
    margin = 3.3 * math.sqrt(0.05 * 0.95 / runs)
    assert held / runs == pytest.approx(0.95, abs=margin)
    assert found / runs == pytest.approx(0.05, abs=margin)
