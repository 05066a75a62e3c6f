"""Refresh runs: one in the terminal, and all of them as charts of the report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from multicsr.stages.report.charts import curve
from multicsr.storage.refresh_log import RefreshRun

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 30
"""Maximum number of refresh runs in the report's table."""


def as_table(refresh_run: RefreshRun) -> "Table":
    """Return a table of one refresh run, one property per line."""
    from rich.table import Table

    table = Table(
        title=f"{refresh_run.outcome}: version {refresh_run.version}", title_justify="left", show_header=False
    )
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row(
        "sentences", f"{refresh_run.sentences:,} (new {refresh_run.new:,}, gone {refresh_run.removed:,})"
    )
    table.add_row("written by the LLM", f"{refresh_run.rows_written:,} rows, {refresh_run.tokens:,} tokens")
    table.add_row("triplets", f"{refresh_run.curated:,} ({refresh_run.curated_changed:.1%} changed)")
    table.add_row("model", refresh_run.decision)
    for name, value in refresh_run.metrics.items():
        before = (
            f", before {refresh_run.metrics_before[name]:.2f}" if name in refresh_run.metrics_before else ""
        )
        table.add_row(name, f"{value:.2f}{before}")
    gpu = f"{refresh_run.gpu_seconds:,.0f} GPU-seconds, cost {refresh_run.cost:g}"
    table.add_row("time", f"{refresh_run.seconds:,.0f} s, {gpu}")
    return table


def charts(refresh_runs: Sequence[RefreshRun]) -> list[tuple[str, Markup]]:
    """Draw each metric and the number of rows that the LLM wrote, over the refresh runs.

    Args:
        refresh_runs: refresh runs, oldest first.

    Returns:
        Pairs (caption, chart).
    """
    names = list(dict.fromkeys(name for refresh_run in refresh_runs for name in refresh_run.metrics))
    found = []
    for name in names:
        points = [
            (float(i), each.metrics[name]) for i, each in enumerate(refresh_runs, 1) if name in each.metrics
        ]
        found.append((f"{name} of the model of each refresh run", curve(name, "refresh run", name, points)))
    written = [(float(i), float(refresh_run.rows_written)) for i, refresh_run in enumerate(refresh_runs, 1)]
    found.append(
        ("Sentences the LLM wrote for", curve("Sentences written for", "refresh run", "rows", written))
    )
    return found


def latest(refresh_runs: Sequence[RefreshRun]) -> list[RefreshRun]:
    """Return the refresh runs for the report's table, the newest first."""
    return list(reversed(refresh_runs))[:_SHOWN]
