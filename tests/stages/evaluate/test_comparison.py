import numpy as np
import pytest
from scipy.stats import binomtest

from multicsr.stages.evaluate.comparison import compare
from multicsr.stages.evaluate.task import Examples, Measurement, Score


def measured(
    task: str, values: np.ndarray, kind: str = "retrieval", metric: str = "nDCG@10 x 100"
) -> Measurement:
    """A measurement whose score is 100 times the mean of its examples."""
    score = Score(task=task, kind=kind, metric=metric, value=100 * values.mean(), num_rows=len(values))
    return Measurement(score, Examples("mean", values[:, None], scale=100))


def share(right: np.ndarray) -> Measurement:
    """A measurement of the share of the examples that are right, times 100."""
    score = Score(task="a", kind="k", metric="accuracy x 100", value=100 * right.mean(), num_rows=len(right))
    return Measurement(score, Examples("share", right[:, None], scale=100))


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).random(400)


def test_a_difference_has_its_interval_and_its_p_in_the_scale_of_the_score(values):
    noise = np.random.default_rng(1).normal(size=400) / 50
    compared = compare(["base", "new"], [[measured("a", values)], [measured("a", values - 0.1 + noise)]])
    [difference] = compared.comparisons
    assert (difference.task, difference.encoder, difference.reference) == ("a", "new", "base")
    assert difference.difference == pytest.approx(-10, abs=0.5)
    half_length = 100 * 1.96 * noise.std() / np.sqrt(400)
    assert difference.high - difference.low == pytest.approx(2 * half_length, rel=0.15)
    assert difference.low < difference.difference < difference.high < 0
    assert difference.p == pytest.approx(1 / 2001)
    base = compared.scores[0][0]
    assert base.value == 100 * values.mean()
    assert base.high - base.low == pytest.approx(2 * 100 * 1.96 * values.std() / np.sqrt(400), rel=0.15)
    assert compared.rankings[0].ranks == {"base": 1, "new": 2}


def test_encoders_that_the_examples_cannot_distinguish_share_a_rank(values):
    noise = np.random.default_rng(1).normal(size=(2, 400)) / 5
    encoders = [[measured("a", each)] for each in (values, values + noise[0], values - 0.3 + noise[1])]
    [ranking] = compare(["one", "two", "three"], encoders).rankings
    assert ranking.ranks == {"one": 1, "two": 1, "three": 3}


def test_a_score_without_examples_is_kept_and_not_compared():
    score = Score(task="a", kind="k", metric="m", value=3, num_rows=9)
    compared = compare(["one", "two"], [[Measurement(score, None)]] * 2)
    assert compared.scores == [[score], [score]]
    assert compared.comparisons == compared.rankings == []
    assert compared.averages == [[], []]


def test_averages_are_of_main_metrics_of_one_kind_and_their_variances_add(values):
    other = np.random.default_rng(2).random(400)
    encoder = [
        measured("a", values),
        measured("a", values / 2, metric="MRR x 100"),
        measured("b", other),
        measured("c", values, kind="sts", metric="Spearman x 100"),
        measured("part", values),
    ]
    compared = compare(["one"], [encoder], left_out={"part"})
    [[average]] = compared.averages
    assert (average.task, average.metric) == ("average of 2 retrieval tasks", "nDCG@10 x 100")
    assert average.subsets == {"a": 100 * values.mean(), "b": 100 * other.mean()}
    assert average.value == pytest.approx(100 * (values.mean() + other.mean()) / 2)
    assert average.num_rows == 800
    error = 100 * np.sqrt(values.var() / 400 + other.var() / 400) / 2
    assert average.high - average.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_averages_of_two_encoders_are_compared(values):
    encoders = [[measured(task, values + shift) for task in "ab"] for shift in (0, 0.2)]
    compared = compare(["one", "two"], encoders)
    average = compared.comparisons[-1]
    assert average.task == "average of 2 retrieval tasks"
    assert average.difference == pytest.approx(20)
    assert average.p == pytest.approx(1 / 2001)
    assert compared.rankings[-1].ranks == {"one": 2, "two": 1}


def test_clusters_of_two_encoders_are_compared_by_resamples():
    generator = np.random.default_rng(0)
    label = generator.integers(4, size=300).astype(float)
    noisy = np.where(generator.random(300) < 0.4, generator.integers(4, size=300), label)
    score = Score(task="a", kind="clustering", metric="V-measure x 100", value=100, num_rows=300)
    pair = [
        [
            Measurement(
                score.model_copy(update={"value": value}),
                Examples("v_measure", np.column_stack([c, label]), scale=100),
            )
        ]
        for c, value in ((label, 100.0), (noisy, 30.0))
    ]
    [difference] = compare(["one", "two"], pair).comparisons
    assert difference.high < 0
    assert difference.p < 0.01


@pytest.mark.parametrize("num_right", [0, 18, 20])
def test_the_interval_of_a_share_is_that_of_wilson_also_at_0_and_100(num_right):
    [[score]] = compare(["one"], [[share(np.r_[np.ones(num_right), np.zeros(20 - num_right)])]]).scores
    expected = binomtest(num_right, 20).proportion_ci(method="wilson")
    assert (score.low, score.high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=0.001)


def test_the_interval_of_a_mean_of_zeros_and_one_other_value_is_that_of_wilson():
    [[score]] = compare(["one"], [[measured("a", np.r_[np.full(18, 0.5), np.zeros(2)])]]).scores
    expected = binomtest(18, 20).proportion_ci(method="wilson")
    assert (score.low, score.high) == pytest.approx((50 * expected.low, 50 * expected.high), abs=0.001)


@pytest.mark.parametrize("num_right", [1, 20])
def test_a_comparison_does_not_depend_on_the_order_of_the_encoders(num_right):
    none, some = (share(np.r_[np.ones(number), np.zeros(200 - number)]) for number in (0, num_right))
    first, second = (compare(["one", "two"], [[one], [other]]) for one, other in ((none, some), (some, none)))
    assert first.comparisons[0].p == second.comparisons[0].p
    assert (first.comparisons[0].p < 0.01) == (num_right == 20)
    assert first.rankings[0].ranks["two"] == second.rankings[0].ranks["one"]
