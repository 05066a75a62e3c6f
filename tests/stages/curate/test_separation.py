"""The share of rows with a > b and its interval."""

from collections import Counter

import numpy as np
import pytest

from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.rule import decide
from multicsr.stages.curate.separation import Separation, count_separation
from tests.stages.curate.test_rule import INF, NAN, make_rows


def separation(above, ties, below):
    pairs = [(2.0, 1.0)] * above + [(1.0, 1.0)] * ties + [(1.0, 2.0)] * below
    a_N, b_N = np.array(pairs).T
    return Separation.from_counters(count_separation(a_N, b_N))


def test_ties_count_half_and_rows_without_scores_not_at_all():
    a_N, b_N = np.array([2, 1, 1, NAN, 3, INF]), np.array([1, 1, 2, 1, NAN, 1])
    found = Separation.from_counters(count_separation(a_N, b_N))
    assert (found.num_rows, found.num_above, found.share) == (3, 1.5, 0.5)
    assert Separation.from_counters(count_separation(a_N[3:], b_N[3:])) is None
    assert Separation.from_counters({}) is None


@pytest.mark.parametrize(
    ("above", "below", "low", "high"),
    [(8, 2, 0.4902, 0.9433), (50, 50, 0.4038, 0.5962), (10, 0, 0.7225, 1.0)],
)
def test_the_interval_is_wilsons(above, below, low, high):
    """Published values: Newcombe 1998's method 3, without continuity correction."""
    assert separation(above, 0, below).interval == pytest.approx((low, high), abs=5e-5)


def test_chance_is_what_the_interval_cannot_exclude():
    assert separation(8, 0, 2).is_chance
    assert separation(38, 0, 62).is_chance
    assert separation(0, 50, 0).is_chance
    assert not separation(70, 0, 30).is_chance


def test_counters_of_shards_add_up():
    scores = [(4.0, 1.0)] * 5 + [(1.0, 4.0)] * 2 + [(None, 1.0), (3.0, 3.0)]
    whole = decide(make_rows(scores), Curation()).counters
    parts = Counter(decide(make_rows(scores[:4]), Curation()).counters)
    parts.update(decide(make_rows(scores[4:]), Curation()).counters)
    assert dict(parts) == whole
    assert str(Separation.from_counters(whole)).startswith("a > b in 68.8% of 8 rows (95% interval ")
