"""Expected scores against hand-made distributions."""

import numpy as np
import pytest

from multicsr.score.expected import expected_scores


def test_certainty_gives_the_label_and_indifference_the_middle() -> None:
    rows = np.vstack([np.eye(6), np.full((1, 6), 1 / 6)])
    assert expected_scores(rows).tolist() == pytest.approx([0, 1, 2, 3, 4, 5, 2.5])


def test_a_row_need_not_sum_to_one() -> None:
    assert expected_scores(np.array([[0.0, 0.0, 0.2, 0.0, 0.2, 0.0]])).tolist() == pytest.approx([3.0])


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rows = np.random.default_rng(0).random((257, 6))
    alone = [expected_scores(row[None])[0] for row in rows]
    assert expected_scores(rows).tolist() == alone
