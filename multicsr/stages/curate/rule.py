"""Stage 2, self-curation: keep or reject a scored triplet (MultiCSR Eq. 4). No model is used.

Reads: rows.SCORED. Writes: rows.CURATED. The rule differs from the paper only under `rule: reference`, which
follows the authors' code: rows whose lower score is above 4 are rejected, entailment and contradiction are
exchanged where the contradiction has the higher score, and the required gap is only a != b.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multicsr.config import CurateConfig
from multicsr.execution.stage_runner import StageOutput
from multicsr.rows import CURATED, Reason, rejects
from multicsr.stages.curate.balance import WordBalance
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.separation import count_separation
from multicsr.stages.score.scorer import DECIMALS

CURATION_RULES = 1
"""Version of the rules by which rows are kept; it is part of the fingerprint of the artifact `curated`."""
_BOTH_SIMILAR_ABOVE = 4.0
"""Limit of `rule: reference`: a row whose lower score is above it is rejected."""
_PAIRED = ("", "_prompt", "_expected", "_stated", "_reply", "_model")
"""Suffixes of the columns that exist for both the entailment and the contradiction."""
Scores = NDArray[np.float64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Scored rows in the columns of `CURATED`, each with the reason to reject it."""

    table: pa.Table
    """The rows in the order of the input, entailment and contradiction exchanged where the rule does so."""
    reason_N: NDArray[np.str_]
    """Reason by which the thresholds reject a row; empty: it passes."""
    counters: dict[str, float]
    """Counters of `Separation`."""

    @property
    def passing(self) -> pa.Table:
        """Return the rows that pass the thresholds."""
        return self.table.filter(self.reason_N == "")


def decide(table: pa.Table, curation: Curation, balance: WordBalance | None = None) -> StageOutput:
    """Split scored rows into rows for training and rejects (MultiCSR Eq. 4), in the order of the input.

    A reject has the first reason that applies, in the order of Eq. 4; the balance of words is the last. A row
    without the score that `curate.score` selects is rejected even if it has the other score.

    Args:
        table: rows of `rows.SCORED`.
        curation: the settings, with absolute thresholds.
        balance: words that show the side; None: words are not balanced.

    Returns:
        Kept rows in the schema `rows.CURATED`, rejects, and the counters of `Separation`.
    """
    judged = judge(table, curation)
    table, reason_N = judged.table, judged.reason_N.astype(object)
    detail_N = np.full(len(reason_N), None, dtype=object)
    if balance is not None:
        detail_N[reason_N == ""] = balance.telling_words(judged.passing)
        reason_N[detail_N != None] = Reason.LEXICAL_BIAS.value  # noqa: E711 - elementwise
    rejected_N = (reason_N != "").astype(bool)
    rejected = table.filter(rejected_N)
    reasons, details = (pa.array(each_N[rejected_N], pa.string()) for each_N in (reason_N, detail_N))
    return StageOutput(
        table.filter(~rejected_N),
        pa.table([*rejected.columns, reasons, details], schema=rejects(CURATED)),
        judged.counters,
    )


def judge(table: pa.Table, curation: Curation) -> Judged:
    """Apply the thresholds to scored rows.

    Args:
        table: rows of `rows.SCORED`.
        curation: the settings, with absolute thresholds.
    """
    a_N, b_N, absent_N = read_scores(table, curation)
    separation = count_separation(a_N, b_N)
    swapped_N = b_N > a_N if curation.rule == "reference" else np.zeros(len(a_N), dtype=bool)
    a_N, b_N = np.where(swapped_N, b_N, a_N), np.where(swapped_N, a_N, b_N)
    table = _exchange(table, pa.array(swapped_N)) if swapped_N.any() else table
    scores = [pa.array(each_N, pa.float32(), mask=~np.isfinite(each_N)) for each_N in (a_N, b_N)]
    table = pa.table([*table.columns, *scores, pa.array(swapped_N)], schema=CURATED)
    rejections = [(Reason.SCORE_UNPARSABLE, absent_N), *rejections_of(a_N, b_N, curation)]
    reason_N = np.select(
        [rejected_N for _, rejected_N in rejections], [reason.value for reason, _ in rejections], default=""
    )
    return Judged(table, reason_N, separation)


def rejections_of(a_N: Scores, b_N: Scores, curation: CurateConfig) -> list[tuple[Reason, Booleans]]:
    """Return for each reason a mask of the rows to reject, in the order of precedence.

    Args:
        a_N: scores of the entailments, after any exchange.
        b_N: scores of the contradictions, likewise.
        curation: the settings, with absolute thresholds.
    """
    if curation.rule == "paper":
        gap_too_small_N = a_N < np.round(b_N + curation.gamma, DECIMALS)
        too_similar: list[tuple[Reason, Booleans]] = []
    else:
        gap_too_small_N = a_N == b_N
        too_similar = [(Reason.BOTH_SIMILAR, np.minimum(a_N, b_N) > _BOTH_SIMILAR_ABOVE)]
    return [
        (Reason.SCORE_NOT_A_NUMBER, ~(np.isfinite(a_N) & np.isfinite(b_N))),
        *too_similar,
        (Reason.LOW_ENTAILMENT, a_N < curation.alpha),
        (Reason.HIGH_CONTRADICTION, b_N > curation.beta),
        (Reason.SMALL_GAP, gap_too_small_N),
    ]


def score_columns(curation: Curation) -> tuple[str, str]:
    """Return the names of the columns with the scores a and b that `curate.score` selects."""
    return f"entailment_{curation.column}", f"contradiction_{curation.column}"


def read_scores(table: pa.Table, curation: Curation) -> tuple[Scores, Scores, Booleans]:
    """Return a [N], b [N], and a mask [N] of the rows without one of them; a missing score is NaN.

    Scores are calibrated if `curation.calibration` is set.
    """
    columns = [table[name] for name in score_columns(curation)]
    absent_N = np.logical_or(*(column.is_null().to_numpy() for column in columns))
    scores = [np.round(column.to_numpy().astype(np.float64), DECIMALS) for column in columns]
    if curation.calibration is not None:
        scores = [np.round(curation.calibration.apply(each_N), DECIMALS) for each_N in scores]
    return scores[0], scores[1], absent_N


def _exchange(table: pa.Table, swapped: pa.Array) -> pa.Table:
    """Return the table with entailment and contradiction columns exchanged where `swapped` is true."""
    for suffix in _PAIRED:
        names = (f"entailment{suffix}", f"contradiction{suffix}")
        entailment, contradiction = (table[name] for name in names)
        for name, ours, theirs in (
            (names[0], entailment, contradiction),
            (names[1], contradiction, entailment),
        ):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, table.schema.field(at), pc.if_else(swapped, theirs, ours))
    return table
