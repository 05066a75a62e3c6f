import pytest

from multicsr.stages.evaluate.ranking import holm, shared_ranks


def test_holm_multiplies_by_the_tests_that_are_left_and_never_falls():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1, "a": 1}
    assert holm({}) == {}


def test_scores_that_are_not_distinguished_share_a_rank():
    p_values = {(1, 0): 0.6, (2, 0): 0.001, (2, 1): 0.002}
    assert shared_ranks([80, 79, 70], p_values) == [1, 1, 3]
    assert shared_ranks([80, 79, 90], p_values) == [2, 2, 1]


def test_a_score_between_two_others_shares_the_rank_of_the_better_one():
    assert shared_ranks([80, 79, 78], {(1, 0): 0.3, (2, 0): 0.001, (2, 1): 0.3}) == [1, 1, 2]


def test_ranks_are_corrected_for_the_number_of_pairs():
    assert shared_ranks([80, 79], {(1, 0): 0.04}) == [1, 2]
    assert shared_ranks([80, 79, 78], {(1, 0): 0.04, (2, 0): 0.04, (2, 1): 0.9}) == [1, 1, 1]
