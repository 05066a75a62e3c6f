"""The number of rows that other thresholds of Eq. 4 would keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.thresholds import ScoreDistribution, count_kept, read_distribution
from multicsr.storage.manifest import Manifest
from multicsr.storage.store import Store
from multicsr.storage.versions import current

if TYPE_CHECKING:
    from rich.table import Table

_QUARTILES = (0.25, 0.5, 0.75)


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

    def is_of(self, curation: Curation) -> bool:
        """Return True if these are the thresholds of the configuration."""
        gammas = (None, curation.gamma)
        return (self.alpha, self.beta) == (curation.alpha, curation.beta) and self.gamma in gammas


def sweep(
    store: Store,
    scored: Manifest,
    curation: Curation,
    *,
    alphas: Sequence[float],
    betas: Sequence[float],
    gammas: Sequence[float],
) -> list[Yield]:
    """Count the rows that each combination of thresholds would keep, with one file in memory at a time.

    Args:
        store: the store of the rows.
        scored: manifest of the artifact `scored`.
        curation: rule and score; its own thresholds are not used.
        alphas: values of alpha.
        betas: values of beta.
        gammas: values of gamma; without effect under `rule: reference`.

    Returns:
        One result per combination.

    Raises:
        ConfigError: the rows were scored without the score that `curate.score` selects.
    """
    curation.check_scored(scored)
    ways = [
        curation.model_copy(update={"alpha": alpha, "beta": beta, "gamma": gamma})
        for alpha, beta, gamma in product(alphas, betas, gammas if curation.rule == "paper" else gammas[:1])
    ]
    return [
        Yield(
            way.alpha,
            way.beta,
            way.gamma if curation.rule == "paper" else None,
            count,
            count / max(scored.rows_out, 1),
        )
        for way, count in zip(ways, count_kept(store, scored, ways), strict=True)
    ]


def sweep_table(
    config: Config, alpha: str | None = None, beta: str | None = None, gamma: str | None = None
) -> "Table":
    """Return a table of the scored rows that each combination of thresholds would keep.

    The thresholds of the configuration are among the values and marked, if they are absolute.

    Args:
        config: the configuration of the run; its store is read.
        alpha: values separated by commas, each from 0 to 5; None: quartiles of the scores.
        beta: likewise.
        gamma: likewise; None: the median of the gaps.

    Raises:
        ConfigError: the values are invalid, or the rows were scored without the score that `curate.score`
            selects.
    """
    from rich.table import Table

    texts = {"alphas": alpha, "betas": beta, "gammas": gamma}
    grid = {name: _thresholds(name, text) for name, text in texts.items() if text is not None}
    store = Store.of(config)
    scored = current(store).manifest("scored")
    curation = Curation.of(config, store, scored)
    if len(grid) < len(texts):  # otherwise the quantiles need not be read
        grid = _grid(curation, read_distribution(store, scored, curation)) | grid
    table = Table(title=f"{scored.rows_out:,} scored rows, {curation.rule} rule")
    for name in ("alpha", "beta", "gamma", "kept", "share", ""):
        table.add_column(name, justify="right")
    for row in sweep(store, scored, curation, **grid):
        limits = [f"{row.alpha:g}", f"{row.beta:g}", "-" if row.gamma is None else f"{row.gamma:g}"]
        is_set = curation.keep_share is None and row.is_of(curation)
        table.add_row(*limits, f"{row.kept:,}", f"{row.share:.1%}", "as configured" if is_set else "")
    return table


def _grid(curation: Curation, scores: ScoreDistribution) -> dict[str, list[float]]:
    """Return the values to try: the thresholds of the configuration, and quantiles of the scores."""
    grid = {"alphas": [curation.alpha], "betas": [curation.beta], "gammas": [curation.gamma]}
    if scores.num_rows:
        grid["alphas"] += [scores.quantile("a", level) for level in _QUARTILES]
        grid["betas"] += [scores.quantile("b", level) for level in _QUARTILES]
        grid["gammas"] += [max(0.0, scores.quantile("gap", 0.5))]
    return {name: sorted({*values}) for name, values in grid.items()}


def _thresholds(name: str, text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 <= value <= 5 for value in values):
        raise ConfigError(f"--{name.removesuffix('s')} {text}: write numbers from 0 to 5, such as 2,2.5,3")
    return values
