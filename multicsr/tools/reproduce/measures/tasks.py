"""Figures of encoders on tasks: the row's encoder is trained and measured by the runner of `ablate`."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from multicsr.errors import NothingKept
from multicsr.pipeline.preflight import require_no_problems
from multicsr.stages.evaluate import Measurement, Score, find_tasks
from multicsr.stages.evaluate.comparison import resampled_scores
from multicsr.stages.evaluate.over_seeds import SeededDifference, SeededScores, difference_over_seeds
from multicsr.stages.train.recipe import resolve_recipe
from multicsr.tools.ablate.trainings import VariantRunner, require_one_process
from multicsr.tools.ablate.variants import Variant
from multicsr.tools.methods import SEEDED
from multicsr.tools.reproduce.columns import assign, column_of
from multicsr.tools.reproduce.measures.pairs import measure_by_llm
from multicsr.tools.reproduce.measures.work import RowMeasurer, TableWork
from multicsr.tools.reproduce.paper import PaperColumn
from multicsr.tools.reproduce.plan import RowPlan, config_of
from multicsr.tools.reproduce.result import MeasuredCell, RowFigures
from multicsr.tools.reproduce.scale import tasks_of

Results = Sequence[Sequence[Measurement]]
"""Results in the main metric of each task, for each training."""


def task_measurer(work: TableWork) -> RowMeasurer:
    """Return the function that trains and measures a row.

    Raises:
        ConfigError: there are no tasks.
    """
    found = find_tasks(tasks_of(work.entry, work.inputs))
    runner = VariantRunner(work.base, work.store, work.folder, found, work.progress, "a table of the paper")
    last: Results | None = None

    def measure(plan: RowPlan) -> RowFigures:
        nonlocal last
        # A row that fails has no results, so that the row below it is compared with nothing.
        above, last = last, None
        config = config_of(plan)
        if plan.row.scores_pairs:
            last = [measure_by_llm(config, found.tasks, work)]
            return RowFigures(cells=_compared(work.entry.columns, last, above))
        require_one_process(config.train)
        require_no_problems(["train"], config)
        train = resolve_recipe(config.train)
        triplets = work.reader.table(plan)
        if plan.row.method in SEEDED:
            _require_a_batch(triplets, train.global_batch)
        variant = Variant(plan.row.name, triplets, train, plan.row.method)
        row = runner.row(variant, work.options.num_seeds)
        last = row.results
        cells = _compared(work.entry.columns, row.results, above)
        return RowFigures(num_triplets=row.num_triplets or None, cells=cells)

    return measure


def _compared(
    columns: Sequence[PaperColumn], results: Results, above: Results | None
) -> dict[str, MeasuredCell]:
    """Return the figures of a row with their differences from the row above, if that has results."""
    cells = cells_of(columns, results)
    if above is None:
        return cells
    for number, measurement in enumerate(results[0]):
        column = column_of(columns, measurement.score.task)
        if column is not None and column.parts:
            continue
        if (compared := difference(results, above, number)) is not None:
            name = measurement.score.task if column is None else column.name
            update = {"difference": compared.difference, "low": compared.low, "high": compared.high}
            cells[name] = cells[name].model_copy(update=update)
    return cells


def difference(results: Results, above: Results, number: int) -> SeededDifference | None:
    """Return the difference of two rows on one task; None if they have not the same examples.

    Args:
        results: results of a row, those of each training.
        above: results of the row that it is compared with.
        number: number of the task in these results.
    """
    scores = []
    for rows in (results, above):
        of_task = [of_training[number] for of_training in rows if number < len(of_training)]
        resampled_SR = resampled_scores(of_task) if of_task else None
        if resampled_SR is None or of_task[0].score.task != results[0][number].score.task:
            return None
        scores.append(
            (of_task[0].score, SeededScores(np.array([each.score.value for each in of_task]), resampled_SR))
        )
    (score, here), (other, there) = scores
    if (score.metric, score.num_rows) != (other.metric, other.num_rows):
        return None
    return difference_over_seeds(here, there, score.num_rows)


def _require_a_batch(triplets: pa.Table, batch: int) -> None:
    """Raise NothingKept if the triplets do not fill a batch; fewer of them are a result of the thresholds."""
    if len(triplets) < batch:
        raise NothingKept(f"{len(triplets):,} triplets are left, fewer than a batch of {batch:,}")


def cells_of(
    columns: Sequence[PaperColumn], results: Sequence[Sequence[Measurement]]
) -> dict[str, MeasuredCell]:
    """Return the figures by column; tasks that are no column of the paper are columns of their own.

    Args:
        columns: columns of the paper.
        results: results in the main metric of each task, for each training.
    """
    values: dict[str, list[float]] = {}
    for of_training in results:
        by_task = {each.score.task: each.score.value for each in of_training}
        found, others = assign(columns, by_task)
        for name, value in (found | {task: by_task[task] for task in others}).items():
            values.setdefault(name, []).append(value)
    about: dict[str, Score] = {}
    for each in results[0]:
        column = column_of(columns, each.score.task)
        about.setdefault(each.score.task if column is None else column.name, each.score)
    return {
        name: MeasuredCell(
            values=of_column,
            metric=about[name].metric if name in about else "mean of the columns",
            num_rows=about[name].num_rows if name in about else 0,
        )
        for name, of_column in values.items()
    }
