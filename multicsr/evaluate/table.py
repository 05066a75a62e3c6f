"""An evaluation as a table for the terminal."""

from typing import TYPE_CHECKING

from multicsr.evaluate.evaluation import Evaluation

if TYPE_CHECKING:
    from rich.table import Table


def render(evaluation: Evaluation) -> "Table":
    """Tasks down, encoders across; each encoder after the first with its distance to the first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Evaluation", title_justify="left")
    table.add_column("task")
    table.add_column("metric")
    table.add_column("rows", justify="right")
    for encoder in evaluation.encoders:
        table.add_column(Text(encoder.label), justify="right")
    for scores in zip(*(encoder.scores for encoder in evaluation.encoders), strict=True):
        first = scores[0]
        cells = [f"{first.value:.2f}", *(_with_delta(s.value, first.value) for s in scores[1:])]
        table.add_row(Text(first.task), first.metric, f"{first.num_rows:,}", *cells)
    return table


def _with_delta(value: float, reference: float) -> str:
    delta = value - reference
    colour = "green" if delta > 0 else "red" if delta < 0 else "dim"
    return f"{value:.2f} [{colour}]{delta:+.2f}[/]"
