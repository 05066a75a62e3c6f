"""Statistics of weighted examples equal those of scikit-learn and scipy on as many copies of them."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import average_precision_score, v_measure_score

from multicsr.stages.evaluate.statistics import STATISTICS, Ranks

N, R = 60, 25


def auc_of_pairs(value_NK: np.ndarray) -> float:
    wins = [
        (high[0] > low[0]) + 0.5 * (high[0] == low[0])
        for high, low in product(value_NK, value_NK)
        if (high[1], low[1]) == (1, 0) and high[2] == low[2]
    ]
    return float(np.mean(wins))


REFERENCES: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda value_NK: value_NK[:, 0].mean(),
    "share": lambda value_NK: np.count_nonzero(value_NK) / len(value_NK),
    "spearman": lambda value_NK: spearmanr(value_NK[:, 0], value_NK[:, 1]).statistic,
    "average_precision": lambda value_NK: average_precision_score(value_NK[:, 1], value_NK[:, 0]),
    "stratified_auc": auc_of_pairs,
    "v_measure": lambda value_NK: v_measure_score(value_NK[:, 1], value_NK[:, 0]),
}


@pytest.fixture
def examples() -> dict[str, np.ndarray]:
    """Examples with ties in every column."""
    generator = np.random.default_rng(0)
    label = generator.integers(2, size=N).astype(float)
    similarity = np.round(generator.normal(size=N) + label, 1)
    group = generator.integers(4, size=N).astype(float)
    return {
        "mean": similarity[:, None],
        "share": label[:, None],
        "spearman": np.column_stack([similarity, np.round(similarity + generator.normal(size=N))]),
        "average_precision": np.column_stack([similarity, label]),
        "stratified_auc": np.column_stack([similarity, label, group]),
        "v_measure": np.column_stack([np.where(label > 0, group, 7), group]),
    }


@pytest.fixture
def weight_RN() -> np.ndarray:
    return np.random.default_rng(1).integers(3, size=(R, N)).astype(float)


def test_every_statistic_has_a_reference():
    assert set(REFERENCES) == set(STATISTICS)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_weight_is_a_number_of_copies(name, examples, weight_RN):
    value_NK = examples[name]
    copied = [np.repeat(value_NK, weight_N.astype(int), axis=0) for weight_N in weight_RN]
    expected = [REFERENCES[name](value_MK) for value_MK in copied]
    assert STATISTICS[name].of(value_NK)(weight_RN) == pytest.approx(expected, abs=1e-12)
    assert STATISTICS[name](value_NK) == pytest.approx(REFERENCES[name](value_NK), abs=1e-12)


def test_ranks_of_ties_are_their_mean_and_their_mean_is_zero():
    value_N = np.array([3.0, 1, 3, 2, 3, 1])
    rank_1N, square_1 = Ranks(value_N).centred(np.ones((1, 6)))
    expected = rankdata(value_N) - 3.5
    assert rank_1N[0] == pytest.approx(expected)
    assert square_1[0] == pytest.approx(np.square(expected).sum())


@pytest.mark.parametrize("constant", [0, 1])
def test_spearman_of_a_constant_column_is_zero(constant):
    value_NK = np.column_stack([np.arange(5.0), np.arange(5.0)])
    value_NK[:, constant] = 2
    assert STATISTICS["spearman"](value_NK) == 0


def test_one_cluster_of_one_label_is_perfect_and_one_of_two_labels_is_not():
    v_measure = STATISTICS["v_measure"]
    assert v_measure(np.ones((4, 2))) == 1
    assert v_measure(np.array([[1.0, 0], [1, 0], [1, 1]])) == 0


def test_average_precision_without_a_positive_is_zero():
    assert STATISTICS["average_precision"](np.array([[0.3, 0.0], [0.2, 0.0]])) == 0
