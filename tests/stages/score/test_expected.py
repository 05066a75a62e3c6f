"""Expected scores against hand-made distributions."""

import numpy as np
import pytest

from multicsr.llm.label_probabilities import PROBABILITY_STEP, round_probabilities
from multicsr.stages.score.expected import expected_scores


def test_certainty_gives_the_label_and_indifference_the_middle() -> None:
    rows = np.vstack([np.eye(6), np.full((1, 6), 1 / 6)])
    assert expected_scores(rows).tolist() == pytest.approx([0, 1, 2, 3, 4, 5, 2.5])


def test_a_row_need_not_sum_to_one() -> None:
    assert expected_scores(np.array([[0.0, 0.0, 0.2, 0.0, 0.2, 0.0]])).tolist() == pytest.approx([3.0])


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rows = np.random.default_rng(0).random((257, 6))
    alone = [expected_scores(row[None])[0] for row in rows]
    assert expected_scores(rows).tolist() == alone


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def test_rounded_probabilities_are_the_nearest_multiples_of_the_step() -> None:
    for p in softmax(np.random.default_rng(1).normal(size=(200, 6)) * 3):
        rounded, _ = round_probabilities(p, 0.0)
        assert (rounded / PROBABILITY_STEP % 1 == 0).all()
        assert np.abs(rounded - p).max() <= PROBABILITY_STEP / 2


def test_no_shift_below_half_the_gap_changes_what_is_rounded_for_certain() -> None:
    tie_gap = 0.004
    generator = np.random.default_rng(2)
    is_certain, is_changed = [], []
    for logits in generator.normal(size=(1000, 6)) * 3:
        rounded, certain = round_probabilities(softmax(logits), tie_gap)
        signs = generator.choice([-1, 1], size=(40, 6))
        shifted = softmax(logits + signs * tie_gap * 0.499)
        is_certain.append(certain)
        is_changed.append(any((round_probabilities(p, 0.0)[0] != rounded).any() for p in shifted))
    assert not (np.array(is_certain) & np.array(is_changed)).any()
    assert sum(is_changed) > 100
    assert sum(is_certain) > 100


def test_probabilities_on_an_edge_are_certain_only_without_noise() -> None:
    edge = np.array([10.5 * PROBABILITY_STEP, 1 - 10.5 * PROBABILITY_STEP])
    assert round_probabilities(edge, 0.0)[1]
    assert not round_probabilities(edge, 1e-9)[1]
    assert round_probabilities(np.array([10, 246]) * PROBABILITY_STEP, 1e-3)[1]


def test_probabilities_that_are_not_numbers_are_never_certain() -> None:
    assert not round_probabilities(np.full(6, np.nan), 0.0)[1]
