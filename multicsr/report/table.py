"""The end of a run in the terminal: where every row went, and the encoder before and after training."""

from typing import TYPE_CHECKING

from multicsr.evaluate import read_evaluation, render
from multicsr.report.collect import StageSummary, stage_summaries
from multicsr.versions import Rooms

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


def summary(rooms: Rooms) -> "Group":
    """Tables of the stages that were completed and, when there is one, of the evaluation.

    Raises:
        RunError: a manifest or the evaluation is damaged.
    """
    from rich.console import Group

    evaluation = read_evaluation(rooms)
    tables = [_stages(stage_summaries(rooms)), *([render(evaluation)] if evaluation else [])]
    return Group(*tables)


def _stages(stages: list[StageSummary]) -> "Table":
    from rich.table import Table

    table = Table(title="Rows", title_justify="left", show_lines=True)
    table.add_column("stage")
    for name in ("in", "kept", "rejected", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why rejected", no_wrap=True)
    for stage in stages:
        table.add_row(
            stage.title,
            f"{stage.rows_in:,}",
            f"{stage.rows_out:,}",
            f"{stage.num_rejected:,}",
            f"{stage.seconds:,.1f}",
            "\n".join(f"{rows:,} {reason}" for reason, rows in stage.rejected),
        )
    return table
