"""Stage 2, self-curation: keep or reject a scored triplet (MultiCSR Eq. 4). Touches no model.

Reads: rows.SCORED. Writes: rows.CURATED. Departs from the paper only under `rule: reference`, which does
what the authors' code does: rows whose lower score is above 4 are dropped, a pair whose contradiction scores
higher than its entailment is exchanged, and the gap asked for is a != b.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multicsr.config import CurateConfig
from multicsr.errors import ConfigError
from multicsr.manifest import Manifest, iter_tables
from multicsr.ray_stage import Pool, Stage, StageOutput
from multicsr.rows import CURATED, SCORED, Reason, rejects
from multicsr.store import Store

_BOTH_SIMILAR_ABOVE = 4.0
_DECIMALS = 4
"""Scores are stored as float32, in which 3.3 is a little less than 3.3; rounded, it passes alpha = 3.3."""
_PAIRED = ("", "_prompt", "_expected", "_stated", "_reply")
Scores = NDArray[np.float64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Yield:
    """What one choice of thresholds would keep."""

    alpha: float
    beta: float
    gamma: float | None
    """None under `rule: reference`, which has none."""
    kept: int
    share: float
    """Of the scored rows, in [0, 1]."""


def curate_stage(config: CurateConfig) -> Stage:
    """The stage, for `run_stage`."""
    return Stage(
        name="curate",
        room="curated",
        reads=SCORED,
        writes=CURATED,
        make=lambda: partial(decide, config=config),
        pool=Pool(shards_per_task=16),
    )


def decide(table: pa.Table, config: CurateConfig) -> StageOutput:
    """Split scored rows into those to train on and rejects, in the order of the input.

    A reject has the first reason that applies, in the order of Eq. 4.

    Raises:
        ConfigError: the score that should decide is missing.
    """
    a_N, b_N = _scores(table, config)
    swapped_N = b_N > a_N if config.rule == "reference" else np.zeros(len(a_N), dtype=bool)
    a_N, b_N = np.where(swapped_N, b_N, a_N), np.where(swapped_N, a_N, b_N)
    table = _exchange(table, pa.array(swapped_N)) if swapped_N.any() else table
    table = pa.table(
        [*table.columns, pa.array(a_N, pa.float32()), pa.array(b_N, pa.float32()), pa.array(swapped_N)],
        schema=CURATED,
    )
    refusals = _refusals(a_N, b_N, config)
    reason_N = np.select(
        [refused_N for _, refused_N in refusals], [reason.value for reason, _ in refusals], default=""
    )
    refused_N = reason_N != ""
    refused = table.filter(refused_N)
    reasons = pa.array(reason_N[refused_N], pa.string())
    detail = pa.nulls(refused.num_rows, pa.string())
    return StageOutput(
        table.filter(~refused_N), pa.table([*refused.columns, reasons, detail], schema=rejects(CURATED))
    )


def sweep(
    store: Store,
    scored: Manifest,
    config: CurateConfig,
    *,
    alphas: Sequence[float],
    betas: Sequence[float],
    gammas: Sequence[float],
) -> list[Yield]:
    """Count what each combination of thresholds would keep, one file in memory at a time.

    Raises:
        ConfigError: the score that should decide is missing.
    """
    ways = [
        config.model_copy(update={"alpha": alpha, "beta": beta, "gamma": gamma})
        for alpha, beta, gamma in product(alphas, betas, gammas if config.rule == "paper" else gammas[:1])
    ]
    kept = [0] * len(ways)
    for table in iter_tables(store, scored, _columns(config)):
        a_N, b_N = _scores(table, config)
        if config.rule == "reference":
            a_N, b_N = np.maximum(a_N, b_N), np.minimum(a_N, b_N)
        for i, way in enumerate(ways):
            refused_N = np.logical_or.reduce([refused_N for _, refused_N in _refusals(a_N, b_N, way)])
            kept[i] += int(np.count_nonzero(~refused_N))
    return [
        Yield(
            way.alpha,
            way.beta,
            way.gamma if config.rule == "paper" else None,
            count,
            count / max(scored.rows_out, 1),
        )
        for way, count in zip(ways, kept, strict=True)
    ]


def _refusals(a_N: Scores, b_N: Scores, config: CurateConfig) -> list[tuple[Reason, Booleans]]:
    """Who is refused, by reason, in the order in which reasons count; scores after any exchange."""
    if config.rule == "paper":
        gap_too_small_N = a_N < np.round(b_N + config.gamma, _DECIMALS)
        too_similar: list[tuple[Reason, Booleans]] = []
    else:
        gap_too_small_N = a_N == b_N
        too_similar = [(Reason.BOTH_SIMILAR, np.minimum(a_N, b_N) > _BOTH_SIMILAR_ABOVE)]
    return [
        *too_similar,
        (Reason.LOW_ENTAILMENT, a_N < config.alpha),
        (Reason.HIGH_CONTRADICTION, b_N > config.beta),
        (Reason.SMALL_GAP, gap_too_small_N),
    ]


def _columns(config: CurateConfig) -> tuple[str, str]:
    return f"entailment_{config.score}", f"contradiction_{config.score}"


def _scores(table: pa.Table, config: CurateConfig) -> tuple[Scores, Scores]:
    columns = [table[name] for name in _columns(config)]
    if any(column.null_count for column in columns):
        raise ConfigError(
            f"curate.score is {config.score}, but rows were scored without it; "
            "set score.method to both and generate again, or choose the other score"
        )
    a_N, b_N = (np.round(column.to_numpy().astype(np.float64), _DECIMALS) for column in columns)
    return a_N, b_N


def _exchange(table: pa.Table, swapped: pa.Array) -> pa.Table:
    """Entailment and contradiction columns exchanged where `swapped`."""
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
