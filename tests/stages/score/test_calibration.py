"""The calibration map against pool-adjacent-violators written plainly, and its edges."""

import random
from math import isnan

import numpy as np
import pytest

from multicsr.errors import ConfigError, RunError
from multicsr.stages.score.calibration import MIN_PAIRS, ScoreMap, fit_map, read_pairs


def slow_isotonic(scores, people):
    """Value of each distinct score: blocks are merged as long as one is above the next."""
    blocks = []
    for score in sorted(set(scores)):
        members = [p for s, p in zip(scores, people, strict=True) if s == score]
        blocks.append(([score], members))
        while len(blocks) > 1 and mean(blocks[-2][1]) >= mean(blocks[-1][1]):
            upper, lower = blocks.pop(), blocks.pop()
            blocks.append((lower[0] + upper[0], lower[1] + upper[1]))
    return {score: mean(members) for group, members in blocks for score in group}


def mean(values):
    return sum(values) / len(values)


def slow_spearman(one, other):
    def ranks(values):
        return [sum(v < value for v in values) + (values.count(value) + 1) / 2 for value in values]

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def drawn(seed, number, noise, step):
    """Scores in steps, so that some are equal, and noisy scores of people that rise with them."""
    draw = random.Random(seed)
    scores = [round(draw.uniform(1, 3) / step) * step for _ in range(number)]
    people = [min(5.0, max(0.0, 2 * (score - 1) + draw.gauss(0, noise))) for score in scores]
    return scores, people


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("noise", "step"), [(0.1, 0.001), (1.0, 0.05), (3.0, 0.2)])
def test_the_map_is_the_isotonic_regression(seed, noise, step):
    scores, people = drawn(seed, 80, noise, step)
    found = fit_map(np.array(scores), np.array(people))
    plain = slow_isotonic(scores, people)
    assert found.apply(np.array(list(plain))) == pytest.approx(list(plain.values()), abs=1e-5)
    assert found.spearman == pytest.approx(slow_spearman(scores, people), abs=1e-5)
    assert found.mean == pytest.approx(mean(scores), abs=1e-5)
    calibrated = found.apply(np.array(scores))
    assert calibrated.mean() == pytest.approx(found.mean_of_people, abs=1e-5) == pytest.approx(mean(people))


def test_the_map_never_falls_and_stays_on_the_scale():
    scores, people = drawn(1, 200, 2.0, 0.01)
    found = fit_map(np.array(scores), np.array(people))
    calibrated = found.apply(np.linspace(-1, 6, 1000))
    assert (np.diff(calibrated) >= 0).all()
    assert 0 <= calibrated.min() < calibrated.max() <= 5
    assert (calibrated[0], calibrated[-1]) == (found.values[0], found.values[-1])
    assert isnan(found.apply(np.array([np.nan]))[0])


def test_pairs_without_a_score_are_left_out():
    scores, people = (np.array(values) for values in drawn(2, 90, 0.5, 0.01))
    whole = fit_map(scores[:60], people[:60])
    scores[60:] = np.nan
    assert fit_map(scores, people) == whole
    scores[MIN_PAIRS - 1 :] = np.nan
    with pytest.raises(RunError, match=r"^score\.calibrate: the scorer gave a score to 49 of 90 pairs, "):
        fit_map(scores, people)


@pytest.mark.parametrize("kind", ["inverted", "constant"])
def test_scores_that_do_not_rise_with_those_of_people_are_an_error(kind):
    scores, people = (np.array(values) for values in drawn(3, 60, 0.0, 0.001))
    scores = -scores if kind == "inverted" else np.full(60, 2.0)
    with pytest.raises(RunError, match=r"do not rise with those of people \(Spearman -?[01]\.00 .*leave"):
        fit_map(scores, people)


def test_the_interval_covers_rho_and_shows_chance():
    """Of 300 draws with a known rho, about 95% of the intervals must hold it."""
    draw = np.random.default_rng(4)
    for rho, chance in ((0.0, 0.975), (0.6, 0.0)):
        maps = []
        for _ in range(300):
            x, e = draw.normal(size=(2, 100))
            y = rho * x + (1 - rho**2) ** 0.5 * e
            maps.append(_map(slow_rank_correlation(x, y)))
        spearman = 6 / np.pi * np.arcsin(rho / 2)
        covered = np.mean([each.interval[0] <= spearman <= each.interval[1] for each in maps])
        assert 0.91 < covered < 0.985
        assert np.mean([each.is_chance for each in maps]) == pytest.approx(chance, abs=0.03)
    assert _map(1.0).interval[1] <= 1


def slow_rank_correlation(x, y):
    return float(np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1])


def _map(spearman):
    return ScoreMap(scores=[0, 5], values=[0, 5], num_pairs=100, spearman=spearman, mean=2, mean_of_people=2)


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        ("score\tsentence1\tsentence2", ["1\ta\tb", "2\ta\tc"] * 24, r"has 48 pairs; give at least 50"),
        ("score\tsentence1\tsentence2", ["1\ta\tb", "80\ta\tc"] * 30, r"lie in 1 to 80; bring them to"),
        ("anchor\tpositive\tnegative", ["a\tb\tc"] * 60, r"has no score; it needs the columns score"),
        ("one\ttwo", ["a\tb"], r"has no score; it needs the columns score"),
    ],
)
def test_pairs_that_cannot_be_used_are_one_line(tmp_path, header, rows, words):
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(ConfigError, match=rf"^score\.calibrate: [^\n]*{words}[^\n]*$"):
        read_pairs(str(path))
    with pytest.raises(ConfigError, match=r"^score\.calibrate: no evaluation file"):
        read_pairs(str(tmp_path / "nowhere.tsv"))
