"""An evaluation as a table for the terminal."""

from typing import TYPE_CHECKING

from multicsr.stages.evaluate.encoders import Evaluation

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def render(evaluation: Evaluation) -> "Table":
    """Return a table with one row per task and one column per encoder.

    Each encoder after the first is shown with its difference from the first.
    """
    from rich.table import Table

    table = Table(title="Evaluation", title_justify="left")
    table.add_column("task")
    table.add_column("metric")
    table.add_column("rows", justify="right")
    for encoder in evaluation.encoders:
        table.add_column(encoder.label, justify="right")
    for scores in zip(*(encoder.scores for encoder in evaluation.encoders), strict=True):
        first = scores[0]
        cells: list[str | Text] = [
            f"{first.value:.2f}",
            *(_with_delta(s.value, first.value) for s in scores[1:]),
        ]
        table.add_row(first.task, first.metric, f"{first.num_rows:,}", *cells)
    return table


def _with_delta(value: float, reference: float) -> "Text":
    from rich.text import Text

    delta = value - reference
    colour = "green" if delta > 0 else "red" if delta < 0 else "dim"
    return Text.assemble(f"{value:.2f} ", (f"{delta:+.2f}", colour))
