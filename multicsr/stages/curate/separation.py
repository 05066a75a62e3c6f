"""Measure of how well the scores tell entailments from contradictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from multicsr.stages.score.intervals import wilson_interval

_ROWS, _ABOVE = "rows_with_scores", "rows_with_a_above_b"


@dataclass(frozen=True)
class Separation:
    """Share of the rows whose entailment has a higher score than their contradiction; 0.5 is chance."""

    num_rows: int
    """Number of rows with both scores."""
    num_above: float
    """Number of rows with a > b; a row with equal scores counts as one half."""

    @classmethod
    def from_counters(cls, counters: Mapping[str, float]) -> Self | None:
        """Return the separation that a manifest's counters record; None if there are no rows with scores."""
        num_rows = int(counters.get(_ROWS, 0))
        return cls(num_rows, counters[_ABOVE]) if num_rows else None

    @property
    def share(self) -> float:
        """Return the share of rows with a > b, in [0, 1]."""
        return self.num_above / self.num_rows

    @property
    def interval(self) -> tuple[float, float]:
        """Return the Wilson interval of the share at 95%."""
        return wilson_interval(self.share, self.num_rows)

    @property
    def is_chance(self) -> bool:
        """Return True if the scores may be unrelated to the direction of the hypotheses, or inverted."""
        return self.interval[0] <= 0.5

    def __str__(self) -> str:
        """Return the share with its interval, as text for messages and the report."""
        low, high = self.interval
        return f"a > b in {self.share:.1%} of {self.num_rows:,} rows (95% interval {low:.1%} to {high:.1%})"


def count_separation(a_N: NDArray[np.float64], b_N: NDArray[np.float64]) -> dict[str, float]:
    """Return counters, which add up over shards, for `Separation.from_counters`.

    Args:
        a_N: scores of the entailments; NaN where there is none.
        b_N: scores of the contradictions, likewise.
    """
    both_N = np.isfinite(a_N) & np.isfinite(b_N)
    a_M, b_M = a_N[both_N], b_N[both_N]
    above = np.count_nonzero(a_M > b_M) + np.count_nonzero(a_M == b_M) / 2
    return {_ROWS: float(len(a_M)), _ABOVE: float(above)}
