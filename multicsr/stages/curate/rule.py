"""Stage 2, self-curation: keep or reject a scored triplet (MultiCSR Eq. 4). No model is used.

Reads: rows.SCORED. Writes: rows.CURATED. The rule differs from the paper only under `rule: reference`, which
follows the authors' code: rows whose lower score is above 4 are rejected, entailment and contradiction are
exchanged where the contradiction has the higher score, and the required gap is only a != b.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multicsr.config import CurateConfig
from multicsr.errors import ConfigError
from multicsr.execution.stage_runner import StageOutput
from multicsr.rows import CURATED, Reason, rejects
from multicsr.stages.curate.separation import count_separation
from multicsr.storage.manifest import Manifest

CURATION_RULES = 1
"""Version of the rules by which rows are kept; it is part of the fingerprint of the artifact `curated`."""
_BOTH_SIMILAR_ABOVE = 4.0
"""Limit of `rule: reference`: a row whose lower score is above it is rejected."""
DECIMALS = 4
"""Decimals to which scores are rounded. They are stored as float32, in which 3.3 is slightly less than 3.3;
rounded, it passes alpha = 3.3."""
_PAIRED = ("", "_prompt", "_expected", "_stated", "_reply")
"""Suffixes of the columns that exist for both the entailment and the contradiction."""
Scores = NDArray[np.float64]
Booleans = NDArray[np.bool_]


def decide(table: pa.Table, config: CurateConfig) -> StageOutput:
    """Split scored rows into rows for training and rejects (MultiCSR Eq. 4), in the order of the input.

    A reject has the first reason that applies, in the order of Eq. 4. A row without the score that
    `curate.score` selects is rejected even if it has the other score.

    Args:
        table: rows of `rows.SCORED`.
        config: thresholds and rule.

    Returns:
        Kept rows in the schema `rows.CURATED`, rejects, and the counters of `Separation`.
    """
    a_N, b_N, absent_N = read_scores(table, config)
    separation = count_separation(a_N, b_N)
    swapped_N = b_N > a_N if config.rule == "reference" else np.zeros(len(a_N), dtype=bool)
    a_N, b_N = np.where(swapped_N, b_N, a_N), np.where(swapped_N, a_N, b_N)
    table = _exchange(table, pa.array(swapped_N)) if swapped_N.any() else table
    scores = [pa.array(each_N, pa.float32(), mask=~np.isfinite(each_N)) for each_N in (a_N, b_N)]
    table = pa.table([*table.columns, *scores, pa.array(swapped_N)], schema=CURATED)
    rejections = [(Reason.SCORE_UNPARSABLE, absent_N), *rejections_of(a_N, b_N, config)]
    reason_N = np.select(
        [rejected_N for _, rejected_N in rejections], [reason.value for reason, _ in rejections], default=""
    )
    rejected_N = reason_N != ""
    rejected = table.filter(rejected_N)
    reasons = pa.array(reason_N[rejected_N], pa.string())
    detail = pa.nulls(rejected.num_rows, pa.string())
    return StageOutput(
        table.filter(~rejected_N),
        pa.table([*rejected.columns, reasons, detail], schema=rejects(CURATED)),
        separation,
    )


def rejections_of(a_N: Scores, b_N: Scores, config: CurateConfig) -> list[tuple[Reason, Booleans]]:
    """Return for each reason a mask of the rows to reject, in the order of precedence.

    Args:
        a_N: scores of the entailments, after any exchange.
        b_N: scores of the contradictions, likewise.
        config: thresholds and rule.
    """
    if config.rule == "paper":
        gap_too_small_N = a_N < np.round(b_N + config.gamma, DECIMALS)
        too_similar: list[tuple[Reason, Booleans]] = []
    else:
        gap_too_small_N = a_N == b_N
        too_similar = [(Reason.BOTH_SIMILAR, np.minimum(a_N, b_N) > _BOTH_SIMILAR_ABOVE)]
    return [
        (Reason.SCORE_NOT_A_NUMBER, ~(np.isfinite(a_N) & np.isfinite(b_N))),
        *too_similar,
        (Reason.LOW_ENTAILMENT, a_N < config.alpha),
        (Reason.HIGH_CONTRADICTION, b_N > config.beta),
        (Reason.SMALL_GAP, gap_too_small_N),
    ]


def score_columns(config: CurateConfig) -> tuple[str, str]:
    """Return the names of the columns with the scores a and b that `curate.score` selects."""
    return f"entailment_{config.score}", f"contradiction_{config.score}"


def check_method(config: CurateConfig, scored: Manifest) -> None:
    """Raise ConfigError if the rows were scored without the score that `curate.score` selects."""
    scoring = scored.settings.get("scoring")
    score = scoring.get("score") if isinstance(scoring, dict) else None
    if isinstance(score, dict) and score.get("method") not in (config.score, "both"):
        raise ConfigError(
            f"curate.score is {config.score}, but rows were scored without it; "
            "set score.method to both and generate again, or choose the other score"
        )


def read_scores(table: pa.Table, config: CurateConfig) -> tuple[Scores, Scores, Booleans]:
    """Return a [N], b [N], and a mask [N] of the rows without one of them; a missing score is NaN."""
    columns = [table[name] for name in score_columns(config)]
    absent_N = np.logical_or(*(column.is_null().to_numpy() for column in columns))
    a_N, b_N = (np.round(column.to_numpy().astype(np.float64), DECIMALS) for column in columns)
    return a_N, b_N, absent_N


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
