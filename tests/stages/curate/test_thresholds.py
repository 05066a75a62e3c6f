"""Thresholds from the quantiles of the scores, against sorting; the error if nothing is kept."""

import random
import re

import numpy as np
import pytest

from multicsr.errors import ConfigError, RunError
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.rule import decide
from multicsr.stages.curate.sweep import sweep
from multicsr.stages.curate.thresholds import (
    ScoreDistribution,
    nothing_kept,
    thresholds_keeping,
    with_absolute_thresholds,
)
from multicsr.storage.store import Store
from tests.stages.curate.test_rule import INF, NAN, make_rows, scored_artifact

_draw = random.Random(3)
LOW = [(1.0 + _draw.uniform(0, 0.5), 0.8 + _draw.uniform(0, 0.4)) for _ in range(400)]
"""Scores of a small LLM: all far below alpha = 3, but in the right order in most rows."""


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def artifact(store, scores):
    table = make_rows(scores)
    return scored_artifact(store, [table.slice(0, 7), table.slice(7)])


def test_quantiles_are_those_of_the_sorted_scores():
    draw = np.random.default_rng(5)
    a_N, b_N = draw.uniform(0, 5, 1001).round(4), draw.choice([0.0, 1.5, 5.0], 1001)
    distribution = ScoreDistribution()
    for part in (slice(0, 10), slice(10, None)):
        distribution.add(a_N[part], b_N[part])
    distribution.add(np.array([NAN, 1.0, INF]), np.array([1.0, NAN, 1.0]))
    assert distribution.num_rows == 1001
    for level in (0, 0.1, 0.25, 0.5, 0.999, 1):
        for name, values in (("a", a_N), ("b", b_N), ("gap", a_N - b_N)):
            assert distribution.quantile(name, level) == pytest.approx(
                np.sort(values)[int(level * 1000)], abs=1e-9
            )


@pytest.mark.parametrize("rule", ["paper", "reference"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_wanted_share_is_kept_and_not_much_more(store, rule, share):
    scores = LOW if rule == "paper" else [(b, a) if i % 3 else (a, b) for i, (a, b) in enumerate(LOW)]
    scored = artifact(store, scores)
    found = thresholds_keeping(share, store, scored, Curation(rule=rule))
    kept = decide(make_rows(scores), found).rows.num_rows
    assert share <= kept / len(scores) < share + 0.03


def test_rows_without_a_score_count_as_scored_rows(store):
    scored = artifact(store, [*LOW[:60], *[(NAN, 1.0)] * 30, *[(None, 2.0)] * 30])
    found = thresholds_keeping(0.4, store, scored, Curation())
    assert decide(make_rows(LOW[:60]), found).rows.num_rows >= 48
    assert thresholds_keeping(0.51, store, scored, Curation()) is None


def test_thresholds_at_the_ends_of_the_scale_are_settings(store):
    scored = artifact(store, [(4.99999, 0.00001)] * 20)
    found = thresholds_keeping(1.0, store, scored, Curation())
    assert Curation.model_validate(found.model_dump(exclude={"keep_share"}))
    assert decide(make_rows([(4.99999, 0.00001)]), found).rows.num_rows == 1


def test_keep_share_takes_the_place_of_the_thresholds(store):
    scored = artifact(store, LOW)
    config = Curation(keep_share=0.5)
    absolute = with_absolute_thresholds(config, store, scored)
    assert absolute.keep_share is None
    assert absolute == thresholds_keeping(0.5, store, scored, config)
    assert with_absolute_thresholds(absolute, store, scored) is absolute
    inverted = artifact(store, [(b, a) for a, b in LOW])
    with pytest.raises(RunError, match=r"curate\.keep_share 0\.5: fewer of the 400 scored rows"):
        with_absolute_thresholds(config, store, inverted)


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
def test_a_threshold_beside_keep_share_has_no_effect(name):
    with pytest.raises(ValueError, match=f"{name} has no effect with keep_share"):
        Curation(keep_share=0.5, **{name: 1})


def test_keeping_nothing_names_thresholds_that_keep_half(store):
    scored = artifact(store, LOW)
    line = str(nothing_kept(Curation(), store, scored))
    assert line.startswith(
        "curate: none of 400 scored rows passes alpha 3, beta 3, gamma 1; a lies in 1.00 to"
    )
    values = re.findall(r"curate\.(alpha|beta|gamma)=([\d.]+)", line)
    config = Curation(**{name: float(value) for name, value in values})
    assert 0.5 <= decide(make_rows(LOW), config).rows.num_rows / 400 < 0.53


def test_keeping_nothing_of_scores_that_separate_nothing(store):
    line = str(nothing_kept(Curation(), store, artifact(store, [(b, a) for a, b in LOW])))
    assert line.endswith("fewer than half of the rows have a >= b: use another LLM or generate.prompts")
    line = str(nothing_kept(Curation(), store, artifact(store, [(NAN, 1.0)] * 8)))
    assert "no row has both scores" in line


def test_nothing_was_scored(store):
    scored = scored_artifact(store, [make_rows([])]).model_copy(
        update={"rows_in": 7, "rejected": {"empty hypothesis": 5, "copied hypothesis": 2}}
    )
    assert str(nothing_kept(Curation(), store, scored)) == (
        "curate: there is no scored row, because all 7 sentences were rejected before: copied hypothesis 2, "
        "empty hypothesis 5"
    )


def test_the_sweep_needs_the_score_that_decides(store):
    scored = artifact(store, LOW).model_copy(
        update={"settings": {"scoring": {"score": {"method": "stated"}}}}
    )
    with pytest.raises(ConfigError, match=r"curate\.score is llm_expected"):
        sweep(store, scored, Curation(), alphas=[3], betas=[3], gammas=[1])
