"""Calibration: a map that never falls, from the scores of a scorer to those that people gave the same pairs.

It is the least-squares one (isotonic regression), between its steps a straight line. A scorer that orders
pairs well and sits in a corner of the scale is so brought to the scale that the thresholds are meant for. The
order of two pairs is never inverted, but scores on one step become equal.
"""

import numpy as np
from numpy.typing import NDArray

from multicsr import labelled_files
from multicsr.artifacts import FileRecord
from multicsr.errors import ConfigError, RunError
from multicsr.labelled_files import PAIR_COLUMNS, ScoredPairs
from multicsr.stages.score.intervals import spearman_interval

MIN_PAIRS = 50
"""Least number of pairs: with fewer, the interval of Spearman's rho is wider than 0.5."""
_TOP = 5.0
_SETTING = "score.calibrate"
_DECIMALS = 6
"""Decimals of the map, so that its text does not depend on the last digits of a sum."""


class ScoreMap(FileRecord):
    """A map from scores to scores that never falls, and how far the scores agree with people."""

    scores: list[float]
    """Scores at which the slope changes, rising."""
    values: list[float]
    """Calibrated scores there, in [0, 5]."""
    num_pairs: int
    """Number of pairs that it was fitted on."""
    spearman: float
    """Spearman's rho between the scores and those of people; 0 if all scores are equal."""
    mean: float
    """Mean of the scores on the pairs."""
    mean_of_people: float
    """Mean of the scores of people, which is that of the calibrated scores too."""

    @property
    def interval(self) -> tuple[float, float]:
        """Return the interval of Spearman's rho at 95%."""
        return spearman_interval(self.spearman, self.num_pairs)

    @property
    def is_chance(self) -> bool:
        """Return True if the scores may be unrelated to those of people, or inverted."""
        return self.interval[0] <= 0

    @property
    def is_flat(self) -> bool:
        """Return True if all scores are mapped to one."""
        return self.values[0] == self.values[-1]

    def apply(self, scores_N: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the calibrated scores; those outside the scores of the pairs get the value at the end."""
        return np.asarray(np.interp(scores_N, self.scores, self.values))

    def __str__(self) -> str:
        """Return the agreement with people with its interval, as text for messages and the report."""
        low, high = self.interval
        return (
            f"Spearman {self.spearman:.2f} with people on {self.num_pairs:,} pairs (95% interval {low:.2f} "
            f"to {high:.2f})"
        )


def read_pairs(path: str) -> ScoredPairs:
    """Read the pairs of `score.calibrate`.

    Raises:
        ConfigError: the file cannot be read, has no pairs, too few of them, or scores outside [0, 5].
    """
    try:
        columns = labelled_files.read_columns(path)
        if missing := [column for column in PAIR_COLUMNS if column not in columns]:
            raise ConfigError(f"{path} has no {missing[0]}; it needs the columns {', '.join(PAIR_COLUMNS)}")
        pairs = labelled_files.read_pairs(path)
    except ConfigError as error:
        raise ConfigError(f"{_SETTING}: {error}") from error
    if len(pairs.scores) < MIN_PAIRS:
        raise ConfigError(f"{_SETTING}: {path} has {len(pairs.scores)} pairs; give at least {MIN_PAIRS}")
    if not 0 <= min(pairs.scores) <= max(pairs.scores) <= _TOP:
        span = f"{min(pairs.scores):g} to {max(pairs.scores):g}"
        raise ConfigError(f"{_SETTING}: the scores of {path} lie in {span}; bring them to the scale 0 to 5")
    return pairs


def fit_map(scores_N: NDArray[np.float64], people_N: NDArray[np.float64]) -> ScoreMap:
    """Fit the map on pairs that a scorer and people scored.

    Args:
        scores_N: scores of the scorer; NaN where it gave none.
        people_N: scores of people.

    Raises:
        RunError: too few pairs have a score, or the map is flat, so that it could decide nothing.
    """
    from scipy.stats import spearmanr

    scored_N = np.isfinite(scores_N)
    scores_M, people_M = scores_N[scored_N], people_N[scored_N]
    if len(scores_M) < MIN_PAIRS:
        raise RunError(
            f"{_SETTING}: the scorer gave a score to {len(scores_M)} of {len(scores_N)} pairs, and "
            f"{MIN_PAIRS} are needed; take another score.method or model, or leave score.calibrate out"
        )
    knots_K, values_K = _isotonic(scores_M, people_M)
    rho = float(spearmanr(scores_M, people_M).statistic) if np.ptp(scores_M) and np.ptp(people_M) else 0.0
    found = ScoreMap(
        scores=knots_K.round(_DECIMALS).tolist(),
        values=values_K.round(_DECIMALS).tolist(),
        num_pairs=len(scores_M),
        spearman=round(rho, _DECIMALS),
        mean=round(float(scores_M.mean()), _DECIMALS),
        mean_of_people=round(float(people_M.mean()), _DECIMALS),
    )
    if found.is_flat:
        raise RunError(
            f"{_SETTING}: the scores do not rise with those of people ({found}), so all rows would get one "
            "score; take another score.method, score.model or LLM, or leave score.calibrate out"
        )
    return found


def _isotonic(
    scores_M: NDArray[np.float64], people_M: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the first and the last score of each step of the isotonic regression, and the values there.

    Pairs with equal scores count as one with their mean.
    """
    from scipy.optimize import isotonic_regression

    score_U, place_M, count_U = np.unique(scores_M, return_inverse=True, return_counts=True)
    mean_U = np.bincount(place_M, weights=people_M) / count_U
    value_U = isotonic_regression(mean_U, weights=count_U).x
    rises_U = np.diff(value_U) > 0
    is_end_U = np.append(True, rises_U) | np.append(rises_U, True)
    return score_U[is_end_U], value_U[is_end_U]
