"""Intervals at 95%: against values computed by hand, and against samples whose truth is known."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from multicsr.stages.score.intervals import spearman_interval, wilson_interval


def test_values_computed_by_hand():
    assert spearman_interval(0.5, 103) == pytest.approx((0.32875, 0.63936), abs=1e-4)
    assert wilson_interval(0.5, 100) == pytest.approx((0.40383, 0.59617), abs=1e-4)


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.8])
def test_the_interval_of_spearmans_rho_holds_the_truth_in_95_of_100_samples(correlation):
    draw = np.random.default_rng(5)
    truth = 6 / np.pi * np.arcsin(correlation / 2)  # of two normal variables
    runs, n = 2_000, 80
    held = 0
    for _ in range(runs):
        x, noise = draw.standard_normal((2, n))
        y = correlation * x + np.sqrt(1 - correlation**2) * noise
        low, high = spearman_interval(float(spearmanr(x, y).statistic), n)
        held += low <= truth <= high
    assert 0.93 < held / runs < 0.97
