"""Figures of encoders on tasks: the row's encoder is trained and measured by the runner of `ablate`."""

from collections.abc import Sequence

import pyarrow as pa

from multicsr.errors import ConfigError, NothingKept
from multicsr.pipeline.preflight import require_no_problems
from multicsr.stages.evaluate import Measurement, Score, find_tasks
from multicsr.stages.train.recipe import resolve_recipe
from multicsr.tools.ablate.trainings import FOLDER, VariantRunner, require_one_process
from multicsr.tools.ablate.variants import Method, Variant
from multicsr.tools.reproduce.columns import assign
from multicsr.tools.reproduce.measures.pairs import measure_by_llm
from multicsr.tools.reproduce.measures.work import RowMeasurer, TableWork, config_of
from multicsr.tools.reproduce.paper import PaperColumn
from multicsr.tools.reproduce.plan import RowPlan
from multicsr.tools.reproduce.result import MeasuredCell, RowFigures
from multicsr.tools.reproduce.scale import tasks_of

_TRAINED = (Method.MULTICSR, Method.RANKING_LOSS, Method.GIST_LOSS)


def task_measurer(work: TableWork) -> RowMeasurer:
    """Return the function that trains and measures a row.

    Raises:
        ConfigError: there are no tasks, or the store is no local directory.
    """
    folder = work.store.directory
    if folder is None:
        raise ConfigError("store: the trainings of a table are kept in a local directory; give one")
    found = find_tasks(tasks_of(work.entry, work.inputs))
    runner = VariantRunner(work.base, work.store, folder / FOLDER, found, work.progress)

    def measure(plan: RowPlan) -> RowFigures:
        config = config_of(plan)
        if plan.row.scores_pairs:
            return RowFigures(cells=cells_of(work.entry.columns, [measure_by_llm(config, found.tasks, work)]))
        require_one_process(config.train)
        require_no_problems(["train"], config)
        train = resolve_recipe(config.train)
        triplets = work.reader.table(plan)
        if plan.row.method in _TRAINED:
            _require_a_batch(triplets, train.global_batch)
        variant = Variant(plan.row.name, triplets, train, plan.row.method)
        row = runner.row(variant, work.options.seeds)
        return RowFigures(
            num_triplets=row.num_triplets or None, cells=cells_of(work.entry.columns, row.results)
        )

    return measure


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
        found, _ = assign(columns, {each.score.task: each.score.value})
        about.setdefault(next(iter(found), each.score.task), each.score)
    return {
        name: MeasuredCell(
            values=column,
            metric=about[name].metric if name in about else "mean of the columns",
            num_rows=about[name].num_rows if name in about else 0,
        )
        for name, column in values.items()
    }
