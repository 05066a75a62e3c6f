"""Thresholds of Eq. 4 that keep a wanted share of the rows, from the quantiles of the scores.

The paper's thresholds suit an LLM whose scores spread over the whole scale. A small LLM's scores may lie
close together, so that fixed thresholds keep everything or nothing, although the scores order the rows well.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa

from multicsr.errors import NothingKept, RunError
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.rule import Scores, read_scores, rejections_of, score_columns
from multicsr.stages.score.scorer import DECIMALS
from multicsr.storage.manifest import Manifest, iter_tables
from multicsr.storage.store import Store

_STEPS = 10**DECIMALS
"""Number of distinct scores per point of the scale."""
_TOP = 5
_LEVELS = 100
"""Number of levels of quantiles that are tried."""


class ScoreDistribution:
    """Exact counts of a, b and a - b; memory does not grow with the rows, because scores are rounded."""

    def __init__(self) -> None:
        self._counts = {name: np.zeros(2 * _TOP * _STEPS + 1, dtype=np.int64) for name in ("a", "b", "gap")}

    @property
    def num_rows(self) -> int:
        """Return the number of rows with both scores."""
        return int(self._counts["a"].sum())

    def add(self, a_N: Scores, b_N: Scores) -> None:
        """Count the rows with two finite scores in [0, 5]."""
        both_N = np.isfinite(a_N) & np.isfinite(b_N)
        for name, values in (("a", a_N[both_N]), ("b", b_N[both_N]), ("gap", (a_N - b_N)[both_N])):
            bins = np.rint((values + _TOP) * _STEPS).astype(np.int64)
            self._counts[name] += np.bincount(bins, minlength=len(self._counts[name]))

    def quantile(self, name: Literal["a", "b", "gap"], level: float) -> float:
        """Return the score at the place floor(level * (n - 1)) of the n sorted scores.

        Args:
            name: scores of entailments or of contradictions, or their difference.
            level: in [0, 1].
        """
        place = int(level * (self.num_rows - 1))
        found = int(np.searchsorted(np.cumsum(self._counts[name]), place, side="right"))
        return float(round(found / _STEPS - _TOP, DECIMALS))


def read_distribution(store: Store, scored: Manifest, curation: Curation) -> ScoreDistribution:
    """Return the distribution of the scores that decide, with one file in memory at a time."""
    distribution = ScoreDistribution()
    for table in iter_tables(store, scored, score_columns(curation)):
        distribution.add(*ordered_scores(table, curation))
    return distribution


def count_kept(store: Store, scored: Manifest, ways: Sequence[Curation]) -> list[int]:
    """Count the rows that each choice of thresholds would keep, with one file in memory at a time.

    Args:
        ways: settings that differ in their thresholds only.
    """
    kept = [0] * len(ways)
    for table in iter_tables(store, scored, score_columns(ways[0])):
        a_N, b_N = ordered_scores(table, ways[0])
        for i, way in enumerate(ways):
            rejected_N = np.logical_or.reduce([rejected_N for _, rejected_N in rejections_of(a_N, b_N, way)])
            kept[i] += int(np.count_nonzero(~rejected_N))
    return kept


def thresholds_keeping(share: float, store: Store, scored: Manifest, curation: Curation) -> Curation | None:
    """Return the strictest thresholds at one common level of quantiles that keep a share of the scored rows.

    At level q, alpha is the q-quantile of a, beta the (1 - q)-quantile of b, and gamma the q-quantile of
    a - b, but at least 0. At level 0 every row with a >= b is kept.

    Args:
        share: share of the rows to keep at least, in (0, 1].
        curation: rule and score; its own thresholds are not used.

    Returns:
        The settings with these thresholds; None if fewer rows have a >= b.
    """
    distribution = read_distribution(store, scored, curation)
    if distribution.num_rows == 0:
        return None
    ways = [_at_level(level / _LEVELS, distribution, curation) for level in range(_LEVELS)]
    enough = share * scored.rows_out
    good = [way for way, kept in zip(ways, count_kept(store, scored, ways), strict=True) if kept >= enough]
    return good[-1] if good else None


def with_absolute_thresholds(curation: Curation, store: Store, scored: Manifest) -> Curation:
    """Return the settings with the thresholds that `keep_share` asks for; unchanged if it is not set.

    Raises:
        RunError: no thresholds keep that many rows.
    """
    if curation.keep_share is None:
        return curation
    found = thresholds_keeping(curation.keep_share, store, scored, curation)
    if found is None:
        raise RunError(
            f"curate.keep_share {curation.keep_share:g}: fewer of the {scored.rows_out:,} scored rows have "
            "an entailment with a score of at least their contradiction's; lower it, or use another LLM or "
            "generate.prompts"
        )
    return found


def nothing_kept(curation: Curation, store: Store, scored: Manifest) -> NothingKept:
    """Return the error for thresholds that no row passes; it names thresholds that keep half of the rows."""
    if scored.rows_out == 0:
        reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in sorted(scored.rejected.items()))
        return NothingKept(
            f"curate: there is no scored row, because all {scored.rows_in:,} sentences were rejected before: "
            f"{reasons or 'there were none'}"
        )
    limits = [f"alpha {curation.alpha:g}", f"beta {curation.beta:g}"]
    limits += [f"gamma {curation.gamma:g}"] if curation.rule == "paper" else []
    return NothingKept(
        f"curate: none of {scored.rows_out:,} scored rows passes {', '.join(limits)}; "
        f"{_ranges(read_distribution(store, scored, curation))}; {_advice(curation, store, scored)}"
    )


def _ranges(distribution: ScoreDistribution) -> str:
    """Return the ranges of the scores as text."""
    if distribution.num_rows == 0:
        return "no row has both scores"
    a, b = ([distribution.quantile(name, level) for level in (0, 0.5, 1)] for name in ("a", "b"))
    return " and ".join(
        f"{name} lies in {low:.2f} to {high:.2f} (median {middle:.2f})"
        for name, (low, middle, high) in (("a", a), ("b", b))
    )


def _advice(curation: Curation, store: Store, scored: Manifest) -> str:
    """Return thresholds that keep half of the rows as options of the command line, or what else helps."""
    half = thresholds_keeping(0.5, store, scored, curation)
    if half is None:
        return "fewer than half of the rows have a >= b: use another LLM or generate.prompts"
    options = f"--set curate.alpha={half.alpha:g} --set curate.beta={half.beta:g}"
    if curation.rule == "paper":
        options += f" --set curate.gamma={half.gamma:g}"
    return f"{options} would keep half of them, and so would --set curate.keep_share=0.5"


def _at_level(level: float, distribution: ScoreDistribution, curation: Curation) -> Curation:
    """Return the settings with the thresholds at a level of quantiles, within the bounds of the settings."""
    nearly_top = _TOP - 1 / _STEPS
    return curation.model_copy(
        update={
            "alpha": min(distribution.quantile("a", level), nearly_top),
            "beta": max(distribution.quantile("b", 1 - level), 1 / _STEPS),
            "gamma": min(max(distribution.quantile("gap", level), 0.0), nearly_top),
            "keep_share": None,
        }
    )


def ordered_scores(table: pa.Table, curation: Curation) -> tuple[Scores, Scores]:
    """Return a [N] and b [N] as the rule compares them: `rule: reference` exchanges inverted pairs."""
    a_N, b_N, _ = read_scores(table, curation)
    return (np.maximum(a_N, b_N), np.minimum(a_N, b_N)) if curation.rule == "reference" else (a_N, b_N)
