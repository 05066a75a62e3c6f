"""The number of rows that other thresholds of Eq. 4 would keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from multicsr.config import Config, CurateConfig
from multicsr.errors import ConfigError
from multicsr.stages.curate.rule import check_method, read_scores, rejections_of, score_columns
from multicsr.storage.manifest import Manifest, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Yield:
    """Number of rows that one choice of thresholds would keep."""

    alpha: float
    beta: float
    gamma: float | None
    """Threshold on the gap; None under `rule: reference`, which has no such threshold."""
    kept: int
    """Number of rows kept."""
    share: float
    """Share of the scored rows that is kept, in [0, 1]."""


def sweep(
    store: Store,
    scored: Manifest,
    config: CurateConfig,
    *,
    alphas: Sequence[float],
    betas: Sequence[float],
    gammas: Sequence[float],
) -> list[Yield]:
    """Count the rows that each combination of thresholds would keep, with one file in memory at a time.

    Args:
        store: the store of the rows.
        scored: manifest of the artifact `scored`.
        config: rule and score; its own thresholds are not used.
        alphas: values of alpha.
        betas: values of beta.
        gammas: values of gamma; without effect under `rule: reference`.

    Returns:
        One result per combination.

    Raises:
        ConfigError: the rows were scored without the score that `curate.score` selects.
    """
    check_method(config, scored)
    ways = [
        config.model_copy(update={"alpha": alpha, "beta": beta, "gamma": gamma})
        for alpha, beta, gamma in product(alphas, betas, gammas if config.rule == "paper" else gammas[:1])
    ]
    kept = [0] * len(ways)
    for table in iter_tables(store, scored, score_columns(config)):
        a_N, b_N, _ = read_scores(table, config)
        if config.rule == "reference":
            a_N, b_N = np.maximum(a_N, b_N), np.minimum(a_N, b_N)
        for i, way in enumerate(ways):
            rejected_N = np.logical_or.reduce([rejected_N for _, rejected_N in rejections_of(a_N, b_N, way)])
            kept[i] += int(np.count_nonzero(~rejected_N))
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


def sweep_table(config: Config, alpha: str, beta: str, gamma: str) -> "Table":
    """Return a table of the scored rows that each combination of thresholds would keep.

    Args:
        config: the configuration of the run; its store is read.
        alpha: values separated by commas, each from 0 to 5.
        beta: likewise.
        gamma: likewise.

    Raises:
        ConfigError: the values are invalid, or the rows were scored without the score that `curate.score`
            selects.
    """
    from rich.table import Table

    store = Store.of(config)
    scored = current(store).manifest("scored")
    table = Table(title=f"{scored.rows_out:,} scored rows, {config.curate.rule} rule")
    for name in ("alpha", "beta", "gamma", "kept", "share"):
        table.add_column(name, justify="right")
    grid = {
        name: _thresholds(name, text)
        for name, text in (("alphas", alpha), ("betas", beta), ("gammas", gamma))
    }
    for row in sweep(store, scored, config.curate, **grid):
        limits = [f"{row.alpha:g}", f"{row.beta:g}", "-" if row.gamma is None else f"{row.gamma:g}"]
        table.add_row(*limits, f"{row.kept:,}", f"{row.share:.1%}")
    return table


def _thresholds(name: str, text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 <= value <= 5 for value in values):
        raise ConfigError(f"--{name.removesuffix('s')} {text}: write numbers from 0 to 5, such as 2,2.5,3")
    return values
