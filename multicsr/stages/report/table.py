"""Summary of a run for the terminal: row counts per stage, and the encoder before and after training."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.separation import Separation
from multicsr.stages.evaluate import read_evaluation, render, verdicts
from multicsr.stages.report.collect import StageSummary, stage_summaries
from multicsr.stages.report.training import read_training
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
        *_choice(snapshot),
        *([render(evaluation)] if evaluation else []),
        *(verdicts(evaluation) if evaluation else []),
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


def _choice(snapshot: Snapshot) -> "Iterator[Table | str]":
    """Yield the candidates between the encoder as it was and the trained one, and the choice among them."""
    from rich.table import Table

    training = read_training(snapshot)
    if training is None or training.merges is None:
        return
    merges = training.merges
    tasks = [*merges.candidates[0].kept]
    table = Table(title="Trained encoder and the one before", title_justify="left")
    for name in ("trained parameters", merges.chosen_on, *tasks, "same order of similarities"):
        table.add_column(name, justify="right")
    table.add_column("")
    for each in merges.candidates:
        scores = (each.dev, *(each.kept[task] for task in tasks), each.same_similarities)
        note = "chosen" if each is merges.winner else "" if each.is_allowed else "loses too much"
        table.add_row(f"{each.weight:.0%}", *(f"{score:.2f}" for score in scores), note)
    yield table
    yield merges.sentence()


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
