import numpy as np
import pytest
from scipy.stats import ttest_ind

from multicsr.stages.evaluate.over_seeds import SeededScores, difference_over_seeds

R = 400


def without_examples(value_S: np.ndarray) -> SeededScores:
    """Scores that do not vary with the examples."""
    return SeededScores(value_S, np.repeat(value_S[:, None], R, axis=1))


def test_without_variance_over_examples_it_is_the_test_of_welch():
    first, second = np.array([70.1, 70.9, 70.4]), np.array([69.0, 69.2, 69.9, 68.8])
    found = difference_over_seeds(without_examples(first), without_examples(second), 1000)
    expected = ttest_ind(first, second, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval(0.95))
    assert found.difference == pytest.approx(first.mean() - second.mean())


def test_of_single_trainings_it_is_the_bootstrap_over_examples():
    resampled = np.random.default_rng(0).normal(size=(2, 1, R))
    first, second = (
        SeededScores(np.array([mean]), mean + each) for mean, each in zip((70, 68), resampled, strict=True)
    )
    found = difference_over_seeds(first, second, 1000)
    error = (resampled[0] - resampled[1]).std(ddof=1)
    assert found.high - found.low == pytest.approx(2 * 1.962 * error, rel=0.001)


def test_a_variant_does_not_differ_from_itself():
    scores = SeededScores(np.array([70.0]), np.random.default_rng(0).normal(size=(1, R)))
    found = difference_over_seeds(scores, scores, 1000)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_one_example_counts_as_one_that_does_not_vary():
    several, one = without_examples(np.array([0.0, 100.0])), without_examples(np.array([50.0]))
    found = difference_over_seeds(several, one, 1)
    assert (found.difference, found.p) == (0, pytest.approx(1))
    assert found.low < -100 < 100 < found.high


def test_in_a_simulation_intervals_over_examples_and_seeds_hold_the_truth():
    """Scores have an effect of the seed and one of the drawn examples, which both variants share in part."""
    generator, runs, held = np.random.default_rng(0), 600, 0
    for _ in range(runs):
        examples_N3 = generator.normal(size=(200, 3))
        weights_RN = generator.multinomial(200, np.full(200, 1 / 200), size=200) / 200
        variants = []
        for number in (1, 2):
            values_NS = (examples_N3[:, :1] + examples_N3[:, number : number + 1]) + 0.1 * generator.normal(
                size=3
            )
            variants.append(SeededScores(values_NS.mean(axis=0), (weights_RN @ values_NS).T))
        found = difference_over_seeds(*variants, 200)
        held += found.low <= 0 <= found.high
    assert held / runs == pytest.approx(0.95, abs=0.03)
