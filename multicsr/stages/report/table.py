"""Summary of a run for the terminal: row counts per stage, and the encoder before and after training."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.separation import Separation
from multicsr.stages.evaluate import read_evaluation, render
from multicsr.stages.report.collect import StageSummary, stage_summaries
from multicsr.storage.versions import Snapshot

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


def summary(snapshot: Snapshot) -> "Group":
    """Return tables of the completed stages and of the evaluation, and lines on the scores.

    Raises:
        RunError: a manifest or the evaluation is damaged.
    """
    from rich.console import Group

    evaluation = read_evaluation(snapshot)
    stages = stage_summaries(snapshot)
    return Group(
        _stages(stages),
        *(f"{stage.title}: {line}" for stage in stages for line in stage.findings),
        *_scores(snapshot),
        *([render(evaluation)] if evaluation else []),
    )


def _scores(snapshot: Snapshot) -> Iterator[str]:
    """Yield how well the scores tell entailments from contradictions, and how they agree with people."""
    if "curated" not in snapshot:
        return
    curated = snapshot.manifest("curated")
    if separation := Separation.from_counters(curated.counters):
        yield f"Scores: {separation}; 50% is chance"
    curation = Curation.stored(curated)
    if curation is not None and curation.calibration is not None:
        yield f"Calibration: {curation.calibration}"


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
