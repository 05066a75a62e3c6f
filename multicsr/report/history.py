"""Nights in the terminal and, over time, as charts of the report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from multicsr.history import Night
from multicsr.report.charts import curve

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 30


def told(night: Night) -> "Table":
    """One night, line by line."""
    from rich.table import Table

    table = Table(title=f"{night.outcome}: version {night.version}", title_justify="left", show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("sentences", f"{night.sentences:,} (new {night.new:,}, gone {night.removed:,})")
    table.add_row("written by the LLM", f"{night.rows_written:,} rows, {night.tokens:,} tokens")
    table.add_row("triplets", f"{night.curated:,} ({night.curated_changed:.1%} changed)")
    table.add_row("model", night.decision)
    for name, value in night.metrics.items():
        before = f", before {night.metrics_before[name]:.2f}" if name in night.metrics_before else ""
        table.add_row(name, f"{value:.2f}{before}")
    gpu = f"{night.gpu_seconds:,.0f} GPU-seconds, cost {night.cost:g}"
    table.add_row("time", f"{night.seconds:,.0f} s, {gpu}")
    return table


def charts(nights: Sequence[Night]) -> list[tuple[str, Markup]]:
    """(caption, chart): every metric over the nights, and what the LLM wrote."""
    names = list(dict.fromkeys(name for night in nights for name in night.metrics))
    found = []
    for name in names:
        points = [(float(i), each.metrics[name]) for i, each in enumerate(nights, 1) if name in each.metrics]
        found.append((f"{name} of the model of that night", curve(name, "night", name, points)))
    written = [(float(i), float(night.rows_written)) for i, night in enumerate(nights, 1)]
    found.append(("Sentences the LLM wrote for", curve("Sentences written for", "night", "rows", written)))
    return found


def latest(nights: Sequence[Night]) -> list[Night]:
    """The nights of the table, the last one first."""
    return list(reversed(nights))[:_SHOWN]
